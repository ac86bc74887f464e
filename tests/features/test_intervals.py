"""Intervals against published or simulated coverage."""

import numpy as np
import pytest

from features.intervals import of_logarithm, wilson


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_newcombes_published_intervals(k: int, n: int, low: float, high: float) -> None:
    found = [float(bound[0]) for bound in wilson(np.array([k]), np.array([n]))]
    assert found == pytest.approx([low, high], abs=5e-5)


def test_a_share_of_nothing_has_no_interval() -> None:
    assert np.isnan(wilson(np.array([0]), np.array([0]))).all()


def test_a_logarithm_is_symmetric_by_factors_and_positive() -> None:
    low, high = of_logarithm(np.array([50.0, 0.0, -1.0, 5.0]), np.array([0.04, 0.04, 0.04, 0.0]))
    assert low[0] * high[0] == pytest.approx(2500)
    assert high[0] == pytest.approx(50 * np.exp(1.959964 * 0.2))
    assert np.isnan([low[1:], high[1:]]).all()
