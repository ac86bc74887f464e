"""Whether a version still holds: features, calibration and rates since it was trained."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from features.engine import Engine
from features.targets import Examples
from features.units import UNITS
from serving.propensity import PropensityScorer, TargetModel
from training.propensity.config import PropensityConfig
from training.propensity.drift import stability_indices
from training.propensity.evaluation import clusters, measured


@dataclass(frozen=True, slots=True)
class Finding:
    """One measure of a target since its model was trained, and whether it is past its limit.

    limit : "" for a target of which nothing is certain yet
    """

    target: str
    measure: str
    value: float
    limit: str
    is_past: bool


def monitor(scorer: PropensityScorer, log: Engine, config: PropensityConfig, until: datetime) -> list[Finding]:
    """The measures of every target on the examples asked since its model was trained and certain by ``until``.

    ``stability of FEATURE`` (population stability index), ``predicted_over_observed`` and ``rate_over_base_rate``; the
    last two are past their limit when their whole 95 % interval is.
    """
    return [finding for model in scorer.targets.values() for finding in _of_target(scorer, model, log, config, until)]


def _of_target(
    scorer: PropensityScorer, model: TargetModel, log: Engine, config: PropensityConfig, until: datetime
) -> Iterator[Finding]:
    target, step = config.targets[model.name], timedelta(days=config.model(model.name).step_days)
    since = UNITS[target.unit].examples(log, target, datetime.fromisoformat(model.as_of), until, step)
    if not len(since):
        yield Finding(model.name, "outcomes certain since training", 0.0, "", False)
        return
    rows = model.encoder.matrix(since.table)
    indices = stability_indices(scorer.artifact.json(f"{model.name}.profile"), rows)
    for feature, index in sorted(indices.items(), key=lambda each: -each[1]):
        limit = config.limits.stability
        yield Finding(model.name, f"stability of {feature}", index, f"at most {limit}", index > limit)
    yield from _levels(model, since, rows, config)


def _levels(model: TargetModel, since: Examples, rows: np.ndarray, config: PropensityConfig) -> Iterator[Finding]:
    of = clusters(since.table[UNITS[model.unit].keys[0]])
    promised = measured(model.scoring.probabilities(rows), since.outcome, of)["predicted_over_observed"]
    constant = measured(np.full(len(rows), model.base_rate), since.outcome, of)["predicted_over_observed"]
    rate = (1 / constant[0], 1 / constant[2], 1 / constant[1])
    limits = config.limits
    for name, (value, low, high), factor in (
        ("predicted_over_observed", promised, limits.calibration),
        ("rate_over_base_rate", rate, limits.rate),
    ):
        past = low > factor or high < 1 / factor
        yield Finding(model.name, name, value, f"{1 / factor:.2f} to {factor:.2f}", past)
