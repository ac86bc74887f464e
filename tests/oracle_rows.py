"""What every oracle is made of: rows with their person, grouped, filtered and dated."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Any

Row = dict[str, Any]


Shop = Mapping[str, list[Row]]


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


def known_at(event: Row) -> datetime:
    return max(event["event_timestamp"], event["received_at"] or event["event_timestamp"])


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
