"""Medians, ratios and group sums are those of numpy, row by row, and leave out what is unknown."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from features.known import mean, median, ratio, summed

values = arrays(np.float32, (5, 7), elements=st.just(np.nan) | st.floats(-1e3, 1e3, width=32))


@given(values)
def test_medians_and_means_are_of_what_is_known(given_values: np.ndarray):
    for row, middle, average in zip(given_values, median(given_values), mean(given_values), strict=True):
        known = row[~np.isnan(row)]
        if len(known):
            assert middle == np.sort(known)[(len(known) - 1) // 2]
            assert average == pytest.approx(known.mean(), rel=1e-4, abs=1e-3)
        else:
            assert np.isnan([middle, average]).all()


def test_sums_are_by_group_and_an_empty_group_has_none():
    rows = np.float32([[1, 2], [3, 4], [5, 6]])
    np.testing.assert_array_equal(summed(rows, np.array([2, 0, 2])), [[3, 4], [0, 0], [6, 8]])


def test_a_ratio_to_nothing_is_unknown():
    np.testing.assert_array_equal(ratio(np.float32([1, 1]), np.float32([0, 2])), [np.nan, 0.5])
