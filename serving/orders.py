"""Answers what to order, from the lists that ``shopkeeper reorder`` keeps.

``orders/AS_OF.parquet`` under a shop's folder is the list of one morning; the latest morning's is answered from, and
read again when it was made again.
"""

from datetime import date
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from serving.artifact import Json


def file_of(home: Path, shop: str, as_of: date) -> Path:
    """Where the list of a morning lies."""
    return _folder(home, shop) / f"{as_of:%Y-%m-%d}.parquet"


def answer(home: Path, shop: str, request: Json) -> Json | None:
    """One page of the latest list, most money at risk first; None when no list was made.

    request : ``item_ids`` (empty: all), ``location_id`` or None, ``only_orders``, rows' ``offset`` and ``limit``
    """
    latest = max(_folder(home, shop).glob("[!.]*.parquet"), default=None)
    if latest is None:
        return None
    table, item_ids = _read(latest, latest.stat().st_mtime_ns)
    chosen = _chosen(table, request)
    page = table.take(chosen[request["offset"] : request["offset"] + request["limit"]])
    return {
        "as_of": latest.stem,
        "model_version": table["model_version"][0].as_py(),
        "total": len(chosen),
        "unknown_item_ids": [item_id for item_id in dict.fromkeys(request["item_ids"]) if item_id not in item_ids],
        "orders": page.drop_columns(["as_of", "model_version"]).to_pylist(),
    }


def _folder(home: Path, shop: str) -> Path:
    return home / shop / "orders"


@lru_cache(maxsize=1)
def _read(path: Path, _modified_ns: int) -> tuple[pa.Table, frozenset[str]]:
    """A list and the items in it; read again when the file's time is another."""
    table = pq.read_table(path, partitioning=None).combine_chunks()
    return table, frozenset(table["item_id"].to_pylist())


def _chosen(table: pa.Table, request: Json) -> NDArray[np.int64]:
    """The rows of a list that a request asks for."""
    chosen = np.ones(table.num_rows, bool)
    if request["item_ids"]:
        chosen &= np.asarray(pc.is_in(table["item_id"], pa.array(request["item_ids"])))
    if request["location_id"]:
        chosen &= np.asarray(pc.equal(table["location_id"], request["location_id"]).fill_null(False))
    if request["only_orders"]:
        chosen &= np.asarray(table["order_quantity"]) > 0
    return np.flatnonzero(chosen)
