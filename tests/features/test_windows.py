"""What a window hides: its past and its truth share nothing, and no query over the past reaches the truth."""

from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st
from oracle_rows import grouped, known_events, when

from features import contract
from features.engine import Engine, empty
from features.errors import UserError
from features.histories import KINDS
from features.periods import Span
from features.windows import (
    Window,
    before,
    for_tuning,
    given,
    leave_one_out,
    planned,
    rolling,
    time_window,
)

AS_OF = datetime(2024, 3, 4, tzinfo=UTC)
END = datetime(2024, 4, 15, tzinfo=UTC)
WEEK = timedelta(days=7)
TIMED = {
    "events": "event_timestamp",
    "campaign_touches": "sent_at",
    "demand": "date",
    "stock": "date",
    "offers": "date",
}

cutoffs = st.datetimes(datetime(2024, 1, 1), datetime(2024, 5, 1)).map(lambda naive: naive.replace(tzinfo=UTC))
lengths = st.timedeltas(timedelta(microseconds=1), timedelta(days=60))


def per_day(table: contract.Table, **values) -> pa.Table:
    first = datetime(2024, 1, 1, tzinfo=UTC)
    days = [{**values, TIMED[table.name]: bound(table.name, first + timedelta(days=number))} for number in range(120)]
    return pa.Table.from_pylist(days, schema=empty(table).schema)


@pytest.fixture(scope="session")
def tables(events: pa.Table, items: pa.Table) -> dict[str, pa.Table]:
    return {
        "events": events,
        "items": items,
        "demand": per_day(contract.DEMAND, item_id="i1", quantity=1.0),
        "stock": per_day(contract.STOCK, item_id="i1", on_hand=1.0),
        "offers": per_day(contract.OFFERS, item_id="i1", price=1.0),
        "campaign_touches": per_day(contract.CAMPAIGN_TOUCHES, user_id="u1", campaign_id="c"),
    }


@pytest.fixture(scope="session")
def shop(duckdb_shop: Engine, tables: dict[str, pa.Table]) -> Engine:
    return duckdb_shop.bind(**tables)


def naive(instant: datetime) -> datetime:
    return instant.replace(tzinfo=None)


def ids(engine: Engine) -> set[str]:
    return set(engine.select("select event_id from events")["event_id"].to_pylist())


def happened(window: Window) -> set[str]:
    """The events that a window judges by."""
    text = "select event_id from events where event_timestamp >= cast($since as timestamp)"
    return set(window.truth.select(text, since=window.since)["event_id"].to_pylist())


def instants(engine: Engine, table: str) -> list:
    return sorted(engine.select(f"select {TIMED[table]} as instant from {table}")["instant"].to_pylist())


def bound(table: str, instant: datetime) -> date:
    """The instant as the table's column has it."""
    return naive(instant).date() if TIMED[table] == "date" else naive(instant)


def test_a_time_window_on_both_engines(engine: Engine, tables: dict[str, pa.Table]) -> None:
    window = time_window(engine.bind(**tables), AS_OF, END)
    rows = tables["events"].to_pylist()
    known = {
        row["event_id"]
        for row in rows
        if max(row["event_timestamp"], row["received_at"] or row["event_timestamp"]) < naive(AS_OF)
    }
    true = {
        row["event_id"]
        for row in rows
        if naive(AS_OF) <= row["event_timestamp"]
        and max(row["event_timestamp"], row["received_at"] or row["event_timestamp"]) < naive(END)
    }
    assert (ids(window.past), happened(window)) == (known, true)
    assert len(instants(window.past, "demand")) == 63
    assert len(instants(window.known_future, "offers")) == 42


@settings(max_examples=25, deadline=None)
@examples(as_of=cutoffs, length=lengths)
def test_past_and_truth_share_nothing(shop: Engine, as_of: datetime, length: timedelta) -> None:
    window = time_window(shop, as_of, as_of + length)
    assert not ids(window.past) & happened(window)
    for table in TIMED:
        assert all(at < bound(table, as_of) for at in instants(window.past, table))
        assert all(at <= bound(table, as_of + length) for at in instants(window.truth, table))


def test_an_event_at_the_cutoff_is_truth_and_one_at_the_end_is_neither(shop: Engine, events: pa.Table) -> None:
    on_time = events.filter(pc.is_null(events["received_at"])).sort_by("event_timestamp")
    first, last = on_time.slice(30, 1).to_pylist()[0], on_time.slice(50, 1).to_pylist()[0]
    as_of, end = (row["event_timestamp"].replace(tzinfo=UTC) for row in (first, last))
    window = time_window(shop, as_of, end)
    assert first["event_id"] in happened(window) - ids(window.past)
    assert last["event_id"] not in ids(window.truth) | ids(window.past)


@settings(max_examples=10, deadline=None)
@examples(as_of=cutoffs, length=lengths)
def test_no_further_narrowing_of_the_past_reaches_the_truth(shop: Engine, as_of: datetime, length: timedelta) -> None:
    past = time_window(shop, as_of, as_of + length).past
    for table in TIMED:
        assert not instants(planned(past, as_of + timedelta(days=1), END + 100 * WEEK), table)
        assert instants(before(past, END + 100 * WEEK), table) == instants(past, table)


def test_only_offers_are_known_ahead(shop: Engine) -> None:
    window = time_window(shop, AS_OF, END)
    assert instants(window.known_future, "offers") == [AS_OF.date() + timedelta(days=n) for n in range(42)]
    assert not any(instants(window.known_future, table) for table in TIMED.keys() - {"offers"})


def test_a_table_outside_a_window_is_empty_and_typed(shop: Engine) -> None:
    hidden = planned(shop, AS_OF, END).select("select * from demand")
    assert hidden.num_rows == 0
    assert hidden.schema == empty(contract.DEMAND).schema


def test_an_item_listed_later_is_not_in_the_past(duckdb_shop: Engine) -> None:
    listed = [{"item_id": "old", "created_at": None}, {"item_id": "new", "created_at": naive(AS_OF)}]
    shop = duckdb_shop.bind(items=pa.Table.from_pylist(listed, schema=empty(contract.ITEMS).schema))
    past = before(shop, AS_OF).select("select item_id from items")
    assert past["item_id"].to_pylist() == ["old"]


def test_windows_roll_from_the_oldest_to_the_end(shop: Engine) -> None:
    windows = list(rolling(shop, END, Span(1, "week"), n_windows=4))
    assert [window.as_of for window in windows] == [END - n * WEEK for n in (4, 3, 2, 1)]
    assert [window.end for window in windows] == [window.as_of + WEEK for window in windows]
    assert [window.name for window in windows] == ["2024-03-18", "2024-03-25", "2024-04-01", "2024-04-08"]


def test_rolling_truths_tile_the_time_they_cover(shop: Engine) -> None:
    truths = [happened(window) for window in rolling(shop, END, Span(1, "week"), n_windows=4)]
    assert sum(map(len, truths)) == len(set.union(*truths))
    assert set.union(*truths) <= happened(time_window(shop, END - 4 * WEEK, END))


def test_the_truth_knows_whose_device_it_is_from_before_the_window(duckdb_shop: Engine) -> None:
    def row(number: int, at: datetime, **values: object) -> dict:
        bought = {"event_name": "purchase", "item_id": "a", "transaction_id": f"t{number}", "user_pseudo_id": "phone"}
        return {"event_id": f"e{number}", "event_timestamp": naive(at), **bought, **values}

    rows = [row(1, AS_OF - WEEK, user_id="ann"), row(2, AS_OF + WEEK)]
    shop = duckdb_shop.bind(events=pa.Table.from_pylist(rows, schema=empty(contract.EVENTS).schema))
    window = time_window(shop, AS_OF, END)
    buyers = window.truth.query("outcomes", event="purchase", as_of=window.end, since=window.since)
    assert sorted(buyers["person_id"].to_pylist()) == ["ann", "phone"]


def test_leave_one_out_holds_each_persons_last_items(engine: Engine, tables: dict[str, pa.Table]) -> None:
    window = leave_one_out(engine.bind(**tables), END)
    shop = {"events": tables["events"].to_pylist(), "items": []}
    held = (row for row in known_events(shop, naive(END)) if row["item_id"] and row["event_name"] in KINDS)
    people = grouped(held, "person_id").values()
    ordered = [[row["event_id"] for row in sorted(events, key=when)] for events in people]
    assert any(len(events) > 2 for events in ordered)
    assert ids(window.truth) == {event for events in ordered for event in events[-1:]}
    assert ids(window.past) == {event for events in ordered for event in events[:-1]}
    assert ids(window.inner.truth) == {event for events in ordered for event in events[-2:-1]}
    fitted = {event for events in ordered for event in events[:-2]}
    assert ids(window.fitted) == ids(window.inner.past) == ids(window.inner.fitted) == fitted


def split_as(events: pa.Table, parts: list[str | None]) -> pa.Table:
    """The first events of one person, with ids a, b ... in order of time and what their ``split`` says."""
    first = events.filter(pc.is_null(events["received_at"])).sort_by("event_timestamp").slice(0, len(parts))
    columns = {
        "event_id": [chr(ord("a") + number) for number in range(len(parts))],
        "user_id": ["u"] * len(parts),
        "item_id": ["i"] * len(parts),
        "split": parts,
    }
    for name, values in columns.items():
        if name in first.column_names:
            first = first.drop_columns(name)
        first = first.append_column(name, pa.array(values, pa.string()))
    return first


def test_a_given_split_is_kept(engine: Engine, events: pa.Table) -> None:
    split = split_as(events, ["train", "train", "valid", "context", "test"])
    window = given(engine.bind(events=split), END)
    assert (ids(window.fitted), ids(window.past), ids(window.truth)) == ({"a", "b"}, {"a", "b", "c", "d"}, {"e"})
    inner = window.inner
    assert (ids(inner.fitted), ids(inner.past), ids(inner.truth)) == ({"a", "b"}, {"a", "b"}, {"c"})


def test_a_given_split_without_valid_holds_out_what_was_last_in_train(engine: Engine, events: pa.Table) -> None:
    split = split_as(events, ["train", "train", "context", "test"])
    window = given(engine.bind(events=split), END)
    assert (ids(window.fitted), ids(window.past), ids(window.truth)) == ({"a", "b"}, {"a", "b", "c"}, {"d"})
    inner = window.inner
    assert (ids(inner.fitted), ids(inner.past), ids(inner.truth)) == ({"a"}, {"a"}, {"b"})


def test_as_large_a_share_is_held_out_as_the_test_is(engine: Engine, events: pa.Table) -> None:
    split = split_as(events, [*["train"] * 5, *["test"] * 4])
    when = split["event_timestamp"].to_pylist()
    apart = pa.array(
        [when[0] + timedelta(hours=hour) for hour in range(len(when))], split.schema.field("event_timestamp").type
    )
    place = split.column_names.index("event_timestamp")
    window = given(engine.bind(events=split.set_column(place, "event_timestamp", apart)), END)
    assert (ids(window.inner.fitted), ids(window.inner.truth)) == ({"a", "b", "c"}, {"d", "e"})


def test_the_lines_of_the_last_order_are_held_out_together(engine: Engine, events: pa.Table) -> None:
    split = split_as(events, ["train", "train", "train", "test"])
    when = split["event_timestamp"].to_pylist()
    together = pa.array([when[0], when[1], when[1], when[3]], split.schema.field("event_timestamp").type)
    place = split.column_names.index("event_timestamp")
    window = given(engine.bind(events=split.set_column(place, "event_timestamp", together)), END)
    assert not window.holds_inner_out
    assert (ids(window.fitted), ids(window.inner.fitted), ids(window.inner.truth)) == (
        {"a", "b", "c"},
        {"a"},
        {"b", "c"},
    )


@pytest.mark.parametrize("has_valid", [True, False])
def test_tuning_fits_as_the_judged_window_does(engine: Engine, events: pa.Table, has_valid: bool) -> None:
    """Where the slice to choose on joins the fit in the end, it does so in tuning too."""
    split = split_as(events, ["train", "train", "valid" if has_valid else "train", "test"])
    window = for_tuning(given(engine.bind(events=split), END))
    assert window.holds_inner_out == has_valid
    assert ids(window.truth) == {"c"}
    assert ids(window.inner.truth) == {"b"}
    assert ids(window.fitted) == ({"a"} if has_valid else {"a", "b"})


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (["train", "dev", "test"], "says dev: it may say train, valid, test, context"),
        (["train", None, "test"], "says nothing: it may say"),
        (["train", "valid"], "never says test: mark the events"),
    ],
)
def test_a_given_split_that_cannot_be_is_told(
    duckdb_shop: Engine, events: pa.Table, parts: list[str | None], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        given(duckdb_shop.bind(events=split_as(events, parts)), END)


@pytest.mark.parametrize("make", [leave_one_out, lambda shop, end: given(with_split(shop), end)])
def test_a_parted_window_knows_nothing_ahead(shop: Engine, make) -> None:
    window: Window = make(shop, END)
    for part in (window, window.inner):
        assert ids(part.fitted) <= ids(part.past)
        assert ids(part.truth)
        assert not ids(part.past) & ids(part.truth)
        assert not any(instants(part.known_future, table) for table in TIMED)
    assert not (ids(window.inner.past) | ids(window.inner.truth)) & ids(window.truth)


def with_split(shop: Engine) -> Engine:
    return shop.narrow(
        {"events": "select *, case when event_id < 'e0100' then 'train' else 'test' end as split from events"}
    )
