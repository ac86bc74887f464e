"""The visits of a seeded shop's day: who comes for what, has what in mind to buy, and looks at what."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.contract import EVENT_NAMES
from features.seeded.catalogue import Catalogue
from features.seeded.chance import Bools, Floats, Ints, Lottery, choose
from features.seeded.clock import DAY_US, HOUR_US, midnight
from features.seeded.people import SOURCE_SHARES, purchase_probability
from features.seeded.shop import FURTHER_LINE_SHARE, FURTHER_UNITS, MOST_FURTHER_LINES, Shop

MOST_BROWSED = 12
MOST_STEPS = 3 + 2 * (1 + MOST_FURTHER_LINES + MOST_BROWSED)
LEAST_PACE_US = 5_000_000
LONGEST_VISIT_US = HOUR_US // 2  # so that no pause within a visit reaches the 30 minutes that end one

_NUMBERS = ("time", "name", "person", "session", "transaction", "item", "sought", "source")  # -1 where there is none
_AMOUNTS = ("quantity", "price")
EVENT = np.dtype([*((name, "i8") for name in _NUMBERS), *((name, "f8") for name in _AMOUNTS), ("logged_in", "?")])
Rows = NDArray[np.void]  # of EVENT


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

    def at(self, visit: Ints, step: Ints | int) -> Ints:
        return self.started_at[visit] + self.pace[visit] * step

    def rows(
        self, name: str, visit: Ints, step: Ints | int, item: Ints | int = -1, quantity: Floats | float = np.nan
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


def draw_visits(shop: Shop, day: int, rates: Floats, logit: Floats, session: Ints, rng: np.random.Generator) -> Visits:
    """A visit for each number of a session; ``logit`` is each person's of that day."""
    people, n = shop.people, len(session)
    item = Lottery(rates).draw(np.zeros(n, int), np.full(n, len(rates)), rng)
    person = shop.visitors.draw(item, rng)
    source, interest = choose(SOURCE_SHARES, n, rng), rng.normal(size=n)
    started_at = midnight(day) + (rng.beta(2.2, 1.8, n) * (DAY_US - LONGEST_VISIT_US)).astype(int)
    return Visits(
        item=item,
        person=person,
        logged_in=people.login_at[person] <= started_at,
        source=source,
        session=session,
        started_at=started_at,
        pace=rng.integers(LEAST_PACE_US, LONGEST_VISIT_US // MOST_STEPS, n),
        interest=interest,
        probability=purchase_probability(logit[person], source, interest),
    )


class Lines(NamedTuple):
    """What visits have in mind to buy, an entry per visit and item."""

    visit: Ints
    item: Ints
    quantity: Floats


def draw_lines(visits: Visits, catalogue: Catalogue, rates: Floats, rng: np.random.Generator) -> Lines:
    """The leading item of each visit and further ones of its category, the same item in one line."""
    further = np.repeat(np.arange(len(visits)), rng.binomial(MOST_FURTHER_LINES, FURTHER_LINE_SHARE, len(visits)))
    visit = np.concatenate([np.arange(len(visits)), further])
    item = np.concatenate([visits.item, catalogue.draw(catalogue.category[visits.item[further]], rates, rng)])
    quantity = 1.0 + rng.poisson(FURTHER_UNITS[catalogue.category[item]])
    keys, line = np.unique(visit * len(rates) + item, return_inverse=True)
    return Lines(keys // len(rates), keys % len(rates), np.bincount(line, quantity, len(keys)).astype(float))


class Views(NamedTuple):
    """The items viewed, those in mind first; ``step`` is when in the visit, ``last_step`` has an entry per visit."""

    visit: Ints
    item: Ints
    step: Ints
    last_step: Ints


def draw_views(visits: Visits, lines: Lines, catalogue: Catalogue, rates: Floats, rng: np.random.Generator) -> Views:
    """Views of the items in mind and of others of the category, more with more interest, in random order."""
    n_browsed = np.minimum(rng.poisson(np.exp(0.4 + 0.4 * visits.interest)), MOST_BROWSED)
    browsing = np.repeat(np.arange(len(visits)), n_browsed)
    visit = np.concatenate([lines.visit, browsing])
    item = np.concatenate([lines.item, catalogue.draw(catalogue.category[visits.item[browsing]], rates, rng)])
    order = np.lexsort((rng.random(len(visit)), visit))
    rank = np.empty(len(visit), int)
    rank[order] = np.arange(len(visit)) - np.searchsorted(visit[order], visit[order])
    return Views(visit, item, 2 + 2 * rank, 3 + 2 * np.bincount(visit, minlength=len(visits)))
