"""The re-ranker's features are what their names say, and its order is kept only where it gains."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pytest

from features import contract
from features.engine import Engine, empty
from features.histories import Histories
from features.windows import time_window
from serving import rerank as reranking
from serving.artifact import Artifact, Draft
from serving.rerank import ITEM_FEATURES, LINK_FEATURES, PAIR_FEATURES, Items, Reranker, candidate_features, names
from serving.tiers import Neighbours
from training.recommend.rerank import LAST_PLACE, RerankConfig, Shown, Table, fit, shown_in

N_ITEMS = 6
EVENTS = np.ones(3, np.float32), np.full(3, 90, np.float32)
UNSEEN = np.full((300, 8), LAST_PLACE + 1, np.int32)
CONFIG = RerankConfig.model_validate({"booster": {"n_trees": 20, "min_data_in_leaf": 5}})


def items() -> Items:
    features = np.full((N_ITEMS, len(ITEM_FEATURES)), np.nan)
    features[:, ITEM_FEATURES.index("last_price")] = [1, 2, 4, 8, 0, np.nan]
    features[:, ITEM_FEATURES.index("n_purchases_7d")] = [0, 1, 2, 0, 0, 0]
    features[:, ITEM_FEATURES.index("n_purchases_28d")] = [3, 4, 2, 0, 0, 0]
    values = np.array([[0, 2], [0, 2], [1, 2], [1, 0], [2, 2], [0, 1]], np.int32)
    return Items(features, values, n_values=2)


def two_people() -> Histories:
    """One who viewed item 0 twice and bought 1, and one without history."""
    items, kinds = np.array([0, 1, 0], np.int32), np.array([0, 2, 0], np.int8)
    return Histories(np.array([0, 3, 3]), items, kinds, np.array([9, 5, 2], np.float32))


def next_ones() -> Neighbours:
    """Each item goes with the next two, the first of them twice as well, and the more the later it is itself."""
    neighbours = (np.arange(N_ITEMS)[:, None] + [1, 2]) % N_ITEMS
    similarities = (1 + np.arange(N_ITEMS)[:, None]) * np.array([1, 0.5])
    return Neighbours(neighbours.astype(np.int32), similarities.astype(np.float32), *EVENTS, position_decay=0.5)


@pytest.fixture
def features() -> dict[str, np.ndarray]:
    total = np.array([[5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5]], np.float32)
    candidates = np.array([[0, 1, 2, 3], [5, 4, 3, 2]])
    parts, neighbours = {"popularity": total}, {"cooccurrence": next_ones()}
    found = candidate_features(two_people(), candidates, parts, total, neighbours, items())
    return dict(zip(names(parts, neighbours), np.moveaxis(found, 2, 0), strict=True))


def test_every_feature_has_a_name(features: dict[str, np.ndarray]) -> None:
    assert len(features) == 2 + len(PAIR_FEATURES) + len(LINK_FEATURES) + len(ITEM_FEATURES)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("score.popularity", [[5, 4, 3, 2], [5, 4, 3, 2]]),
        ("blend_rank", [[0, 1, 2, 3], [0, 1, 2, 3]]),
        ("n_view_item", [[2, 0, 0, 0], [0, 0, 0, 0]]),
        ("n_purchase", [[0, 1, 0, 0], [0, 0, 0, 0]]),
        ("days_since_had", [[2, 5, np.nan, np.nan], [np.nan] * 4]),
        ("events_since_had", [[0, 1, np.nan, np.nan], [np.nan] * 4]),
        ("attribute_affinity", [[1, 1, 0, 0.5], [0, 0, 0, 0]]),
        ("log_price_to_habit", [np.log(np.array([1, 2, 4, 8]) / 2 ** (1 / 3)), [np.nan] * 4]),
        ("log_purchase_trend", [np.log([1 / 4, 1, 3, 1]), np.log([1, 1, 1, 3])]),
        ("n_events", [[3] * 4, [0] * 4]),
        ("days_since_last_seen", [[2] * 4, [np.nan] * 4]),
        ("strongest_link.cooccurrence", [[0, 1, 2, 1], [0, 0, 0, 0]]),
        ("second_link.cooccurrence", [[0, 0, 0.5, 0], [0, 0, 0, 0]]),
        ("third_link.cooccurrence", [[0] * 4, [0] * 4]),
        ("last_price", [[1, 2, 4, 8], [np.nan, 0, 8, 4]]),
    ],
)
def test_features_are_what_their_names_say(features: dict[str, np.ndarray], name: str, expected: list) -> None:
    np.testing.assert_allclose(features[name], np.array(expected, float), rtol=1e-6)


def test_links_are_the_largest_similarities_to_different_items_of_the_history() -> None:
    rng, n_items = np.random.default_rng(1), 30
    neighbours = np.array([rng.permutation(n_items)[:8] for _ in range(n_items)], np.int32)
    tier = Neighbours(neighbours, rng.normal(size=(n_items, 8)).astype(np.float32), *EVENTS, position_decay=0.5)
    lengths = rng.integers(0, 12, 20)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    had = rng.integers(0, n_items, starts[-1]).astype(np.int32)
    histories = Histories(starts, had, np.zeros(len(had), np.int8), np.zeros(len(had), np.float32))
    candidates = np.array([rng.permutation(n_items)[:10] for _ in range(20)])
    similarity = np.zeros((n_items, n_items), np.float32)
    np.put_along_axis(similarity, neighbours, tier.similarities, 1)
    for user, found in enumerate(tier.links(histories, candidates, 2)):
        of_each = similarity[np.unique(had[starts[user] : starts[user + 1]])][:, candidates[user]].clip(min=0)
        expected = -np.sort(-np.concatenate([of_each, np.zeros((2, 10))]), axis=0)[:2].T
        np.testing.assert_array_equal(found, expected)


def examples(informative: bool) -> Table:
    """People for whom the candidate that a feature marks is right, or any; the blend's score says nothing."""
    rng = np.random.default_rng(0)
    feature_names = names(["popularity"], [])
    rows = rng.random((300, 8, len(feature_names)))
    right = rows[:, :, 5].argmax(axis=1) if informative else rows[:, :, 2].argmax(axis=1)
    relevant = np.zeros((300, 8), bool)
    relevant[np.arange(300), right] = True
    return Table(feature_names, rows, relevant, np.ones(300, np.int64), UNSEEN)


def test_an_order_that_gains_is_kept() -> None:
    assert fit(examples(informative=True), CONFIG) is not None


def test_an_order_that_loses_to_the_blend_is_dropped() -> None:
    """The blend's score is the truth itself: nothing can be better."""
    assert fit(examples(informative=False), CONFIG) is None


def test_nothing_relevant_gives_no_order() -> None:
    found = examples(informative=True)
    nothing = replace(found, relevant=np.zeros_like(found.relevant))
    assert fit(nothing, CONFIG) is None


def test_places_at_which_things_were_shown_are_looked_up() -> None:
    shown = Shown(np.array([2, N_ITEMS + 4]), np.array([7, 0], np.int32))
    found = shown.of(np.array([0, 1]), np.array([[2, 4], [2, 4]]), N_ITEMS)
    assert found.tolist() == [[7, LAST_PLACE + 1], [LAST_PLACE + 1, 0]]


def test_only_lists_before_a_purchase_explain_it(duckdb_shop: Engine) -> None:
    def row(number: int, day: int, name: str, item: str, **values: object) -> dict:
        at = {"event_timestamp": datetime(2024, 3, day), "event_id": f"e{number}", "event_name": name}
        return at | {"item_id": item, "user_id": "ann", **values}

    rows = [
        row(0, 1, "view_item_list", "a", index=1),
        row(1, 11, "view_item_list", "a", index=40),
        row(2, 12, "purchase", "a", transaction_id="t"),
        row(3, 13, "view_item_list", "a", index=0),
        row(4, 13, "view_item_list", "b", index=3),
        row(5, 14, "view_item_list", "elsewhere", index=0),
    ]
    shop = duckdb_shop.bind(events=pa.Table.from_pylist(rows, schema=empty(contract.EVENTS).schema))
    window = time_window(shop, datetime(2024, 3, 10, tzinfo=UTC), datetime(2024, 3, 20, tzinfo=UTC))
    shown = shown_in(window, ["adam", "ann"], ["a", "b"])
    assert shown.keys.tolist() == [2, 3]
    assert shown.places.tolist() == [LAST_PLACE, 3]


def test_what_is_wanted_for_its_place_is_not_learned_as_a_wish() -> None:
    """The first place adds to the wish, and a feature knows the place: in answers it is noise."""
    rng, wish = np.random.default_rng(0), 5
    found, fresh = examples(informative=True), examples(informative=True).features
    places = np.argsort(rng.random((300, 8)), axis=1).astype(np.int32)
    found.features[:, :, 8] = -places
    taken = (found.features[:, :, wish] + 0.7 * (places == 0)).argmax(axis=1)
    found = replace(found, relevant=np.arange(8) == taken[:, None])

    def finds_wish(table: Table) -> float:
        trees = lgb.Booster(model_str=fit(table, CONFIG))
        scores = trees.predict(fresh.reshape(-1, fresh.shape[2])).reshape(300, 8)
        return float((scores.argmax(axis=1) == fresh[:, :, wish].argmax(axis=1)).mean())

    assert finds_wish(replace(found, shown=places)) > finds_wish(found) + 0.1


def test_candidates_stay_ahead_and_the_others_keep_their_order(tmp_path: Path) -> None:
    trees = fit(examples(informative=True), CONFIG)
    draft = Draft(tmp_path / "artifact")
    reranking.save(draft, items(), trees, n_candidates=4)
    reranker = Reranker.load(Artifact(draft.folder), {})
    total = np.array([[5, 4, 3, 2, 1, 0], [0, 1, 2, 3, -np.inf, 5]], np.float32)
    found = reranker.reranked(two_people(), {"popularity": total}, total)
    assert set(np.argsort(-found[0])[:4]) == {0, 1, 2, 3}
    assert np.argsort(-found[0])[4:].tolist() == [4, 5]
    assert found[1, 4] == -np.inf
    assert len(np.unique(found[0])) == N_ITEMS
