"""The recommender on a checkerboard: even users buy even items, odd users odd ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from serving.artifact import Artifact, Draft
from serving.recommend import NOBODY, TIERS, History, Recommender, best, scaled

N_ITEMS, N_USERS = 8, 6


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    draft = Draft(tmp_path_factory.mktemp("artifact") / "checkerboard")
    parity = np.arange(N_ITEMS) % 2
    factors = np.stack([parity == 0, parity == 1], axis=1).astype(np.float32)
    same = parity[:, None] == parity[None, :]
    neighbours = np.stack([np.flatnonzero(row & (np.arange(N_ITEMS) != item)) for item, row in enumerate(same)])
    draft.json("item_ids", [f"i{item}" for item in range(N_ITEMS)])
    draft.json("user_ids", [f"u{user}" for user in range(N_USERS)])
    draft.json("blend", {"weights": dict.fromkeys(TIERS, 1.0), "confidence": 10.0})
    draft.array("popularity", np.arange(N_ITEMS, 0, -1).astype(np.float32))
    draft.array("neighbours", neighbours.astype(np.int32))
    draft.array("neighbour_scores", np.ones(neighbours.shape, np.float32))
    draft.array("item_factors", factors)
    draft.array("gram", factors.T @ factors + 0.1 * np.eye(2, dtype=np.float32))
    draft.array("history_starts", np.arange(N_USERS + 1))
    draft.array("history_items", (np.arange(N_USERS) % 2).astype(np.int32))
    draft.array("history_weights", np.ones(N_USERS, np.float32))
    return Recommender.load(Artifact(draft.folder))


def asked(recommender: Recommender, **request: object) -> dict:
    default = {"user_id": None, "item_ids": [], "n": 4, "exclude_ids": [], "explain": False, "placement": "home"}
    return recommender.answer(default | request)


def names(answer: dict) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


@pytest.mark.parametrize("user", range(N_USERS))
def test_a_known_user_gets_items_of_the_same_colour(recommender: Recommender, user: int) -> None:
    answer = asked(recommender, user_id=f"u{user}")
    assert answer["tier"] == "personal"
    assert {int(name[1:]) % 2 for name in names(answer)} == {user % 2}


def test_nobody_gets_what_is_popular(recommender: Recommender) -> None:
    answer = asked(recommender)
    assert answer["tier"] == "popular"
    assert names(answer) == ["i0", "i1", "i2", "i3"]
    assert not answer["degraded"]


def test_a_stranger_gets_what_is_popular_and_is_told(recommender: Recommender) -> None:
    answer = asked(recommender, user_id="stranger")
    assert names(answer) == names(asked(recommender))
    assert answer["degraded"] == ["the user has no history yet"]


def test_context_items_bring_similar_ones_but_not_themselves(recommender: Recommender) -> None:
    answer = asked(recommender, item_ids=["i1", "i3"])
    assert answer["tier"] == "similar"
    assert names(answer)[:2] == ["i5", "i7"]
    assert not {"i1", "i3"} & set(names(answer))


def test_excluded_items_never_come_and_fewer_are_given(recommender: Recommender) -> None:
    answer = asked(recommender, n=8, exclude_ids=["i0", "i2", "unknown"])
    assert len(names(answer)) == N_ITEMS - 2
    assert not {"i0", "i2"} & set(names(answer))


def test_an_unknown_context_item_is_told(recommender: Recommender) -> None:
    assert asked(recommender, item_ids=["gone"])["degraded"] == ["some of item_ids are not in the catalogue"]


def test_explained_shares_add_up_to_the_score(recommender: Recommender) -> None:
    for item in asked(recommender, user_id="u1", explain=True)["items"]:
        assert sum(item["tiers"].values()) == pytest.approx(item["score"])


def test_folding_in_solves_the_normal_equations(recommender: Recommender) -> None:
    history = History(np.array([0, 3], np.int32), np.array([1.0, 0.5], np.float32))
    confidence = np.zeros(N_ITEMS)
    confidence[history.items] = recommender.confidence * history.weights
    preference = (confidence > 0).astype(float)
    items = np.asarray(recommender.item_factors, float)
    left = items.T @ np.diag(1 + confidence) @ items + 0.1 * np.eye(2)
    expected = np.linalg.solve(left, items.T @ ((1 + confidence) * preference))
    np.testing.assert_allclose(recommender._folded_in(history), expected, rtol=1e-5)


def test_no_history_scores_by_popularity_alone(recommender: Recommender) -> None:
    parts = recommender.tier_scores(NOBODY)
    assert all(not parts[tier].any() for tier in TIERS if tier != "popularity")


@given(arrays(np.float32, st.integers(1, 50), elements=st.floats(-5, 5, width=16)), st.integers(1, 60))
def test_best_equals_the_full_stable_sort(scores: np.ndarray, n: int) -> None:
    assert best(scores, n) == np.argsort(-scores, kind="stable")[:n].tolist()


@given(arrays(np.float32, 20, elements=st.floats(-5, 5, width=16)))
def test_scaled_scores_end_at_one(scores: np.ndarray) -> None:
    assert scaled(scores).max() == pytest.approx(1.0 if scores.max() > 0 else 0.0)
