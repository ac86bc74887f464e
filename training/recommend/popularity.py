"""Fits what everybody wants now: the events of an item, weighted by kind and decayed by age."""

import numpy as np

from features.histories import EventWeights, Log
from serving.tiers import Popularity
from training.config import Config, PositiveFloat
from training.device import Device


class PopularityConfig(Config):
    """Settings of the popularity tier."""

    half_life_days: PositiveFloat = 30.0
    """After so many days an event of any kind counts half."""


def fit(log: Log, config: PopularityConfig, events: EventWeights, _: Device) -> Popularity:
    """Decayed, weighted counts per item, on a logarithmic scale: each doubling adds the same."""
    decayed = EventWeights(events.weights, np.full_like(events.half_life_days, config.half_life_days))
    counts = np.bincount(log.histories.items, decayed.affinities(log.histories), log.n_items)
    return Popularity(np.log1p(counts).astype(np.float32))
