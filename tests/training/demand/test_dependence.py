"""How errors hang together is found again where it was planted, with cells missing too."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from serving.paths import Dependence, normal_scores, paths
from training.demand.dependence import HeldOut, dependence

QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
N_STEPS = 3
LAGGED = 0.7 ** np.abs(np.subtract.outer(np.arange(N_STEPS), np.arange(N_STEPS)))
TIED = np.linalg.cholesky(LAGGED)


def held_out(tied: Dependence, n_series: int, n_origins: int) -> HeldOut:
    """What came of the same forecast for many series at many origins, as the dependence says."""
    one = 50 + 10 * normal_scores(QUANTILES)
    units = np.broadcast_to(one, (n_series, N_STEPS, len(QUANTILES)))
    came = paths(units, QUANTILES, tied.scores(n_series, n_origins, seed=4)).transpose(1, 0, 2)
    forecast = np.concatenate([np.full((*units.shape[:2], 1), 50), units], axis=2).astype(np.float32)
    origin = np.repeat(np.arange(n_origins), n_series)
    return judged(np.tile(forecast, (n_origins, 1, 1)), came.reshape(-1, N_STEPS), origin)


def judged(units: np.ndarray, actual: np.ndarray, origin: np.ndarray) -> HeldOut:
    return HeldOut(units, actual, origin, np.full(len(origin), "smooth"))


def correlation(found: Dependence) -> np.ndarray:
    return found.steps @ found.steps.T


def knocked_out(held: HeldOut, share: float, seed: int = 0) -> HeldOut:
    missing = np.random.default_rng(seed).random(held.actual.shape) < share
    return held._replace(actual=np.where(missing, np.float32(np.nan), held.actual))


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_correlation_over_steps_is_found_whatever_is_missing(share: float):
    found = dependence(knocked_out(held_out(Dependence(TIED, 0.0), 40, 100), share), QUANTILES, seed=0)
    np.testing.assert_allclose(correlation(found), LAGGED, atol=0.07)
    assert found.common < 0.03


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("common", [0.2, 0.5])
def test_what_series_have_in_common_is_found_whatever_is_missing(common: float, share: float):
    held = knocked_out(held_out(Dependence(np.eye(N_STEPS), common), 10, 600), share)
    assert dependence(held, QUANTILES, seed=0).common == pytest.approx(common, abs=0.07)


def test_an_order_of_rows_says_nothing():
    held = held_out(Dependence(TIED, 0.4), 6, 40)
    shuffled = np.random.default_rng(1).permutation(len(held.origin))
    one, other = (dependence(each, QUANTILES, seed=0) for each in (held, HeldOut(*(x[shuffled] for x in held))))
    np.testing.assert_allclose(one.steps, other.steps, atol=1e-6)
    assert one.common == pytest.approx(other.common, abs=1e-6)


def test_a_forecast_that_is_always_low_ties_no_steps():
    held = held_out(Dependence.none(N_STEPS), 40, 100)
    low = held._replace(actual=held.actual + 10)
    np.testing.assert_allclose(correlation(dependence(low, QUANTILES, seed=0)), np.eye(N_STEPS), atol=0.05)


def test_series_of_different_origins_have_nothing_in_common():
    held = held_out(Dependence(np.eye(N_STEPS), 0.5), 20, 50)
    alone = held._replace(origin=np.arange(len(held.origin)))
    assert dependence(alone, QUANTILES, seed=0).common == 0


@settings(max_examples=60)
@given(npst.arrays(np.float32, (4, N_STEPS), elements=st.one_of(st.just(np.nan), st.floats(0, 90, width=32))))
def test_any_errors_give_a_correlation_that_can_be_drawn_from(actual: np.ndarray):
    units = held_out(Dependence.none(N_STEPS), 4, 1).units
    found = dependence(judged(units, actual, np.array([0, 0, 1, 1])), QUANTILES, seed=0)
    tied = correlation(found)
    np.testing.assert_allclose(np.diag(tied), 1, atol=1e-6)
    assert np.linalg.eigvalsh(tied).min() > 0
    assert (np.abs(tied) <= 1 + 1e-6).all()
    assert 0 <= found.common <= 0.9
    assert np.isfinite(found.scores(2, 5, seed=0)).all()


def test_pairs_that_contradict_one_another_become_a_correlation():
    high, low, none = 66.0, 34.0, np.nan
    rows = [
        [high, high, none],
        [low, low, none],
        [none, high, high],
        [none, low, low],
        [high, none, low],
        [low, none, high],
    ]
    actual = np.tile(np.float32(rows), (20, 1))
    units = np.tile(held_out(Dependence.none(N_STEPS), 1, 1).units, (len(actual), 1, 1))
    found = dependence(judged(units, actual, np.arange(len(actual))), QUANTILES, seed=0)
    tied = correlation(found)
    assert np.linalg.eigvalsh(tied).min() > 0
    np.testing.assert_allclose(np.diag(tied), 1, atol=1e-6)
    assert tied[0, 1] > 0.3
    assert tied[1, 2] > 0.3
    assert tied[0, 2] < -0.3


def test_a_step_of_which_nothing_is_known_hangs_together_with_none():
    held = held_out(Dependence(TIED, 0.0), 20, 30)
    closed = held.actual.copy()
    closed[:, 1] = np.nan
    tied = correlation(dependence(held._replace(actual=closed), QUANTILES, seed=0))
    np.testing.assert_allclose(tied[1], [0, 1, 0], atol=1e-6)
    assert tied[0, 2] == pytest.approx(LAGGED[0, 2], abs=0.1)
