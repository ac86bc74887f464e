"""Where wanted items stand in full rankings, and the metrics of that: no sorting, no top-k, no loop over people."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.ranking import top

BLOCK_BYTES = 2**20
"""Comparisons held at once: as many as stay in a core's cache."""

Places = NDArray[np.float64]
Values = NDArray[np.float64]
Users = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Items that people have, sorted by person.

    users : int64, shape (n,), ascending
    items : int64, shape (n,), indices into the catalogue
    """

    users: Users
    items: NDArray[np.int64]

    def between(self, first: int, last: int) -> "Pairs":
        """The pairs of the people ``first:last``, who are numbered from 0 then."""
        rows = slice(*np.searchsorted(self.users, [first, last]))
        return Pairs(self.users[rows] - first, self.items[rows])

    def take(self, users: Users) -> "Pairs":
        """The pairs of some people, given in ascending order, who are numbered from 0 then."""
        kept = np.isin(self.users, users)
        return Pairs(np.searchsorted(users, self.users[kept]), self.items[kept])

    def among(self, others: "Pairs") -> NDArray[np.bool_]:
        """Which of these pairs are others' too, bool, shape (n,)."""
        width = 2 + max(self.items.max(initial=0), others.items.max(initial=0))
        return np.isin(self.users * width + self.items, others.users * width + others.items)


def places(scores: NDArray[np.float32], wanted: Pairs, seen: Pairs) -> Places:
    """Where each wanted item stands by its score, 1 being the top: float64, shape (2, n_wanted).

    The first row counts among all items, ``n_items - #(scores below it)``; the second (masked) among those that the
    person has not seen, and says nothing of an item that was. Equal scores share the last of their places, and NaN
    comes last: a model never gains by leaving an order open, equal scores for all are the worst ranking, and what is
    reported is the least that any way of breaking ties would give.

    scores : float32, shape (n_users, n_items), higher is better
    wanted : of ``n_users`` people; an item -1 is not in the catalogue and stands at infinity
    seen : each pair once

    >>> wanted, seen = Pairs(np.array([0, 0]), np.array([0, 2])), Pairs(np.array([0]), np.array([1]))
    >>> places(np.array([[.3, .9, .5, .5]], np.float32), wanted, seen)
    array([[4., 3.],
           [3., 2.]])
    """
    slots = _numbered(wanted.users)
    targets = np.full((len(scores), slots.max(initial=0) + 1), np.nan, scores.dtype)
    targets[wanted.users, slots] = scores[wanted.users, wanted.items]
    n_not_below = _n_not_below(scores, targets, seen)[:, wanted.users, slots]
    return np.where(wanted.items < 0, np.inf, n_not_below)


def _n_not_below(scores: NDArray[np.float32], targets: NDArray[np.float32], seen: Pairs) -> NDArray[np.int64]:
    """Items that reach each target, all of them and those not seen, int64, shape (2, n_users, n_targets)."""
    n_users, n_items = scores.shape
    found = np.empty((2, *targets.shape), np.int64)
    step = max(1, BLOCK_BYTES // max(1, n_items * targets.shape[1]))
    for first in range(0, n_users, step):
        rows = slice(first, first + step)
        below = scores[rows, None, :] < targets[rows, :, None]
        found[0, rows] = n_items - _count(below)
        known = seen.between(first, first + step)
        below[known.users, :, known.items] = True
        found[1, rows] = n_items - _count(below)
    return found


def _count(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many are set along the last axis; several times as fast as ``sum`` or ``count_nonzero``."""
    counts: NDArray[np.int64] = np.bitwise_count(np.packbits(flags, axis=-1)).sum(axis=-1, dtype=np.int64)
    return counts


def _numbered(users: Users) -> NDArray[np.int64]:
    """The number of each entry among those of the same person, from 0.

    >>> _numbered(np.array([0, 0, 2]))
    array([0, 1, 0])
    """
    return np.arange(len(users)) - np.searchsorted(users, users)


def recall(places: Places, users: Users, k: int) -> Values:
    """Share of a person's wanted items among the first ``k``, shape (n_users,).

    places, users : shape (n_wanted,), sorted by person; each of the people 0, 1 ... has at least one

    >>> recall(np.array([1.0, 12.0]), np.array([0, 0]), k=10)
    array([0.5])
    """
    return np.bincount(users, places <= k) / np.bincount(users)


def ndcg(places: Places, users: Users, k: int) -> Values:
    """Normalised discounted cumulative gain with binary relevance, shape (n_users,).

    ``DCG = sum of 1 / log2(place + 1)`` over the first ``k``, divided by that of a list that begins with the wanted.
    Source: Jarvelin, Kekalainen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002.

    >>> ndcg(np.array([1.0, 2.0]), np.array([0, 1]), k=10).round(4)
    array([1.    , 0.6309])
    """
    gains = np.where(places <= k, 1 / np.log2(places + 1), 0)
    ideal = np.cumsum(1 / np.log2(np.arange(2, k + 2)))
    normalised: Values = np.bincount(users, gains) / ideal[np.minimum(np.bincount(users), k) - 1]
    return normalised


def mrr(places: Places, users: Users, k: int) -> Values:
    """Reciprocal place of the first wanted item, 0 beyond ``k``, shape (n_users,).

    >>> mrr(np.array([5.0, 2.0, 11.0]), np.array([0, 0, 1]), k=10)
    array([0.5, 0. ])
    """
    best = np.minimum.reduceat(places, np.flatnonzero(np.diff(users, prepend=-1)))
    return np.where(best <= k, 1 / best, 0)


def average_precision(places: Places, users: Users, k: int) -> Values:
    """Mean precision at the places of the wanted items among the first ``k``, shape (n_users,); its mean is MAP.

    Divided by the number of wanted items or by ``k``, whichever is smaller, so that 1 can be reached.

    >>> average_precision(np.array([4.0, 1.0]), np.array([0, 0]), k=10)
    array([0.75])
    """
    ordered = places[np.lexsort((places, users))]
    precision = np.where(ordered <= k, (_numbered(users) + 1) / ordered, 0)
    return np.bincount(users, precision) / np.minimum(np.bincount(users), k)


Metric = Callable[[Places, Users, int], Values]

METRICS: Mapping[str, Metric] = {"recall": recall, "ndcg": ndcg, "mrr": mrr, "map": average_precision}
"""By the name that stands before ``_at_10`` in tables."""


def best(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """The ``k`` best items of each person in no order, shape (n_users, k); -1 where there are fewer above -inf.

    >>> best(np.array([[.1, -np.inf, .3]], np.float32), 3)
    array([[-1,  0,  2]])
    """
    items = top(scores, k)
    return np.where(np.take_along_axis(scores, items, axis=1) > -np.inf, items, -1)
