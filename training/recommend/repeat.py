"""Fits what people come back for: a logistic regression on habits, with an effect of each item.

Every visit but a person's first is an example: it holds some of the items known from earlier visits and not the others.
What is common to all items are the coefficients of the habit's traits; what is particular to an item is a factor on its
odds with a Gamma prior, so that an item of few examples stays near 1.
Source: the structure of Bhagat et al., "Buy It Again: Modeling Repeat Purchase Recommendations", KDD 2018.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, gammaln

from features.histories import EventWeights, Histories, Log
from serving.repeat import TRAITS, Habits, Repeat, habits, visits
from training.config import Config, PositiveInt
from training.device import Device

STRENGTHS = np.exp2(np.arange(-3.0, 8.0))
"""Strengths of the Gamma prior that are tried."""
N_STEPS = 25
"""Newton steps at most."""
RIDGE = 1.0
"""Penalty on coefficients, which settles those of traits that never vary."""

Floats = NDArray[np.float64]


class RepeatConfig(Config):
    """Settings of the repeat tier."""

    n_visits: PositiveInt = 5
    """Last visits of each person that are learned from."""


def fit(log: Log, config: RepeatConfig, _: EventWeights, __: Device) -> Repeat:
    """Coefficients by maximum likelihood, then item effects by their posterior mean given the coefficients."""
    parts = list(examples(log.histories, config.n_visits))
    traits = np.concatenate([found.traits for found, _ in parts]).astype(np.float64)
    items = np.concatenate([found.items for found, _ in parts])
    came_back = np.concatenate([label for _, label in parts])
    coefficients = logistic(traits, came_back)
    expected = np.bincount(items, expit(traits @ coefficients), log.n_items).astype(np.float64)
    observed = np.bincount(items, came_back, log.n_items).astype(np.float64)
    strength = max(STRENGTHS, key=lambda tried: _likelihood(observed, expected, tried))
    effects = np.log((observed + strength) / (expected + strength))
    strangers = first_chances(log.histories, log.n_items)
    return Repeat(coefficients.astype(np.float32), effects.astype(np.float32), strangers.astype(np.float32))


def first_chances(histories: Histories, n_items: int) -> Floats:
    """Chance that a visit, not a person's first, holds an item that the person never had, float64 (n_items,)."""
    ordinals = visits(histories)
    n_later = np.zeros(histories.n_users, np.int64)
    np.maximum.at(n_later, histories.users, ordinals)
    _, first = np.unique(histories.users << 32 | histories.items, return_index=True)
    items, at = histories.items[first], ordinals[first]
    with_item = np.bincount(items, n_later[histories.users[first]] - at, n_items)
    chances: Floats = np.bincount(items, at > 0, n_items) / (n_later.sum() - with_item + 1)
    return chances


def examples(histories: Histories, n_visits: int) -> Iterator[tuple[Habits, NDArray[np.bool_]]]:
    """The habits of everybody just before a visit, and which of their items the visit held: for the last few visits."""
    ordinals = visits(histories)
    last = np.zeros(histories.n_users, np.int64)
    np.maximum.at(last, histories.users, ordinals)
    for back in range(n_visits):
        visit = (last - back)[histories.users]
        now = (ordinals == visit) & (visit > 0)
        at = np.zeros(histories.n_users, np.float32)
        at[histories.users[now]] = histories.ages[now]
        before = histories.where((ordinals < visit) & (visit > 0))
        found = habits(Histories(before.starts, before.items, before.kinds, before.ages - at[before.users]))
        held = np.unique(histories.users[now] << 32 | histories.items[now])
        yield found, np.isin(found.users << 32 | found.items, held)


def logistic(traits: Floats, labels: NDArray[np.bool_]) -> Floats:
    """Coefficients of a ridge logistic regression, by Newton's method."""
    coefficients = np.zeros(len(TRAITS))
    for _ in range(N_STEPS):
        chances = expit(traits @ coefficients)
        gradient = traits.T @ (labels - chances) - RIDGE * coefficients
        curvature = (traits * (chances * (1 - chances))[:, None]).T @ traits + RIDGE * np.eye(len(TRAITS))
        step = np.linalg.solve(curvature, gradient)
        coefficients += step
        if np.abs(step).max() < 1e-6:
            break
    return coefficients


def _likelihood(observed: Floats, expected: Floats, strength: float) -> float:
    """Log-likelihood of counts whose rate has a Gamma(strength, strength) factor: negative binomial."""
    terms = gammaln(observed + strength) - gammaln(strength) + strength * np.log(strength)
    return float((terms - (observed + strength) * np.log(expected + strength)).sum())
