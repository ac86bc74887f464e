"""A seeded shop: of any size, drawn from a model whose truth is known.

A visit is led by an item. On day ``d`` item ``i`` leads visits in proportion to

    ``rate[i, d] = base[i] * weekday[d] * season[category, d] * promotion[i, d] * listed[i, d]``

and who comes is drawn from the people whose taste is for its category or, in consumable categories, from those who buy
that very item again and again. A visit's basket is the leading item and further items of its category in proportion to
the same rates, so that a promotion multiplies an item's expected demand by its factor. The basket is bought with a
probability that depends on person, device, source and interest, as far as stock reaches at that moment; stock follows
an order-up-to policy that does not foresee seasons or promotions. Where the shop has campaigns, they raise or lower
that probability. Days are drawn one after another, each from its own seed, and written as they come: memory holds
people, catalogue and the rows not yet written.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np

from features.seeded.catalogue import CATEGORIES, CONSUMABLES, Offers, draw_catalogue, draw_offers
from features.seeded.chance import Floats
from features.seeded.people import draw_people, draw_visitors

MOST_DAYS = 730
CAMPAIGN_DAYS = 28
WEEKDAYS = np.array([1.05, 0.95, 0.9, 0.95, 1.1, 1.15, 0.9])
SEASON_AMPLITUDE = 0.25

TYPICAL_EVENTS_PER_VISIT = 5.0
MOST_FURTHER_LINES = 3
FURTHER_LINE_SHARE = 1 / 6
MEAN_FURTHER_LINES = MOST_FURTHER_LINES * FURTHER_LINE_SHARE
FURTHER_UNITS = np.where(np.arange(len(CATEGORIES)) < len(CONSUMABLES), 0.6, 0.05)


class Stream(IntEnum):
    """What random numbers are for; each use has its own."""

    SHOP = 0
    WEEK = 1
    DAY = 2
    CAMPAIGN = 3


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


class Shop:
    """What a shop is drawn from; nothing in it changes as its days go by.

    n_events : about how many rows of events it shall have.
    seed : the same numbers give the same shop.
    with_campaigns : whether customers get a campaign in every whole four weeks but the first.
    """

    def __init__(self, n_events: int, seed: int, with_campaigns: bool) -> None:
        self.n_events, self.seed, self.scale = n_events, seed, scale(n_events)
        last_sending_day = self.scale.n_days - CAMPAIGN_DAYS if with_campaigns else -1
        self.sending_days = range(CAMPAIGN_DAYS, last_sending_day + 1, CAMPAIGN_DAYS)
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
