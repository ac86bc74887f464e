import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from serving.smoothing import MEMBERS, OPENING, around, season_indices

NAN = math.nan
HORIZON, SEASON = 5, 4
QUANTILES = np.array([0.05, 0.5, 0.8, 0.95, 0.99])
units = st.one_of(st.just(NAN), st.just(0.0), st.integers(1, 9).map(float), st.floats(0.25, 100, width=32))
panels = arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 30)), elements=units)
every_member = pytest.mark.parametrize("name", MEMBERS)
EDGES = {
    "one point": [3.0],
    "all zeros": [0.0] * 20,
    "nothing known": [NAN] * 20,
    "constant": [2.0] * 20,
    "fractions": [0.25, 0.5, 0.0, NAN] * 5,
    "a single sale": [0.0] * 19 + [4.0],
}


def opening(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)][:OPENING]
    return sum(known) / len(known) if known else 0.0


def levels(values: list[float], alpha: float) -> Iterator[float]:
    level = opening(values)
    for value in values:
        yield level
        if not math.isnan(value):
            level += alpha * (value - level)
    yield level


def simple(series: list[float], alpha: float) -> Iterator[float]:
    return levels(series, alpha)


def tsb(series: list[float], alpha: float, beta: float) -> Iterator[float]:
    sizes = levels([value if value > 0 else NAN for value in series], alpha)
    chances = levels([value if math.isnan(value) else float(value > 0) for value in series], beta)
    return (size * chance for size, chance in zip(sizes, chances, strict=True))


def croston_sba(series: list[float], alpha: float) -> Iterator[float]:
    sizes = levels([value if value > 0 else NAN for value in series], alpha)
    intervals, since = [], 0
    for value in series:
        since += not math.isnan(value)
        intervals.append(since if value > 0 else NAN)
        since = 0 if value > 0 else since
    smoothed = levels(intervals, alpha)
    return ((1 - alpha / 2) * size / max(gap, 1) for size, gap in zip(sizes, smoothed, strict=True))


def latest_mean(series: list[float], n_periods: float) -> Iterator[float]:
    for period in range(len(series) + 1):
        known = [value for value in series[:period] if not math.isnan(value)]
        latest = [value for value in series[max(0, period - int(n_periods)) : period] if not math.isnan(value)]
        yield sum(latest or known) / len(latest or known) if known else NAN


def squared_error(series: list[float], rates: list[float]) -> float:
    errors = [(value - rate) ** 2 for value, rate in zip(series, rates, strict=False)]
    judged = [error for error in errors if not math.isnan(error)]
    return sum(judged) / max(1, len(judged))


@pytest.mark.parametrize("slowly", [simple, tsb, croston_sba, latest_mean], ids=lambda method: method.__name__)
@settings(max_examples=50, deadline=None)
@given(demand=panels)
def test_a_rate_is_what_the_loop_over_series_and_candidates_says(slowly: Callable, demand: np.ndarray):
    member = MEMBERS[slowly.__name__]
    chosen = member.choose(demand, SEASON)
    ahead = member.forecast(demand, HORIZON, SEASON)
    for series, parameters, expected in zip(demand.tolist(), chosen.T, ahead, strict=True):
        rates = list(slowly(series, *parameters))
        np.testing.assert_allclose(expected, np.nan_to_num([rates[-1]] * HORIZON), atol=1e-6)
        least = min(squared_error(series, list(slowly(series, *tried))) for tried in candidates(member.candidates))
        assert squared_error(series, rates) == pytest.approx(least, rel=1e-6, abs=1e-9)


def candidates(axes: tuple[tuple[float, ...], ...]) -> list[tuple[float, ...]]:
    return [tuple(axis[at] for axis, at in zip(axes, place, strict=True)) for place in np.ndindex(*map(len, axes))]


def holt_winters(series: list[float], index: list[float], parameters: list[float], multiplied: bool) -> list[float]:
    """ETS(A,Ad,A) or ETS(A,Ad,M) of one series, number by number."""
    alpha, beta, damping, gamma = parameters
    index = list(index)
    bare = [value / index[t % SEASON] if multiplied else value - index[t % SEASON] for t, value in enumerate(series)]
    level, trend = opening(bare), 0.0
    for period, value in enumerate(series):
        old, base = index[period % SEASON], level + damping * trend
        level, trend = base, damping * trend
        if not math.isnan(value):
            error = value - (base * old if multiplied else base + old)
            by_level, by_index = (error / old, error / max(base, 1e-9)) if multiplied else (error, error)
            level, trend = level + alpha * by_level, trend + alpha * beta * by_level
            moved = old + gamma * (1 - alpha) * by_index
            index[period % SEASON] = min(5.0, max(0.2, moved)) if multiplied else moved
    ahead = []
    for step in range(1, HORIZON + 1):
        base = level + sum(damping**k for k in range(1, step + 1)) * trend
        old = index[(len(series) + step - 1) % SEASON]
        ahead.append(max(0.0, base * old if multiplied else base + old))
    return ahead


@pytest.mark.parametrize("kind", ["additive", "multiplicative"])
@settings(max_examples=50, deadline=None)
@given(demand=panels)
def test_holt_winters_is_what_the_loop_over_series_says(kind: str, demand: np.ndarray):
    member = MEMBERS[f"holt_winters_{kind}"]
    parameters = member.choose(demand, SEASON)
    indices = season_indices(demand, SEASON, additive=kind == "additive")
    ahead = member.forecast(demand, HORIZON, SEASON, parameters)
    for row, series in enumerate(demand.tolist()):
        expected = holt_winters(series, indices[row].tolist(), parameters[:, row].tolist(), kind == "multiplicative")
        np.testing.assert_allclose(ahead[row], expected, rtol=1e-5, atol=1e-4)


@settings(max_examples=50, deadline=None)
@given(demand=panels)
def test_seasonal_naive_repeats_the_last_known_season(demand: np.ndarray):
    ahead = MEMBERS["seasonal_naive"].forecast(demand, HORIZON, SEASON)
    for row, series in enumerate(demand.tolist()):
        mean = np.nan_to_num(list(latest_mean(series, len(series)))[-1])
        for step in range(HORIZON):
            alike = [value for t, value in enumerate(series) if (len(series) + step - t) % SEASON == 0]
            known = [value for value in alike if not math.isnan(value)]
            assert ahead[row, step] == pytest.approx(known[-1] if known else mean, abs=1e-4)


def test_theta_adds_half_the_slope_and_the_season():
    line = np.arange(1.0, 41)
    by_slope = MEMBERS["theta"].forecast(line[None], 3, 1, np.array([[0.5]]))
    level = list(levels(line.tolist(), 0.5))[-1]
    np.testing.assert_allclose(by_slope[0], level + 0.5 * (np.arange(3) + (1 - 0.5**40) / 0.5))
    seasonal = np.tile([1.0, 2.0, 3.0, 2.0], 10)
    np.testing.assert_allclose(MEMBERS["theta"].forecast(seasonal[None], 4, 4)[0], seasonal[:4], rtol=1e-2)


@pytest.mark.parametrize("kind", ["additive", "multiplicative"])
def test_a_season_on_a_trend_is_continued(kind: str):
    season = np.array([0.6, 1.4, 1.2, 0.8])
    periods = np.arange(64)
    base = 20 + 0.5 * periods
    demand = base * season[periods % 4] if kind == "multiplicative" else base + 10 * season[periods % 4]
    ahead = MEMBERS[f"holt_winters_{kind}"].forecast(demand[None, :60], 4, 4)
    np.testing.assert_allclose(ahead[0], demand[60:], rtol=0.06)


@every_member
@settings(max_examples=30, deadline=None)
@given(demand=panels)
def test_forecasts_are_finite_and_never_below_zero(name: str, demand: np.ndarray):
    ahead = MEMBERS[name].forecast(demand, HORIZON, SEASON)
    assert ahead.shape == (len(demand), HORIZON)
    assert np.isfinite(ahead).all()
    assert (ahead >= 0).all()


@every_member
@settings(max_examples=20, deadline=None)
@given(demand=panels, units=st.floats(0, 1e6, width=32))
def test_what_comes_after_the_origin_changes_nothing(name: str, demand: np.ndarray, units: float):
    later = np.full((len(demand), HORIZON), units, np.float32)
    past = np.concatenate([demand, later], axis=1)[:, : demand.shape[1]]
    expected = MEMBERS[name].forecast(demand, HORIZON, SEASON)
    np.testing.assert_array_equal(MEMBERS[name].forecast(past, HORIZON, SEASON), expected)


@every_member
@pytest.mark.parametrize("edge", EDGES)
def test_edges_have_sensible_answers(name: str, edge: str):
    series = EDGES[edge]
    ahead = MEMBERS[name].forecast(np.array([series], np.float32), HORIZON, SEASON)
    assert np.isfinite(ahead).all()
    assert (ahead >= 0).all()
    assert (ahead <= max([0.0, *(value for value in series if value > 0)]) * 1.01).all()
    if edge == "constant":
        np.testing.assert_allclose(ahead, 2.0, rtol=0.11 if name == "croston_sba" else 1e-6)


@every_member
@settings(max_examples=20, deadline=None)
@given(demand=panels, others=panels)
def test_a_series_is_forecast_alone_as_among_others(name: str, demand: np.ndarray, others: np.ndarray):
    periods = min(demand.shape[1], others.shape[1])
    together = MEMBERS[name].forecast(np.concatenate([demand[:, :periods], others[:, :periods]]), HORIZON, SEASON)
    alone = MEMBERS[name].forecast(demand[:1, :periods], HORIZON, SEASON)
    np.testing.assert_allclose(together[:1], alone, rtol=1e-6, atol=1e-9)


def test_a_group_shares_its_parameters(rng: np.random.Generator):
    demand = rng.poisson(2.0, (6, 40)).astype(np.float32)
    groups = np.array([0, 0, 0, 1, 1, 1])
    shared = MEMBERS["tsb"].choose(demand, 1, groups)
    assert (shared[:, groups == 0] == shared[:, :1]).all()
    assert (shared[:, groups == 1] == shared[:, 3:4]).all()
    np.testing.assert_array_equal(MEMBERS["tsb"].choose(demand, 1), MEMBERS["tsb"].choose(demand, 1, np.arange(6)))


def test_errors_around_a_point_are_those_of_its_class():
    errors = np.array([[-1.0, -10.0], [0.0, 0.0], [1.0, 10.0], [5.0, NAN]])
    point = np.array([[3.0, 3.0], [3.0, 3.0], [3.0, 3.0]])
    found = around(point, errors, np.array([0.5]), np.array(["a", "b", "c"]), np.array(["a", "a", "a", "b"]))
    np.testing.assert_allclose(found[:, :, 0], [[3.0, 3.0], [8.0, 3.0], [3.5, 3.0]])


@settings(max_examples=50, deadline=None)
@given(errors=arrays(np.float64, (3, 7, 2), elements=st.one_of(st.just(NAN), st.floats(-9, 9))))
def test_a_series_own_errors_are_its_quantiles(errors: np.ndarray):
    found = around(np.full((3, 2), 10.0), errors, QUANTILES)
    for row, step in np.ndindex(3, 2):
        known = errors[row, ~np.isnan(errors[row, :, step]), step]
        expected = np.quantile(known, QUANTILES) if len(known) else np.zeros(len(QUANTILES))
        np.testing.assert_allclose(found[row, step], 10 + expected)
