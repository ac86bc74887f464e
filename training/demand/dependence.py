"""How the errors of forecasts on held-out periods hang together."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.demand_classes import Classes
from features.panels import Floats
from serving.paths import Dependence, scores_of


class HeldOut(NamedTuple):
    """A forecast beside what came: units [n, H, 1 + Q], demand [n, H], NaN where unknown, origin and pattern [n]."""

    units: Floats
    actual: Floats
    origin: NDArray[np.int64]
    pattern: Classes


def dependence(held_out: HeldOut, quantiles: Sequence[float], seed: int) -> Dependence:
    """How normal scores of errors hang together: over the steps of a series, and over the series of an origin."""
    scores = scores_of(held_out.actual, held_out.units[:, :, 1:], quantiles, np.random.default_rng(seed))
    factor = np.linalg.cholesky(_correlation(scores))
    return Dependence(np.asarray(factor, np.float64), _common(scores, held_out.origin))


def _correlation(scores: Floats) -> NDArray[np.float64]:
    """Correlation of steps over rows, from the pairs that are known; made positive definite by its eigenvalues."""
    there = ~np.isnan(scores)
    mean = np.nansum(scores, axis=0) / np.maximum(there.sum(axis=0), 1)
    values = np.where(there, scores - mean, 0).astype(np.float64)
    n_pairs = there.T.astype(np.float64) @ there
    covariance = values.T @ values / np.maximum(n_pairs, 1)
    deviation = np.sqrt(np.maximum(np.diag(covariance), 1e-12))
    shrunk = 0.99 * covariance / np.outer(deviation, deviation) + 0.01 * np.eye(len(covariance))
    values_of, vectors = np.linalg.eigh(shrunk)
    positive = (vectors * np.maximum(values_of, 1e-6)) @ vectors.T
    scale = np.sqrt(np.diag(positive))
    return np.asarray(positive / np.outer(scale, scale))


def _common(scores: Floats, origin: NDArray[np.int64]) -> float:
    """Mean correlation of two series at the same origin and step, at least 0: pairs are counted, not listed."""
    pairs = products = 0.0
    for each in np.unique(origin):
        at = scores[origin == each]
        there = ~np.isnan(at)
        sums, squares, n = np.nansum(at, axis=0), np.nansum(at**2, axis=0), there.sum(axis=0)
        products += float((sums**2 - squares).sum())
        pairs += float((n * (n - 1)).sum())
    return float(np.clip(products / pairs, 0, 0.9)) if pairs else 0.0
