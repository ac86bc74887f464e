"""The best of many scores."""

import numpy as np
from numpy.typing import NDArray

BLOCK = 64
"""Scores of which the highest is looked for at once."""
WORTH = 8
"""So many times as many blocks as scores that are wanted make it worth looking at blocks first."""


def top(scores: NDArray[np.floating], n: int) -> NDArray[np.int64]:
    """The ``n`` best of each row in no order, int64, shape (n_rows, min(n, n_columns)).

    They lie in the blocks with the ``n`` highest maxima, and maxima are found at the speed of memory.

    scores : shape (n_rows, n_columns)

    >>> np.sort(top(np.array([[0.1, 0.4, 0.3]]), 2))
    array([[1, 2]])
    """
    n_rows, n_columns = scores.shape
    n, n_blocks = min(n, n_columns), n_columns // BLOCK
    if n_blocks < WORTH * n:
        return np.argpartition(scores, n_columns - n, axis=1)[:, n_columns - n :]
    rest = np.arange(n_blocks * BLOCK, n_columns)
    maxima = scores[:, : n_blocks * BLOCK].reshape(n_rows, n_blocks, BLOCK).max(axis=2)
    blocks = np.argpartition(maxima, n_blocks - n, axis=1)[:, n_blocks - n :]
    within = (blocks[:, :, None] * BLOCK + np.arange(BLOCK)).reshape(n_rows, n * BLOCK)
    candidates = np.concatenate([within, np.broadcast_to(rest, (n_rows, len(rest)))], axis=1)
    found = np.take_along_axis(scores, candidates, axis=1)
    places = np.argpartition(found, found.shape[1] - n, axis=1)[:, found.shape[1] - n :]
    return np.take_along_axis(candidates, places, axis=1)
