"""Slow, obvious versions of the queries of customers, categories, touches and items."""

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import Any

from oracle_rows import (
    Row,
    Shop,
    age_days,
    grouped,
    known_events,
    latest,
    n_distinct,
    named,
    spend,
    visible,
    when,
    within,
)


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
    year = within([event for event in known if event["event_name"] in ("purchase", "refund")], 364, as_of)
    usual, traded = _usual_prices(named(year, "purchase")), grouped(year, "person_id")
    recent = grouped((order for order in orders if order["age_days"] <= 364), "person_id")
    visits = grouped((event for event in known if event["event_timestamp"] >= as_of - timedelta(days=28)), "person_id")
    return [
        {
            "person_id": person,
            **_bought(mine),
            **_shares(traded.get((person,), []), usual),
            **_visited(visits.get((person,), []), as_of),
        }
        for (person,), mine in recent.items()
    ]


def _usual_prices(lines: list[Row]) -> dict[str, float]:
    paid = grouped((line for line in lines if line["price"] is not None), "item_id")
    return {
        item: round(sum(line["price"] for line in sold), 6) / len(sold) for (item,), sold in paid.items() if sold[1:]
    }


def _shares(traded: list[Row], usual: dict[str, float]) -> Row:
    lines, refunds = named(traded, "purchase"), named(traded, "refund")
    units, returned = (sum(event["quantity"] for event in events) for events in (lines, refunds))
    priced = [line for line in lines if line["price"] is not None and line["item_id"] in usual]
    below = [line for line in priced if line["price"] < 0.99 * usual[line["item_id"]]]
    return {
        "share_of_units_returned": min(returned, units) / units if units else None,
        "share_of_lines_at_discount": len(below) / len(priced) if priced else None,
    }


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
