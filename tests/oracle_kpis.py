"""Slow, obvious versions of the queries of KPIs."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from oracle_rows import Row, Shop, grouped, known_events, latest, n_distinct, named, spend, when


def session_events(shop: Shop, as_of: datetime, **_: Any) -> list[Row]:
    visited = [event for event in known_events(shop, as_of) if event["event_name"] != "refund"]
    return [row for events in grouped(visited, "person_id", "session_id").values() for row in _placed(events)]


def _placed(events: list[Row]) -> Iterable[Row]:
    number, previous = 0, None
    for position, event in enumerate(sorted(events, key=when), start=1):
        if previous is None or event["event_timestamp"] - previous > timedelta(minutes=30):
            number += 1
        previous = event["event_timestamp"]
        session = event["session_id"] or f"{event['person_id']}#{number}"
        yield {**event, "session_id": session, "position": position}


def sessions(shop: Shop, as_of: datetime, **_: Any) -> list[Row]:
    found = grouped(session_events(shop, as_of), "person_id", "session_id")
    return [_session(person, session, events) for (person, session), events in found.items()]


def _session(person: str, session: str, events: list[Row]) -> Row:
    source, medium = latest(events, "source"), latest(events, "medium")
    named_source, named_medium = (None if source == "(direct)" else source), (None if medium == "(none)" else medium)
    return {
        "person_id": person,
        "session_id": session,
        "started_at": min(event["event_timestamp"] for event in events),
        "ended_at": max(event["event_timestamp"] for event in events),
        "n_events": len(events),
        "n_page_views": len(named(events, "page_view")),
        "n_views": len(named(events, "view_item")),
        "n_carts": len(named(events, "add_to_cart")),
        "n_purchases": len(named(events, "purchase")),
        "n_items": n_distinct(events, "item_id"),
        "revenue": sum(spend(event) for event in named(events, "purchase")),
        "source": source,
        "medium": medium,
        "channel": named_medium or named_source or "direct",
        "device_category": latest(events, "device_category"),
    }


def order_totals(shop: Shop, as_of: datetime, **_: Any) -> list[Row]:
    lines = grouped(named(session_events(shop, as_of), "purchase"), "transaction_id")
    return [
        {
            "transaction_id": order,
            "ordered_at": first["event_timestamp"],
            "person_id": first["person_id"],
            "session_id": first["session_id"],
            "revenue": sum(map(spend, bought)),
        }
        for (order,), bought in lines.items()
        for first in [min(bought, key=when)]
    ]


ACTIVITY = ("page_views", "item_views", "sessions", "buying_sessions", "orders", "revenue", "refunds")


def daily_activity(shop: Shop, as_of: datetime, **_: Any) -> list[Row]:
    return [
        {"day": day, "channel": channel, "person_id": person, **_summed(rows)}
        for (day, channel, person), rows in grouped(_activity(shop, as_of), "day", "channel", "person_id").items()
    ]


def _activity(shop: Shop, as_of: datetime) -> Iterable[Row]:
    visits = {(visit["person_id"], visit["session_id"]): visit for visit in sessions(shop, as_of)}
    channel_of = {}
    for visit in visits.values():
        counts = {"page_views": visit["n_page_views"], "item_views": visit["n_views"], "sessions": 1}
        yield _did(visit, visit["started_at"], visit["channel"], buying_sessions=visit["n_purchases"] > 0, **counts)
    for order in order_totals(shop, as_of):
        channel = channel_of[order["transaction_id"]] = visits[order["person_id"], order["session_id"]]["channel"]
        yield _did(order, order["ordered_at"], channel, orders=1, revenue=order["revenue"])
    for line in named(known_events(shop, as_of), "refund"):
        channel = channel_of.get(line["transaction_id"], "unknown")
        yield _did(line, line["event_timestamp"], channel, refunds=spend(line))


def _did(who: Row, at: datetime, channel: str, **amounts: float) -> Row:
    nothing = dict.fromkeys(ACTIVITY, 0)
    return {"day": at.date(), "channel": channel, "person_id": who["person_id"], **nothing, **amounts}


def _summed(rows: list[Row]) -> Row:
    return {name: sum(row[name] for row in rows) for name in ACTIVITY}


def daily_kpis(shop: Shop, as_of: datetime, **_: Any) -> list[Row]:
    return [
        {
            "day": day,
            "channel": channel,
            "visitors": len({row["person_id"] for row in rows if row["sessions"]}),
            "buyers": len({row["person_id"] for row in rows if row["orders"]}),
            **_summed(rows),
        }
        for (day, channel), rows in grouped(daily_activity(shop, as_of), "day", "channel").items()
    ]


def weekly_activity(shop: Shop, as_of: datetime, until: datetime, **_: Any) -> list[Row]:
    days = daily_activity(shop, as_of)
    first = min((row["day"] for row in days), default=None)
    dated = [{**row, "weeks_ago": ((until.date() - row["day"]).days - 1) // 7} for row in days]
    return [
        {"weeks_ago": ago, "person_id": person, **_summed(rows)}
        for (ago, person), rows in grouped(dated, "weeks_ago", "person_id").items()
        if ago >= 0 and until.date() - timedelta(days=7 * (ago + 1)) >= first
    ]


def channel_credits(shop: Shop, as_of: datetime, **_: Any) -> list[Row]:
    visits = grouped(sessions(shop, as_of), "person_id")
    credits = [credit for order in order_totals(shop, as_of) for credit in _credits(order, visits[order["person_id"],])]
    return [
        {
            "channel": channel,
            "orders_last_non_direct": sum(row["last"] for row in rows),
            "revenue_last_non_direct": sum(row["last"] * row["revenue"] for row in rows),
            "orders_time_decay": sum(row["decayed"] for row in rows),
            "revenue_time_decay": sum(row["decayed"] * row["revenue"] for row in rows),
        }
        for (channel,), rows in grouped(credits, "channel").items()
    ]


def _credits(order: Row, visits: list[Row]) -> Iterable[Row]:
    ordered_at = order["ordered_at"]
    near = [v for v in visits if v["started_at"] <= ordered_at <= v["ended_at"] + timedelta(days=30)]
    touches = [visit for visit in near if visit["channel"] != "direct"] or near
    last = max(touches, key=lambda visit: (visit["started_at"], visit["session_id"]))
    weights = [0.5 ** (_whole_seconds(ordered_at, visit["started_at"]) / 86400 / 7) for visit in touches]
    for visit, weight in zip(touches, weights, strict=True):
        shares = {"last": float(visit is last), "decayed": weight / sum(weights)}
        yield {"channel": visit["channel"], "revenue": order["revenue"], **shares}


def _whole_seconds(later: datetime, earlier: datetime) -> float:
    return (later.replace(microsecond=0) - earlier.replace(microsecond=0)).total_seconds()


def funnel_events(shop: Shop, as_of: datetime, steps: str, **_: Any) -> list[Row]:
    listed = {item["item_id"]: item["item_category"] for item in shop["items"]}
    moments = set()
    for (person, session), events in grouped(session_events(shop, as_of), "person_id", "session_id").items():
        visit = _session(person, session, events)
        taken = [event for event in events if event["event_name"] in steps.split(",")]
        met = {listed.get(event["item_id"]) or "unknown" for event in taken if event["item_id"]} or {"unknown"}
        for event in taken:
            for category in {listed.get(event["item_id"]) or "unknown"} if event["item_id"] else met:
                step = (event["event_name"], event["event_timestamp"], category)
                moments.add((person, session, *step, visit["device_category"] or "unknown", visit["channel"]))
    columns = ("event_name", "event_timestamp", "item_category", "device_category", "channel")
    return [dict(zip(("person_id", "session_id", *columns), moment, strict=True)) for moment in moments]


def kpis(shop: Shop, as_of: datetime, **_: Any) -> list[Row]:
    known, visits = known_events(shop, as_of), sessions(shop, as_of)
    bought = grouped(order_totals(shop, as_of), "person_id").values()
    orders, buyers, visitors = sum(map(len, bought)), len(bought), n_distinct(visits, "person_id")
    revenue, refunds = (float(sum(map(spend, named(known, name)))) for name in ("purchase", "refund"))
    return [
        {
            "page_views": len(named(known, "page_view")) or len(named(known, "view_item")),
            "visitors": visitors,
            "sessions": len(visits),
            "orders": orders,
            "buyers": buyers,
            "revenue": revenue,
            "refunds": refunds,
            "net_revenue": revenue - refunds,
            "conversion_per_session": sum(visit["n_purchases"] > 0 for visit in visits) / len(visits),
            "conversion_per_visitor": buyers / visitors,
            "average_order_value": revenue / orders,
            "repeat_rate": sum(len(mine) > 1 for mine in bought) / buyers,
            "realised_ltv": (revenue - refunds) / buyers,
        }
    ]
