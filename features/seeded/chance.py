"""Draws in proportion to weights."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Lottery:
    """Draws indices in proportion to weights, each from a block of neighbours.

    >>> Lottery(np.array([1.0, 0.0, 1.0])).draw(np.array([1]), np.array([3]), np.random.default_rng(0))
    array([2])
    """

    def __init__(self, weights: Floats) -> None:
        self.weights = weights
        self.cumulative = np.concatenate([[0.0], np.cumsum(weights)])

    def draw(self, first: Ints, end: Ints, rng: np.random.Generator) -> Ints:
        """One index in [first, end) for each pair of bounds.

        first, end : int arrays, shape (n,); the weights of a block must not all be 0
        """
        low, high = self.cumulative[first], self.cumulative[end]
        found = np.searchsorted(self.cumulative, low + rng.random(len(first)) * (high - low), side="right") - 1
        return np.asarray(np.minimum(found, end - 1))


def choose(shares: Floats, n: int, rng: np.random.Generator) -> Ints:
    """Indices into shares, which sum to 1, drawn in proportion to them."""
    return np.asarray(np.searchsorted(np.cumsum(shares)[:-1], rng.random(n), side="right"))
