"""An evaluation asks for what people wanted, knows what was known, and counts against whom nothing can be hidden."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from oracle_customers import histories as plain_histories
from oracle_rows import grouped

from features import contract
from features.engine import Engine, empty
from features.errors import UserError
from features.histories import KINDS, EventWeights, Histories
from features.windows import leave_one_out, time_window
from training.evaluation import Row
from training.ranking import Pairs
from training.recommend import evaluation
from training.recommend.evaluation import (
    PersonalFrequency,
    PersonalTopFrequency,
    Truth,
    baselines,
    distinct,
    evaluate,
    known,
)

AS_OF = datetime(2024, 3, 4, tzinfo=UTC)
END = datetime(2024, 4, 15, tzinfo=UTC)
VISIBLE = [f"i{number}" for number in range(1, 7)]
ALIKE = EventWeights(np.ones(3, np.float32), np.full(3, np.inf, np.float32))


def histories_of(items_of: list[list[int]]) -> Histories:
    items = [item for own in items_of for item in own]
    starts = np.cumsum([0, *map(len, items_of)])
    return replace(Histories.of(items), starts=starts)


def pairs(items_of: list[list[int]]) -> Pairs:
    users = [user for user, own in enumerate(items_of) for _ in own]
    return Pairs(np.array(users, np.int64), np.array([item for own in items_of for item in own], np.int64))


def truth_of(known_items: list[list[int]], wanted: list[list[int]], popularity: list[float]) -> Truth:
    histories, asked = histories_of(known_items), pairs(wanted)
    popular = np.array(popularity, np.float32)
    is_new = (asked.items < 0) | (popular[asked.items] == 0)
    bought = np.array([False, False, True])
    return Truth(histories, asked, distinct(histories, len(popular)), is_new, bought, popular)


def fixed(scores: list[float]):
    """The same scores for everybody."""
    return lambda histories: np.tile(np.array(scores, np.float32), (histories.n_users, 1))


def found(rows: list[Row], **asked: object) -> Row:
    (row,) = [row for row in rows if all(getattr(row, name) == value for name, value in asked.items())]
    return row


# What is asked


@pytest.fixture
def shop(duckdb_shop: Engine, events: pa.Table, items: pa.Table) -> Engine:
    return duckdb_shop.bind(events=events, items=items)


def items_by_person(rows: list[dict], *names: str) -> dict[str, set[str]]:
    people = grouped((row for row in rows if row["event_name"] in (names or KINDS)), "person_id")
    return {person: {row["item_id"] for row in own} for (person,), own in people.items()}


def asked(truth: Truth, item_ids: list[str]) -> list[tuple[list[str], list[str]]]:
    """What each person had and what it wanted, in no order of people; "" is an item outside the catalogue."""
    names = [*item_ids, ""]
    had, wanted = (
        [sorted(names[item] for item in of.items[of.users == user]) for user in range(truth.histories.n_users)]
        for of in (truth.seen, truth.wanted)
    )
    return sorted(zip(had, wanted, strict=True))


@pytest.mark.parametrize("item_ids", [VISIBLE, ["i2", "i3", "i5"]])
def test_the_truth_of_a_time_window(shop: Engine, events: pa.Table, items: pa.Table, item_ids: list[str]) -> None:
    tables = {"events": events.to_pylist(), "items": items.to_pylist()}
    before = plain_histories(tables, AS_OF.replace(tzinfo=None))
    after = plain_histories(tables, END.replace(tzinfo=None))
    had = items_by_person(before)
    wanted = items_by_person([r for r in after if r["event_timestamp"] >= AS_OF.replace(tzinfo=None)], "purchase")
    truth = Truth.of(time_window(shop, AS_OF, END), item_ids)
    assert asked(truth, item_ids) == sorted(
        (sorted(had.get(person, set()) & {*item_ids}), sorted(item if item in item_ids else "" for item in own))
        for person, own in wanted.items()
    )
    assert truth.popularity.tolist() == [sum(item in own for own in had.values()) for item in item_ids]
    assert np.all(np.diff(np.bincount(truth.wanted.users)) <= 0) or len(item_ids) < len(VISIBLE)
    assert truth.kinds.tolist() == [False, False, True]
    assert not truth.is_new.any()


def test_the_truth_of_leave_one_out_is_one_item_each(shop: Engine) -> None:
    window = leave_one_out(shop, END)
    truth = Truth.of(window, VISIBLE)
    assert np.bincount(truth.wanted.users).tolist() == [1] * truth.histories.n_users
    inner = Truth.of(window.inner, VISIBLE)
    assert np.bincount(inner.wanted.users).tolist() == [1] * inner.histories.n_users
    assert inner.popularity.tolist() == truth.popularity.tolist()


def test_an_item_that_no_fitted_event_touched_is_new(duckdb_shop: Engine) -> None:
    def bought(number: int, user: str, item: str, day: int) -> dict:
        at = (AS_OF + timedelta(days=day)).replace(tzinfo=None)
        ids = {"event_id": f"e{number}", "transaction_id": f"t{number}", "user_id": user, "item_id": item}
        return {"event_name": "purchase", "event_timestamp": at, **ids}

    rows = [bought(1, "ann", "old", -1), bought(2, "ann", "new", 1), bought(3, "bob", "old", 1)]
    engine = duckdb_shop.bind(events=pa.Table.from_pylist(rows, empty(contract.EVENTS).schema))
    window = time_window(engine, AS_OF, END)
    truth = Truth.of(window, ["new", "old"])
    assert truth.is_new.tolist() == (truth.wanted.items == 0).tolist()
    assert truth.popularity.tolist() == [0, 1]
    assert Truth.of(window, ["old"]).wanted.items.tolist() in ([-1, 0], [0, -1])
    with pytest.raises(UserError, match="nobody bought between 2024-04-15"):
        Truth.of(time_window(engine, END, END + timedelta(days=7)), ["old"])


def test_strangers_have_no_history(shop: Engine) -> None:
    window = time_window(shop, AS_OF, END)
    everybody = known(window, ["u1", "nobody we know", "u1"], VISIBLE)
    assert everybody.lengths[0] == everybody.lengths[2] > 0
    assert everybody.lengths[1] == 0


# How it is judged


def test_metrics_masked_and_not_of_two_people() -> None:
    truth = truth_of([[0], []], [[0, 1], [3]], [5, 3, 2, 1])
    rows = evaluate({"m": fixed([4, 3, 2, 1])}, truth, "time", masked=False)
    everything = {row.metric: row for row in rows if row.segment == "all" and not row.masked}
    assert everything["recall_at_10"].value == 1
    assert everything["mrr_at_10"].value == pytest.approx((1 + 1 / 4) / 2)
    assert everything["ndcg_at_20"].value == pytest.approx((1 + 1 / math.log2(5)) / 2)
    masked = {row.metric: row for row in rows if row.segment == "all" and row.masked}
    assert masked["mrr_at_10"].value == pytest.approx((1 + 1 / 4) / 2)
    assert {row.n for row in rows if row.segment == "all"} == {2, 1}  # one of them had nothing to be faithful to


def test_who_wants_only_what_was_seen_is_left_out_where_that_is_masked() -> None:
    truth = truth_of([[0, 0], [1]], [[0], [0]], [5, 3, 2, 1])
    rows = evaluate({"m": fixed([4, 3, 2, 1])}, truth, "time", masked=True)
    assert found(rows, metric="recall_at_10", masked=True, segment="all").n == 1
    assert found(rows, metric="recall_at_10", masked=False, segment="all").n == 2
    assert rows[0].masked
    assert not evaluate({"m": fixed([4, 3, 2, 1])}, truth, "time", masked=False)[0].masked


def test_segments_are_of_people_by_known_events_and_of_new_items() -> None:
    known_items = [[], [1, 1], [1, 1, 1], [1] * 20, [1] * 21]
    truth = truth_of(known_items, [[0], [0], [0], [0], [0, 2]], [5, 3, 0, 1])
    rows = evaluate({"m": fixed([4, 3, 2, 1])}, truth, "time", masked=False)
    counts = {row.segment: row.n for row in rows if row.metric == "mrr_at_10" and not row.masked}
    assert counts == {"all": 5, "cold": 2, "warm": 2, "heavy": 1, "new_items": 1}
    new = found(rows, metric="mrr_at_10", segment="new_items", masked=False)
    assert new.value == pytest.approx(1 / 3)


@pytest.mark.parametrize("scores", [[1.0] * 40, [math.nan] * 40, [-math.inf] * 40])
def test_a_model_that_says_nothing_finds_nothing(scores: list[float]) -> None:
    truth = truth_of([[1], [2]], [[0], [39]], [1.0] * 40)
    rows = evaluate({"m": fixed(scores)}, truth, "time", masked=True)
    assert {row.value for row in rows if row.metric.split("_at_")[0] in ("recall", "ndcg", "mrr", "map")} == {0.0}


def test_items_outside_the_catalogue_are_missed() -> None:
    rows = evaluate({"m": fixed([2, 1])}, truth_of([[0]], [[-1, 0]], [1, 1]), "time", masked=False)
    assert found(rows, metric="recall_at_10", masked=False, segment="all").value == 0.5


def test_models_are_compared_person_by_person_with_the_first() -> None:
    truth = truth_of([[]] * 30, [[user % 2] for user in range(30)], [1.0] * 40)
    both, one = fixed([2.0, 1.0] + [0.0] * 38), fixed([1.0] + [0.0] * 39)
    models = {"right": both, "half": one, "same": both}
    rows = evaluate(models, truth, "time", masked=False)
    half = found(rows, model="right minus half", metric="recall_at_10", masked=False)
    assert half.value == pytest.approx(0.5)
    assert 0 < half.low < half.high < 1
    same = found(rows, model="right minus same", metric="recall_at_10", masked=False)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert {row.segment for row in rows if "minus" in row.model} == {"all"}


def test_chunks_change_nothing(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    known_items = [rng.integers(50, size=rng.integers(9)).tolist() for _ in range(40)]
    wanted = [sorted(set(rng.integers(50, size=1 + user % 4).tolist())) for user in range(40)]
    truth = truth_of(known_items, wanted, rng.integers(9, size=50).tolist())
    weights = rng.standard_normal((50, 50)).astype(np.float32)

    def score(histories: Histories) -> np.ndarray:
        scores = np.tile(weights[0], (histories.n_users, 1))
        np.add.at(scores, histories.users, weights[histories.items])
        return scores

    monkeypatch.setattr(evaluation, "N_LISTS", 15)
    at_once = evaluate({"m": score}, truth, "time", masked=True)
    monkeypatch.setattr(evaluation, "CHUNK_SCORES", 7 * 50)
    assert evaluate({"m": score}, truth, "time", masked=True) == at_once


def test_a_catalogue_of_one() -> None:
    rows = evaluate({"m": fixed([1.0])}, truth_of([[0], []], [[0], [0]], [1]), "time", masked=True)
    assert found(rows, metric="recall_at_10", masked=True, segment="all").n == 1
    assert found(rows, metric="coverage_at_10", masked=True).n == 1
    assert found(rows, metric="coverage_at_10", masked=False).value == 1


def test_coverage_novelty_and_popularity_bias_of_lists() -> None:
    n_items = 25
    popularity = [8.0, 4.0, 2.0] + [1.0] * 22
    truth = truth_of([[0, 3], [], [24]], [[5], [6], [7]], popularity)
    shown = [*range(10)]
    rows = evaluate({"m": fixed(list(range(n_items, 0, -1)))}, truth, "time", masked=False)
    bits = [-math.log2(popularity[item] / sum(popularity)) for item in range(n_items)]
    assert found(rows, metric="coverage_at_10", masked=False).value == 10 / n_items
    assert found(rows, metric="novelty_at_10", masked=False).value == pytest.approx(np.mean([bits[i] for i in shown]))
    mean_shown = np.mean([popularity[i] for i in shown])
    bias = found(rows, metric="popularity_bias_at_10", masked=False)
    assert (bias.value, bias.n) == (pytest.approx(2 * mean_shown / (4.5 + 1)), 2)
    fresh = [i for i in range(n_items) if i not in (0, 3)][:10]
    masked = found(rows, metric="novelty_at_10", masked=True)
    expected = np.mean([[bits[i] for i in fresh], [bits[i] for i in shown], [bits[i] for i in shown]])
    assert masked.value == pytest.approx(expected)
    assert found(rows, metric="coverage_at_10", masked=True).value == 12 / n_items


# Baselines


def test_top_frequency_is_what_was_chosen_most_then_first_and_nothing_else() -> None:
    scores = PersonalTopFrequency(ALIKE, 6).scores(histories_of([[4, 2, 3, 2, 4], [], [5]]))
    assert np.argsort(-scores[0], kind="stable")[:3].tolist() == [4, 2, 3]
    assert np.isneginf(scores).sum(axis=1).tolist() == [3, 6, 5]


def test_top_frequency_counts_only_what_the_truth_counts() -> None:
    views = EventWeights(np.array([1, 0, 0], np.float32), ALIKE.half_life_days)
    history = Histories(np.array([0, 3]), np.array([1, 1, 2], np.int32), np.array([2, 2, 0], np.int8), np.zeros(3))
    assert np.flatnonzero(np.isfinite(PersonalTopFrequency(views, 4).scores(history)[0])).tolist() == [2]


def test_frequency_is_followed_by_popularity() -> None:
    popularity = np.array([1, 9, 3, 5, 0, 2], np.float32)
    scores = PersonalFrequency(ALIKE, popularity).scores(histories_of([[4, 2, 4, 0], []]))
    assert np.argsort(-scores, axis=1, kind="stable").tolist() == [[4, 2, 0, 1, 3, 5], [1, 3, 2, 5, 0, 4]]


def test_every_baseline_ranks_alone_as_in_a_crowd(rng: np.random.Generator) -> None:
    known_items = [rng.integers(20, size=length).tolist() for length in (0, 1, 9, 4)]
    truth = truth_of(known_items, [[0]] * 4, rng.integers(9, size=20).tolist())
    recent = EventWeights(np.array([0.1, 0.5, 1.0], np.float32), np.full(3, 30, np.float32))
    models = baselines(truth, recent)
    assert [*models] == ["popularity", "personal_top_frequency", "personal_frequency", "personal_recent_frequency"]
    for score in models.values():
        together = score(truth.histories)
        assert (together.shape, together.dtype) == ((4, 20), np.float32)
        alone = [score(truth.histories.take(np.array([user]))) for user in range(4)]
        np.testing.assert_array_equal(together, np.concatenate(alone))
        assert score(truth.histories.take(np.array([], np.int64))).shape == (0, 20)
