"""Visits as they are seen while they run: one definition of their features, as a query over the log and as a fold.

``session_progress`` computes the features of every visit after each of its events from a whole log; ``VisitFold`` keeps
the same features up to date event by event. The tests hold the two equal.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from math import nan
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from features.engine import Engine
from features.windows import FIRST_INSTANT

PAUSE_US = 30 * 60 * 1_000_000
SETTLED = timedelta(days=1)
"""After which no purchase is added to a visit."""
_HOUR_US = 3_600_000_000
_DAY_US = 24 * _HOUR_US

NUMBERS = {
    "n_events": "{} steps in this visit",
    "n_page_views": "{} pages seen in this visit",
    "n_searches": "{} searches in this visit",
    "n_views": "{} item views in this visit",
    "n_carts": "{} items put in the cart in this visit",
    "n_removals": "{} items taken out of the cart in this visit",
    "n_checkout_steps": "{} steps towards checkout in this visit",
    "n_items": "{} items looked at in this visit",
    "n_categories": "{} categories looked at in this visit",
    "n_events_of_last_item": "{} steps with the latest item",
    "seconds_since_start": "visit began {} seconds ago",
    "seconds_since_previous": "{} seconds since the step before",
    "longest_pause_seconds": "paused {} seconds at most",
    "seconds_since_cart": "put an item in the cart {} seconds ago",
    "last_price": "latest item costs {}",
    "mean_price": "items looked at cost {} on average",
    "highest_price": "items looked at cost {} at most",
    "cart_value": "{} in the cart",
    "item_views_4w": "latest item viewed {} times in four weeks",
    "item_carts_4w": "latest item put in carts {} times in four weeks",
    "item_purchases_4w": "latest item bought {} times in four weeks",
    "item_purchases_1w": "latest item bought {} times in a week",
    "price_over_past_price": "latest item costs {} times what it did in four weeks",
    "item_on_hand": "{} of the latest item in stock before this week",
    "hour_of_day": "hour {} of the day (UTC)",
    "day_of_week": "day {} of the week",
    "is_known_customer": "known as a customer: {}",
    "n_earlier_visits": "{} earlier visits",
    "n_earlier_views": "viewed {} items in earlier visits",
    "n_earlier_carted_visits": "{} earlier visits with a cart",
    "n_earlier_orders": "{} earlier orders",
    "earlier_views_per_visit": "viewed about {} items a visit before",
    "share_of_carted_visits": "about {} of earlier visits had a cart",
    "earlier_orders_per_visit": "ordered about {} times a visit before",
    "earlier_spend": "spent {} before",
    "days_since_last_order": "ordered {} days ago",
    "days_since_last_visit": "visited {} days ago",
}
"""The numbers that a visit is known by, with the words that explain a value."""

TEXTS = {
    "event_name": "latest step is {}",
    "source": "came from {}",
    "medium": "came by {}",
    "campaign": "came with campaign {}",
    "device_category": "uses a {}",
    "item_category": "latest item is of {}",
}
"""The texts that a visit is known by, with the words that explain a value."""


def session_progress(engine: Engine, since: datetime, as_of: datetime) -> pa.Table:
    """Every visit that began from ``since`` on, as it was seen after each of its events before ``as_of``.

    Returns a row per event, in order of ``known_at`` and ``event_id``: ``visitor_id``, ``session_id``, ``event_id``,
    ``person_id``, ``item_id``, ``known_at``, ``started_us`` (us since 1970), ``n_purchases`` so far,
    ``n_purchases_to_come`` within a day, NUMBERS and TEXTS. Only ``n_purchases_to_come`` knows what follows.
    """
    rows = resumed(engine, since, as_of).query("session_progress", since=since, as_of=as_of)
    return rows.sort_by([("known_at", "ascending"), ("event_id", "ascending")])


def day_since_which(engine: Engine, until: datetime, n_events: int) -> datetime:
    """The latest midnight since which so many events became known before ``until``; FIRST_INSTANT if fewer did."""
    known_at = "greatest(event_timestamp, coalesce(received_at, event_timestamp))"
    counted = f"select cast({known_at} as date) as day, count(*) as n from events where {known_at} < $until group by 1"
    days = engine.select(counted, until=until.replace(tzinfo=None)).sort_by([("day", "descending")])
    enough = np.flatnonzero(np.cumsum(days["n"].to_numpy()) >= n_events)
    return datetime.combine(days["day"][int(enough[0])].as_py(), time(), UTC) if len(enough) else FIRST_INSTANT


def resumed(engine: Engine, since: datetime, as_of: datetime) -> Engine:
    """What ``session_progress.sql`` is asked of: people's totals until ``since``, and events of visits from then on.

    So the last month of a long log costs what a month does, beside one pass for the totals.
    """
    week = week_of(int(since.timestamp()) * 1_000_000)
    weeks = engine.select("select * from item_weeks where week >= $week", as_of=as_of, week=week)
    people = engine.query("people", as_of=since)
    running = engine.bind(item_weeks=weeks, people_before=people)
    return running.narrow({"events": "select * from running_events"}, since=since, as_of=as_of)


class Event(NamedTuple):
    """One row of ``contract.EVENTS``, of the columns that a visit is known by; instants in us since 1970."""

    event_us: int
    known_us: int
    event_name: str
    user_pseudo_id: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    item_id: str | None = None
    transaction_id: str | None = None
    quantity: float | None = None
    price: float | None = None
    source: str | None = None
    medium: str | None = None
    campaign: str | None = None
    device_category: str | None = None

    @property
    def is_of_a_visit(self) -> bool:
        """Whether it was known while its visit ran, and is what a visitor does."""
        return self.event_name != "refund" and self.known_us <= self.event_us + PAUSE_US


class Item(NamedTuple):
    """What the catalogue says of an item."""

    category: str | None = None
    price: float | None = None


class ItemWeek(NamedTuple):
    """What happened to an item in the four weeks before the present one, and what was left: of ``item_weeks.sql``."""

    n_views_4w: int
    n_carts_4w: int
    n_purchases_4w: int
    n_purchases_1w: int
    mean_price_4w: float | None
    on_hand: float | None


def week_of(known_us: int) -> int:
    """The week of an instant as ``item_weeks.sql`` numbers them.

    >>> week_of(0), week_of(4 * _DAY_US)
    (0, 1)
    """
    return (known_us // _DAY_US + 3) // 7


class Earlier(NamedTuple):
    """What a visit knows of its person from those before it."""

    n_visits: int
    n_views: int
    n_carted_visits: int
    n_orders: int
    spend: float
    ordered_us: int | None
    seen_us: int | None


@dataclass(slots=True)
class Person:
    """What is known of somebody from all visits so far."""

    n_visits: int = 0
    n_views: int = 0
    n_carted_visits: int = 0
    n_orders: int = 0
    spend: float = 0.0
    ordered_us: int | None = None
    seen_us: int | None = None
    transaction_id: str | None = None

    def before(self) -> Earlier:
        return Earlier(*(getattr(self, name) for name in Earlier._fields))

    def update(self, event: Event, unit_price: float) -> None:
        self.seen_us = event.known_us
        self.n_views += event.event_name == "view_item"
        if event.event_name == "purchase":
            self.ordered_us = event.known_us
            self.spend += _quantity(event) * unit_price
            self.n_orders += event.transaction_id != self.transaction_id
            self.transaction_id = event.transaction_id


_COUNTED = {
    "page_view": "n_page_views",
    "search": "n_searches",
    "view_item": "n_views",
    "add_to_cart": "n_carts",
    "remove_from_cart": "n_removals",
    "view_cart": "n_checkout_steps",
    "begin_checkout": "n_checkout_steps",
    "add_payment_info": "n_checkout_steps",
    "purchase": "n_purchases",
}


@dataclass(slots=True)
class Visit:
    """A running visit; ``update`` takes an event in, ``numbers`` and ``texts`` give what the query gives."""

    visitor_id: str
    session_id: str | None
    started_us: int
    known_us: int
    previous_us: int | None = None
    longest_pause_us: int | None = None
    carted_us: int | None = None
    carted_people: set[str] = field(default_factory=set)
    person_id: str = ""
    is_known_customer: bool = False
    earlier: dict[str, Earlier] = field(default_factory=dict)
    n_events: int = 0
    n_page_views: int = 0
    n_searches: int = 0
    n_views: int = 0
    n_carts: int = 0
    n_removals: int = 0
    n_checkout_steps: int = 0
    n_purchases: int = 0
    events_of_item: dict[str, int] = field(default_factory=dict)
    categories: set[str] = field(default_factory=set)
    item_id: str | None = None
    item_category: str | None = None
    last_price: float | None = None
    sum_of_prices: float = 0.0
    n_prices: int = 0
    highest_price: float | None = None
    cart_value: float = 0.0
    event_name: str = ""
    source: str | None = None
    medium: str | None = None
    campaign: str | None = None
    device_category: str | None = None

    def update(self, event: Event, item: Item, unit_price: float | None) -> None:
        if self.n_events:
            self.previous_us = self.known_us
            pause_us = event.known_us - self.known_us
            self.longest_pause_us = max(pause_us, self.longest_pause_us or 0)
        self.known_us = event.known_us
        self.n_events += 1
        self.event_name = event.event_name
        if counted := _COUNTED.get(event.event_name):
            setattr(self, counted, getattr(self, counted) + 1)
        self._cart(event, unit_price)
        if event.item_id is not None:
            self._touch(event.item_id, item, unit_price)
        self.source = self.source or event.source
        self.medium = self.medium or event.medium
        self.campaign = self.campaign or event.campaign
        self.device_category = self.device_category or event.device_category

    def _cart(self, event: Event, unit_price: float | None) -> None:
        if event.event_name == "add_to_cart":
            self.carted_us = event.known_us
            self.cart_value += _quantity(event) * (unit_price or 0.0)
        elif event.event_name == "remove_from_cart":
            self.cart_value -= _quantity(event) * (unit_price or 0.0)

    def _touch(self, item_id: str, item: Item, unit_price: float | None) -> None:
        self.item_id, self.item_category, self.last_price = item_id, item.category, unit_price
        self.events_of_item[item_id] = self.events_of_item.get(item_id, 0) + 1
        if item.category is not None:
            self.categories.add(item.category)
        if unit_price is not None:
            self.sum_of_prices += unit_price
            self.n_prices += 1
            self.highest_price = unit_price if self.highest_price is None else max(self.highest_price, unit_price)

    def numbers(self, week: ItemWeek | None) -> list[float]:
        """The values of NUMBERS, NaN where one is missing.

        week : the past weeks of ``item_id``, None for an item without any
        """
        n_visits, n_views, n_carted_visits, n_orders, spend, ordered_us, seen_us = self.earlier[self.person_id]
        known_us = self.known_us
        days, us_of_day = divmod(known_us, _DAY_US)
        past_price = week.mean_price_4w if week else None
        return [
            self.n_events,
            self.n_page_views,
            self.n_searches,
            self.n_views,
            self.n_carts,
            self.n_removals,
            self.n_checkout_steps,
            len(self.events_of_item),
            len(self.categories),
            nan if self.item_id is None else self.events_of_item[self.item_id],
            (known_us - self.started_us) / 1e6,
            nan if self.previous_us is None else (known_us - self.previous_us) / 1e6,
            nan if self.longest_pause_us is None else self.longest_pause_us / 1e6,
            nan if self.carted_us is None else (known_us - self.carted_us) / 1e6,
            nan if self.last_price is None else self.last_price,
            self.sum_of_prices / self.n_prices if self.n_prices else nan,
            nan if self.highest_price is None else self.highest_price,
            self.cart_value,
            *(week[:4] if week else (nan, nan, nan, nan)),
            self.last_price / past_price if self.last_price is not None and past_price else nan,
            nan if week is None or week.on_hand is None else week.on_hand,
            us_of_day // _HOUR_US,
            (days + 4) % 7 + 1,
            int(self.is_known_customer),
            n_visits,
            n_views,
            n_carted_visits,
            n_orders,
            (n_views + 15) / (n_visits + 5),
            (n_carted_visits + 1) / (n_visits + 5),
            (n_orders + 1) / (n_visits + 5),
            spend,
            nan if ordered_us is None else (self.started_us - ordered_us) / _DAY_US,
            nan if seen_us is None else (self.started_us - seen_us) / _DAY_US,
        ]

    def texts(self) -> list[str | None]:
        """The values of TEXTS."""
        return [self.event_name, self.source, self.medium, self.campaign, self.device_category, self.item_category]


class VisitFold:
    """Everybody's visits, from events in the order in which they became known.

    catalogue : what is known of each item
    people : what is known of each person from before the first event, by person
    owners : the customer whom each device was last seen to be
    """

    def __init__(
        self,
        catalogue: Mapping[str, Item],
        people: dict[str, Person] | None = None,
        owners: dict[str, str] | None = None,
    ) -> None:
        self._catalogue = catalogue
        self.people = {} if people is None else people
        self._owners = {} if owners is None else owners
        self._visits: dict[tuple[str, str | None], Visit] = {}

    def update(self, event: Event) -> Visit | None:
        """Take one event in; returns the visit it belongs to, None for one that belongs to none."""
        if not event.is_of_a_visit:
            return None
        visitor_id = event.user_pseudo_id or event.user_id or ""
        if event.user_id is not None:
            self._owners[visitor_id] = event.user_id
        visit = self._visit(visitor_id, event)
        visit.person_id = self._owners.get(visitor_id, visitor_id)
        visit.is_known_customer = event.user_id is not None or visit.person_id != visitor_id
        item = self._catalogue.get(event.item_id or "", _UNLISTED)
        unit_price = event.price if event.price is not None else item.price
        self._remember(visit, event, unit_price or 0.0)
        visit.update(event, item, unit_price)
        return visit

    def _visit(self, visitor_id: str, event: Event) -> Visit:
        key = (visitor_id, event.session_id)
        visit = self._visits.get(key)
        if visit is None or (event.session_id is None and event.known_us > visit.known_us + PAUSE_US):
            visit = self._visits[key] = Visit(visitor_id, event.session_id, event.known_us, event.known_us)
        return visit

    def _remember(self, visit: Visit, event: Event, unit_price: float) -> None:
        person = self.people.get(visit.person_id)
        if person is None:
            person = self.people[visit.person_id] = Person()
        if visit.person_id not in visit.earlier:
            visit.earlier[visit.person_id] = person.before()
            person.n_visits += 1
        if event.event_name == "add_to_cart" and visit.person_id not in visit.carted_people:
            visit.carted_people.add(visit.person_id)
            person.n_carted_visits += 1
        person.update(event, unit_price)


_UNLISTED = Item()


def _quantity(event: Event) -> float:
    return 1.0 if event.quantity is None else event.quantity


def logged(events: pa.Table) -> list[Event]:
    """The rows of an events table in the order in which they became known."""
    columns: Mapping[str, Any] = {name: events[name].to_pylist() for name in ("event_id", *Event._fields[2:])}
    instants = (events[name].cast(pa.timestamp("us")).cast(pa.int64()) for name in ("event_timestamp", "received_at"))
    happened, received = (column.to_pylist() for column in instants)
    known = [max(at, at if late is None else late) for at, late in zip(happened, received, strict=True)]
    order = sorted(range(len(known)), key=lambda number: (known[number], columns["event_id"][number]))
    fields = [happened, known, *(columns[name] for name in Event._fields[2:])]
    return [Event(*(values[number] for values in fields)) for number in order]
