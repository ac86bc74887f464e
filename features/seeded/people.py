"""Who visits a seeded shop, and whom an item attracts."""

from dataclasses import dataclass

import numpy as np

from features.seeded.catalogue import CATEGORIES, CONSUMABLES, Catalogue
from features.seeded.chance import Bools, Floats, Ints, Lottery, choose
from features.seeded.clock import DAY_US, NEVER, midnight

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
BASE_LOGIT = -2.0
INTEREST_LOGIT = 0.8

N_FAVOURITES = 2
LOYALTY = 0.75  # share of visits to a consumable category that are led by a favourite


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
        """Mean purchase probability, shape (n_users,)."""
        return mean_purchase_probability(self.logit)


def purchase_probability(logit: Floats, source: Ints | int, interest: Floats | float) -> Floats:
    """``sigmoid(logit + SOURCE_LOGITS[source] + INTEREST_LOGIT * interest)``, stock permitting."""
    return np.asarray(1 / (1 + np.exp(-(logit + SOURCE_LOGITS[source] + INTEREST_LOGIT * interest))))


def mean_purchase_probability(logit: Floats) -> Floats:
    """Over sources and interest (Gauss-Hermite quadrature), in the shape of the logits."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(9)
    mean = np.zeros_like(logit)
    for source, share in enumerate(SOURCE_SHARES):
        for interest, weight in zip(nodes, weights / weights.sum(), strict=True):
            mean += share * weight * purchase_probability(logit, source, interest)
    return mean


def draw_people(n_users: int, n_days: int, rng: np.random.Generator) -> People:
    """People of log-normal activity and Dirichlet taste: customers, guests, and guests who log in later."""
    activity = rng.lognormal(0, 1, n_users)
    taste = rng.gamma(0.25, size=(n_users, len(CATEGORIES))) + 1e-9
    device = choose(DEVICE_SHARES, n_users, rng)
    later = midnight(0) + rng.integers(0, n_days * DAY_US, n_users)
    habit = choose(HABIT_SHARES, n_users, rng)
    return People(
        activity=activity / activity.sum(),
        taste=taste / taste.sum(axis=1, keepdims=True),
        logit=BASE_LOGIT + rng.normal(0, 0.7, n_users) + DEVICE_LOGITS[device],
        device=device,
        country=choose(COUNTRY_SHARES, n_users, rng),
        login_at=np.choose(habit, [-NEVER, NEVER, later]),
        names_sessions=rng.random(n_users) < 0.8,
    )


@dataclass(frozen=True, slots=True)
class Visitors:
    """Whom an item attracts: regulars with a taste for its category, and fans who buy that very item again.

    base : float array, shape (n_items,)   share of all visits that the item leads out of season and promotion
    conversion : float array, shape (n_items,)   mean purchase probability of the visits that it leads, stock permitting
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

    def shares(self, rates: Floats) -> Floats:
        """Each person's share of the visits that items lead at these rates, shape (n_users,)."""
        led = rates / rates.sum()
        interest = self.regulars.weights.reshape(-1, self.n_users)
        by_regulars = np.bincount(self.category, led * (1 - self.fan_share)) / interest.sum(axis=1) @ interest
        fan_item = np.repeat(np.arange(len(led)), np.diff(self.fan_bounds))
        by_fans = np.bincount(self.fan_people, (led / self.base)[fan_item] * self.fans.weights, self.n_users)
        return np.asarray(by_regulars + by_fans)


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
    item = catalogue.draw(category, catalogue.popularity, rng)
    order = np.argsort(item, kind="stable")
    weight = interest[category, person] * LOYALTY / N_FAVOURITES
    return item[order], person[order], weight[order]
