"""Fits the demand forecast: LightGBM over pooled series, one model for the mean and one per quantile.

Every example is a series at an origin in the past with a step of the horizon; units are divided by the series' own
level and weighted by it, so that errors count in units. The number of trees and which column is the point forecast are
chosen on the last ``horizon`` periods before the cut-off, with models that did not see them; then all are fitted again
on everything. Pooled direct forecasts: Makridakis et al., "M5 accuracy competition", IJF 2022.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, NamedTuple, Self

import lightgbm
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from features.demand import PERIOD_DAYS, SEASON, Floats, Panel, features, level, panel, sales
from features.engine import Engine
from features.errors import UserError
from features.windows import Frequency, Window
from serving.artifact import Draft, Json
from serving.demand import Forecaster, forecast, model_names
from serving.trees import Trees
from training.config import BoosterConfig, Config, PositiveInt
from training.evaluation import Row, mean_row, ratio_row

NAME = "trees"
N_NAIVE = 4

Baseline = Callable[[Panel, int], Floats]
Quantile = Annotated[float, Field(gt=0, lt=1)]

_PATIENCE = 15
_REPRODUCIBLE = {
    "num_threads": 2,
    "deterministic": True,
    "force_row_wise": True,
    "max_bin": 63,
    "feature_pre_filter": False,
    "verbosity": -1,
}


class DemandConfig(Config):
    """What the demand forecast is fitted with; a period is the shop's ``demand_frequency``."""

    horizon: PositiveInt = 4
    """Periods to forecast."""
    quantiles: Annotated[tuple[Quantile, ...], Field(min_length=1)] = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
    """Quantiles to forecast, ascending, the median among them."""
    min_periods: PositiveInt = 26
    """Periods with a sale that a series needs to be forecast."""
    by_location: bool = False
    """Whether each location has its own series, or an item has one for all."""
    n_origins: PositiveInt = 6
    """Instants of the past from which examples are made, spread over the later half of the history."""
    tweedie_variance_power: Annotated[float, Field(ge=1, lt=2)] = 1.5
    """Of the mean's objective: 1 is Poisson, near 2 is gamma."""
    seed: int = 0
    """Seed of the features that a tree may use."""
    trees: BoosterConfig = BoosterConfig(n_trees=80, learning_rate=0.1, min_data_in_leaf=100)
    """Of every model."""

    @model_validator(mode="after")
    def _quantiles_ascend_over_the_median(self) -> Self:
        if list(self.quantiles) != sorted(set(self.quantiles)) or 0.5 not in self.quantiles:
            raise ValueError(f"quantiles are {self.quantiles}: they must ascend and hold 0.5")
        return self

    @property
    def objectives(self) -> dict[str, dict[str, Any]]:
        """LightGBM's objective of each model, by the name of its text."""
        mean = {"objective": "tweedie", "tweedie_variance_power": self.tweedie_variance_power}
        each = [mean, *({"objective": "quantile", "alpha": quantile} for quantile in self.quantiles)]
        return dict(zip(model_names(self.quantiles), each, strict=True))


@dataclass(frozen=True, slots=True)
class DemandModel:
    """Fitted trees and the forecast after the cut-off; ``export`` writes what ``serving.demand`` reads."""

    config: DemandConfig
    known: Panel
    texts: Mapping[str, str]
    point: int
    metrics: dict[str, float]
    name: str = NAME

    def export(self, draft: Draft) -> None:
        for name, text in self.texts.items():
            draft.text(name, text)
        names, _ = features(self.known, self.known.n_periods)
        draft.json("features", names)
        draft.json("forecast", self._about())
        draft.json("series", self._series())
        draft.array("forecast", _forecast(self.known, self.known.n_periods, self.texts))

    def golden_requests(self) -> list[Json]:
        item_ids = self._series()["item_ids"]
        some = [*item_ids[:: max(1, len(item_ids) // 5)][:5], "nothing we know"]
        everything: Json = {"item_ids": [], "location_id": None, "horizon": None, "offset": 0, "limit": 20}
        return [everything, {**everything, "item_ids": some, "horizon": 1}]

    def _series(self) -> dict[str, list[str]]:
        chosen = np.flatnonzero(self.known.eligible(self.known.n_periods))
        return {
            "item_ids": [self.known.item_ids[row] for row in chosen],
            "location_ids": [self.known.location_ids[row] for row in chosen],
        }

    def _about(self) -> Json:
        dates = self.known.dates[self.known.n_periods :].astype(str).tolist()
        return {
            "cutoff": dates[0],
            "dates": dates,
            "quantiles": self.config.quantiles,
            "point": self.point,
            "panel": {
                "frequency": self.known.frequency,
                "horizon": self.config.horizon,
                "min_periods": self.config.min_periods,
                "by_location": self.config.by_location,
            },
        }


def fit(
    past: Engine, known_future: Engine | None, as_of: datetime, frequency: Frequency, config: DemandConfig
) -> DemandModel:
    """Fit on all whole periods before the cut-off and forecast the ``horizon`` periods after them.

    past : what was known at ``as_of``
    known_future : offers planned for the horizon; None: nothing is
    Raises UserError when the history is shorter than four horizons or no series has sales enough.
    """
    known = panel(past, as_of, frequency, config.horizon, known_future, config.min_periods, config.by_location)
    _demand_history(known)
    held_out = known.n_periods - config.horizon
    judged = _examples(known, [held_out])
    examples = _examples(known, _origins(known, held_out, config))
    trial = _boosted(examples, config, dict.fromkeys(config.objectives), judged)
    n_trees = {name: booster.best_iteration for name, booster in trial.items()}
    point, metrics = _chosen(known, held_out, _texts(trial), config)
    final = _boosted(_examples(known, _origins(known, known.n_periods, config)), config, n_trees)
    return DemandModel(
        config, known, _texts(final), point, {**metrics, "n_series": float(known.eligible(known.n_periods).sum())}
    )


def _demand_history(known: Panel) -> None:
    if known.n_periods < 4 * known.horizon:
        raise UserError(
            f"the history has {known.n_periods} whole {known.frequency}s and a horizon of {known.horizon} needs "
            f"{4 * known.horizon}: shorten the horizon or ingest more history"
        )


class Examples(NamedTuple):
    """Rows to learn from: float32 [n, n_features], units over level [n], level [n]."""

    rows: Floats
    relative: Floats
    weight: Floats


def _origins(known: Panel, n_periods: int, config: DemandConfig) -> list[int]:
    """Origins whose targets precede ``n_periods``, evenly over the panel's later half: no dead series is missing."""
    spread = np.linspace(known.n_periods / 2, n_periods - config.horizon, config.n_origins)
    return sorted({round(origin) for origin in spread.tolist()})


def _examples(known: Panel, origins: Iterable[int]) -> Examples:
    parts = [_examples_at(known, origin) for origin in origins]
    return Examples(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _examples_at(known: Panel, origin: int) -> Examples:
    eligible = known.eligible(origin)
    _, values = features(known, origin)
    scale = np.repeat(level(known, origin)[eligible], known.horizon)
    units = known.quantity[eligible, origin : origin + known.horizon].ravel()
    return Examples(values[eligible].reshape(-1, values.shape[-1]), units / scale, scale)


def _boosted(
    examples: Examples, config: DemandConfig, n_trees: Mapping[str, int | None], judged: Examples | None = None
) -> dict[str, lightgbm.Booster]:
    """One booster per objective over the same bins; with ``judged`` examples each stops when it gains nothing there."""
    settings = {**_REPRODUCIBLE, "seed": config.seed, **config.trees.model_dump(exclude={"n_trees"})}
    data = lightgbm.Dataset(examples.rows, examples.relative, weight=examples.weight, params=settings)
    watched = [] if judged is None else [data.create_valid(judged.rows, judged.relative, weight=judged.weight)]
    callbacks = [lightgbm.early_stopping(_PATIENCE, verbose=False)] if watched else []
    return {
        name: lightgbm.train(
            {**settings, **objective},
            data,
            n_trees[name] or config.trees.n_trees,
            valid_sets=watched,
            callbacks=callbacks,
        )
        for name, objective in config.objectives.items()
    }


def _texts(boosters: Mapping[str, lightgbm.Booster]) -> dict[str, str]:
    return {name: booster.model_to_string() for name, booster in boosters.items()}


def _forecast(known: Panel, origin: int, texts: Mapping[str, str]) -> Floats:
    mean, *quantiles = (Trees.from_text(text) for text in texts.values())
    return forecast(known, origin, mean, quantiles)


def _chosen(known: Panel, origin: int, texts: Mapping[str, str], config: DemandConfig) -> tuple[int, dict[str, float]]:
    """The point forecast, mean or median, whose WAPE plus absolute bias is lower, and what was measured for it.

    WAPE alone prefers the median, which leaves a shop of slow sellers short.
    """
    values = _forecast(known, origin, texts)
    actual = known.quantity[known.eligible(origin), origin : origin + known.horizon]
    candidates = (0, 1 + config.quantiles.index(0.5))
    point = min(candidates, key=lambda column: _wape_and_bias(values[:, :, column], actual))
    judged = Judged(values[:, :, point], values[:, :, 1:])
    return point, {
        f"validation_{row.metric}": row.value for row in _rows(NAME, "validation", judged, actual, config.quantiles)
    }


def _wape_and_bias(units: Floats, actual: Floats) -> float:
    error = units - actual
    return float((np.abs(error).sum() + abs(error.sum())) / actual.sum())


class Judged(NamedTuple):
    """A model's forecasts: point [n_series, n_steps] and quantiles [n_series, n_steps, n_quantiles], units."""

    point: Floats
    quantiles: Floats


def evaluate(forecaster: Forecaster, window: Window, frequency: Frequency, split: str) -> list[Row]:
    """WAPE, bias, pinball loss and coverage of the model and of two baselines in a window.

    The forecasts are computed from the window's past, so a model may be judged on any window after its training. Bias
    is sum(forecast - actual) / sum(actual); pinball losses are sums over the sum of actuals, ``pinball`` is their mean;
    coverage is of the outer quantiles. Periods not whole in the window are left out. Intervals resample series.

    Raises UserError when the model was trained on part of the window or no period is whole.
    """
    if forecaster.cutoff > f"{window.as_of:%Y-%m-%d}":
        raise UserError(
            f"the model knows everything before {forecaster.cutoff} and the window starts at {window.as_of:%Y-%m-%d}: "
            "choose a later window or an earlier model"
        )
    known = forecaster.panel(window.past, window.as_of, window.known_future)
    steps = _whole_steps(known, window, frequency)
    eligible = known.eligible(known.n_periods)
    actual = sales(window.truth, window.end, known)[eligible][:, steps]
    values = forecaster.forecast(known)
    judged = {NAME: Judged(values[:, :, forecaster.point], values[:, :, 1:]), **_baselines(known, forecaster.quantiles)}
    return [
        row
        for name, one in judged.items()
        for row in _rows(
            name, split, Judged(one.point[:, steps], one.quantiles[:, steps]), actual, forecaster.quantiles
        )
    ]


def _whole_steps(known: Panel, window: Window, frequency: Frequency) -> NDArray[np.intp]:
    """The steps of the horizon whose periods lie wholly within the window."""
    starts = known.dates[known.n_periods :].astype("datetime64[us]")
    ends = starts + np.timedelta64(timedelta(days=PERIOD_DAYS[frequency]))
    since, until = (np.datetime64(instant.replace(tzinfo=None)) for instant in (window.as_of, window.end))
    steps = np.flatnonzero((starts >= since) & (ends <= until))
    if not len(steps):
        raise UserError(f"the window {window.name} holds no whole {frequency} of the horizon: make it longer")
    return steps


def _rows(name: str, split: str, judged: Judged, actual: Floats, quantiles: Sequence[float]) -> list[Row]:
    sold = actual.sum(axis=1)
    error = judged.point - actual
    losses = [_pinball(judged.quantiles[:, :, i], actual, quantile) for i, quantile in enumerate(quantiles)]
    within = (judged.quantiles[:, :, 0] <= actual) & (actual <= judged.quantiles[:, :, -1])
    ratios = {
        "wape": np.abs(error).sum(axis=1),
        "bias": error.sum(axis=1),
        "pinball": np.mean(losses, axis=0),
        **{f"pinball_{quantile:g}": loss for quantile, loss in zip(quantiles, losses, strict=True)},
    }
    coverage = f"coverage_{round(100 * (quantiles[-1] - quantiles[0]))}"
    rows = [ratio_row(name, split, metric, above, sold) for metric, above in ratios.items()]
    return [*rows, mean_row(name, split, coverage, within.mean(axis=1))]


def _pinball(units: Floats, actual: Floats, quantile: float) -> Floats:
    """Pinball loss per series, shape (n_series,), units; Koenker and Bassett, "Regression Quantiles", 1978."""
    short = actual - units
    losses: Floats = np.maximum(quantile * short, (quantile - 1) * short).sum(axis=1)
    return losses


def _baselines(known: Panel, quantiles: Sequence[float]) -> dict[str, Judged]:
    """Seasonal naive and the mean of the last four periods, for the series that a forecast covers.

    Their quantiles are their point plus quantiles of their own errors at past origins, pooled over series in levels.
    """
    return {"seasonal_naive": _judged(known, quantiles, _seasonal_naive), "mean_4": _judged(known, quantiles, _mean_4)}


def _judged(known: Panel, quantiles: Sequence[float], baseline: Baseline) -> Judged:
    errors = np.concatenate([_errors(known, origin, baseline) for origin in _past_origins(known)])
    spread = np.quantile(errors, quantiles, axis=0).T[None]
    eligible = known.eligible(known.n_periods)
    point = baseline(known, known.n_periods)[eligible]
    scale = level(known, known.n_periods)[eligible, None, None]
    return Judged(point, np.maximum(point[:, :, None] + scale * spread, 0))


def _past_origins(known: Panel) -> range:
    return range(max(N_NAIVE, known.n_periods // 2), known.n_periods - known.horizon + 1)


def _errors(known: Panel, origin: int, baseline: Baseline) -> Floats:
    eligible = known.eligible(origin)
    actual = known.quantity[eligible, origin : origin + known.horizon]
    errors: Floats = (actual - baseline(known, origin)[eligible]) / level(known, origin)[eligible, None]
    return errors


def _seasonal_naive(known: Panel, origin: int) -> Floats:
    """The period one season earlier; the last four in turn where the history is shorter."""
    season = SEASON[known.frequency]
    season = season if origin >= season else min(N_NAIVE, origin)
    steps = np.arange(known.horizon) % season
    return np.nan_to_num(known.quantity[:, origin - season + steps])


def _mean_4(known: Panel, origin: int) -> Floats:
    recent = np.nan_to_num(known.quantity[:, max(0, origin - N_NAIVE) : origin])
    return np.repeat(recent.mean(axis=1, keepdims=True), known.horizon, axis=1)
