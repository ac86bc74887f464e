"""Gradient-boosted trees with log loss, from the rate of all or from a logistic regression."""

from collections.abc import Sequence
from dataclasses import dataclass

import lightgbm
import numpy as np
from numpy.typing import NDArray

from serving.regression import Regression
from serving.scales import Floats
from training.propensity import logistic
from training.propensity.config import ModelConfig

PATIENCE = 50

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Boosted:
    """Trees as text, how many, and the regression whose log-odds they correct; None: they start from the rate."""

    text: str
    n_trees: int
    start: Regression | None


@dataclass(frozen=True, slots=True)
class Learner:
    """Trees of one configuration, on rows of one encoding; ``n_levels`` of every feature, 0 for a number."""

    config: ModelConfig
    n_levels: Sequence[int]

    def fit(self, rows: Floats, outcome: Bools, n_trees: int) -> Boosted:
        start = self._start(rows, outcome)
        data = self._dataset(rows, outcome, start)
        trees = lightgbm.train(self.config.trees.of_outcomes(len(rows)), data, n_trees)
        return Boosted(trees.model_to_string(), n_trees, start)

    def stopped_early(self, rows: Floats, outcome: Bools, fitting: Bools, stopping: Bools) -> Boosted:
        """Trees in the number that did best on a slice on which they were not fitted."""
        start = self._start(rows[fitting], outcome[fitting])
        data = self._dataset(rows[fitting], outcome[fitting], start)
        trees = lightgbm.train(
            self.config.trees.of_outcomes(int(fitting.sum())),
            data,
            self.config.trees.n_trees,
            valid_sets=[self._dataset(rows[stopping], outcome[stopping], start, data)],
            valid_names=["stopping"],
            callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
        )
        return Boosted(trees.model_to_string(), trees.best_iteration, start)

    def _start(self, rows: Floats, outcome: Bools) -> Regression | None:
        if self.config.start == "rate":
            return None
        return logistic.fit(rows, outcome, range(rows.shape[1]), self.n_levels)

    def _dataset(
        self, rows: Floats, outcome: Bools, start: Regression | None, reference: lightgbm.Dataset | None = None
    ) -> lightgbm.Dataset:
        texts = [column for column, n_levels in enumerate(self.n_levels) if n_levels]
        from_ = None if start is None else start.log_odds(rows)
        return lightgbm.Dataset(rows, outcome, init_score=from_, reference=reference, categorical_feature=texts)
