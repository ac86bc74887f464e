"""Slow, obvious versions of every query in ``features/sql`` over lists of rows, and the comparison with what came back.

An oracle takes the shop's tables as lists of rows, the cut-off as naive UTC, and the query's parameters.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from math import ceil, floor, isnan
from typing import Any

import numpy as np
import pyarrow as pa

from features.sessions import NUMBERS, TEXTS, Event, Item, ItemWeek, Visit, VisitFold, week_of

Row = dict[str, Any]
Shop = Mapping[str, list[Row]]

PARAMETERS = {
    "period_days": 7,
    "by_location": 1,
    "least_periods": 2,
    "event": "purchase",
    "horizon_days": 21,
    "steps": "page_view,view_item,purchase",
}
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
    told = {"quantity": quantity, "person_id": person, "place_shown": event["index"], "known_at": known_at(event)}
    return {**event, **told}


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


def outcomes(shop: Shop, as_of: datetime, since: datetime, event: str, **_: Any) -> list[Row]:
    done = [each for each in named(known_events(shop, as_of), event) if each["event_timestamp"] >= since]
    return [{"person_id": name} for name in {name for each in done for name in _names(each)}]


def _names(event: Row) -> set[str]:
    """A person, and the device that it is known by until a login."""
    return {event["person_id"]} | ({event["user_pseudo_id"]} if event["user_pseudo_id"] else set())


def category_outcomes(shop: Shop, as_of: datetime, since: datetime, **_: Any) -> list[Row]:
    categories = _categories(shop)
    done = [
        (event, categories[event["item_id"]])
        for event in visible(named(known_events(shop, as_of), "purchase"), shop)
        if event["event_timestamp"] >= since and categories.get(event["item_id"])
    ]
    pairs = {(name, category) for event, category in done for name in _names(event)}
    return [{"person_id": name, "category": category} for name, category in pairs]


def _categories(shop: Shop) -> dict[str, str | None]:
    return {item["item_id"]: item["item_category2"] or item["item_category"] for item in shop["items"]}


def category_features(shop: Shop, as_of: datetime, **_: Any) -> list[Row]:
    categories, year = _categories(shop), as_of - timedelta(days=364)
    lines = [
        {**event, "category": categories[event["item_id"]], "age": age_days(event, as_of)}
        for event in visible(named(known_events(shop, as_of), "purchase"), shop)
        if event["event_timestamp"] >= year and categories.get(event["item_id"])
    ]
    of_pairs = grouped(lines, "person_id", "category")
    of_persons = {person: {line["age"] for line in mine} for (person,), mine in grouped(lines, "person_id").items()}
    ages = {pair: sorted({line["age"] for line in mine}) for pair, mine in of_pairs.items()}
    gaps = {pair: [older - younger for younger, older in pairwise(known)] for pair, known in ages.items()}
    return [
        {
            "person_id": person,
            "category": category,
            **_of_pair(mine, ages[person, category], gaps[person, category]),
            "days_since_last_order": min(of_persons[person]),
            "n_order_days_91d": sum(age <= 91 for age in of_persons[person]),
            **_of_category([ages[pair] for pair in ages if pair[1] == category]),
            "category_gap_days": _mean([gap for pair, found in gaps.items() if pair[1] == category for gap in found]),
        }
        for (person, category), mine in of_pairs.items()
    ]


def _of_pair(lines: list[Row], ages: list[int], gaps: list[int]) -> Row:
    youngest = [line for line in lines if line["age"] == ages[0]]
    return {
        "days_since_last_category_order": ages[0],
        "n_category_days": len(ages),
        **{f"n_category_days_{days}d": sum(age <= days for age in ages) for days in (28, 91, 182)},
        "last_category_units": sum(line["quantity"] for line in youngest),
        "mean_category_units": sum(line["quantity"] for line in lines) / len(ages),
        "mean_category_spend": sum(spend(line) for line in lines) / len(ages),
        "mean_category_gap_days": _mean(gaps),
        "longest_category_gap_days": max(gaps, default=None),
        "last_category_gap_days": gaps[0] if gaps else None,
        "share_of_category_gap": ages[0] / _mean(gaps) if gaps else None,
        "days_since_first_category_order": ages[-1],
    }


def _of_category(ages: list[list[int]]) -> Row:
    month = sum(age <= 28 for known in ages for age in known)
    before = sum(28 < age <= 56 for known in ages for age in known)
    return {"category_sales_28d": month, "category_trend": month / before if before else None}


def _mean(values: list[int]) -> float | None:
    return sum(values) / len(values) if values else None


def touch_responses(shop: Shop, as_of: datetime, event: str, horizon_days: int, **_: Any) -> list[Row]:
    horizon = timedelta(days=horizon_days)
    sent = [{**touch} for touch in shop["campaign_touches"] if touch["sent_at"] < as_of]
    done = grouped(named(known_events(shop, as_of), event), "person_id")
    for touch in sent:
        until, stated = touch["sent_at"] + horizon, touch["responded_at"]
        own = done.get((touch["user_id"],), [])
        answers = [each for each in own if touch["sent_at"] <= each["event_timestamp"] < until]
        touch["responded_at"] = min((each["event_timestamp"] for each in answers), default=None)
        signed = [each["known_at"] for each in answers if each["user_id"] == touch["user_id"]]
        touch["known_at"] = min(signed, default=None)
        if event == "response" and stated and stated < min(as_of, until):
            touch["responded_at"] = touch["known_at"] = stated
    return [{**touch, **_before(touch, sent)} for touch in sent]


def _before(touch: Row, sent: list[Row]) -> Row:
    earlier = [each for each in sent if each["user_id"] == touch["user_id"] and each["sent_at"] < touch["sent_at"]]
    ages = [(touch["sent_at"] - each["sent_at"]) / timedelta(days=1) for each in earlier]
    answered = [each for each in earlier if each["known_at"] and each["known_at"] < touch["sent_at"]]
    return {
        "n_earlier_touches": len(earlier),
        "n_earlier_responses": len(answered),
        "days_since_last_touch": min(ages, default=None),
    }


def item_weeks(shop: Shop, as_of: datetime, **_: Any) -> list[Row]:
    known = [{**event, "week": _week(known_at(event))} for event in shop["events"] if known_at(event) < as_of]
    of_items = grouped((event for event in known if event["item_id"]), "item_id")
    return [
        {"item_id": item, "week": week, **_four_weeks(events, week)}
        for (item,), events in of_items.items()
        for week in {event["week"] + ahead for event in events for ahead in range(1, 5)}
    ]


def _four_weeks(events: list[Row], week: int) -> Row:
    past = [event for event in events if week - 4 <= event["week"] < week]
    prices = [event["price"] for event in past if event["price"] is not None]
    return {
        "n_views_4w": len(named(past, "view_item")),
        "n_carts_4w": len(named(past, "add_to_cart")),
        "n_purchases_4w": len(named(past, "purchase")),
        "n_purchases_1w": len([event for event in named(past, "purchase") if event["week"] == week - 1]),
        "mean_price_4w": sum(prices) / len(prices) if prices else None,
    }


def _week(at: datetime) -> int:
    return (days_since_1970(at.date()) + 3) // 7


def known_at(event: Row) -> datetime:
    return max(event["event_timestamp"], event["received_at"] or event["event_timestamp"])


def visit_events(shop: Shop, as_of: datetime, **_: Any) -> list[Row]:
    items = {item["item_id"]: item for item in shop["items"]}
    timely = [
        event
        for event in shop["events"]
        if known_at(event) < as_of
        and known_at(event) <= event["event_timestamp"] + timedelta(minutes=30)
        and event["event_name"] != "refund"
    ]
    owners: dict[str, str] = {}
    running: dict[tuple[str, str | None], tuple[int, datetime]] = {}
    found = []
    for event in sorted(timely, key=lambda event: (known_at(event), event["event_id"])):
        visitor, at, item = (
            event["user_pseudo_id"] or event["user_id"],
            known_at(event),
            items.get(event["item_id"], {}),
        )
        owners[visitor] = event["user_id"] or owners.get(visitor, visitor)
        n_pauses, previous = running.get((visitor, event["session_id"]), (0, at))
        n_pauses += event["session_id"] is None and at - previous > timedelta(minutes=30)
        running[visitor, event["session_id"]] = n_pauses, at
        placed = {"visitor_id": visitor, "n_pauses": n_pauses, "known_at": at, "known_us": _us(at)}
        told = {
            "person_id": owners[visitor],
            "item_category": item.get("item_category"),
            "quantity": 1.0 if event["quantity"] is None else event["quantity"],
            "unit_price": item.get("price") if event["price"] is None else event["price"],
        }
        found.append({**event, **placed, **told})
    return found


def _us(at: datetime) -> int:
    return (at - datetime(1970, 1, 1)) // timedelta(microseconds=1)


def people(shop: Shop, as_of: datetime, **_: Any) -> list[Row]:
    fold, _ = _folded(shop, as_of)
    return [{"person_id": name, **asdict(person)} for name, person in fold.people.items()]


def device_owners(shop: Shop, as_of: datetime, **_: Any) -> list[Row]:
    known = [event for event in visit_events(shop, as_of) if event["person_id"] != event["visitor_id"]]
    owners = {event["visitor_id"]: event["person_id"] for event in known}
    return [{"device_id": device, "person_id": person} for device, person in owners.items()]


def session_progress(shop: Shop, as_of: datetime, since: datetime, **_: Any) -> list[Row]:
    """The fold's own answers: the two executions of the features must agree; what follows is looked up."""
    _, rows = _folded(shop, as_of)
    visits = grouped(rows, "visit")
    late = [
        event
        for event in named(shop["events"], "purchase")
        if known_at(event) < as_of
        and known_at(event) > event["event_timestamp"] + timedelta(minutes=30)
        and event["session_id"]
    ]
    for row in rows:
        mine = visits[row["visit"],]
        unseen = [e for e in late if (e["user_pseudo_id"] or e["user_id"], e["session_id"]) == row["names"]]
        by_tomorrow = [each for each in mine if each["known_us"] <= row["tomorrow_us"]]
        bought = [_us(each["event_timestamp"]) for each in unseen]
        told = [_us(known_at(each)) for each in unseen]
        counts = bool(unseen) and min(bought) > row["known_us"] and min(told) <= row["tomorrow_us"]
        row["n_purchases_to_come"] = by_tomorrow[-1]["n_purchases"] - row["n_purchases"] + counts
    return [row for row in rows if row["started_us"] >= _us(since)]


def _folded(shop: Shop, as_of: datetime) -> tuple[VisitFold, list[Row]]:
    weeks = {(row["item_id"], row["week"]): row for row in item_weeks(shop, as_of)}
    catalogue = {item["item_id"]: Item(item["item_category"], item["price"]) for item in shop["items"]}
    fold, rows = VisitFold(catalogue), []
    known = [event for event in shop["events"] if known_at(event) < as_of]
    for event in sorted(known, key=lambda event: (known_at(event), event["event_id"])):
        instants = _us(event["event_timestamp"]), _us(known_at(event))
        visit = fold.update(Event(*instants, *(event[name] for name in Event._fields[2:])))
        if visit is not None:
            week = weeks.get((visit.item_id, week_of(visit.known_us)))
            past = ItemWeek(*(week[name] for name in ItemWeek._fields)) if week else None
            rows.append({**event, **_seen(visit, past), "known_at": known_at(event)})
    return fold, rows


def _seen(visit: Visit, week: ItemWeek | None) -> Row:
    numbers = (None if isnan(value) else value for value in visit.numbers(week))
    return {
        "visit": id(visit),
        "held": visit,  # so that no later visit gets its id
        "names": (visit.visitor_id, visit.session_id),
        "visitor_id": visit.visitor_id,
        "person_id": visit.person_id,
        "item_id": visit.item_id,
        "started_us": visit.started_us,
        "known_us": visit.known_us,
        "tomorrow_us": visit.known_us + 86_400_000_000,
        "n_purchases": visit.n_purchases,
        **dict(zip(NUMBERS, numbers, strict=True)),
        **dict(zip(TEXTS, visit.texts(), strict=True)),
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
        device_owners,
        item_weeks,
        visit_events,
        people,
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
