"""The tables of a seeded shop, and the files that hold them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.contract import AVAILABILITY, EVENT_NAMES
from features.errors import UserError
from features.seeded.campaigns import CHANNELS, TOUCH_COSTS, Campaign
from features.seeded.catalogue import CATEGORIES, LEAD_TIME_VARIATION, SUBCATEGORIES
from features.seeded.chance import Floats, Ints
from features.seeded.clock import FIRST_DAY, midnight
from features.seeded.people import COUNTRIES, DEVICES, MEDIA, SOURCES
from features.seeded.shop import CAMPAIGN_DAYS, Shop
from features.seeded.trade import Day, Trade

LEAST_EVENTS = 1_000
OFFER_DAYS_AHEAD = 42
ROW_GROUP_ROWS = 100_000
DENSE_STOCK_ROWS = 200_000
TIERS = ("bronze", "silver", "gold")
TIER_SHARES = (0.6, 0.9)  # cumulative, by activity times conversion
HOLDING_RATE = 0.25  # of the cost, per year


def events_table(shop: Shop, day: Day) -> pa.Table:
    rows, people = day.events, shop.people
    item, person, sought = rows["item"], rows["person"], rows["sought"]
    online = rows["session"] >= 0
    return pa.table(
        {
            "event_id": _ids("e", day.first_event + np.arange(len(rows))),
            "event_name": _pick(EVENT_NAMES, rows["name"]),
            "event_timestamp": _instants(rows["time"]),
            "user_pseudo_id": _ids("d", person),
            "user_id": _ids("u", np.where(rows["logged_in"], person, -1)),
            "item_id": _ids("i", item),
            "transaction_id": _ids("t", rows["transaction"]),
            "session_id": _ids("s", np.where(people.names_sessions[person], rows["session"], -1)),
            "received_at": _instants(day.received_at),
            "quantity": pa.array(rows["quantity"], from_pandas=True),
            "price": pa.array(rows["price"], from_pandas=True),
            "currency": _pick(("EUR",), np.where(item >= 0, 0, -1)),
            "source": _pick(SOURCES, rows["source"]),
            "medium": _pick(MEDIA, rows["source"]),
            "device_category": _pick(DEVICES, np.where(online, people.device[person], -1)),
            "country": _pick(COUNTRIES, np.where(online, people.country[person], -1)),
            "search_term": _pick(SUBCATEGORIES, np.where(sought >= 0, shop.catalogue.subcategory[sought], -1)),
        }
    )


def sessions_table(_: Shop, day: Day) -> pa.Table:
    visits = day.visits
    return pa.table(
        {
            "session_id": _ids("s", visits.session),
            "user_pseudo_id": _ids("d", visits.person),
            "user_id": _ids("u", np.where(visits.logged_in, visits.person, -1)),
            "started_at": _instants(visits.started_at),
            "purchase_probability": day.probability,
            "purchased": day.purchased,
        }
    )


def demand_table(shop: Shop, day: Day) -> pa.Table:
    """Expected uncensored units, what the promotion multiplied them by, and whether sales were censored."""
    item = np.flatnonzero(shop.catalogue.listed(day.number))
    return pa.table(
        {
            "item_id": _ids("i", item),
            "date": _dates(day.number, len(item)),
            "expected_quantity": day.expected_demand[item],
            "promotion_factor": day.offers.factor[item],
            "out_of_stock": day.available_fraction[item] < 1,
        }
    )


def stock_table(shop: Shop, day: Day) -> pa.Table:
    """A row per item in a small shop; else on Mondays, with and after a stock-out, and on the last day."""
    n_days, n_items, _ = shop.scale
    every = n_items * n_days <= DENSE_STOCK_ROWS or day.number % 7 == 0 or day.number == n_days - 1
    noted = ~day.was_available | (day.available_fraction < 1)
    item = np.flatnonzero(shop.catalogue.listed(day.number) & (every | noted))
    return pa.table(
        {
            "item_id": _ids("i", item),
            "date": _dates(day.number, len(item)),
            "on_hand": day.on_hand[item],
            "available_fraction": day.available_fraction[item],
            "on_order": day.on_order[item],
        }
    )


def offers_table(shop: Shop, day: int) -> pa.Table:
    """The promotions of a day, which may lie ahead; an item without a row sells at its list price."""
    offers = shop.offers(day)
    item = np.flatnonzero((offers.factor > 1) & shop.catalogue.listed(day))
    return pa.table(
        {
            "item_id": _ids("i", item),
            "date": _dates(day, len(item)),
            "price": offers.price[item],
            "base_price": shop.catalogue.price[item],
            "display": offers.display[item],
            "mailer": offers.mailer[item],
        }
    )


def items_table(shop: Shop, trade: Trade) -> pa.Table:
    goods, n_days = shop.catalogue, shop.scale.n_days
    hidden = goods.hidden_on < n_days
    return pa.table(
        {
            "item_id": _ids("i", np.arange(len(goods.price))),
            "item_name": _ids("Item ", np.arange(len(goods.price))),
            "item_brand": _ids("Brand ", goods.brand),
            "item_category": _pick(CATEGORIES, goods.category),
            "item_category2": _pick(SUBCATEGORIES, goods.subcategory),
            "price": goods.price,
            "cost": goods.cost,
            "availability": _pick(AVAILABILITY, np.where(hidden, 2, trade.stockroom.on_hand <= 0)),
            "created_at": _instants(midnight(goods.listed_on)),
            "valid_from": _instants(midnight(np.where(hidden, goods.hidden_on, goods.listed_on))),
        }
    )


def users_table(shop: Shop, trade: Trade) -> pa.Table:
    """The customers who have logged in, or will by the end."""
    people = shop.people
    worth = people.activity * people.conversion
    tier = np.searchsorted(np.quantile(worth, TIER_SHARES), worth)
    customer = np.flatnonzero(trade.greeted)
    return pa.table(
        {
            "user_id": _ids("u", customer),
            "membership_tier": _pick(TIERS, tier[customer]),
            "country": _pick(COUNTRIES, people.country[customer]),
        }
    )


def supply_table(shop: Shop, _: Trade) -> pa.Table:
    goods = shop.catalogue
    return pa.table(
        {
            "item_id": _ids("i", np.arange(len(goods.price))),
            "lead_time_days": goods.lead_days.astype(float),
            "lead_time_std_days": goods.lead_days * LEAD_TIME_VARIATION,
            "review_days": goods.review_days.astype(float),
            "pack_size": goods.pack.astype(float),
            "min_order_quantity": (goods.pack * goods.least_packs).astype(float),
            "holding_cost": goods.cost * HOLDING_RATE / 365,
            "shortage_cost": goods.price - goods.cost,
            "service_level": goods.service_level,
        }
    )


def pipeline_table(shop: Shop, trade: Trade) -> pa.Table:
    """What was ordered and arrives after the last day."""
    arriving = np.roll(trade.stockroom.arriving, -shop.scale.n_days, axis=0)
    ahead, item = np.nonzero(arriving)
    return pa.table(
        {
            "item_id": _ids("i", item),
            "quantity": arriving[ahead, item],
            "arrives_on": pa.array(FIRST_DAY + shop.scale.n_days + ahead),
        }
    )


def true_users_table(shop: Shop, trade: Trade) -> pa.Table:
    people = shop.people
    taste = {f"taste_{category}": people.taste[:, number] for number, category in enumerate(CATEGORIES)}
    return pa.table(
        {
            "user_pseudo_id": _ids("d", np.arange(len(people.activity))),
            "user_id": _ids("u", np.where(trade.greeted, np.arange(len(people.activity)), -1)),
            "activity": people.activity,
            "conversion": people.conversion,
            **taste,
        }
    )


def true_items_table(shop: Shop, _: Trade) -> pa.Table:
    return pa.table(
        {
            "item_id": _ids("i", np.arange(len(shop.visitors.base))),
            "base": shop.visitors.base,
            "conversion": shop.visitors.conversion,
        }
    )


def campaign_touches_table(campaign: Campaign) -> pa.Table:
    channel = campaign.day // CAMPAIGN_DAYS % len(CHANNELS)
    touched = {
        "channel": _pick(CHANNELS, np.full(len(campaign.person), channel)),
        "treated": campaign.treated,
        "cost": TOUCH_COSTS[channel] * campaign.treated,
    }
    return pa.table({**_sent(campaign), **touched})


def true_campaigns_table(campaign: Campaign) -> pa.Table:
    """Probability of a purchase within four weeks of the touch, stock permitting, and what treatment adds to it."""
    held_out, treated = campaign.probability
    outcomes = {"probability_held_out": held_out, "probability_treated": treated, "effect": treated - held_out}
    return pa.table({**_sent(campaign), **outcomes})


def _sent(campaign: Campaign) -> dict[str, pa.Array]:
    n = len(campaign.person)
    return {
        "user_id": _ids("u", campaign.person),
        "campaign_id": _ids("c", np.full(n, campaign.day // CAMPAIGN_DAYS)),
        "sent_at": _instants(np.full(n, midnight(campaign.day))),
    }


def _ids(prefix: str, numbers: Ints) -> pa.Array:
    """Numbers as identifiers; null where negative."""
    return pc.binary_join_element_wise(prefix, pa.array(numbers, mask=numbers < 0).cast(pa.string()), "")


def _pick(names: tuple[str, ...], numbers: Ints) -> pa.Array:
    """Names by number; null where negative."""
    return pa.array(names).take(pa.array(numbers, mask=numbers < 0))


def _instants(times: Ints) -> pa.Array:
    return pa.array(times, pa.timestamp("us"))


def _dates(day: int, n: int) -> pa.Array:
    return pa.array(np.full(n, FIRST_DAY + day))


DAILY_TABLES: Mapping[str, Callable[[Shop, Day], pa.Table]] = {
    "events/events": events_table,
    "stock": stock_table,
    "truth/sessions": sessions_table,
    "truth/demand": demand_table,
}
FINAL_TABLES: Mapping[str, Callable[[Shop, Trade], pa.Table]] = {
    "items": items_table,
    "users": users_table,
    "supply": supply_table,
    "pipeline": pipeline_table,
    "truth/users": true_users_table,
    "truth/items": true_items_table,
}
CAMPAIGN_TABLES: Mapping[str, Callable[[Campaign], pa.Table]] = {
    "campaign_touches": campaign_touches_table,
    "truth/campaigns": true_campaigns_table,
}


class Files:
    """Parquet files below a folder; what is appended waits until it fills a row group, then is written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.waiting: dict[str, list[pa.Table]] = {}
        self.writers: dict[str, pq.ParquetWriter] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name, writer in self.writers.items():
            self._flush(name)
            writer.close()

    def append(self, name: str, table: pa.Table) -> None:
        if name not in self.writers:
            path = self.folder / f"{name}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            self.writers[name], self.waiting[name] = pq.ParquetWriter(path, table.schema), []
        self.waiting[name].append(table)
        if sum(map(len, self.waiting[name])) >= ROW_GROUP_ROWS:
            self._flush(name)

    def _flush(self, name: str) -> None:
        if self.waiting[name]:
            self.writers[name].write_table(pa.concat_tables(self.waiting[name]))
            self.waiting[name] = []


@dataclass(frozen=True, slots=True)
class Truth:
    """What the shop was drawn from; ``folder/truth`` holds the same, and ``sessions`` and ``demand``, as Parquet.

    Person ``u`` has the device ``d{u}`` and, once logged in, the customer number ``u{u}``; item ``i`` is ``i{i}``.

    n_events : rows of events written.
    days : datetime64[D] array, shape (n_days,)
    taste : float array, shape (n_users, n_categories)   share of a person's visits per category, rows sum to 1
    activity : float array, shape (n_users,)   share of all visits, sums to 1
    category : int array, shape (n_items,)   index into ``CATEGORIES``
    base : float array, shape (n_items,)   share of all visits that the item leads out of season and promotion
    conversion : float array, shape (n_items,)   mean purchase probability of the visits that it leads, stock permitting
    """

    n_events: int
    days: NDArray[np.datetime64]
    taste: Floats
    activity: Floats
    category: Ints
    base: Floats
    conversion: Floats


def write(folder: Path, n_events: int, seed: int = 0, with_campaigns: bool = False) -> Truth:
    """Write a shop's tables below a folder, and what it was drawn from below ``folder/truth``.

    n_events : rows of events, at least 1,000; met within 2 %
    seed : the same numbers give the same files
    with_campaigns : add ``campaign_touches``, which change what people buy, and their truth; ``truth/users``, ``items``
        and ``demand`` stay those of a shop without campaigns
    Raises UserError for fewer events, and for a shop of less than eight weeks that shall have campaigns.
    """
    if n_events < LEAST_EVENTS:
        raise UserError(f"A seeded shop of {n_events} events is too small: ask for {LEAST_EVENTS} or more.")
    shop = Shop(n_events, seed, with_campaigns)
    if with_campaigns and not shop.sending_days:
        raise UserError(
            f"A seeded shop of {n_events} events lasts {shop.scale.n_days} days, one with campaigns "
            f"{2 * CAMPAIGN_DAYS} or more: ask for more events."
        )
    trade = Trade(shop)
    with Files(folder) as files:
        for number in range(shop.scale.n_days):
            day = trade.open(number)
            for name, table in DAILY_TABLES.items():
                files.append(name, table(shop, day))
        for number in range(shop.scale.n_days + OFFER_DAYS_AHEAD):
            files.append("offers", offers_table(shop, number))
        for name, final_table in FINAL_TABLES.items():
            files.append(name, final_table(shop, trade))
        for campaign in trade.campaigns.sent:
            for name, campaign_table in CAMPAIGN_TABLES.items():
                files.append(name, campaign_table(campaign))
    return Truth(
        n_events=trade.n_events,
        days=FIRST_DAY + np.arange(shop.scale.n_days),
        taste=shop.people.taste,
        activity=shop.people.activity,
        category=shop.catalogue.category,
        base=shop.visitors.base,
        conversion=shop.visitors.conversion,
    )
