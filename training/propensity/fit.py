"""Fits the model of every target on what was known at a cut-off, and exports them as one artifact."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.customers import without_guests
from features.encoding import Encoder
from features.engine import Engine
from features.errors import UserError
from features.sessions import ItemWeek, Person, week_of
from features.targets import Examples, Target, Unit, instant
from features.units import UNITS
from serving.artifact import Draft, Json
from serving.regression import Regression
from serving.schema import SessionRequest
from training.propensity import drift, learning, logistic
from training.propensity.config import ModelConfig, PropensityConfig
from training.propensity.learning import Learned
from training.propensity.slices import slices
from training.propensity.sufficiency import sufficiency

N_PERCENTILES = 1000
MOST_REGRESSED = 100_000
"""Examples, evenly spaced, on which rules are fitted; they have few coefficients."""
RULES = ("recency_frequency", "logistic")
"""Regressions on the few features of a rule of thumb, and on all of them."""


@dataclass(frozen=True, slots=True)
class TargetFit:
    """One target's fitted trees, the regressions that they must beat, and those to ask at the cut-off."""

    target: Target
    unit: Unit
    encoder: Encoder
    learned: Learned
    rules: Mapping[str, Regression]
    base_rate: float
    sufficiency: Json
    asked: pa.Table
    percentiles: np.ndarray
    profile: list[Json]
    context: Mapping[str, Json]

    def export(self, draft: Draft, name: str, as_of: datetime) -> None:
        draft.json(name, self._facts(as_of))
        words = {**self.unit.numbers, **self.unit.texts}
        levels = self.encoder.levels
        described = [{"name": n, "words": words[n], "levels": levels.get(n)} for n in self.encoder.names]
        draft.json(f"{name}.features", described)
        draft.text(f"{name}.model", self.learned.boosted.text)
        draft.array(f"{name}.percentiles", self.percentiles)
        draft.json(f"{name}.profile", self.profile)
        keys = {key: self.asked[key].cast(pa.string()).to_pylist() for key in self.unit.keys}
        draft.json(f"{name}.keys", keys)
        draft.array(f"{name}.rows", self.encoder.matrix(self.asked))
        for rule, regression in self.rules.items():
            regression.save(draft, f"{name}.{rule}")
        if self.learned.boosted.start is not None:
            self.learned.boosted.start.save(draft, f"{name}.start")
        if self.learned.network is not None:
            self.learned.network.save(draft, f"{name}.network")
        for part, content in self.context.items():
            draft.json(f"{name}.{part}", content)

    def _facts(self, as_of: datetime) -> Json:
        calibrator = self.learned.calibrator
        return {
            **self.target.model_dump(),
            "as_of": as_of.isoformat(),
            "base_rate": self.base_rate,
            "calibrator": {"kind": calibrator.kind, "coefficients": calibrator.coefficients},
            "starts_from_regression": self.learned.boosted.start is not None,
            "network_share": self.learned.share,
            "sufficiency": self.sufficiency,
        }


@dataclass(frozen=True, slots=True)
class PropensityModel:
    """The fitted targets, and why others could not be fitted."""

    as_of: datetime
    fits: dict[str, TargetFit]
    absent: dict[str, str]
    name: str = "propensity"

    @property
    def metrics(self) -> dict[str, float]:
        found = {
            f"{name}.{key}": value for name, fit in self.fits.items() for key, value in fit.learned.metrics.items()
        }
        return found | {"n_targets_absent": len(self.absent)}

    def export(self, draft: Draft) -> None:
        draft.json("propensity", {"targets": list(self.fits), "absent": self.absent})
        for name, fit in self.fits.items():
            fit.export(draft, name, self.as_of)

    def golden_requests(self) -> list[Json]:
        return [_golden(name, fit) for name, fit in self.fits.items()]


def _golden(name: str, fit: TargetFit) -> Json:
    if fit.target.unit == "session":
        landing = {"event_name": "page_view", "event_timestamp": "2024-01-01T12:00:00Z"}
        return SessionRequest.model_validate({"target": name, "events": [landing]}).model_dump(mode="json")
    user_ids = list(dict.fromkeys(fit.asked[fit.unit.keys[0]].to_pylist()))
    return {"target": name, "user_ids": [*user_ids[:: max(1, len(user_ids) // 5)][:5], "nobody we know"]}


def fit(past: Engine, as_of: datetime, config: PropensityConfig, device: str = "cpu") -> PropensityModel:
    """Fit every target that the past can teach.

    past : what was known at ``as_of``
    device : on which networks are fitted, "cpu" or "cuda"
    Raises UserError when it can teach none, with the first target's reason.
    """
    fits: dict[str, TargetFit] = {}
    absent: dict[str, str] = {}
    for name, target in config.targets.items():
        try:
            fits[name] = fit_target(past, as_of, target, config.model(name), device)
        except UserError as error:
            absent[name] = str(error)
    if not fits:
        raise UserError("; ".join(f"{name}: {why}" for name, why in absent.items()))
    return PropensityModel(as_of, fits, absent)


def fit_target(past: Engine, as_of: datetime, target: Target, config: ModelConfig, device: str = "cpu") -> TargetFit:
    """Fit one target on examples whose outcomes were certain at the cut-off.

    Raises UserError when there are too few of them.
    """
    unit = UNITS[target.unit]
    since = as_of - timedelta(days=config.span_days)
    step, most = timedelta(days=config.step_days), config.most_examples
    examples = _newest(unit.examples(past, target, since, as_of, step, most), most)
    parts = slices(examples)
    encoder = Encoder.fitted(examples.table, list(unit.numbers), list(unit.texts))
    rows = encoder.matrix(examples.table)
    learned = learning.fit(rows, examples.outcome, parts, encoder.n_levels, config, device)
    asked = without_guests(past, as_of, unit.present(past, target, as_of), unit.keys[0])
    scored = encoder.matrix(asked) if asked.num_rows else rows[parts.calibrating]
    probability = learned.scoring().probabilities(scored)
    return TargetFit(
        target=target,
        unit=unit,
        encoder=encoder,
        learned=learned,
        rules=_rules(rows, examples, encoder, unit),
        base_rate=float(examples.outcome.mean()),
        sufficiency=sufficiency(examples, parts),
        asked=asked,
        percentiles=np.quantile(probability, (np.arange(N_PERCENTILES) + 0.5) / N_PERCENTILES),
        profile=drift.profile(rows, encoder.names, encoder.n_levels),
        context=_visit_context(past, as_of) if target.unit == "session" else {},
    )


def _newest(examples: Examples, most: int) -> Examples:
    """The newest examples; of the oldest moment that has room, some at random."""
    if len(examples) <= most:
        return examples
    order = np.lexsort((np.random.default_rng(0).random(len(examples)), examples.moment))
    kept = np.zeros(len(examples), np.bool_)
    kept[order[-most:]] = True
    return examples.take(kept)


def _rules(rows: np.ndarray, examples: Examples, encoder: Encoder, unit: Unit) -> dict[str, Regression]:
    some = slice(None, None, max(1, len(rows) // MOST_REGRESSED))
    few = [encoder.names.index(name) for name in unit.recency_frequency]
    columns = {"recency_frequency": few, "logistic": range(len(encoder.names))}
    return {rule: logistic.fit(rows[some], examples.outcome[some], columns[rule], encoder.n_levels) for rule in RULES}


def _visit_context(past: Engine, as_of: datetime) -> dict[str, Json]:
    """What a running visit is folded with: the catalogue with its past weeks, everybody's totals, whose a device is."""
    week = week_of(int(instant(as_of).astype(np.int64)))
    weeks = past.query("item_weeks", as_of=as_of).filter(pc.field("week") == week).drop_columns("week")
    items = past.select("select item_id, item_category as category, price from items")
    known = items.join(weeks, keys="item_id", join_type="full outer").sort_by("item_id")
    people = past.query("people", as_of=as_of).sort_by("person_id")
    return {
        "items": _rounded(known.select(["item_id", "category", "price", *ItemWeek._fields])),
        "people": _rounded(people.select(["person_id", *Person.__slots__])),
        "owners": _rounded(past.query("device_owners", as_of=as_of).sort_by("device_id")),
    }


def _rounded(table: pa.Table) -> Json:
    """Columns as lists, money to 1e-6: an engine sums in another order each time."""
    columns = zip(table.column_names, table.columns, strict=True)
    return {n: (pc.round(c, 6) if pa.types.is_floating(c.type) else c).to_pylist() for n, c in columns}
