"""Slow, obvious versions of the queries of visits as they were known while they ran."""

from dataclasses import asdict
from datetime import datetime, timedelta
from math import isnan
from typing import Any

from oracle_rows import Row, Shop, days_since_1970, grouped, known_at, named

from features.sessions import NUMBERS, TEXTS, Event, Item, ItemWeek, Visit, VisitFold, week_of


def item_weeks(shop: Shop, as_of: datetime, **_: Any) -> list[Row]:
    known = [{**event, "week": _week(known_at(event))} for event in shop["events"] if known_at(event) < as_of]
    of_items = grouped((event for event in known if event["item_id"]), "item_id")
    return [
        {"item_id": item, "week": week, **_four_weeks(events, week), "on_hand": _on_hand(shop, as_of, item, week)}
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


def _on_hand(shop: Shop, as_of: datetime, item: str, week: int) -> float | None:
    noted = [
        row
        for row in shop.get("stock", [])
        if row["item_id"] == item
        and row["on_hand"] is not None
        and row["date"] < as_of.date()
        and (days_since_1970(row["date"]) + 3) // 7 < week
    ]
    places = grouped(noted, "location_id").values()
    return sum(max(rows, key=lambda row: row["date"])["on_hand"] for rows in places) if noted else None


def _week(at: datetime) -> int:
    return (days_since_1970(at.date()) + 3) // 7


def dated_events(shop: Shop, as_of: datetime, **_: Any) -> list[Row]:
    known = [event for event in shop["events"] if known_at(event) < as_of]
    return [{**e, "visitor_id": _visit(e)[0], "known_at": known_at(e), "is_of_a_visit": _is_timely(e)} for e in known]


def running_events(shop: Shop, as_of: datetime, since: datetime, **_: Any) -> list[Row]:
    known = [event for event in shop["events"] if known_at(event) < as_of]
    running = {_visit(event) for event in known if known_at(event) >= since}
    visitors = {visitor for visitor, _ in running}
    owners: dict[str, str] = {}
    told = set()
    for event in sorted(filter(_is_timely, known), key=lambda event: (known_at(event), event["event_id"])):
        visitor = _visit(event)[0]
        if event["user_id"] and known_at(event) < since and visitor in visitors:
            if owners.get(visitor) != event["user_id"]:
                told.add(event["event_id"])
            owners[visitor] = event["user_id"]
    return [
        event
        for event in known
        if event["event_id"] in told
        or (_visit(event) in running if event["session_id"] else known_at(event) >= since - timedelta(days=1))
    ]


def _visit(event: Row) -> tuple[str, str | None]:
    return event["user_pseudo_id"] or event["user_id"], event["session_id"]


def _is_timely(event: Row) -> bool:
    return known_at(event) <= event["event_timestamp"] + timedelta(minutes=30) and event["event_name"] != "refund"


def visit_events(shop: Shop, as_of: datetime, **_: Any) -> list[Row]:
    items = {item["item_id"]: item for item in shop["items"]}
    timely = [event for event in shop["events"] if known_at(event) < as_of and _is_timely(event)]
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
