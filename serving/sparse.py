"""Demand of what sold too little, or nothing yet: from the little it sold, and from how its like sold when it was new.

A series' rate is gamma distributed around that of its group, and its units vary around its rate as those of others do,
at least as a Poisson's: the forecast is a negative binomial. A group's rate is drawn towards the wider group's, a
series counting in it for as much as its own past can be believed.
Source: Buehlmann and Straub, "Glaubwuerdigkeit fuer Schadensaetze", 1970; Gamma-Poisson: Gelman et al., "Bayesian Data
Analysis", 3rd ed., section 2.6.

Shapes: N series, of which A are asked for, L levels of groups, H horizon steps, Q quantiles.
"""

from collections.abc import Sequence

import numpy as np

from features.launches import Doubles, Launches
from features.panels import Floats, Ints
from serving.counts import count_quantiles

GROUP_STRENGTH = 3.0
"""Series that the wider group counts for in a group's rate."""
MOST_STRENGTH = 52.0
"""Periods that a group counts for in a series' rate, at most, and where series do not differ."""


def sparse_forecast(seen: Launches, horizon: int, quantiles: Sequence[float]) -> Floats:
    """The forecast of the series that are asked for, the same in every step.

    Returns float32, shape (A, H, 1 + Q), units: the mean, then the quantiles.
    """
    if not seen.asked.any():
        return np.zeros((0, horizon, 1 + len(quantiles)), np.float32)
    strength = _strength(seen)
    usual = _rates(seen, strength)[seen.asked]
    sold, periods = seen.sold[seen.asked], seen.periods[seen.asked]
    mean = (strength * usual + sold) / (strength + periods)
    dispersion = 1 + 1 / (strength + periods) + _variation(seen) * mean
    ahead = count_quantiles(mean[:, None], dispersion, np.array(quantiles), seen.whole[seen.asked])
    one = np.concatenate([mean[:, None, None], ahead], axis=2)
    return np.repeat(one, horizon, axis=1).astype(np.float32)


def _strength(seen: Launches) -> float:
    """Periods that a group counts for beside a series' own: its mean over the variance of rates, by moments."""
    sold, periods = seen.sold[seen.teaches], seen.periods[seen.teaches]
    mean = sold.sum() / max(periods.sum(), 1.0)
    excess = float(((sold - mean * periods) ** 2 - mean * periods).sum())
    if excess <= 0:
        return MOST_STRENGTH
    return float(np.clip(mean * (periods**2).sum() / excess, 1 / MOST_STRENGTH, MOST_STRENGTH))


def _variation(seen: Launches) -> float:
    """Squared variation of a series' own rate from period to period, beyond a Poisson's, by moments over all."""
    n = np.maximum(seen.periods, 1)
    mean, freedom = seen.sold / n, n - 1
    excess = float((seen.squares - n * mean**2 - freedom * mean).sum())
    return max(excess, 0.0) / max(float((freedom * mean**2).sum()), 1e-9)


def _rates(seen: Launches, strength: float) -> Doubles:
    """Units per period that a series' narrowest group promises, shape (N,)."""
    believed = np.where(seen.teaches, seen.periods / (seen.periods + strength), 0)
    own = believed * seen.sold / np.maximum(seen.periods, 1)
    rates = np.full(len(own), seen.sold[seen.teaches].sum() / max(seen.periods[seen.teaches].sum(), 1.0))
    for group in seen.groups.T:
        above, below = (_summed(values, group) for values in (own, believed))
        rates = (GROUP_STRENGTH * rates + above) / (GROUP_STRENGTH + below)
    return rates


def _summed(values: Doubles, group: Ints) -> Doubles:
    return np.bincount(group, values).astype(np.float64)[group]
