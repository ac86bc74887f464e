import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from features.demand_classes import by_share, by_variation, demand_interval, pattern, size_variation

NAN = math.nan
units = st.one_of(st.just(NAN), st.just(0.0), st.floats(0.25, 100, width=32))
panels = arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 30)), elements=units)


def pattern_of(series: list[float], min_periods: int, ending_after: float) -> str:
    """The class of one series, the slow way."""
    known = [value for value in series if not math.isnan(value)]
    sizes = [value for value in known if value > 0]
    if len(known) < min_periods:
        return "new"
    if not sizes:
        return "ending"
    silence = next(ago for ago, value in enumerate(reversed(known)) if value > 0)
    if silence > ending_after * (len(known) - silence) / len(sizes):
        return "ending"
    mean = sum(sizes) / len(sizes)
    varied = sum((size - mean) ** 2 for size in sizes) / len(sizes) / mean**2 >= 0.49
    if len(known) / len(sizes) >= 1.32:
        return "lumpy" if varied else "intermittent"
    return "erratic" if varied else "smooth"


@settings(max_examples=200, deadline=None)
@given(demand=panels, min_periods=st.integers(1, 12), ending_after=st.floats(0.5, 8))
def test_every_series_has_the_class_that_counting_gives_it(demand: np.ndarray, min_periods: int, ending_after: float):
    expected = [pattern_of(series.tolist(), min_periods, ending_after) for series in demand]
    assert pattern(demand, min_periods, ending_after).tolist() == expected


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        ([3.0], "new"),
        ([NAN] * 12, "new"),
        ([0.0] * 12, "ending"),
        ([2.5] * 12, "smooth"),
        ([NAN] * 40 + [2.5] * 6 + [NAN] * 40 + [2.5] * 6, "smooth"),
        ([0.0] * 9 + [5.0] * 3 + [0.0] * 24, "intermittent"),
        ([0.0] * 9 + [5.0] * 3 + [0.0] * 25, "ending"),
        ([0.0, 1.0, 0.0, 9.0] * 5, "lumpy"),
    ],
)
def test_edges(series: list[float], expected: str):
    assert pattern(np.array([series], np.float32)).tolist() == [expected]


@settings(max_examples=50, deadline=None)
@given(demand=panels, n_missing=st.integers(1, 5))
def test_periods_that_nobody_knows_change_nothing(demand: np.ndarray, n_missing: int):
    padded = np.pad(demand, ((0, 0), (n_missing, n_missing)), constant_values=NAN)
    np.testing.assert_array_equal(pattern(demand), pattern(padded))
    np.testing.assert_allclose(demand_interval(demand), demand_interval(padded))
    np.testing.assert_allclose(size_variation(demand), size_variation(padded), atol=1e-5)
    assert by_variation(demand).shape == (len(demand),)


@given(amount=arrays(np.int64, st.integers(1, 30), elements=st.integers(0, 10**6)))
def test_a_is_the_fewest_series_that_make_the_share(amount: np.ndarray):
    classes = by_share(amount.astype(float))
    of_a = np.sort(amount[classes == "A"])
    if amount.sum() == 0:
        assert (classes == "C").all()
        return
    assert of_a.sum() >= (0.8 - 1e-6) * amount.sum()
    assert of_a[1:].sum() < 0.8 * amount.sum()
    assert of_a.min() >= amount[classes != "A"].max(initial=0)


def test_what_varies_is_told_from_what_is_steady():
    demand = np.array([[9, 10, 11], [1, 6, 8], [0, 0, 3], [0, 0, 0], [NAN, NAN, NAN]], np.float32)
    assert by_variation(demand).tolist() == ["X", "Y", "Z", "Z", "Z"]
