"""Means that heed forecasts of their sums: the least-squares answer, and what sums and histories are."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from panels import plain_panel

from features.errors import UserError
from features.panels import Panel
from serving import reconcile
from serving.reconcile import FACTORS, Reconciliation, Sums, added, direct, factors, history

N_SERIES, N_SUMS = 6, 6
MEMBERS = np.array([[0, 0, 1, 1, 2, 2], [3, 4, 3, 4, 3, 4], [5] * 6])
"""Three items in two locations, and everything."""
MEANS = arrays(float, N_SERIES, elements=st.floats(1, 100))
NEAR = arrays(float, N_SUMS, elements=st.floats(0.9, 1.1))
NOISE = arrays(float, N_SUMS, elements=st.floats(0.1, 1e4))


def sums_of(means: np.ndarray) -> np.ndarray:
    return added(means, MEMBERS, N_SUMS)


@given(MEANS, NEAR, NOISE)
def test_it_is_the_least_squares_answer(means: np.ndarray, near: np.ndarray, noise: np.ndarray):
    ahead, variance = near * sums_of(means), 2 * means
    which = np.array([[sum_ in MEMBERS[:, series] for series in range(N_SERIES)] for sum_ in range(N_SUMS)], float)
    equations = np.concatenate([np.eye(N_SERIES) / np.sqrt(variance)[:, None], which / np.sqrt(noise)[:, None]])
    oracle, *_ = np.linalg.lstsq(equations, np.concatenate([means / np.sqrt(variance), ahead / np.sqrt(noise)]))
    assume((np.clip(oracle / means, *FACTORS) == oracle / means).all())
    np.testing.assert_allclose(means * factors(variance, means, MEMBERS, ahead, noise), oracle, rtol=1e-6)


@given(MEANS, NOISE)
def test_sums_that_agree_change_nothing(means: np.ndarray, noise: np.ndarray):
    np.testing.assert_allclose(factors(means, means, MEMBERS, sums_of(means), noise), 1, atol=1e-9)


@given(MEANS, arrays(float, N_SUMS, elements=st.floats(0, 1e4)))
def test_sums_that_know_nothing_change_nothing(means: np.ndarray, ahead: np.ndarray):
    np.testing.assert_allclose(factors(means, means, MEMBERS, ahead, np.full(N_SUMS, 1e15)), 1, atol=1e-6)


@given(MEANS, arrays(float, 3, elements=st.floats(0, 1e3)), st.floats(0, 1e4))
def test_a_sum_of_its_parts_alone_lies_between_theirs_and_its_forecast(
    means: np.ndarray, ahead: np.ndarray, noise: float
):
    items = MEMBERS[:1]
    found = factors(means, means, items, ahead, np.full(3, noise))
    before, after = added(means, items, 3), added(means * found, items, 3)
    slack = 1e-6 * (before + ahead)
    assert (np.minimum(before, ahead) <= after + slack).all()
    assert (after <= np.maximum(before, ahead) + slack).all()
    assert ((found >= FACTORS[0]) & (found <= FACTORS[1])).all()
    assert ((after != before) | (np.abs(ahead - before) < 1e-3 * (1 + noise))).all()


def test_sums_that_are_sure_are_met_and_do_not_fight():
    means, twice = np.arange(1.0, 7.0), np.concatenate([MEMBERS, MEMBERS[-1:] + 1])
    ahead = added(1.2 * means, twice, N_SUMS + 1)
    np.testing.assert_allclose(factors(means, means, twice, ahead, np.zeros(N_SUMS + 1)), 1.2, rtol=1e-6)


def test_how_far_sums_are_heeded_is_as_both_err():
    one = Sums(("shop",), np.array([[0, 0]]), np.array([0]), np.array([[6.0, 2.0]]))
    found = Reconciliation(2.0, {"shop": 4.0}).towards(one, np.float32([[1, 1], [3, 3]]))
    np.testing.assert_allclose(found, np.tile([1 + 2 * 2 / (8 + 24), 1 - 2 * 2 / (8 + 16)], (2, 1)))


def test_a_sum_that_is_said_to_be_nothing_is_not_sure_and_one_unknown_says_nothing():
    one = Sums(("shop",), np.array([[0, 0]]), np.array([0]), np.array([[0.0, np.nan]]))
    found = Reconciliation(1.0, {"shop": 9.0}).towards(one, np.float32([[1, 1], [3, 3]]))
    np.testing.assert_allclose(found, [[0.9, 1], [0.9, 1]], rtol=1e-6)


def test_a_sum_whose_past_is_unknown_has_no_forecast():
    known = panel()
    known.exposure[[0, 1]] = 0
    found = direct(known, 38, ("item", "shop"))
    assert np.isnan(found.ahead).all(axis=1).tolist() == [True, False, False, False]
    assert not np.isnan(
        Reconciliation(1.0, {"item": 2.0, "shop": 2.0}).towards(found, np.ones((5, 2), np.float32))
    ).any()


def test_what_is_not_sold_stays_unsold():
    means = np.array([0.0, 0, 0, 0, 1, 2])
    found = factors(means, means, MEMBERS, sums_of(means) + 5, np.ones(N_SUMS))
    assert found[:4].tolist() == [1.0] * 4
    assert (found[4:] > 1).all()


def test_nothing_sold_at_all_is_no_mistake():
    nothing = np.zeros(N_SERIES)
    assert factors(nothing, nothing, MEMBERS, np.zeros(N_SUMS), np.zeros(N_SUMS)).tolist() == [1.0] * N_SERIES


def panel() -> Panel:
    """Three items in two locations over 40 months of which the last two are ahead; one series is too rare."""
    rng, shape = np.random.default_rng(3), (6, 38)
    sold = rng.poisson(np.array([5, 8, 13, 21, 34, 0.1])[:, None] * (1 + np.sin(np.arange(38) / 6 * np.pi) / 2), shape)
    return plain_panel(
        sold,
        2,
        since="2020-01-01",
        frequency="month",
        item_ids=("a", "a", "b", "b", "c", "c"),
        location_ids=("north", "south") * 3,
        category=np.array([0, 0, 0, 0, 1, 1]),
        location=np.array([0, 1] * 3),
        min_periods=20,
    )


def test_sums_are_of_the_series_that_are_forecast():
    known = panel()
    found = direct(known, 38, ("item", "location", "category", "shop"))
    assert known.eligible(38).tolist() == [True] * 5 + [False]
    assert found.members.tolist() == [[0, 0, 1, 1, 2], [3, 4, 3, 4, 3], [5, 5, 5, 5, 6], [7] * 5]
    assert found.kind.tolist() == [0, 0, 0, 1, 1, 2, 2, 3]
    assert found.ahead.shape == (8, 2)
    np.testing.assert_allclose(found.ahead[-1], found.of(known.demand[:5, 26:28])[-1], rtol=0.4)


@settings(max_examples=10)
@given(st.integers(25, 37), st.integers(0, 1000))
def test_what_comes_later_changes_nothing(origin: int, seed: int):
    before = panel()
    sold = before.sold.copy()
    sold[:5, origin:] = np.random.default_rng(seed).integers(1, 1000, sold[:5, origin:].shape)
    means = np.full((5, 2), 10, np.float32)
    by = Reconciliation(1.0, {"item": 2.0, "shop": 3.0})
    np.testing.assert_array_equal(
        by.factors(means, before, origin), by.factors(means, replace(before, sold=sold), origin)
    )


@given(st.integers(0, 5), st.integers(0, 2))
def test_a_stock_out_does_not_make_a_sum_fall(period: int, series: int):
    sold = np.repeat(np.float32([[3], [5], [1]]), 6, axis=1)
    demand = sold.copy()
    sold[series, period], demand[series, period] = 0, np.nan
    units = history(sold, demand, np.zeros((1, 3), np.int64), 1)
    expected = np.full(6, 9.0)
    if series == 1:
        expected[period] = np.nan
    np.testing.assert_allclose(units[0], expected)


def test_too_many_sums_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reconcile, "MOST_SUMS", 4)
    with pytest.raises(UserError, match=r"asks for 5 sums \(3 of item, 2 of location\), 4 are allowed: name fewer"):
        direct(panel(), 38, ("item", "location"))
