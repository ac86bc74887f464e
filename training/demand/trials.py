"""Forecasts of the past as they would have been made: blocks of held-out horizons, told by models of what came before.

How these forecasts err teaches the quantiles. Those of a block are learnt from the other blocks, so that errors of a
time that nobody has seen are what intervals are calibrated to; the quantiles that answer are learnt from all of them.
Source: Vovk, "Cross-conformal predictors", Annals of Mathematics and Artificial Intelligence 2015, by blocks of time.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import lightgbm
import numpy as np

from features.demand_classes import pattern
from features.panels import Floats, Panel
from serving.recipe import Recipe, mean_of
from training.demand.config import DemandConfig
from training.demand.dependence import HeldOut
from training.demand.learning import (
    Examples,
    examples,
    joined,
    mean_boosters,
    n_taken,
    quantile_boosters,
    shape_boosters,
)

MOST_BLOCKS = 4


class Trial(NamedTuple):
    """The models of what came before a block of held-out horizons, and what they were asked there.

    mean : float32, shape (n,), of the judged examples, over the first base
    quantiles : of the base, see ``serving.recipe.QuantilesOf``; none where they are of the mean
    """

    origins: list[int]
    judged: Examples
    means: list[lightgbm.Booster]
    mean: Floats
    quantiles: list[lightgbm.Booster]


def trials(known: Panel, config: DemandConfig) -> list[Trial]:
    """One trial per block, the earliest first."""
    held_out = [known.n_periods - config.horizon * k for k in range(config.n_validation, 0, -1)]
    blocks = np.array_split(held_out, min(MOST_BLOCKS, len(held_out)))
    return [_trial(known, block.tolist(), config) for block in blocks]


def _trial(known: Panel, block: list[int], config: DemandConfig) -> Trial:
    judged = examples(known, block, config.bases)
    earlier = examples(known, origins(known, block[0], config), config.bases)
    means = mean_boosters(earlier, config, judged)
    quantiles = quantile_boosters(earlier, config) if config.quantiles_of == "base" else []
    return Trial(block, judged, means, mean_of(means, judged.rows, judged.bases), quantiles)


def origins(known: Panel, n_periods: int, config: DemandConfig) -> list[int]:
    """Origins whose targets precede ``n_periods``, evenly over the panel's later part: no dead series is missing."""
    spread = np.linspace(known.n_periods * config.first_origin, n_periods - config.horizon, config.n_origins)
    return sorted({round(origin) for origin in spread.tolist()})


def n_trees(tried: Sequence[Trial]) -> list[int]:
    """Trees to fit of each mean: as many as the trials took on average."""
    return [round(float(np.mean(taken))) for taken in zip(*(map(n_taken, trial.means) for trial in tried), strict=True)]


def shape(tried: Sequence[Trial], config: DemandConfig) -> list[lightgbm.Booster]:
    """Quantiles as multiples of the mean, learnt from how the trials erred."""
    judged, mean = joined([trial.judged for trial in tried]), np.concatenate([trial.mean for trial in tried])
    return shape_boosters(judged, mean, config)


def held_out(known: Panel, tried: Sequence[Trial], config: DemandConfig) -> HeldOut:
    """What the trials forecast, with quantiles that know nothing of their block, if there is another one."""
    parts = [_asked(known, trial.origins, recipe) for trial, recipe in _recipes(tried, config)]
    return HeldOut(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _recipes(tried: Sequence[Trial], config: DemandConfig) -> Iterator[tuple[Trial, Recipe]]:
    for trial in tried:
        others = [other for other in tried if other is not trial] or [trial]
        quantiles = trial.quantiles or shape(others, config)
        yield trial, Recipe(trial.means, quantiles, config.bases, config.quantiles_of)


def _asked(known: Panel, block: Sequence[int], recipe: Recipe) -> HeldOut:
    parts = []
    for origin in block:
        chosen = known.eligible(origin)
        past, actual = np.split(known.demand[chosen, : origin + known.horizon], [origin], axis=1)
        parts.append(HeldOut(recipe.forecast(known, origin), actual, np.full(len(actual), origin), pattern(past)))
    return HeldOut(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
