"""Series that sold too little to be told from their own past alone, and what sold of others when they were new.

A launch begins in the period in which its item was listed, where the catalogue says so, else after the period of its
first sale, which is known to have had one. Stock-outs are not looked at: what is new is short more often than not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.demand import LEVEL_WINDOW
from features.engine import Engine
from features.panels import Ints, Keys, Panel, PanelSettings
from features.periods import Frequency, number, period_start

LEAST_TEACHERS = 20
"""Launches seen from their beginning without which the latest periods of every series stand in for one."""
NEVER = -1
UNKNOWN = (None, None, None)
"""The path of an item that the catalogue lacks."""

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Launches:
    """What series sold in up to ``LEVEL_WINDOW`` periods: the latest of those asked for, of others the first.

    keys : item and location of each series, length N
    groups : int64, shape (N, L), numbers of what a series belongs to, from wide to narrow, each within the one before
    sold, squares : float64, shape (N,), units, and their squares summed over periods
    periods : float64, shape (N,), in which these were sold; 0 for what was listed just now
    whole : bool, shape (N,), whether only whole units were sold
    teaches : bool, shape (N,), whether others are told from it
    asked : bool, shape (N,), whether it is on sale and a panel's forecast does not cover it
    """

    keys: Keys
    groups: Ints
    sold: Doubles
    squares: Doubles
    periods: Doubles
    whole: NDArray[np.bool_]
    teaches: NDArray[np.bool_]
    asked: NDArray[np.bool_]

    @property
    def asked_keys(self) -> Keys:
        return [key for key, asked in zip(self.keys, self.asked, strict=True) if asked]


class _Item(NamedTuple):
    """Period of its listing, ``NEVER`` where nobody knows; its categories and brand, from wide to narrow."""

    listed: int
    path: tuple[str | None, ...]


def launches(past: Engine, as_of: datetime, settings: PanelSettings, known: Panel) -> Launches:
    """What sold before ``as_of`` of everything, with what a forecast of ``known`` leaves out marked as asked for.

    That is what sold in the latest ``LEVEL_WINDOW`` periods, and what was listed then and has not sold anywhere; such
    an item is one series where locations are together, and at the locations that ``supply`` names where they are not.
    ``supply`` and what is hidden are as they stand today, for a past window too: they choose whom to ask for, not what.
    """
    start = period_start(as_of, settings.frequency)
    end, window = int(number(start.date(), settings.frequency)), LEVEL_WINDOW[settings.frequency]
    sold = past.query(
        "period_demand",
        as_of=start,
        frequency=settings.frequency,
        by_location=int(settings.by_location),
        least_periods=1,
    )
    series, period, units = (np.asarray(sold[name]) for name in ("series_idx", "period", "quantity"))
    at = np.flatnonzero(np.diff(series, prepend=-1))
    items, selling = _items(past, settings.frequency), _pairs(sold.take(at))
    keys = [*selling, *_unsold(past, settings.by_location, items, {item for item, _ in selling}, end - window)]
    none_yet = np.full(len(keys) - len(selling), end)
    first, last = (np.concatenate([each, none_yet]) for each in (period[at], period[np.r_[at[1:], len(series)] - 1]))
    eligible = np.flatnonzero(known.eligible(known.n_periods))
    covered = {(known.item_ids[row], known.location_ids[row]) for row in eligible}
    asked = (last >= end - window) & np.array([key not in covered for key in keys], bool)
    listed = np.array([items[item].listed if item in items else NEVER for item, _ in keys], np.int64)
    begin, teaches = _begun(listed, first, int(period.min(initial=end)), end, window)
    begin = np.where(asked, np.maximum(begin, end - window), begin)
    until = np.minimum(begin + window, end)
    inside = (period >= begin[series]) & (period < until[series])

    def summed(values: Doubles) -> Doubles:
        return np.bincount(series[inside], values[inside], minlength=len(keys)).astype(np.float64)

    return Launches(
        keys=keys,
        groups=_groups([items[item].path if item in items else UNKNOWN for item, _ in keys]),
        sold=summed(units),
        squares=summed(units**2),
        periods=np.maximum(until - begin, 0).astype(np.float64),
        whole=np.bincount(series, units != np.rint(units), minlength=len(keys)) == 0,
        teaches=teaches,
        asked=asked,
    )


def _begun(listed: Ints, first: Ints, earliest: int, end: int, window: int) -> tuple[Ints, NDArray[np.bool_]]:
    """The period in which each launch begins, and whether it was seen from there on.

    listed, first : periods of the listing, ``NEVER`` where nobody knows, and of the first sale
    earliest : the first period with a sale of anything; nothing is known before it
    """
    begin = np.maximum(np.where((listed != NEVER) & (listed <= first), listed, first + 1), earliest)
    teaches = (begin >= earliest + window // 2) & (begin < end)
    if teaches.sum() >= LEAST_TEACHERS:
        return begin, teaches
    begin = np.maximum(begin, end - window)
    return begin, begin < end


_ITEMS = """
select item_id, cast(created_at as date) as listed, item_category, item_category2, item_brand
from items
where coalesce(availability, 'in_stock') <> 'hidden'
"""


def _items(past: Engine, frequency: Frequency) -> dict[str, _Item]:
    columns = (column.to_pylist() for column in past.select(_ITEMS).columns)
    return {
        item_id: _Item(NEVER if listed is None else int(number(listed, frequency)), tuple(path))
        for item_id, listed, *path in zip(*columns, strict=True)
    }


def _pairs(series: pa.Table) -> list[tuple[str, str]]:
    return list(zip(series["item_id"].to_pylist(), series["location_id"].to_pylist(), strict=True))


def _unsold(
    past: Engine, by_location: bool, items: Mapping[str, _Item], selling: set[str], since: int
) -> list[tuple[str, str]]:
    """Items listed since a period that have not sold, at the places where they are to be."""
    new = {item_id for item_id, item in items.items() if item_id not in selling and item.listed >= since}
    if not by_location:
        return [(item_id, "") for item_id in sorted(new)]
    terms = past.select("select item_id, location_id from supply where location_id is not null")
    return [key for key in _pairs(terms) if key[0] in new]


def _groups(paths: list[tuple[str | None, ...]]) -> Ints:
    """The whole shop, categories, and brands within them, shape (N, 4)."""
    levels = [[path[:depth] for path in paths] for depth in range(len(UNKNOWN) + 1)]
    return np.stack([_numbered(level) for level in levels], axis=1)


def _numbered(names: list[tuple[str | None, ...]]) -> Ints:
    numbers: dict[tuple[str | None, ...], int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)
