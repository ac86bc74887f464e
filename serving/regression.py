"""Logistic regression on a matrix of numbers and texts' places."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.artifact import Artifact, Draft
from serving.calibration import sigmoid

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Regression:
    """A logistic regression on columns of a matrix, on logarithms of what is spread widely.

    A number stands as its distance from the centre on a logarithmic scale and as whether it is missing, a text as which
    of its levels it is.

    columns : int64, shape (n_columns,)
    n_levels : int64, shape (n_columns,)   0 for a number, else how many levels the column's text has
    fill, centre, scale : float64, shape (n_columns,)   of numbers
    coefficients : float64, shape (1 + n_functions,)   the first is the intercept
    """

    columns: NDArray[np.int64]
    n_levels: NDArray[np.int64]
    fill: Floats
    centre: Floats
    scale: Floats
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
        widths = np.where(self.n_levels == 0, 2, self.n_levels)
        column_of = np.repeat(self.columns, widths)
        added = np.zeros(rows.shape)
        np.add.at(added.T, column_of, (self.functions(rows) * self.coefficients).T[1:])
        return added

    def functions(self, rows: Floats) -> Floats:
        """What the coefficients weight, float64, shape (n, 1 + n_functions)."""
        parts = [np.ones((len(rows), 1))]
        for number, (column, n_levels) in enumerate(zip(self.columns, self.n_levels, strict=True)):
            values = rows[:, column]
            parts.append(values[:, None] == np.arange(n_levels) if n_levels else self._number(values, number))
        return np.concatenate(parts, axis=1, dtype=np.float64)

    def _number(self, values: Floats, number: int) -> Floats:
        missing = np.isnan(values)
        told = spread(np.where(missing, self.fill[number], values))
        return np.column_stack([(told - self.centre[number]) / self.scale[number], missing])

    def save(self, draft: Draft, name: str) -> None:
        for field in self.__slots__:
            draft.array(f"{name}.{field}", getattr(self, field))

    @classmethod
    def load(cls, artifact: Artifact, name: str) -> "Regression":
        return cls(*(artifact.array(f"{name}.{field}") for field in cls.__slots__))


def spread(values: Floats) -> Floats:
    """``sign(x) ln(1 + |x|)``: counts, money and days on one scale."""
    return np.asarray(np.sign(values) * np.log1p(np.abs(values)))
