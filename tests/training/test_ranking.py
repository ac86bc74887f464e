"""Places and metrics against their definitions, written out person by person."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.ranking import METRICS, Pairs, best, places

K = 3
N_ITEMS = 8

items = st.integers(0, N_ITEMS - 1)
score = st.sampled_from([-np.inf, -1.0, 0.0, 0.25, 0.5, 2.0])
person = st.tuples(
    st.lists(score, min_size=N_ITEMS, max_size=N_ITEMS),
    st.lists(st.integers(-1, N_ITEMS - 1), min_size=1, max_size=N_ITEMS + 1, unique=True),
    st.sets(items),
)
crowds = st.lists(person, min_size=1, max_size=6)
Person = tuple[list[float], list[int], set[int]]


def pairs(items_of: list) -> Pairs:
    flat = [(user, item) for user, own in enumerate(items_of) for item in own]
    users, found = zip(*flat, strict=True) if flat else ((), ())
    return Pairs(np.array(users, np.int64), np.array(found, np.int64))


def arrays(people: list[Person]) -> tuple[np.ndarray, Pairs, Pairs]:
    scores, wanted, seen = zip(*people, strict=True)
    return np.array(scores, np.float32), pairs(wanted), pairs([sorted(own) for own in seen])


def plain_place(scores: list[float], item: int, left_out: set[int]) -> float:
    """The last place that the item can have in an order of what is not left out."""
    return math.inf if item < 0 else sum(s >= scores[item] for i, s in enumerate(scores) if i not in left_out)


@given(crowds)
def test_places_are_counted_as_in_a_sorted_list(people: list[Person]) -> None:
    everything, masked = places(*arrays(people))
    assert everything.tolist() == [plain_place(s, item, set()) for s, wanted, _ in people for item in wanted]
    fresh = ~arrays(people)[1].among(arrays(people)[2])
    expected = [plain_place(s, i, seen) for s, wanted, seen in people for i in wanted if i < 0 or i not in seen]
    assert masked[fresh].tolist() == expected


def test_large_rankings_are_counted_block_by_block(rng: np.random.Generator) -> None:
    n_users, n_items = 7, 300_000
    scores = rng.standard_normal((n_users, n_items), dtype=np.float32)
    wanted = pairs([rng.permutation(n_items)[: 1 + user % 3] for user in range(n_users)])
    seen = pairs([np.sort(rng.permutation(n_items)[: 1000 * user]) for user in range(n_users)])
    order = np.argsort(np.argsort(-scores, axis=1), axis=1)
    everything, masked = places(scores, wanted, seen)
    np.testing.assert_array_equal(everything, order[wanted.users, wanted.items] + 1)
    for user, item, place in zip(wanted.users, wanted.items, masked, strict=True):
        own = seen.items[seen.users == user]
        assert place == order[user, item] + 1 - (scores[user, own] > scores[user, item]).sum() or item in own


def test_equal_scores_are_the_worst_ranking() -> None:
    found = places(np.zeros((1, 50), np.float32), pairs([[0, 7]]), pairs([[1]]))
    np.testing.assert_array_equal(found, [[50, 50], [49, 49]])


def test_what_is_not_a_number_stands_last_and_helps_nobody() -> None:
    scores = np.array([[np.nan, 1.0, 2.0, np.nan]], np.float32)
    np.testing.assert_array_equal(places(scores, pairs([[0, 2]]), pairs([[]]))[0], [4, 3])


def test_nobody_and_nothing_seen_are_ranked_too() -> None:
    assert places(np.zeros((0, 5), np.float32), pairs([]), pairs([])).shape == (2, 0)
    np.testing.assert_array_equal(places(np.zeros((1, 1), np.float32), pairs([[0]]), pairs([])), [[1], [1]])


def plain_metrics(found: list[float]) -> dict[str, float]:
    """Each metric of one person from the places of its wanted items."""
    hits = sorted(place for place in found if place <= K)
    most = min(len(found), K)
    ideal = sum(1 / math.log2(place + 1) for place in range(1, most + 1))
    return {
        "recall": len(hits) / len(found),
        "ndcg": sum(1 / math.log2(place + 1) for place in hits) / ideal,
        "mrr": 1 / hits[0] if hits else 0.0,
        "map": sum(number / place for number, place in enumerate(hits, 1)) / most,
    }


@given(crowds)
def test_metrics_equal_their_definitions(people: list[Person]) -> None:
    scores, wanted, seen = arrays(people)
    found = places(scores, wanted, seen)[0]
    for name, metric in METRICS.items():
        values = metric(found, wanted.users, K)
        expected = [plain_metrics(found[wanted.users == user].tolist())[name] for user in range(len(people))]
        assert values == pytest.approx(expected), name
        assert np.all((values >= 0) & (values <= 1 + 1e-12))


@given(crowds, st.randoms(use_true_random=False))
def test_the_order_of_people_changes_no_metric(people: list[Person], random) -> None:
    shuffled = random.sample(people, len(people))
    for name, metric in METRICS.items():
        means = []
        for crowd in (people, shuffled):
            scores, wanted, seen = arrays(crowd)
            means.append(metric(places(scores, wanted, seen)[0], wanted.users, K).mean())
        assert means[0] == pytest.approx(means[1]), name


def test_a_perfect_ranking_has_one_and_a_missed_item_nothing() -> None:
    for metric in METRICS.values():
        assert metric(np.array([2.0, 1.0]), np.array([0, 0]), K) == pytest.approx([1.0])
        assert metric(np.array([np.inf]), np.array([0]), K) == pytest.approx([0.0])


@given(crowds)
def test_the_best_are_those_of_a_sorted_list(people: list[Person]) -> None:
    scores = arrays(people)[0]
    for row, chosen in zip(scores, best(scores, K), strict=True):
        finite = np.sort(row[row > -np.inf])[::-1][:K]
        assert np.sort(row[chosen[chosen >= 0]])[::-1].tolist() == finite.tolist()
        assert len(set(chosen[chosen >= 0])) == len(finite)


def test_more_than_there_is_cannot_be_best() -> None:
    assert best(np.array([[1.0]], np.float32), 10).tolist() == [[0]]


@given(crowds, st.sets(st.integers(0, 5)))
def test_pairs_of_some_people(people: list[Person], chosen: set[int]) -> None:
    wanted = [own for _, own, _ in people]
    users = sorted(user for user in chosen if user < len(people))
    taken, between = pairs(wanted).take(np.array(users, np.int64)), pairs(wanted).between(1, 3)
    for found, expected in ((taken, [wanted[user] for user in users]), (between, wanted[1:3])):
        np.testing.assert_array_equal(found.users, pairs(expected).users)
        np.testing.assert_array_equal(found.items, pairs(expected).items)
