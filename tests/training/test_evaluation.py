"""Bootstrap intervals hold the true value about as often as they say."""

import numpy as np
import pytest

from features.errors import UserError
from training.evaluation import mean_row, ratio_row


def test_the_interval_of_a_mean_covers_it_about_95_times_in_100(rng: np.random.Generator) -> None:
    rows = [mean_row("m", "time", "x", rng.exponential(size=80)) for _ in range(200)]
    covered = np.mean([row.low <= 1 <= row.high for row in rows])
    assert 0.88 <= covered <= 0.99


def test_a_ratio_is_of_sums_and_reproducible(rng: np.random.Generator) -> None:
    above, below = rng.random(50), rng.random(50) + 1
    row = ratio_row("m", "time", "wape", above, below)
    assert row.value == pytest.approx(above.sum() / below.sum())
    assert row.low < row.value < row.high
    assert row == ratio_row("m", "time", "wape", above, below)


def test_nothing_to_evaluate_is_told() -> None:
    with pytest.raises(UserError, match="holds nothing to evaluate m on"):
        mean_row("m", "time", "x", np.array([]))
