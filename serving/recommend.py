"""Answers what a visitor would like: the tiers' scores over the whole catalogue, blended by the kind of question."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from features.histories import Histories
from serving import tiers
from serving.artifact import Artifact, Json
from serving.catalogue import Catalogue
from serving.rerank import Reranker
from serving.shelf import Shelf
from serving.tier_classes import CLASSES
from serving.tiers import Scores, Tier

Question = Literal["personal", "similar"]
"""What goes with a person's history, or with the items that are being looked at."""

CONTEXT_KIND = "view_item"
N_LIKE_NEW = 3
"""Known items that are asked for in the place of a new one."""


class Recommender:
    """The blend of an artifact's tiers.

    histories : what was known of ``user_ids`` when the artifact was exported
    blend : weight of each tier, by question; a tier without weight is not scored
    repeats : whether what a person already has may be recommended again
    """

    def __init__(self, artifact: Artifact) -> None:
        self.item_ids: list[str] = artifact.json("item_ids")
        self.user_ids: list[str] = artifact.json("user_ids")
        self.histories = Histories(*(artifact.array(f"histories.{name}") for name in Histories.__slots__))
        settings = artifact.json("recommender")
        self.repeats: bool = settings["repeats"]
        self.blend: dict[Question, dict[str, float]] = settings["blend"]
        self.tiers: dict[str, Tier] = {name: tiers.load(artifact, name, CLASSES[name]) for name in settings["tiers"]}
        self.reranker = Reranker.load(artifact, self.tiers) if settings["is_reranked"] else None
        self.shelf = Shelf(list(self.item_ids), Catalogue.load(artifact))
        self._user_index = {user_id: index for index, user_id in enumerate(self.user_ids)}

    @classmethod
    def load(cls, artifact: Artifact) -> Self:
        return cls(artifact)

    def answer(self, request: Json) -> Json:
        """The best ``n`` items for a user, for the items being looked at, for both, or for nobody in particular.

        request : as ``schema.RecommendationRequest``, and ``recent`` as from ``Journal.recent``

        Fewer where fewer may come. Raises UserError for a filter that cannot be read.
        """
        admitted = self.shelf.admitted(request["filters"])
        person = request["user_id"] or request["user_pseudo_id"]
        known = self._with_recent(self.history(person), request.get("recent"))
        looked_at = self._places(request["item_ids"])
        context = Histories.of(self._known_like(looked_at), CONTEXT_KIND)
        asked, question = (context, "similar") if len(context) else (known, "personal")
        parts = self.parts(asked, question)  # type: ignore[arg-type]
        total = self.shelf.scored(self._ordered(asked, parts, question)[0])  # type: ignore[arg-type]
        total[~admitted] = -np.inf
        total[looked_at] = -np.inf
        total[self._places(request["exclude_ids"])] = -np.inf
        if not self.repeats:
            total[known.items] = -np.inf
        return {
            "items": [self._item(index, total, parts, request["explain"]) for index in best(total, request["n"])],
            "tier": "similar" if len(context) else "personal" if len(known) else "popular",
            "degraded": self._degraded(request, known, len(looked_at)),
        }

    def history(self, person_id: str | None) -> Histories:
        """What was known of a customer, or a guest's device, when the artifact was exported; empty for a stranger."""
        user = self._user_index.get(person_id) if person_id is not None else None
        return Histories.of([]) if user is None else self.histories.take(np.array([user]))

    def _with_recent(self, known: Histories, recent: Json | None) -> Histories:
        """A history and what has been done since with items of the catalogue."""
        if recent is None:
            return known
        events = zip(recent["item_ids"], recent["event_names"], recent["ages_days"], strict=True)
        places = ((self.shelf.index(item_id), *rest) for item_id, *rest in events)
        told = [(item, *rest) for item, *rest in places if item is not None and item < self.shelf.n_known]
        if not told:
            return known
        return known.followed_by(Histories.since(*zip(*told, strict=True)), recent["elapsed_days"])

    def scores(self, histories: Histories, question: Question = "personal") -> Scores:
        """What is answered from: the blended score of every item, re-ranked, shape (n_users, n_items)."""
        return self._ordered(histories, self.parts(histories, question), question)

    def blended(self, histories: Histories, question: Question = "personal") -> Scores:
        """The blended score of every item, shape (n_users, n_items)."""
        return self._popular_for_strangers(histories, total_of(self.parts(histories, question)))

    def parts(self, histories: Histories, question: Question) -> dict[str, Scores]:
        """What each tier that has a weight adds to the scores, shape (n_users, n_items) each.

        Scores are standardised: each person's have mean 0 and variance 1 over the catalogue. Where nobody has a history
        there is popularity alone.
        """
        if not len(histories):
            return {"popularity": standardised(self.tiers["popularity"].scores(histories))}
        return {
            tier: np.float32(weight) * standardised(self.tiers[tier].scores(histories))
            for tier, weight in self.blend[question].items()
            if weight
        }

    def _ordered(self, histories: Histories, parts: Mapping[str, Scores], question: Question) -> Scores:
        total = total_of(parts)
        if self.reranker is not None and question == "personal" and len(histories):
            total = self._reranked(self.reranker, histories, parts, total)
        return self._popular_for_strangers(histories, total)

    def _reranked(self, reranker: Reranker, histories: Histories, parts: Mapping[str, Scores], total: Scores) -> Scores:
        """The blend in the re-ranker's order, in which seen items keep their place where they are not to be shown."""
        if self.repeats:
            return reranker.reranked(histories, parts, total)
        seen = histories.users, histories.items
        unseen = total.copy()
        unseen[seen] = -np.inf
        ordered = reranker.reranked(histories, parts, unseen)
        ordered[seen] = total[seen]
        return ordered

    def _popular_for_strangers(self, histories: Histories, total: Scores) -> Scores:
        strangers = histories.lengths == 0
        if strangers.any():
            total[strangers] = self.tiers["popularity"].scores(histories)[strangers]
        return total

    def _places(self, item_ids: Sequence[str]) -> list[int]:
        return [place for item_id in dict.fromkeys(item_ids) if (place := self.shelf.index(item_id)) is not None]

    def _known_like(self, places: Sequence[int]) -> list[int]:
        """Items that the model knows, those that are most like it for one that it does not."""
        known = (item for place in places for item in self.shelf.known_like(place, N_LIKE_NEW))
        return list(dict.fromkeys(known))

    def _item(self, index: int, total: NDArray[np.float32], parts: Mapping[str, Scores], explain: bool) -> Json:
        shares = {tier: self.shelf.score(scores[0], index) for tier, scores in parts.items()}
        leading = max(shares, key=shares.__getitem__)
        reason = self.tiers[leading].reason
        item: dict[str, Any] = {"item_id": self.shelf.item_ids[index], "score": float(total[index]), "reason": reason}
        if not explain:
            return item
        reordered = {} if self.reranker is None else {"reranker": float(total[index]) - sum(shares.values())}
        return {**item, "tiers": shares | reordered}

    def _degraded(self, request: Json, known: Histories, n_looked_at: int) -> list[str]:
        causes = []
        if request["user_id"] is not None and not len(known):
            causes.append("the user has no history yet")
        if n_looked_at < len(set(request["item_ids"])):
            causes.append("some of item_ids are not in the catalogue")
        return causes


def standardised(scores: Scores) -> Scores:
    """Each row shifted and scaled to mean 0 and variance 1; a row of equal scores becomes zero.

    >>> standardised(np.array([[1.0, 3.0], [2.0, 2.0]], np.float32))
    array([[-1.,  1.],
           [ 0.,  0.]], dtype=float32)
    """
    centred: Scores = scores - scores.mean(axis=1, keepdims=True)
    deviation = np.sqrt(np.einsum("ui,ui->u", centred, centred) / max(scores.shape[1], 1))
    centred *= np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 1e-12)[:, None]
    return centred


def total_of(parts: Mapping[str, Scores]) -> Scores:
    """The sum of what the tiers add, shape (n_users, n_items)."""
    first, *others = parts.values()
    total = first.copy()
    for scores in others:
        total += scores
    return total


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
