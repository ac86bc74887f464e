"""Sample paths of demand: quantiles per step become futures that can be summed over days, items and places.

A Gaussian copula ties the steps of a series and the series of a shop together; every step keeps its own quantiles.
Source: Nelsen, "An Introduction to Copulas", 2006, chapter 2 (Sklar); as forecasts' post-processing: Pinson et al.,
"From probabilistic forecasts to statistical scenarios", Wind Energy 2009.

Shapes: S series, N paths, H steps, Q quantiles.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Dependence:
    """How the normal scores of forecast errors hang together.

    steps : float array, shape (H, H), lower Cholesky factor of the correlation between steps of one series
    common : share of their variance, 0 to 1, that all series have in common
    """

    steps: NDArray[np.float64]
    common: float

    @classmethod
    def none(cls, n_steps: int) -> "Dependence":
        return cls(np.eye(n_steps), 0.0)

    def scores(self, n_series: int, n_paths: int, seed: int) -> Floats:
        """Normal scores, float32, shape (S, N, H)."""
        rng, shape = np.random.default_rng(seed), (n_paths, len(self.steps))
        shared = rng.standard_normal(shape, np.float32)
        own = rng.standard_normal((n_series, *shape), np.float32)
        mixed = np.sqrt(self.common) * shared + np.sqrt(1 - self.common) * own
        return np.asarray(mixed @ self.steps.T, np.float32)


def normal_scores(quantiles: Sequence[float]) -> Floats:
    """The standard normal's quantiles, float32, shape (Q,)."""
    return np.array([NormalDist().inv_cdf(quantile) for quantile in quantiles], np.float32)


def paths(units: Floats, quantiles: Sequence[float], scores: Floats) -> Floats:
    """Units on every path: the quantile that each normal score asks for.

    Between the forecast's quantiles units run linearly in the normal score, beyond the outer ones with the slope of the
    last piece, never below zero.

    units : float32, shape (S, H, Q), ascending over Q, units
    quantiles : the Q levels, ascending
    scores : float32, shape (S, N, H)
    Returns float32, shape (S, N, H), units.

    >>> paths(np.float32([[[1, 2, 4]]]), (0.1, 0.5, 0.9), np.float32([[[0.0], [1.2815515]]]))[0, :, 0]
    array([2., 4.], dtype=float32)
    """
    knots = normal_scores(quantiles)
    slopes = np.diff(units, axis=-1) / np.diff(knots)
    found: Floats = units[:, None, :, 0] + slopes[:, None, :, 0] * np.minimum(scores - knots[0], 0)
    for piece in range(len(knots) - 1):
        longest = np.inf if piece == len(knots) - 2 else knots[piece + 1] - knots[piece]
        found += slopes[:, None, :, piece] * np.clip(scores - knots[piece], 0, longest)
    np.maximum(found, 0, out=found)
    return found


def scores_of(actual: Floats, units: Floats, quantiles: Sequence[float], rng: np.random.Generator) -> Floats:
    """The normal score at which a forecast has the actual units; where many scores share them, one drawn among those.

    actual : float32, shape (S, H); NaN gives NaN
    units : float32, shape (S, H, Q), ascending over Q
    Returns float32, shape (S, H), within three standard deviations; what lies beyond quantiles that are tied at their
    end, which no score has, lies at three.
    """
    knots = normal_scores(quantiles)
    low, high = ((_crossed(actual, units, knots, side)) for side in ("left", "right"))
    drawn: Floats = low + (high - low) * rng.random(actual.shape, np.float32)
    return drawn


def _crossed(actual: Floats, units: Floats, knots: Floats, side: str) -> Floats:
    """Where a forecast's line over the normal scores first ("left") or last ("right") has the actual units."""
    below = (units < actual[..., None]) if side == "left" else (units <= actual[..., None])
    piece = np.clip(below.sum(axis=-1) - 1, 0, len(knots) - 2)
    start, end = (np.take_along_axis(units, (piece + k)[..., None], axis=-1)[..., 0] for k in (0, 1))
    width = knots[piece + 1] - knots[piece]
    share = np.full(actual.shape, float(side == "right"))
    np.divide(actual - start, end - start, out=share, where=end > start, dtype=np.float64)
    found = np.clip(knots[piece] + share * width, -3, 3)
    found = np.where((end <= start) & (actual != end), 3 * np.sign(actual - end), found)
    at_zero = (actual <= 0) & (side == "left")
    return np.where(np.isnan(actual), np.nan, np.where(at_zero, -3, found)).astype(np.float32)
