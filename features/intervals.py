"""95 % intervals in closed form."""

from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

Z_95 = NormalDist().inv_cdf(0.975)


def wilson(k: NDArray[Any], n: NDArray[Any]) -> tuple[Floats, Floats]:
    """The interval of a share k / n, shape (n_shares,) each; NaN where n is 0.

    Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 1927.

    >>> [round(float(bound[0]), 4) for bound in wilson(np.array([1]), np.array([10]))]
    [0.0179, 0.4042]
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        share = k / n
        middle = share + Z_95**2 / (2 * n)
        half = Z_95 * np.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n**2))
        low, high = (middle - half) / (1 + Z_95**2 / n), (middle + half) / (1 + Z_95**2 / n)
    return np.maximum(low, 0.0), np.minimum(high, 1.0)  # rounding may lead beyond


def of_logarithm(value: Floats, variance: Floats) -> tuple[Floats, Floats]:
    """The interval of a positive number whose logarithm is normal with this variance, shape (n,) each; else NaN.

    >>> [round(float(bound[0]), 2) for bound in of_logarithm(np.array([100.0]), np.array([0.01]))]
    [82.2, 121.65]
    """
    spread = np.exp(Z_95 * np.sqrt(np.where((value > 0) & (variance > 0), variance, np.nan)))
    return value / spread, value * spread
