"""What every family's evaluation gives: rows of one metric each, with a bootstrap interval."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.errors import UserError

N_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Row:
    """One metric of one model on one split: its value over ``n`` units and its 95 % interval, if it has one."""

    model: str
    split: str
    segment: str
    masked: bool
    metric: str
    value: float
    low: float | None
    high: float | None
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
        whole = below[chosen].sum()
        return float(above[chosen].sum() / whole) if whole else float("nan")

    return statistic_row(model, split, metric, ratio, len(above), segment=segment)


def statistic_row(
    model: str,
    split: str,
    metric: str,
    statistic: Callable[[NDArray[np.intp]], float],
    n: int,
    masked: bool = False,
    segment: str = "all",
    resampled: bool = True,
) -> Row:
    """Any statistic of chosen units with its 95 % percentile bootstrap interval (Efron, 1979), seeded.

    statistic : from indices of shape (n,) to a number
    resampled : False for a statistic that resampling shifts, such as a calibration error: it has no interval
    Raises UserError when there is no unit to evaluate.
    """
    if n == 0:
        raise UserError(f"the window of the {split} split holds nothing to evaluate {model} on: choose another --until")
    low, high = _interval(statistic, n) if resampled else (None, None)
    return Row(model, split, segment, masked, metric, statistic(np.arange(n)), low, high, n)


def _interval(statistic: Callable[[NDArray[np.intp]], float], n: int) -> tuple[float | None, float | None]:
    rng = np.random.default_rng(0)
    found = np.array([statistic(rng.integers(0, n, n)) for _ in range(N_RESAMPLES)])
    finite = found[np.isfinite(found)]
    if not len(finite):
        return None, None
    low, high = np.percentile(finite, [2.5, 97.5])
    return float(low), float(high)


def recorded(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Rows as they were written to JSON, where a value that is not a number stands as null."""
    return [Row(**{**row, "value": float("nan") if row["value"] is None else row["value"]}) for row in rows]


def averaged(rows: Sequence[Row], model: str) -> dict[str, float]:
    """Each metric of a model, averaged over its windows."""
    metrics = dict.fromkeys(row.metric for row in rows if row.model == model)
    return {m: fmean(row.value for row in rows if (row.model, row.metric) == (model, m)) for m in metrics}
