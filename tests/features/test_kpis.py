"""The shop's numbers on shops small enough to count by hand, and what holds on every shop."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import assert_same_rows

from features import contract
from features.engine import Engine, duckdb_engine, empty
from features.kpis import MEANINGS, alerts, attribution, cohorts, daily_kpis, kept, kpis, weekly_kpis

AS_OF = datetime(2024, 6, 3, tzinfo=UTC)
ENGINE = duckdb_engine(memory_limit="1GB", threads=1)
CHANNELS = ((None, None), ("news", "email"), ("(direct)", "(none)"), ("shop.example", None))


def row(days_before: float, person: str = "ann", name: str = "view_item", **more: Any) -> dict[str, Any]:
    at = AS_OF.replace(tzinfo=None) - timedelta(days=days_before)
    sold = {"transaction_id": f"{person} {days_before}", "quantity": 1.0, "price": 10.0} if name != "view_item" else {}
    event = {"event_name": name, "event_timestamp": at, "user_id": person, "item_id": "i1"}
    return {**event, **sold, **more}


def bought(days_before: float, person: str = "ann", price: float = 10.0, **more: Any) -> dict[str, Any]:
    return row(days_before, person, "purchase", price=price, **more)


def shop(rows: list[dict[str, Any]]) -> Engine:
    numbered = [{**event, "event_id": f"e{number}"} for number, event in enumerate(rows)]
    return ENGINE.bind(events=pa.Table.from_pylist(numbered, schema=empty(contract.EVENTS).schema))


def visits_of(people: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    one = st.builds(
        lambda days, person, name, channel, price: row(
            days, person, name, price=price, source=channel[0], medium=channel[1]
        ),
        st.floats(0.01, 60.0),
        st.sampled_from(people),
        st.sampled_from(["view_item", "purchase", "refund"]),
        st.sampled_from(CHANNELS),
        st.integers(1, 50).map(float),
    )
    return st.lists(one, min_size=1, max_size=25)


def test_the_headline_by_hand() -> None:
    """Ann visits thrice, buys twice and returns a half; Bob looks; a refund of a stranger is no visit."""
    rows = [
        row(9),
        bought(9, quantity=2.0, transaction_id="o1"),
        bought(9, price=5.0, item_id="i2", transaction_id="o1"),
        row(5),
        bought(2, price=15.0),
        row(1, name="refund", price=8.0, transaction_id="o1"),
        row(3, "bob"),
        row(4, "eve", "refund", price=2.0),
    ]
    assert kpis(shop(rows), AS_OF) == {
        "page_views": 3,
        "visitors": 2,
        "sessions": 4,
        "orders": 2,
        "buyers": 1,
        "revenue": 40.0,
        "refunds": 10.0,
        "net_revenue": 30.0,
        "conversion_per_session": 0.5,
        "conversion_per_visitor": 0.5,
        "average_order_value": 20.0,
        "repeat_rate": 1.0,
        "realised_ltv": 30.0,
    }


def test_shares_of_nothing_are_none() -> None:
    values = kpis(shop([]), AS_OF)
    assert [name for name, value in values.items() if value is None] == [
        "conversion_per_session",
        "conversion_per_visitor",
        "average_order_value",
        "repeat_rate",
        "realised_ltv",
    ]
    assert {values[name] for name in MEANINGS if values[name] is not None} == {0}


def test_a_refund_is_of_its_own_day_and_of_the_channel_that_sold() -> None:
    sold = bought(9, medium="email", source="news", transaction_id="o1")
    rows = [sold, row(3, name="refund", price=4.0, transaction_id="o1"), row(3, name="refund", price=1.0)]
    days = daily_kpis(shop(rows), AS_OF).select(["day", "channel", "revenue", "refunds"])
    assert [tuple(day.values()) for day in days.to_pylist()] == [
        (date(2024, 5, 25), "email", 10.0, 0.0),
        (date(2024, 5, 31), "email", 0.0, 4.0),
        (date(2024, 5, 31), "unknown", 0.0, 1.0),
    ]


@settings(max_examples=25, deadline=None)
@given(rows=visits_of("abcd"))
def test_orders_and_money_add_up_over_days_and_visitors_do_not_exceed_their_sum(rows: list[dict[str, Any]]) -> None:
    engine = shop(rows)
    values, days = kpis(engine, AS_OF), daily_kpis(engine, AS_OF)
    for name in ("sessions", "orders", "revenue", "refunds"):
        assert sum(days[name].to_pylist()) == pytest.approx(values[name])
    assert values["visitors"] <= sum(days["visitors"].to_pylist())
    assert values["buyers"] <= values["visitors"] <= values["sessions"]


# Week on week


def test_weeks_are_whole_and_end_at_until() -> None:
    rows = [bought(22), bought(19), bought(13.5), bought(13.4, "bob", 30.0), bought(6.9), bought(0.1, "cy")]
    weekly = weekly_kpis(shop(rows), AS_OF, AS_OF)
    revenue = [(one["week"], one["value"]) for one in weekly.to_pylist() if one["kpi"] == "revenue"]
    assert revenue == [(date(2024, 5, 13), 10.0), (date(2024, 5, 20), 40.0), (date(2024, 5, 27), 20.0)]
    earlier = weekly_kpis(shop(rows), AS_OF, AS_OF - timedelta(days=7))
    assert earlier["week"].unique().to_pylist() == [date(2024, 5, 13), date(2024, 5, 20)]


def test_a_change_and_its_interval_by_hand() -> None:
    """Ann spends 10 then 20, Bob 30 then nothing: log(20/40), with influences 1/1 - 1/4 and 0 - 3/4."""
    rows = [row(21), bought(13), bought(13, "bob", 30.0), bought(6, price=20.0)]
    (found,) = [
        one
        for one in weekly_kpis(shop(rows), AS_OF, AS_OF).to_pylist()
        if (one["kpi"], one["week"]) == ("revenue", date(2024, 5, 27))
    ]
    spread = np.exp(1.959964 * np.sqrt(0.75**2 + 0.75**2))
    assert (found["value"], found["change"]) == (20.0, -0.5)
    assert found["change_low"] == pytest.approx(0.5 / spread - 1, rel=1e-6)
    assert found["change_high"] == pytest.approx(0.5 * spread - 1, rel=1e-6)


def test_a_week_in_which_nothing_happened_counts_zero() -> None:
    weekly = weekly_kpis(shop([row(21), bought(13)]), AS_OF, AS_OF).to_pylist()
    orders = [(one["value"], one["change"]) for one in weekly if one["kpi"] == "orders"]
    assert orders == [(0.0, None), (1.0, None), (0.0, None)]


def test_who_stays_the_same_makes_no_noise() -> None:
    rows = [row(21), *(bought(days, person) for days in (13, 6) for person in ("ann", "bob"))]
    last = weekly_kpis(shop(rows), AS_OF, AS_OF).filter(pc.field("week") == date(2024, 5, 27))
    assert {one["kpi"]: (one["change"], one["change_low"]) for one in last.to_pylist()}["orders"] == (0.0, None)


def drawn(rng: np.random.Generator, lift: float) -> list[dict[str, Any]]:
    """Two weeks of people who come at random and each buy at a rate and price of their own."""
    rows = [row(21, "first")]
    for number in range(rng.poisson(150)):
        rate, price = rng.gamma(1.5, 0.5), rng.gamma(2.0, 10.0)
        for start, factor in ((14, 1.0), (7, lift)):
            for _ in range(rng.poisson(rate * factor)):
                at = float(start - 7 * rng.random())
                rows.append(bought(at, f"p{number}", price, transaction_id=f"{number} {at}"))
    return rows


def test_intervals_cover_the_truth() -> None:
    """Of 80 shops whose sales rise by 20 %, 95 % of the intervals hold the rise: 72 or more with probability .98."""
    rng, truth = np.random.default_rng(0), {"orders": 0.2, "revenue": 0.2, "average_order_value": 0.0}
    held = dict.fromkeys(truth, 0)
    for _ in range(80):
        last = weekly_kpis(shop(drawn(rng, 1.2)), AS_OF, AS_OF).filter(pc.field("week") == date(2024, 5, 27))
        for found in last.filter(pc.field("kpi").isin(list(truth))).to_pylist():
            held[found["kpi"]] += found["change_low"] <= truth[found["kpi"]] <= found["change_high"]
    assert all(72 <= n < 80 for n in held.values()), held


def test_alerts_are_beyond_their_interval_and_the_worst_comes_first() -> None:
    def one(kpi: str, change: float, low: float | None, high: float | None, week: int = 27) -> dict[str, Any]:
        changes = {"change": change, "change_low": low, "change_high": high}
        return {"week": date(2024, 5, week), "kpi": kpi, "value": 1.0, "low": 1.0, "high": 1.0, **changes}

    rows = [
        one("orders", 0.3, 0.1, 0.5),
        one("sessions", -0.1, -0.2, -0.05),
        one("visitors", -0.4, -0.9, 0.1),
        one("refunds", 0.5, 0.2, 0.9),
        one("buyers", -0.9, None, None),
        one("revenue", -0.9, -0.95, -0.8, week=20),
    ]
    schema = weekly_kpis(shop([]), AS_OF, AS_OF).schema
    assert alerts(pa.Table.from_pylist(rows, schema))["kpi"].to_pylist() == ["refunds", "sessions", "orders"]
    assert alerts(schema.empty_table()).num_rows == 0


# Cohorts


def cells(engine: Engine, until: datetime, period: Any) -> dict[tuple[date, int], float | None]:
    return {(one["cohort"], one["age"]): one["share"] for one in cohorts(engine, AS_OF, until, period).to_pylist()}


def test_cohorts_by_hand() -> None:
    """Ann and Bob begin in March, Cy in April; June is not over."""
    rows = [
        bought(90),  # 5 March
        bought(89, "bob"),
        bought(50, "bob"),  # 14 April
        bought(49, "cy"),
        bought(20, "ann"),  # 14 May
        bought(1, "cy", transaction_id="june"),
    ]
    march, april, may = (date(2024, month, 1) for month in (3, 4, 5))
    assert cells(shop(rows), AS_OF, "month") == {
        (march, 0): 1.0,
        (march, 1): 0.5,
        (march, 2): 0.5,
        (april, 0): 1.0,
        (april, 1): 0.0,
        (april, 2): None,
        (may, 0): None,
        (may, 1): None,
        (may, 2): None,
    }


def test_weeks_of_cohorts_begin_on_mondays_and_end_when_they_are_over() -> None:
    rows = [bought(14), bought(7), bought(3, "bob")]
    assert cells(shop(rows), AS_OF, "week") == {
        (date(2024, 5, 20), 0): 1.0,
        (date(2024, 5, 20), 1): 1.0,
        (date(2024, 5, 27), 0): 1.0,
        (date(2024, 5, 27), 1): None,
    }
    assert cells(shop(rows), AS_OF - timedelta(days=1), "week") == {(date(2024, 5, 20), 0): 1.0}
    assert cells(shop([bought(1)]), AS_OF - timedelta(days=7), "week") == {}


# Attribution


def credits_of(rows: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    found = attribution(shop(rows), AS_OF).to_pylist()
    return {one["channel"]: (one["orders_last_non_direct"], one["orders_time_decay"]) for one in found}


def test_credit_halves_every_seven_days_and_direct_gets_none() -> None:
    rows = [
        row(15, medium="cpc", source="search"),
        row(8, medium="email", source="news"),
        bought(1, source="(direct)", medium="(none)"),
    ]
    assert credits_of(rows) == {
        "email": (1.0, pytest.approx(2 / 3)),
        "cpc": (0.0, pytest.approx(1 / 3)),
    }


def test_direct_is_credited_where_nothing_else_led_to_the_order() -> None:
    assert credits_of([row(40, medium="cpc"), row(5), bought(1)]) == {"direct": (1.0, pytest.approx(1.0))}


@pytest.mark.parametrize(("days", "channel"), [(31.0, "cpc"), (31.01, "direct")])
def test_the_look_back_is_thirty_days(days: float, channel: str) -> None:
    assert set(credits_of([row(days, medium="cpc"), bought(1)])) == {channel}


def test_a_source_without_medium_names_the_channel_and_other_people_bring_nothing() -> None:
    rows = [row(2, source="shop.example"), row(2, "bob", medium="cpc"), bought(1)]
    assert set(credits_of(rows)) == {"shop.example"}


@settings(max_examples=25, deadline=None)
@given(rows=visits_of("ab"))
def test_credits_sum_to_orders_and_revenue(rows: list[dict[str, Any]]) -> None:
    engine = shop(rows)
    values, found = kpis(engine, AS_OF), attribution(engine, AS_OF)
    for model in ("last_non_direct", "time_decay"):
        assert sum(found[f"orders_{model}"].to_pylist()) == pytest.approx(values["orders"])
        assert sum(found[f"revenue_{model}"].to_pylist()) == pytest.approx(values["revenue"])


# What is known


@settings(max_examples=10, deadline=None)
@given(rows=visits_of("abc"), later=visits_of("abc"))
def test_what_comes_later_changes_nothing(rows: list[dict[str, Any]], later: list[dict[str, Any]]) -> None:
    moved = [{**event, "event_timestamp": event["event_timestamp"] + timedelta(days=60)} for event in later]
    alone, both = shop(rows), shop(rows + moved)
    assert_same_rows(both.query("kpis", as_of=AS_OF), alone.query("kpis", as_of=AS_OF))
    assert_same_rows(weekly_kpis(both, AS_OF, AS_OF), weekly_kpis(alone, AS_OF, AS_OF))
    assert_same_rows(cohorts(both, AS_OF, AS_OF, "week"), cohorts(alone, AS_OF, AS_OF, "week"))
    assert_same_rows(attribution(both, AS_OF), attribution(alone, AS_OF))


def test_what_is_kept_gives_the_same_numbers(events: pa.Table, items: pa.Table) -> None:
    whole = ENGINE.bind(events=events, items=items)
    as_of = datetime(2024, 4, 10, tzinfo=UTC)
    assert kpis(kept(whole, as_of), as_of) == pytest.approx(kpis(whole, as_of))
