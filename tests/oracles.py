"""Slow, obvious versions of every query in ``features/sql`` over lists of rows, and the comparison with what came back.

An oracle takes the shop's tables as lists of rows, the cut-off as naive UTC, and the query's parameters.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from oracle_customers import (
    category_features,
    category_outcomes,
    customer_features,
    histories,
    item_features,
    order_summaries,
    outcomes,
    purchase_days,
    touch_responses,
)
from oracle_demand import daily_demand, period_demand
from oracle_kpis import (
    channel_credits,
    daily_activity,
    daily_kpis,
    funnel_events,
    kpis,
    order_totals,
    session_events,
    sessions,
    weekly_activity,
)
from oracle_rows import Row, known_events
from oracle_visits import (
    dated_events,
    device_owners,
    item_weeks,
    people,
    running_events,
    session_progress,
    visit_events,
)

from features.engine import Engine
from features.sessions import resumed

PARAMETERS = {
    "frequency": "week",
    "by_location": 1,
    "least_periods": 2,
    "event": "purchase",
    "horizon_days": 21,
    "steps": "page_view,view_item,purchase",
}


ORACLES: dict[str, Callable[..., list[Row]]] = {
    oracle.__name__: oracle
    for oracle in (
        channel_credits,
        customer_features,
        daily_activity,
        daily_demand,
        daily_kpis,
        funnel_events,
        histories,
        item_features,
        known_events,
        kpis,
        order_summaries,
        order_totals,
        period_demand,
        outcomes,
        category_outcomes,
        category_features,
        touch_responses,
        dated_events,
        device_owners,
        item_weeks,
        visit_events,
        people,
        running_events,
        session_events,
        session_progress,
        purchase_days,
        sessions,
        weekly_activity,
    )
}


def parameters(as_of: datetime) -> dict[str, Any]:
    """A value for every parameter that some query has."""
    return {**PARAMETERS, "as_of": as_of, "since": as_of - timedelta(days=28), "until": as_of - timedelta(days=1)}


def answer(engine: Engine, name: str, as_of: datetime) -> pa.Table:
    """What a query gives, asked as the product asks it, with a value for every parameter."""
    asked = parameters(as_of)
    if name == "session_progress":
        engine = resumed(engine, asked["since"], as_of)
    return engine.query(name, **asked)


def expected(name: str, tables: Mapping[str, pa.Table], as_of: datetime, schema: pa.Schema) -> pa.Table:
    """What a query must give over these tables, in the columns of ``schema``."""
    shop = {table: rows.to_pylist() for table, rows in tables.items()}
    values = {
        key: value.astimezone(UTC).replace(tzinfo=None) if isinstance(value, datetime) else value
        for key, value in parameters(as_of).items()
    }
    rows = ORACLES[name](shop, **values)
    return pa.Table.from_pylist([{column: row[column] for column in schema.names} for row in rows], schema=schema)


def assert_same_rows(left: pa.Table, right: pa.Table) -> None:
    """Equal schemas and rows in any order: floats to 1e-9, everything else exactly."""
    assert [(field.name, field.type) for field in left.schema] == [(field.name, field.type) for field in right.schema]
    floats = [field.name for field in left.schema if pa.types.is_floating(field.type)]
    exact = [name for name in left.column_names if name not in floats]
    left, right = (table.sort_by([(name, "ascending") for name in (*exact, *floats)]) for table in (left, right))
    for name in exact:
        assert left[name].equals(right[name]), name
    for name in floats:
        np.testing.assert_allclose(_floats(left[name]), _floats(right[name]), rtol=1e-9, atol=1e-9, err_msg=name)


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    return column.to_numpy(zero_copy_only=False)
