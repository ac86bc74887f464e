"""What sold too little is told from its like and, as it sells, from itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.launches import Launches
from serving.sparse import sparse_forecast

QUANTILES = (0.1, 0.5, 0.9)


def drawn(n: int = 4_000, strength: float = 4.0) -> tuple[Launches, np.ndarray]:
    """Series of two kinds, one selling five times as much, of rates that are gamma distributed; and those rates."""
    rng = np.random.default_rng(3)
    kind = np.arange(n) % 2
    mean = np.where(kind == 1, 5.0, 1.0)
    rates = rng.gamma(strength * mean, 1 / strength)
    periods = rng.integers(0, 12, n).astype(float)
    by_period = rng.poisson(rates[:, None], (n, 12)) * (np.arange(12) < periods[:, None])
    units, squares = by_period.sum(axis=1).astype(float), (by_period**2).sum(axis=1).astype(float)
    keys = [(f"i{each}", "") for each in range(n)]
    groups = np.stack([np.zeros(n, int), kind], axis=1)
    asked = np.arange(n) >= n // 2
    return Launches(keys, groups, units, squares, periods, np.ones(n, bool), periods > 0, asked), rates


def test_quantiles_hold_what_they_promise():
    seen, rates = drawn()
    units = np.random.default_rng(4).poisson(rates)[seen.asked]
    ahead = sparse_forecast(seen, 1, QUANTILES)[:, 0]
    assert ahead[:, 0].mean() == pytest.approx(units.mean(), rel=0.05)
    at_most, less = ((units[:, None] <= ahead[:, 1:]).mean(axis=0), (units[:, None] < ahead[:, 1:]).mean(axis=0))
    assert (less - 0.02 <= QUANTILES).all()
    assert (at_most + 0.02 >= QUANTILES).all()


def test_what_has_sold_nothing_yet_is_told_from_its_kind():
    seen, _ = drawn()
    unborn = seen.periods[seen.asked] == 0
    mean = sparse_forecast(seen, 3, QUANTILES)[unborn, :, 0]
    kind = seen.groups[seen.asked][unborn, 1]
    assert mean[kind == 0] == pytest.approx(1, rel=0.1)
    assert mean[kind == 1] == pytest.approx(5, rel=0.1)


def test_the_more_it_has_sold_the_less_its_kind_counts():
    seen, rates = drawn()
    mean, own = sparse_forecast(seen, 1, QUANTILES)[:, 0, 0], rates[seen.asked]
    old = seen.periods[seen.asked] >= 9
    usual = np.where(seen.groups[seen.asked][:, 1] == 1, 5.0, 1.0)
    assert np.abs(mean - own)[old].mean() < 0.6 * np.abs(usual - own)[old].mean()


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 30), st.booleans()), min_size=1, max_size=20))
def test_whatever_was_sold_quantiles_ascend_from_zero(series: list[tuple[int, int, bool]]):
    sold, periods, teaches = (np.array(column, float) for column in zip(*series, strict=True))
    n = len(series)
    keys = [(str(each), "") for each in range(n)]
    groups = np.stack([np.zeros(n, int), np.arange(n) % 3], axis=1)
    seen = Launches(keys, groups, sold, sold**2, periods, np.ones(n, bool), teaches > 0, np.ones(n, bool))
    ahead = sparse_forecast(seen, 2, QUANTILES)
    assert ahead.shape == (n, 2, 4)
    assert np.isfinite(ahead).all()
    assert (ahead >= 0).all()
    assert (np.diff(ahead[:, :, 1:], axis=2) >= 0).all()


def test_what_varies_from_week_to_week_has_intervals_that_hold():
    rng = np.random.default_rng(8)
    n, weeks, rate, variation = 2_000, 12, 200.0, 0.5
    by_week = rng.poisson(rng.gamma(1 / variation**2, rate * variation**2, (n, weeks + 1))).astype(float)
    keys, groups = [(str(each), "") for each in range(n)], np.zeros((n, 1), int)
    past = by_week[:, :weeks]
    everybody = np.ones(n, bool)
    sold, squares = past.sum(axis=1), (past**2).sum(axis=1)
    seen = Launches(keys, groups, sold, squares, np.full(n, float(weeks)), everybody, everybody, everybody)
    low, high = sparse_forecast(seen, 1, QUANTILES)[:, 0, [1, 3]].T
    assert ((low <= by_week[:, -1]) & (by_week[:, -1] <= high)).mean() == pytest.approx(0.8, abs=0.03)
