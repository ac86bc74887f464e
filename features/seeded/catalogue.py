"""What a seeded shop sells: its items, how they are supplied, and the offers of a week."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from features.seeded.chance import Bools, Floats, Ints, Lottery
from features.seeded.clock import NEVER

CONSUMABLES = ("grocery", "beauty", "pets")
CATEGORIES = (*CONSUMABLES, "books", "games", "shoes", "shirts", "coats", "kitchen", "garden", "audio", "phones")
SUBCATEGORIES = tuple(f"{category} {kind}" for category in CATEGORIES for kind in ("basic", "classic", "fine", "pro"))
N_SUBCATEGORIES = len(SUBCATEGORIES) // len(CATEGORIES)

LEAD_TIME_VARIATION = 0.2
PROMOTED_SHARE = 0.08
ELASTICITY = 2.0
DISPLAY_UPLIFT = 0.6
MAILER_UPLIFT = 0.4


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

    def listed(self, day: int) -> Bools:
        return (self.listed_on <= day) & (day < self.hidden_on)

    def draw(self, category: Ints, weights: Floats, rng: np.random.Generator) -> Ints:
        """An item of each category given, in proportion to the items' weights."""
        bounds = np.searchsorted(self.category, np.arange(len(CATEGORIES) + 1))
        return Lottery(weights).draw(bounds[category], bounds[category + 1], rng)


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
