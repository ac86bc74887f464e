"""Fits how likely a customer is to buy again within the horizon: boosted trees, calibrated on a later slice."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

import lightgbm
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from features.customers import (
    FEATURES,
    LOOKBACK_DAYS,
    customer_features,
    eligible,
    feature_matrix,
    repurchase_labels,
)
from features.engine import Engine
from features.errors import UserError
from features.windows import Window
from serving.artifact import Draft, Json
from serving.calibration import Calibrator
from serving.propensity import PropensityScorer
from serving.trees import Trees
from training import calibration, classification
from training.classification import METRICS, Metric
from training.config import BoosterConfig, Config, PositiveInt
from training.evaluation import Row, statistic_row

LEAST_PER_OUTCOME = 20
PATIENCE = 50
_ROWS_WORTH_THREADS = 200_000

Floats = NDArray[np.float64]


class PropensityConfig(Config):
    """What a propensity model is fitted with."""

    model: Literal["trees"] = "trees"
    """Gradient-boosted trees with log loss."""
    horizon_days: PositiveInt = 28
    """Within how many days a purchase counts."""
    eligible_days: Annotated[int, Field(gt=0, le=LOOKBACK_DAYS)] = LOOKBACK_DAYS
    """Customers who bought in the last so many days are modelled; others get the base rate."""
    step_days: PositiveInt = 14
    """Days between two snapshots of all customers."""
    n_snapshots: PositiveInt = 13
    """Snapshots at most; the shop may be too young for all."""
    calibrator: calibration.Choice = "auto"
    """Correction of the probabilities; auto keeps one only if held-out log loss improves."""
    trees: BoosterConfig = BoosterConfig(num_leaves=7, learning_rate=0.03, min_data_in_leaf=200, feature_fraction=0.5)
    """LightGBM's settings."""

    @property
    def target(self) -> str:
        return f"repurchase_{self.horizon_days}d"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All eligible customers at an instant and whether each bought within the horizon.

    rows : float64, shape (n, n_features)
    bought : bool, shape (n,)
    """

    as_of: datetime
    rows: Floats
    bought: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PropensityModel:
    """Fitted trees, their calibrator, and the customers to score; ``export`` writes what the scorer reads."""

    config: PropensityConfig
    as_of: datetime
    text: str
    calibrator: Calibrator
    base_rate: float
    person_ids: list[str]
    customers: Floats
    metrics: dict[str, float]
    name: str = "trees"

    def export(self, draft: Draft) -> None:
        draft.text("model", self.text)
        draft.json("ids", self.person_ids)
        draft.json("features", [{"name": name, "words": words} for name, words in FEATURES.items()])
        draft.array("customers", self.customers)
        draft.json("propensity", self._facts())
        draft.array("probabilities", np.sort(self.calibrator(Trees.from_text(self.text).predict(self.customers))))

    def _facts(self) -> Json:
        return {
            "target": self.config.target,
            "as_of": self.as_of.isoformat(),
            "horizon_days": self.config.horizon_days,
            "eligible_days": self.config.eligible_days,
            "base_rate": self.base_rate,
            "calibrator": {"kind": self.calibrator.kind, "coefficients": self.calibrator.coefficients},
        }

    def golden_requests(self) -> list[Json]:
        every = max(1, len(self.person_ids) // 5)
        return [{"user_ids": [*self.person_ids[::every][:5], "nobody we know"]}]


def fit(past: Engine, as_of: datetime, config: PropensityConfig) -> PropensityModel:
    """Fit on snapshots of all customers whose labels were complete before the cut-off.

    With H the horizon, the newest snapshot lies at ``as_of - H``. A slice is used at an instant only if all its labels
    were complete then, so that neighbouring slices never share an outcome:

    1. the number of trees is chosen by early stopping on the newest snapshot at or before ``as_of - 2 H``, with trees
       fitted on snapshots at least H older than it;
    2. the calibrator is chosen and fitted on the newest snapshot, ``as_of - H``, with trees of that number fitted on
       all snapshots at or before ``as_of - 2 H``;
    3. the trees are fitted again, in that number, on every snapshot; the calibrator stays.

    Rows are neither resampled nor weighted, so probabilities keep their level.

    past : what was known at ``as_of``
    Raises UserError when the past is shorter than three horizons or a slice has fewer than 20 customers of an outcome.
    """
    snapshots = list(_snapshots(past, as_of, config))
    stopping, fitting = _slices(snapshots, as_of, config)
    n_trees, stopping_loss = _stopped_early(fitting, stopping, config)
    raw = _boosted(_complete_at(snapshots, snapshots[0].as_of, config), config, n_trees).predict(snapshots[0].rows)
    calibrator = calibration.fit(config.calibrator, raw, snapshots[0].bought)
    customers = eligible(customer_features(past, as_of), config.eligible_days)
    return PropensityModel(
        config=config,
        as_of=as_of,
        text=_boosted(snapshots, config, n_trees).model_to_string(),
        calibrator=calibrator,
        base_rate=float(np.concatenate([snapshot.bought for snapshot in snapshots]).mean()),
        person_ids=customers["person_id"].to_pylist(),
        customers=feature_matrix(customers),
        metrics={
            "n_snapshots": len(snapshots),
            "n_trees": n_trees,
            "stopping_log_loss": stopping_loss,
            "calibration_log_loss": calibration.cross_fitted(calibrator.kind, raw, snapshots[0].bought),
            "uncalibrated_log_loss": float(calibration.log_loss(raw, snapshots[0].bought).mean()),
        },
    )


def _snapshots(past: Engine, as_of: datetime, config: PropensityConfig) -> Iterator[Snapshot]:
    """Newest first, until there are enough or nobody had bought yet."""
    for number in range(config.n_snapshots):
        instant = as_of - timedelta(days=config.horizon_days + number * config.step_days)
        customers = eligible(customer_features(past, instant), config.eligible_days)
        if not customers.num_rows:
            return
        bought = repurchase_labels(past, instant, config.horizon_days, customers["person_id"].to_pylist())
        yield Snapshot(instant, feature_matrix(customers), bought)


def _complete_at(snapshots: list[Snapshot], instant: datetime, config: PropensityConfig) -> list[Snapshot]:
    """Those whose labels were complete at an instant, newest first."""
    horizon = timedelta(days=config.horizon_days)
    return [snapshot for snapshot in snapshots if snapshot.as_of + horizon <= instant]


def _slices(snapshots: list[Snapshot], as_of: datetime, config: PropensityConfig) -> tuple[Snapshot, list[Snapshot]]:
    """The snapshot for early stopping and those to fit on before it."""
    earlier = _complete_at(snapshots, snapshots[0].as_of, config) if snapshots else []
    fitting = _complete_at(snapshots, earlier[0].as_of, config) if earlier else []
    if not fitting:
        raise UserError(
            f"{len(snapshots)} snapshots of customers before {as_of:%Y-%m-%d} do not span three horizons of "
            f"{config.horizon_days} days: give a longer history, raise n_snapshots or lower horizon_days"
        )
    for name, part in {"fitting": fitting, "early stopping": earlier[:1], "calibration": snapshots[:1]}.items():
        _require_both_outcomes(name, part)
    return earlier[0], fitting


def _require_both_outcomes(name: str, snapshots: list[Snapshot]) -> None:
    n = sum(len(snapshot.bought) for snapshot in snapshots)
    n_bought = sum(int(snapshot.bought.sum()) for snapshot in snapshots)
    if min(n_bought, n - n_bought) < LEAST_PER_OUTCOME:
        raise UserError(
            f"of {n} customers for {name} {n_bought} bought again and {n - n_bought} did not, at least "
            f"{LEAST_PER_OUTCOME} of each are needed: give more customers or change horizon_days"
        )


def _stopped_early(fitting: list[Snapshot], stopping: Snapshot, config: PropensityConfig) -> tuple[int, float]:
    """The number of trees, and the log loss with it on the snapshot that chose it."""
    data = _dataset(fitting)
    booster = lightgbm.train(
        _parameters(fitting, config),
        data,
        config.trees.n_trees,
        valid_sets=[_dataset([stopping], data)],
        valid_names=["stopping"],
        callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
    )
    return booster.best_iteration, float(booster.best_score["stopping"]["binary_logloss"])


def _boosted(snapshots: list[Snapshot], config: PropensityConfig, n_trees: int) -> lightgbm.Booster:
    return lightgbm.train(_parameters(snapshots, config), _dataset(snapshots), n_trees)


def _dataset(snapshots: list[Snapshot], reference: lightgbm.Dataset | None = None) -> lightgbm.Dataset:
    rows = np.concatenate([snapshot.rows for snapshot in snapshots])
    bought = np.concatenate([snapshot.bought for snapshot in snapshots])
    return lightgbm.Dataset(rows, bought, reference=reference, feature_name=list(FEATURES))


def _parameters(snapshots: list[Snapshot], config: PropensityConfig) -> dict[str, Any]:
    n = sum(len(snapshot.bought) for snapshot in snapshots)
    return {
        **config.trees.model_dump(exclude={"n_trees"}),
        "objective": "binary",
        "num_threads": 0 if n >= _ROWS_WORTH_THREADS else 1,
        "deterministic": True,
        "force_row_wise": True,
        "seed": 0,
        "verbose": -1,
    }


def evaluate(scorer: PropensityScorer, window: Window, config: PropensityConfig, split: str) -> list[Row]:
    """METRICS of the model and of ``base_rate``, a constant, with intervals over customers resampled.

    Raises UserError when the scorer does not start where the window does, or the window is shorter than the horizon.
    """
    if scorer.as_of != window.as_of.isoformat() or window.end < window.as_of + timedelta(days=config.horizon_days):
        raise UserError(
            f"the model answers for {config.horizon_days} days from {scorer.as_of} on, the window runs from "
            f"{window.as_of.isoformat()} to {window.end.isoformat()}: evaluate on a window that holds those days"
        )
    bought = repurchase_labels(window.truth, window.as_of, config.horizon_days, scorer.person_ids)
    probability = scorer.table()["probability"].to_numpy()
    constant = np.full(len(bought), scorer.base_rate)
    return [*_rows("trees", split, probability, bought), *_rows("base_rate", split, constant, bought)]


def _rows(model: str, split: str, probability: Floats, bought: NDArray[np.bool_]) -> Iterator[Row]:
    levels, level_of = classification.levels(probability)

    def over(metric: Metric) -> Callable[[NDArray[np.intp]], float]:
        return lambda chosen: metric(levels, *classification.counts(level_of[chosen], bought[chosen], len(levels)))

    for name, metric in METRICS.items():
        yield statistic_row(model, split, name, over(metric), len(bought), resampled=name != "ece_15")
