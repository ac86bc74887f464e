"""What every family's evaluation gives: rows of one metric each, with a bootstrap interval."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

N_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Row:
    """One metric of one model on one split: the mean over ``n`` units and its 95 % interval."""

    model: str
    split: str
    segment: str
    masked: bool
    metric: str
    value: float
    low: float
    high: float
    n: int


def mean_row(
    model: str, split: str, metric: str, values: NDArray[Any], masked: bool = False, segment: str = "all"
) -> Row:
    """The mean of one value per unit (user, series) with its percentile bootstrap interval.

    values : float array, shape (n,)
    """
    return statistic_row(
        model, split, metric, lambda chosen: float(values[chosen].mean()), len(values), masked, segment
    )


def ratio_row(
    model: str, split: str, metric: str, above: NDArray[Any], below: NDArray[Any], segment: str = "all"
) -> Row:
    """A ratio of sums such as WAPE; units are resampled whole.

    above, below : float arrays, shape (n,)
    """

    def ratio(chosen: NDArray[np.intp]) -> float:
        return float(above[chosen].sum() / below[chosen].sum())

    return statistic_row(model, split, metric, ratio, len(above), segment=segment)


def statistic_row(
    model: str,
    split: str,
    metric: str,
    statistic: Callable[[NDArray[np.intp]], float],
    n: int,
    masked: bool = False,
    segment: str = "all",
) -> Row:
    """Any statistic of chosen units with its 95 % percentile bootstrap interval (Efron, 1979), seeded.

    statistic : from indices of shape (n,) to a number
    Raises ValueError when there is no unit to evaluate.
    """
    if n == 0:
        raise ValueError(f"{model} has nothing to be evaluated on in {split}")
    rng = np.random.default_rng(0)
    resampled = [statistic(rng.integers(0, n, n)) for _ in range(N_RESAMPLES)]
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Row(model, split, segment, masked, metric, statistic(np.arange(n)), float(low), float(high), n)
