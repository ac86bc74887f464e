"""Ways through the shop, counted by hand and by a slow search of all of them."""

from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import contract
from features.engine import Engine, duckdb_engine, empty
from features.errors import UserError
from features.funnel import STEPS, Funnel, Passage, passage

AS_OF = datetime(2024, 6, 3, tzinfo=UTC)
ENGINE = duckdb_engine(memory_limit="1GB", threads=1)
VIEW, CART, CHECKOUT, BUY = STEPS
SHORT = Funnel((VIEW, CART, BUY))
CATEGORIES = {"i1": "shoes", "i2": "hats"}


def step(minutes_before: float, name: str, person: str = "ann", **more: Any) -> dict[str, Any]:
    at = AS_OF.replace(tzinfo=None) - timedelta(minutes=minutes_before)
    event = {"event_name": name, "event_timestamp": at, "user_id": person, "session_id": "s"}
    order = {"transaction_id": f"{person} {minutes_before}"} if name == BUY else {}
    return {**event, "item_id": None if name == CHECKOUT else "i1", **order, **more}


def shop(rows: list[dict[str, Any]]) -> Engine:
    numbered = [{**event, "event_id": f"e{number}"} for number, event in enumerate(rows)]
    listed = [{"item_id": item, "item_category": category} for item, category in CATEGORIES.items()]
    return ENGINE.bind(
        events=pa.Table.from_pylist(numbered, schema=empty(contract.EVENTS).schema),
        items=pa.Table.from_pylist(listed, schema=empty(contract.ITEMS).schema),
    )


def way(rows: list[dict[str, Any]], funnel: Funnel = SHORT) -> Passage:
    return passage(shop(rows), AS_OF, funnel)


def counts(rows: list[dict[str, Any]], funnel: Funnel = SHORT) -> list[int]:
    return way(rows, funnel).table["n"].to_pylist()


def test_steps_count_in_order() -> None:
    backwards = [step(9, BUY, "bob"), step(8, CART, "bob"), step(7, VIEW, "bob")]
    assert counts([step(3, VIEW), step(2, CART), step(1, BUY), *backwards]) == [2, 1, 1]
    assert counts(backwards, Funnel(SHORT.steps, in_order=False)) == [1, 1, 1]


def test_a_step_may_come_at_the_instant_of_the_one_before() -> None:
    assert counts([step(3, BUY), step(3, CART), step(3, VIEW)]) == [1, 1, 1]


def test_a_step_that_is_skipped_ends_the_way() -> None:
    found = way([step(3, VIEW), step(1, BUY), step(5, CART, "bob")])
    assert found.table["n"].to_pylist() == [1, 0, 0]
    assert found.table["from_previous"].to_pylist() == [None, 0.0, None]


def test_visits_are_ways_of_their_own_and_people_may_take_days() -> None:
    rows = [step(3000, VIEW), step(2, CART, session_id="later"), step(1, BUY, session_id="later")]
    assert counts(rows) == [1, 0, 0]
    assert counts(rows, Funnel(SHORT.steps, window_days=3)) == [1, 1, 1]
    assert counts(rows, Funnel(SHORT.steps, window_days=2)) == [1, 0, 0]


def test_a_window_opens_again_with_every_first_step() -> None:
    days = 24 * 60
    rows = [step(9 * days, VIEW), step(8 * days, CART), step(2 * days, VIEW), step(1 * days, CART), step(0.5, BUY)]
    assert counts(rows, Funnel(SHORT.steps, window_days=2)) == [1, 1, 1]


def test_a_step_that_the_shop_does_not_log_is_left_out_and_named() -> None:
    found = way([step(3, VIEW), step(1, BUY)], Funnel())
    assert (found.steps, found.absent) == ((VIEW, BUY), (CART, CHECKOUT))
    assert found.table.to_pylist()[1] == {
        "step": 2,
        "event_name": BUY,
        "n": 1,
        "from_first": 1.0,
        "from_previous": 1.0,
        "low": pytest.approx(0.2065, abs=1e-4),
        "high": 1.0,
    }


def test_a_shop_without_any_step_has_an_empty_funnel() -> None:
    found = way([step(3, "search", item_id=None)])
    assert (found.steps, found.table.num_rows, found.leaks.num_rows) == ((), 0, 0)


def leaks(rows: list[dict[str, Any]], dimension: str, funnel: Funnel = SHORT) -> list[tuple[Any, ...]]:
    columns = ("segment", "from_step", "n", "n_converted", "average", "lost")
    found = way(rows, funnel).leaks.to_pylist()
    return [tuple(row[name] for name in columns) for row in found if row["dimension"] == dimension]


def test_leaks_by_device_by_hand() -> None:
    """Of three views on phones none goes on, of one on a desktop one: average 1/4."""
    rows = [step(9, VIEW, person, device_category="mobile") for person in ("bob", "cy", "dan")]
    rows += [step(9, VIEW, device_category="desktop"), step(8, CART)]
    assert leaks(rows, "device_category", Funnel((VIEW, CART))) == [
        ("mobile", VIEW, 3, 0, 0.25, 0.75),
        ("desktop", VIEW, 1, 1, 0.25, -0.75),
    ]
    assert leaks(rows, "channel", Funnel((VIEW, CART))) == []


def test_leaks_by_category_count_a_visit_for_each_that_it_met() -> None:
    rows = [step(9, VIEW), step(8, VIEW, item_id="i2"), step(7, CART, item_id="i2"), step(6, CHECKOUT)]
    funnel = Funnel((VIEW, CART, CHECKOUT))
    assert leaks(rows, "item_category", funnel) == [
        ("shoes", VIEW, 1, 0, 0.5, 0.5),
        ("hats", CART, 1, 1, 1.0, 0.0),
        ("hats", VIEW, 1, 1, 0.5, -0.5),
    ]
    assert counts(rows, funnel) == [1, 1, 1]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"steps": (VIEW, "gaze")}, "no step gaze: steps are page_view, search"),
        ({"steps": (VIEW,)}, "give at least two"),
        ({"steps": (VIEW, CART, VIEW)}, "each once"),
        ({"window_days": 0}, "a window of 0 days: give at least one"),
        ({"window_days": 3, "in_order": False}, "no window of days bounds them"),
    ],
)
def test_a_funnel_that_makes_no_sense_is_told(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        Funnel(**settings)


logs = st.lists(
    st.builds(
        step,
        st.integers(1, 6 * 1440).map(float),
        st.sampled_from(SHORT.steps),
        st.sampled_from(["ann", "bob"]),
        item_id=st.sampled_from(["i1", "i2"]),
        session_id=st.sampled_from(["s", "t"]),
        device_category=st.sampled_from(["mobile", "desktop", None]),
    ),
    min_size=1,
    max_size=12,
)


def reaches(rows: list[dict[str, Any]], steps: tuple[str, ...], window: timedelta) -> bool:
    """Whether any choice of events takes the steps in order within the window."""
    ordered = sorted(rows, key=lambda row: (row["event_timestamp"], SHORT.steps.index(row["event_name"])))
    return any(
        tuple(row["event_name"] for row in chosen) == steps
        and chosen[-1]["event_timestamp"] - chosen[0]["event_timestamp"] <= window
        for chosen in combinations(ordered, len(steps))
    )


@settings(max_examples=60, deadline=None)
@given(rows=logs, days=st.sampled_from([None, 1, 3]))
def test_it_is_what_a_search_of_all_ways_finds(rows: list[dict[str, Any]], days: int | None) -> None:
    key = ("user_id",) if days else ("user_id", "session_id")
    units: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for event in rows:
        units.setdefault(tuple(event[name] for name in key), []).append(event)
    logged = tuple(name for name in SHORT.steps if any(event["event_name"] == name for event in rows))
    window = timedelta(days=days or 10_000)
    expected = [sum(reaches(unit, logged[:n], window) for unit in units.values()) for n in range(1, len(logged) + 1)]
    found = counts(rows, Funnel(SHORT.steps, window_days=days))
    assert found == expected
    assert found == sorted(found, reverse=True)


@settings(max_examples=30, deadline=None)
@given(rows=logs, in_order=st.booleans())
def test_what_some_segments_lose_others_gain(rows: list[dict[str, Any]], in_order: bool) -> None:
    found = way(rows, Funnel(SHORT.steps, in_order=in_order)).leaks.to_pylist()
    for dimension, from_step in {(row["dimension"], row["from_step"]) for row in found}:
        alike = [row for row in found if (row["dimension"], row["from_step"]) == (dimension, from_step)]
        assert sum(row["lost"] for row in alike) == pytest.approx(0, abs=1e-9)
        assert all(0 <= row["low"] <= row["rate"] <= row["high"] <= 1 for row in alike)


@settings(max_examples=30, deadline=None)
@given(rows=logs)
def test_a_longer_window_and_no_order_reach_no_less(rows: list[dict[str, Any]]) -> None:
    day, week = (counts(rows, Funnel(SHORT.steps, window_days=days)) for days in (1, 7))
    assert all(short <= long for short, long in zip(day, week, strict=True))
    visits, on_their_own = counts(rows), counts(rows, Funnel(SHORT.steps, in_order=False))
    assert all(few <= many for few, many in zip(visits, on_their_own, strict=True))
