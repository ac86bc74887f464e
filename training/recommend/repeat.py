"""Fits what people come back for: a logistic regression on habits, with an effect of each item.

Every visit with a purchase but a person's first is an example: it holds some of the items known from before and not the
others. What is common to all items are the coefficients of the habit's traits; what is particular to an item is a
factor on its odds with a Gamma prior around that of its attributes: an item of few examples behaves as its category.
Source: the Poisson-Gamma of Bhagat et al., "Buy It Again: Modeling Repeat Purchase Recommendations", KDD 2018.
"""

from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import expit, gammaln

from features.histories import Attributes, EventWeights, Histories, Log
from serving.repeat import TRAITS, Repeat, habits, visits
from training.config import Config
from training.device import Device

STRENGTHS = np.exp2(np.arange(-3.0, 11.0))
"""Strengths of the Gamma prior that are tried."""
N_TURNS = 3
"""Turns between coefficients and effects; more change no ranking."""
N_STEPS = 25
"""Newton steps at most."""
RIDGE = 1.0
"""Penalty on coefficients, which settles those of traits that never vary."""
MOST_EVENTS = 2**22
"""Events, counted once per visit learned from, of the people who are learned from; a random sample of larger shops."""

Floats = NDArray[np.float64]
Integers = NDArray[np.integer]


class RepeatConfig(Config):
    """Settings of the repeat tier."""

    n_visits: Annotated[int, Field(gt=0, le=100)] = 5
    """Last visits of each person that are learned from."""


class Examples(NamedTuple):
    """Habits just before a visit, and whether the visit held the item.

    items : int64, shape (n,)
    traits : float64, shape (n, n_traits)
    held : bool, shape (n,)
    """

    items: Integers
    traits: Floats
    held: NDArray[np.bool_]


def fit(log: Log, config: RepeatConfig, _: EventWeights, __: Device) -> Repeat:
    """Coefficients by maximum likelihood and item effects by their posterior mean, in turns."""
    sample = sampled(log.histories, MOST_EVENTS // config.n_visits)
    parts = list(zip(*examples(sample, config.n_visits), strict=True))
    found = Examples(*map(np.concatenate, parts))
    coefficients, effects = fitted(found, log.attributes, log.n_items)
    strangers = first_chances(log.histories, log.n_items)
    aversion = max(0.0, 1 - found.held.sum() / max(strangers[found.items].sum(), 1e-9))
    return Repeat(
        coefficients.astype(np.float32), effects.astype(np.float32), strangers.astype(np.float32), float(aversion)
    )


def sampled(histories: Histories, n_events: int) -> Histories:
    """Some people, drawn at random, who have at most ``n_events`` together."""
    people = np.random.default_rng(0).permutation(histories.n_users)
    return histories.take(np.sort(people[np.cumsum(histories.lengths[people]) <= n_events]))


def bought_in(histories: Histories) -> NDArray[np.bool_]:
    """Events of the strongest kind there is: purchases, or what stands for them; bool, shape (n,)."""
    strongest: NDArray[np.bool_] = histories.kinds == histories.kinds.max(initial=0)
    return strongest


def first_chances(histories: Histories, n_items: int) -> Floats:
    """Chance that a visit with a purchase holds an item that the person never had, float64, shape (n_items,)."""
    bought = histories.where(bought_in(histories))
    n_orders = len(np.unique(bought.users << 32 | visits(bought)))
    people = np.unique(bought.users << 32 | bought.items) & 0xFFFFFFFF
    chances: Floats = (np.bincount(people, minlength=n_items) + 0.5) / (n_orders + 1)
    return chances


def examples(histories: Histories, n_visits: int) -> Iterator[Examples]:
    """For each of the last few visits with a purchase: everybody's habits before it, and what it held."""
    bought, numbers = bought_in(histories), visits(histories)
    orders = np.unique(histories.users[bought] << 32 | numbers[bought])
    of_user = np.searchsorted(orders >> 32, np.arange(histories.n_users + 1))
    for back in range(1, n_visits + 1):
        places = of_user[1:] - back
        order = np.where(places >= of_user[:-1], orders[places.clip(min=0)] & 0xFFFFFFFF, 0)[histories.users]
        now = bought & (numbers == order) & (order > 0)
        ages = histories.ages - age_at(histories, now)
        before = Histories(histories.starts, histories.items, histories.kinds, ages).where(numbers < order)
        known = habits(before)
        held = np.isin(known.users << 32 | known.items, histories.users[now] << 32 | histories.items[now])
        yield Examples(known.items, known.traits.astype(np.float64), held)


def age_at(histories: Histories, now: NDArray[np.bool_]) -> NDArray[np.float32]:
    """How old the chosen events of each event's person are, float32, shape (n,); 0 where none is chosen."""
    ages = np.zeros(histories.n_users, np.float32)
    ages[histories.users[now]] = histories.ages[now]
    return ages[histories.users]


def fitted(found: Examples, attributes: Attributes, n_items: int) -> tuple[Floats, Floats]:
    """Coefficients, shape (n_traits,), and the items' effects on the log-odds, shape (n_items,)."""
    coefficients, effects = np.zeros(len(TRAITS)), np.zeros(n_items)
    observed = summed(found.items, found.held, n_items)
    for _ in range(N_TURNS):
        coefficients = logistic(found.traits, found.held, effects[found.items], coefficients)
        expected = summed(found.items, expit(found.traits @ coefficients), n_items)
        effects = np.log(shrunk(observed, expected, of_attributes(observed, expected, attributes)))
    return coefficients, effects


def summed(places: Integers, values: NDArray[Any], n: int) -> Floats:
    """The sum of the values at each place below ``n``, float64, shape (n,)."""
    return np.bincount(places, values, n).astype(np.float64)


def logistic(traits: Floats, held: NDArray[np.bool_], offset: Floats, coefficients: Floats) -> Floats:
    """Coefficients of a ridge logistic regression, by Newton's method from those given."""
    for _ in range(N_STEPS):
        chances = expit(traits @ coefficients + offset)
        gradient = traits.T @ (held - chances) - RIDGE * coefficients
        curvature = (traits * (chances * (1 - chances))[:, None]).T @ traits + RIDGE * np.eye(len(coefficients))
        step = np.linalg.solve(curvature, gradient)
        coefficients = coefficients + step
        if np.abs(step).max() < 1e-4:
            break
    return coefficients


def of_attributes(observed: Floats, expected: Floats, attributes: Attributes) -> Floats:
    """The geometric mean of the factors of an item's attributes, shape (n_items,); 1 for an item without any."""
    n_items, n_values = len(observed), len(attributes.names)
    observed_of = summed(attributes.values, observed[attributes.items], n_values)
    expected_of = summed(attributes.values, expected[attributes.items], n_values)
    logs = np.log(shrunk(observed_of, expected_of, np.ones(n_values)))
    n_attributes = np.bincount(attributes.items, minlength=n_items).clip(min=1)
    factors: Floats = np.exp(summed(attributes.items, logs[attributes.values], n_items) / n_attributes)
    return factors


def shrunk(observed: Floats, expected: Floats, centres: Floats) -> Floats:
    """Posterior means of factors on expected counts, whose Gamma prior has its strength by maximum likelihood."""
    strength = max(STRENGTHS.tolist(), key=lambda tried: likelihood(observed, expected, tried * centres, tried))
    factors: Floats = (observed + strength * centres) / (expected + strength)
    return factors


def likelihood(observed: Floats, expected: Floats, shape: Floats, rate: float) -> float:
    """Log-likelihood, up to a constant, of Poisson counts with a Gamma(shape, rate) factor: negative binomial."""
    terms = gammaln(observed + shape) - gammaln(shape) + shape * np.log(rate)
    return float((terms - (observed + shape) * np.log(expected + rate)).sum())
