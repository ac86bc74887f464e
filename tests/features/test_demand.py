"""Panels hold whole periods of the past, and features at an origin see nothing after it."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import contract
from features.demand import features, level
from features.engine import Engine, duckdb_engine, empty
from features.errors import UserError
from features.panels import Panel, PanelSettings, outcome, panel
from features.windows import time_window

SUNDAY = date(2023, 1, 1)
AS_OF = datetime(2023, 6, 5, tzinfo=UTC)
N_WEEKS = 22
N_DAYS = 190
HORIZON = 3


def filled(table: contract.Table, rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=empty(table).schema)


def purchases(rng: np.random.Generator) -> list[dict]:
    """Six items at two places from a Sunday on: i0 is hidden, i4 starts late, i5 hardly sells; some units come back."""
    rates = (1.0, 2.0, 0.4, 1.0, 0.8, 0.01)
    rows = []
    for day in range(N_DAYS):
        for item, rate in enumerate(rates):
            for _ in range(rng.poisson(rate if item != 4 or day > 90 else 0)):
                rows.append(purchase(len(rows), item, day, rng))
    return rows


def purchase(number: int, item: int, day: int, rng: np.random.Generator) -> dict:
    return {
        "event_id": f"e{number}",
        "event_name": "refund" if rng.random() < 0.05 else "purchase",
        "event_timestamp": datetime.combine(SUNDAY, datetime.min.time()) + timedelta(days=day, hours=12),
        "user_id": "u",
        "item_id": f"i{item}",
        "transaction_id": f"t{number}",
        "quantity": float(rng.integers(1, 4)),
        "price": 2.0,
        "location_id": ("north", "south")[rng.integers(2)],
    }


def promoted() -> list[dict]:
    """i1 is advertised every third week, beyond the end of sales too; nothing is known of weeks from August on."""
    mondays = [SUNDAY + timedelta(days=1 + 7 * week) for week in range(30)]
    return [
        {"item_id": "i1", "date": monday, "mailer": 1.0, "price": 1.5, "base_price": 2.0} for monday in mondays[::3]
    ] + [{"item_id": "i9", "date": monday, "mailer": 0.5, "display": 0.5} for monday in mondays]


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return purchases(np.random.default_rng(3))


@pytest.fixture(scope="module")
def shop(rows: list[dict]) -> Engine:
    items = [
        {"item_id": f"i{n}", "item_category": "ab"[n % 2], "availability": "in_stock" if n else "hidden"}
        for n in range(6)
    ]
    return duckdb_engine(memory_limit="1GB", threads=1).bind(
        events=filled(contract.EVENTS, rows),
        items=filled(contract.ITEMS, items),
        offers=filled(contract.OFFERS, promoted()),
    )


def known_at(
    shop: Engine, as_of: datetime, frequency: str = "week", by_location: bool = False, least: int = 8
) -> Panel:
    window = time_window(shop, as_of, as_of + timedelta(days=28))
    return panel(window.past, as_of, PanelSettings(frequency, HORIZON, least, by_location), window.known_future)


def units_of(rows: list[dict], item: str, first: date, days: int, location: str | None = None) -> float:
    """Purchases less refunds within some days, the slow way."""
    inside = [
        row
        for row in rows
        if row["item_id"] == item
        and first <= row["event_timestamp"].date() < first + timedelta(days=days)
        and location in (None, row["location_id"])
    ]
    return max(0.0, sum(row["quantity"] * (1 if row["event_name"] == "purchase" else -1) for row in inside))


@pytest.mark.parametrize(
    ("frequency", "days", "by_location"), [("week", 7, False), ("week", 7, True), ("day", 1, False)]
)
def test_the_panel_counts_what_was_sold(shop: Engine, rows: list[dict], frequency: str, days: int, by_location: bool):
    known = known_at(shop, AS_OF, frequency, by_location)
    for item, place, units in zip(known.item_ids, known.location_ids, known.sold, strict=True):
        expected = [
            units_of(rows, item, first, days, place or None) for first in known.dates[: known.n_periods].astype(object)
        ]
        begun = int(np.argmax(np.array(expected) > 0))
        assert np.isnan(units[:begun]).all()
        np.testing.assert_array_equal(units[begun:], expected[begun:])


def test_the_panel_holds_whole_periods_only(shop: Engine):
    known = known_at(shop, AS_OF + timedelta(days=3))
    assert known.dates[0] == np.datetime64("2023-01-02")
    assert known.dates[known.n_periods] == np.datetime64("2023-06-05")
    assert known.n_periods == N_WEEKS
    assert known.horizon == HORIZON


def test_hidden_and_hardly_sold_items_are_left_out(shop: Engine):
    known = known_at(shop, AS_OF, least=18)
    assert known.item_ids == ("i1", "i2", "i3", "i4")
    assert known.eligible(N_WEEKS).tolist() == [True, True, True, False]


def test_no_series_with_sales_enough_is_the_users_mistake(shop: Engine):
    with pytest.raises(UserError, match="no item was sold in 40 weeks before 2023-06-05: lower min_periods"):
        known_at(shop, AS_OF, least=40)


def test_a_demand_table_gives_the_panel_of_the_events_it_sums(shop: Engine, rows: list[dict]):
    derived = known_at(shop, AS_OF)
    weeks = derived.dates[: derived.n_periods].astype(object)
    summed = [
        {
            "item_id": item,
            "date": week,
            "quantity": units_of(rows, item, week, 7),
            "revenue": 2 * units_of(rows, item, week, 7),
        }
        for item in derived.item_ids
        for week in weeks
    ]
    given = known_at(shop.bind(events=empty(contract.EVENTS), demand=filled(contract.DEMAND, summed)), AS_OF)
    assert given.item_ids == derived.item_ids
    np.testing.assert_array_equal(given.sold, derived.sold)


def test_what_the_truth_sold_is_counted_even_if_its_first_days_are_quiet(shop: Engine, rows: list[dict]):
    known = known_at(shop, AS_OF)
    quiet = shop.narrow(
        {
            "events": "select * from events "
            "where cast(event_timestamp as date) not in (date '2023-06-05', date '2023-06-06')"
        }
    )
    truth = time_window(quiet, AS_OF, AS_OF + timedelta(days=21)).truth
    found, _ = outcome(truth, AS_OF + timedelta(days=21), known)
    row = known.item_ids.index("i1")
    assert found[row, 0] == units_of(rows, "i1", date(2023, 6, 7), 5)
    assert found[row, 1:].tolist() == [units_of(rows, "i1", date(2023, 6, day), 7) for day in (12, 19)]


def test_plans_reach_into_the_horizon_and_unknown_is_not_zero(shop: Engine):
    known = known_at(shop, AS_OF)
    mailer = known.offers["mailer"][known.item_ids.index("i1")]
    assert mailer.tolist() == [float(week % 3 == 0) for week in range(N_WEEKS + HORIZON)]
    assert not known.offers["mailer"][known.item_ids.index("i2")].any()
    unplanned = panel(time_window(shop, AS_OF, AS_OF).past, AS_OF, PanelSettings("week", HORIZON, 8), None)
    assert np.isnan(unplanned.offers["mailer"][:, N_WEEKS:]).all()


def test_features_say_what_they_are_named(shop: Engine):
    known = known_at(shop, AS_OF)
    names, values = features(known, N_WEEKS)
    column = dict(zip(names, np.moveaxis(values, -1, 0), strict=True))
    row = known.item_ids.index("i1")
    past = known.sold[row]
    assert level(known, N_WEEKS)[row] == pytest.approx(past.mean())
    assert column["step"][row].tolist() == [1, 2, 3]
    assert column["lag_2"][row, 0] * past.mean() == pytest.approx(past[-2])
    assert column["mean_4"][row, 2] * past.mean() == pytest.approx(past[-4:].mean())
    assert column["std_8"][row, 0] * past.mean() == pytest.approx(past[-8:].std(), rel=1e-4)
    assert column["price"][row, 0] == pytest.approx(2.0)
    advertised = np.arange(N_WEEKS) % 3 == 0
    alike = [past[advertised == (step % 3 == 0)].mean() for step in range(N_WEEKS, N_WEEKS + HORIZON)]
    np.testing.assert_allclose(column["mean_promoted_alike"][row] * past.mean(), alike, rtol=1e-4)


def test_a_day_of_the_week_is_compared_with_itself(shop: Engine):
    known = known_at(shop, AS_OF, "day")
    names, values = features(known, known.n_periods)
    row = known.item_ids.index("i1")
    seasons = [known.sold[row, -7 * k : known.n_periods - 7 * k + HORIZON] for k in range(1, 5)]
    scale = level(known, known.n_periods)[row]
    np.testing.assert_allclose(
        values[row, :, names.index("season_mean_4")] * scale, np.mean(seasons, axis=0), rtol=1e-4
    )


@settings(max_examples=25, deadline=None)
@given(origin=st.integers(1, N_WEEKS), step=st.integers(0, N_WEEKS - 1), units=st.floats(0, 1e6, width=32))
def test_what_comes_after_the_origin_changes_nothing(shop: Engine, origin: int, step: int, units: float):
    known = known_at(shop, AS_OF)
    sold, revenue = known.sold.copy(), known.revenue.copy()
    sold[:, origin + step :] = units
    revenue[:, origin + step :] = units
    changed = replace(known, sold=sold, revenue=revenue)
    np.testing.assert_array_equal(features(known, origin)[1], features(changed, origin)[1])
    np.testing.assert_array_equal(known.eligible(origin), changed.eligible(origin))


@settings(max_examples=8, deadline=None)
@given(weeks=st.integers(10, N_WEEKS - 1), frequency=st.sampled_from(["week", "day"]))
def test_offline_features_equal_those_of_a_panel_built_on_that_day(shop: Engine, weeks: int, frequency: str):
    on_that_day = known_at(shop, datetime(2023, 1, 2, tzinfo=UTC) + timedelta(weeks=weeks), frequency)
    afterwards = known_at(shop, AS_OF, frequency)
    rows = [afterwards.item_ids.index(item) for item in on_that_day.item_ids]
    origin = on_that_day.n_periods
    np.testing.assert_array_equal(features(afterwards, origin)[1][rows], features(on_that_day, origin)[1])
