"""Logistic regression on a matrix of numbers and texts' places."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.artifact import Artifact, Draft
from serving.calibration import sigmoid
from serving.scales import Floats, Scales


@dataclass(frozen=True, slots=True)
class Regression:
    """A logistic regression on columns of a matrix: numbers as ``Scales`` has them, texts as which level they are.

    texts : int64, shape (n_texts,)   columns of texts
    n_levels : int64, shape (n_texts,)   how many levels each has
    coefficients : float64, shape (1 + n_functions,)   the first is the intercept
    """

    scales: Scales
    texts: NDArray[np.int64]
    n_levels: NDArray[np.int64]
    coefficients: Floats

    def log_odds(self, rows: Floats) -> Floats:
        """float64, shape (n,).

        rows : float64, shape (n, n_features), NaN where a value is missing
        """
        return np.asarray(self.functions(rows) @ self.coefficients)

    def probabilities(self, rows: Floats) -> Floats:
        return sigmoid(self.log_odds(rows))

    def contributions(self, rows: Floats) -> Floats:
        """What each feature adds to the log-odds, but for the intercept; float64, shape (n, n_features)."""
        column_of = np.concatenate([np.repeat(self.scales.columns, 2), np.repeat(self.texts, self.n_levels)])
        added = np.zeros(rows.shape)
        np.add.at(added.T, column_of, (self.functions(rows) * self.coefficients).T[1:])
        return added

    def functions(self, rows: Floats) -> Floats:
        """What the coefficients weight, float64, shape (n, 1 + n_functions)."""
        levels = (rows[:, [text]] == np.arange(n) for text, n in zip(self.texts, self.n_levels, strict=True))
        return np.concatenate([np.ones((len(rows), 1)), self.scales(rows), *levels], axis=1, dtype=np.float64)

    def save(self, draft: Draft, name: str) -> None:
        self.scales.save(draft, f"{name}.scales")
        for field in ("texts", "n_levels", "coefficients"):
            draft.array(f"{name}.{field}", getattr(self, field))

    @classmethod
    def load(cls, artifact: Artifact, name: str) -> "Regression":
        arrays = (artifact.array(f"{name}.{field}") for field in ("texts", "n_levels", "coefficients"))
        return cls(Scales.load(artifact, f"{name}.scales"), *arrays)
