"""Answers what a visitor would like: four tiers scored over the whole catalogue, blended.

popularity     what everybody buys now
cooccurrence   what is bought with the items of the history
als            what people with such a history buy (implicit matrix factorisation, folded in per request)
repeat         what this person buys again and again
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from serving.artifact import Artifact, Json

TIERS = ("popularity", "cooccurrence", "als", "repeat")
CONTEXT_BLEND = {"cooccurrence": 1.0, "als": 0.35, "popularity": 0.05}
"""Weights beside items being looked at: what goes with them first; not tuned."""

REASONS = {
    "popularity": "popular now",
    "cooccurrence": "bought together with what was chosen before",
    "als": "bought by people with a similar history",
    "repeat": "bought before",
}

Scores = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class History:
    """What is known of one visitor: item indices int32 [n] and their weights float32 [n]."""

    items: NDArray[np.int32]
    weights: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.items)


NOBODY = History(np.empty(0, np.int32), np.empty(0, np.float32))


class Recommender:
    """The blend of tiers over one artifact; every array is float32 and memory-mapped.

    popularity : shape (n_items,)
    neighbours, neighbour_scores : shape (n_items, n_neighbours); int32 indices and scores, zero where there are fewer
    item_factors : shape (n_items, n_factors)
    gram : shape (n_factors, n_factors); sum of the items' outer products plus the regularisation on the diagonal
    blend : weight of each tier for visitors with a history
    """

    def __init__(self, artifact: Artifact) -> None:
        self.item_ids: list[str] = artifact.json("item_ids")
        self.popularity = artifact.array("popularity")
        self.neighbours = artifact.array("neighbours")
        self.neighbour_scores = artifact.array("neighbour_scores")
        self.item_factors = artifact.array("item_factors")
        self.gram = artifact.array("gram")
        settings = artifact.json("blend")
        self.blend: dict[str, float] = settings["weights"]
        self.confidence: float = settings["confidence"]
        self._history_starts = artifact.array("history_starts")
        self._history_items = artifact.array("history_items")
        self._history_weights = artifact.array("history_weights")
        self.user_ids: list[str] = artifact.json("user_ids")
        self._popular = scaled(np.array(self.popularity))
        self._tiers = {"cooccurrence": self._cooccurrence, "als": self._als, "repeat": self._repeat}
        self._item_index = {item_id: index for index, item_id in enumerate(self.item_ids)}
        self._user_index = {user_id: index for index, user_id in enumerate(self.user_ids)}

    @classmethod
    def load(cls, artifact: Artifact) -> Self:
        return cls(artifact)

    def answer(self, request: Json) -> Json:
        """The best ``n`` items for a user, for the items being looked at, for both, or for nobody in particular."""
        known = self.history(request["user_id"])
        context = self._context(request["item_ids"])
        excluded = np.concatenate([context.items, self._context(request["exclude_ids"]).items])
        history, weights = (context, CONTEXT_BLEND) if len(context) else (known, self.blend)
        parts = self._weighted(history, weights)
        total = self._total(parts)
        total[excluded] = -np.inf
        chosen = best(total, request["n"])
        return {
            "items": [self._item(index, total, parts, request["explain"]) for index in chosen],
            "tier": "similar" if len(context) else "personal" if len(known) else "popular",
            "degraded": self._degraded(request, known, context),
        }

    def history(self, user_id: str | None) -> History:
        """What was known of a user when the artifact was exported; empty for a stranger."""
        user = self._user_index.get(user_id) if user_id is not None else None
        if user is None:
            return NOBODY
        rows = slice(self._history_starts[user], self._history_starts[user + 1])
        return History(self._history_items[rows], self._history_weights[rows])

    def scores(self, history: History) -> Scores:
        """The blended score of every item for one history, shape (n_items,)."""
        return self._total(self._weighted(history, self.blend))

    def tier_scores(self, history: History, tiers: Sequence[str] = TIERS) -> dict[str, Scores]:
        """The scores of some tiers, shape (n_items,) each, scaled so that a tier's best item has 1."""
        if not len(history):
            return {t: self._popular if t == "popularity" else np.zeros_like(self._popular) for t in tiers}
        return {tier: self._popular if tier == "popularity" else scaled(self._tiers[tier](history)) for tier in tiers}

    def _cooccurrence(self, history: History) -> Scores:
        found = self.neighbour_scores[history.items] * history.weights[:, None]
        places = self.neighbours[history.items]
        return np.bincount(places.ravel(), found.ravel(), len(self.item_ids)).astype(np.float32)

    def _als(self, history: History) -> Scores:
        scores: Scores = self.item_factors @ self._folded_in(history)
        return scores

    def _repeat(self, history: History) -> Scores:
        scores = np.zeros(len(self.item_ids), np.float32)
        scores[history.items] = history.weights
        return scores

    def _folded_in(self, history: History) -> Scores:
        """The user's factors given the items': one exact least-squares step of implicit ALS.

        Source: Hu, Koren, Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008, equation 4.
        """
        factors = self.item_factors[history.items]
        confidence = self.confidence * history.weights
        weighted = factors * confidence[:, None]
        return np.linalg.solve(self.gram + factors.T @ weighted, (factors + weighted).sum(axis=0)).astype(np.float32)

    def _weighted(self, history: History, weights: Mapping[str, float]) -> dict[str, Scores]:
        """What each tier that has a weight adds to the scores."""
        parts = self.tier_scores(history, [tier for tier, weight in weights.items() if weight])
        return {tier: np.float32(weights[tier]) * scores for tier, scores in parts.items()}

    def _total(self, parts: Mapping[str, Scores]) -> Scores:
        total = np.zeros(len(self.item_ids), np.float32)
        for scores in parts.values():
            total += scores
        return total if total.any() else self._popular.copy()

    def _context(self, item_ids: Sequence[str]) -> History:
        items = np.array([self._item_index[i] for i in dict.fromkeys(item_ids) if i in self._item_index], np.int32)
        return History(items, np.ones(len(items), np.float32))

    def _item(self, index: int, total: Scores, parts: Mapping[str, Scores], explain: bool) -> Json:
        shares = {tier: float(scores[index]) for tier, scores in parts.items()}
        leading = max(shares, key=shares.__getitem__) if any(shares.values()) else "popularity"
        item = {"item_id": self.item_ids[index], "score": float(total[index]), "reason": REASONS[leading]}
        return {**item, "tiers": shares} if explain else item

    def _degraded(self, request: Json, known: History, context: History) -> list[str]:
        causes = []
        if request["user_id"] is not None and not len(known):
            causes.append("the user has no history yet")
        if len(context) < len(set(request["item_ids"])):
            causes.append("some of item_ids are not in the catalogue")
        return causes


def scaled(scores: Scores) -> Scores:
    """Scores divided by the best one; all zero when none is above zero."""
    top = scores.max(initial=0.0)
    return scores / top if top > 0 else np.zeros_like(scores)


def best(scores: NDArray[np.floating], n: int) -> list[int]:
    """The indices of the ``n`` best finite scores, best first; of equals the lower index first.

    >>> best(np.array([1.0, 3.0, 3.0, -np.inf], np.float32), 3)
    [1, 2, 0]
    """
    n = min(n, len(scores))
    threshold = np.partition(scores, -n)[-n]
    candidates = np.flatnonzero(scores >= threshold)
    ordered = candidates[np.argsort(-scores[candidates], kind="stable")][:n]
    return [int(index) for index in ordered if np.isfinite(scores[index])]
