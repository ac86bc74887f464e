"""Fits logistic regressions: rules of thumb that trees must beat, and what trees may start from."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from serving.calibration import sigmoid
from serving.regression import Regression
from serving.scales import Floats, Scales, spread

PENALTY = 1.0
"""Weight of the squared coefficients, in examples."""
LEAST_SPREAD = 1e-9
"""A smaller standard deviation, beside the mean, is rounding."""


def fit(rows: Floats, outcome: NDArray[np.bool_], columns: Sequence[int], n_levels: Sequence[int]) -> Regression:
    """Maximum likelihood with a small ridge penalty.

    rows : float64, shape (n, n_features), NaN where a value is missing
    columns : those to use
    n_levels : of every feature, 0 for a number
    """
    texts = [column for column in columns if n_levels[column]]
    scales = fitted_scales(rows, [column for column in columns if not n_levels[column]])
    blank = Regression(scales, np.array(texts, int), np.array([n_levels[text] for text in texts], int), np.zeros(0))
    functions = blank.functions(rows)

    def loss_and_gradient(coefficients: Floats) -> tuple[float, Floats]:
        z = functions @ coefficients
        penalised = np.r_[0.0, coefficients[1:]]
        loss = np.logaddexp(0, np.where(outcome, -z, z)).sum() + 0.5 * PENALTY * penalised @ penalised
        return float(loss) / len(z), (functions.T @ (sigmoid(z) - outcome) + PENALTY * penalised) / len(z)

    found = minimize(loss_and_gradient, np.zeros(functions.shape[1]), jac=True, method="L-BFGS-B")
    return Regression(scales, blank.texts, blank.n_levels, found.x)


def fitted_scales(rows: Floats, columns: Sequence[int]) -> Scales:
    """The centre and spread of numbers, a missing one standing at the median."""
    numbers = rows[:, columns]
    known = np.isfinite(numbers)
    fill = np.array(
        [np.median(each[which]) if which.any() else 0.0 for each, which in zip(numbers.T, known.T, strict=True)]
    )
    told = spread(np.where(known, numbers, fill))
    centre, spreads = told.mean(axis=0), told.std(axis=0)
    varies = spreads > LEAST_SPREAD * np.maximum(1.0, np.abs(centre))
    return Scales(np.array(columns, int), fill, centre, np.where(varies, spreads, 1.0))
