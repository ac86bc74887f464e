"""Newcomers are told from their like and, as they sell, from themselves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.newcomers import Launches
from serving.newcomers import newcomers

QUANTILES = (0.1, 0.5, 0.9)


def drawn(n: int = 4_000, strength: float = 4.0) -> tuple[Launches, np.ndarray]:
    """Series of two kinds, one selling five times as much, of rates that are gamma distributed; and those rates."""
    rng = np.random.default_rng(3)
    kind = np.arange(n) % 2
    mean = np.where(kind == 1, 5.0, 1.0)
    rates = rng.gamma(strength * mean, 1 / strength)
    periods = rng.integers(0, 12, n).astype(float)
    units = rng.poisson(rates * periods).astype(float)
    keys = [(f"i{each}", "") for each in range(n)]
    groups = np.stack([np.zeros(n, int), kind], axis=1)
    asked = np.arange(n) >= n // 2
    return Launches(keys, groups, units, periods, np.ones(n, bool), periods > 0, asked), rates


def test_quantiles_hold_what_they_promise():
    seen, rates = drawn()
    units = np.random.default_rng(4).poisson(rates)[seen.asked]
    ahead = newcomers(seen, 1, QUANTILES)[:, 0]
    assert ahead[:, 0].mean() == pytest.approx(units.mean(), rel=0.05)
    at_most, less = ((units[:, None] <= ahead[:, 1:]).mean(axis=0), (units[:, None] < ahead[:, 1:]).mean(axis=0))
    assert (less - 0.02 <= QUANTILES).all()
    assert (at_most + 0.02 >= QUANTILES).all()


def test_what_has_sold_nothing_yet_is_told_from_its_kind():
    seen, _ = drawn()
    unborn = seen.periods[seen.asked] == 0
    mean = newcomers(seen, 3, QUANTILES)[unborn, :, 0]
    kind = seen.groups[seen.asked][unborn, 1]
    assert mean[kind == 0] == pytest.approx(1, rel=0.1)
    assert mean[kind == 1] == pytest.approx(5, rel=0.1)


def test_the_more_it_has_sold_the_less_its_kind_counts():
    seen, rates = drawn()
    mean, own = newcomers(seen, 1, QUANTILES)[:, 0, 0], rates[seen.asked]
    old = seen.periods[seen.asked] >= 9
    usual = np.where(seen.groups[seen.asked][:, 1] == 1, 5.0, 1.0)
    assert np.abs(mean - own)[old].mean() < 0.6 * np.abs(usual - own)[old].mean()


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 30), st.booleans()), min_size=1, max_size=20))
def test_whatever_was_sold_quantiles_ascend_from_zero(series: list[tuple[int, int, bool]]):
    sold, periods, teaches = (np.array(column, float) for column in zip(*series, strict=True))
    n = len(series)
    keys = [(str(each), "") for each in range(n)]
    groups = np.stack([np.zeros(n, int), np.arange(n) % 3], axis=1)
    seen = Launches(keys, groups, sold, periods, np.ones(n, bool), teaches > 0, np.ones(n, bool))
    ahead = newcomers(seen, 2, QUANTILES)
    assert ahead.shape == (n, 2, 4)
    assert np.isfinite(ahead).all()
    assert (ahead >= 0).all()
    assert (np.diff(ahead[:, :, 1:], axis=2) >= 0).all()
