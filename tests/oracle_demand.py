"""Slow, obvious versions of the queries of demand."""

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from math import floor
from typing import Any

from oracle_rows import Row, Shop, days_since_1970, grouped, known_events, sign, spend, visible


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
    shop: Shop, as_of: datetime, frequency: str, by_location: int, least_periods: int, **_: Any
) -> list[Row]:
    sold = _sales(shop, as_of)
    if not sold:
        return []
    first = _period(min(row["day"] for row in sold) - timedelta(days=1), frequency) + 1
    categories = {item["item_id"]: item["item_category2"] or item["item_category"] or "" for item in shop["items"]}
    numbered = [
        {
            **row,
            "location_id": (row["location_id"] or "") if by_location == 1 else "",
            "period": _period(row["day"], frequency),
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


def _period(day: date, frequency: str) -> int:
    if frequency == "month":
        return 12 * (day.year - 1970) + day.month - 1
    return floor((days_since_1970(day) + 3) / {"day": 1, "week": 7}[frequency])


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
