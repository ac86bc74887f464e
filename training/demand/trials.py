"""Forecasts of the past much as they would have been made: blocks of held-out horizons, told by what came before.

How these forecasts err teaches the quantiles. Those of a block are learnt from the other blocks, so that errors of a
time that nobody has seen are what intervals are calibrated to; the quantiles that answer are learnt from all of them.
Source: Vovk, "Cross-conformal predictors", Annals of Mathematics and Artificial Intelligence 2015, by blocks of time.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import lightgbm
import numpy as np

from features.demand_classes import pattern
from features.errors import UserError
from features.panels import Floats, Panel
from serving.recipe import Recipe, mean_of
from training.demand.challenge import challenger
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
SHARES = (0.0, 0.25, 0.5, 0.75)
"""Of the quantiles that a network may give: never all, for held-out horizons are few."""


class Trial(NamedTuple):
    """A block of held-out horizons, and what forecasts it: means of what came before, quantiles of the other blocks.

    judged : the block's examples
    mean : float32, shape (n,), of these, over the first base
    n_trees : that each mean took
    recipe : its means were fitted before the block and know of what is held out from there on how many trees to take,
        unless ``patience`` is 0;
        where held-out errors teach the quantiles, those of the other blocks do, earlier and later ones, if there are
        any. Its network, if one is asked for, has no share yet.
    """

    origins: list[int]
    judged: Examples
    mean: Floats
    n_trees: list[int]
    recipe: Recipe


def trials(known: Panel, config: DemandConfig, device: str) -> list[Trial]:
    """One trial per block, the earliest first."""
    held_out = [known.n_periods - config.horizon * k for k in range(config.n_validation, 0, -1)]
    blocks = np.array_split(held_out, min(MOST_BLOCKS, len(held_out)))
    judged = [examples(known, block.tolist(), config.bases) for block in blocks]
    tried = [_trial(known, block.tolist(), judged[number:], config, device) for number, block in enumerate(blocks)]
    return tried if config.quantiles_of == "base" else [_crossed(trial, tried, config) for trial in tried]


def _trial(known: Panel, block: list[int], coming: list[Examples], config: DemandConfig, device: str) -> Trial:
    """The trial of a block; ``coming`` are the examples of it and of those after it, by which its trees stop."""
    judged = coming[0]
    earlier = examples(known, origins(known, block[0], config), config.bases)
    if not (len(judged.units) and len(earlier.units)):
        raise UserError(
            f"no series had sales enough {known.n_periods - block[0]} {known.frequency}s before the cut-off, where the "
            "forecast is tried out: lower min_periods or n_validation, or ingest more history"
        )
    means = mean_boosters(earlier, config, joined(coming))
    quantiles = quantile_boosters(earlier, config) if config.quantiles_of == "base" else []
    network = challenger(earlier, known, block[0], config, device)
    recipe = Recipe(means, quantiles, config.bases, config.quantiles_of, network=network)
    return Trial(block, judged, mean_of(means, judged.rows, judged.bases), list(map(n_taken, means)), recipe)


def _crossed(trial: Trial, tried: Sequence[Trial], config: DemandConfig) -> Trial:
    others = [other for other in tried if other is not trial] or [trial]
    return trial._replace(recipe=replace(trial.recipe, shape=shape(others, config)))


def origins(known: Panel, n_periods: int, config: DemandConfig) -> list[int]:
    """Origins whose targets precede ``n_periods``, evenly over the panel's later part: no dead series is missing."""
    last = n_periods - config.horizon
    spread = np.linspace(min(known.n_periods * config.first_origin, last), last, config.n_origins)
    return sorted({round(origin) for origin in spread.tolist()})


def n_trees(tried: Sequence[Trial]) -> list[int]:
    """Trees to fit of each mean: as many as the first trial took, which saw every held-out horizon."""
    return tried[0].n_trees


def shape(tried: Sequence[Trial], config: DemandConfig) -> list[lightgbm.Booster]:
    """Quantiles as multiples of the mean, learnt from how the trials erred."""
    judged, mean = joined([trial.judged for trial in tried]), np.concatenate([trial.mean for trial in tried])
    return shape_boosters(judged, mean, config)


def best_share(tried: Sequence[Trial], config: DemandConfig) -> float:
    """The share of the quantiles that the network should give: that of least pinball loss on what was held out."""
    if config.network is None:
        return 0.0
    losses = [sum(_loss(trial, share, config.quantiles) for trial in tried) for share in SHARES]
    return SHARES[int(np.argmin(losses))]


def _loss(trial: Trial, share: float, quantiles: Sequence[float]) -> float:
    judged = trial.judged
    return pinball_loss(_shared(trial.recipe, share).of_rows(judged.rows, judged.bases)[:, 1:], judged, quantiles)


def pinball_loss(units: Floats, judged: Examples, quantiles: Sequence[float]) -> float:
    """Summed pinball loss of quantiles [n, n_quantiles], units, each example as much as it was on sale."""
    levels, short = np.array(quantiles), judged.units[:, None] - units
    return float(judged.exposure @ np.maximum(levels * short, (levels - 1) * short).mean(axis=1))


def _shared(recipe: Recipe, share: float) -> Recipe:
    return replace(recipe, network=recipe.network if share else None, share=share)


def held_out(known: Panel, tried: Sequence[Trial], share: float) -> HeldOut:
    """What the trials forecast of their blocks, the network with its share."""
    parts = [_asked(known, origin, _shared(trial.recipe, share)) for trial in tried for origin in trial.origins]
    return HeldOut(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _asked(known: Panel, origin: int, recipe: Recipe) -> HeldOut:
    chosen = known.eligible(origin)
    past, actual = np.split(known.demand[chosen, : origin + known.horizon], [origin], axis=1)
    return HeldOut(recipe.forecast(known, origin), actual, np.full(len(actual), origin), pattern(past))
