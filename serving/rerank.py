"""Puts the blend's best items in a better order, by what is known of person, item and both together."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from features.histories import KINDS, Histories
from serving.artifact import Artifact, Draft
from serving.ranking import top
from serving.tiers import Neighbours, Scores
from serving.trees import Trees

ITEM_FEATURES = (
    "n_views_28d",
    "n_carts_28d",
    "n_purchases_28d",
    "n_purchases_7d",
    "n_buyers",
    "last_price",
    "days_since_last_event",
    "days_since_first_event",
)
"""Columns of the query ``item_features`` that are read as they are."""

PAIR_FEATURES = (
    "blend_score",
    "blend_rank",
    *(f"n_{kind}" for kind in KINDS),
    "days_since_had",
    "events_since_had",
    "attribute_affinity",
    "log_price_to_habit",
    "log_purchase_trend",
    "n_events",
    "days_since_last_seen",
)
"""What is computed for each person and candidate."""

LINK_FEATURES = ("strongest_link", "second_link", "third_link")
"""Of each tier of neighbours, how alike a candidate is to those items of the history that it is most alike."""


@dataclass(frozen=True, slots=True)
class Items:
    """What the order of candidates is learned from, by item.

    features : float64, shape (n_items, len(ITEM_FEATURES)), NaN where nothing is known
    values : int32, shape (n_items, n_slots), attribute values; those of no item are ``n_values``
    n_values : number of attribute values
    """

    features: NDArray[np.float64]
    values: NDArray[np.int32]
    n_values: int

    def column(self, name: str) -> NDArray[np.float64]:
        """One feature of every item, float64, shape (n_items,)."""
        return self.features[:, ITEM_FEATURES.index(name)]


def neighbours_among(tiers: Mapping[str, object]) -> dict[str, Neighbours]:
    """The tiers that know of each item which others go with it."""
    return {name: tier for name, tier in tiers.items() if isinstance(tier, Neighbours)}


def names(parts: Collection[str], neighbours: Collection[str]) -> list[str]:
    """The features of a candidate in their order."""
    scores = [f"{kind}.{tier}" for kind in ("score", "rank") for tier in parts]
    links = [f"{kind}.{tier}" for tier in neighbours for kind in LINK_FEATURES]
    return [*scores, *PAIR_FEATURES, *links, *ITEM_FEATURES]


def candidate_features(
    histories: Histories,
    candidates: NDArray[np.int64],
    parts: Mapping[str, Scores],
    total: Scores,
    neighbours: Mapping[str, Neighbours],
    items: Items,
) -> NDArray[np.float64]:
    """The features of each person's candidates, float64, shape (n_users, n_candidates, n_features).

    candidates : int64, shape (n_users, n_candidates)
    parts, total : what each tier adds to the blend and the blend itself, shape (n_users, n_items)
    neighbours : as from ``neighbours_among``
    """
    scores = [np.take_along_axis(part, candidates, 1) for part in parts.values()]
    blended = np.take_along_axis(total, candidates, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        pairs: list[NDArray[Any]] = [
            blended,
            _ranks(blended),
            *_had(histories, candidates, total.shape[1]),
            _attribute_affinity(histories, candidates, items),
            _price_to_habit(histories, candidates, items),
            np.log((1 + 4 * items.column("n_purchases_7d")) / (1 + items.column("n_purchases_28d")))[candidates],
            *_of_person(histories, candidates.shape[1]),
        ]
    columns: list[NDArray[Any]] = [*scores, *map(_ranks, scores), *pairs]
    links = [tier.links(histories, candidates, len(LINK_FEATURES)) for tier in neighbours.values()]
    return np.concatenate([np.stack(columns, 2), *links, items.features[candidates]], 2)


def _ranks(scores: NDArray[np.floating]) -> NDArray[np.int64]:
    """The place of each candidate among the same person's by one score, from 0."""
    order = np.argsort(-scores, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(scores.shape[1])[None], 1)
    return ranks


def _had(histories: Histories, candidates: NDArray[np.int64], n_items: int) -> list[NDArray[np.float64]]:
    """How often each candidate was met, by kind, and how many days and events ago the last time; NaN if never."""
    keys, where = np.unique(histories.users * n_items + histories.items, return_inverse=True)
    asked = np.arange(len(candidates))[:, None] * n_items + candidates
    places = np.minimum(np.searchsorted(keys, asked), max(len(keys) - 1, 0))
    found = keys[places] == asked if len(keys) else np.zeros(asked.shape, bool)

    def of_candidates(values: NDArray[Any], missing: float) -> NDArray[np.float64]:
        return np.where(found, values[places], missing) if len(keys) else np.full(asked.shape, missing)

    counts = [np.bincount(where, (histories.kinds == kind).astype(float), len(keys)) for kind in range(len(KINDS))]
    last = np.zeros(len(keys), np.int64)
    last[where] = np.arange(len(where))
    return [
        *(of_candidates(count, 0.0) for count in counts),
        of_candidates(histories.ages[last].astype(np.float64), np.nan),
        of_candidates(histories.from_last[last].astype(np.float64), np.nan),
    ]


def _attribute_affinity(histories: Histories, candidates: NDArray[np.int64], items: Items) -> NDArray[np.float64]:
    """Mean, over a candidate's attribute values, of the share of the person's events with items of that value."""
    n_users, width = histories.n_users, items.n_values + 1
    values = items.values[histories.items]
    keys = histories.users[:, None] * width + values
    profile = np.bincount(keys.ravel(), minlength=n_users * width).reshape(n_users, width).astype(np.float64)
    profile /= np.maximum(histories.lengths, 1)[:, None]
    profile[:, -1] = 0
    shares = profile[np.arange(n_users)[:, None, None], items.values[candidates]].sum(axis=2)
    means: NDArray[np.float64] = shares / np.maximum((items.values < items.n_values).sum(axis=1), 1)[candidates]
    return means


def _price_to_habit(histories: Histories, candidates: NDArray[np.int64], items: Items) -> NDArray[np.float64]:
    """Logarithm of a candidate's price over the geometric mean price of what the person met; NaN where unknown."""
    prices = items.column("last_price")
    logs = np.log(np.where(prices > 0, prices, np.nan))
    met = logs[histories.items]
    known = np.isfinite(met)
    sums = np.bincount(histories.users[known], met[known], histories.n_users)
    habit = sums / np.bincount(histories.users[known], minlength=histories.n_users)
    return logs[candidates] - habit[:, None]


def _of_person(histories: Histories, n_candidates: int) -> list[NDArray[np.float64]]:
    """How many events a person has and how many days ago the last one was, the same for all candidates."""
    last_seen = np.full(histories.n_users, np.nan)
    some = histories.lengths > 0
    last_seen[some] = histories.ages[histories.starts[1:][some] - 1]
    return [np.repeat(values[:, None], n_candidates, 1) for values in (histories.lengths.astype(np.float64), last_seen)]


@dataclass(frozen=True, slots=True)
class Reranker:
    """LambdaRank over the blend's ``n_candidates`` best items; they stay ahead of all others.

    neighbours : as from ``neighbours_among``
    trees : as LightGBM wrote them
    """

    items: Items
    neighbours: Mapping[str, Neighbours]
    trees: Trees
    n_candidates: int

    @classmethod
    def load(cls, artifact: Artifact, tiers: Mapping[str, object]) -> Self:
        settings = artifact.json("reranker")
        items = Items(artifact.array("reranker.features"), artifact.array("reranker.values"), settings["n_values"])
        trees = Trees.from_text(artifact.text("reranker"))
        return cls(items, neighbours_among(tiers), trees, settings["n_candidates"])

    def reranked(self, histories: Histories, parts: Mapping[str, Scores], total: Scores) -> Scores:
        """The blended scores with those of the candidates in the learned order, shape (n_users, n_items)."""
        candidates = top(total, self.n_candidates)
        features = candidate_features(histories, candidates, parts, total, self.neighbours, self.items)
        gains = self.trees.predict(features.reshape(-1, features.shape[2])).reshape(candidates.shape)
        steps = (1 / (2 + _ranks(gains))).astype(np.float32)
        shown = np.take_along_axis(total, candidates, 1)
        reordered = np.where(np.isfinite(shown), total.max(axis=1, keepdims=True) + steps, shown)
        result = total.copy()
        np.put_along_axis(result, candidates, reordered, 1)
        return result


def save(draft: Draft, items: Items, trees: str, n_candidates: int) -> None:
    """Write what ``Reranker.load`` reads."""
    draft.array("reranker.features", items.features)
    draft.array("reranker.values", items.values)
    draft.json("reranker", {"n_values": items.n_values, "n_candidates": n_candidates})
    draft.text("reranker", trees)
