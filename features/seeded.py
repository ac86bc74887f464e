"""The seeded shop: a shop of any size drawn from a model whose truth is known.

A visit is led by an item. On day ``d`` item ``i`` leads visits in proportion to

    ``rate[i, d] = base[i] * weekday[d] * season[category, d] * promotion[i, d] * listed[i, d]``

and who comes is drawn from the people whose taste is for its category or, in consumable categories, from those who buy
that very item again and again. A visit's basket is the leading item and further items of its category in proportion to
the same rates, so that a promotion multiplies an item's expected demand by its factor. The basket is bought with a
probability that depends on person, device, source and interest, as far as stock reaches at that moment; stock follows
an order-up-to policy that does not foresee seasons or promotions. Days are drawn one after another, each from its own
seed, and written as they come: memory holds people, catalogue and the rows not yet written.

    python -m features.seeded --events 1000000 --out FOLDER --seed 0
"""

import argparse
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.contract import AVAILABILITY, EVENT_NAMES
from features.errors import UserError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Rows = NDArray[np.void]

FIRST_DAY = np.datetime64("2023-01-02", "D")  # a Monday
LEAST_EVENTS = 1_000
MOST_DAYS = 730
OFFER_DAYS_AHEAD = 42
ROW_GROUP_ROWS = 100_000
DENSE_STOCK_ROWS = 200_000

CONSUMABLES = ("grocery", "beauty", "pets")
CATEGORIES = (*CONSUMABLES, "books", "games", "shoes", "shirts", "coats", "kitchen", "garden", "audio", "phones")
SUBCATEGORIES = tuple(f"{category} {kind}" for category in CATEGORIES for kind in ("basic", "classic", "fine", "pro"))
N_SUBCATEGORIES = len(SUBCATEGORIES) // len(CATEGORIES)
N_FAVOURITES = 2
LOYALTY = 0.75  # share of visits to a consumable category that are led by a favourite

SOURCES = ("google", "google", "newsletter", "(direct)", "facebook")
MEDIA = ("organic", "cpc", "email", "(none)", "social")
SOURCE_SHARES = np.array([0.35, 0.2, 0.1, 0.25, 0.1])
SOURCE_LOGITS = np.array([0.0, -0.2, 0.7, 0.3, -0.6])
DEVICES = ("mobile", "desktop", "tablet")
DEVICE_SHARES = np.array([0.6, 0.3, 0.1])
DEVICE_LOGITS = np.array([-0.3, 0.4, 0.0])
COUNTRIES = ("DE", "AT", "CH")
COUNTRY_SHARES = np.array([0.8, 0.12, 0.08])
HABIT_SHARES = np.array([0.55, 0.25, 0.2])  # customer from the start, guest for ever, guest who logs in later
TIERS = ("bronze", "silver", "gold")
TIER_SHARES = (0.6, 0.9)  # cumulative, by activity times conversion
BASE_LOGIT = -2.0
INTEREST_LOGIT = 0.8

WEEKDAYS = np.array([1.05, 0.95, 0.9, 0.95, 1.1, 1.15, 0.9])
SEASON_AMPLITUDE = 0.25
LANDING_SHARES = np.array([0.35, 0.25, 0.4])  # on a page, with a search, on an item
LEAD_TIME_VARIATION = 0.2
HOLDING_RATE = 0.25  # of the cost, per year
PROMOTED_SHARE = 0.08
ELASTICITY = 2.0
DISPLAY_UPLIFT = 0.6
MAILER_UPLIFT = 0.4

MOST_FURTHER_LINES = 3
FURTHER_LINE_SHARE = 1 / 6
MEAN_FURTHER_LINES = MOST_FURTHER_LINES * FURTHER_LINE_SHARE
FURTHER_UNITS = np.where(np.arange(len(CATEGORIES)) < len(CONSUMABLES), 0.6, 0.05)
MOST_BROWSED = 12
MOST_STEPS = 3 + 2 * (1 + MOST_FURTHER_LINES + MOST_BROWSED)
TYPICAL_EVENTS_PER_VISIT = 5.0
REFUND_SHARE = 0.03
REFUND_DAYS = 20
LATE_SHARE = 0.03

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
MEAN_LATENESS_US = 6 * HOUR_US
LONGEST_VISIT_US = HOUR_US // 2  # so that no pause within a visit reaches the 30 minutes that end one
NEVER = np.iinfo(np.int64).max


class Stream(IntEnum):
    """What random numbers are for; each use has its own."""

    SHOP = 0
    WEEK = 1
    DAY = 2


_NUMBERS = ("time", "name", "person", "session", "transaction", "item", "sought", "source")  # -1 where there is none
_AMOUNTS = ("quantity", "price")
EVENT = np.dtype([*((name, "i8") for name in _NUMBERS), *((name, "f8") for name in _AMOUNTS), ("logged_in", "?")])


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


class Scale(NamedTuple):
    """How large a shop of so many events is."""

    n_days: int
    n_users: int
    n_items: int


def scale(n_events: int) -> Scale:
    """Days, people and items for a number of events: two years at most, some 80 events a person, items by the root.

    >>> scale(1_000), scale(1_000_000)
    (Scale(n_days=28, n_users=35, n_items=47), Scale(n_days=365, n_users=12589, n_items=1500))
    """
    n_days = round(28 * (n_events / 1_000) ** 0.3718)
    return Scale(min(n_days, MOST_DAYS), round(n_events**0.85 / 10), round(1.5 * n_events**0.5))


class Lottery:
    """Draws indices in proportion to weights, each from a block of neighbours.

    >>> Lottery(np.array([1.0, 0.0, 1.0])).draw(np.array([1]), np.array([3]), np.random.default_rng(0))
    array([2])
    """

    def __init__(self, weights: Floats) -> None:
        self.cumulative = np.concatenate([[0.0], np.cumsum(weights)])

    def draw(self, first: Ints, end: Ints, rng: np.random.Generator) -> Ints:
        """One index in [first, end) for each pair of bounds.

        first, end : int arrays, shape (n,); the weights of a block must not all be 0
        """
        low, high = self.cumulative[first], self.cumulative[end]
        found = np.searchsorted(self.cumulative, low + rng.random(len(first)) * (high - low), side="right") - 1
        return np.asarray(np.minimum(found, end - 1))


@dataclass(frozen=True, slots=True)
class People:
    """Who visits; every array has a row per person."""

    activity: Floats
    taste: Floats
    logit: Floats
    device: Ints
    country: Ints
    login_at: Ints
    names_sessions: Bools

    @property
    def conversion(self) -> Floats:
        """Mean purchase probability over sources and interest (Gauss-Hermite quadrature), shape (n_users,)."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(9)
        mean = np.zeros_like(self.logit)
        for share, effect in zip(SOURCE_SHARES, SOURCE_LOGITS, strict=True):
            for node, weight in zip(nodes, weights / weights.sum(), strict=True):
                mean += share * weight * _sigmoid(self.logit + effect + INTEREST_LOGIT * node)
        return mean


def draw_people(n_users: int, n_days: int, rng: np.random.Generator) -> People:
    """People of log-normal activity and Dirichlet taste: customers, guests, and guests who log in later."""
    activity = rng.lognormal(0, 1, n_users)
    taste = rng.gamma(0.25, size=(n_users, len(CATEGORIES))) + 1e-9
    device = _choose(DEVICE_SHARES, n_users, rng)
    from_the_start, never = np.full(n_users, -NEVER), np.full(n_users, NEVER)
    later = midnight(0) + rng.integers(0, n_days * DAY_US, n_users)
    habit = _choose(HABIT_SHARES, n_users, rng)
    return People(
        activity=activity / activity.sum(),
        taste=taste / taste.sum(axis=1, keepdims=True),
        logit=BASE_LOGIT + rng.normal(0, 0.7, n_users) + DEVICE_LOGITS[device],
        device=device,
        country=_choose(COUNTRY_SHARES, n_users, rng),
        login_at=np.choose(habit, [from_the_start, never, later]),
        names_sessions=rng.random(n_users) < 0.8,
    )


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What is sold; every array has a row per item, items of a category are neighbours.

    popularity : Zipf's share of the item within its category.
    listed_on, hidden_on : first day of the shop on which it is listed (negative: before), and no longer.
    lead_days, review_days, pack, least_packs, cover : the supply; cover is the target over mean lead-time demand.
    """

    category: Ints
    subcategory: Ints
    brand: Ints
    popularity: Floats
    price: Floats
    cost: Floats
    listed_on: Ints
    hidden_on: Ints
    lead_days: Ints
    review_days: Ints
    pack: Ints
    least_packs: Ints
    cover: Floats
    service_level: Floats

    @property
    def bounds(self) -> Ints:
        """Category ``c`` holds the items [bounds[c], bounds[c + 1])."""
        return np.searchsorted(self.category, np.arange(len(CATEGORIES) + 1))

    def listed(self, day: int) -> Bools:
        return (self.listed_on <= day) & (day < self.hidden_on)


def draw_catalogue(n_items: int, n_days: int, rng: np.random.Generator) -> Catalogue:
    """A catalogue of which a quarter appears during the period and one item in fifty is hidden before its end."""
    category = np.sort(np.arange(n_items) % len(CATEGORIES))
    weight = rng.permutation(np.arange(1, n_items + 1)) ** -1.0
    price = np.ceil(rng.lognormal(2.5 + np.linspace(0, 2, len(CATEGORIES))[category], 0.5)) - 0.01
    is_first = np.diff(category, prepend=-1) > 0
    is_new = (rng.random(n_items) < 0.25) & ~is_first
    is_hidden = (rng.random(n_items) < 0.02) & ~is_first
    return Catalogue(
        category=category,
        subcategory=category * N_SUBCATEGORIES + rng.integers(0, N_SUBCATEGORIES, n_items),
        brand=rng.integers(0, max(3, n_items // 20), n_items),
        popularity=weight / np.bincount(category, weight)[category],
        price=price,
        cost=np.round(price * rng.uniform(0.4, 0.7, n_items), 2),
        listed_on=np.where(is_new, rng.integers(1, n_days * 4 // 5, n_items), -rng.integers(1, 730, n_items)),
        hidden_on=np.where(is_hidden, rng.integers(n_days * 4 // 5, n_days, n_items), NEVER),
        lead_days=rng.integers(2, 15, n_items),
        review_days=rng.choice([1, 7], n_items),
        pack=rng.choice([1, 2, 4], n_items),
        least_packs=rng.integers(1, 3, n_items),
        cover=rng.uniform(0.8, 2.5, n_items),
        service_level=rng.choice([0.9, 0.95, 0.98], n_items),
    )


@dataclass(frozen=True, slots=True)
class Visitors:
    """Whom an item attracts: regulars with a taste for its category, and fans who buy that very item again.

    base, conversion : as in ``Truth``.
    fan_share : float array, shape (n_items,)   share of the item's visits that its fans make
    """

    base: Floats
    conversion: Floats
    fan_share: Floats
    category: Ints
    n_users: int
    regulars: Lottery
    fans: Lottery
    fan_people: Ints
    fan_bounds: Ints

    def draw(self, item: Ints, rng: np.random.Generator) -> Ints:
        """The person of each visit that an item leads."""
        block = self.category[item] * self.n_users
        person = self.regulars.draw(block, block + self.n_users, rng) - block
        by_fan = rng.random(len(item)) < self.fan_share[item]
        loved = item[by_fan]
        person[by_fan] = self.fan_people[self.fans.draw(self.fan_bounds[loved], self.fan_bounds[loved + 1], rng)]
        return person


def draw_visitors(people: People, catalogue: Catalogue, rng: np.random.Generator) -> Visitors:
    """Give each person favourites in the consumable categories and add up what that means for every item."""
    n_items, n_users = len(catalogue.category), len(people.activity)
    category, conversion = catalogue.category, people.conversion
    interest = np.ascontiguousarray((people.activity[:, None] * people.taste).T)
    loyalty = np.where(category < len(CONSUMABLES), LOYALTY, 0.0)
    item, person, weight = _favourites(interest, catalogue, rng)
    popular = (1 - loyalty) * interest.sum(axis=1)[category] * catalogue.popularity
    by_fans = np.bincount(item, weight, n_items)
    base = popular + by_fans
    converted = popular * ((interest @ conversion) / interest.sum(axis=1))[category]
    return Visitors(
        base=base,
        conversion=(converted + np.bincount(item, weight * conversion[person], n_items)) / base,
        fan_share=by_fans / base,
        category=category,
        n_users=n_users,
        regulars=Lottery(interest.ravel()),
        fans=Lottery(weight),
        fan_people=person,
        fan_bounds=np.searchsorted(item, np.arange(n_items + 1)),
    )


def _favourites(interest: Floats, catalogue: Catalogue, rng: np.random.Generator) -> tuple[Ints, Ints, Floats]:
    """Item, person and rate of every favourite, sorted by item."""
    n_users = interest.shape[1]
    category = np.repeat(np.arange(len(CONSUMABLES)), N_FAVOURITES * n_users)
    person = np.tile(np.arange(n_users), N_FAVOURITES * len(CONSUMABLES))
    bounds = catalogue.bounds
    item = Lottery(catalogue.popularity).draw(bounds[category], bounds[category + 1], rng)
    order = np.argsort(item, kind="stable")
    weight = interest[category, person] * LOYALTY / N_FAVOURITES
    return item[order], person[order], weight[order]


class Offers(NamedTuple):
    """The offers of one week, an entry per item; ``factor`` is what the promotion multiplies demand by, 1 without."""

    price: Floats
    display: Floats
    mailer: Floats
    factor: Floats


def draw_offers(catalogue: Catalogue, rng: np.random.Generator) -> Offers:
    """A week in which some items have a lower price, a display and a mailer.

    ``factor = (1 - depth) ** -ELASTICITY * (1 + DISPLAY_UPLIFT * display) * (1 + MAILER_UPLIFT * mailer)``
    """
    n_items = len(catalogue.price)
    promoted = rng.random(n_items) < PROMOTED_SHARE
    depth = promoted * rng.choice([0.1, 0.2, 0.3], n_items)
    display, mailer = (promoted * rng.choice([0.0, 0.5, 1.0], n_items) for _ in range(2))
    factor = (1 - depth) ** -ELASTICITY * (1 + DISPLAY_UPLIFT * display) * (1 + MAILER_UPLIFT * mailer)
    return Offers(np.round(catalogue.price * (1 - depth), 2), display, mailer, factor)


class Sale(NamedTuple):
    """What a day's basket lines found: whether any stock was left, and the units taken."""

    in_stock: Bools
    taken: Floats


class Stockroom:
    """Stock on hand and on order under a periodic-review, order-up-to policy.

    mean_demand : float array, shape (n_items,)   units per day that the policy expects, without season or promotion
    Source: Silver, Pyke, Thomas, "Inventory and Production Management in Supply Chains", 4th edition, 2017, (R, S).
    """

    DEPTH = 64  # days ahead that an arrival can lie

    def __init__(self, catalogue: Catalogue, mean_demand: Floats) -> None:
        self.catalogue = catalogue
        cycle_days = catalogue.lead_days + catalogue.review_days
        self.target = np.ceil(catalogue.cover * mean_demand * cycle_days + 1)
        self.on_hand = self.target.copy()
        self.arriving = np.zeros((self.DEPTH, len(mean_demand)))
        self.available_fraction = np.ones(len(mean_demand))

    @property
    def on_order(self) -> Floats:
        return np.asarray(self.arriving.sum(axis=0))

    def receive(self, day: int) -> None:
        """Open a day with what arrives on it."""
        self.on_hand = self.on_hand + self.arriving[day % self.DEPTH]
        self.arriving[day % self.DEPTH] = 0
        self.available_fraction = (self.on_hand > 0).astype(float)

    def sell(self, item: Ints, quantity: Floats, time: Ints) -> Sale:
        """Serve lines first come, first served.

        item, quantity, time : arrays, shape (n_lines,)   quantity 0 only asks; time in us since midnight
        """
        order = np.lexsort((time, item))
        item, quantity, time = item[order], quantity[order], time[order]
        asked_before = np.cumsum(quantity) - quantity
        asked_before -= asked_before[np.searchsorted(item, item)]
        left = np.maximum(self.on_hand[item] - asked_before, 0)
        emptied = (left > 0) & (quantity >= left)
        self.available_fraction[item[emptied]] = time[emptied] / DAY_US
        self.on_hand = np.maximum(self.on_hand - np.bincount(item, quantity, len(self.on_hand)), 0)
        back = np.argsort(order)
        return Sale((left > 0)[back], np.minimum(left, quantity)[back])

    def reorder(self, day: int, rng: np.random.Generator) -> None:
        """Order up to the target in whole packs after the close of an item's review day."""
        goods = self.catalogue
        due = goods.listed(day) & (day % goods.review_days == 0)
        short = np.maximum(self.target - self.on_hand - self.on_order, 0)
        packs = np.maximum(np.ceil(short / goods.pack), goods.least_packs)
        lead = np.maximum(np.rint(rng.normal(goods.lead_days, goods.lead_days * LEAD_TIME_VARIATION)), 1).astype(int)
        ordered = np.flatnonzero(due & (short > 0))
        self.arriving[(day + lead[ordered]) % self.DEPTH, ordered] += (packs * goods.pack)[ordered]


@dataclass(frozen=True, slots=True)
class Visits:
    """The visits of a day, an entry each; times in us since 1970, ``pace`` in us from step to step of a visit."""

    item: Ints
    person: Ints
    logged_in: Bools
    source: Ints
    session: Ints
    started_at: Ints
    pace: Ints
    interest: Floats
    probability: Floats

    def __len__(self) -> int:
        return len(self.item)

    def at(self, visit: Ints, step: Ints) -> Ints:
        return self.started_at[visit] + self.pace[visit] * step

    def rows(
        self, name: str, visit: Ints, step: Ints, item: Ints | int = -1, quantity: Floats | float = np.nan
    ) -> Rows:
        """Events of one name, an entry per event."""
        rows = np.empty(len(visit), EVENT)
        rows["name"], rows["time"] = EVENT_NAMES.index(name), self.at(visit, step)
        rows["item"], rows["quantity"] = item, quantity
        rows["person"], rows["logged_in"] = self.person[visit], self.logged_in[visit]
        rows["session"], rows["source"] = self.session[visit], self.source[visit]
        rows["transaction"] = self.session[visit] if name == "purchase" else -1
        rows["sought"] = self.item[visit] if name == "search" else -1
        return rows


class Lines(NamedTuple):
    """What visits have in mind to buy, an entry per visit and item."""

    visit: Ints
    item: Ints
    quantity: Floats


class Views(NamedTuple):
    """The items viewed, those in mind first; ``step`` is when in the visit, ``last_step`` has an entry per visit."""

    visit: Ints
    item: Ints
    step: Ints
    last_step: Ints


@dataclass(frozen=True, slots=True)
class Day:
    """What happened on a day: an entry per event, per visit, or per item; stock as it was in the morning."""

    number: int
    first_event: int
    events: Rows
    received_at: Ints
    visits: Visits
    probability: Floats
    purchased: Bools
    expected_demand: Floats
    offers: Offers
    on_hand: Floats
    on_order: Floats
    available_fraction: Floats
    was_available: Bools


class Shop:
    """What a shop is drawn from; nothing in it changes as its days go by.

    n_events : about how many rows of events it shall have.
    seed : the same numbers give the same shop.
    """

    def __init__(self, n_events: int, seed: int) -> None:
        self.n_events, self.seed, self.scale = n_events, seed, scale(n_events)
        rng = self.rng(Stream.SHOP)
        self.people = draw_people(self.scale.n_users, self.scale.n_days, rng)
        self.catalogue = draw_catalogue(self.scale.n_items, self.scale.n_days, rng)
        self.visitors = draw_visitors(self.people, self.catalogue, rng)
        self.phase = rng.random(len(CATEGORIES))

    def rng(self, stream: Stream, number: int = 0) -> np.random.Generator:
        return np.random.default_rng([self.seed, stream, number])

    def offers(self, day: int) -> Offers:
        return draw_offers(self.catalogue, self.rng(Stream.WEEK, day // 7))

    def rates(self, day: int) -> Floats:
        """How often each item leads a visit on a day, up to a constant; shape (n_items,)."""
        season = 1 + SEASON_AMPLITUDE * np.sin(2 * np.pi * (day / 365.25 + self.phase))
        seasonal = self.visitors.base * WEEKDAYS[day % 7] * season[self.catalogue.category]
        return np.asarray(seasonal * self.offers(day).factor * self.catalogue.listed(day))

    def expected_demand(self, rates: Floats, n_visits: float) -> Floats:
        """Units per item that so many visits at these rates would buy were everything in stock, shape (n_items,).

        ``visits * (conversion + further lines * conversion of the category) * units per line``
        """
        category, conversion = self.catalogue.category, self.visitors.conversion
        category_conversion = np.bincount(category, rates * conversion) / np.bincount(category, rates)
        lines_bought = conversion + MEAN_FURTHER_LINES * category_conversion[category]
        leading = n_visits * rates / rates.sum()
        return np.asarray(leading * lines_bought * (1 + FURTHER_UNITS[category]))

    def mean_demand(self) -> Floats:
        """Units per item and day without weekday, season and promotion, shape (n_items,)."""
        n_visits_a_day = self.n_events / TYPICAL_EVENTS_PER_VISIT / self.scale.n_days
        return self.expected_demand(self.visitors.base, n_visits_a_day)

    def draw_alike(self, item: Ints, rates: Floats, rng: np.random.Generator) -> Ints:
        """For each item one of its category."""
        category, bounds = self.catalogue.category[item], self.catalogue.bounds
        return Lottery(rates).draw(bounds[category], bounds[category + 1], rng)

    def draw_basket(self, visits: Visits, rates: Floats, rng: np.random.Generator) -> Lines:
        """The leading item of each visit and further ones of its category, the same item in one line."""
        further = np.repeat(np.arange(len(visits)), rng.binomial(MOST_FURTHER_LINES, FURTHER_LINE_SHARE, len(visits)))
        visit = np.concatenate([np.arange(len(visits)), further])
        item = np.concatenate([visits.item, self.draw_alike(visits.item[further], rates, rng)])
        quantity = 1.0 + rng.poisson(FURTHER_UNITS[self.catalogue.category[item]])
        keys, line = np.unique(visit * len(rates) + item, return_inverse=True)
        return Lines(keys // len(rates), keys % len(rates), np.bincount(line, quantity, len(keys)).astype(float))

    def draw_views(self, visits: Visits, lines: Lines, rates: Floats, rng: np.random.Generator) -> Views:
        """Views of the items in mind and of others of the category, more with more interest, in random order."""
        n_browsed = np.minimum(rng.poisson(np.exp(0.4 + 0.4 * visits.interest)), MOST_BROWSED)
        browsing = np.repeat(np.arange(len(visits)), n_browsed)
        visit = np.concatenate([lines.visit, browsing])
        item = np.concatenate([lines.item, self.draw_alike(visits.item[browsing], rates, rng)])
        order = np.lexsort((rng.random(len(visit)), visit))
        rank = np.empty(len(visit), int)
        rank[order] = np.arange(len(visit)) - np.searchsorted(visit[order], visit[order])
        return Views(visit, item, 2 + 2 * rank, 3 + 2 * np.bincount(visit, minlength=len(visits)))


class Trade:
    """The state of a shop from day to day; its days are opened one after another."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.stockroom = Stockroom(shop.catalogue, shop.mean_demand())
        self.traffic = np.array([shop.rates(day).sum() for day in range(shop.scale.n_days)])
        self.greeted = shop.people.login_at < 0
        self.refunds = np.empty(0, EVENT)
        self.n_events, self.n_visits = 0, 0

    def open(self, day: int) -> Day:
        """Live through the next day; its random numbers are its own."""
        rng, rates, offers = self.shop.rng(Stream.DAY, day), self.shop.rates(day), self.shop.offers(day)
        was_available = self.stockroom.available_fraction == 1
        self.stockroom.receive(day)
        on_hand, on_order = self.stockroom.on_hand, self.stockroom.on_order
        visits = self._draw_visits(day, rates, rng)
        probability, purchased, rows = self._live_through(visits, rates, rng)
        rows["price"] = np.where(rows["item"] >= 0, offers.price[rows["item"]], np.nan)
        events = self._with_refunds(rows, day, rng)
        lateness = (rng.random(len(events)) < LATE_SHARE) * rng.exponential(MEAN_LATENESS_US, len(events))
        first_event, self.n_events = self.n_events, self.n_events + len(events)
        self.n_visits += len(visits)
        self.stockroom.reorder(day, rng)
        return Day(
            number=day,
            first_event=first_event,
            events=events,
            received_at=events["time"] + lateness.astype(int),
            visits=visits,
            probability=probability,
            purchased=purchased,
            expected_demand=self.shop.expected_demand(rates, len(visits)),
            offers=offers,
            on_hand=on_hand,
            on_order=on_order,
            available_fraction=self.stockroom.available_fraction,
            was_available=was_available,
        )

    def _draw_visits(self, day: int, rates: Floats, rng: np.random.Generator) -> Visits:
        people, n = self.shop.people, self._planned_visits(day)
        item = Lottery(rates).draw(np.zeros(n, int), np.full(n, len(rates)), rng)
        person = self.shop.visitors.draw(item, rng)
        source, interest = _choose(SOURCE_SHARES, n, rng), rng.normal(size=n)
        started_at = midnight(day) + (rng.beta(2.2, 1.8, n) * (DAY_US - LONGEST_VISIT_US)).astype(int)
        return Visits(
            item=item,
            person=person,
            logged_in=people.login_at[person] <= started_at,
            source=source,
            session=self.n_visits + np.arange(n),
            started_at=started_at,
            pace=rng.integers(5_000_000, LONGEST_VISIT_US // MOST_STEPS, n),
            interest=interest,
            probability=_sigmoid(people.logit[person] + SOURCE_LOGITS[source] + INTEREST_LOGIT * interest),
        )

    def _planned_visits(self, day: int) -> int:
        """The day's share of the visits that the events still to come need, at the events per visit seen so far."""
        events_per_visit = (1_000 * TYPICAL_EVENTS_PER_VISIT + self.n_events) / (1_000 + self.n_visits)
        share = self.traffic[day] / self.traffic[day:].sum()
        return int(max(0, round((self.shop.n_events - self.n_events) / events_per_visit * share)))

    def _live_through(self, visits: Visits, rates: Floats, rng: np.random.Generator) -> tuple[Floats, Bools, Rows]:
        """What happens in the visits: the true probability of a purchase, whether there was one, and the events."""
        lines = self.shop.draw_basket(visits, rates, rng)
        views = self.shop.draw_views(visits, lines, rates, rng)
        is_offered = self.stockroom.on_hand[lines.item] > 0
        wanted, tempted = (rng.random(len(visits)) < visits.probability for _ in range(2))
        last_step = views.last_step[lines.visit]
        asked = lines.quantity * wanted[lines.visit]
        sale = self.stockroom.sell(lines.item, asked, visits.at(lines.visit, last_step) % DAY_US)
        is_carted = (wanted | tempted)[lines.visit] & is_offered
        in_stock = np.bincount(lines.visit, sale.in_stock, len(visits)) > 0
        rows = [
            self._greetings(visits),
            *_landings(visits, rng),
            visits.rows("view_item", views.visit, views.step, views.item),
            visits.rows("add_to_cart", lines.visit, views.step[: len(is_carted)] + 1, lines.item, lines.quantity)[
                is_carted
            ],
            visits.rows("purchase", lines.visit, last_step, lines.item, sale.taken)[sale.taken > 0],
        ]
        return visits.probability * in_stock, wanted & in_stock, np.concatenate(rows)

    def _greetings(self, visits: Visits) -> Rows:
        """The login with which a guest's first visit as a customer begins."""
        by_time = np.argsort(visits.started_at, kind="stable")
        new = by_time[(visits.logged_in & ~self.greeted[visits.person])[by_time]]
        person, first = np.unique(visits.person[new], return_index=True)
        self.greeted[person] = True
        return visits.rows("login", new[first], np.zeros(len(first), int))

    def _with_refunds(self, rows: Rows, day: int, rng: np.random.Generator) -> Rows:
        """The day's events in order of time, with the refunds due; some of its purchases will be refunded later."""
        end = midnight(day + 1)
        due = self.refunds["time"] < end
        refunded = rows[(rows["name"] == EVENT_NAMES.index("purchase")) & (rng.random(len(rows)) < REFUND_SHARE)].copy()
        refunded["time"] = end + rng.integers(0, REFUND_DAYS * DAY_US, len(refunded))
        refunded["name"], refunded["session"], refunded["source"] = EVENT_NAMES.index("refund"), -1, -1
        rows = np.concatenate([rows, self.refunds[due]])
        self.refunds = np.concatenate([self.refunds[~due], refunded])
        return rows[np.argsort(rows["time"], kind="stable")]


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
    ahead, item = np.nonzero(np.roll(trade.stockroom.arriving, -shop.scale.n_days, axis=0))
    return pa.table(
        {
            "item_id": _ids("i", item),
            "quantity": trade.stockroom.arriving[(shop.scale.n_days + ahead) % Stockroom.DEPTH, item],
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


def write(folder: Path, n_events: int, seed: int = 0) -> Truth:
    """Write a shop's tables below a folder, and what it was drawn from below ``folder/truth``.

    n_events : rows of events, at least 1,000; met within 2 %
    seed : the same numbers give the same files
    Raises UserError for fewer events.
    """
    if n_events < LEAST_EVENTS:
        raise UserError(f"A seeded shop of {n_events} events is too small: ask for {LEAST_EVENTS} or more.")
    shop = Shop(n_events, seed)
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
    return Truth(
        n_events=trade.n_events,
        days=FIRST_DAY + np.arange(shop.scale.n_days),
        taste=shop.people.taste,
        activity=shop.people.activity,
        category=shop.catalogue.category,
        base=shop.visitors.base,
        conversion=shop.visitors.conversion,
    )


def midnight(day: Ints | int) -> Ints:
    """The beginning of a day of the shop, us since 1970."""
    return np.asarray((day + FIRST_DAY.astype(int)) * DAY_US)


def _landings(visits: Visits, rng: np.random.Generator) -> list[Rows]:
    """Visits that begin on a page or with a search; the others begin on an item."""
    landing = _choose(LANDING_SHARES, len(visits), rng)
    found = [np.flatnonzero(landing == kind) for kind in range(2)]
    return [
        visits.rows(name, visit, np.ones_like(visit))
        for name, visit in zip(("page_view", "search"), found, strict=True)
    ]


def _choose(shares: Floats, n: int, rng: np.random.Generator) -> Ints:
    return np.asarray(np.searchsorted(np.cumsum(shares)[:-1], rng.random(n), side="right"))


def _sigmoid(logit: Floats) -> Floats:
    return 1 / (1 + np.exp(-logit))


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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m features.seeded", description="Write a shop whose truth is known.")
    home = Path(os.environ.get("SHOPKEEPER_HOME", ".shopkeeper"))
    parser.add_argument("--events", type=int, required=True, help="rows of events, at least 1,000")
    parser.add_argument("--out", type=Path, default=home / "seeded" / "source", help="folder (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="what the shop is drawn from (default: %(default)s)")
    asked = parser.parse_args()
    try:
        truth = write(asked.out, asked.events, asked.seed)
    except UserError as error:
        parser.error(str(error))
    print(f"{truth.n_events} events, {len(truth.days)} days, {len(truth.activity)} people, {len(truth.base)} items")


if __name__ == "__main__":
    main()
