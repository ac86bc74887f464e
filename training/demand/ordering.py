"""From a forecast to an order list: the terms of supply, what is there and coming, and the champion's paths."""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from features import overrides
from features.engine import Engine
from features.errors import UserError
from features.panels import Keys
from features.periods import DAYS, number
from serving.demand import Forecaster
from serving.replenish import Orders, money_at_risk, orders, reasons
from serving.supply import Bools, Floats, Ints, Paths, Position, Supply
from training.demand.forecasts import Forecast, computed

N_PATHS = 200
TERMS = (
    "lead_time_days",
    "lead_time_std_days",
    "review_days",
    "pack_size",
    "min_order_quantity",
    "holding_cost",
    "shortage_cost",
    "service_level",
)
SERIES_AT_ONCE = 10_000


class OrderList(NamedTuple):
    """Orders, most money at risk first, and how many series the forecast covers that nobody says how to order."""

    orders: pa.Table
    n_without_terms: int


def order_list(
    forecaster: Forecaster, engine: Engine, as_of: datetime, standing_overrides: pa.Table = overrides.NONE
) -> OrderList:
    """What to order on the morning of ``as_of`` of every series that has terms of supply.

    engine : everything known; of stock the latest row up to that day counts, of sales and offers what was known then
    standing_overrides : as from ``features.overrides.standing``: in their periods demand has the mean that was planned,
        and as much spread over it as the forecast has over its own
    Columns ``item_id, location_id, order_quantity, order_up_to, reorder_point, safety_stock, on_hand, on_order,
    expected_cost, money_at_risk, reason``.
    Raises UserError when no series has terms, or an order must last longer than the forecast reaches.
    """
    forecast = computed(forecaster, engine, as_of)
    rows, supply = terms(engine, forecast.keys, DAYS[forecast.frequency])
    chosen = [forecast.keys[row] for row in rows]
    require_reach(supply, forecast.horizon, forecast.frequency, chosen)
    position = standing(engine, chosen, forecast, as_of)
    planned = overrides.rows_of(standing_overrides, chosen, forecast.dates)
    units = overrides.units_of(standing_overrides, planned)

    def ahead(part: Ints) -> Paths:
        return with_planned(forecaster.paths(forecast.values[rows[part]], N_PATHS), units[part])

    parts = [
        orders(ahead(part), supply.rows(part), position.rows(part), forecaster.carry)
        for part in np.array_split(np.arange(len(rows)), max(1, len(rows) // SERIES_AT_ONCE))
    ]
    placed = Orders(*(np.concatenate(columns) for columns in zip(*map(_columns, parts), strict=True)))
    said = _planned_by(standing_overrides, np.where(_covered(supply, forecast.horizon), planned, -1))
    return OrderList(_table(chosen, placed, supply, position, said), len(forecast.keys) - len(rows))


def with_planned(paths: Paths, units: Floats) -> Paths:
    """The same paths, but where a planner said the units of a period their mean over the paths is that.

    paths : float32, shape (N, P, T), units
    units : float64, shape (N, T), NaN where nobody planned
    """
    series, steps = np.nonzero(~np.isnan(units))
    found = paths.copy()
    found[series, :, steps] = overrides.scaled(paths[series, :, steps], units[series, steps])
    return found


def _covered(supply: Supply, horizon: int) -> Bools:
    """The steps, shape (N, horizon), before the arrival of the order that comes after this one."""
    covered: Bools = np.arange(horizon) < (np.ceil(supply.lead_time) + supply.review)[:, None]
    return covered


def _planned_by(standing_overrides: pa.Table, rows: Ints) -> list[str]:
    """Who planned some of a series' periods and why, a sentence per series; "" where nobody did.

    rows : int64, shape (N, T), of the overrides; -1 for none
    """
    columns = (standing_overrides[name].to_pylist() for name in ("made_by", "reason"))
    said = [f"{by}: {reason.rstrip('.')}" for by, reason in zip(*columns, strict=True)]
    by_series = (dict.fromkeys(said[row] for row in of_series if row >= 0) for of_series in rows.tolist())
    return [f" Planned by {'; '.join(each)}." if each else "" for each in by_series]


def _columns(placed: Orders) -> Iterable[Floats]:
    return (getattr(placed, name) for name in placed.__slots__)


def terms(engine: Engine, keys: Keys, period_days: float) -> tuple[Ints, Supply]:
    """The series, by their place in ``keys``, that ``supply`` says how to order, and how.

    A row without a location speaks of every location that has none of its own.
    Raises UserError when there is none, when one lacks what an order needs, or when several places are one series.
    """
    found = engine.select(f"select item_id, coalesce(location_id, '') as location_id, {', '.join(TERMS)} from supply")
    ids = list(zip(found["item_id"].to_pylist(), found["location_id"].to_pylist(), strict=True))
    at = {key: row for row, key in enumerate(ids)}
    _refuse_several_places(keys, ids)
    named = [(place, at[key if key in at else (key[0], "")]) for place, key in enumerate(keys) if _has_terms(key, at)]
    if not named:
        raise UserError(
            f"supply has rows for {len(ids):,} items and none for the {len(keys):,} that are forecast: "
            "ingest a table `supply` with lead_time_days and costs or service_level"
        )
    rows = [row for _, row in named]
    columns = {name: np.asarray(found[name].cast(pa.float64()).fill_null(np.nan))[rows] for name in TERMS}
    lead_time_days = columns.pop("lead_time_days")
    try:
        return np.array([place for place, _ in named]), Supply.from_days(period_days, lead_time_days, **columns)
    except ValueError as error:
        ordered = [keys[place] for place, _ in named]
        raise UserError(f"table supply: {_with_item(str(error), ordered)}") from error


def _with_item(sentence: str, keys: Keys) -> str:
    """A sentence about a numbered series, told of its item and place."""
    names = [f"item {item_id}" + (f" at {location_id}" if location_id else "") for item_id, location_id in keys]
    return re.sub(r"series (\d+)", lambda found: names[int(found[1])], sentence)


def _has_terms(key: tuple[str, str], at: dict[tuple[str, str], int]) -> bool:
    return key in at or (key[0], "") in at


def _refuse_several_places(keys: Keys, ids: Keys) -> None:
    together = {item_id for item_id, location_id in keys if not location_id}
    placed = next((item_id for item_id, location_id in ids if location_id and item_id in together), None)
    if placed is not None:
        raise UserError(
            f"supply says how item {placed} is ordered at a location and the forecast is of all locations together: "
            "train demand with by_location = true, or leave location_id out of supply"
        )


def require_reach(supply: Supply, horizon: int, frequency: str, keys: Keys) -> None:
    """Raises UserError when an order must last longer than the forecast reaches."""
    needed = np.ceil(supply.lead_time) + supply.review
    if needed.max() > horizon:
        longest = int(needed.argmax())
        raise UserError(
            f"an order of item {keys[longest][0]} must last {needed[longest]:g} {frequency}s, lead time and review, "
            f"and the forecast reaches {horizon}: train demand with horizon={needed[longest]:g}"
        )


_STOCK = """
select item_id, coalesce(location_id, '') as location_id, max_by(on_hand, date) as on_hand
from stock
where on_hand is not null and date <= cast(cast($as_of as timestamp) as date)
group by 1, 2
"""
_PIPELINE = """
select item_id, coalesce(location_id, '') as location_id, arrives_on, sum(quantity) as quantity
from pipeline
group by 1, 2, 3
"""


def standing(engine: Engine, keys: Keys, forecast: Forecast, as_of: datetime) -> Position:
    """What is on hand and coming of each series: nothing where nothing is noted, overdue orders with the first step."""
    stock, coming = engine.select(_STOCK, as_of=as_of), engine.select(_PIPELINE)
    on_hand, arrivals = np.zeros(len(keys)), np.zeros((len(keys), forecast.horizon))
    row = _row_of(stock, keys)
    np.add.at(on_hand, row[row >= 0], np.asarray(stock["on_hand"])[row >= 0])
    first, arrives_on = number(forecast.dates[0], forecast.frequency), np.asarray(coming["arrives_on"])
    row, step = _row_of(coming, keys), np.maximum(number(arrives_on, forecast.frequency) - first, 0)
    there = (row >= 0) & (step < forecast.horizon)
    np.add.at(arrivals, (row[there], step[there]), np.asarray(coming["quantity"])[there])
    return Position(on_hand, arrivals)


def _row_of(found: pa.Table, keys: Keys) -> Ints:
    """The series that each row is of, -1 for none; a series of all locations takes the rows of every one."""
    at = {key: row for row, key in enumerate(keys)}
    ids = zip(found["item_id"].to_pylist(), found["location_id"].to_pylist(), strict=True)
    return np.array([at.get((item, place), at.get((item, ""), -1)) for item, place in ids], np.int64)


def _table(keys: Keys, placed: Orders, supply: Supply, position: Position, planned_by: Sequence[str]) -> pa.Table:
    risk = money_at_risk(placed, supply)
    return pa.table(
        {
            "item_id": [item_id for item_id, _ in keys],
            "location_id": [location_id or None for _, location_id in keys],
            "order_quantity": placed.order_quantity,
            "order_up_to": placed.order_up_to,
            "reorder_point": placed.reorder_point,
            "safety_stock": placed.safety_stock,
            "on_hand": position.on_hand,
            "on_order": position.arrivals.sum(axis=1),
            "expected_cost": pa.array(placed.expected_cost, from_pandas=True),
            "money_at_risk": pa.array(risk, from_pandas=True),
            "reason": [reason + by for reason, by in zip(reasons(placed, supply), planned_by, strict=True)],
        }
    ).take(np.argsort(-np.nan_to_num(risk), kind="stable"))
