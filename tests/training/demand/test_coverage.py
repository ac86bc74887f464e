"""Intervals are told by how far they are from what they promise, whatever the units that demand comes in."""

import numpy as np
import pytest
from scipy import stats

from training.demand.evaluation import Judged, coverage_error, rows_of

QUANTILES = (0.05, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 0.95)
N_SERIES, N_STEPS = 3_000, 4
RATES = np.random.default_rng(0).gamma(1.0, 2.0, N_SERIES)[:, None, None]


def counted() -> np.ndarray:
    return np.random.default_rng(1).poisson(RATES[:, :, 0], (N_SERIES, N_STEPS)).astype(np.float32)


def forecast(rates: np.ndarray = RATES) -> np.ndarray:
    return np.tile(stats.poisson.ppf(QUANTILES, rates), (1, N_STEPS, 1)).astype(np.float32)


def towards_the_median(units: np.ndarray, share: float) -> np.ndarray:
    median = units[:, :, [QUANTILES.index(0.5)]]
    return median + share * (units - median)


def test_the_right_quantiles_of_counts_have_no_error_though_they_cover_more_than_they_promise() -> None:
    assert coverage_error(forecast(), counted(), QUANTILES) == 0
    rows = rows_of("right", "time", Judged(forecast()[:, :, 4], forecast()), counted(), QUANTILES)
    found = {row.metric: row.value for row in rows}
    assert found["coverage_error"] == 0
    assert found["coverage_50"] > 0.6


@pytest.mark.parametrize("share", [0.3, 3.0])
def test_intervals_too_narrow_or_too_wide_are_in_error(share: float) -> None:
    assert coverage_error(towards_the_median(forecast(), share), counted(), QUANTILES) > 0.03


def test_of_what_is_not_counted_it_is_the_mean_distance_of_coverage_from_the_promise() -> None:
    actual = np.random.default_rng(2).normal(size=(N_SERIES, N_STEPS)).astype(np.float32)
    ends = 0.7 * stats.norm.ppf(QUANTILES)
    units = np.tile(ends, (N_SERIES, N_STEPS, 1)).astype(np.float32)
    errors = [
        abs(np.mean((low <= actual) & (actual <= high)) - (upper - lower))
        for low, high, lower, upper in zip(ends[:4], ends[:4:-1], QUANTILES[:4], QUANTILES[:4:-1], strict=True)
    ]
    assert coverage_error(units, actual, QUANTILES) == pytest.approx(np.mean(errors), abs=1e-6)
    assert np.mean(errors) > 0.05


def test_what_is_not_known_does_not_count() -> None:
    units, actual = towards_the_median(forecast(), 0.3), counted()
    half = np.where(np.arange(N_STEPS) < 2, actual, np.float32(np.nan))
    assert coverage_error(units, half, QUANTILES) == coverage_error(units[:, :2], actual[:, :2], QUANTILES)
    assert np.isnan(coverage_error(units, np.full_like(actual, np.nan), QUANTILES))
