"""The recommender learns what the seeded shop's people like, from the past alone, the same on every run."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from features.engine import Engine
from features.errors import UserError
from features.lake import Lake
from features.shops import Shop
from features.windows import Window, rolling
from serving.recommend import Recommender
from training import recommend
from training.device import choose
from training.recommend import RecommendConfig, RecommendModel, climb, cooccurrence, evaluate, fit, loaded

CONFIG = RecommendConfig(n_factors=16, n_iterations=4, validation_days=21)


@pytest.fixture(scope="module")
def window(shop: Shop) -> Window:
    lake = Lake(shop)
    return next(rolling(lake.engine(), lake.end(), timedelta(days=21)))


@pytest.fixture(scope="module")
def model(window: Window) -> RecommendModel:
    return fit(window.past, window.as_of, CONFIG, choose("cpu"))


@pytest.fixture(scope="module")
def recommender(model: RecommendModel) -> Recommender:
    return loaded(model)


def test_the_blend_is_ahead_of_its_baselines(recommender: Recommender, window: Window) -> None:
    rows = {row.model: row for row in evaluate(recommender, window, "time") if row.metric == "ndcg_at_10"}
    assert rows["blend"].value > rows["popularity"].high
    assert rows["blend"].value > rows["personal_top_frequency"].value
    assert all(0 <= row.low <= row.value <= row.high <= 1 for row in rows.values())


def test_the_same_seed_gives_the_same_numbers(model: RecommendModel, window: Window) -> None:
    again = fit(window.past, window.as_of, CONFIG, choose("cpu"))
    np.testing.assert_array_equal(again.item_factors, model.item_factors)
    np.testing.assert_array_equal(again.neighbours, model.neighbours)
    assert again.blend == model.blend


def test_the_blend_is_chosen_with_tiers_that_did_not_see_its_slice(
    window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    latest = []
    real = recommend._fit_tiers

    def watched(past: Engine, *rest: object) -> RecommendModel:
        latest.append(past.select("select max(event_timestamp) as at from events")["at"][0].as_py().replace(tzinfo=UTC))
        return real(past, *rest)

    monkeypatch.setattr(recommend, "_fit_tiers", watched)
    fit(window.past, window.as_of, CONFIG, choose("cpu"))
    cut = window.as_of - timedelta(days=CONFIG.validation_days)
    assert latest[0] < cut <= latest[1] < window.as_of


def test_hidden_items_are_never_recommended(recommender: Recommender, window: Window) -> None:
    hidden = window.past.select("select item_id from items where availability = 'hidden'")["item_id"].to_pylist()
    assert hidden
    assert not set(hidden) & set(recommender.item_ids)


def test_folding_in_agrees_with_the_factorisation(model: RecommendModel, recommender: Recommender) -> None:
    """A user's items score higher than others' on average: the folded-in factors explain the history."""
    history = recommender.history(model.data.user_ids[0])
    scores = recommender.tier_scores(history)["als"]
    assert scores[history.items].mean() > scores.mean()


def test_cooccurrence_is_the_cosine_of_visits() -> None:
    visits = [{0, 1, 2}, {0, 1}, {2}, {3}]
    numbers = np.array([number for number, items in enumerate(visits) for _ in items], np.int32)
    items = np.array([item for visit in visits for item in sorted(visit)], np.int32)
    neighbours, scores = cooccurrence(numbers, items, 4, 3)

    def cosine(left: int, right: int) -> float:
        met = sum({left, right} <= visit for visit in visits)
        return met / np.sqrt(sum(left in visit for visit in visits) * sum(right in visit for visit in visits))

    assert neighbours[0, 0] == 1
    for item in range(4):
        for neighbour, score in zip(neighbours[item], scores[item], strict=True):
            assert score == pytest.approx(cosine(item, neighbour) if score else 0.0)
    assert not scores[3].any()


def test_climbing_finds_the_best_corner() -> None:
    target = np.array([0.0, 1.6, 0.1, 1.0], np.float32)
    found = climb(lambda weights: -float(np.abs(weights - target).sum()), np.ones(4, np.float32))
    np.testing.assert_allclose(found, target)


def test_too_little_data_is_told(shop: Shop) -> None:
    as_of = datetime(2000, 1, 1, tzinfo=UTC)
    with pytest.raises(UserError, match="no item was touched by 5 people before 1999"):
        fit(Lake(shop).engine(), as_of, CONFIG, choose("cpu"))
