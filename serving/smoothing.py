"""Statistical forecasts of all series at once: loops run over time, never over series.

Shapes: S series, P past periods, H horizon steps, M periods of a season, K parameters, G candidates, Q quantiles.
``demand`` is floating, [S, P], units, >= 0. NaN is a period whose demand nobody knows: it is stepped over, and nothing
is learned from it; intervals between sales count known periods only.

A method's ``parameters`` are floating, [K, S], one column per series, or [K, G, 1], every candidate for all series.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

OPENING = 10
"""Known periods whose mean a level starts from."""
_BLOCK = 2048
_TINY = 1e-9


class Smoothed(NamedTuple):
    """What a method says after a past, and how well it did within it.

    ahead : [..., S, H], units, >= 0; the mean of each period
    squared_error : [..., S], units squared; mean over the known periods, each forecast from those before it and what
        a method starts from: the mean of the opening, the season of the whole past
    """

    ahead: Floats
    squared_error: Floats


Method = Callable[[Floats, int, int, Floats], Smoothed]
"""``(demand, horizon, season_length, parameters)``; the leading axes of what is returned are those of a parameter."""


def simple(demand: Floats, horizon: int, _season_length: int, parameters: Floats) -> Smoothed:
    """Simple exponential smoothing; parameters ``(alpha,)``."""
    (alpha,) = parameters
    return flat(demand, _levels(demand, alpha), horizon)


def croston_sba(demand: Floats, horizon: int, _season_length: int, parameters: Floats) -> Smoothed:
    """Croston's size of a sale over the interval between sales, corrected for its bias; parameters ``(alpha,)``.

    ``(1 - alpha / 2) * size / interval``, both smoothed at sales only.
    Source: Syntetos and Boylan, "The accuracy of intermittent demand estimates", IJF 2005.
    """
    (alpha,) = parameters
    sizes, intervals = (_levels(values, alpha) for values in (_sizes(demand), _intervals(demand)))
    rates = ((1 - alpha / 2) * size / np.maximum(interval, 1) for size, interval in zip(sizes, intervals, strict=True))
    return flat(demand, rates, horizon)


def tsb(demand: Floats, horizon: int, _season_length: int, parameters: Floats) -> Smoothed:
    """Probability of a sale, smoothed in every period, times the size of one; parameters ``(alpha, beta)``: size, sale.

    Source: Teunter, Syntetos, Babai, "Intermittent demand: linking forecasting to inventory obsolescence", EJOR 2011.
    """
    alpha, beta = parameters
    sizes, chances = _levels(_sizes(demand), alpha), _levels(_sold(demand), beta)
    return flat(demand, (size * chance for size, chance in zip(sizes, chances, strict=True)), horizon)


def latest_mean(demand: Floats, horizon: int, _season_length: int, parameters: Floats) -> Smoothed:
    """Mean of what is known of the latest periods; parameters ``(n_periods,)``. Where nothing is, of all the past."""
    (window,) = parameters.astype(np.intp)
    return flat(demand, _means(demand, window), horizon)


def seasonal_naive(demand: Floats, horizon: int, season_length: int, _parameters: Floats) -> Smoothed:
    """The last known value of the same period of the season, else the mean of the past; no parameters, [0, ...]."""
    latest = np.full((season_length, len(demand)), np.nan)
    errors = _Errors()
    for period, (units, mean) in enumerate(zip(demand.T, _means(demand, np.intp(demand.shape[1])), strict=False)):
        usual = latest[period % season_length]
        errors.add(units, np.where(np.isnan(usual), mean, usual))
        latest[period % season_length] = np.where(np.isnan(units), usual, units)
    ahead = np.where(np.isnan(latest), _mean(demand, 0.0), latest)[_seasons(demand, horizon, season_length)]
    return Smoothed(ahead.T, errors.mean())


def theta(demand: Floats, horizon: int, season_length: int, parameters: Floats) -> Smoothed:
    """Simple exponential smoothing with half the trend of a straight line, on deseasonalised demand; ``(alpha,)``.

    Source: Assimakopoulos and Nikolopoulos, "The theta model", IJF 2000, as simplified by Hyndman and Billah, IJF 2003.
    """
    (alpha,) = parameters
    season = season_indices(demand, season_length)
    periods = np.arange(demand.shape[1])
    adjusted = demand / season[:, periods % season_length]
    smoothed = flat(adjusted, _levels(adjusted, alpha), 1)
    n_known = (~np.isnan(demand)).sum(axis=1)
    lag = (1 - (1 - alpha) ** n_known) / alpha
    drift = (np.arange(horizon) + lag[..., None]) * _slope(adjusted)[:, None] / 2
    ahead = (smoothed.ahead + drift) * season[:, _seasons(demand, horizon, season_length)]
    return Smoothed(np.maximum(ahead, 0), smoothed.squared_error)


def holt(demand: Floats, horizon: int, _season_length: int, parameters: Floats) -> Smoothed:
    """Exponential smoothing with a damped trend; parameters ``(alpha, beta, damping)``, beta a share of alpha."""
    no_season = np.zeros_like(parameters[:1])
    return _exponential(demand, horizon, np.zeros((len(demand), 1)), np.concatenate([parameters, no_season]), _ADDED)


def holt_winters_additive(demand: Floats, horizon: int, season_length: int, parameters: Floats) -> Smoothed:
    """``holt`` with a season that is added; parameters ``(alpha, beta, damping, gamma)``, gamma of 1 - alpha."""
    season = season_indices(demand, season_length, additive=True)
    return _exponential(demand, horizon, season, parameters, _ADDED)


def holt_winters_multiplicative(demand: Floats, horizon: int, season_length: int, parameters: Floats) -> Smoothed:
    """``holt`` with a season that multiplies; parameters as for the additive one."""
    return _exponential(demand, horizon, season_indices(demand, season_length), parameters, _MULTIPLIED)


def _exponential(demand: Floats, horizon: int, season: Floats, parameters: Floats, kind: "_Kind") -> Smoothed:
    """ETS(A,Ad,A) or ETS(A,Ad,M) in error-correction form, from given indices [S, M] and the mean of the opening.

    Source: Hyndman, Koehler, Ord, Snyder, "Forecasting with Exponential Smoothing", 2008, table 2.2.
    """
    alpha, beta, damping, gamma = parameters
    n_seasons, indices = season.shape[1], list(season.T)
    level = _opening(kind.without(demand, season[:, np.arange(demand.shape[1]) % n_seasons]))
    trend = np.zeros_like(level)
    errors = _Errors()
    for period, units in enumerate(demand.T):
        index, base = indices[period % n_seasons], level + damping * trend
        expected = kind.joined(base, index)
        errors.add(units, np.maximum(expected, 0))
        error = np.where(np.isnan(units), 0, units - expected)
        level = base + alpha * kind.share(error, index)
        trend = damping * trend + alpha * beta * kind.share(error, index)
        moved = index + gamma * (1 - alpha) * kind.share(error, base)
        indices[period % n_seasons] = np.clip(moved, *kind.index_range)
    steps = np.stack([damping**step for step in range(1, horizon + 1)], axis=-1).cumsum(axis=-1)
    index_ahead = np.stack(np.broadcast_arrays(*indices), axis=-1)[..., _seasons(demand, horizon, n_seasons)]
    ahead = kind.joined(level[..., None] + steps * trend[..., None], index_ahead)
    return Smoothed(np.maximum(ahead, 0), errors.mean())


class _Kind(NamedTuple):
    """How a season's index acts: how it is joined to a base and removed, and the share of an error that each takes."""

    joined: Callable[[Floats, Floats], Floats]
    without: Callable[[Floats, Floats], Floats]
    share: Callable[[Floats, Floats], Floats]
    index_range: tuple[float, float]
    neutral: float


_ADDED = _Kind(np.add, np.subtract, lambda error, _: error, (-np.inf, np.inf), 0.0)
_MULTIPLIED = _Kind(np.multiply, np.divide, lambda error, other: error / np.maximum(other, _TINY), (0.2, 5.0), 1.0)


@dataclass(frozen=True, slots=True)
class Member:
    """A method and the candidates of its parameters.

    candidates : one tuple of values per parameter; every combination is tried
    """

    method: Method
    candidates: tuple[tuple[float, ...], ...]

    def choose(self, demand: Floats, season_length: int, groups: NDArray[np.integer] | None = None) -> Floats:
        """Parameters of least squared one-step-ahead error, [K, S], per series or shared by the series of a group.

        groups : [S], numbers from 0; a series counts in its group by its error over that of its first candidate
        """
        grid = np.array(list(product(*self.candidates)), float).T[:, :, None]
        blocks = (demand[first : first + _BLOCK] for first in range(0, len(demand), _BLOCK))
        errors = [np.atleast_2d(self.method(block, 1, season_length, grid).squared_error) for block in blocks]
        return grid[:, best(np.concatenate(errors, axis=1), groups), 0]

    def forecast(
        self, demand: Floats, horizon: int, season_length: int = 1, parameters: Floats | None = None
    ) -> Floats:
        """The mean ahead, [S, H], units, >= 0; parameters [K, S], None: chosen per series."""
        if parameters is None:
            parameters = self.choose(demand, season_length)
        return self.method(demand, horizon, season_length, parameters).ahead


def best(errors: Floats, groups: NDArray[np.integer] | None) -> NDArray[np.intp]:
    """Number of the candidate with the least error, [S], of errors [G, S]."""
    if groups is None:
        own: NDArray[np.intp] = errors.argmin(axis=0)
        return own
    relative = errors / np.maximum(errors[0], _TINY)
    totals = np.stack([np.bincount(groups, candidate) for candidate in relative])
    shared: NDArray[np.intp] = totals.argmin(axis=0)[groups]
    return shared


_ALPHAS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.8)
_SLOW_ALPHAS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
_HOLT = ((0.05, 0.1, 0.2, 0.4, 0.7), (0.0, 0.02), (0.9, 0.98))
_GAMMAS = (0.0, 0.2, 0.5, 0.8)

MEMBERS: Mapping[str, Member] = {
    "simple": Member(simple, (_ALPHAS,)),
    "holt": Member(holt, _HOLT),
    "holt_winters_additive": Member(holt_winters_additive, (*_HOLT, _GAMMAS)),
    "holt_winters_multiplicative": Member(holt_winters_multiplicative, (*_HOLT, _GAMMAS)),
    "theta": Member(theta, (_ALPHAS,)),
    "croston_sba": Member(croston_sba, (_SLOW_ALPHAS,)),
    "tsb": Member(tsb, (_SLOW_ALPHAS, _SLOW_ALPHAS)),
    "seasonal_naive": Member(seasonal_naive, ()),
    "latest_mean": Member(latest_mean, ((4, 8, 13, 26, 52),)),
}


def around(
    point: Floats,
    errors: Floats,
    quantiles: Floats,
    classes: NDArray[np.generic] | None = None,
    error_classes: NDArray[np.generic] | None = None,
) -> Floats:
    """Empirical quantiles of errors around a point forecast.

    point : [S, H], units
    errors : truth - forecast, units, NaN where unknown: [N, H], pooled, or [S, N, H], each series' own
    quantiles : [Q], ascending, in (0, 1)
    classes, error_classes : [S] and [N]; pooled errors are a series' only if of its class. None, or a class without
        errors: all are
    Returns float64, shape [S, H, Q], units, >= 0, ascending.

    >>> around(np.array([[5.0]]), np.array([[-1.0], [0.0], [9.0]]), np.array([0.5, 1.0]))
    array([[[ 5., 14.]]])
    """
    offsets = _quantiles(np.swapaxes(errors, -1, -2), quantiles)
    if classes is not None and error_classes is not None:
        own = {name: errors[error_classes == name] for name in np.unique(error_classes)}
        usual, offsets = offsets, np.empty((*point.shape, len(quantiles)))
        for name in np.unique(classes):
            offsets[classes == name] = _quantiles(own[name].T, quantiles) if name in own else usual
    return np.maximum(point[..., None] + offsets, 0)


def season_indices(demand: Floats, season_length: int, additive: bool = False) -> Floats:
    """Mean ratio to, or difference from, the centred mean of a season, [S, M].

    1, or 0, where two seasons are not known, the season is not significant or a ratio leaves the range of 0.2 to 5.

    Source: classical decomposition, e.g. Hyndman and Athanasopoulos, "Forecasting: Principles and Practice", 3.4.
    """
    kind = _ADDED if additive else _MULTIPLIED
    if demand.shape[1] < 2 * season_length or season_length == 1:
        return np.full((len(demand), season_length), kind.neutral)
    centred = _centred_mean(demand, season_length)
    parts = kind.without(demand, np.where(centred > 0, centred, np.nan))
    phases = np.arange(demand.shape[1]) % season_length
    indices = np.stack([_mean(parts[:, phases == phase], kind.neutral) for phase in range(season_length)], axis=1)
    indices = kind.without(indices, np.maximum(indices.mean(axis=1, keepdims=True), kind.index_range[0]))
    in_range = (indices == np.clip(indices, *kind.index_range)).all(axis=1)
    return np.where((in_range & is_seasonal(demand, season_length))[:, None], indices, kind.neutral)


def is_seasonal(demand: Floats, season_length: int) -> NDArray[np.bool_]:
    """Whether the autocorrelation at the season's lag is significant at 90 %, [S]; False without two seasons."""
    if demand.shape[1] < 2 * season_length or season_length == 1:
        return np.zeros(len(demand), bool)
    deviations = np.nan_to_num(demand - _mean(demand, 0.0)[:, None])
    power = np.maximum(np.square(deviations).sum(axis=1), _TINY)
    lags = range(1, season_length + 1)
    *before, at = [(deviations[:, lag:] * deviations[:, :-lag]).sum(axis=1) / power for lag in lags]
    n_known = np.maximum((~np.isnan(demand)).sum(axis=1), 1)
    significant: NDArray[np.bool_] = at > 1.645 * np.sqrt((1 + 2 * np.square(before).sum(axis=0)) / n_known)
    return significant


class _Errors:
    """Squared errors over known periods, summed as time goes by; a forecast from nothing, NaN, is not judged."""

    def __init__(self) -> None:
        self._total: Floats = np.zeros(())
        self._counted: Floats = np.zeros(())

    def add(self, units: Floats, expected: Floats) -> None:
        error = units - expected
        self._total = self._total + np.where(np.isnan(error), 0, np.square(error))
        self._counted = self._counted + ~np.isnan(error)

    def mean(self) -> Floats:
        return self._total / np.maximum(self._counted, 1)


def flat(demand: Floats, rates: Iterator[Floats], horizon: int) -> Smoothed:
    """What the last of the rates says; the others, each before a period, are judged by it."""
    errors = _Errors()
    for units in demand.T:
        errors.add(units, next(rates))
    ahead = np.repeat(np.nan_to_num(next(rates))[..., None], horizon, axis=-1)
    return Smoothed(ahead, errors.mean())


def _levels(values: Floats, alpha: Floats) -> Iterator[Floats]:
    """The exponentially smoothed level before each period and after the last, P + 1 of [..., S]."""
    level = np.broadcast_to(_opening(values), np.broadcast_shapes(alpha.shape, values.shape[:1]))
    for units in values.T:
        yield level
        level = level + alpha * np.where(np.isnan(units), 0, units - level)
    yield level


def _means(values: Floats, window: NDArray[np.intp] | np.intp) -> Iterator[Floats]:
    """The mean of the latest periods before each period and after the last; where none is known, of all before.

    NaN before the first known period.
    """
    known = ~np.isnan(values)
    start = np.zeros((len(values), 1))
    units = np.concatenate([start, np.where(known, values, 0).cumsum(axis=1, dtype=float)], axis=1)
    counted = np.concatenate([start, known.cumsum(axis=1)], axis=1)
    series = np.arange(len(values))
    for period in range(values.shape[1] + 1):
        first = np.broadcast_to(np.maximum(period - window, 0), np.broadcast_shapes(np.shape(window), series.shape))
        n_latest = counted[:, period] - counted[series, first]
        latest = (units[:, period] - units[series, first]) / np.maximum(n_latest, 1)
        yield np.where(n_latest > 0, latest, ratio(units[:, period], counted[:, period]))


def ratio(above: NDArray[Any], below: NDArray[Any]) -> Floats:
    return np.where(below > 0, above / np.maximum(below, _TINY), np.nan)


def _opening(values: Floats) -> Floats:
    """Mean of the first ``OPENING`` known values, [S]; 0 without one."""
    known = ~np.isnan(values)
    return _mean(np.where(known.cumsum(axis=1) <= OPENING, values, np.nan), 0.0)


def _mean(values: Floats, otherwise: float) -> Floats:
    known = ~np.isnan(values)
    counted = known.sum(axis=1)
    return np.where(counted > 0, np.where(known, values, 0).sum(axis=1) / np.maximum(counted, 1), otherwise)


def _sold(demand: Floats) -> Floats:
    return np.where(np.isnan(demand), np.nan, demand > 0)


def _sizes(demand: Floats) -> Floats:
    return np.where(demand > 0, demand, np.nan)


def _intervals(demand: Floats) -> Floats:
    """Known periods from one sale to the next, at the later one; NaN elsewhere. The first counts from the start."""
    age = (~np.isnan(demand)).cumsum(axis=1)
    at_sale = np.where(demand > 0, age, 0)
    latest = np.maximum.accumulate(at_sale, axis=1)
    before = np.concatenate([np.zeros((len(demand), 1)), latest[:, :-1]], axis=1)
    return np.where(demand > 0, age - before, np.nan)


def _seasons(demand: Floats, horizon: int, season_length: int) -> NDArray[np.intp]:
    return np.arange(demand.shape[1], demand.shape[1] + horizon) % season_length


def _slope(values: Floats) -> Floats:
    """Slope of the least-squares line through what is known, units per period, [S]; 0 through one point."""
    times = np.where(np.isnan(values), np.nan, np.arange(values.shape[1]))
    times = times - _mean(times, 0.0)[:, None]
    slope: Floats = np.nansum(times * values, axis=1) / np.maximum(np.nansum(np.square(times), axis=1), _TINY)
    return slope


def _centred_mean(demand: Floats, season_length: int) -> Floats:
    """Mean of the season around each period, [S, P], its ends weighing half where it is even; NaN at the edges."""
    half = season_length // 2
    weights = np.ones(2 * half + 1)
    if season_length % 2 == 0:
        weights[[0, -1]] = 0.5
    known = ~np.isnan(demand)
    windows = (
        np.lib.stride_tricks.sliding_window_view(v, len(weights), axis=1) @ weights
        for v in (np.where(known, demand, 0.0), known.astype(float))
    )
    units, counted = windows
    centred = np.full(demand.shape, np.nan)
    centred[:, half : demand.shape[1] - half] = np.where(counted > 0, units / np.maximum(counted, 0.5), np.nan)
    return centred


def _quantiles(values: Floats, quantiles: Floats) -> Floats:
    """Quantiles over the last axis of what is known, interpolated, [..., Q]; 0 where nothing is."""
    ascending = np.sort(values, axis=-1)
    n_known = (~np.isnan(values)).sum(axis=-1)[..., None]
    place = quantiles * np.maximum(n_known - 1, 0)
    below = np.floor(place).astype(np.intp)
    above = np.minimum(below + 1, np.maximum(n_known - 1, 0))
    low, high = (np.take_along_axis(ascending, at, axis=-1) for at in (below, above))
    return np.where(n_known > 0, low + (high - low) * (place - below), 0)
