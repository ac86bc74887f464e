"""Gradient-boosted trees with log loss, stopped early on a later slice, calibrated on one still later."""

from collections.abc import Sequence
from dataclasses import dataclass

import lightgbm
import numpy as np
from numpy.typing import NDArray

from serving.calibration import Calibrator, sigmoid
from serving.regression import Regression
from training import calibration
from training.propensity import logistic
from training.propensity.config import ModelConfig
from training.propensity.slices import Slices

PATIENCE = 50

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Boosted:
    """Trees as text, what they start from, their calibrator, and what was measured on the slices that chose them.

    start : the regression whose log-odds the trees correct; None: they start from the rate
    """

    text: str
    start: Regression | None
    calibrator: Calibrator
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class Learner:
    """Trees of one configuration, on rows of one encoding; ``n_levels`` of every feature, 0 for a number."""

    config: ModelConfig
    n_levels: Sequence[int]

    def start(self, rows: Floats, outcome: Bools) -> Regression | None:
        if self.config.start == "rate":
            return None
        return logistic.fit(rows, outcome, range(rows.shape[1]), self.n_levels)

    def boosted(self, rows: Floats, outcome: Bools, start: Regression | None, n_trees: int) -> lightgbm.Booster:
        return lightgbm.train(self.config.trees.of_outcomes(len(rows)), self._dataset(rows, outcome, start), n_trees)

    def stopped_early(self, rows: Floats, outcome: Bools, fitting: Bools, stopping: Bools) -> tuple[int, float]:
        """The number of trees, and the log loss with it on the slice that chose it."""
        start = self.start(rows[fitting], outcome[fitting])
        data = self._dataset(rows[fitting], outcome[fitting], start)
        booster = lightgbm.train(
            self.config.trees.of_outcomes(int(fitting.sum())),
            data,
            self.config.trees.n_trees,
            valid_sets=[self._dataset(rows[stopping], outcome[stopping], start, data)],
            valid_names=["stopping"],
            callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
        )
        return booster.best_iteration, float(booster.best_score["stopping"]["binary_logloss"])

    def held_out(self, rows: Floats, outcome: Bools, parts: Slices, n_trees: int) -> Floats:
        """Probabilities of the calibrating slice by trees fitted on all that had matured before it."""
        known, certain = rows[parts.before], outcome[parts.before]
        start = self.start(known, certain)
        booster = self.boosted(known, certain, start, n_trees)
        log_odds = booster.predict(rows[parts.calibrating], raw_score=True)
        return sigmoid(log_odds if start is None else log_odds + start.log_odds(rows[parts.calibrating]))

    def _dataset(
        self, rows: Floats, outcome: Bools, start: Regression | None, reference: lightgbm.Dataset | None = None
    ) -> lightgbm.Dataset:
        texts = [column for column, n_levels in enumerate(self.n_levels) if n_levels]
        from_ = None if start is None else start.log_odds(rows)
        return lightgbm.Dataset(rows, outcome, init_score=from_, reference=reference, categorical_feature=texts)


def fit(rows: Floats, outcome: Bools, parts: Slices, n_levels: Sequence[int], config: ModelConfig) -> Boosted:
    """Fit trees whose number and calibrator were chosen on later slices, then once more on everything.

    1. The number of trees is chosen on ``stopping``, with trees fitted on ``fitting``;
    2. the calibrator is chosen and fitted on ``calibrating``, with trees of that number fitted on ``before``;
    3. the trees are fitted again, in that number, on every row; the calibrator stays.

    Rows are neither resampled nor weighted, so probabilities keep their level.

    rows : float64, shape (n, n_features), NaN where a value is missing
    outcome : bool, shape (n,)
    n_levels : of every feature, 0 for a number
    """
    learner, held = Learner(config, n_levels), outcome[parts.calibrating]
    n_trees, stopping_loss = learner.stopped_early(rows, outcome, parts.fitting, parts.stopping)
    raw = learner.held_out(rows, outcome, parts, n_trees)
    calibrator = calibration.fit(config.calibrator, raw, held)
    start = learner.start(rows, outcome)
    return Boosted(
        text=learner.boosted(rows, outcome, start, n_trees).model_to_string(),
        start=start,
        calibrator=calibrator,
        metrics={
            "n_examples": len(outcome),
            "n_positives": int(outcome.sum()),
            "n_trees": n_trees,
            "stopping_log_loss": stopping_loss,
            "calibration_log_loss": calibration.cross_fitted(calibrator.kind, raw, held),
            "uncalibrated_log_loss": float(calibration.log_loss(raw, held).mean()),
        },
    )
