"""Answers how likely customers are to buy again, and why."""

import re
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from serving.artifact import Artifact, Json
from serving.calibration import Calibrator
from serving.trees import Trees

N_REASONS = 3


class PropensityScorer:
    """A propensity model with the customers it knew when it was trained.

    The artifact holds ``propensity.json`` (target, as_of, horizon_days, eligible_days, base_rate, calibrator),
    ``ids.json`` (person ids), ``features.json`` (name and words of each feature), ``customers.npy`` (float64, shape
    (n_persons, n_features)), ``probabilities.npy`` (float64, shape (n_persons,), sorted) and ``model.txt``.
    """

    def __init__(self, artifact: Artifact) -> None:
        facts = artifact.json("propensity")
        self.target: str = facts["target"]
        self.as_of: str = facts["as_of"]
        self.eligible_days: int = facts["eligible_days"]
        self.base_rate: float = facts["base_rate"]
        self.person_ids: list[str] = artifact.json("ids")
        self._calibrator = Calibrator(facts["calibrator"]["kind"], tuple(facts["calibrator"]["coefficients"]))
        self._words = [feature["words"] for feature in artifact.json("features")]
        self._customers = artifact.array("customers")
        self._sorted = artifact.array("probabilities")
        self._trees = Trees.from_text(artifact.text("model"))
        self._row_of = {person_id: row for row, person_id in enumerate(self.person_ids)}

    @classmethod
    def load(cls, artifact: Artifact) -> "PropensityScorer":
        """The scorer of an artifact; raises ArtifactError when a file is missing."""
        return cls(artifact)

    def answer(self, request: Json) -> Json:
        """The probability that each user buys again within the horizon.

        request : ``user_ids``, texts. Answers come in their order: ``probability``; ``percentile``, the share of known
            customers who are at most as likely, in percent; ``tier``, ``model`` or, for a user who is not known as a
            customer of the last months, ``base_rate``; ``reasons``, the features that moved the probability most, each
            with (+) when it raised it and (-) when it lowered it.
        """
        user_ids = request["user_ids"]
        known = [user_id for user_id in user_ids if user_id in self._row_of]
        scored = dict(zip(known, self._scores(known), strict=True))
        scores = [scored.get(user_id) or self._base_score(user_id) for user_id in user_ids]
        return {"target": self.target, "as_of": self.as_of, "scores": scores}

    def probabilities(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated probabilities.

        rows : float64, shape (n, n_features), in the order of ``features.json``, NaN where a value is missing
        Returns float64, shape (n,), in (0, 1).
        """
        return self._calibrator(self._trees.predict(rows))

    def table(self) -> pa.Table:
        """Every known customer: ``user_id``, ``probability``, ``percentile``."""
        probability = self.probabilities(self._customers)
        return pa.table(
            {"user_id": self.person_ids, "probability": probability, "percentile": self._percentiles(probability)}
        )

    def _percentiles(self, probability: NDArray[np.float64]) -> NDArray[np.float64]:
        """Nearly equal probabilities are equal: another processor rounds otherwise."""
        return np.round(100 * np.searchsorted(self._sorted, probability + 1e-9, side="right") / len(self._sorted), 2)

    def _scores(self, user_ids: Sequence[str]) -> Iterator[Json]:
        rows = self._customers[[self._row_of[user_id] for user_id in user_ids]]
        probability = self.probabilities(rows)
        answers = zip(user_ids, probability, self._percentiles(probability), self._reasons(rows), strict=True)
        for user_id, chance, percentile, reasons in answers:
            yield _score(user_id, float(chance), float(percentile), "model", reasons)

    def _base_score(self, user_id: str) -> Json:
        percentile = self._percentiles(np.array([self.base_rate]))[0]
        reason = f"no order known in the {self.eligible_days} days before {self.as_of[:10]}: the average of customers"
        return _score(user_id, self.base_rate, float(percentile), "base_rate", [reason])

    def _reasons(self, rows: NDArray[np.float64]) -> Iterator[list[str]]:
        contributions = np.where(np.isnan(rows), 0.0, self._trees.contributions(rows)[:, :-1])
        strongest = np.argsort(-np.abs(contributions), axis=1, kind="stable")[:, :N_REASONS]
        for row, moved, chosen in zip(rows, contributions, strongest, strict=True):
            yield [_reason(self._words[column], row[column], moved[column]) for column in chosen if moved[column]]


def _score(user_id: str, probability: float, percentile: float, tier: str, reasons: list[str]) -> Json:
    return {
        "user_id": user_id,
        "probability": probability,
        "percentile": percentile,
        "tier": tier,
        "reasons": reasons,
    }


def _reason(words: str, value: float, contribution: float) -> str:
    """A value in words.

    >>> _reason("ordered {} days ago", 1.0, -0.2)
    'ordered 1 day ago (-)'
    >>> _reason("spent {} in 28 days", 1234.567, 0.2)
    'spent 1234.57 in 28 days (+)'
    """
    told = words.format(f"{value:.2f}".rstrip("0").rstrip("."))
    singular = re.sub(r"(?<![\d.])1 (\w+)s\b", r"1 \1", told, count=1)
    return f"{singular} ({'+' if contribution > 0 else '-'})"
