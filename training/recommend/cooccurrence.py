"""Fits what goes with what: pairs of items that one person chose, the more the nearer in order they were chosen."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import sparse

from features.histories import EventWeights, Log
from serving.tiers import Neighbours, Scores, moments
from training.config import Config, PositiveInt
from training.device import Device

BLOCK = 2048
"""Items whose neighbours are looked for at once."""

Similar = tuple[int, NDArray[np.integer], Scores]
"""An item, others, and how well each goes with it."""

Exponent = Annotated[float, Field(ge=0, le=2)]


class PairConfig(Config):
    """What a pair of events counts: ``gap ** -gap_power``, a gap being the number of moments from one to the other.

    What was chosen at the same moment, as the lines of an order are, counts as if chosen next.
    """

    window: PositiveInt = 20
    """Moments that a pair may lie apart."""
    gap_power: Exponent = 0.75
    """How fast a pair counts less with its gap; 0: not at all."""
    backward: Annotated[float, Field(ge=0, le=1)] = 0.2
    """What a pair counts from the later item to the earlier one; 1: order does not matter."""


class CooccurrenceConfig(PairConfig):
    """Settings of the co-occurrence tier."""

    within: Literal["history", "visit"] = "history"
    """Where two items count as chosen together: by one person (also viewed), or in one order or visit (bought
    together, of which order and gaps are not looked at)."""
    item_power: Exponent = 0.5
    """How much an item's neighbours are scaled down by how often it was itself chosen."""
    neighbour_power: Exponent = 0.1
    """How much a neighbour is scaled down by how often it was chosen; 0.5 with ``item_power`` 0.5 is the cosine."""
    history_power: Exponent = 0.0
    """How much less a pair counts the more events its person has, or its order; 1: everybody counts the same."""
    min_support: Annotated[float, Field(ge=0)] = 0.0
    """What the pairs of two items must count together for them to be neighbours."""
    min_lift: Annotated[float, Field(ge=0)] = 0.0
    """How many times as often as by chance two items must be chosen together to be neighbours."""
    n_neighbours: Annotated[int, Field(gt=0, le=1000)] = 200
    """Neighbours kept per item."""
    position_decay: Annotated[float, Field(gt=0, le=1)] = 0.6
    """An event after which there were m other moments counts this to the power of m when recommending."""


def fit(log: Log, config: CooccurrenceConfig, events: EventWeights, _: Device) -> Neighbours:
    """Neighbours by ``pairs_ij / (count_i ** item_power * count_j ** neighbour_power)``.

    Source: Sarwar et al., "Item-based collaborative filtering recommendation algorithms", WWW 2001, section 3.1;
    order and gaps as the sequential rules of Ludewig, Jannach, "Evaluation of session-based recommendation
    algorithms", UMUAI 2018, section 3.1.
    """
    if config.within == "visit":
        chosen, weights = choices(log, log.visits, events), None
        owners = np.arange(chosen.shape[0])
    else:
        owners = moment_users(log)
        chosen, weights = choices(log, moments(log.histories), events), pair_weights(owners, config)
    chosen = shared_out(chosen, owners, config.history_power)
    neighbours, similarities = best(rules(chosen, weights, config), log.n_items, config.n_neighbours)
    return Neighbours(neighbours, similarities, events.weights, events.half_life_days, config.position_decay)


def rules(chosen: sparse.csr_array, weights: sparse.csr_array | None, config: CooccurrenceConfig) -> Iterator[Similar]:
    """What goes with each item; a block of items at a time, so that memory holds the pairs of one block alone.

    chosen, weights : as from ``choices`` and ``pair_weights``; without weights only what was chosen together counts
    """
    by_item, counts = chosen.T.tocsr(), event_counts(chosen)
    n_groups = float(chosen.max(axis=1).power(2).sum())
    for start in range(0, chosen.shape[1], BLOCK):
        rows = by_item[start : start + BLOCK]
        pairs = together(rows, chosen, start)
        if weights is not None:
            pairs += rows @ weights @ chosen
        for item, first, last in zip(itertools.count(start), pairs.indptr[:-1], pairs.indptr[1:]):
            others, count = pairs.indices[first:last], pairs.data[first:last]
            by_chance = counts[item] * counts[others] / n_groups
            kept = (count > 0) & (count >= config.min_support) & (count >= config.min_lift * by_chance)
            scale = counts[item] ** config.item_power * counts[others[kept]] ** config.neighbour_power
            yield item, others[kept], count[kept] / scale


def together(rows: sparse.csr_array, chosen: sparse.csr_array, first: int = 0) -> sparse.csr_array:
    """What pairs of different items count that were chosen at once, of the items from ``first`` on with all.

    rows : those items' columns of ``chosen``, transposed
    """
    pairs = (rows @ chosen).tocsr()
    return (pairs - sparse.diags_array(pairs.diagonal(first), offsets=first, shape=pairs.shape)).tocsr()


def best(found: Iterable[Similar], n_items: int, n_neighbours: int) -> tuple[NDArray[np.int32], Scores]:
    """The strongest neighbours of each item and how well they go with it, both (n_items, n_neighbours).

    An item that is not found, and the places that are left over, have similarity zero.
    """
    neighbours = np.zeros((n_items, n_neighbours), np.int32)
    similarities = np.zeros((n_items, n_neighbours), np.float32)
    for item, others, values in found:
        n = min(n_neighbours, len(values))
        strength = -np.abs(values)
        chosen = np.argpartition(strength, n - 1)[:n] if n < len(values) else np.arange(n)
        chosen = chosen[np.argsort(strength[chosen], kind="stable")]
        neighbours[item, :n], similarities[item, :n] = others[chosen], values[chosen]
    return neighbours, similarities


def choices(log: Log, groups: NDArray[np.integer], events: EventWeights) -> sparse.csr_array:
    """Which items were chosen together, float32, shape (n_groups, n_items).

    groups : shape (n_events,), numbers of what makes events belong together, such as ``log.visits``
    An entry is the root of what the item's strongest event in the group counts now, so that a pair counts the
    geometric mean of its events.
    """
    shape = (int(groups.max(initial=-1)) + 1, log.n_items)
    roots = np.sqrt(events.affinities(log.histories))
    places = groups.astype(np.int64) * log.n_items + log.histories.items
    order = np.lexsort((roots, places))
    strongest = order[np.append(np.diff(places[order]) > 0, True)[: len(order)]]
    chosen = sparse.csr_array((roots[strongest], (groups[strongest], log.histories.items[strongest])), shape=shape)
    chosen.eliminate_zeros()
    return chosen


def shared_out(chosen: sparse.csr_array, owners: NDArray[np.int64], power: float) -> sparse.csr_array:
    """The same choices, counting ``n ** -power`` per pair where their owner has n events.

    owners : shape (n_groups,), ascending

    >>> shared_out(sparse.csr_array(np.ones((3, 2), np.float32)), np.array([0, 0, 1]), 1.0).toarray()
    array([[0.5       , 0.5       ],
           [0.5       , 0.5       ],
           [0.70710677, 0.70710677]], dtype=float32)
    """
    n_events = np.bincount(owners, np.diff(chosen.indptr))[owners].clip(min=1)
    return sparse.diags_array((n_events ** (-power / 2)).astype(np.float32)) @ chosen


def event_counts(chosen: sparse.csr_array) -> NDArray[np.float32]:
    """What the events of each item count together, float32, shape (n_items,)."""
    counts: NDArray[np.float32] = chosen.power(2).sum(axis=0)
    return counts


def moment_users(log: Log) -> NDArray[np.int64]:
    """Whose each moment is, int64, shape (n_moments,)."""
    _, first = np.unique(moments(log.histories), return_index=True)
    return log.histories.users[first]


def pair_weights(users: NDArray[np.int64], config: PairConfig) -> sparse.csr_array:
    """What each pair of moments counts, the earlier in the row, float32, shape (n_moments, n_moments)."""
    forward = later(users, np.arange(1, config.window + 1, dtype=np.float32) ** -config.gap_power)
    return forward + np.float32(config.backward) * forward.T


def later(users: NDArray[np.int64], weights: NDArray[np.float32]) -> sparse.csr_array:
    """``weights[g - 1]`` where the moment of the column comes g after that of the row in one person's history.

    >>> later(np.array([0, 0, 0, 1]), np.array([1.0, 0.5])).toarray()
    array([[0. , 1. , 0.5, 0. ],
           [0. , 0. , 1. , 0. ],
           [0. , 0. , 0. , 0. ],
           [0. , 0. , 0. , 0. ]])
    """
    gaps = range(1, min(len(weights), len(users) - 1) + 1)
    rows = [np.flatnonzero(users[:-gap] == users[gap:]).astype(np.int32) for gap in gaps]
    lengths = [len(found) for found in rows]
    earlier = np.concatenate([np.empty(0, np.int32), *rows])
    columns = earlier + np.repeat(np.array(gaps, np.int32), lengths)
    values = np.repeat(weights[: len(gaps)], lengths)
    return sparse.csr_array((values, (earlier, columns)), shape=(len(users), len(users)))
