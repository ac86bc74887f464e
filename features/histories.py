"""What people did with which items, in order of time, as arrays that recommenders are fitted on and asked with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.engine import Engine
from features.windows import FIRST_INSTANT, Window

KINDS = ("view_item", "add_to_cart", "purchase")
"""Events that a history holds; ``Histories.kinds`` speaks of their places."""

DAY = np.timedelta64(1, "D")


@dataclass(frozen=True, slots=True)
class Histories:
    """The events of several people, one after the other, each in order of time.

    starts : int64, shape (n_users + 1,); the events of user u are ``starts[u]:starts[u + 1]``
    items : int32, shape (n,), indices into the catalogue
    kinds : int8, shape (n,), places in ``KINDS``
    ages : float32, shape (n,), days from the event to the moment of asking, >= 0
    """

    starts: NDArray[np.int64]
    items: NDArray[np.int32]
    kinds: NDArray[np.int8]
    ages: NDArray[np.float32]

    @classmethod
    def of(cls, items: Sequence[int], kind: str = "purchase") -> Self:
        """One person's history of just now.

        >>> Histories.of([3, 1]).n_users
        1
        """
        n = len(items)
        return cls(
            np.array([0, n]),
            np.array(items, np.int32),
            np.full(n, KINDS.index(kind), np.int8),
            np.zeros(n, np.float32),
        )

    @classmethod
    def since(cls, items: Sequence[int], kinds: Sequence[str], ages: Sequence[float]) -> Self:
        """One person's history, in order of time; ages in days."""
        places = [KINDS.index(kind) for kind in kinds]
        starts = np.array([0, len(items)])
        return cls(starts, np.array(items, np.int32), np.array(places, np.int8), np.array(ages, np.float32))

    @classmethod
    def each_of(cls, items: NDArray[np.integer], kind: str) -> Self:
        """One history of a single event of just now for each item."""
        n = len(items)
        kinds, ages = np.full(n, KINDS.index(kind), np.int8), np.zeros(n, np.float32)
        return cls(np.arange(n + 1), items.astype(np.int32), kinds, ages)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def n_users(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Events per person, int64, shape (n_users,)."""
        return np.diff(self.starts)

    @property
    def users(self) -> NDArray[np.int64]:
        """Whose event it is, int64, shape (n,)."""
        return np.repeat(np.arange(self.n_users), self.lengths)

    @property
    def from_last(self) -> NDArray[np.int64]:
        """Events of the same person that follow, int64, shape (n,); 0 for each person's last.

        >>> Histories.of([5, 6, 7]).from_last
        array([2, 1, 0])
        """
        return np.repeat(self.starts[1:], self.lengths) - 1 - np.arange(len(self))

    def take(self, users: NDArray[np.integer]) -> "Histories":
        """The histories of some people, in the order asked for."""
        lengths = self.lengths[users]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        rows = np.repeat(self.starts[users] - starts[:-1], lengths) + np.arange(starts[-1])
        return Histories(starts, self.items[rows], self.kinds[rows], self.ages[rows])

    def where(self, kept: NDArray[np.bool_]) -> "Histories":
        """The same people with some of their events, bool, shape (n,)."""
        starts = np.concatenate([[0], np.cumsum(kept)])[self.starts]
        return Histories(starts, self.items[kept], self.kinds[kept], self.ages[kept])

    def followed_by(self, later: "Histories", days: float) -> "Histories":
        """One person's history and what came after it, ``days`` after the moment that its ages count to.

        >>> Histories.of([5]).followed_by(Histories.of([6]), 2.0).ages
        array([2., 0.], dtype=float32)
        """
        return Histories(
            np.array([0, len(self) + len(later)]),
            np.concatenate([self.items, later.items]),
            np.concatenate([self.kinds, later.kinds]),
            np.concatenate([self.ages + np.float32(days), later.ages]),
        )

    def last(self, n: int) -> "Histories":
        """The last ``n`` events of each person."""
        return self.where(self.from_last < n)


def rectangles(
    starts: NDArray[np.int64], lengths: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """Stretches of events in groups of similar length, so that little is padded; empty ones are left out.

    starts, lengths : int64, shape (n,): where each stretch begins and how many events it has
    Yields, for lengths up to 4, 8, 16 ..., the stretches' numbers, int64 (m,), the places of their events, int64
    (m, length), in which the last is repeated to the group's length, and the column of each last, int64 (m,).

    >>> for numbers, places, last in rectangles(np.array([0, 3]), np.array([3, 2])):
    ...     print(numbers, places.tolist(), last)
    [0 1] [[0, 1, 2], [3, 4, 4]] [2 1]
    """
    groups = np.where(lengths > 0, np.ceil(np.log2(np.maximum(lengths, 4))), 0)
    for group in np.unique(groups[groups > 0]):
        numbers = np.flatnonzero(groups == group)
        last = lengths[numbers] - 1
        yield numbers, starts[numbers, None] + np.minimum(np.arange(last.max() + 1), last[:, None]), last


@dataclass(frozen=True, slots=True)
class EventWeights:
    """What an event of each kind counts, and after how many days it counts half.

    weights : float32, shape (n_kinds,), >= 0, in the order of ``KINDS``
    half_life_days : float32, shape (n_kinds,), > 0
    """

    weights: NDArray[np.float32]
    half_life_days: NDArray[np.float32]

    def affinities(self, histories: Histories) -> NDArray[np.float32]:
        """What each event counts at the moment of asking, float32, shape (n,)."""
        halvings = histories.ages / self.half_life_days[histories.kinds]
        affinities: NDArray[np.float32] = self.weights[histories.kinds] * np.exp2(-halvings)
        return affinities


@dataclass(frozen=True, slots=True)
class Log:
    """Everything that a recommender is fitted on.

    user_ids, item_ids : sorted ids, of which the indices speak; an item may have no event
    histories : of all users, in their order, none empty; ages count from ``as_of``
    visits : int32, shape (n,), number of the order or visit to which an event belongs
    attributes : of the items
    """

    user_ids: list[str]
    item_ids: list[str]
    histories: Histories
    visits: NDArray[np.int32]
    attributes: "Attributes"

    @property
    def n_items(self) -> int:
        return len(self.item_ids)


@dataclass(frozen=True, slots=True)
class Attributes:
    """Which values (brands, categories ...) items have, in coordinate form.

    items : int32, shape (n,), sorted
    values : int32, shape (n,), below ``len(names)``; a value is one of one column: two columns never share one
    names : "column=value" of each value
    """

    items: NDArray[np.int32]
    values: NDArray[np.int32]
    names: list[str]

    def padded(self, n_items: int) -> NDArray[np.int32]:
        """The values of each item in a row, int32, shape (n_items, n_slots); ``len(names)`` where there are fewer.

        >>> Attributes(np.array([0, 0]), np.array([2, 0]), ["a", "b", "c"]).padded(2)
        array([[2, 0],
               [3, 3]], dtype=int32)
        """
        counts = np.bincount(self.items, minlength=n_items)
        slots = np.arange(len(self.items)) - np.repeat(np.cumsum(counts) - counts, counts)
        table = np.full((n_items, max(1, counts.max(initial=0))), len(self.names), np.int32)
        table[self.items, slots] = self.values
        return table


NO_ATTRIBUTES = Attributes(np.empty(0, np.int32), np.empty(0, np.int32), [])


def catalogue(past: Engine, as_of: datetime, min_users: int, untouched: bool) -> list[str]:
    """Sorted ids of the items that may be recommended.

    min_users : people who must have touched an item
    untouched : whether visible items of the table ``items`` count that nobody touched
    """
    people = "select item_id, count(distinct person_id) as n_users from histories group by item_id"
    touched = past.select(people, as_of=as_of)
    kept = touched.filter(pc.greater_equal(touched["n_users"], min_users))["item_id"].to_pylist()
    if untouched:
        listed = past.select("select item_id from items where coalesce(availability, 'in_stock') <> 'hidden'")
        kept += sorted(set(listed["item_id"].to_pylist()) - set(touched["item_id"].to_pylist()))
    return sorted(kept)


def log(
    past: Engine,
    as_of: datetime,
    item_ids: list[str],
    attribute_columns: Sequence[str] = (),
    since: datetime = FIRST_INSTANT,
) -> Log:
    """The events from ``since`` on and before ``as_of`` with the items of a catalogue.

    attribute_columns : columns of ``items``; a cell may hold several values with ``|`` between them
    """
    table = past.query("histories", as_of=as_of)
    known = pc.index_in(table["item_id"], pa.array(item_ids, pa.string()))
    within = pc.greater_equal(table["event_timestamp"], pa.scalar(since.replace(tzinfo=None), pa.timestamp("us")))
    table = table.append_column("item", known).filter(pc.and_(pc.is_valid(known), within))
    user_ids, users = coded(table["person_id"])
    _, visits = coded(table["visit_id"])
    histories = Histories(
        np.searchsorted(users, np.arange(len(user_ids) + 1)).astype(np.int64),
        table["item"].to_numpy().astype(np.int32),
        pc.index_in(table["event_name"], pa.array(KINDS)).to_numpy().astype(np.int8),
        ages(table["event_timestamp"], as_of),
    )
    return Log(user_ids, item_ids, histories, visits, attributes(past, item_ids, attribute_columns))


def wanted(window: Window, item_ids: list[str]) -> Log:
    """What happened within a window with the items of a catalogue: purchases or, in a shop without any, every event.

    People and visits of whom nothing is left are absent; ages count from the window's end.
    """
    truth = log(window.truth, window.end, item_ids, since=window.since)
    bought = truth.histories.kinds == KINDS.index("purchase")
    kept = bought if bought.any() else np.ones(len(bought), bool)
    left = truth.histories.where(kept)
    people = np.flatnonzero(left.lengths)
    user_ids = [truth.user_ids[person] for person in people]
    return replace(truth, user_ids=user_ids, histories=left.take(people), visits=truth.visits[kept])


def ages(timestamps: pa.ChunkedArray, as_of: datetime) -> NDArray[np.float32]:
    """Days from instants (UTC) to ``as_of``, float32."""
    passed = np.datetime64(as_of.replace(tzinfo=None), "us") - timestamps.to_numpy()
    days: NDArray[np.float32] = (passed / DAY).astype(np.float32)
    return days


def attributes(past: Engine, item_ids: list[str], columns: Sequence[str]) -> Attributes:
    """The values that items have in some columns of the catalogue; an unknown column is without values."""
    catalogue = past.select("select * from items")
    pairs: list[tuple[int, str]] = []
    places = pc.index_in(catalogue["item_id"], pa.array(item_ids, pa.string())).to_pylist()
    for column in columns:
        cells = catalogue[column].to_pylist() if column in catalogue.column_names else []
        for place, cell in zip(places, cells, strict=False):
            if place is not None and cell is not None:
                pairs += [(place, f"{column}={value}") for value in str(cell).split("|") if value]
    if not pairs:
        return NO_ATTRIBUTES
    items, values = zip(*sorted(set(pairs)), strict=True)
    names, codes = coded(pa.chunked_array([values]))
    return Attributes(np.array(items, np.int32), codes, names)


def coded(column: pa.ChunkedArray) -> tuple[list[str], NDArray[np.int32]]:
    """The sorted distinct values of a column, and each row's place among them.

    >>> coded(pa.chunked_array([["b", "a", "b"]]))
    (['a', 'b'], array([1, 0, 1], dtype=int32))
    """
    distinct = pc.unique(column).sort()
    return distinct.to_pylist(), pc.index_in(column, distinct).to_numpy().astype(np.int32)
