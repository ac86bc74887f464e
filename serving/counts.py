"""The demand of slow sellers as counts: a negative binomial around a rate that forgets, drawn towards its class's.

Shapes: S series, P past periods, H horizon steps, Q quantiles. ``demand`` is floating, [S, P], units, >= 0; NaN is a
period whose demand nobody knows.
"""

from collections.abc import Iterator
from itertools import count
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from serving.smoothing import Floats, Smoothed, best, flat, ratio

_TINY = 1e-9
_MANY = 200.0
_DECAYS = (0.8, 0.84, 0.88, 0.92, 0.96, 0.98, 0.99, 1.0)


def shrunken_rate(
    demand: Floats, horizon: int, classes: NDArray[np.integer], decay: float | Floats, strength: float = 2.0
) -> Smoothed:
    """Rate of slow sellers: what was sold of late, and ``strength`` periods at the rate of the class.

    ``(strength * class_rate + sum w y) / (strength + sum w)`` with weights ``w`` that fall by ``decay`` per known
    period: the mean of a Gamma-Poisson posterior whose past is discounted. A class without sales has rate 0.

    classes : [S], numbers from 0
    decay : in (0, 1], of all series or [S]
    strength : periods, > 0
    Source: Harvey and Fernandes, "Time series models for count or qualitative observations", JBES 1989.
    """
    return flat(demand, _shrunken(demand, classes, decay, strength), horizon)


def slow_quantiles(demand: Floats, horizon: int, quantiles: Floats, classes: NDArray[np.integer]) -> Floats:
    """Quantiles ahead of slow sellers: a negative binomial around ``shrunken_rate``.

    Of each class, the decay is the one of least squared one-step-ahead error.

    quantiles : [Q], ascending, in (0, 1)
    classes : [S], numbers from 0
    Returns float64, shape [S, H, Q], units, >= 0, ascending; whole numbers where all that is known of a series is.
    """
    errors = np.stack([shrunken_rate(demand, 1, classes, decay).squared_error for decay in _DECAYS])
    rate = shrunken_rate(demand, horizon, classes, np.array(_DECAYS)[best(errors, classes)])
    whole = (np.isnan(demand) | (demand == np.round(demand))).all(axis=1)
    return count_quantiles(rate.ahead, dispersion(demand, rate.squared_error, classes), quantiles, whole)


def dispersion(demand: Floats, squared_error: Floats, classes: NDArray[np.integer], strength: float = 10.0) -> Floats:
    """Variance of demand around a forecast, over its mean, [S], units, > 0: the series' own, shrunk to its class's.

    squared_error : [S], of the method whose mean is used
    classes : [S], numbers from 0
    strength : units sold that the class weighs
    """
    sold = np.nansum(demand, axis=1, dtype=float)
    squares = squared_error * (~np.isnan(demand)).sum(axis=1)
    usual = np.nan_to_num(_per_class(squares, sold, classes))
    shrunk: Floats = (squares + strength * usual) / (sold + strength)
    return np.maximum(shrunk, _TINY)


def count_quantiles(mean: Floats, dispersion: Floats, quantiles: Floats, whole: NDArray[np.bool_]) -> Floats:
    """Quantiles of a negative binomial of a given mean and variance over mean; Poisson where that is 1 or less.

    Demand in fractions, or of more than 200 units, is a count of portions of half the dispersion, spread evenly between
    the counts; beyond 200 portions it is gamma distributed with the same moments (Wilson and Hilferty, PNAS 1931).

    mean : [S, H], units, >= 0
    dispersion : [S], units, > 0
    quantiles : [Q], ascending, in (0, 1)
    whole : [S], whether a series sells in whole units
    Returns float64, shape [S, H, Q], units, >= 0, ascending; whole numbers where demand is.

    >>> count_quantiles(np.array([[0.5]]), np.array([2.0]), np.array([0.5, 0.9, 0.99]), np.array([True])).tolist()
    [[[0.0, 2.0, 5.0]]]
    """
    counted = whole & (mean.max(axis=1) <= _MANY)
    unit = np.where(counted, 1.0, dispersion / 2)
    means = (mean / unit[:, None]).ravel()
    ratios, counts = (np.repeat(values, mean.shape[1]) for values in (np.maximum(dispersion / unit, 1), counted))
    many = means > _MANY
    found = np.empty((len(means), len(quantiles)))
    found[many] = _gamma_quantiles(means[many], ratios[many], quantiles)
    found[~many] = _lattice_quantiles(means[~many], ratios[~many], quantiles, counts[~many])
    units = found.reshape(*mean.shape, -1) * unit[:, None, None]
    return np.where(whole[:, None, None], np.round(units), units)


def _shrunken(demand: Floats, classes: NDArray[np.integer], decay: float | Floats, strength: float) -> Iterator[Floats]:
    sold, counted = np.zeros(len(demand)), np.zeros(len(demand))
    for units in demand.T:
        yield (strength * _per_class(sold, counted, classes) + sold) / (strength + counted)
        known = ~np.isnan(units)
        sold = np.where(known, decay * sold + units, sold)
        counted = np.where(known, decay * counted + 1, counted)
    yield (strength * _per_class(sold, counted, classes) + sold) / (strength + counted)


def _per_class(above: Floats, below: Floats, classes: NDArray[np.integer]) -> Floats:
    """The ratio of the sums over each series' class, [S]; NaN where there is nothing below."""
    ratios: Floats = ratio(np.bincount(classes, above), np.bincount(classes, below))
    return np.take(ratios, classes)


def _gamma_quantiles(mean: Floats, ratio: Floats, quantiles: Floats) -> Floats:
    shape = (mean / ratio)[:, None]
    normal = np.array([NormalDist().inv_cdf(quantile) for quantile in quantiles])
    root: Floats = 1 - 1 / (9 * shape) + normal / (3 * np.sqrt(shape))
    units: Floats = mean[:, None] * np.maximum(root, 0) ** 3
    return units


def _lattice_quantiles(mean: Floats, ratio: Floats, quantiles: Floats, whole: NDArray[np.bool_]) -> Floats:
    """Quantiles by adding up the chances of 0, 1, 2 ... units, for the rows that have not reached the last quantile."""
    found = np.zeros((len(mean), len(quantiles)))
    rows, below = np.arange(len(mean)), np.zeros(len(mean))
    excess = np.maximum(ratio - 1, _TINY)
    chance = np.exp(-mean * np.log1p(excess) / excess)
    for units in count():
        reached = below + chance
        row, column = np.nonzero((below[:, None] < quantiles) & (quantiles <= reached[:, None]))
        within = (quantiles[column] - below[row]) / chance[row] - 0.5
        found[rows[row], column] = units + np.where(whole[rows[row]] | (units == 0), 0, within)
        left = reached < quantiles[-1]
        if not left.any():
            break
        rows, below, mean, excess, chance = (values[left] for values in (rows, reached, mean, excess, chance))
        chance = chance * (mean + units * excess) / ((units + 1) * (1 + excess))
    return found
