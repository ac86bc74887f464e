"""The best are the best, whether blocks are looked at first or not."""

import numpy as np
import pytest

from serving import ranking
from serving.ranking import top


@pytest.mark.parametrize("n_columns", [1, 7, 64, 640, 1000])
@pytest.mark.parametrize("n", [1, 3, 100])
@pytest.mark.parametrize("n_levels", [3, 10**9])
def test_the_best_are_found(n_columns: int, n: int, n_levels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "WORTH", 1)
    scores = np.random.default_rng(0).integers(n_levels, size=(5, n_columns)).astype(np.float32)
    scores[:, ::3] = -np.inf
    found = top(scores, n)
    assert all(len(set(row)) == min(n, n_columns) for row in found)
    values = np.sort(np.take_along_axis(scores, found, 1))
    np.testing.assert_array_equal(values, np.sort(scores)[:, -min(n, n_columns) :])


@pytest.mark.parametrize("n_columns", [100, 10_000])
def test_of_nobody_there_is_nothing_best(n_columns: int) -> None:
    assert top(np.empty((0, n_columns)), 10).shape == (0, 10)
