"""Bootstrap intervals hold the true value about as often as they say."""

from pathlib import Path

import numpy as np
import pytest

from features.errors import UserError
from training.evaluation import (
    Row,
    averaged,
    headline,
    keep,
    kept,
    mean_row,
    mean_rows,
    minus,
    ratio_rows,
    statistic_row,
)


def test_the_interval_of_a_mean_covers_it_about_95_times_in_100(rng: np.random.Generator) -> None:
    rows = [mean_row("m", "time", "x", rng.exponential(size=80)) for _ in range(200)]
    covered = np.mean([row.low <= 1 <= row.high for row in rows])
    assert 0.88 <= covered <= 0.99


def test_resampled_means_are_those_of_units_drawn_one_by_one(rng: np.random.Generator) -> None:
    values = {("m", "x"): rng.random(300), ("m", "y"): rng.exponential(size=300)}
    for row, (name, column) in zip(mean_rows(values, "time", True, "cold"), values.items(), strict=True):
        plain = statistic_row(*name, "x", lambda chosen, of=column: float(of[chosen].mean()), 300)
        assert (row.model, row.metric, row.segment, row.masked, row.n) == (*name, "cold", True, 300)
        assert (row.value, row.low, row.high) == pytest.approx((plain.value, plain.low, plain.high), rel=1e-12)


def test_a_paired_comparison_sees_what_two_intervals_cannot(rng: np.random.Generator) -> None:
    base = rng.random(500)
    values = {("better", "x"): base + 0.01 * rng.random(500), ("other", "x"): base}
    better, other, difference = mean_rows(values | minus(values), "time")
    assert better.low < other.high
    assert difference.model == "better minus other"
    assert 0 < difference.low < difference.value == pytest.approx(better.value - other.value)


def test_the_headline_is_everybody_as_the_first_row_is_masked() -> None:
    rows = [
        Row("m", "time", segment, masked, "x", value, None, None, 1)
        for value, (segment, masked) in enumerate([("all", True), ("cold", True), ("all", False), ("2024 all", True)])
    ]
    assert [row.value for row in headline(rows)] == [0, 3]
    assert averaged(rows, "m") == {"x": 1.5}
    assert averaged(rows, "nobody") == averaged([], "m") == {}


def test_a_ratio_is_of_sums_and_reproducible(rng: np.random.Generator) -> None:
    above, below = rng.random(50), rng.random(50) + 1
    (row,) = ratio_rows({("m", "wape"): above}, below, "time")
    assert row.value == pytest.approx(above.sum() / below.sum())
    assert row.low < row.value < row.high
    assert [row] == ratio_rows({("m", "wape"): above}, below, "time")


def test_a_ratio_over_nothing_is_no_number_and_has_no_interval() -> None:
    (row,) = ratio_rows({("m", "wape"): np.ones(3)}, np.zeros(3), "time")
    assert np.isnan(row.value)
    assert (row.low, row.high) == (None, None)


def test_nothing_to_evaluate_is_told() -> None:
    with pytest.raises(UserError, match="holds nothing to evaluate m on"):
        mean_row("m", "time", "x", np.array([]))


def test_the_last_evaluation_with_each_configuration_is_kept(tmp_path: Path) -> None:
    first, second = (Row("m", "time", "all", False, "x", value, None, None, 3) for value in (0.1, 0.2))
    assert kept(tmp_path, "recommend") == {}
    for config, row in (("best", first), ("best", second), ("linear", first)):
        keep(tmp_path, "recommend", config, [row])
    keep(tmp_path, "demand", "best", [first])
    assert kept(tmp_path, "recommend") == {"best": [second], "linear": [first]}
