"""A planner's sheet: checked line by line against the forecast that it changes, then a batch of overrides."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from features import overrides
from features.errors import UserError
from training.demand.forecasts import Forecast

NEEDED = ("item_id", "date", "quantity")
LOCATION = "location_id"
MOST_UNITS = 1e9
"""Beyond it a number is a slip of the pen, and sums of paths lose whole units."""

Cell = tuple[int, int]
"""A series and a step of a forecast."""


class Change(NamedTuple):
    """What a line of the sheet plans for one series in one period: units, None to withdraw."""

    series: int
    step: int
    quantity: float | None


def read(path: Path, forecast: Forecast) -> list[Change]:
    """The changes of a CSV with ``item_id, location_id`` (optional), ``date, quantity``; other columns are not read.

    An empty quantity withdraws what was planned before.
    Raises UserError about the first line that is wrong, with what is allowed there, and when there is none.
    """
    series = {key: number for number, key in enumerate(forecast.keys)}
    steps = {day: step for step, day in enumerate(forecast.dates.astype(str).tolist())}
    lines: dict[Cell, int] = {}
    changes: list[Change] = []
    for line, row in _lines(path):
        key, day = (row["item_id"], row.get(LOCATION, "")), row["date"]
        if key not in series:
            raise _refused(path, line, f"{_named(key)} is not forecast: {_alternatives(key, forecast)}")
        step = steps.get(day)
        if step is None:
            told = f"date {day or '(empty)'} is not the first day of a period that is forecast"
            raise _refused(path, line, f"{told}: take {_listed(list(steps))}")
        cell = series[key], step
        if cell in lines:
            raise _refused(path, line, f"{_named(key)} on {day} stands in line {lines[cell]} already: keep one of them")
        lines[cell] = line
        changes.append(Change(*cell, _units(path, line, row["quantity"])))
    if not changes:
        raise UserError(f"{path} plans nothing: give a line per item and period under {', '.join(NEEDED)}")
    return changes


def batch(
    changes: Sequence[Change], forecast: Forecast, made_at: datetime, made_by: str, reason: str, version: str
) -> pa.Table:
    """The changes as rows to append, each beside what the model said, columns as in ``overrides.SCHEMA``."""
    rows = [
        {
            "item_id": forecast.keys[change.series][0],
            "location_id": forecast.keys[change.series][1] or None,
            "date": forecast.dates[change.step].astype(object),
            "quantity": change.quantity,
            "made_at": made_at,
            "made_by": made_by,
            "reason": reason,
            "model_mean": float(forecast.values[change.series, change.step, 0]),
            "model_version": version,
        }
        for change in changes
    ]
    return pa.Table.from_pylist(rows, schema=overrides.SCHEMA)


def _lines(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Each row with its line number, as names to texts without blanks around them."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            names = [name.strip() for name in next(reader, [])]
            _require_columns(path, names)
            for fields in reader:
                if len(fields) not in (0, len(names)):
                    told = f"{len(fields)} fields stand under {len(names)} columns: quote a field that holds a comma"
                    raise _refused(path, reader.line_num, told)
                if fields:
                    yield reader.line_num, dict(zip(names, map(str.strip, fields), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no CSV in UTF-8 ({error}): save it as one") from error


def _require_columns(path: Path, names: Sequence[str]) -> None:
    wrong = [name for name in NEEDED if names.count(name) != 1] + [LOCATION] * (names.count(LOCATION) > 1)
    if wrong:
        raise UserError(
            f"{path} begins with {', '.join(names) or 'nothing'}: its first line must name the columns "
            f"{', '.join(NEEDED)} once each, and may name {LOCATION}, with commas between them"
        )


def _refused(path: Path, line: int, told: str) -> UserError:
    return UserError(f"{path} line {line}: {told}; nothing was appended")


def _named(key: tuple[str, str]) -> str:
    item_id, location_id = key
    return f"item {item_id or '(empty)'}" + (f" at {location_id}" if location_id else "")


def _alternatives(key: tuple[str, str], forecast: Forecast) -> str:
    """Where the item is forecast, else some items that are."""
    places = [place for item_id, place in forecast.keys if item_id == key[0]]
    if places == [""]:
        return f"{LOCATION} must be empty, its locations are forecast together"
    if places:
        return f"it is at {LOCATION} {_listed(places)}"
    return f"items are {_listed(list(dict.fromkeys(item_id for item_id, _ in forecast.keys)))}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:3])} ... {names[-1]}"


def _units(path: Path, line: int, text: str) -> float | None:
    if not text:
        return None
    try:
        units = float(text)
    except ValueError:
        units = math.nan
    if not 0 <= units <= MOST_UNITS:
        told = f"quantity {text} is not allowed: write units from 0 to {MOST_UNITS:g}, or nothing to withdraw"
        raise _refused(path, line, told)
    return units
