"""Ways of ordering are replayed on the same past, from the same stock, and none sees what has not happened yet."""

import json
import math
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from features import contract
from features.engine import Engine, duckdb_engine, empty
from features.errors import UserError
from features.ingest import ingest
from features.periods import Frequency, first_day, later, number
from features.shops import load_shop
from training import cli
from training.config import BoosterConfig
from training.demand import replay
from training.demand.config import DemandConfig
from training.demand.replay import BENCHMARK, WINDOW, replayed
from training.evaluation import Row
from training.simulation import Outcome, simulate

MONDAY = date(2023, 1, 2)
UNTIL = datetime(2023, 11, 6, tzinfo=UTC)
N_WEEKS, N_ITEMS, HORIZON = 44, 5, 3
START = N_WEEKS - WINDOW["week"]
WAYS = ("paths", "z_sigma", BENCHMARK, "clairvoyant")
TREES = BoosterConfig(n_trees=5, learning_rate=0.3, num_leaves=4, min_data_in_leaf=10)
CONFIG = DemandConfig(horizon=HORIZON, min_periods=5, n_origins=3, trees=TREES, shape=TREES, quantiles=(0.1, 0.5, 0.9))

Cells = list[dict[str, object]]


def filled(table: contract.Table, rows: Cells) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=empty(table).schema)


def with_rows(engine: Engine, **tables: Cells) -> Engine:
    return engine.bind(**{name: filled(contract.TABLES[name], rows) for name, rows in tables.items()})


def demanded(units: np.ndarray, dates: np.ndarray) -> Cells:
    """Rows of ``demand`` from units, [n_items, n_periods]."""
    return [
        {"item_id": f"i{item}", "date": day.item(), "quantity": float(quantity), "revenue": float(quantity)}
        for item, quantities in enumerate(units)
        for day, quantity in zip(dates, quantities, strict=True)
    ]


def supplied(n_items: int = N_ITEMS, **more: float | None) -> Cells:
    row = {"lead_time_days": 7.0, "holding_cost": 0.03, "shortage_cost": 1.0, **more}
    return [{"item_id": f"i{item}", **row} for item in range(n_items)]


def mondays(n: int = N_WEEKS) -> np.ndarray:
    return np.datetime64(MONDAY) + 7 * np.arange(n)


@pytest.fixture(scope="module")
def bare() -> Engine:
    return duckdb_engine(memory_limit="1GB", threads=1)


@pytest.fixture(scope="module")
def units() -> np.ndarray:
    return np.random.default_rng(9).poisson(4 + 3 * np.arange(N_ITEMS)[:, None], (N_ITEMS, N_WEEKS)).astype(float)


@pytest.fixture(scope="module")
def shop(bare: Engine, units: np.ndarray) -> Engine:
    """Five items of which i1 was out of stock in a week before and a week within the window."""
    empty_shelf = [
        {"item_id": "i1", "date": MONDAY + timedelta(weeks=week), "available_fraction": 0.0}
        for week in (START - 4, START + 3)
    ]
    return with_rows(bare, demand=demanded(units, mondays()), supply=supplied(), stock=empty_shelf)


@pytest.fixture
def outcomes(monkeypatch: pytest.MonkeyPatch) -> list[Outcome]:
    """What the replay simulates from now on: of each window one outcome for each of ``WAYS``."""
    seen: list[Outcome] = []

    def spied(*arguments: object) -> Outcome:
        seen.append(simulate(*arguments))
        return seen[-1]

    monkeypatch.setattr(replay, "simulate", spied)
    return seen


@pytest.fixture(scope="module")
def rows(shop: Engine) -> list[Row]:
    return replayed(shop, "week", CONFIG, UNTIL, 2)


def cost(rows: list[Row], way: str, segment: str, metric: str = "cost") -> float:
    (found,) = [row.value for row in rows if (row.model, row.segment, row.metric) == (way, segment, metric)]
    return found


def test_every_way_of_ordering_is_told_of_every_window(rows: list[Row]):
    metrics = ("cost", "holding_cost", "shortage_cost", "fill_rate", "cycle_service_level")
    told = [(row.segment, row.model, row.metric) for row in rows]
    assert sorted(told) == sorted(
        (f"{window} {part}", way, metric)
        for window in ("2023-07-17", "2023-09-11")
        for part in ("all", "after_lead_time")
        for way in WAYS
        for metric in metrics
    )
    assert {row.n for row in rows} == {N_ITEMS}
    assert all(math.isfinite(row.value) for row in rows)


def test_costs_add_up_and_service_is_a_share(rows: list[Row]):
    for row in rows:
        if row.metric == "cost":
            parts = [cost(rows, row.model, row.segment, f"{part}_cost") for part in ("holding", "shortage")]
            assert row.value == pytest.approx(sum(parts))
        elif not row.metric.endswith("cost"):
            assert 0 <= row.value <= 1


def assert_foresight_is_cheapest(rows: list[Row]) -> None:
    for segment in {row.segment for row in rows if row.segment.endswith(" all")}:
        least = cost(rows, "clairvoyant", segment)
        assert all(cost(rows, way, segment) >= least - 1e-9 for way in WAYS)
        assert any(cost(rows, way, segment) > least for way in WAYS)


def test_nothing_is_cheaper_than_foresight(rows: list[Row]):
    assert_foresight_is_cheapest(rows)


def test_every_way_starts_from_the_benchmarks_stock_and_serves_what_was_sold(
    shop: Engine, units: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    openings = []

    def spied(demand: np.ndarray, opening: object, *rest: object) -> Outcome:
        openings.append(opening)
        return simulate(demand, opening, *rest)

    monkeypatch.setattr(replay, "simulate", spied)
    replayed(shop, "week", CONFIG, UNTIL, 1)
    assert len(openings) == len(WAYS)
    assert all(opening is openings[0] for opening in openings)
    there = openings[0].on_hand + openings[0].arrivals.sum(axis=1)
    assert (there > units.mean(axis=1)).all()
    assert (there < 6 * units.mean(axis=1)).all()


def test_demand_is_what_was_sold_in_the_window(shop: Engine, units: np.ndarray, outcomes: list[Outcome]):
    replayed(shop, "week", CONFIG, UNTIL, 1)
    for outcome in outcomes:
        np.testing.assert_array_equal(outcome.demand, units[:, START:])


def test_a_series_that_began_long_ago_and_sells_again_in_the_window_moves_nothing(
    bare: Engine, units: np.ndarray, outcomes: list[Outcome]
):
    before, again = np.zeros(N_WEEKS + 6), np.zeros((N_ITEMS, 6))
    before[0], before[-4:] = 3, 3
    early = [{**row, "item_id": "early"} for row in demanded(before[None], mondays(N_WEEKS + 6))]
    sold = demanded(np.column_stack([again, units]), mondays(N_WEEKS + 6))
    shop = with_rows(bare, demand=[*sold, *early], supply=supplied())
    replayed(shop, "week", CONFIG, UNTIL + timedelta(weeks=6), 1)
    np.testing.assert_array_equal(outcomes[0].demand, units[:, START:])
    assert (np.diff(outcomes[0].ordered.sum(axis=1)) > 0).all()


@pytest.mark.parametrize("review", [0, 2, 5])
@pytest.mark.parametrize("later", ["deleted", "risen"])
def test_no_order_knows_what_comes_after_its_review(
    shop: Engine, units: np.ndarray, outcomes: list[Outcome], review: int, later: str
):
    changed = units.copy()
    changed[:, START + review :] = 40 + 10 * units[:, START + review :]
    narrowed = shop.narrow(
        {name: f"select * from {name} where date < cast($day as date)" for name in ("demand", "stock")},
        day=MONDAY + timedelta(weeks=START + review),
    )
    other = narrowed if later == "deleted" else with_rows(shop, demand=demanded(changed, mondays()))
    for each in (shop, other):
        replayed(each, "week", CONFIG, UNTIL, 1)
    real, without = outcomes[: len(WAYS)], outcomes[len(WAYS) :]
    for way, one, another in zip(WAYS[:-1], real, without, strict=False):
        np.testing.assert_array_equal(one.ordered[:, : review + 1], another.ordered[:, : review + 1], err_msg=way)
        assert (one.ordered[:, review + 1 :] != another.ordered[:, review + 1 :]).any(), way
    assert real[0].ordered[:, : review + 1].any()


def test_the_same_past_costs_the_same_again(shop: Engine, rows: list[Row]):
    again = replayed(shop, "week", CONFIG, UNTIL, 1)
    assert again == [row for row in rows if row.segment.startswith("2023-09-11")]


DATES: dict[Frequency, int] = {"day": 91 + 28 + 10, "week": 26 + 8 + 4, "month": 12 + 6 + 3}


@pytest.mark.parametrize("frequency", DATES)
def test_days_weeks_and_months_are_replayed(bare: Engine, frequency: Frequency):
    n_periods = DATES[frequency]
    dates = first_day(int(number(MONDAY, frequency)) + (frequency == "month") + np.arange(n_periods), frequency)
    sold = np.random.default_rng(2).poisson(6, (3, n_periods)).astype(float)
    shop = with_rows(bare, demand=demanded(sold, dates), supply=supplied(3, lead_time_days=1.0))
    until = later(datetime.combine(dates[-1].item(), datetime.min.time(), UTC), 1, frequency)
    assert_foresight_is_cheapest(replayed(shop, frequency, CONFIG, until, 1))


@pytest.mark.parametrize("n_weeks", [26 + 8, 20 + 8])
def test_too_little_history_for_the_opening_stock_is_told(bare: Engine, units: np.ndarray, n_weeks: int):
    sold = demanded(units[:, -n_weeks:], mondays()[-n_weeks:])
    told = f"the window starts after {n_weeks - 8} weeks and the opening stock needs 26 more before: simulate fewer"
    with pytest.raises(UserError, match=told):
        replayed(with_rows(bare, demand=sold, supply=supplied()), "week", CONFIG, UNTIL, 1)


def test_a_shop_without_terms_is_told(shop: Engine):
    with pytest.raises(UserError, match="supply has rows for 0 items"):
        replayed(shop.bind(supply=empty(contract.SUPPLY)), "week", CONFIG, UNTIL, 1)


def test_a_forecast_that_ends_before_the_next_arrival_is_told(shop: Engine):
    with pytest.raises(UserError, match="an order of item i0 must last 4 weeks, lead time and review"):
        replayed(with_rows(shop, supply=supplied(lead_time_days=21.0)), "week", CONFIG, UNTIL, 1)


def test_a_lead_time_of_part_of_a_period_lasts_to_its_end(shop: Engine):
    ten, fourteen = (
        replayed(with_rows(shop, supply=supplied(lead_time_days=days)), "week", CONFIG, UNTIL, 1)
        for days in (10.0, 14.0)
    )
    assert ten == fourteen


def test_a_lead_time_of_the_whole_window_leaves_no_periods_after_it(shop: Engine):
    config = CONFIG.model_copy(update={"horizon": 9})
    rows = replayed(with_rows(shop, supply=supplied(lead_time_days=56.0)), "week", config, UNTIL, 1)
    assert {row.segment for row in rows} == {"2023-09-11 all"}


def test_the_benchmark_does_not_depend_on_how_far_the_forecast_reaches(shop: Engine, outcomes: list[Outcome]):
    for horizon in (2, 6):
        replayed(shop, "week", CONFIG.model_copy(update={"horizon": horizon}), UNTIL, 1)
    of_benchmark = outcomes[WAYS.index(BENCHMARK) :: len(WAYS)]
    np.testing.assert_array_equal(of_benchmark[0].ordered, of_benchmark[1].ordered)


TOML = """
name = "mini"
tables.demand.path = "demand.csv"
tables.supply.path = "supply.csv"
"""


def ran(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["shopkeeper", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    written = capsys.readouterr()
    return int(ended.value.code or 0), written.out, written.err


def test_the_command_tells_every_way_and_refuses_other_tasks(
    units: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("SHOPKEEPER_HOME", str(tmp_path / "home"))
    sold = [f"{row['item_id']},{row['date']},{row['quantity']}" for row in demanded(units, mondays())]
    terms = [f"i{item},7,0.03,1" for item in range(N_ITEMS)]
    (tmp_path / "demand.csv").write_text("\n".join(["item_id,date,quantity", *sold]) + "\n")
    (tmp_path / "supply.csv").write_text(
        "\n".join(["item_id,lead_time_days,holding_cost,shortage_cost", *terms]) + "\n"
    )
    (tmp_path / "mini.toml").write_text(TOML)
    shop = str(tmp_path / "mini.toml")
    ingest(load_shop(shop))
    small = ["horizon=3", "min_periods=5", "trees.n_trees=5", "shape.n_trees=5"]
    fast = [word for each in small for word in ("--set", each)]
    status, out, _ = ran(monkeypatch, capsys, "evaluate", "demand", "--shop", shop, "--simulate", "--json", *fast)
    assert status == 0
    rows = json.loads(out.splitlines()[-1])["rows"]
    assert {row["model"] for row in rows} == set(WAYS)
    assert {row["segment"] for row in rows} == {"2023-09-11 all", "2023-09-11 after_lead_time"}
    status, _, err = ran(monkeypatch, capsys, "evaluate", "recommend", "--shop", shop, "--simulate")
    assert (status, err.count("\n")) == (2, 1)
    assert "--simulate replays orders by a demand forecast: evaluate demand instead of recommend" in err
