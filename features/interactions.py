"""People, items and what happened between them, as arrays that recommenders are fitted on."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.engine import Engine
from features.windows import FIRST_INSTANT


@dataclass(frozen=True, slots=True)
class Interactions:
    """Sparse user x item data in coordinate form, sorted by user, then item.

    user_ids, item_ids : sorted ids, of which the indices below speak
    users, items : int32, shape (n,)
    affinities : float32, shape (n,), > 0, weighted and decayed events
    n_purchases : int32, shape (n,), >= 0
    """

    user_ids: list[str]
    item_ids: list[str]
    users: NDArray[np.int32]
    items: NDArray[np.int32]
    affinities: NDArray[np.float32]
    n_purchases: NDArray[np.int32]

    def popularity(self) -> NDArray[np.float32]:
        """Summed affinity per item, shape (n_items,): decayed like the affinities are."""
        return np.bincount(self.items, self.affinities, len(self.item_ids)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class EventWeights:
    """What one event of a kind counts, and after how many days it counts half."""

    purchase: float
    cart: float
    view: float
    half_life_days: float


def interactions(past: Engine, as_of: datetime, weights: EventWeights, min_users: int) -> Interactions:
    """Interactions before ``as_of`` with the items that at least ``min_users`` people touched."""
    table = past.query(
        "affinities",
        as_of=as_of,
        since=FIRST_INSTANT,
        purchase_weight=weights.purchase,
        cart_weight=weights.cart,
        view_weight=weights.view,
        half_life_days=weights.half_life_days,
    )
    counted = table.group_by("item_id").aggregate([("person_id", "count")])
    kept = counted.filter(pc.greater_equal(counted["person_id_count"], min_users))["item_id"]
    table = table.filter(pc.is_in(table["item_id"], kept.combine_chunks()))
    user_ids, users = coded(table["person_id"])
    item_ids, items = coded(table["item_id"])
    order = np.lexsort((items, users))
    return Interactions(
        user_ids,
        item_ids,
        users[order],
        items[order],
        table["affinity"].to_numpy().astype(np.float32)[order],
        table["n_purchases"].to_numpy().astype(np.int32)[order],
    )


def visits(past: Engine, as_of: datetime, item_ids: list[str]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(visit number, item index) of every item that met others in an order or visit; items outside ``item_ids`` go."""
    table = past.query("visits", as_of=as_of)
    known = pc.index_in(table["item_id"], pa.array(item_ids, pa.string()))
    table = table.append_column("item", known).filter(pc.is_valid(known))
    _, numbers = coded(table["visit_id"])
    return numbers, table["item"].to_numpy().astype(np.int32)


def coded(column: pa.ChunkedArray) -> tuple[list[str], NDArray[np.int32]]:
    """The sorted distinct values of a column, and each row's place among them.

    >>> coded(pa.chunked_array([["b", "a", "b"]]))
    (['a', 'b'], array([1, 0, 1], dtype=int32))
    """
    distinct = pc.unique(column).sort()
    return distinct.to_pylist(), pc.index_in(column, distinct).to_numpy().astype(np.int32)
