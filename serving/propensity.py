"""Answers how likely something is: of customers, of customers in a category, of touches, of running visits."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import log, log1p

import numpy as np
import pyarrow as pa

from features.encoding import Encoder
from features.errors import UserError
from features.targets import UnitName
from serving.artifact import Artifact, Json
from serving.calibration import Calibrator, sigmoid
from serving.network import Network, mixed
from serving.regression import Regression
from serving.scales import Floats
from serving.trees import Trees
from serving.visits import Visits

N_REASONS = 3
N_CATEGORIES = 10


@dataclass(frozen=True, slots=True)
class Scoring:
    """Trees, the regression that they correct and the network beside them if there are any, and the calibrator of all.

    share : of the log-odds that the network gives
    """

    trees: Trees
    start: Regression | None
    network: Network | None
    share: float
    calibrator: Calibrator

    def probabilities(self, rows: Floats) -> Floats:
        """float64, shape (n,), in (0, 1), of rows of shape (n, n_features)."""
        if self._trees_alone:
            return self.calibrator(self.trees.predict(rows))
        return self.calibrator(sigmoid(self._log_odds(rows)))

    def probability(self, row: Floats) -> float:
        """Of one row, shape (n_features,): in microseconds where trees from the rate stand alone."""
        if self._trees_alone:
            return self.calibrator.one(self.trees.predict_one(row))
        return float(self.probabilities(row[None, :])[0])

    def contributions(self, rows: Floats) -> Floats:
        """What each feature adds to the log-odds before calibration, float64, shape (n, n_features)."""
        added = self.trees.contributions(rows)[:, :-1]
        if self.start is not None:
            added = added + self.start.contributions(rows)
        return added if self.network is None else mixed(added, self.network.contributions(rows), self.share)

    @property
    def _trees_alone(self) -> bool:
        return self.start is None and self.network is None

    def _log_odds(self, rows: Floats) -> Floats:
        trees = self.trees.predict(rows, raw_score=True)
        if self.start is not None:
            trees = trees + self.start.log_odds(rows)
        return trees if self.network is None else mixed(trees, self.network.log_odds(rows), self.share)


class TargetModel:
    """The model of one target; its files begin with the target's name.

    ``TARGET.json`` (unit, horizon_days, eligible_days, as_of, base_rate, calibrator, starts_from_regression,
    network_share, sufficiency), ``TARGET.features.json`` (name, words and, of a text, levels of each feature),
    ``TARGET.model.txt``, ``TARGET.percentiles.npy`` (float64, shape (n_percentiles,), rising), and of those to be
    asked at ``as_of``: ``TARGET.keys.json`` and ``TARGET.rows.npy`` (float64, shape (n, n_features)).
    ``TARGET.start.*`` is the regression that the trees correct, if they do, ``TARGET.network.*`` the network beside
    them, if its share is not 0; ``TARGET.profile.json`` and the regressions of rules of thumb are for whoever
    monitors and evaluates.
    """

    def __init__(self, artifact: Artifact, name: str) -> None:
        facts = artifact.json(name)
        features = artifact.json(f"{name}.features")
        self.name = name
        self.unit: UnitName = facts["unit"]
        self.as_of: str = facts["as_of"]
        self.horizon_days: int = facts["horizon_days"]
        self.eligible_days: int = facts["eligible_days"]
        self.base_rate: float = facts["base_rate"]
        self.sufficiency: Json = facts["sufficiency"]
        self.keys: dict[str, list[str]] = artifact.json(f"{name}.keys")
        self.rows = artifact.array(f"{name}.rows")
        self.encoder = Encoder(
            tuple(each["name"] for each in features if each["levels"] is None),
            {each["name"]: tuple(each["levels"]) for each in features if each["levels"] is not None},
        )
        self._words = [each["words"] for each in features]
        self._percentiles = artifact.array(f"{name}.percentiles")
        self.scoring = Scoring(
            Trees.from_text(artifact.text(f"{name}.model")),
            Regression.load(artifact, f"{name}.start") if facts["starts_from_regression"] else None,
            Network.load(artifact, f"{name}.network") if facts["network_share"] else None,
            facts["network_share"],
            Calibrator(facts["calibrator"]["kind"], tuple(facts["calibrator"]["coefficients"])),
        )

    def percentiles(self, probability: Floats) -> Floats:
        """The share of all asked who are at most as likely, in percent.

        Nearly equal probabilities are equal: another processor rounds otherwise.
        """
        below = np.searchsorted(self._percentiles, probability + 1e-9, side="right")
        return np.round(100 * below / len(self._percentiles), 2)

    def answers(self, rows: Floats) -> Iterator[Json]:
        """``probability``, ``percentile``, ``tier`` and ``reasons`` of each row."""
        probability = self.scoring.probabilities(rows)
        for chance, rank, reasons in zip(probability, self.percentiles(probability), self._reasons(rows), strict=True):
            yield {"probability": float(chance), "percentile": float(rank), "tier": "model", "reasons": reasons}

    def unknown(self) -> Json:
        """The answer about somebody of whom nothing is known."""
        reason = (
            f"no customer who ordered in the {self.eligible_days} days before {self.as_of[:10]}: the average of all"
        )
        percentile = float(self.percentiles(np.array([self.base_rate]))[0])
        return {"probability": self.base_rate, "percentile": percentile, "tier": "base_rate", "reasons": [reason]}

    def table(self) -> pa.Table:
        """Everyone to be asked at ``as_of``.

        Returns ``user_id``, of targets by category ``category`` and ``expected_on``, ``probability``, ``percentile``.
        """
        probability = self.scoring.probabilities(self.rows)
        columns: dict[str, object] = {"user_id": self.user_ids}
        if "category" in self.keys:
            expected = [expected_on(self.as_of, self.horizon_days, float(chance)) for chance in probability]
            columns |= {"category": self.keys["category"], "expected_on": expected}
        return pa.table({**columns, "probability": probability, "percentile": self.percentiles(probability)})

    @property
    def user_ids(self) -> list[str]:
        """Whose rows they are; nobody's of targets of visits."""
        return self.keys.get("person_id", self.keys.get("user_id", []))

    def _reasons(self, rows: Floats) -> Iterator[list[str]]:
        contributions = np.where(np.isnan(rows), 0.0, self.scoring.contributions(rows))
        strongest = np.argsort(-np.abs(contributions), axis=1, kind="stable")[:, :N_REASONS]
        for row, moved, chosen in zip(rows, contributions, strongest, strict=True):
            yield [self._reason(column, row[column], moved[column]) for column in chosen if moved[column]]

    def _reason(self, column: int, value: float, contribution: float) -> str:
        n_numbers = len(self.encoder.numbers)
        if column < n_numbers:
            return number_in_words(self._words[column], value, contribution)
        levels = self.encoder.levels[self.encoder.names[column]]
        return _signed(self._words[column].format(levels[int(value)]), contribution)


class PropensityScorer:
    """The models of all targets of a version, and why others are absent (``propensity.json``)."""

    def __init__(self, artifact: Artifact) -> None:
        facts = artifact.json("propensity")
        self.artifact = artifact
        self.absent: dict[str, str] = facts["absent"]
        self.targets = {name: TargetModel(artifact, name) for name in facts["targets"]}
        self._visits = {name: Visits(artifact, name) for name, model in self.targets.items() if model.unit == "session"}
        self._rows_of = {name: _rows_of_users(model) for name, model in self.targets.items()}

    @classmethod
    def load(cls, artifact: Artifact) -> "PropensityScorer":
        """The scorer of an artifact; raises ArtifactError when a file is missing."""
        return cls(artifact)

    def answer(self, request: Json) -> Json:
        """How likely a target is for users, or for the running visit whose events are given.

        request : ``target`` (None: the first that answers what is asked), and either ``user_ids``, or ``events`` and
            whatever else ``schema.SessionRequest`` has.
        Scores come in the order of what was asked: ``probability``; ``percentile``, the share of all asked who are at
        most as likely, in percent; ``tier``, ``model`` or, for somebody of whom nothing is known, ``base_rate``;
        ``reasons``, the features that moved the probability most, each with (+) when it raised it and (-) when it
        lowered it.
        Raises UserError when there is no such target, or it is asked of something else.
        """
        of_visit = "events" in request
        model = self.model(request["target"], of_visit)
        scores = self._of_visit(model, request) if of_visit else self._of_users(model, request["user_ids"])
        return {"target": model.name, "as_of": model.as_of, "sufficiency": model.sufficiency, "scores": scores}

    def model(self, target: str | None, of_visit: bool) -> TargetModel:
        """The model of a target of visits, or of customers; of the first one when none is named.

        Raises UserError when there is none, naming those there are.
        """
        fitting = {name: model for name, model in self.targets.items() if (model.unit == "session") == of_visit}
        if target is None and fitting:
            return next(iter(fitting.values()))
        if target in fitting:
            return fitting[target]
        kind = "of a visit" if of_visit else "of customers"
        why = self.absent.get(target or "", f"there are {', '.join(fitting) or 'none'}")
        raise UserError(f"no target {kind}{f' named {target}' if target else ''}: {why}")

    def _of_users(self, model: TargetModel, user_ids: Sequence[str]) -> list[Json]:
        rows_of = self._rows_of[model.name]
        wanted = [row for user_id in user_ids for row in rows_of.get(user_id, ())]
        answers = dict(zip(wanted, model.answers(model.rows[wanted]), strict=True)) if wanted else {}
        return [each for user_id in user_ids for each in self._of_user(model, user_id, rows_of, answers)]

    def _of_user(
        self, model: TargetModel, user_id: str, rows_of: Mapping[str, list[int]], answers: Mapping[int, Json]
    ) -> list[Json]:
        if user_id not in rows_of:
            return [{"user_id": user_id, **model.unknown()}]
        found = [
            {"user_id": user_id, **_category(model, row, answers[row]), **answers[row]} for row in rows_of[user_id]
        ]
        return sorted(found, key=lambda each: -each["probability"])[:N_CATEGORIES]

    def _of_visit(self, model: TargetModel, request: Json) -> list[Json]:
        visit, week = self._visits[model.name].seen(request)
        row = model.encoder.row(visit.numbers(week), visit.texts())
        (answer,) = model.answers(row[None, :])
        return [{"user_id": visit.person_id, **answer}]


def _rows_of_users(model: TargetModel) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for row, user_id in enumerate(model.user_ids):
        rows.setdefault(user_id, []).append(row)
    return rows


def _category(model: TargetModel, row: int, answer: Json) -> Json:
    if "category" not in model.keys:
        return {}
    expected = expected_on(model.as_of, model.horizon_days, answer["probability"])
    return {"category": model.keys["category"][row], "expected_on": expected}


def expected_on(as_of: str, horizon_days: int, probability: float) -> str | None:
    """The day by which it is as likely as not to have happened, at the rate that the probability implies.

    With rate ``-ln(1 - p) / H`` per day the median is ``H ln 2 / -ln(1 - p)``; beyond ten years None.

    >>> expected_on("2024-01-01T00:00:00+00:00", 28, 0.5)
    '2024-01-29'
    """
    hazard = -log1p(-min(probability, 1 - 1e-9))
    days = horizon_days * log(2) / max(hazard, 1e-12)
    return (datetime.fromisoformat(as_of) + timedelta(days=days)).date().isoformat() if days < 3650 else None


def number_in_words(words: str, value: float, contribution: float) -> str:
    """A value in words.

    >>> number_in_words("ordered {} days ago", 1.0, -0.2)
    'ordered 1 day ago (-)'
    >>> number_in_words("spent {} in 28 days", 1234.567, 0.2)
    'spent 1234.57 in 28 days (+)'
    """
    told = words.format(f"{value:.2f}".rstrip("0").rstrip("."))
    return _signed(re.sub(r"(?<![\d.])1 (\w+)s\b", r"1 \1", told, count=1), contribution)


def _signed(told: str, contribution: float) -> str:
    return f"{told} ({'+' if contribution > 0 else '-'})"
