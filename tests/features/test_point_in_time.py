"""No feature sees what was not yet known: hypothesis draws the cut-off, the engine must not notice the difference."""

from datetime import UTC, datetime, timedelta
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import answer, assert_same_rows

from features.engine import QUERIES, Engine
from features.windows import before

FIRST, LAST = datetime(2024, 1, 20), datetime(2024, 5, 10)
CUTOFFS = st.datetimes(FIRST, LAST).map(lambda naive: naive.replace(tzinfo=UTC))
DELAYS = st.timedeltas(timedelta(0), timedelta(days=200))

each_query = pytest.mark.parametrize("name", QUERIES)
few = settings(max_examples=15, deadline=None)


@pytest.fixture(scope="module")
def shop(duckdb_shop: Engine, items: pa.Table, campaign_touches: pa.Table, stock: pa.Table) -> Engine:
    return duckdb_shop.bind(items=items, campaign_touches=campaign_touches, stock=stock)


def known_at(events: pa.Table, as_of: datetime) -> pa.ChunkedArray:
    received = pc.coalesce(events["received_at"], events["event_timestamp"])
    return pc.less(pc.max_element_wise(events["event_timestamp"], received), pa.scalar(as_of.replace(tzinfo=None)))


def moved(events: pa.Table, column: str, at: datetime) -> pa.Table:
    """The same events under new ids, all happening (or all received) at one instant."""
    ids = pc.binary_join_element_wise(events["event_id"], column, "-")
    instants = pa.array(np.full(len(events), np.datetime64(at.replace(tzinfo=None), "us")))
    renamed = events.set_column(events.column_names.index("event_id"), "event_id", ids)
    return renamed.set_column(events.column_names.index(column), column, instants)


@each_query
@few
@given(as_of=CUTOFFS)
def test_what_was_not_yet_known_changes_nothing(shop: Engine, events: pa.Table, name: str, as_of: datetime) -> None:
    assert_only_the_known_counts(shop, events, name, as_of)


@each_query
def test_an_event_at_the_cutoff_is_not_yet_known(shop: Engine, events: pa.Table, name: str) -> None:
    late = events["event_timestamp"].sort()[-20].as_py().replace(tzinfo=UTC)
    assert_only_the_known_counts(shop, events, name, late)


def assert_only_the_known_counts(shop: Engine, events: pa.Table, name: str, as_of: datetime) -> None:
    whole = shop.bind(events=events)
    known = shop.bind(events=events.filter(known_at(events, as_of)))
    assert known.select("select count(*) as n from events").to_pylist() != [{"n": 0}]
    found = answer(known, name, as_of)
    assert_same_rows(answer(whole, name, as_of), found)
    assert_same_rows(answer(before(whole, as_of), name, as_of), found)


@each_query
@few
@given(as_of=CUTOFFS, delay=DELAYS)
def test_later_events_change_nothing(
    shop: Engine, events: pa.Table, name: str, as_of: datetime, delay: timedelta
) -> None:
    later = [moved(events, column, as_of + delay) for column in ("event_timestamp", "received_at")]
    more = shop.bind(events=pa.concat_tables([events, *later]))
    as_it_was = shop.bind(events=events)
    assert_same_rows(answer(more, name, as_of), answer(as_it_was, name, as_of))


@each_query
def test_earlier_events_do_change_something(shop: Engine, events: pa.Table, name: str) -> None:
    as_of = datetime(2024, 4, 1, tzinfo=UTC)
    earlier = moved(events.filter(known_at(events, as_of)), "event_timestamp", as_of - timedelta(days=2))
    more = shop.bind(events=pa.concat_tables([events, earlier]))
    as_it_was = shop.bind(events=events)
    with pytest.raises(AssertionError):
        assert_same_rows(answer(more, name, as_of), answer(as_it_was, name, as_of))


def test_what_a_touch_was_known_by_never_changes(shop: Engine, events: pa.Table) -> None:
    """Later logins, late arrivals and later responses do not reach back to what came before a touch."""
    log = shop.bind(events=events)
    known = ["user_id", "campaign_id", "sent_at", "n_earlier_touches", "n_earlier_responses", "days_since_last_touch"]
    ask = partial(log.query, "touch_responses", event="view_item", horizon_days=60)
    whole = ask(as_of=LAST.replace(tzinfo=UTC)).select(known)
    assert max(whole["n_earlier_responses"].to_pylist()) > 0
    for sent_at in sorted(set(whole["sent_at"].to_pylist()))[::7]:
        then = ask(as_of=sent_at.replace(tzinfo=UTC) + timedelta(microseconds=1)).select(known)
        assert_same_rows(then, whole.filter(pc.less_equal(whole["sent_at"], pa.scalar(sent_at, pa.timestamp("us")))))
