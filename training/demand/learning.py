"""Examples of a panel's past and the boosters that learn from them."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import lightgbm
import numpy as np

from features.demand import features
from features.panels import Floats, Panel, demand
from serving.recipe import Base, base_of, floored, shape_rows
from training.config import BoosterConfig
from training.demand.config import DemandConfig, Loss

MOST_SHAPE_ROWS = 100_000
_REPRODUCIBLE: dict[str, Any] = {
    "num_threads": 2,
    "deterministic": True,
    "force_row_wise": True,
    "max_bin": 63,
    "feature_pre_filter": False,
    "verbosity": -1,
}


class Examples(NamedTuple):
    """Rows to learn from: float32 [n, n_features], units [n], the bases [n, n_bases], share on sale [n]."""

    rows: Floats
    units: Floats
    bases: Floats
    exposure: Floats

    def relative(self, base: int = 0) -> Floats:
        """Units over one of the bases."""
        return self.units / self.bases[:, base]

    def weight(self, loss: Loss = "tweedie", base: int = 0) -> Floats:
        """How much a row's error over a base counts: as much as it was on sale.

        For "tweedie" as many units as its base, so that errors count in units. For "mape" the inverse of its relative
        demand, so that they count in shares of the demand; without demand, nothing.
        """
        if loss == "tweedie":
            return self.bases[:, base] * self.exposure
        relative = self.relative(base)
        return np.where(relative > 0, self.exposure / np.where(relative > 0, relative, 1), np.float32(0))


def examples(known: Panel, origins: Iterable[int], bases: Sequence[Base]) -> Examples:
    """Every eligible series at every origin and step whose demand is known."""
    return joined([_examples_at(known, origin, bases) for origin in origins])


def joined(parts: Sequence[Examples]) -> Examples:
    return Examples(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _examples_at(known: Panel, origin: int, bases: Sequence[Base]) -> Examples:
    eligible, ahead = known.eligible(origin), slice(origin, origin + known.horizon)
    _, values = features(known, origin)
    exposure = known.exposure[eligible, ahead]
    units = demand(known.sold[eligible, ahead], exposure)
    scales = np.stack([base_of(known, origin, base)[eligible] for base in bases], axis=-1)
    there = ~np.isnan(units)
    return Examples(values[eligible][there], units[there], scales[there], exposure[there])


def mean_boosters(
    taught: Examples, config: DemandConfig, judged: Examples | None = None, n_trees: Sequence[int] = ()
) -> list[lightgbm.Booster]:
    """The mean over each base, by the configured loss; with ``judged`` examples trees stop when they gain nothing."""
    settings = _settings(config.trees, config.seed) | _objective(config)
    data = lightgbm.Dataset(taught.rows, params=settings)
    watched = [] if judged is None else [(judged, data.create_valid(judged.rows))]
    callbacks = [lightgbm.early_stopping(config.patience, verbose=False)] if watched and config.patience else []
    boosters = []
    for base in range(len(config.bases)):
        for of, binned in ((taught, data), *watched):
            binned.set_label(of.relative(base)).set_weight(of.weight(config.loss, base))
        most = n_trees[base] if n_trees else config.trees.n_trees
        seen = [binned for _, binned in watched]
        boosters.append(lightgbm.train(settings, data, most, valid_sets=seen, callbacks=callbacks))
    return boosters


def n_taken(booster: lightgbm.Booster) -> int:
    """Trees that a booster answers with: up to the best one if it was watched."""
    n_best: int = booster.best_iteration
    return n_best if n_best > 0 else int(booster.num_trees())


def _objective(config: DemandConfig) -> dict[str, Any]:
    if config.loss == "mape":
        return {"objective": "regression_l1"}
    return {"objective": "tweedie", "tweedie_variance_power": config.tweedie_variance_power}


def shape_boosters(judged: Examples, mean: Floats, config: DemandConfig) -> list[lightgbm.Booster]:
    """The quantiles of what came over the mean that was forecast, one booster each over the same bins.

    judged : examples that the mean's model was not taught with, so that its errors are those of the future
    mean : float32, shape (n,), its forecasts over the first base
    """
    rng = np.random.default_rng(config.seed)
    some = np.sort(rng.permutation(len(mean))[:MOST_SHAPE_ROWS])
    settings = _settings(config.shape, config.seed)
    multiples = (judged.relative() / floored(mean))[some]
    rows = shape_rows(judged.rows[some], mean[some], judged.bases[some, 0])
    data = lightgbm.Dataset(rows, multiples, weight=judged.exposure[some], params=settings)
    return _per_quantile(data, settings, config)


def quantile_boosters(taught: Examples, config: DemandConfig) -> list[lightgbm.Booster]:
    """The quantiles of units over the first base, one booster each over the same bins."""
    settings = _settings(config.shape, config.seed)
    data = lightgbm.Dataset(taught.rows, taught.relative(), weight=taught.weight(), params=settings)
    return _per_quantile(data, settings, config)


def _per_quantile(data: lightgbm.Dataset, settings: dict[str, Any], config: DemandConfig) -> list[lightgbm.Booster]:
    return [
        lightgbm.train({**settings, "objective": "quantile", "alpha": quantile}, data, config.shape.n_trees)
        for quantile in config.quantiles
    ]


def _settings(trees: BoosterConfig, seed: int) -> dict[str, Any]:
    return {**_REPRODUCIBLE, "seed": seed, **trees.model_dump(exclude={"n_trees"})}
