"""Metrics of probabilities against outcomes; rows of equal probability are one level, so ties are never broken.

Shapes: all arrays are float64 of shape (n_levels,), the most probable level first: ``probability`` strictly falling,
``positives`` rows with the outcome, ``totals`` all rows, which may be 0. A sample that lacks an outcome scores 0 where
the metric is not defined.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Metric = Callable[[Floats, Floats, Floats], float]

N_BINS = 15
_LEAST = 1e-15


def levels(probability: Floats) -> tuple[Floats, NDArray[np.intp]]:
    """The distinct probabilities, highest first, and the level of each row."""
    rising = np.unique(probability)
    return rising[::-1], len(rising) - 1 - np.searchsorted(rising, probability)


def counts(level_of: NDArray[np.intp], outcome: NDArray[np.bool_], n_levels: int) -> tuple[Floats, Floats]:
    """Positives and totals per level.

    >>> counts(np.array([0, 1, 1]), np.array([True, False, True]), 2)
    (array([1., 1.]), array([1., 2.]))
    """
    positives = np.bincount(level_of[outcome], minlength=n_levels)
    return positives.astype(np.float64), np.bincount(level_of, minlength=n_levels).astype(np.float64)


def log_loss(probability: Floats, positives: Floats, totals: Floats) -> float:
    """Mean negative log-likelihood, in nats."""
    hit, miss = np.log(np.maximum(probability, _LEAST)), np.log(np.maximum(1 - probability, _LEAST))
    return float(-(positives @ hit + (totals - positives) @ miss) / totals.sum())


def brier(probability: Floats, positives: Floats, totals: Floats) -> float:
    """Mean squared error of the probability (Brier, 1950)."""
    return float((positives @ (1 - probability) ** 2 + (totals - positives) @ probability**2) / totals.sum())


def auc(_: Floats, positives: Floats, totals: Floats) -> float:
    """Probability that a positive ranks above a negative, ties counting half (area under the ROC curve)."""
    negatives = totals - positives
    above = np.cumsum(positives) - positives / 2
    return float(above @ negatives / max(1.0, positives.sum() * negatives.sum()))


def pr_auc(_: Floats, positives: Floats, totals: Floats) -> float:
    """Average precision: precision at each level, weighted by the recall that it adds."""
    precision = np.cumsum(positives) / np.maximum(1.0, np.cumsum(totals))
    return float(precision @ positives / max(1.0, positives.sum()))


def predicted_over_observed(probability: Floats, positives: Floats, totals: Floats) -> float:
    """Positives expected over positives seen; above 1 the model promises too much."""
    return float(probability @ totals / max(1.0, positives.sum()))


def ece_15(probability: Floats, positives: Floats, totals: Floats) -> float:
    """Expected calibration error over 15 bins of equally many rows; a level is never divided (Naeini et al., 2015)."""
    middle = (np.cumsum(totals) - totals / 2) / totals.sum()
    error = np.bincount((middle * N_BINS).astype(np.intp), weights=probability * totals - positives)
    return float(np.abs(error).sum() / totals.sum())


def lift_at_10pct(_: Floats, positives: Floats, totals: Floats) -> float:
    """Rate of positives among the likeliest tenth over the rate of all; a level at the edge enters in part."""
    room = 0.1 * totals.sum() - (np.cumsum(totals) - totals)
    taken = np.clip(room / np.maximum(1.0, totals), 0, 1)
    return float(10 * (taken @ positives) / max(1.0, positives.sum()))


METRICS: dict[str, Metric] = {
    metric.__name__: metric for metric in (log_loss, pr_auc, brier, auc, predicted_over_observed, ece_15, lift_at_10pct)
}
