"""Judges forecasts on a window's truth, beside simple rules: points, quantiles, coverage and whole-horizon totals.

What each step of the work adds (forecast value added) is judged too: the naive rule, the statistical forecast, the
model, and the planner's overrides where there were any. Source: Gilliland, "The Business Forecasting Deal", 2010.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from statistics import fmean
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features import overrides
from features.demand import level
from features.demand_classes import Classes, pattern
from features.errors import UserError
from features.panels import Floats, Panel, outcome
from features.periods import SEASON, first_day, number
from features.windows import Window
from serving.counts import slow_quantiles
from serving.demand import SPARSE, Forecaster
from serving.paths import Dependence, paths
from serving.smoothing import MEMBERS, around
from training.evaluation import Row, mean_rows, ratio_rows

NAME = "trees"
LADDER = ("seasonal_naive", "theta", NAME)
"""Steps of the work, each of which must earn its keep: naive, statistical, model."""
OVERRIDE = "override"
OVERRIDDEN = "overridden"
"""Segment of the series and periods for which a planner said the units."""
VALUE_ADDED = "value_added"
"""WAPE of the step before less a step's own: above 0 the step is worth its work."""
N_NAIVE = 4
N_PAST_ORIGINS = 8
N_PATHS = 200
SERIES_AT_ONCE = 5_000

Baseline = Callable[[Panel, int], Floats]


class Judged(NamedTuple):
    """A model's forecasts: point [n_series, n_steps] and quantiles [n_series, n_steps, n_quantiles], units."""

    point: Floats
    quantiles: Floats


def evaluate(forecaster: Forecaster, window: Window, split: str, planned: pa.Table = overrides.NONE) -> list[Row]:
    """WAPE, bias, pinball loss and coverage of the model and of baselines in a window, and what each step adds.

    The forecasts are computed from the window's past, so a model may be judged on any window after its training. Bias
    is sum(forecast - actual) / sum(actual); pinball losses are sums over the sum of actuals, ``pinball`` is their mean;
    coverage is of each pair of quantiles around the median, ``_total`` of the sum over the horizon; ``value_added`` is
    the WAPE of the step before less that of the step, see ``LADDER``. Periods not whole in the window are left out, and
    those in which an item was not on sale all the time: what would have been bought is not known. Segments are classes
    of demand, ``overridden``: the series and periods that ``planned`` holds, and ``sparse``, which are in no other.
    Intervals resample series.

    planned : the overrides that stood at the window's ``as_of``, as from ``features.overrides.standing``
    Raises UserError when the model was trained on part of the window or no period is whole.
    """
    if forecaster.cutoff > f"{window.as_of:%Y-%m-%d}":
        raise UserError(
            f"the model knows everything before {forecaster.cutoff} and the window starts at {window.as_of:%Y-%m-%d}: "
            "choose a later window or an earlier model"
        )
    known = forecaster.panel(window.past, window.as_of, window.known_future)
    steps = _whole_steps(known, window)
    eligible = known.eligible(known.n_periods)
    sold, exposure = (values[eligible][:, steps] for values in outcome(window.truth, window.end, known))
    actual = np.where(exposure >= 1, sold, np.float32(np.nan))
    values = forecaster.forecast(known)
    own = Judged(values[:, :, 0], values[:, :, 1:])
    judged = {
        name: Judged(one.point[:, steps], one.quantiles[:, steps])
        for name, one in {NAME: own, **baselines(known, forecaster.quantiles)}.items()
    }
    rows: list[Row] = []
    for segment, chosen in _segments(pattern(known.demand[eligible])):
        rows += _compared(judged, actual, chosen, forecaster.quantiles, split, segment)
        whole = chosen & ~np.isnan(actual).any(axis=1)
        if whole.any():
            ahead = values[whole][:, steps, 1:]
            inside = covered_totals(ahead, actual[whole], forecaster.quantiles, forecaster.dependence)
            rows += mean_rows({(NAME, f"{name}_total"): hit for name, hit in inside.items()}, split, segment=segment)
    rows += _sparse(forecaster, window, known, steps, split)
    units = _planned_units(planned, known)[:, steps]
    return rows + _overridden(judged, units, actual, forecaster.quantiles, split)


def _sparse(forecaster: Forecaster, window: Window, known: Panel, steps: NDArray[np.intp], split: str) -> list[Row]:
    keys, values = forecaster.sparse(window.past, window.as_of, known)
    if not keys:
        return []
    sold, exposure = (found[:, steps] for found in outcome(window.truth, window.end, known, keys))
    actual = np.where(exposure >= 1, sold, np.float32(np.nan))
    judged = Judged(values[:, steps, 0], values[:, steps, 1:])
    return rows_of(SPARSE, split, judged, actual, forecaster.quantiles, SPARSE)


def _compared(
    judged: Mapping[str, Judged],
    actual: Floats,
    chosen: NDArray[np.bool_],
    quantiles: Sequence[float],
    split: str,
    segment: str,
) -> list[Row]:
    """Rows of every model on the chosen series, and what the steps of the ladder add to one another."""
    parts = {name: Judged(one.point[chosen], one.quantiles[chosen]) for name, one in judged.items()}
    rows = [
        row for name, part in parts.items() for row in rows_of(name, split, part, actual[chosen], quantiles, segment)
    ]
    return rows + value_added({name: parts[name].point for name in LADDER}, actual[chosen], split, segment)


def _overridden(
    judged: Mapping[str, Judged], units: Floats, actual: Floats, quantiles: Sequence[float], split: str
) -> list[Row]:
    """The same where a planner said the units, and what the planner adds to the model."""
    actual = np.where(np.isnan(units), np.float32(np.nan), actual)
    chosen = np.isfinite(actual).sum(axis=1) > 0
    if not chosen.any():
        return []
    rows = _compared(judged, actual, chosen, quantiles, split, OVERRIDDEN)
    units, actual = units[chosen], actual[chosen]
    sums = {(OVERRIDE, metric): above for metric, above in _errors_of(units, actual).items()}
    rows += ratio_rows(sums, np.nansum(actual, axis=1), split, OVERRIDDEN)
    return rows + value_added({NAME: judged[NAME].point[chosen], OVERRIDE: units}, actual, split, OVERRIDDEN)


def _planned_units(planned: pa.Table, known: Panel) -> Floats:
    """What was planned of the series that a forecast covers, shape (n_eligible, horizon), units; NaN is nothing."""
    rows = np.flatnonzero(known.eligible(known.n_periods))
    keys = [(known.item_ids[row], known.location_ids[row]) for row in rows]
    placed = overrides.rows_of(planned, keys, known.dates[known.n_periods :])
    return overrides.units_of(planned, placed).astype(np.float32)


def value_added(steps: Mapping[str, Floats], actual: Floats, split: str, segment: str = "all") -> list[Row]:
    """What each step but the first takes off the WAPE of the step before, paired: both are resampled together.

    steps : points [n_series, n_steps] by name, in the order of the work
    actual : [n_series, n_steps], NaN where it is not known
    """
    errors = {name: _errors_of(point, actual)["wape"] for name, point in steps.items()}
    gains = {(name, VALUE_ADDED): errors[before] - errors[name] for before, name in pairwise(errors)}
    return ratio_rows(gains, np.nansum(actual, axis=1), split, segment)


def _segments(patterns: Classes) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    yield "all", np.ones(len(patterns), bool)
    for name in np.unique(patterns).tolist():
        yield name, patterns == name


def _whole_steps(known: Panel, window: Window) -> NDArray[np.intp]:
    """The steps of the horizon whose periods lie wholly within the window."""
    starts = known.dates[known.n_periods :].astype("datetime64[us]")
    after = number(known.dates[known.n_periods :], known.frequency) + 1
    ends = first_day(after, known.frequency).astype("datetime64[us]")
    since, until = (np.datetime64(instant.replace(tzinfo=None)) for instant in (window.as_of, window.end))
    steps = np.flatnonzero((starts >= since) & (ends <= until))
    if not len(steps):
        raise UserError(f"the window {window.name} holds no whole {known.frequency} of the horizon: make it longer")
    return steps


def rows_of(
    name: str, split: str, judged: Judged, actual: Floats, quantiles: Sequence[float], segment: str = "all"
) -> list[Row]:
    """Rows of one model; ``actual`` [n_series, n_steps] is NaN where it is not known."""
    losses = {
        f"pinball_{quantile:g}": pinball(judged.quantiles[:, :, column], actual, quantile)
        for column, quantile in enumerate(quantiles)
    }
    sums = _errors_of(judged.point, actual)
    sums |= {"pinball": np.mean([*losses.values()], axis=0), **losses}
    ratios = ratio_rows(
        {(name, metric): above for metric, above in sums.items()}, np.nansum(actual, axis=1), split, segment
    )
    there = ~np.isnan(actual)
    weights = there.sum(axis=1)
    inside = {
        (name, f"coverage_{round(100 * (quantiles[-1 - k] - quantiles[k]))}"): (
            (judged.quantiles[:, :, k] <= actual) & (actual <= judged.quantiles[:, :, -1 - k])
        ).sum(axis=1)
        for k in range(len(quantiles) // 2)
    }
    covered = ratio_rows(inside, weights, split, segment)
    off = coverage_error(judged.quantiles, actual, quantiles)
    return [*ratios, *covered, replace(covered[0], metric="coverage_error", value=off, low=None, high=None)]


def coverage_error(units: Floats, actual: Floats, quantiles: Sequence[float]) -> float:
    """How far the intervals' shares of what came are from what they promise, in shares, the mean over the intervals.

    Demand in whole units often equals an interval's end, so that the right interval holds more than it promises with
    its ends and less without them: only a promise beyond both is in error, by its distance from the nearer.

    units : float32, shape (S, H, Q), ascending over Q
    actual : float32, shape (S, H), NaN where not known
    Returns a share; NaN where nothing is known.

    >>> tossed, ends = np.float32([[0, 1, 0, 1]]), np.tile(np.float32([0, 0, 1]), (1, 4, 1))
    >>> coverage_error(ends, tossed, (0.1, 0.5, 0.9)), coverage_error(ends + 0.5, tossed, (0.2, 0.5, 0.95))
    (0.0, 0.25)
    """
    known = ~np.isnan(actual)
    if not known.any():
        return float("nan")
    errors = []
    for k in range(len(quantiles) // 2):
        low, high, came = units[:, :, k][known], units[:, :, -1 - k][known], actual[known]
        least, most = ((low < came) & (came < high)).mean(), ((low <= came) & (came <= high)).mean()
        promised = quantiles[-1 - k] - quantiles[k]
        errors.append(max(least - promised, promised - most, 0.0))
    return fmean(errors)


def _errors_of(point: Floats, actual: Floats) -> dict[str, Floats]:
    """Sums per series, shape (n_series,), units: of absolute errors and of errors."""
    error = point - actual
    return {"wape": np.nansum(np.abs(error), axis=1), "bias": np.nansum(error, axis=1)}


def pinball(units: Floats, actual: Floats, quantile: float) -> Floats:
    """Pinball loss per series, shape (n_series,), units; Koenker and Bassett, "Regression Quantiles", 1978."""
    short = actual - units
    losses: Floats = np.nansum(np.maximum(quantile * short, (quantile - 1) * short), axis=1)
    return losses


def covered_totals(
    units: Floats, actual: Floats, quantiles: Sequence[float], tied: Dependence
) -> dict[str, NDArray[np.bool_]]:
    """Whether sums over the horizon lie between the quantiles of their sample paths."""
    total = actual.sum(axis=1)
    totals = [
        np.quantile(
            paths(units[rows], quantiles, tied.scores(len(rows), N_PATHS, seed=0)[:, :, : units.shape[1]]).sum(axis=2),
            quantiles,
            axis=1,
        )
        for rows in np.array_split(np.arange(len(units)), max(1, len(units) // SERIES_AT_ONCE))
    ]
    found = np.concatenate(totals, axis=1)
    return {
        f"coverage_{round(100 * (quantiles[-1 - k] - quantiles[k]))}": (found[k] <= total) & (total <= found[-1 - k])
        for k in range(len(quantiles) // 2)
    }


def baselines(known: Panel, quantiles: Sequence[float]) -> dict[str, Judged]:
    """Simple rules and statistical forecasts, of slow sellers too, for the series that a forecast covers.

    ``counts`` is a negative binomial around a discounted rate. The quantiles of the others are their point plus
    quantiles of their own errors at past origins, pooled over series in levels.
    """
    rules: dict[str, Baseline] = {
        "seasonal_naive": _seasonal_naive,
        "mean_4": _mean_4,
        "theta": partial(_smoothed, "theta"),
        "tsb": partial(_smoothed, "tsb"),
        "croston_sba": partial(_smoothed, "croston_sba"),
    }
    return {name: _judged(known, quantiles, rule) for name, rule in rules.items()} | {
        "counts": _counts(known, quantiles)
    }


def _smoothed(member: str, known: Panel, origin: int) -> Floats:
    ahead = MEMBERS[member].forecast(known.demand[:, :origin], known.horizon, SEASON[known.frequency])
    return ahead.astype(np.float32)


def _counts(known: Panel, quantiles: Sequence[float]) -> Judged:
    past = known.demand[known.eligible(known.n_periods)]
    one_class = np.zeros(len(past), np.int64)
    ahead = slow_quantiles(past, known.horizon, np.array(quantiles), one_class).astype(np.float32)
    return Judged(ahead[:, :, quantiles.index(0.5)], ahead)


def _judged(known: Panel, quantiles: Sequence[float], baseline: Baseline) -> Judged:
    errors = np.concatenate([_errors(known, origin, baseline) for origin in _past_origins(known)])
    eligible = known.eligible(known.n_periods)
    point = baseline(known, known.n_periods)[eligible]
    scale = level(known, known.n_periods)[eligible, None]
    ahead = around(point / scale, errors, np.array(quantiles)) * scale[:, :, None]
    return Judged(point, ahead.astype(np.float32))


def _past_origins(known: Panel) -> list[int]:
    first, last = max(N_NAIVE, known.n_periods // 2), known.n_periods - known.horizon
    return sorted({round(origin) for origin in np.linspace(first, last, N_PAST_ORIGINS).tolist()})


def _errors(known: Panel, origin: int, baseline: Baseline) -> Floats:
    eligible = known.eligible(origin)
    actual = known.demand[eligible, origin : origin + known.horizon]
    errors: Floats = (actual - baseline(known, origin)[eligible]) / level(known, origin)[eligible, None]
    return errors


def _seasonal_naive(known: Panel, origin: int) -> Floats:
    """The period one season earlier; the last four in turn where the history is shorter."""
    season = SEASON[known.frequency]
    season = season if origin >= season else min(N_NAIVE, origin)
    steps = np.arange(known.horizon) % season
    return np.nan_to_num(known.sold[:, origin - season + steps])


def _mean_4(known: Panel, origin: int) -> Floats:
    recent = np.nan_to_num(known.sold[:, max(0, origin - N_NAIVE) : origin])
    return np.repeat(recent.mean(axis=1, keepdims=True), known.horizon, axis=1)
