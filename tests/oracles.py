"""Slow, obvious versions of every query in ``features/sql`` over lists of rows, and the comparison with what came back.

An oracle takes the shop's tables as lists of rows, the cut-off as naive UTC, and the query's parameters.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from math import ceil, floor
from typing import Any

import numpy as np
import pyarrow as pa

Row = dict[str, Any]
Shop = Mapping[str, list[Row]]

PARAMETERS = {"period_days": 7, "by_location": 1, "least_periods": 2}
THURSDAY = date(1970, 1, 1)


def known_events(shop: Shop, as_of: datetime, **_: Any) -> list[Row]:
    known = [
        event
        for event in shop["events"]
        if event["event_timestamp"] < as_of and (event["received_at"] or event["event_timestamp"]) < as_of
    ]
    customer_of = {
        event["user_pseudo_id"]: event["user_id"]
        for event in sorted(known, key=when)
        if event["user_pseudo_id"] and event["user_id"]
    }
    return [_with_person(event, customer_of) for event in known]


def _with_person(event: Row, customer_of: Mapping[str, str]) -> Row:
    device = event["user_pseudo_id"]
    quantity = 1.0 if event["quantity"] is None else event["quantity"]
    person = event["user_id"] or customer_of.get(device, device)
    return {**event, "quantity": quantity, "person_id": person, "place_shown": event["index"]}


def sessions(shop: Shop, as_of: datetime, **_: Any) -> list[Row]:
    found = defaultdict(list)
    for person_events in grouped(known_events(shop, as_of), "person_id", "session_id").values():
        number, previous = 0, None
        for event in sorted(person_events, key=when):
            if previous is None or event["event_timestamp"] - previous > timedelta(minutes=30):
                number += 1
            previous = event["event_timestamp"]
            found[event["person_id"], event["session_id"] or f"{event['person_id']}#{number}"].append(event)
    return [_session(person, session, events) for (person, session), events in found.items()]


def _session(person: str, session: str, events: list[Row]) -> Row:
    return {
        "person_id": person,
        "session_id": session,
        "started_at": events[0]["event_timestamp"],
        "ended_at": events[-1]["event_timestamp"],
        "n_events": len(events),
        "n_views": len(named(events, "view_item")),
        "n_carts": len(named(events, "add_to_cart")),
        "n_purchases": len(named(events, "purchase")),
        "n_items": n_distinct(events, "item_id"),
        "revenue": sum(spend(event) for event in named(events, "purchase")),
        **{column: latest(events, column) for column in ("source", "medium", "device_category")},
    }


def item_features(shop: Shop, as_of: datetime, **_: Any) -> list[Row]:
    seen = [event for event in known_events(shop, as_of) if event["item_id"] is not None]
    return [_item(item, events, as_of) for (item,), events in grouped(seen, "item_id").items()]


def _item(item: str, events: list[Row], as_of: datetime) -> Row:
    bought, ages = named(events, "purchase"), [age_days(event, as_of) for event in events]
    return {
        "item_id": item,
        "n_views_28d": len(within(named(events, "view_item"), 28, as_of)),
        "n_carts_28d": len(within(named(events, "add_to_cart"), 28, as_of)),
        "n_purchases": len(bought),
        "n_purchases_7d": len(within(bought, 7, as_of)),
        "n_purchases_28d": len(within(bought, 28, as_of)),
        "n_buyers": n_distinct(bought, "person_id"),
        "units_28d": sum(event["quantity"] for event in within(bought, 28, as_of)),
        "last_price": latest(events, "price"),
        "days_since_last_event": min(ages),
        "days_since_first_event": max(ages),
    }


def customer_features(shop: Shop, as_of: datetime, **_: Any) -> list[Row]:
    known = known_events(shop, as_of)
    orders = [
        {"person_id": person, "age_days": min(age_days(line, as_of) for line in lines), "lines": lines}
        for (person, _), lines in grouped(named(known, "purchase"), "person_id", "transaction_id").items()
    ]
    recent = grouped((order for order in orders if order["age_days"] <= 364), "person_id")
    visits = grouped((event for event in known if event["event_timestamp"] >= as_of - timedelta(days=28)), "person_id")
    return [
        {"person_id": person, **_bought(mine), **_visited(visits.get((person,), []), as_of)}
        for (person,), mine in recent.items()
    ]


def purchase_days(shop: Shop, as_of: datetime, **_: Any) -> list[Row]:
    bought = [{**line, "day": line["event_timestamp"].date()} for line in named(known_events(shop, as_of), "purchase")]
    return [
        {
            "person_id": person,
            "day": day,
            "n_orders": n_distinct(lines, "transaction_id"),
            "units": sum(line["quantity"] for line in lines),
            "spend": float(sum(map(spend, lines))),
        }
        for (person, day), lines in grouped(bought, "person_id", "day").items()
    ]


def order_summaries(shop: Shop, as_of: datetime, **_: Any) -> list[Row]:
    last_known = (as_of - timedelta(seconds=1)).date()
    refunds = grouped(named(known_events(shop, as_of), "refund"), "person_id")
    return [
        {
            "person_id": person,
            **_order_summary(sorted(days, key=lambda row: row["day"]), last_known),
            "net_spend": sum(day["spend"] for day in days) - sum(map(spend, refunds.get((person,), []))),
        }
        for (person,), days in grouped(purchase_days(shop, as_of), "person_id").items()
    ]


def _order_summary(days: list[Row], last_known: date) -> Row:
    first, *repeats = days
    return {
        "n_orders": sum(day["n_orders"] for day in days),
        "n_order_days": len(days),
        "days_since_first_order": (last_known - first["day"]).days,
        "days_since_last_order": (last_known - days[-1]["day"]).days,
        "repeat_day_spend": sum(day["spend"] for day in repeats) / len(repeats) if repeats else None,
    }


def _bought(orders: list[Row]) -> Row:
    ages = sorted({order["age_days"] for order in orders})
    gaps = [older - younger for younger, older in pairwise(ages)]
    month, quarter = ([order for order in orders if order["age_days"] <= days] for days in (28, 91))
    return {
        "days_since_last_order": ages[0],
        "n_orders_28d": len(month),
        "n_orders_91d": len(quarter),
        "n_order_days_182d": sum(age <= 182 for age in ages),
        "n_order_weeks_91d": len({(order["age_days"] - 1) // 7 for order in quarter}),
        "spend_28d": _order_spend(month),
        "spend_91d": _order_spend(quarter),
        "n_lines_28d": sum(len(order["lines"]) for order in month),
        "last_order_day_spend": _order_spend(order for order in orders if order["age_days"] == ages[0]),
        "mean_order_spend": _order_spend(orders) / len(orders),
        "mean_days_between_orders": sum(gaps) / len(gaps) if gaps else None,
        "longest_days_between_orders": max(gaps, default=None),
        "share_of_longer_gaps": sum(gap > ages[0] for gap in gaps) / len(gaps) if gaps else None,
    }


def _order_spend(orders: Iterable[Row]) -> float:
    return float(sum(spend(line) for order in orders for line in order["lines"]))


def _visited(events: list[Row], as_of: datetime) -> Row:
    return {
        "days_since_last_visit": min((age_days(event, as_of) for event in events), default=None),
        "n_views_28d": len(named(events, "view_item")),
        "n_carts_28d": len(named(events, "add_to_cart")),
    }


def histories(shop: Shop, as_of: datetime, **_: Any) -> list[Row]:
    learnt_from = ("view_item", "add_to_cart", "purchase")
    known = [event for event in visible(known_events(shop, as_of), shop) if event["event_name"] in learnt_from]
    return [{**event, "visit_id": _visit(event)} for event in sorted(known, key=_whose_and_when)]


def _visit(event: Row) -> str:
    day = f"{event['person_id']}#{event['event_timestamp'].date()}"
    return event["transaction_id"] or event["session_id"] or day


def _whose_and_when(event: Row) -> tuple[str, datetime, str]:
    return event["person_id"], *when(event)


def daily_demand(shop: Shop, as_of: datetime, **_: Any) -> list[Row]:
    sold = [
        event
        for event in visible(known_events(shop, as_of), shop)
        if event["event_name"] in ("purchase", "refund") and event["event_timestamp"].date() < as_of.date()
    ]
    located = [{**event, "location_id": event["location_id"] or ""} for event in sold]
    return [
        row
        for (item, location), events in grouped(located, "item_id", "location_id").items()
        for row in _days(item, location, events, as_of)
    ]


def _days(item: str, location: str, events: list[Row], as_of: datetime) -> Iterable[Row]:
    day = min(event["event_timestamp"].date() for event in events)
    while day < as_of.date():
        today = [event for event in events if event["event_timestamp"].date() == day]
        units = sum(sign(event) * event["quantity"] for event in today)
        revenue = sum(sign(event) * spend(event) for event in today)
        yield {"item_id": item, "location_id": location, "day": day, "quantity": max(units, 0.0), "revenue": revenue}
        day += timedelta(days=1)


def period_demand(
    shop: Shop, as_of: datetime, period_days: int, by_location: int, least_periods: int, **_: Any
) -> list[Row]:
    sold = _sales(shop, as_of)
    if not sold:
        return []
    first = ceil((min(days_since_1970(row["day"]) for row in sold) + 3) / period_days)
    categories = {item["item_id"]: item["item_category2"] or item["item_category"] or "" for item in shop["items"]}
    numbered = [
        {
            **row,
            "location_id": (row["location_id"] or "") if by_location == 1 else "",
            "period": floor((days_since_1970(row["day"]) + 3) / period_days),
        }
        for row in visible(sold, shop)
    ]
    series = {
        key: periods
        for key, rows in sorted(grouped(numbered, "item_id", "location_id").items())
        if len(periods := _periods(rows, first)) >= least_periods
    }
    return [
        {"series_idx": idx, "item_id": item, "location_id": place, "category": categories.get(item, ""), **period}
        for idx, ((item, place), periods) in enumerate(series.items())
        for period in periods
    ]


def _sales(shop: Shop, as_of: datetime) -> list[Row]:
    if shop["demand"]:
        return [{**row, "day": row["date"]} for row in shop["demand"] if row["date"] < as_of.date()]
    return [
        {
            **event,
            "day": event["event_timestamp"].date(),
            "quantity": sign(event) * event["quantity"],
            "revenue": sign(event) * spend(event),
        }
        for event in known_events(shop, as_of)
        if event["event_name"] in ("purchase", "refund")
    ]


def _periods(rows: list[Row], first: int) -> list[Row]:
    sums = [
        {
            "period": period,
            "quantity": sum(row["quantity"] for row in rows),
            "revenue": sum(row["revenue"] or 0.0 for row in rows),
        }
        for (period,), rows in sorted(grouped(rows, "period").items())
        if period >= first
    ]
    return [row for row in sums if row["quantity"] > 0]


def repurchase_labels(shop: Shop, as_of: datetime, since: datetime, **_: Any) -> list[Row]:
    bought = named(known_events(shop, as_of), "purchase")
    return [{"person_id": person} for person in {e["person_id"] for e in bought if e["event_timestamp"] >= since}]


def daily_kpis(shop: Shop, as_of: datetime, **_: Any) -> list[Row]:
    known = [
        {**event, "day": event["event_timestamp"].date(), "channel": event["medium"] or "unknown"}
        for event in known_events(shop, as_of)
    ]
    return [
        {
            "day": day,
            "channel": channel,
            "page_views": len(named(events, "page_view")),
            "item_views": len(named(events, "view_item")),
            **_sales_numbers(events),
        }
        for (day, channel), events in grouped(known, "day", "channel").items()
    ]


def kpis(shop: Shop, as_of: datetime, **_: Any) -> list[Row]:
    known, visits = known_events(shop, as_of), sessions(shop, as_of)
    numbers = _sales_numbers(known)
    orders = grouped(named(known, "purchase"), "person_id").values()
    return [
        {
            **numbers,
            "page_views": len(named(known, "page_view")) or len(named(known, "view_item")),
            "sessions": len(visits),
            "refunds": sum(map(spend, named(known, "refund"))),
            "conversion_per_session": sum(visit["n_purchases"] > 0 for visit in visits) / len(visits),
            "conversion_per_visitor": numbers["buyers"] / numbers["visitors"],
            "average_order_value": numbers["revenue"] / numbers["orders"],
            "repeat_rate": sum(n_distinct(bought, "transaction_id") > 1 for bought in orders) / numbers["buyers"],
        }
    ]


def _sales_numbers(events: list[Row]) -> Row:
    bought = named(events, "purchase")
    return {
        "visitors": n_distinct(events, "person_id"),
        "buyers": n_distinct(bought, "person_id"),
        "orders": n_distinct(bought, "transaction_id"),
        "revenue": float(sum(map(spend, bought))),
    }


def grouped(rows: Iterable[Row], *columns: str) -> dict[tuple[Any, ...], list[Row]]:
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[column] for column in columns)].append(row)
    return groups


def visible(rows: Iterable[Row], shop: Shop) -> list[Row]:
    hidden = {item["item_id"] for item in shop["items"] if item["availability"] == "hidden"}
    return [row for row in rows if row["item_id"] not in hidden]


def when(event: Row) -> tuple[datetime, str]:
    return event["event_timestamp"], event["event_id"]


def age_days(event: Row, as_of: datetime) -> int:
    return (as_of.date() - event["event_timestamp"].date()).days


def days_since_1970(day: date) -> int:
    return (day - THURSDAY).days


def within(events: list[Row], days: int, as_of: datetime) -> list[Row]:
    return [event for event in events if age_days(event, as_of) <= days]


def named(events: list[Row], name: str) -> list[Row]:
    return [event for event in events if event["event_name"] == name]


def n_distinct(events: list[Row], column: str) -> int:
    return len({event[column] for event in events} - {None})


def latest(events: list[Row], column: str) -> Any:
    stated = [event for event in events if event[column] is not None]
    return max(stated, key=when)[column] if stated else None


def spend(event: Row) -> float:
    return event["quantity"] * (event["price"] or 0.0)


def sign(event: Row) -> int:
    return 1 if event["event_name"] == "purchase" else -1


ORACLES: dict[str, Callable[..., list[Row]]] = {
    oracle.__name__: oracle
    for oracle in (
        customer_features,
        daily_demand,
        daily_kpis,
        histories,
        item_features,
        known_events,
        kpis,
        order_summaries,
        period_demand,
        purchase_days,
        repurchase_labels,
        sessions,
    )
}


def parameters(as_of: datetime) -> dict[str, Any]:
    """A value for every parameter that some query has."""
    return {**PARAMETERS, "as_of": as_of, "since": as_of - timedelta(days=28)}


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
