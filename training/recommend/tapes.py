"""Histories end to end on tapes, so that every step of training has one shape and little is padded."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.histories import Histories


class Tapes(NamedTuple):
    """Stretches of events end to end on tapes of one length; all of shape (n_tapes, T).

    places : int64, of each event among the log's
    n_before : int64, events of its own stretch before it
    is_event : bool, False where a tape is blank
    """

    places: NDArray[np.int64]
    n_before: NDArray[np.int64]
    is_event: NDArray[np.bool_]


def laid(starts: NDArray[np.int64], lengths: NDArray[np.int64], n_tapes: int, block: int) -> Tapes:
    """Stretches of up to ``block`` events on tapes of equal share, one that begins in a tape's share whole on it.

    >>> laid(np.array([0, 5, 9]), np.array([2, 3, 1]), 2, 4).places
    array([[0, 1, 5, 6, 7, 0, 0, 0],
           [9, 0, 0, 0, 0, 0, 0, 0]])
    """
    n_events = int(lengths.sum())
    begins = np.cumsum(lengths) - lengths
    tape = begins * n_tapes // max(1, n_events)
    column = begins - begins[np.searchsorted(tape, tape)]
    shape = n_tapes, (n_events // max(1, n_tapes) // block + 2) * block
    n_before = np.arange(n_events) - np.repeat(begins, lengths)
    where = np.repeat(tape * shape[1] + column, lengths) + n_before
    tapes = Tapes(np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape, bool))
    tapes.places.flat[where] = np.repeat(starts, lengths) + n_before
    tapes.n_before.flat[where] = n_before
    tapes.is_event.flat[where] = True
    return tapes


def stretches(
    histories: Histories, max_length: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Starts and lengths, int64 (n,), of the events from which the next are predicted.

    Every event but each person's first is predicted once, from at most ``max_length`` before it; longer histories are
    cut at random places.
    """
    starts, lengths = histories.starts[:-1], np.maximum(histories.lengths - 1, 0)
    first = np.where(lengths > max_length, rng.integers(1, max_length + 1, len(lengths)), lengths)
    n_more = -(-(lengths - first) // max_length)
    number = np.arange(n_more.sum()) - np.repeat(np.cumsum(n_more) - n_more, n_more)
    offsets = np.repeat(first, n_more) + number * max_length
    more_lengths = np.minimum(max_length, np.repeat(lengths, n_more) - offsets)
    all_starts = np.concatenate([starts, np.repeat(starts, n_more) + offsets])
    all_lengths = np.concatenate([first, more_lengths])
    return all_starts[all_lengths > 0], all_lengths[all_lengths > 0]
