"""Fits logistic regressions: rules of thumb that trees must beat, and what trees may start from."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from serving.calibration import sigmoid
from serving.regression import Regression
from serving.scales import Floats
from training.scales import fitted_scales

PENALTY = 1.0
"""Weight of the squared coefficients, in examples."""


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
