import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.value_metrics import decile_table, level_metrics, normalized_gini

pairs = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=2, max_size=40).map(
    lambda rows: np.array(rows, float).T
)


@given(pairs)
def test_gini_lies_within_minus_one_and_one_and_its_order_is_all_that_counts(pair):
    predicted, realised = pair
    if (realised == realised[0]).all():
        assert np.isnan(normalized_gini(predicted, realised))
        return
    found = normalized_gini(predicted, realised)
    assert -1 - 1e-12 <= found <= 1 + 1e-12
    assert normalized_gini(3 * predicted + 1, realised) == pytest.approx(found)
    assert normalized_gini(-predicted, realised) == pytest.approx(-found)
    assert normalized_gini(predicted[::-1], realised[::-1]) == pytest.approx(found)
    assert normalized_gini(realised, realised) == pytest.approx(1)


def test_gini_is_twice_the_area_between_curve_and_diagonal_over_that_of_the_perfect_order(rng):
    predicted, realised = rng.random(50), rng.gamma(1, size=50)

    def area(order):
        gains = np.append(0, np.cumsum(realised[np.argsort(-order)])) / realised.sum()
        return np.trapezoid(gains, dx=1 / 50) - 0.5

    assert normalized_gini(predicted, realised) == pytest.approx(area(predicted) / area(realised))


@given(pairs)
def test_deciles_lose_nobody(pair):
    predicted, realised = pair
    rows = decile_table(predicted, realised)
    assert [row["decile"] for row in rows] == list(range(1, 11))
    assert sum(row["n"] for row in rows) == len(predicted)
    assert sum(row["predicted"] for row in rows) == pytest.approx(predicted.sum())
    assert sum(row["realised"] for row in rows) == pytest.approx(realised.sum())


def test_level():
    found = level_metrics(np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0, 2.0]))
    assert found["mae"] == pytest.approx(2 / 3)
    assert found["rmse"] == pytest.approx(np.sqrt(2 / 3))
    assert found["bias"] == pytest.approx(0.5)
    assert found["correlation"] == pytest.approx(np.sqrt(3) / 2)


def test_level_of_nothing_is_not_a_number():
    found = level_metrics(np.ones(3), np.zeros(3))
    assert np.isnan(found["bias"])
    assert np.isnan(found["correlation"])
