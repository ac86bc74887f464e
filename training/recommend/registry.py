"""Every tier with the function that fits it; each module is imported when its tier is first asked for."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from features.histories import EventWeights, Log
from serving.tiers import Tier
from training.config import Config
from training.device import Device

Fit = Callable[[Log, Any, EventWeights, Device], Tier]

FITTED_BY: Mapping[str, str] = {
    "popularity": "popularity.fit",
    "popular_alike": "popularity.fit_alike",
    "cooccurrence": "cooccurrence.fit",
    "linear": "linear.fit",
    "als": "factors.fit_als",
    "bpr": "factors.fit_bpr",
    "pooled": "pooled.fit",
    "repeat": "repeat.fit",
    "sequence": "sequence.fit",
}
"""Module and function of this package, by the tier's name in configurations and artifacts."""


def fit_tier(name: str, log: Log, config: Config, events: EventWeights, device: Device) -> Tier:
    """Fit one tier."""
    module, function = FITTED_BY[name].split(".")
    fit: Fit = getattr(import_module(f"training.recommend.{module}"), function)
    return fit(log, config, events, device)
