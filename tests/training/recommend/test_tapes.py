"""Histories lie whole on tapes, and every event but each first is predicted once."""

import numpy as np
import pytest

from features.histories import Histories
from training.recommend.tapes import laid, stretches


@pytest.mark.parametrize("n_tapes", [1, 3, 7])
def test_every_stretch_lies_whole_on_one_tape(n_tapes: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 9, 40)
    starts = np.arange(40) * 100
    tapes = laid(starts, lengths, n_tapes, 8)
    assert tapes.is_event.sum() == lengths.sum()
    assert tapes.places.shape[1] % 8 == 0
    beginnings = tapes.is_event & (tapes.n_before == 0)
    order = np.searchsorted(starts, tapes.places[beginnings])
    np.testing.assert_array_equal(order, np.arange(40))
    for tape, column, stretch in zip(*np.nonzero(beginnings), order, strict=True):
        columns = slice(column, column + lengths[stretch])
        np.testing.assert_array_equal(tapes.places[tape, columns], starts[stretch] + np.arange(lengths[stretch]))
        np.testing.assert_array_equal(tapes.n_before[tape, columns], np.arange(lengths[stretch]))


@pytest.mark.parametrize("max_length", [1, 3, 50])
def test_every_event_but_each_first_is_predicted_once(max_length: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 20, 60)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    n = int(starts[-1])
    histories = Histories(starts, np.zeros(n, np.int32), np.zeros(n, np.int8), np.zeros(n, np.float32))
    starts, lengths = stretches(histories, max_length, np.random.default_rng(3))
    assert (lengths >= 1).all()
    assert (lengths <= max_length).all()
    predicted = np.concatenate([start + 1 + np.arange(n) for start, n in zip(starts, lengths, strict=True)])
    expected = np.setdiff1d(np.arange(len(histories)), histories.starts[:-1])
    np.testing.assert_array_equal(np.sort(predicted), expected)
