"""Judges the targets of a version on a window's truth, beside their base rate and the regressions of ``fit``."""

from collections.abc import Iterator
from datetime import timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.errors import UserError
from features.targets import Examples
from features.units import UNITS
from features.windows import Window
from serving.propensity import PropensityScorer, TargetModel
from serving.regression import Regression
from training import classification
from training.classification import METRICS
from training.evaluation import PERCENTILES, Row
from training.propensity.config import PropensityConfig
from training.propensity.fit import RULES

WHOLE = "propensity"
"""The model of all targets together."""
GATE = "relative_log_loss"
"""Log loss over that of the base rate, averaged over targets; one that is absent, or not judged, knows nothing, 1."""
N_RESAMPLES = 200
STEPS = (1, 3, 5)
WEEK = np.timedelta64(7, "D")

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def evaluate(scorer: PropensityScorer, window: Window, config: PropensityConfig, split: str) -> list[Row]:
    """METRICS of every target's model, of its base rate and of its regressions, over all, by step of a visit, by week.

    Rows are named by the target, those of others ``TARGET base_rate`` and so on; intervals resample whole customers or
    visitors. The first row is the gate's.

    Visits are judged with what was known of people and items when each event happened; the service knows what was known
    when the model was trained.

    Raises UserError when the scorer does not start where the window does, or no outcome at all is certain within it.
    """
    rows: list[Row] = []
    for model in scorer.targets.values():
        _require_start(model, window)
        examples = _examples(model, window, config)
        if len(examples):
            rows += _target_rows(scorer, model, examples, split)
    if not rows:
        raise UserError(
            f"no outcome of {', '.join(scorer.targets)} is certain between {window.as_of:%Y-%m-%d} and "
            f"{window.end:%Y-%m-%d}: raise window_days above the horizons, or choose another --until"
        )
    return [_whole(rows, config, split), *rows]


def _require_start(model: TargetModel, window: Window) -> None:
    if model.as_of != window.as_of.isoformat():
        raise UserError(
            f"the model of {model.name} answers from {model.as_of} on, the window begins at "
            f"{window.as_of.isoformat()}: evaluate on a window that begins where the model ends"
        )


def _examples(model: TargetModel, window: Window, config: PropensityConfig) -> Examples:
    target, step = config.targets[model.name], timedelta(days=config.model(model.name).step_days)
    return UNITS[target.unit].examples(window.truth, target, window.as_of, window.end, step)


def _target_rows(scorer: PropensityScorer, model: TargetModel, examples: Examples, split: str) -> list[Row]:
    rows, outcome = model.encoder.matrix(examples.table), examples.outcome
    predicted = {
        model.name: model.scoring.probabilities(rows),
        f"{model.name} base_rate": np.full(len(rows), model.base_rate),
    }
    for rule in RULES:
        regression = Regression.load(scorer.artifact, f"{model.name}.{rule}")
        predicted[f"{model.name} {rule}"] = regression.probabilities(rows)
    of = clusters(examples.table[UNITS[model.unit].keys[0]])
    return [
        row
        for segment, chosen in _segments(model, examples)
        for named, probability in predicted.items()
        if named == model.name or not segment.startswith("week")
        for row in _rows(named, split, segment, probability[chosen], outcome[chosen], of[chosen])
    ]


def _segments(model: TargetModel, examples: Examples) -> Iterator[tuple[str, Bools]]:
    yield "all", np.ones(len(examples), np.bool_)
    if model.unit == "session":
        n_events = examples.table["n_events"].to_numpy()
        yield from ((f"step {step}", n_events == step) for step in STEPS if (n_events == step).any())
    weeks = (examples.moment - examples.moment.min()) // WEEK
    if weeks.max() > 0:
        for week in np.unique(weeks):
            begins = (examples.moment.min() + week * WEEK).astype("datetime64[D]")
            yield f"week {begins}", weeks == week


def clusters(keys: pa.ChunkedArray) -> NDArray[np.int64]:
    """A number per row, the same where the key is."""
    return np.asarray(keys.combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False), np.int64)


def _rows(
    model: str, split: str, segment: str, probability: Floats, outcome: Bools, cluster: NDArray[np.int64]
) -> list[Row]:
    return [
        Row(model, split, segment, False, name, value, *_told(name, low, high), len(outcome))
        for name, (value, low, high) in measured(probability, outcome, cluster).items()
    ]


def _told(name: str, low: float, high: float) -> tuple[float | None, float | None]:
    """No interval of the calibration error, which resampling shifts."""
    return (None, None) if name == "ece_15" else (low, high)


def measured(probability: Floats, outcome: Bools, cluster: NDArray[np.int64]) -> dict[str, tuple[float, float, float]]:
    """Each of METRICS with its 95 % percentile bootstrap interval; clusters are resampled whole.

    probability : float64, shape (n,)
    outcome : bool, shape (n,)
    cluster : int64, shape (n,)   whose row it is
    """
    levels, level_of = classification.levels(probability)
    distinct, cluster_of = np.unique(cluster, return_inverse=True)

    def weighted(weight: Floats) -> list[float]:
        positives, totals = (
            np.bincount(level_of, weights, len(levels)).astype(np.float64) for weights in (weight * outcome, weight)
        )
        return [metric(levels, positives, totals) for metric in METRICS.values()]

    rng = np.random.default_rng(0)
    resampled = [weighted(_drawn(rng, len(distinct))[cluster_of]) for _ in range(N_RESAMPLES)]
    found = zip(METRICS, weighted(np.ones(len(outcome))), *np.percentile(resampled, PERCENTILES, axis=0), strict=True)
    return {name: (value, float(low), float(high)) for name, value, low, high in found}


def _drawn(rng: np.random.Generator, n: int) -> Floats:
    """How often each of n is among n drawn with replacement."""
    return np.bincount(rng.integers(0, n, n), minlength=n).astype(np.float64)


def _whole(rows: list[Row], config: PropensityConfig, split: str) -> Row:
    """The interval is that of the models' own losses."""
    losses = {row.model: row for row in rows if row.metric == "log_loss" and row.segment == "all"}
    judged = [(losses[name], losses[f"{name} base_rate"].value) for name in config.targets if name in losses]
    n_absent = len(config.targets) - len(judged)
    value, low, high = (
        (sum(getattr(row, bound) / base for row, base in judged) + n_absent) / len(config.targets)
        for bound in ("value", "low", "high")
    )
    return Row(WHOLE, split, "all", False, GATE, value, low, high, sum(row.n for row, _ in judged))
