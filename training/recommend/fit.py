"""Fits the tiers, chooses their blend on what they did not see, and gives what the service reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import numpy as np

from features.engine import Engine
from features.errors import UserError
from features.histories import Histories, Log, catalogue, log
from features.windows import Window, time_window
from serving import rerank as reranking
from serving import tiers
from serving.artifact import Artifact, Draft, Json
from serving.catalogue import Catalogue
from serving.recommend import Question, Recommender
from serving.schema import RecommendationRequest
from serving.tiers import Scores, Tier
from training.device import Device
from training.evaluation import Row
from training.recommend import blend, evaluation, rerank
from training.recommend.config import RecommendConfig
from training.recommend.registry import fit_tier


@dataclass(frozen=True, slots=True)
class RecommendModel:
    """Fitted tiers, how they are combined, and the histories to answer known people from.

    weights : of each tier, by question
    order : the re-ranker's trees and what they read of items; None: the blend's order stands
    """

    known: Log
    catalogue: Catalogue
    tiers: Mapping[str, Tier]
    weights: Mapping[Question, Mapping[str, float]]
    order: tuple[str, reranking.Items, int] | None
    repeats: bool
    name: str = "blend"

    @property
    def metrics(self) -> dict[str, float]:
        return {f"blend.{question}.{t}": w for question, weights in self.weights.items() for t, w in weights.items()}

    def export(self, draft: Draft) -> None:
        draft.json("item_ids", self.known.item_ids)
        draft.json("user_ids", self.known.user_ids)
        for field in Histories.__slots__:
            draft.array(f"histories.{field}", getattr(self.known.histories, field))
        self.catalogue.save(draft)
        for name, tier in self.tiers.items():
            tiers.save(draft, name, tier)
        if self.order is not None:
            trees, items, n_candidates = self.order
            reranking.save(draft, items, trees, n_candidates)
        draft.json(
            "recommender",
            {
                "tiers": list(self.tiers),
                "blend": self.weights,
                "repeats": self.repeats,
                "is_reranked": self.order is not None,
            },
        )

    def golden_requests(self) -> list[Json]:
        users, items = self.known.user_ids, self.known.item_ids
        asked: list[tuple[str | None, list[str]]] = [(None, []), ("nobody we know", []), (None, items[:1])]
        asked += [(user, []) for user in users[:: max(1, len(users) // 5)][:5]]
        return [
            RecommendationRequest.model_construct(user_id=user, item_ids=context, n=5).model_dump()
            for user, context in asked
        ]


@dataclass(frozen=True, slots=True)
class Combination:
    """How the tiers are combined, as learned from what they did not see."""

    weights: Mapping[Question, Mapping[str, float]]
    trees: str | None


def fit(window: Window, config: RecommendConfig, device: Device) -> RecommendModel:
    """Fit every tier on what lies before a slice of the past, choose their combination on the slice.

    The tiers are then fitted again with the slice, except in protocols that hold it out of every fit. The slice is the
    window's own or, in a split by time, the past's last ``validation_days``.

    Raises UserError when the past holds too little to fit on.
    """
    since = window.as_of - timedelta(days=config.validation_days)
    inner = window.inner or time_window(window.past, since, window.as_of)
    whole = Fitting(window, config, device)
    earlier = whole if window.holds_inner_out else Fitting(inner, config, device)
    tiers = earlier.tiers(inner)
    combination = earlier.combination(tiers, inner)
    return whole.model(tiers if window.holds_inner_out else whole.tiers(window), combination)


class Fitting:
    """The catalogue of a window's past and what is done with it."""

    def __init__(self, window: Window, config: RecommendConfig, device: Device) -> None:
        self.window, self.config, self.device = window, config, device
        self.item_ids = catalogue(window.past, window.as_of, config.min_users, config.untouched_items)
        if not self.item_ids:
            raise UserError(
                f"no item was touched by {config.min_users} people before {window.as_of:%Y-%m-%d}: "
                "ingest more events or lower min_users"
            )

    def tiers(self, of: Window) -> dict[str, Tier]:
        """Every configured tier, fitted on what a window allows to be fitted on."""
        data, events = self._log(of.fitted), self.config.events.weights()
        settings = self.config.tiers.chosen()
        return {name: fit_tier(name, data, tier, events, self.device) for name, tier in settings.items()}

    def combination(self, fitted: Mapping[str, Tier], unseen: Window) -> Combination:
        """Weights and order with which tiers that did not see a window's truth rank it best."""
        repeats = self.config.repeats
        asked = blend.questions(unseen, self.item_ids, self.config.n_validation_users, repeats)
        weights: dict[Question, dict[str, float]] = {
            "personal": blend.weights(fitted, asked["personal"], repeats),
            "similar": blend.weights(fitted, asked["similar"], repeats=False),
        }
        settings, personal = self.config.rerank, asked["personal"]
        if settings is None or personal is None:
            return Combination(weights, None)
        items = self._items(unseen.past)
        shown = rerank.shown_in(unseen, personal.user_ids, self.item_ids)
        found = rerank.table(fitted, weights["personal"], personal, shown, items, repeats, settings.n_candidates)
        return Combination(weights, rerank.fit(found, settings))

    def model(self, fitted: Mapping[str, Tier], combination: Combination) -> RecommendModel:
        known, order = log(self.window.past, self.window.as_of, self.item_ids), None
        if combination.trees is not None and self.config.rerank is not None:
            order = combination.trees, self._items(self.window.past), self.config.rerank.n_candidates
        attributes = Catalogue.of(self.window.past.select("select * from items"), self.item_ids)
        return RecommendModel(known, attributes, fitted, combination.weights, order, self.config.repeats)

    def _items(self, past: Engine) -> reranking.Items:
        return rerank.item_table(past, self.window.as_of, self.item_ids, self._log(past).attributes)

    def _log(self, engine: Engine) -> Log:
        return log(engine, self.window.as_of, self.item_ids, self.config.attributes)


def loaded(model: RecommendModel) -> Recommender:
    """The model as the service reads it."""
    with TemporaryDirectory() as folder:
        draft = Draft(Path(folder) / "model")
        model.export(draft)
        return Recommender.load(Artifact(draft.folder))


class Remembering:
    """A tier that is asked once for histories on which it and blends of it are judged one after the other."""

    reason: ClassVar[str] = "judged"

    def __init__(self, tier: Tier) -> None:
        self.tier = tier
        self._asked: Histories | None = None
        self._scores = np.empty((0, 0), np.float32)

    def scores(self, histories: Histories) -> Scores:
        if histories is not self._asked:
            self._asked, self._scores = histories, self.tier.scores(histories)
        return self._scores


def evaluate(recommender: Recommender, window: Window, config: RecommendConfig, split: str) -> list[Row]:
    """Rows of what is answered, of the blend and the tiers it comes from, and of the baselines.

    The recommender has not seen the window; what it answers is named ``blend``, re-ranked or not.
    """
    truth = evaluation.Truth.of(window, recommender.item_ids)
    recommender.tiers = {name: Remembering(tier) for name, tier in recommender.tiers.items()}
    models = {
        "blend": recommender.scores,
        **({"blend_before_reranking": recommender.blended} if recommender.reranker else {}),
        **{name: tier.scores for name, tier in recommender.tiers.items() if name != "popularity"},
        **evaluation.baselines(truth, config.events.weights()),
    }
    return evaluation.evaluate(models, truth, split, masked=not config.repeats)
