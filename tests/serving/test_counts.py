"""Slow sellers: rates that lean on their class, and quantiles that are those of the counts they promise."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from serving.counts import count_quantiles, dispersion, shrunken_rate, slow_quantiles

HORIZON = 5
QUANTILES = np.array([0.05, 0.5, 0.8, 0.95, 0.99])
units = st.one_of(st.just(math.nan), st.just(0.0), st.integers(1, 9).map(float), st.floats(0.25, 100, width=32))
panels = arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 30)), elements=units)


def shrunken(demand: np.ndarray, classes: list[int], row: int, decay: float, strength: float) -> float:
    def discounted(series: list[float]) -> tuple[float, float]:
        known = [value for value in series if not math.isnan(value)]
        weights = [decay**age for age in range(len(known))][::-1]
        return sum(w * value for w, value in zip(weights, known, strict=True)), sum(weights)

    alike = [discounted(series) for series, name in zip(demand.tolist(), classes, strict=True) if name == classes[row]]
    sold, counted = (sum(part) for part in zip(*alike, strict=True))
    own_sold, own_counted = discounted(demand[row].tolist())
    return (strength * (sold / counted if counted else 0) + own_sold) / (strength + own_counted)


@settings(max_examples=50, deadline=None)
@given(demand=panels, decay=st.floats(0.5, 1), strength=st.floats(0.1, 10))
def test_a_slow_sellers_rate_leans_on_its_class(demand: np.ndarray, decay: float, strength: float):
    classes = [row % 2 for row in range(len(demand))]
    smoothed = shrunken_rate(demand, HORIZON, np.array(classes), decay, strength)
    for row in range(len(demand)):
        assert smoothed.ahead[row, 0] == pytest.approx(shrunken(demand, classes, row, decay, strength), rel=1e-6)


@settings(max_examples=100, deadline=None)
@given(
    mean=arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 3)), elements=st.floats(0, 2000)),
    ratio=st.floats(0.01, 30),
    whole=st.booleans(),
)
def test_quantiles_ascend_and_whole_demand_has_whole_ones(mean: np.ndarray, ratio: float, whole: bool):
    found = count_quantiles(mean, np.full(len(mean), ratio), QUANTILES, np.full(len(mean), whole))
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert (np.diff(found, axis=-1) >= -1e-9).all()
    assert not whole or (found == np.round(found)).all()


@settings(max_examples=50, deadline=None)
@given(mean=st.floats(0.01, 30), ratio=st.floats(1.001, 8))
def test_quantiles_are_those_of_the_gamma_function(mean: float, ratio: float):
    def chance(units: int) -> float:
        n = mean / (ratio - 1)
        return math.exp(
            math.lgamma(n + units)
            - math.lgamma(n)
            - math.lgamma(units + 1)
            + units * math.log1p(-1 / ratio)
            - n * math.log(ratio)
        )

    reached = np.cumsum([chance(units) for units in range(600)])
    found = count_quantiles(np.array([[mean]]), np.array([ratio]), QUANTILES, np.array([True]))[0, 0].astype(int)
    assert (reached[found] >= QUANTILES - 1e-9).all()
    assert (np.where(found > 0, reached[found - 1], 0) <= QUANTILES + 1e-9).all()


@pytest.mark.parametrize(("mean", "ratio"), [(0.4, 1.0), (1.5, 3.0), (12.0, 2.0), (900.0, 4.0)])
def test_a_simulated_negative_binomial_is_covered(mean: float, ratio: float, rng: np.random.Generator):
    demand = rng.poisson(rng.gamma(mean / max(ratio - 1, 1e-6), max(ratio - 1, 1e-6), (2000, 61))).astype(np.float32)
    past, truth = demand[:, :60], demand[:, 60:]
    classes = np.zeros(2000, int)
    smoothed = shrunken_rate(past, 1, classes, decay=1.0)
    spread = dispersion(past, smoothed.squared_error, classes)
    found = count_quantiles(smoothed.ahead, spread, QUANTILES, np.ones(2000, bool))
    at_most, below = ((compare(truth, found[:, 0])).mean(axis=0) for compare in (np.less_equal, np.less))
    assert (at_most >= QUANTILES - 0.03).all()
    assert (below <= QUANTILES + 0.03).all()


@settings(max_examples=50, deadline=None)
@given(demand=panels)
def test_quantiles_of_slow_sellers_are_finite_and_ascend(demand: np.ndarray):
    found = slow_quantiles(demand, HORIZON, QUANTILES, np.arange(len(demand)) % 2)
    assert found.shape == (len(demand), HORIZON, len(QUANTILES))
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert (np.diff(found, axis=-1) >= -1e-9).all()


def test_what_fades_is_forecast_from_its_latest_sales():
    demand = np.tile(np.repeat([6.0, 0.0, 1.0], [30, 10, 30]), (20, 1))
    found = slow_quantiles(demand, 1, np.array([0.5]), np.zeros(20, int))
    assert (found == 1).all()


def test_demand_in_fractions_is_covered_too(rng: np.random.Generator):
    demand = rng.gamma(2.0, 0.7, (2000, 60))
    found = count_quantiles(np.full((1, 1), 1.4), np.array([0.7]), QUANTILES, np.array([False]))
    np.testing.assert_allclose((demand[:, :, None] <= found[0, 0]).mean(axis=(0, 1)), QUANTILES, atol=0.05)
