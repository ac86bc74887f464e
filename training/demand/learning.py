"""Examples of a panel's past and the boosters that learn from them."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import lightgbm
import numpy as np

from features.demand import features
from features.panels import Floats, Panel, demand
from serving.demand import Base, base_of, floored, shape_rows
from training.config import BoosterConfig
from training.demand.config import DemandConfig

MOST_SHAPE_ROWS = 100_000
_PATIENCE = 15
_REPRODUCIBLE: dict[str, Any] = {
    "num_threads": 2,
    "deterministic": True,
    "force_row_wise": True,
    "max_bin": 63,
    "feature_pre_filter": False,
    "verbosity": -1,
}


class Examples(NamedTuple):
    """Rows to learn from: float32 [n, n_features], units over the base [n], the base [n], share on sale [n]."""

    rows: Floats
    relative: Floats
    base: Floats
    exposure: Floats

    @property
    def weight(self) -> Floats:
        """A row weighs as many units as its base, so that errors count in units, and as much as it was on sale."""
        return self.base * self.exposure


def examples(known: Panel, origins: Iterable[int], base: Base) -> Examples:
    """Every eligible series at every origin and step whose demand is known."""
    parts = [_examples_at(known, origin, base) for origin in origins]
    return Examples(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _examples_at(known: Panel, origin: int, base: Base) -> Examples:
    eligible, ahead = known.eligible(origin), slice(origin, origin + known.horizon)
    _, values = features(known, origin)
    exposure = known.exposure[eligible, ahead]
    units = demand(known.sold[eligible, ahead], exposure)
    scale = base_of(known, origin, base)[eligible]
    there = ~np.isnan(units)
    return Examples(values[eligible][there], (units / scale)[there], scale[there], exposure[there])


def mean_booster(
    taught: Examples, config: DemandConfig, judged: Examples | None = None, n_trees: int | None = None
) -> lightgbm.Booster:
    """The mean, by Tweedie's deviance; with ``judged`` examples it stops when it gains nothing there."""
    settings = _settings(config.trees, config.seed) | {
        "objective": "tweedie",
        "tweedie_variance_power": config.tweedie_variance_power,
    }
    data = lightgbm.Dataset(taught.rows, taught.relative, weight=taught.weight, params=settings)
    watched = [] if judged is None else [data.create_valid(judged.rows, judged.relative, weight=judged.weight)]
    callbacks = [lightgbm.early_stopping(_PATIENCE, verbose=False)] if watched else []
    return lightgbm.train(settings, data, n_trees or config.trees.n_trees, valid_sets=watched, callbacks=callbacks)


def shape_boosters(judged: Examples, mean: Floats, config: DemandConfig) -> list[lightgbm.Booster]:
    """The quantiles of what came over the mean that was forecast, one booster each over the same bins.

    judged : examples that the mean's model was not taught with, so that its errors are those of the future
    mean : float32, shape (n,), its forecasts over the base
    """
    rng = np.random.default_rng(config.seed)
    some = np.sort(rng.permutation(len(mean))[:MOST_SHAPE_ROWS])
    settings = _settings(config.shape, config.seed)
    multiples = (judged.relative / floored(mean))[some]
    rows = shape_rows(judged.rows[some], mean[some], judged.base[some])
    data = lightgbm.Dataset(rows, multiples, weight=(floored(mean) * judged.weight)[some], params=settings)
    return _per_quantile(data, settings, config)


def quantile_boosters(taught: Examples, config: DemandConfig) -> list[lightgbm.Booster]:
    """The quantiles of units over the base, one booster each over the same bins."""
    settings = _settings(config.shape, config.seed)
    data = lightgbm.Dataset(taught.rows, taught.relative, weight=taught.weight, params=settings)
    return _per_quantile(data, settings, config)


def _per_quantile(data: lightgbm.Dataset, settings: dict[str, Any], config: DemandConfig) -> list[lightgbm.Booster]:
    return [
        lightgbm.train({**settings, "objective": "quantile", "alpha": quantile}, data, config.shape.n_trees)
        for quantile in config.quantiles
    ]


def _settings(trees: BoosterConfig, seed: int) -> dict[str, Any]:
    return {**_REPRODUCIBLE, "seed": seed, **trees.model_dump(exclude={"n_trees"})}
