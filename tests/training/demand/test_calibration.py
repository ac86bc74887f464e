"""Offsets put as much of what was held out below each quantile as it says, class by class."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from serving.recipe import ALL, moved
from training.demand.calibration import LEAST_CELLS, offsets
from training.demand.dependence import HeldOut

QUANTILES = (0.1, 0.5, 0.9)
N_STEPS = 2


def told(mean: np.ndarray, spread: float) -> np.ndarray:
    """Forecasts, shape (n, N_STEPS, 1 + Q): a mean and quantiles that lie ``spread`` of it apart."""
    one = np.stack([mean, (1 - spread) * mean, mean, (1 + spread) * mean], axis=1)
    return np.repeat(one[:, None], N_STEPS, axis=1).astype(np.float32)


def held_out(n: int, missing: float = 0.0) -> HeldOut:
    """Smooth series that err by a tenth of the mean and lumpy ones that err by the half of it, all told a fifth."""
    rng = np.random.default_rng(7)
    mean, lumpy = rng.uniform(5, 50, n), np.arange(n) % 2 == 1
    actual = mean[:, None] * (1 + np.where(lumpy, 0.5, 0.1)[:, None] * rng.uniform(-1, 1, (n, N_STEPS)))
    actual[rng.random(actual.shape) < missing] = np.nan
    return HeldOut(
        told(mean, 0.2), actual.astype(np.float32), np.arange(n) % 3, np.where(lumpy, "lumpy", "smooth").astype(str)
    )


def below(held: HeldOut, units: np.ndarray) -> np.ndarray:
    """Share of what is known that lies at or below each quantile."""
    known = ~np.isnan(held.actual)
    return (held.actual[:, :, None] <= units[:, :, 1:])[known].mean(axis=0)


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_each_class_is_covered_as_its_quantiles_say(missing: float):
    held = held_out(4 * LEAST_CELLS, missing)
    units = moved(held.units, held.pattern, offsets(held, QUANTILES))
    for name in ("smooth", "lumpy"):
        chosen = HeldOut(*(column[held.pattern == name] for column in held))
        np.testing.assert_allclose(below(chosen, units[held.pattern == name]), QUANTILES, atol=0.01)
        assert np.abs(below(chosen, chosen.units) - QUANTILES).max() > 0.05


def test_a_class_with_little_held_out_takes_the_offsets_of_all():
    found = offsets(held_out(100), QUANTILES)
    assert list(found) == [ALL]
    assert found[ALL].shape == (N_STEPS, len(QUANTILES))


def test_a_step_of_which_nothing_is_known_takes_the_offsets_of_the_others():
    held = held_out(4 * LEAST_CELLS)
    held.actual[:, 1] = np.nan
    for offset in offsets(held, QUANTILES).values():
        np.testing.assert_array_equal(offset[1], offset[0])
        assert np.isfinite(offset).all()


def test_one_held_out_horizon_alone_moves_nothing():
    held = held_out(4 * LEAST_CELLS)._replace(origin=np.zeros(4 * LEAST_CELLS, int))
    np.testing.assert_array_equal(moved(held.units, held.pattern, offsets(held, QUANTILES)), held.units)


def test_quantiles_that_are_right_stay():
    held = held_out(4 * LEAST_CELLS)
    again = held._replace(units=moved(held.units, held.pattern, offsets(held, QUANTILES)))
    for offset in offsets(again, QUANTILES).values():
        np.testing.assert_allclose(offset, 0, atol=1e-3)


UNITS = npst.arrays(np.float32, (3, N_STEPS, 4), elements=st.floats(0, 100, width=32))
OFFSETS = npst.arrays(np.float32, (N_STEPS, 3), elements=st.floats(-2, 2, width=32))


@given(UNITS, OFFSETS)
def test_moved_quantiles_ascend_from_zero_and_leave_the_mean(units: np.ndarray, offset: np.ndarray):
    found = moved(units, np.array(["smooth", "new", "lumpy"]), {ALL: offset})
    np.testing.assert_array_equal(found[:, :, 0], units[:, :, 0])
    assert (found[:, :, 1:] >= 0).all()
    assert (np.diff(found[:, :, 1:], axis=2) >= 0).all()
    assert found.dtype == np.float32


@given(UNITS)
def test_a_class_without_offsets_of_its_own_moves_as_all_do(units: np.ndarray):
    units[:, :, 1:].sort(axis=2)
    up, none = np.ones((N_STEPS, 3), np.float32), np.zeros((N_STEPS, 3), np.float32)
    found = moved(units, np.array(["smooth", "new", "smooth"]), {ALL: up, "smooth": none})
    np.testing.assert_array_equal(found[[0, 2]], units[[0, 2]])
    assert (found[1, :, 1:] > units[1, :, 1:]).all() or units[1, :, 0].min() > 1e8
