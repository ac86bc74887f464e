"""Demand from price and promotion: a log-log regression of every series, drawn towards its item's and its category's.

``log demand = a + b x`` within each series, ``x`` the regressors of ``_regressors``. A category's ``b`` is that of its
series pooled; an item's is drawn towards its category's, and a series' towards its item's, by a ridge: a series whose
own past says little reacts as its kind does. Recent periods weigh more.

Shapes: S series, T periods learned from, H horizon steps, K regressors.
Source: Montgomery, "Creating micro-marketing pricing strategies using supermarket scanner data", Marketing Science,
1997.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.known import Known, latest, summed
from features.panels import Floats, Ints
from features.periods import DAYS
from features.price_features import mean_of_rivals

PERIODS = 160
"""The latest periods that are learned from."""
LEAST = np.float32(0.1)
"""Share of its level below which demand does not fall."""
_WEEKLY_DECAY = 0.985
_RIDGE = 40.0
_PRICE_RIDGE = 2.0
"""Logarithms of prices vary by tenths, promotions by one: the same doubt about either's effect."""
_SERIES_AT_ONCE = 4096

Doubles = NDArray[np.float64]


class _Moments(NamedTuple):
    """Of each series over its periods, weighted: mean_y [S], mean_x [S, K], and around them xx [S, K, K], xy [S, K]."""

    mean_y: Doubles
    mean_x: Doubles
    xx: Doubles
    xy: Doubles


def price_response(known: Known) -> Floats:
    """Units of each series and step at the prices and promotions planned.

    A forecast lies between ``LEAST`` of the level and twice the highest period learned from; it is the level where the
    target's price is unknown, or every price before it.

    Returns float32, shape (S, H), units, > 0.
    """
    horizon = known.panel.horizon
    demand = np.maximum(latest(known.relative, PERIODS), LEAST)
    regressors, penalty = _regressors(known)
    x_past, x_ahead = regressors[:, :-horizon], regressors[:, -horizon:]
    moments = _moments(np.log(demand), x_past, latest(known.exposure, PERIODS) * _recency(demand.shape[1], known))
    slopes = _slopes(moments, penalty, known)
    off_mean = np.nan_to_num(x_ahead - moments.mean_x[:, None])
    relative = np.exp(moments.mean_y[:, None] + np.einsum("shk,sk->sh", off_mean, slopes))
    highest = 2 * np.nanmax(demand, axis=1, initial=1.0, keepdims=True)
    told = ~np.isnan(x_ahead[:, :, 0]) & ~np.isnan(x_past[:, :, 0]).all(axis=1, keepdims=True)
    return np.where(told, np.clip(relative, LEAST, highest), 1).astype(np.float32) * known.level


def _regressors(known: Known) -> tuple[Floats, Doubles]:
    """What demand is told from, shape (S, T + H, K), the own price first, and the penalty on each one's slope [K]."""
    offers = known.panel.offers
    price, mailer, display = known.log_price, offers["mailer"], offers["display"]
    prices = [price, _a_period_earlier(price), mean_of_rivals(price, known)]
    promotions = [mailer, display, mailer * display, *(mean_of_rivals(each, known) for each in (mailer, display))]
    window = slice(max(0, known.origin - PERIODS), known.ahead.stop)
    values = np.stack([each[:, window] for each in (*prices, *promotions)], axis=-1)
    return values, np.array([_PRICE_RIDGE] * len(prices) + [_RIDGE] * len(promotions))


def _a_period_earlier(values: Floats) -> Floats:
    return np.concatenate([np.full_like(values[:, :1], np.nan), values[:, :-1]], axis=1)


def _recency(n: int, known: Known) -> Floats:
    """Weight of each of the latest ``n`` periods."""
    decay = _WEEKLY_DECAY ** (DAYS[known.panel.frequency] / 7)
    return np.asarray(decay ** np.arange(n, 0, -1), np.float32)


def _moments(y: Floats, x: Floats, weight: Floats) -> _Moments:
    parts = [slice(i, i + _SERIES_AT_ONCE) for i in range(0, len(y), _SERIES_AT_ONCE)]
    moments = [_moments_of(y[part], x[part], weight[part]) for part in parts]
    return _Moments(*(np.concatenate(each).astype(np.float64) for each in zip(*moments, strict=True)))


def _moments_of(y: Floats, x: Floats, weight: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """What is unknown of ``y`` weighs nothing, of ``x`` it stands at its mean."""
    weight = np.where(np.isnan(y), np.float32(0), weight)
    mean_y, mean_x = _weighted_mean(y[:, :, None], weight), _weighted_mean(x, weight)
    off_y, off_x = np.nan_to_num(y - mean_y), np.nan_to_num(x - mean_x[:, None])
    weighted = (off_x * weight[:, :, None]).transpose(0, 2, 1)
    return mean_y[:, 0], mean_x, weighted @ off_x, (weighted @ off_y[:, :, None])[:, :, 0]


def _weighted_mean(values: Floats, weight: Floats) -> Floats:
    """Mean over periods, shape (S, K), of what is known; 0 where nothing is."""
    there = ~np.isnan(values) * weight[:, :, None]
    mean: Floats = (np.nan_to_num(values) * there).sum(axis=1) / np.maximum(there.sum(axis=1), np.float32(1e-9))
    return mean


def _slopes(moments: _Moments, penalty: Doubles, known: Known) -> Doubles:
    """The slopes of every series, shape (S, K): those of its category, then what its item and it itself differ by."""
    slopes = np.zeros_like(moments.xy)
    for group in (known.panel.category, known.item):
        slopes += _differences(moments, slopes, penalty, group, known.held)[group]
    return slopes + _solved(moments.xx, _unexplained(moments, slopes), penalty)


def _differences(moments: _Moments, slopes: Doubles, penalty: Doubles, group: Ints, held: Floats) -> Doubles:
    n_regressors = len(penalty)
    xx = summed(moments.xx.reshape(-1, n_regressors**2) * held, group).reshape(-1, n_regressors, n_regressors)
    return _solved(xx, summed(_unexplained(moments, slopes) * held, group), penalty)


def _unexplained(moments: _Moments, slopes: Doubles) -> Doubles:
    explained: Doubles = np.einsum("skl,sl->sk", moments.xx, slopes)
    return moments.xy - explained


def _solved(xx: Floats | Doubles, xy: Floats | Doubles, penalty: Doubles) -> Doubles:
    return np.asarray(np.linalg.solve(xx + np.diag(penalty), xy[:, :, None])[:, :, 0], np.float64)
