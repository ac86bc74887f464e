"""Histories are what the tables say, person by person in order of time, whatever is taken of them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle_customers import histories as plain_histories
from oracle_rows import grouped

from features import contract
from features.engine import Engine, empty
from features.histories import KINDS, EventWeights, Histories, Log, attributes, catalogue, log, rectangles, wanted
from features.windows import before, time_window

AS_OF = datetime(2024, 4, 10, 13, 30, tzinfo=UTC)
WEEK = timedelta(days=7)
VISIBLE = [f"i{number}" for number in range(1, 7)]

Event = tuple[int, int, float]
people = st.lists(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2), st.floats(0, 99, width=32)), max_size=7))


def ragged(events_of: list[list[Event]]) -> Histories:
    starts = np.concatenate([[0], np.cumsum([len(events) for events in events_of])]).astype(np.int64)
    flat = [event for events in events_of for event in events]
    items, kinds, ages = zip(*flat, strict=True) if flat else ((), (), ())
    return Histories(starts, np.array(items, np.int32), np.array(kinds, np.int8), np.array(ages, np.float32))


def listed(histories: Histories) -> list[list[Event]]:
    events = [*zip(histories.items.tolist(), histories.kinds.tolist(), histories.ages.tolist(), strict=True)]
    return [events[first:last] for first, last in zip(histories.starts[:-1], histories.starts[1:], strict=True)]


def by_person(found: Log) -> dict[str, list[tuple[str, str]]]:
    """(item, kind of event) of each person, in order."""
    return {
        user: [(found.item_ids[item], KINDS[kind]) for item, kind, _ in events]
        for user, events in zip(found.user_ids, listed(found.histories), strict=True)
    }


@given(events_of=people, data=st.data())
def test_what_is_taken_is_what_was_there(events_of: list[list[Event]], data: st.DataObject) -> None:
    histories = ragged(events_of)
    asked = data.draw(st.lists(st.integers(0, len(events_of) - 1))) if events_of else []
    assert listed(histories.take(np.array(asked, np.int64))) == [events_of[user] for user in asked]
    assert listed(histories.last(2)) == [events[-2:] for events in events_of]
    assert listed(histories.where(histories.kinds == 1)) == [[e for e in events if e[1] == 1] for events in events_of]
    assert histories.users.tolist() == [user for user, events in enumerate(events_of) for _ in events]
    assert histories.from_last.tolist() == [n for events in events_of for n in reversed(range(len(events)))]


@given(events_of=people)
def test_rectangles_hold_every_stretch_once_and_repeat_its_last(events_of: list[list[Event]]) -> None:
    histories = ragged(events_of)
    found = {}
    for numbers, places, last in rectangles(histories.starts[:-1], histories.lengths):
        assert places.shape[1] <= max(4, 2 * (last.min() + 1))
        for number, row, end in zip(numbers, places, last, strict=True):
            assert set(row[end:]) == {row[end]}
            found[number] = row[: end + 1].tolist()
    starts = histories.starts.tolist()
    assert found == {u: list(range(starts[u], starts[u + 1])) for u, events in enumerate(events_of) if events}


def test_an_event_counts_half_after_its_kinds_half_life() -> None:
    events = EventWeights(np.array([1, 2, 4], np.float32), np.array([10, 20, np.inf], np.float32))
    histories = ragged([[(0, 0, 10.0), (0, 1, 10.0), (0, 2, 10.0)], [(1, 1, 40.0)]])
    np.testing.assert_allclose(events.affinities(histories), [0.5, 2 * 0.5**0.5, 4.0, 0.5])


def test_a_log_holds_each_persons_events_in_order_of_time(engine: Engine, events: pa.Table, items: pa.Table) -> None:
    found = log(engine.bind(events=events, items=items), AS_OF, VISIBLE)
    shop = {"events": events.to_pylist(), "items": items.to_pylist()}
    rows = plain_histories(shop, AS_OF.replace(tzinfo=None))
    expected = {
        person: [(row["item_id"], row["event_name"]) for row in own]
        for (person,), own in sorted(grouped(rows, "person_id").items())
    }
    assert by_person(found) == expected
    assert [*by_person(found)] == [*expected]
    ages = [(AS_OF.replace(tzinfo=None) - row["event_timestamp"]) / timedelta(days=1) for row in rows]
    np.testing.assert_allclose(found.histories.ages, ages, rtol=1e-6)
    visits = [row["visit_id"] for row in rows]
    assert len(set(zip(visits, found.visits.tolist(), strict=True))) == len(set(visits)) == len(set(found.visits))


def test_items_outside_the_catalogue_leave_no_trace(duckdb_shop: Engine, events: pa.Table, items: pa.Table) -> None:
    shop = duckdb_shop.bind(events=events, items=items)
    everything, few = by_person(log(shop, AS_OF, VISIBLE)), by_person(log(shop, AS_OF, ["i2", "nothing", "i4"]))
    kept = {user: [event for event in own if event[0] in ("i2", "i4")] for user, own in everything.items()}
    assert few == {user: own for user, own in kept.items() if own}
    nobody = log(shop, AS_OF, ["nothing"])
    assert (nobody.user_ids, len(nobody.histories), nobody.histories.n_users) == ([], 0, 0)


@pytest.mark.parametrize("delay", [timedelta(0), timedelta(days=30)])
def test_what_happens_later_changes_no_history(
    duckdb_shop: Engine, events: pa.Table, items: pa.Table, delay: timedelta
) -> None:
    shop = duckdb_shop.bind(events=events, items=items)
    later = np.full(len(events), np.datetime64((AS_OF + delay).replace(tzinfo=None), "us"))
    moved = events.set_column(events.column_names.index("event_timestamp"), "event_timestamp", pa.array(later))
    ids = pc.binary_join_element_wise(events["event_id"], "later", "-")
    moved = moved.set_column(events.column_names.index("event_id"), "event_id", ids)
    more = duckdb_shop.bind(events=pa.concat_tables([events, moved]), items=items)
    for known in (more, before(more, AS_OF), before(shop, AS_OF)):
        assert_same_log(log(known, AS_OF, VISIBLE), log(shop, AS_OF, VISIBLE))
    assert by_person(log(more, AS_OF + 60 * WEEK, VISIBLE)) != by_person(log(shop, AS_OF + 60 * WEEK, VISIBLE))


def assert_same_log(left: Log, right: Log) -> None:
    assert by_person(left) == by_person(right)
    np.testing.assert_array_equal(left.histories.ages, right.histories.ages)
    np.testing.assert_array_equal(left.visits, right.visits)


def test_the_catalogue_is_what_enough_people_touched(engine: Engine, events: pa.Table, items: pa.Table) -> None:
    unsold = pa.Table.from_pylist([{"item_id": "new"}, {"item_id": "old", "availability": "hidden"}], items.schema)
    shop = engine.bind(events=events, items=pa.concat_tables([items, unsold]))
    rows = plain_histories({"events": events.to_pylist(), "items": items.to_pylist()}, as_of=AS_OF.replace(tzinfo=None))
    n_users = {item: len({row["person_id"] for row in own}) for (item,), own in grouped(rows, "item_id").items()}
    least = sorted(n_users.values())[2]
    assert catalogue(shop, AS_OF, 1, untouched=False) == VISIBLE
    assert catalogue(shop, AS_OF, least, untouched=False) == sorted(i for i, n in n_users.items() if n >= least)
    assert catalogue(shop, AS_OF, 1, untouched=True) == ["i1", "i2", "i3", "i4", "i5", "i6", "new"]


def bought(duckdb_shop: Engine, *rows: tuple[str, str, str, datetime]) -> Engine:
    columns = ("user_id", "item_id", "event_name", "event_timestamp")
    events = [
        {**dict(zip(columns, row, strict=True)), "event_id": f"e{number}", "transaction_id": f"t{number}"}
        for number, row in enumerate(rows)
    ]
    for event in events:
        event["event_timestamp"] = event["event_timestamp"].replace(tzinfo=None)
    return duckdb_shop.bind(events=pa.Table.from_pylist(events, empty(contract.EVENTS).schema))


def test_wanted_is_what_is_bought_within_the_window(duckdb_shop: Engine) -> None:
    shop = bought(
        duckdb_shop,
        ("ann", "a", "purchase", AS_OF - timedelta(days=1)),
        ("ann", "b", "purchase", AS_OF),
        ("ann", "c", "view_item", AS_OF + timedelta(days=1)),
        ("bob", "a", "purchase", AS_OF + timedelta(days=6)),
        ("eve", "a", "view_item", AS_OF + timedelta(days=1)),
        ("joe", "a", "purchase", AS_OF + WEEK),
    )
    found = wanted(time_window(shop, AS_OF, AS_OF + WEEK), ["a", "b", "c"])
    assert by_person(found) == {"ann": [("b", "purchase")], "bob": [("a", "purchase")]}
    assert len(found.visits) == len(found.histories)


def test_wanted_is_everything_touched_where_nothing_is_sold(duckdb_shop: Engine) -> None:
    shop = bought(
        duckdb_shop,
        ("ann", "a", "purchase", AS_OF - timedelta(days=1)),
        ("ann", "b", "view_item", AS_OF),
        ("bob", "a", "add_to_cart", AS_OF + timedelta(days=1)),
    )
    found = wanted(time_window(shop, AS_OF, AS_OF + WEEK), ["a", "b"])
    assert by_person(found) == {"ann": [("b", "view_item")], "bob": [("a", "add_to_cart")]}


def test_attributes_are_each_value_of_each_column(duckdb_shop: Engine) -> None:
    rows = [
        {"item_id": "b", "item_category": "tea|gift", "item_brand": "tea"},
        {"item_id": "a", "item_category": "tea", "item_brand": None},
        {"item_id": "elsewhere", "item_category": "toys"},
    ]
    shop = duckdb_shop.bind(items=pa.Table.from_pylist(rows, empty(contract.ITEMS).schema))
    found = attributes(shop, ["a", "b"], ["item_category", "item_brand", "no_such_column"])
    pairs = {(item, found.names[value]) for item, value in zip(found.items, found.values, strict=True)}
    expected = {(0, "item_category=tea"), (1, "item_category=tea"), (1, "item_category=gift"), (1, "item_brand=tea")}
    assert pairs == expected
    assert len(found.items) == len(expected)
    assert np.all(np.diff(found.items) >= 0)
    assert not len(attributes(shop, ["a", "b"], ["no_such_column"]).items)


def test_one_person_alone_is_a_history_too() -> None:
    one = Histories.of([3, 1, 3], "view_item")
    assert listed(one) == [[(3, 0, 0.0), (1, 0, 0.0), (3, 0, 0.0)]]
    assert listed(Histories.of([])) == [[]]
    assert listed(Histories.each_of(np.array([4, 5]), "purchase")) == [[(4, 2, 0.0)], [(5, 2, 0.0)]]
    assert listed(replace(one, ages=one.ages + 1).last(1)) == [[(3, 0, 1.0)]]
