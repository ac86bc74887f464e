"""The blend's weights are those that rank best what the tiers did not see."""

import numpy as np
import pytest

from features.histories import NO_ATTRIBUTES, Histories, Log
from serving.tiers import Popularity
from training.recommend.blend import Asked, Candidates, asked_by_people, asked_in_visits, candidates, climb

N_ITEMS = 40
N_QUESTIONS = 50


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def log_of(items_by_user: dict[str, list[int]], visits: list[int] | None = None) -> Log:
    items = np.concatenate([np.array(items, np.int32) for items in items_by_user.values()])
    starts = np.concatenate([[0], np.cumsum([len(items) for items in items_by_user.values()])])
    n = len(items)
    histories = Histories(starts, items, np.full(n, 2, np.int8), np.zeros(n, np.float32))
    numbers = np.array(visits if visits is not None else range(n), np.int32)
    return Log(list(items_by_user), [f"i{item}" for item in range(N_ITEMS)], histories, numbers, NO_ATTRIBUTES)


def slow_ndcg(weights: np.ndarray, fitted: dict[str, Popularity], asked: Asked) -> float:
    """By sorting all items of everybody."""
    gains = []
    for user in range(asked.histories.n_users):
        scores = sum(
            weight * (tier.popularity - tier.popularity.mean()) / tier.popularity.std()
            for weight, tier in zip(weights, fitted.values(), strict=True)
        )
        wanted = {key % N_ITEMS for key in asked.relevant.tolist() if key // N_ITEMS == user}
        ranked = np.argsort(-scores, kind="stable")[:10].tolist()
        gain = sum(1 / np.log2(rank + 2) for rank, item in enumerate(ranked) if item in wanted)
        gains.append(gain / sum(1 / np.log2(rank + 2) for rank in range(min(10, len(wanted)))))
    return float(np.mean(gains))


def test_quality_is_the_ndcg_of_the_full_ranking(rng: np.random.Generator) -> None:
    fitted = {name: Popularity(rng.permutation(N_ITEMS).astype(np.float32)) for name in ("one", "other")}
    known = log_of({f"u{user:02}": [0] for user in range(20)})
    truth = log_of({f"u{user:02}": rng.integers(0, N_ITEMS, 1 + user % 12).tolist() for user in range(20)})
    asked = asked_by_people(known, truth, N_QUESTIONS, repeats=True)
    found = candidates(fitted, asked, repeats=True)
    for weights in ([1.0, 0.0], [0.3, 0.7], [1.0, -0.4]):
        assert found.ndcg(np.array(weights, np.float32)) == pytest.approx(slow_ndcg(weights, fitted, asked))


def test_people_are_asked_by_their_own_history() -> None:
    known = log_of({"a": [1, 2], "b": [3]})
    truth = log_of({"b": [4, 4, 5], "c": [6]})
    asked = asked_by_people(known, truth, N_QUESTIONS, repeats=True)
    assert asked.histories.items.tolist() == [3]
    assert asked.relevant.tolist() == [4, 5]
    assert asked_by_people(known, log_of({"c": [6]}), N_QUESTIONS, repeats=True) is None


def test_what_was_seen_is_not_relevant_where_nothing_is_bought_twice() -> None:
    known, truth = log_of({"a": [1, 2], "b": [3]}), log_of({"a": [2], "b": [3, 4]})
    asked = asked_by_people(known, truth, N_QUESTIONS, repeats=False)
    assert asked.histories.n_users == 1
    assert asked.relevant.tolist() == [4]


def test_seen_items_are_no_candidates_where_nothing_is_bought_twice() -> None:
    asked = Asked(Histories.of([7, 8]), np.array([9]), N_ITEMS, [])
    tier = {"popularity": Popularity(np.arange(N_ITEMS, dtype=np.float32))}
    assert {7, 8} <= set(candidates(tier, asked, repeats=True).items[0].tolist())
    assert not {7, 8} & set(candidates(tier, asked, repeats=False).items[0].tolist())


def test_one_item_of_a_visit_asks_for_the_others() -> None:
    truth = log_of({"a": [1, 2, 3, 4], "b": [5]}, visits=[0, 0, 0, 1, 2])
    asked = asked_in_visits(truth, N_QUESTIONS)
    assert asked.histories.n_users == 1
    assert sorted([*asked.histories.items.tolist(), *asked.relevant.tolist()]) == [1, 2, 3]
    assert asked_in_visits(log_of({"a": [1, 2]}), N_QUESTIONS) is None


def test_at_most_so_many_people_are_asked() -> None:
    known = log_of({f"u{user:03}": [0] for user in range(200)})
    assert asked_by_people(known, known, N_QUESTIONS, repeats=True).histories.n_users == N_QUESTIONS


def test_padding_is_never_shown() -> None:
    scores = np.array([[[-5.0, -6.0], [-7.0, 0.0]]], np.float32)
    real, relevant = np.array([[True, True], [True, False]]), np.array([[False, True], [True, False]])
    found = Candidates(np.zeros((2, 2), np.int32), scores, real, relevant, np.array([1, 1]))
    assert found.ndcg(np.ones(1, np.float32)) == pytest.approx((1 / np.log2(3) + 1) / 2)


def test_climbing_finds_the_best_corner() -> None:
    target = np.array([0.0, 1.6, -1.0, 1.0], np.float32)
    found = climb(lambda weights: -float(np.abs(weights - target).sum()), np.ones(4, np.float32))
    np.testing.assert_allclose(found, target)
