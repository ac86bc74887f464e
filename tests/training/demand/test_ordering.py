"""An order list knows how each series is ordered, what is there that morning and what is coming, and nothing later."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import contract, overrides
from features.engine import Engine, duckdb_engine, empty
from features.errors import UserError
from features.periods import first_day, number
from features.windows import time_window
from serving.artifact import Artifact, Draft
from serving.demand import Forecaster
from serving.supply import Position
from training.config import BoosterConfig
from training.demand.config import DemandConfig
from training.demand.fit import fit
from training.demand.forecasts import Forecast, computed
from training.demand.ordering import OrderList, order_list, standing, terms, with_planned

MONDAY = date(2023, 1, 2)
N_WEEKS, N_ITEMS, HORIZON = 40, 8, 3
AS_OF = datetime(2023, 9, 4, tzinfo=UTC)
TREES = BoosterConfig(n_trees=10, learning_rate=0.3, num_leaves=4, min_data_in_leaf=10)
CONFIG = DemandConfig(horizon=HORIZON, min_periods=5, n_origins=4, trees=TREES, shape=TREES)

Row = dict[str, object]


def filled(table: contract.Table, rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=empty(table).schema)


def with_rows(engine: Engine, **tables: list[Row]) -> Engine:
    return engine.bind(**{name: filled(contract.TABLES[name], rows) for name, rows in tables.items()})


def term(item: str, place: str | None = None, **more: float | None) -> Row:
    row = {"item_id": item, "location_id": place, "lead_time_days": 7.0, "holding_cost": 0.01, "shortage_cost": 1.0}
    return {**row, **more}


@pytest.fixture(scope="module")
def bare() -> Engine:
    return duckdb_engine(memory_limit="1GB", threads=1)


@pytest.fixture(scope="module")
def shop(bare: Engine) -> Engine:
    """Eight items that sell more the higher their number, five weeks of them after ``AS_OF``; i7 has no terms."""
    units = np.random.default_rng(8).poisson(3 + 2 * np.arange(N_ITEMS)[:, None], (N_ITEMS, N_WEEKS))
    demand = [
        {"item_id": f"i{item}", "date": MONDAY + timedelta(weeks=week), "quantity": float(units[item, week])}
        for item in range(N_ITEMS)
        for week in range(N_WEEKS)
    ]
    return with_rows(bare, demand=demand, supply=[term(f"i{item}") for item in range(N_ITEMS - 1)])


@pytest.fixture(scope="module")
def forecaster(shop: Engine, tmp_path_factory: pytest.TempPathFactory) -> Forecaster:
    window = time_window(shop, AS_OF, AS_OF + timedelta(weeks=HORIZON))
    draft = Draft(tmp_path_factory.mktemp("model") / "artifact")
    fit(window.past, window.known_future, AS_OF, "week", CONFIG).export(draft)
    return Forecaster.load(Artifact(draft.folder))


def listed(placed: OrderList, column: str) -> dict[str, object]:
    table = placed.orders
    return dict(zip(table["item_id"].to_pylist(), table[column].to_pylist(), strict=True))


def test_terms_are_those_of_the_place_else_of_the_item_everywhere(bare: Engine):
    rows = [term("a", lead_time_days=14.0), term("a", "north", pack_size=6.0), term("b", "south", review_days=21.0)]
    keys = [("b", "north"), ("a", "north"), ("a", "south"), ("b", "south"), ("c", "north")]
    placed, supply = terms(with_rows(bare, supply=rows), keys, 7.0)
    assert placed.tolist() == [1, 2, 3]
    assert supply.lead_time.tolist() == [1, 2, 1]
    assert supply.pack_size.tolist() == [6, 1, 1]
    assert supply.review.tolist() == [1, 1, 3]
    np.testing.assert_allclose(supply.holding_cost, 0.07)


@given(st.permutations([f"i{n}" for n in range(6)]), st.permutations([f"i{n}" for n in range(2, 8)]))
@settings(max_examples=15)
def test_terms_follow_the_series_whatever_the_order_of_rows(bare: Engine, items: list[str], ordered: list[str]):
    engine = with_rows(bare, supply=[term(item, shortage_cost=float(item[1:])) for item in items])
    placed, supply = terms(engine, [(item, "") for item in ordered], 7.0)
    assert [ordered[place] for place in placed] == [item for item in ordered if item in items]
    assert supply.shortage_cost.tolist() == [float(ordered[place][1:]) for place in placed]


def test_no_terms_at_all_are_told(bare: Engine):
    with pytest.raises(UserError, match=r"supply has rows for 1 items and none for the 2 that are forecast: ingest"):
        terms(with_rows(bare, supply=[term("z")]), [("a", ""), ("b", "")], 7.0)
    with pytest.raises(UserError, match="supply has rows for 0 items"):
        terms(bare, [("a", "")], 7.0)


def test_places_of_an_item_that_is_one_series_are_refused(bare: Engine):
    engine = with_rows(bare, supply=[term("b"), term("a", "north"), term("a", "south")])
    with pytest.raises(UserError, match="how item a is ordered at a location and the forecast is of all locations"):
        terms(engine, [("a", ""), ("b", "")], 7.0)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"lead_time_days": None}, "lead_time of item b at north is missing, it must be zero or more"),
        ({"lead_time_days": -1.0}, "lead_time of item b at north is -0.142857, it must be zero or more"),
        ({"holding_cost": None}, "holding_cost of item b at north is missing, .* where no service_level is set"),
        ({"shortage_cost": None}, "shortage_cost of item b at north is missing"),
        ({"service_level": 1.5}, "service_level of item b at north is 1.5, it must be within 0 to 1"),
        ({"pack_size": -2.0}, "pack_size of item b at north is -2"),
    ],
)
def test_terms_that_make_no_order_are_told_of_the_item(bare: Engine, wrong: Row, told: str):
    engine = with_rows(bare, supply=[term("a", "north"), term("b", "north", **wrong)])
    with pytest.raises(UserError, match=f"^table supply: {told}") as refused:
        terms(engine, [("c", "north"), ("a", "north"), ("b", "north")], 7.0)
    assert "\n" not in str(refused.value)


def test_a_service_level_stands_in_for_costs(bare: Engine):
    wanted = term("a", holding_cost=None, shortage_cost=None, service_level=0.95)
    _, supply = terms(with_rows(bare, supply=[wanted]), [("a", "")], 7.0)
    assert supply.service_level.tolist() == [0.95]


def ahead(as_of: date, horizon: int = HORIZON, frequency: str = "week") -> Forecast:
    """A forecast of nothing, of which only the periods are read."""
    start = int(number(as_of, frequency))
    dates = first_day(np.arange(start, start + horizon), frequency)
    return Forecast([("a", "")], dates, frequency, [0.5], np.zeros((1, horizon, 2), np.float32))


def at(bare: Engine, keys: list[tuple[str, str]], as_of: datetime = AS_OF, **tables: list[Row]) -> Position:
    return standing(with_rows(bare, **tables), keys, ahead(as_of.date()), as_of)


def counted(item: str, days: int, on_hand: float | None, place: str | None = None) -> Row:
    day = AS_OF.date() + timedelta(days=days)
    return {"item_id": item, "location_id": place, "date": day, "on_hand": on_hand}


@settings(max_examples=25)
@given(st.dictionaries(st.integers(-30, 30), st.one_of(st.none(), st.integers(-5, 50)), max_size=8), st.integers(0, 6))
def test_the_latest_count_up_to_that_morning_counts(bare: Engine, counts: dict[int, int | None], later: int):
    rows = [counted("a", day, on_hand) for day, on_hand in counts.items()]
    known = {day: on_hand for day, on_hand in counts.items() if day <= later and on_hand is not None}
    found = at(bare, [("a", "")], AS_OF + timedelta(days=later), stock=rows)
    assert found.on_hand.tolist() == [known[max(known)] if known else 0]


def test_stock_is_that_of_the_place_and_all_places_are_summed(bare: Engine):
    rows = [
        counted("a", -1, 5, "north"),
        counted("a", -9, 3, "south"),
        counted("b", -1, 7, "north"),
        counted("c", 0, 9),
    ]
    keys = [("b", "north"), ("a", "south"), ("a", "north"), ("a", "west")]
    assert at(bare, keys, stock=rows).on_hand.tolist() == [7, 3, 5, 0]
    assert at(bare, [("c", ""), ("a", "")], stock=rows).on_hand.tolist() == [9, 8]


def coming(item: str, days: int, quantity: float, place: str | None = None) -> Row:
    arrives_on = AS_OF.date() + timedelta(days=days)
    return {"item_id": item, "location_id": place, "arrives_on": arrives_on, "quantity": quantity}


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(-30, 40), st.integers(1, 9)), max_size=8))
def test_orders_arrive_in_the_week_of_their_day_overdue_ones_at_once(bare: Engine, due: list[tuple[int, int]]):
    rows = [coming("a", day, quantity, f"p{n}") for n, (day, quantity) in enumerate(due)]
    expected = [0.0] * HORIZON
    for day, quantity in due:
        step = max(day, 0) // 7
        if step < HORIZON:
            expected[step] += quantity
    found = at(bare, [("a", "")], pipeline=[*rows, coming("z", 1, 100)])
    assert found.arrivals.tolist() == [expected]


def test_orders_arrive_at_their_place(bare: Engine):
    rows = [coming("a", 0, 5, "north"), coming("a", 8, 3, "south"), coming("a", 9, 4, "south"), coming("a", 0, 50)]
    found = at(bare, [("a", "south"), ("a", "north")], pipeline=rows)
    assert found.arrivals.tolist() == [[0, 7, 0], [5, 0, 0]]


def test_a_shop_that_counts_nothing_has_nothing(bare: Engine):
    found = standing(bare, [("a", "")], ahead(AS_OF.date()), AS_OF)
    assert (found.on_hand.tolist(), found.arrivals.tolist()) == ([0], [[0, 0, 0]])


def test_the_list_names_every_series_with_terms_most_money_at_risk_first(shop: Engine, forecaster: Forecaster):
    placed = order_list(forecaster, shop, AS_OF)
    table = placed.orders
    assert placed.n_without_terms == 1
    assert sorted(table["item_id"].to_pylist()) == [f"i{item}" for item in range(N_ITEMS - 1)]
    risk = table["money_at_risk"].to_numpy()
    assert (np.diff(risk) <= 0).all()
    assert risk[-1] > 0
    assert (table["order_quantity"].to_numpy() > 0).all()
    assert table["location_id"].null_count == table.num_rows
    for quantity, reason in zip(table["order_quantity"].to_pylist(), table["reason"].to_pylist(), strict=True):
        assert reason.startswith(f"{quantity:,.6g}")


def test_an_order_covers_about_what_will_sell_until_the_next_arrives(shop: Engine, forecaster: Forecaster):
    levels = listed(order_list(forecaster, shop, AS_OF), "order_up_to")
    for item, level in levels.items():
        two_weeks = 2 * (3 + 2 * int(item[1:]))
        assert two_weeks * 0.7 < level < two_weeks * 2.5 + 6


def test_what_is_there_and_coming_need_not_be_ordered(shop: Engine, forecaster: Forecaster):
    usual = listed(order_list(forecaster, shop, AS_OF), "order_quantity")
    stocked = with_rows(shop, stock=[counted("i5", 0, 1000)], pipeline=[coming("i4", 3, 1000), coming("i3", 99, 1000)])
    placed = order_list(forecaster, stocked, AS_OF)
    fewer = listed(placed, "order_quantity")
    assert (fewer["i5"], fewer["i4"]) == (0, 0)
    assert {item: usual[item] for item in ("i0", "i1", "i2", "i3", "i6")} == {
        item: fewer[item] for item in ("i0", "i1", "i2", "i3", "i6")
    }
    assert listed(placed, "on_hand")["i5"] == 1000
    assert [listed(placed, "on_order")[item] for item in ("i4", "i3")] == [1000, 0]
    assert "1,000.0 on hand or on order" in listed(placed, "reason")["i5"]
    assert listed(placed, "reason")["i5"].startswith("Nothing: ")


def test_stock_below_zero_is_owed_and_ordered_too(shop: Engine, forecaster: Forecaster):
    usual = listed(order_list(forecaster, shop, AS_OF), "order_quantity")
    owing = with_rows(shop, stock=[counted("i2", -2, -20)])
    assert listed(order_list(forecaster, owing, AS_OF), "order_quantity")["i2"] == pytest.approx(
        usual["i2"] + 20, abs=1
    )


@pytest.mark.parametrize("days", [0, 14])
def test_what_comes_after_that_morning_changes_nothing(shop: Engine, forecaster: Forecaster, days: int):
    morning = AS_OF + timedelta(days=days)
    later = [counted("i1", day, 99.0) for day in range(days + 1, 40)]
    engine = with_rows(shop, stock=[counted("i1", -3, 2.0), *later])
    known = engine.narrow(
        {
            "demand": "select * from demand where date < cast($as_of as date)",
            "stock": "select * from stock where date <= cast($as_of as date)",
        },
        as_of=morning,
    )
    placed = [order_list(forecaster, each, morning).orders for each in (engine, known)]
    assert placed[0].equals(placed[1])
    assert listed(order_list(forecaster, engine, morning), "on_hand")["i1"] == 2


def test_sales_since_the_model_was_trained_are_in_its_orders(shop: Engine, forecaster: Forecaster):
    more = shop.narrow(
        {
            "demand": "select * replace (case when date >= cast($since as date) then 5 * quantity else quantity end "
            "as quantity) from demand"
        },
        since=AS_OF,
    )
    morning = AS_OF + timedelta(weeks=4)
    usual, risen = (listed(order_list(forecaster, each, morning), "order_up_to") for each in (shop, more))
    assert sum(risen.values()) > 1.3 * sum(usual.values())


def test_a_lead_time_of_zero_is_an_order_for_this_week(shop: Engine, forecaster: Forecaster):
    now = with_rows(shop, supply=[term(f"i{item}", lead_time_days=0.0) for item in range(N_ITEMS)])
    usual, less = (listed(order_list(forecaster, each, AS_OF), "order_up_to") for each in (shop, now))
    assert all(0 < less[item] < usual[item] for item in usual)


def test_packs_and_minimum_are_kept(shop: Engine, forecaster: Forecaster):
    rows = [term(f"i{item}", pack_size=12.0, min_order_quantity=40.0) for item in range(N_ITEMS)]
    quantity = order_list(forecaster, with_rows(shop, supply=rows), AS_OF).orders["order_quantity"].to_numpy()
    assert (quantity % 12 == 0).all()
    assert ((quantity == 0) | (quantity >= 40)).all()
    assert quantity.any()


def test_a_forecast_that_ends_before_the_next_arrival_is_refused(shop: Engine, forecaster: Forecaster):
    engine = with_rows(shop, supply=[term("i1"), term("i2", lead_time_days=15.0)])
    told = "an order of item i2 must last 4 weeks, lead time and review, and the forecast reaches 3: train demand with"
    with pytest.raises(UserError, match=f"{told} horizon=4"):
        order_list(forecaster, engine, AS_OF)


def test_series_without_costs_come_last(shop: Engine, forecaster: Forecaster):
    wanted = {"holding_cost": None, "shortage_cost": None, "service_level": 0.9}
    rows = [term("i6", **wanted), *(term(f"i{item}") for item in range(6))]
    table = order_list(forecaster, with_rows(shop, supply=rows), AS_OF).orders
    assert table["item_id"][table.num_rows - 1].as_py() == "i6"
    assert table["money_at_risk"].null_count == 1
    assert table["order_quantity"][table.num_rows - 1].as_py() > 0


def planned(*plans: tuple[str, int, float], by: str = "anna", reason: str = "Fair.") -> pa.Table:
    """Overrides of items in the weeks from ``AS_OF`` on."""
    rows = [
        {
            "item_id": item,
            "date": AS_OF.date() + timedelta(weeks=week),
            "quantity": units,
            "made_at": AS_OF - timedelta(days=1),
            "made_by": by,
            "reason": reason,
            "model_mean": 1.0,
            "model_version": "1",
        }
        for item, week, units in plans
    ]
    return pa.Table.from_pylist(rows, schema=overrides.SCHEMA)


def test_paths_have_the_planned_mean_where_there_is_a_plan_and_stay_as_they_are_elsewhere():
    paths = np.random.default_rng(3).poisson(4, (2, 50, 3)).astype(np.float32)
    paths[1, :, 2] = 0
    units = np.array([[np.nan, 10.0, 0.0], [np.nan, np.nan, 3.0]])
    found = with_planned(paths, units)
    np.testing.assert_allclose(found.mean(axis=1)[~np.isnan(units)], [10, 0, 3], rtol=1e-5)
    np.testing.assert_allclose(found[0, :, 1] * paths[0, 0, 1], paths[0, :, 1] * found[0, 0, 1], rtol=1e-5)
    np.testing.assert_array_equal(found[:, :, 0], paths[:, :, 0])
    np.testing.assert_array_equal(found[1, :, 1], paths[1, :, 1])
    assert found[1, :, 2].tolist() == [3.0] * 50


def test_a_plan_moves_the_order_of_its_item_alone_and_the_reason_says_whose_it_is(shop: Engine, forecaster: Forecaster):
    usual, moved = order_list(forecaster, shop, AS_OF), order_list(forecaster, shop, AS_OF, planned(("i4", 1, 60.0)))
    before, after = (listed(placed, "order_quantity") for placed in (usual, moved))
    assert after.pop("i4") > before.pop("i4") + 30
    assert after == before
    assert listed(moved, "reason")["i4"].endswith(" Planned by anna: Fair.")
    assert not any("Planned" in reason for item, reason in listed(moved, "reason").items() if item != "i4")


def test_a_plan_of_what_the_forecast_says_anyway_changes_only_the_reason(shop: Engine, forecaster: Forecaster):
    forecast = computed(forecaster, shop, AS_OF)
    paths = forecaster.paths(forecast.values, 200)
    unmoved = with_planned(paths, paths.mean(axis=1, dtype=np.float64))
    np.testing.assert_allclose(unmoved, paths, rtol=1e-5)


def test_a_plan_beyond_the_next_arrival_is_not_of_this_order(shop: Engine, forecaster: Forecaster):
    usual, moved = order_list(forecaster, shop, AS_OF), order_list(forecaster, shop, AS_OF, planned(("i4", 2, 600.0)))
    assert moved.orders.equals(usual.orders)


def test_two_planners_of_one_item_are_both_named_once(shop: Engine, forecaster: Forecaster):
    plans = [planned(("i4", 0, 9.0), ("i4", 1, 8.0)), planned(("i3", 0, 9.0)), planned(("i4", 1, 7.0), by="ben")]
    both = pa.concat_tables([plans[0].slice(0, 1), *plans[1:]])
    said = listed(order_list(forecaster, shop, AS_OF, both), "reason")
    assert said["i4"].endswith(" Planned by anna: Fair; ben: Fair.")
    alone = listed(order_list(forecaster, shop, AS_OF, plans[0]), "reason")
    assert alone["i4"].endswith(" Planned by anna: Fair.")


def test_the_statistical_forecast_does_not_know_of_plans(shop: Engine, forecaster: Forecaster):
    before = computed(forecaster, shop, AS_OF).values
    order_list(forecaster, shop, AS_OF, planned(("i4", 1, 60.0)))
    np.testing.assert_array_equal(computed(forecaster, shop, AS_OF).values, before)
