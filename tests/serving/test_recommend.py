"""The recommender on a checkerboard: even users buy even items, odd users odd ones."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from features.histories import Histories
from serving import tiers
from serving.artifact import Artifact, Draft
from serving.catalogue import Catalogue
from serving.recommend import Recommender, best, standardised
from serving.schema import RecommendationRequest
from serving.tiers import Neighbours, Popularity

N_ITEMS, N_USERS = 10, 6
SOLD_OUT = 8
N_SHOWN = N_ITEMS - 1
EQUAL_KINDS = np.ones(3, np.float32)


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    return checkerboard(tmp_path_factory, repeats=True)


@pytest.fixture(scope="module")
def without_repeats(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    return checkerboard(tmp_path_factory, repeats=False)


def checkerboard(tmp_path_factory: pytest.TempPathFactory, repeats: bool) -> Recommender:
    draft = Draft(tmp_path_factory.mktemp("artifact") / "checkerboard")
    parity = np.arange(N_ITEMS) % 2
    same = parity[:, None] == parity[None, :]
    neighbours = np.stack([np.flatnonzero(row & (np.arange(N_ITEMS) != item)) for item, row in enumerate(same)])
    similarities = np.ones(neighbours.shape, np.float32)
    together = Neighbours(neighbours.astype(np.int32), similarities, EQUAL_KINDS, 90 * EQUAL_KINDS, 1.0)
    tiers.save(draft, "popularity", Popularity(np.arange(N_ITEMS, 0, -1).astype(np.float32)))
    tiers.save(draft, "cooccurrence", together)
    draft.json("item_ids", [f"i{item}" for item in range(N_ITEMS)])
    draft.json("user_ids", [f"u{user}" for user in range(N_USERS)])
    listed = {"item_id": [f"i{item}" for item in range(N_ITEMS)], "price": [float(item) for item in range(N_ITEMS)]}
    in_stock = {"availability": ["out_of_stock" if item == SOLD_OUT else "in_stock" for item in range(N_ITEMS)]}
    Catalogue.of(pa.table(listed | in_stock), listed["item_id"]).save(draft)
    blend = {"personal": {"popularity": 0.1, "cooccurrence": 1.0}, "similar": {"popularity": 0.0, "cooccurrence": 1.0}}
    draft.json(
        "recommender",
        {"tiers": ["popularity", "cooccurrence"], "blend": blend, "repeats": repeats, "is_reranked": False},
    )
    histories = Histories.each_of(np.arange(N_USERS) % 2, "purchase")
    for field in Histories.__slots__:
        draft.array(f"histories.{field}", getattr(histories, field))
    return Recommender.load(Artifact(draft.folder))


def asked(recommender: Recommender, **request: object) -> dict:
    return recommender.answer(RecommendationRequest(**{"n": 4, **request}).model_dump())


def names(answer: dict) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


@pytest.mark.parametrize("user", range(N_USERS))
def test_a_known_user_gets_items_of_the_same_colour(recommender: Recommender, user: int) -> None:
    answer = asked(recommender, user_id=f"u{user}", n=3)
    assert answer["tier"] == "personal"
    assert {int(name[1:]) % 2 for name in names(answer)} == {user % 2}


def test_a_guest_is_known_by_the_device(recommender: Recommender) -> None:
    guest = asked(recommender, user_pseudo_id="u1", n=3)
    assert guest == asked(recommender, user_id="u1", n=3)
    assert asked(recommender, user_id="u0", user_pseudo_id="u1", n=3) == asked(recommender, user_id="u0", n=3)


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
    assert len(names(answer)) == N_SHOWN - 2
    assert not {"i0", "i2"} & set(names(answer))


def test_what_is_sold_out_never_comes(recommender: Recommender) -> None:
    for question in ({}, {"user_id": "u0"}, {"item_ids": ["i2"]}, {"filters": "price > 4"}):
        assert f"i{SOLD_OUT}" not in names(asked(recommender, n=N_ITEMS, **question))


def test_a_filter_leaves_what_it_admits_in_the_same_order(recommender: Recommender) -> None:
    everything = names(asked(recommender, user_id="u1", n=N_ITEMS))
    cheap = names(asked(recommender, user_id="u1", n=N_ITEMS, filters="price < 4"))
    assert cheap == [item_id for item_id in everything if int(item_id[1:]) < 4]
    assert names(asked(recommender, filters="price > 100")) == []


def test_an_unknown_context_item_is_told(recommender: Recommender) -> None:
    assert asked(recommender, item_ids=["gone"])["degraded"] == ["some of item_ids are not in the catalogue"]


def test_explained_shares_add_up_to_the_score(recommender: Recommender) -> None:
    for item in asked(recommender, user_id="u1", explain=True)["items"]:
        assert sum(item["tiers"].values()) == pytest.approx(item["score"])


def test_what_a_person_has_is_not_recommended_where_nothing_is_bought_twice(without_repeats: Recommender) -> None:
    answer = asked(without_repeats, user_id="u1", n=N_ITEMS)
    assert len(names(answer)) == N_SHOWN - 1
    assert "i1" not in names(answer)


RECENT = {"item_ids": ["i2", "gone"], "event_names": ["purchase"] * 2, "ages_days": [0.0] * 2, "elapsed_days": 30.0}


def test_what_a_guest_just_did_counts(recommender: Recommender) -> None:
    asked_by_guest = RecommendationRequest(n=3).model_dump()
    answer = recommender.answer({**asked_by_guest, "recent": RECENT})
    assert answer["tier"] == "personal"
    assert {int(name[1:]) % 2 for name in names(answer)} == {0}


def test_what_a_customer_just_did_counts_more_than_what_was_a_month_ago(recommender: Recommender) -> None:
    odd = RecommendationRequest(user_id="u1", n=3).model_dump()
    assert {int(name[1:]) % 2 for name in names(recommender.answer(odd))} == {1}
    assert {int(name[1:]) % 2 for name in names(recommender.answer({**odd, "recent": RECENT}))} == {0}


def test_what_is_not_in_the_catalogue_tells_nothing(recommender: Recommender) -> None:
    unknown = {**RECENT, "item_ids": ["gone", "too"]}
    asked_by_guest = RecommendationRequest().model_dump()
    assert recommender.answer({**asked_by_guest, "recent": unknown}) == recommender.answer(asked_by_guest)


def test_what_was_just_bought_is_not_recommended_where_nothing_is_bought_twice(without_repeats: Recommender) -> None:
    asked_by_customer = RecommendationRequest(user_id="u1", n=N_ITEMS).model_dump()
    assert not {"i1", "i2"} & set(names(without_repeats.answer({**asked_by_customer, "recent": RECENT})))


def test_a_batch_is_scored_as_each_alone(recommender: Recommender) -> None:
    histories = Histories(
        np.array([0, 2, 2, 3]), np.array([1, 3, 4], np.int32), np.array([0, 2, 1], np.int8), np.zeros(3, np.float32)
    )
    together = recommender.scores(histories)
    alone = [recommender.scores(histories.take(np.array([user]))) for user in range(3)]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-6)
    assert together.shape == (3, N_ITEMS)


def test_nobody_at_all_gets_no_scores(recommender: Recommender) -> None:
    assert recommender.scores(Histories.of([]).take(np.array([], np.int64))).shape == (0, N_ITEMS)


@given(arrays(np.float32, st.integers(1, 50), elements=st.floats(-5, 5, width=16)), st.integers(1, 60))
def test_best_equals_the_full_stable_sort(scores: np.ndarray, n: int) -> None:
    assert best(scores, n) == np.argsort(-scores, kind="stable")[:n].tolist()


@given(arrays(np.float32, (3, 20), elements=st.floats(-5, 5, width=16)))
def test_standardised_scores_have_mean_0_and_variance_1(scores: np.ndarray) -> None:
    found = standardised(scores)
    np.testing.assert_allclose(found.mean(axis=1), 0, atol=1e-4)
    spread = np.ptp(scores, axis=1) > 1e-3
    np.testing.assert_allclose(found.std(axis=1)[spread], 1, rtol=1e-3)
    assert not found[np.ptp(scores, axis=1) == 0].any()


@given(arrays(np.float32, 20, elements=st.floats(-5, 5, width=16)))
def test_standardising_keeps_the_order(scores: np.ndarray) -> None:
    assert (np.diff(standardised(scores[None])[0][np.argsort(scores, kind="stable")]) >= 0).all()
