"""Metrics of ranked lists against the set of relevant items; every user counts once."""

import numpy as np
from numpy.typing import NDArray

Hits = NDArray[np.bool_]


def hits(ranked: list[NDArray[np.int64]], relevant: list[set[int]], k: int) -> Hits:
    """Which of each user's first ``k`` recommendations were relevant: bool, shape (n_users, k).

    >>> hits([np.array([3, 1])], [{1, 2}], 2)
    array([[False,  True]])
    """
    found = np.zeros((len(ranked), k), bool)
    for user, (items, wanted) in enumerate(zip(ranked, relevant, strict=True)):
        found[user, : len(items[:k])] = [item in wanted for item in items[:k].tolist()]
    return found


def recall(found: Hits, n_relevant: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of the relevant items that were recommended, shape (n_users,).

    >>> recall(np.array([[False, True]]), np.array([2]))
    array([0.5])
    """
    shares: NDArray[np.float64] = found.sum(axis=1) / n_relevant
    return shares


def ndcg(found: Hits, n_relevant: NDArray[np.int64]) -> NDArray[np.float64]:
    """Normalised discounted cumulative gain with binary relevance, shape (n_users,).

    ``DCG = sum_i hit_i / log2(i + 1)``, divided by that of a list which begins with the relevant items.
    Source: Jarvelin, Kekalainen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002.

    >>> ndcg(np.array([[True, False], [False, True]]), np.array([1, 1])).round(4)
    array([1.    , 0.6309])
    """
    discounts = 1 / np.log2(np.arange(found.shape[1]) + 2)
    ideal = np.cumsum(discounts)[np.minimum(n_relevant, found.shape[1]) - 1]
    gains: NDArray[np.float64] = (found @ discounts) / ideal
    return gains
