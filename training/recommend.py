"""Fits the recommender: popularity, co-occurrence, implicit ALS and repeat purchase, blended on a later slice.

The blend's weights are chosen on the last ``validation_days`` before the cut-off with tiers fitted on what lies before
them; then every tier is fitted again on the whole past. The window under evaluation is seen by neither.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
from implicit.als import AlternatingLeastSquares
from numpy.typing import NDArray
from pydantic import Field
from scipy import sparse
from threadpoolctl import threadpool_limits

from features.engine import Engine
from features.errors import UserError
from features.interactions import EventWeights, Interactions, interactions, visits
from features.windows import Window, time_window
from serving.artifact import Artifact, Draft, Json
from serving.recommend import NOBODY, TIERS, History, Recommender, best
from training import ranking
from training.config import Config, PositiveFloat, PositiveInt
from training.device import Device
from training.evaluation import Row, mean_row

K = 10


class RecommendConfig(Config):
    """What the recommender is fitted with."""

    purchase_weight: PositiveFloat = 1.0
    """What a purchase counts."""
    cart_weight: Annotated[float, Field(ge=0)] = 0.5
    """What an item put in the cart counts."""
    view_weight: Annotated[float, Field(ge=0)] = 0.1
    """What a view counts."""
    half_life_days: PositiveFloat = 90.0
    """After so many days an event counts half, in histories and popularity."""
    min_users: PositiveInt = 5
    """People who must have touched an item for it to be recommended."""
    n_neighbours: Annotated[int, Field(gt=0, le=1000)] = 100
    """Neighbours kept per item."""
    n_factors: Annotated[int, Field(gt=0, le=2048)] = 64
    """Dimensions of the factorisation."""
    regularization: PositiveFloat = 10.0
    """L2 penalty of the factorisation."""
    confidence: PositiveFloat = 20.0
    """How much more a full affinity weighs than an item never touched (alpha of the source)."""
    n_iterations: PositiveInt = 10
    """Alternations of the factorisation."""
    validation_days: PositiveInt = 28
    """Days before the cut-off on which the blend is chosen."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of the factorisation's start."""

    def event_weights(self) -> EventWeights:
        return EventWeights(self.purchase_weight, self.cart_weight, self.view_weight, self.half_life_days)


@dataclass(frozen=True, slots=True)
class RecommendModel:
    """Fitted tiers and the weights of their blend; ``export`` writes what ``serving.recommend`` reads."""

    data: Interactions
    neighbours: NDArray[np.int32]
    neighbour_scores: NDArray[np.float32]
    item_factors: NDArray[np.float32]
    gram: NDArray[np.float32]
    confidence: float
    blend: dict[str, float]
    name: str = "blend"

    @property
    def metrics(self) -> dict[str, float]:
        return {f"blend_{tier}": weight for tier, weight in self.blend.items()}

    def export(self, draft: Draft) -> None:
        draft.json("item_ids", self.data.item_ids)
        draft.json("user_ids", self.data.user_ids)
        draft.json("blend", {"weights": self.blend, "confidence": self.confidence})
        draft.array("popularity", self.data.popularity())
        draft.array("neighbours", self.neighbours)
        draft.array("neighbour_scores", self.neighbour_scores)
        draft.array("item_factors", self.item_factors)
        draft.array("gram", self.gram)
        draft.array("history_starts", np.searchsorted(self.data.users, np.arange(len(self.data.user_ids) + 1)))
        draft.array("history_items", self.data.items)
        draft.array("history_weights", self.data.affinities)

    def golden_requests(self) -> list[Json]:
        users, items = self.data.user_ids, self.data.item_ids
        asked: list[tuple[str | None, list[str]]] = [(None, []), ("nobody we know", []), (None, items[:1])]
        asked += [(user, []) for user in users[:: max(1, len(users) // 5)][:5]]
        return [
            {"placement": "home", "user_id": user, "item_ids": context, "n": 5, "exclude_ids": [], "explain": False}
            for user, context in asked
        ]


one_blas_thread = threadpool_limits.wrap(limits=1, user_api="blas")
"""Small products are slower on many threads, which then fight with those of the factorisation."""


@one_blas_thread
def fit(past: Engine, as_of: datetime, config: RecommendConfig, device: Device) -> RecommendModel:
    """Fit every tier on the past and choose the blend on its last ``validation_days``.

    Raises UserError when the past holds too little to fit on.
    """
    validation = time_window(past, as_of - timedelta(days=config.validation_days), as_of)
    earlier = _fit_tiers(validation.past, validation.as_of, config, device, _even_blend())
    blend = _chosen_blend(earlier, validation)
    return _fit_tiers(past, as_of, config, device, blend)


def _even_blend() -> dict[str, float]:
    return dict.fromkeys(TIERS, 1.0)


def _fit_tiers(
    past: Engine, as_of: datetime, config: RecommendConfig, device: Device, blend: dict[str, float]
) -> RecommendModel:
    data = interactions(past, as_of, config.event_weights(), config.min_users)
    if not len(data.items):
        raise UserError(
            f"no item was touched by {config.min_users} people before {as_of:%Y-%m-%d}: "
            "ingest more events or lower min_users"
        )
    visit_numbers, visit_items = visits(past, as_of, data.item_ids)
    neighbours, neighbour_scores = cooccurrence(visit_numbers, visit_items, len(data.item_ids), config.n_neighbours)
    item_factors = als(data, config, device)
    gram = item_factors.T @ item_factors + config.regularization * np.eye(config.n_factors, dtype=np.float32)
    return RecommendModel(data, neighbours, neighbour_scores, item_factors, gram, config.confidence, blend)


def cooccurrence(
    visit_numbers: NDArray[np.int32], visit_items: NDArray[np.int32], n_items: int, n_neighbours: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The items most often met in the visits of each item, by cosine ``n_ij / sqrt(n_i n_j)``.

    visit_numbers, visit_items : int32, shape (n,); one entry per item of a visit
    Returns neighbours int32 and scores float32, both (n_items, n_neighbours), best first, padded with score 0.
    Source: Sarwar et al., "Item-based collaborative filtering recommendation algorithms", WWW 2001, section 3.1.1.
    """
    shape = (int(visit_numbers.max(initial=-1)) + 1, n_items)
    visits_items = sparse.csr_matrix((np.ones(len(visit_items), np.float32), (visit_numbers, visit_items)), shape=shape)
    counts = np.maximum(np.asarray(visits_items.sum(axis=0)).ravel(), 1)
    scaled = visits_items @ sparse.diags_array((1 / np.sqrt(counts)).astype(np.float32))
    neighbours = np.zeros((n_items, n_neighbours), np.int32)
    scores = np.zeros((n_items, n_neighbours), np.float32)
    by_item = scaled.T.tocsr()
    for start in range(0, n_items, 2048):
        block = (by_item[start : start + 2048] @ scaled).tocsr()
        for row in range(block.shape[0]):
            _keep_best(block, row, start + row, neighbours, scores)
    return neighbours, scores


def _keep_best(
    block: Any,  # noqa: ANN401
    row: int,
    item: int,
    neighbours: NDArray[np.int32],
    scores: NDArray[np.float32],
) -> None:
    places = slice(block.indptr[row], block.indptr[row + 1])
    others = block.indices[places] != item
    found, found_scores = block.indices[places][others], block.data[places][others]
    chosen = np.lexsort((found, -found_scores))[: neighbours.shape[1]]
    neighbours[item, : len(chosen)] = found[chosen]
    scores[item, : len(chosen)] = found_scores[chosen]


def als(data: Interactions, config: RecommendConfig, device: Device) -> NDArray[np.float32]:
    """Item factors of implicit matrix factorisation, float32 (n_items, n_factors).

    Source: Hu, Koren, Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008.
    """
    shape = (len(data.user_ids), len(data.item_ids))
    user_items = sparse.csr_matrix((data.affinities, (data.users, data.items)), shape=shape)
    model = AlternatingLeastSquares(
        factors=config.n_factors,
        regularization=config.regularization,
        alpha=config.confidence,
        iterations=config.n_iterations,
        random_state=config.seed,
        use_gpu=device.name == "cuda",
    )
    model.fit(user_items, show_progress=False)
    factors = model.item_factors
    return np.asarray(factors.to_numpy() if hasattr(factors, "to_numpy") else factors, dtype=np.float32)


# The blend


def _chosen_blend(model: RecommendModel, validation: Window) -> dict[str, float]:
    """Weights that rank the validation window best by NDCG@10, found coordinate by coordinate; only ratios matter."""
    recommender = loaded(model)
    truth = Truth.of(validation, recommender)
    if not truth.user_ids:
        return _even_blend()
    candidates = [_candidates(recommender, user_id) for user_id in truth.user_ids]

    def quality(weights: NDArray[np.float32]) -> float:
        ranked = [items[np.argsort(-(weights @ scores), kind="stable")[:K]] for items, scores in candidates]
        return float(ranking.ndcg(ranking.hits(ranked, truth.items, K), truth.n_relevant).mean())

    weights = climb(quality, np.ones(len(TIERS), np.float32))
    return dict(zip(TIERS, weights.tolist(), strict=True))


STEPS = (0.0, 0.05, 0.1, 0.2, 0.35, 0.6, 1.0, 1.6, 2.5)


def climb(quality: Callable[[NDArray[np.float32]], float], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Coordinate ascent: each weight in turn takes the best of ``STEPS`` until a round changes nothing."""
    reached = quality(weights)
    for _ in range(4):
        before = weights.copy()
        for place in range(len(weights)):
            for step in STEPS:
                tried = weights.copy()
                tried[place] = step
                if tried.any() and (found := quality(tried)) > reached:
                    weights, reached = tried, found
        if np.array_equal(before, weights):
            break
    return weights


def _candidates(
    recommender: Recommender, user_id: str, n_per_tier: int = 50
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The union of each tier's best items for a user, with every tier's scores, shape (n_tiers, n_candidates)."""
    parts = recommender.tier_scores(recommender.history(user_id))
    items = np.unique(np.concatenate([best(scores, n_per_tier) for scores in parts.values()])).astype(np.int64)
    return items, np.stack([parts[tier][items] for tier in TIERS])


def loaded(model: RecommendModel) -> Recommender:
    with TemporaryDirectory() as folder:
        draft = Draft(Path(folder) / "tiers")
        model.export(draft)
        return Recommender.load(Artifact(draft.folder))


# Evaluation


@dataclass(frozen=True, slots=True)
class Truth:
    """Who bought what in a window: ids of users, their items' indices (new items stand as -1, -2 ...), their number."""

    user_ids: list[str]
    items: list[set[int]]
    n_relevant: NDArray[np.int64]

    @classmethod
    def of(cls, window: Window, recommender: Recommender) -> "Truth":
        even = dict.fromkeys(("purchase_weight", "cart_weight", "view_weight", "half_life_days"), 1.0)
        bought = window.truth.query("affinities", as_of=window.end, since=window.since, **even)
        wanted = bought.filter(bought["n_purchases"].to_numpy() > 0)
        wanted = wanted if wanted.num_rows else bought
        index = {item_id: place for place, item_id in enumerate(recommender.item_ids)}
        relevant: dict[str, set[int]] = {}
        for user_id, item_id in zip(wanted["person_id"].to_pylist(), wanted["item_id"].to_pylist(), strict=True):
            items = relevant.setdefault(user_id, set())
            items.add(index.get(item_id, -1 - len(items)))
        users = sorted(relevant)
        return cls(users, [relevant[user] for user in users], np.array([len(relevant[user]) for user in users]))


@one_blas_thread
def evaluate(recommender: Recommender, window: Window, split: str) -> list[Row]:
    """NDCG@10 and recall@10 of the blend, of popularity and of what the person itself bought most.

    ``personal_top_frequency`` counts every purchase alike, ``personal_recent_frequency`` as the blend's histories do.
    Relevant are the items bought in the window (touched, in a shop without purchases); everyone who bought counts, and
    what was bought before may be recommended again.
    """
    truth = Truth.of(window, recommender)
    if not truth.user_ids:
        raise UserError(
            f"nobody bought between {window.as_of:%Y-%m-%d} and {window.end:%Y-%m-%d}: choose another --until"
        )
    rankings = _rankings(recommender, window, truth.user_ids)
    return [row for model, ranked in rankings.items() for row in _rows(model, split, ranked, truth)]


def _rankings(recommender: Recommender, window: Window, user_ids: list[str]) -> dict[str, list[NDArray[np.int64]]]:
    popularity = np.array(recommender.popularity)
    frequency = _personal_frequency(recommender, window)
    tie_break = 1e-6 * popularity.astype(np.float64) / max(popularity.max(), 1e-9)
    histories = [recommender.history(user_id) for user_id in user_ids]
    return {
        "blend": [_top(recommender.scores(history)) for history in histories],
        "popularity": [_top(popularity)] * len(user_ids),
        "personal_top_frequency": [_top(_counts(frequency.get(u, NOBODY), tie_break)) for u in user_ids],
        "personal_recent_frequency": [_top(_counts(history, tie_break)) for history in histories],
    }


def _personal_frequency(recommender: Recommender, window: Window) -> dict[str, History]:
    """How often each person bought each item in the past, undecayed: the baseline of grocery recommendation."""
    weights = EventWeights(purchase=1.0, cart=0.0, view=0.0, half_life_days=1e9)
    data = interactions(window.past, window.as_of, weights, min_users=1)
    index = {item_id: place for place, item_id in enumerate(recommender.item_ids)}
    places = np.array([index.get(item_id, -1) for item_id in data.item_ids], np.int32)[data.items]
    starts = np.searchsorted(data.users, np.arange(len(data.user_ids) + 1))
    return {
        user_id: History(places[first:last][kept], data.n_purchases[first:last][kept].astype(np.float32))
        for user_id, first, last in zip(data.user_ids, starts[:-1], starts[1:], strict=True)
        for kept in [places[first:last] >= 0]
    }


def _counts(frequency: History, tie_break: NDArray[np.float64]) -> NDArray[np.float64]:
    counts = tie_break.copy()
    counts[frequency.items] += frequency.weights
    return counts


def _top(scores: NDArray[np.floating]) -> NDArray[np.int64]:
    return np.array(best(scores, K), np.int64)


def _rows(model: str, split: str, ranked: list[NDArray[np.int64]], truth: Truth) -> list[Row]:
    found = ranking.hits(ranked, truth.items, K)
    return [
        mean_row(model, split, f"ndcg_at_{K}", ranking.ndcg(found, truth.n_relevant)),
        mean_row(model, split, f"recall_at_{K}", ranking.recall(found, truth.n_relevant)),
    ]
