"""Series too young to be forecast from their own past, and what sold of others when they were as young.

A launch begins in the period in which its item was listed, where the catalogue says so, else after the period of its
first sale, which is known to have had one. Stock-outs are not looked at: what is new is short more often than not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.demand import LEVEL_WINDOW
from features.engine import Engine
from features.panels import Ints, Keys, Panel, PanelSettings
from features.periods import number, period_start

LEAST_TEACHERS = 20
"""Launches seen from their beginning without which the latest periods of every series stand in for one."""

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Launches:
    """The first periods of series, up to ``LEVEL_WINDOW`` of them.

    keys : item and location of each series, length N
    groups : int64, shape (N, L), numbers of what a series belongs to, from wide to narrow; none is shared by two wider
    sold : float64, shape (N,), units
    periods : float64, shape (N,), in which these were sold; 0 for what was listed just now
    whole : bool, shape (N,), whether only whole units were sold
    teaches : bool, shape (N,), whether others are told from it
    asked : bool, shape (N,), whether it is on sale and no panel's forecast covers it
    """

    keys: Keys
    groups: Ints
    sold: Doubles
    periods: Doubles
    whole: NDArray[np.bool_]
    teaches: NDArray[np.bool_]
    asked: NDArray[np.bool_]

    @property
    def asked_keys(self) -> Keys:
        return [key for key, asked in zip(self.keys, self.asked, strict=True) if asked]


def launches(past: Engine, as_of: datetime, settings: PanelSettings, known: Panel) -> Launches:
    """Launches before ``as_of``, those among them that a forecast of ``known`` leaves out, and what was listed of late.

    A series is asked for when it sold in the latest ``LEVEL_WINDOW`` periods, or when its item was listed then and has
    not sold anywhere; such an item is one series where locations are together, and at the locations that ``supply``
    names where they are not.
    """
    start = period_start(as_of, settings.frequency)
    end, window = int(number(start.date(), settings.frequency)), LEVEL_WINDOW[settings.frequency]
    found = past.query(
        "period_demand",
        as_of=start,
        frequency=settings.frequency,
        by_location=int(settings.by_location),
        least_periods=1,
    )
    index, period, units = (np.asarray(found[name]) for name in ("series_idx", "period", "quantity"))
    at = np.flatnonzero(np.diff(index, prepend=-1))
    items = _items(past, as_of)
    sold_keys = [(str(item), str(place)) for item, place in _pairs(found.take(at))]
    listed_keys = _listed(past, settings.by_location, items, {item for item, _ in sold_keys}, end - window, settings)
    keys = [*sold_keys, *listed_keys]
    listed = np.array([_listed_in(items, item, settings) for item, _ in keys], np.int64)
    first = np.concatenate([period[at], np.full(len(listed_keys), end)])
    begin = np.where((listed >= 0) & (listed <= first), listed, first + 1)
    teaches = (begin >= period.min(initial=end) + window // 2) & (begin < end)
    if teaches.sum() < LEAST_TEACHERS:
        begin, teaches = np.maximum(begin, end - window), begin < end
    until = np.minimum(begin + window, end)
    inside = (period >= begin[index]) & (period < until[index])
    last = np.concatenate([np.maximum.reduceat(period, at) if len(at) else period, np.full(len(listed_keys), end)])
    covered = {
        (known.item_ids[row], known.location_ids[row]) for row in np.flatnonzero(known.eligible(known.n_periods))
    }
    fractions = np.bincount(index, units != np.rint(units), minlength=len(keys))
    return Launches(
        keys,
        _groups([items.get(item, {}) for item, _ in keys]),
        np.bincount(index[inside], units[inside], minlength=len(keys)).astype(np.float64),
        np.maximum(until - begin, 0).astype(np.float64),
        fractions == 0,
        teaches,
        (last >= end - window) & np.array([key not in covered for key in keys], bool),
    )


_ITEMS = """
select item_id, item_category, item_category2, item_brand, cast(created_at as date) as listed
from items
where coalesce(availability, 'in_stock') <> 'hidden'
"""


def _items(past: Engine, as_of: datetime) -> dict[str, Mapping[str, Any]]:
    rows = past.select(_ITEMS).to_pylist()
    return {row["item_id"]: row for row in rows if row["listed"] is None or row["listed"] < as_of.date()}


def _pairs(series: pa.Table) -> list[tuple[str, str]]:
    return list(zip(series["item_id"].to_pylist(), series["location_id"].to_pylist(), strict=True))


def _listed_in(items: Mapping[str, Mapping[str, Any]], item_id: str, settings: PanelSettings) -> int:
    """The period in which an item was listed, -1 where nobody knows."""
    listed = items.get(item_id, {}).get("listed")
    return -1 if listed is None else int(number(listed, settings.frequency))


def _listed(
    past: Engine, by_location: bool, items: Mapping[str, Any], sold: set[str], since: int, settings: PanelSettings
) -> list[tuple[str, str]]:
    """Items listed since a period that have not sold, at the places where they are to be."""
    new = [item for item in items if item not in sold and _listed_in(items, item, settings) >= since]
    if not by_location:
        return [(item, "") for item in new]
    terms = past.select("select item_id, location_id from supply where location_id is not null")
    wanted = set(new)
    return [(item, place) for item, place in _pairs(terms) if item in wanted]


def _groups(items: list[Mapping[str, Any]]) -> Ints:
    """The whole shop, categories, and brands within them, shape (N, 4)."""
    names = ("item_category", "item_category2", "item_brand")
    path = [tuple(item.get(name) for name in names) for item in items]
    levels = [[each[:depth] for each in path] for depth in range(len(names) + 1)]
    return np.stack([_numbered(level) for level in levels], axis=1)


def _numbered(names: list[tuple[Any, ...]]) -> Ints:
    numbers: dict[tuple[Any, ...], int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)
