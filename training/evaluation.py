"""What every family's evaluation gives: rows of one metric each, with a bootstrap interval."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from features.errors import UserError

N_RESAMPLES = 1000
RESAMPLES_AT_ONCE = 50
PERCENTILES = (2.5, 97.5)
MINUS = " minus "
"""Stands between the models of a difference."""


KEPT = "evaluations.jsonl"
"""File of a shop's folder to which every evaluation adds a line."""


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


def keep(folder: Path, task: str, what: str, rows: Sequence[Row]) -> None:
    """Add the rows of an evaluation to those kept in a shop's folder.

    what : the configuration and all that was asked for with it
    """
    line = {"task": task, "what": what, "rows": rows}
    with (folder / KEPT).open("ab") as file:
        file.write(orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE))


def kept(folder: Path, task: str) -> dict[str, list[Row]]:
    """The rows of a task's last evaluation of each kind, by what was asked for."""
    lines = (folder / KEPT).read_bytes().splitlines() if (folder / KEPT).is_file() else []
    found = [orjson.loads(line) for line in lines]
    return {each["what"]: recorded(each["rows"]) for each in found if each["task"] == task}


def mean_row(
    model: str, split: str, metric: str, values: NDArray[Any], masked: bool = False, segment: str = "all"
) -> Row:
    """The mean of one value per unit (user, series) with its percentile bootstrap interval.

    values : float array, shape (n,)
    """
    return mean_rows({(model, metric): values}, split, masked, segment)[0]


def mean_rows(
    values: Mapping[tuple[str, str], NDArray[Any]], split: str, masked: bool = False, segment: str = "all"
) -> list[Row]:
    """``mean_row`` of several (model, metric) over the same units, which are resampled together.

    Raises UserError when there is no unit to evaluate.
    """
    columns = np.column_stack([*values.values()])
    _require_units(len(columns), split, next(iter(values))[0])
    lows, highs = np.percentile(_resampled_means(columns), PERCENTILES, axis=0)
    return [
        Row(model, split, segment, masked, metric, float(value), float(low), float(high), len(columns))
        for (model, metric), value, low, high in zip(values, columns.mean(axis=0), lows, highs, strict=True)
    ]


def _resampled_means(columns: NDArray[Any]) -> NDArray[np.float64]:
    """Means over units drawn with replacement, shape (N_RESAMPLES, n_columns).

    One product of how often each unit was drawn with all columns.
    """
    rng, n = np.random.default_rng(0), len(columns)
    counts = np.empty((RESAMPLES_AT_ONCE, n))
    found = []
    for _ in range(N_RESAMPLES // RESAMPLES_AT_ONCE):
        for row in counts:
            row[:] = np.bincount(rng.integers(0, n, n), minlength=n)
        found.append(counts @ columns / n)
    return np.concatenate(found)


def minus(values: Mapping[tuple[str, str], NDArray[Any]]) -> dict[tuple[str, str], NDArray[Any]]:
    """What the first model has more than each other one, unit by unit, under the name "FIRST minus OTHER".

    The interval of such a difference is a paired comparison: when 0 is outside, the models are apart.

    >>> minus({("a", "recall"): np.array([1.0, 0.5]), ("b", "recall"): np.array([1.0, 0.0])})
    {('a minus b', 'recall'): array([0. , 0.5])}
    """
    first, _ = next(iter(values))
    others = ((model, metric) for model, metric in values if model != first)
    return {(f"{first}{MINUS}{model}", m): values[first, m] - values[model, m] for model, m in others}


def ratio_rows(
    above: Mapping[tuple[str, str], NDArray[Any]],
    below: NDArray[Any],
    split: str,
    segment: str = "all",
    masked: bool = False,
) -> list[Row]:
    """Ratios of sums such as WAPE over the same units, which are resampled whole and together.

    above : by (model, metric), float arrays of shape (n,)
    below : float array, shape (n,)
    Raises UserError when there is no unit to evaluate.
    """
    columns = np.column_stack([below, *above.values()]).astype(np.float64)
    _require_units(len(columns), split, next(iter(above))[0])
    whole, *sums = columns.mean(axis=0)
    resampled = _resampled_means(columns)
    lows, highs = _bounds(_over(resampled[:, 1:], resampled[:, :1]))
    return [
        Row(model, split, segment, masked, metric, float(_over(value, whole)), low, high, len(columns))
        for (model, metric), value, low, high in zip(above, sums, lows, highs, strict=True)
    ]


def _bounds(resampled: NDArray[np.float64]) -> tuple[list[float | None], list[float | None]]:
    """The interval of each column over what was resampled and is a number; None where nothing is."""
    known = resampled[np.isfinite(resampled).all(axis=1)]
    if not len(known):
        nothing: list[float | None] = [None] * resampled.shape[1]
        return nothing, nothing
    low, high = np.percentile(known, PERCENTILES, axis=0).tolist()
    return low, high


def _over(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    """NaN over nothing."""
    return np.asarray(np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below != 0))


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
    _require_units(n, split, model)
    low, high = _interval(statistic, n) if resampled else (None, None)
    return Row(model, split, segment, masked, metric, statistic(np.arange(n)), low, high, n)


def _require_units(n: int, split: str, model: str) -> None:
    if n == 0:
        raise UserError(f"the window of the {split} split holds nothing to evaluate {model} on: choose another --until")


def _interval(statistic: Callable[[NDArray[np.intp]], float], n: int) -> tuple[float | None, float | None]:
    rng = np.random.default_rng(0)
    found = np.array([statistic(rng.integers(0, n, n)) for _ in range(N_RESAMPLES)])
    finite = found[np.isfinite(found)]
    if not len(finite):
        return None, None
    low, high = np.percentile(finite, PERCENTILES)
    return float(low), float(high)


def recorded(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Rows as they were written to JSON, where a value that is not a number stands as null."""
    return [Row(**{**row, "value": float("nan") if row["value"] is None else row["value"]}) for row in rows]


def headline(rows: Sequence[Row]) -> list[Row]:
    """The rows that speak of everybody, masked as the first row is: an evaluation begins with what it is judged by."""
    return [row for row in rows if row.masked == rows[0].masked and row.segment.split()[-1] == "all"]


def averaged(rows: Sequence[Row], model: str) -> dict[str, float]:
    """Each metric of a model over everybody, averaged over its windows."""
    own = [row for row in headline(rows) if row.model == model]
    return {m: fmean(row.value for row in own if row.metric == m) for m in dict.fromkeys(row.metric for row in own)}
