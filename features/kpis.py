"""The numbers that a shop is run by."""

from datetime import datetime
from typing import Any

import pyarrow as pa

from features.engine import Engine

MEANINGS = {
    "page_views": "page views (PV); views of items where the shop logs no page views",
    "visitors": "unique visitors (UV), each counted once",
    "sessions": "visits, a pause of 30 minutes starts a new one",
    "orders": "orders",
    "buyers": "visitors who bought",
    "revenue": "revenue after discount, refunds not subtracted",
    "refunds": "value of refunds",
    "conversion_per_session": "CVR, share of visits with a purchase",
    "conversion_per_visitor": "CVR, share of visitors who bought",
    "average_order_value": "AOV, revenue per order",
    "repeat_rate": "share of buyers with more than one order",
}


def kpis(engine: Engine, as_of: datetime) -> dict[str, Any]:
    """Every number of ``MEANINGS`` over the days before ``as_of``; None where it is a share of nothing.

    Counts are int, money is in the shop's currency, rates are shares within 0 to 1.
    """
    (row,) = engine.query("kpis", as_of=as_of).to_pylist()
    return {name: row[name] for name in MEANINGS}


def daily_kpis(engine: Engine, as_of: datetime) -> pa.Table:
    """Page views, visitors, buyers, orders and revenue by day and channel; the rows are sorted by both."""
    return engine.query("daily_kpis", as_of=as_of)
