"""Fits what everybody wants now, of all there is and of each kind: events weighted by their own and decayed by age."""

import numpy as np
from numpy.typing import NDArray

from features.histories import EventWeights, Log
from serving.tiers import PopularAlike, Popularity
from training.config import Config, PositiveFloat
from training.device import Device


class PopularityConfig(Config):
    """Settings of the popularity tier."""

    half_life_days: PositiveFloat = 30.0
    """After so many days an event of any kind counts half."""


class PopularAlikeConfig(PopularityConfig):
    """Settings of the tier of what is popular among what is like a history."""

    prior: PositiveFloat = 0.1
    """What an item counts on which there was no event: of what nobody touched yet, all is equally popular."""


def fit(log: Log, config: PopularityConfig, events: EventWeights, _: Device) -> Popularity:
    """Decayed, weighted counts per item, on a logarithmic scale: each doubling adds the same."""
    return Popularity(np.log1p(counts(log, config, events)).astype(np.float32))


def fit_alike(log: Log, config: PopularAlikeConfig, events: EventWeights, _: Device) -> PopularAlike:
    """The share of each item in the decayed, weighted counts of each of its attribute values."""
    n_values, values = len(log.attributes.names), log.attributes.padded(log.n_items)
    weights = np.repeat(counts(log, config, events)[:, None] + config.prior, values.shape[1], 1) * (values < n_values)
    totals = np.bincount(values.ravel(), weights.ravel(), n_values + 1).clip(min=config.prior)
    shares = (weights / totals[values]).astype(np.float32)
    return PopularAlike(values, shares, n_values, events.weights, events.half_life_days)


def counts(log: Log, config: PopularityConfig, events: EventWeights) -> NDArray[np.float64]:
    """What the events of each item count now, float64, shape (n_items,)."""
    decayed = EventWeights(events.weights, np.full_like(events.half_life_days, config.half_life_days))
    return np.bincount(log.histories.items, decayed.affinities(log.histories), log.n_items).astype(np.float64)
