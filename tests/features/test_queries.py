"""Every file in features/sql binds, parses in both dialects, equals its oracle, and gives the same on both engines."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlglot
from oracles import ORACLES, answer, assert_same_rows, expected

from features import contract
from features.customers import customer_features
from features.engine import QUERIES, SQL_FOLDER, Engine, empty
from features.panels import PanelSettings, panel
from features.seeded.tables import write
from features.windows import time_window

CUTOFFS = [datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 4, 10, 13, 30, tzinfo=UTC)]
JULY_2017 = datetime(2017, 7, 1, tzinfo=UTC)
WITHOUT_ROWS_IN_SOME_SHOPS = ("touch_responses", "device_owners")
"""Not every shop has touches by then, or devices."""
TYPES = {field.type for table in contract.TABLES.values() for field in empty(table).schema}


@pytest.fixture(scope="session")
def demand() -> pa.Table:
    """Three weeks and two days of aggregated sales, one series at a place without a name."""
    rows = [
        {"item_id": item, "location_id": place, "date": datetime(2024, 2, day).date(), "quantity": float(day % 5)}
        for item, place in (("i0", "north"), ("i1", "north"), ("i2", None))
        for day in range(5, 28)
    ]
    return pa.Table.from_pylist(rows, schema=empty(contract.DEMAND).schema)


@pytest.fixture(scope="session")
def tiny(events: pa.Table, items: pa.Table, campaign_touches: pa.Table, stock: pa.Table) -> dict[str, pa.Table]:
    return {"events": events, "items": items, "campaign_touches": campaign_touches, "stock": stock}


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pa.Table]:
    folder = tmp_path_factory.mktemp("seeded")
    write(folder, n_events=2_000, seed=1)
    return {
        "events": whole(contract.EVENTS, folder / "events"),
        "items": whole(contract.ITEMS, folder / "items.parquet"),
        "offers": whole(contract.OFFERS, folder / "offers.parquet"),
        "stock": whole(contract.STOCK, folder / "stock.parquet"),
    }


@pytest.fixture(scope="session", params=["tiny", "seeded", "complete_journey"])
def shop_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def cutoff(shop_name: str) -> datetime:
    return {"tiny": CUTOFFS[1], "seeded": datetime(2023, 2, 5, tzinfo=UTC), "complete_journey": JULY_2017}[shop_name]


@pytest.fixture(scope="session")
def both_engines(
    request: pytest.FixtureRequest, shop_name: str, duckdb_shop: Engine, spark_shop: Engine
) -> tuple[Engine, Engine]:
    tables = request.getfixturevalue(shop_name)
    return duckdb_shop.bind(**tables), spark_shop.bind(**tables)


def whole(table: contract.Table, path: Path) -> pa.Table:
    """The rows below a path, with the columns that the seeded shop does without."""
    found = pa.concat_tables([empty(table), pq.read_table(path)], promote_options="permissive")
    return found.select(empty(table).column_names)


def test_every_query_has_an_oracle() -> None:
    assert set(ORACLES) == set(QUERIES)


@pytest.mark.parametrize("name", QUERIES)
@pytest.mark.parametrize("dialect", ["duckdb", "spark"])
def test_it_is_one_select_in_both_dialects(name: str, dialect: str) -> None:
    text = (SQL_FOLDER / f"{name}.sql").read_text()
    (statement,) = sqlglot.parse(text.replace("$", ":") if dialect == "spark" else text, dialect=dialect)
    assert isinstance(statement, sqlglot.exp.Select)


@pytest.mark.parametrize("name", QUERIES)
def test_it_binds_against_the_contract(duckdb_shop: Engine, name: str) -> None:
    found = answer(duckdb_shop, name, CUTOFFS[0])
    assert found.num_rows == (name == "kpis")
    assert set(found.schema.types) <= TYPES


@pytest.mark.parametrize("as_of", CUTOFFS, ids=str)
@pytest.mark.parametrize("name", QUERIES)
def test_it_equals_its_oracle(duckdb_shop: Engine, tiny: dict[str, pa.Table], name: str, as_of: datetime) -> None:
    assert_equals_oracle(duckdb_shop, {**tiny, "demand": empty(contract.DEMAND)}, name, as_of)


@pytest.mark.parametrize("as_of", CUTOFFS, ids=str)
def test_touches_that_say_themselves_when_they_were_answered(
    duckdb_shop: Engine, tiny: dict[str, pa.Table], as_of: datetime
) -> None:
    stated = duckdb_shop.bind(**tiny).query("touch_responses", event="response", horizon_days=21, as_of=as_of)
    shop = {name: table.to_pylist() for name, table in tiny.items()}
    rows = ORACLES["touch_responses"](shop, as_of=as_of.replace(tzinfo=None), event="response", horizon_days=21)
    assert 0 < stated["responded_at"].null_count < stated.num_rows
    assert_same_rows(
        stated, pa.Table.from_pylist([{n: row[n] for n in stated.schema.names} for row in rows], schema=stated.schema)
    )


def test_period_demand_prefers_the_demand_table(
    duckdb_shop: Engine, events: pa.Table, items: pa.Table, demand: pa.Table
) -> None:
    tables = {"events": events, "items": items, "demand": demand}
    assert_equals_oracle(duckdb_shop, tables, "period_demand", CUTOFFS[0])


@pytest.mark.parametrize("ids", [("a", "b"), ("b", "a")])
def test_of_two_events_at_one_instant_the_greater_id_is_the_later(engine: Engine, ids: tuple[str, str]) -> None:
    at = {"event_name": "view_item", "event_timestamp": datetime(2024, 2, 1), "user_pseudo_id": "d", "item_id": "i"}
    rows = [{**at, "event_id": name, "user_id": name, "medium": name, "price": float(ord(name))} for name in ids]
    guest = {**at, "event_id": "c", "session_id": "s", "item_id": "j"}
    visit = [{**row, "user_id": "u", "session_id": "s"} for row in rows]
    devices = engine.bind(events=pa.Table.from_pylist([*rows, guest], schema=empty(contract.EVENTS).schema))
    visited = engine.bind(events=pa.Table.from_pylist(visit, schema=empty(contract.EVENTS).schema))
    persons = devices.select("select person_id from known_events where event_id = 'c'", as_of=CUTOFFS[0])
    assert persons["person_id"].to_pylist() == ["b"]
    assert visited.query("sessions", as_of=CUTOFFS[0])["medium"].to_pylist() == ["b"]
    assert visited.query("item_features", as_of=CUTOFFS[0])["last_price"].to_pylist() == [float(ord("b"))]


def assert_equals_oracle(engine: Engine, tables: dict[str, pa.Table], name: str, as_of: datetime) -> None:
    found = answer(engine.bind(**tables), name, as_of)
    assert found.num_rows > 0
    assert_same_rows(found, expected(name, tables, as_of, found.schema))


@pytest.mark.parametrize("name", QUERIES)
def test_both_engines_agree(both_engines: tuple[Engine, Engine], cutoff: datetime, name: str) -> None:
    found, other = (answer(engine, name, cutoff) for engine in both_engines)
    assert found.num_rows > 0 or name in WITHOUT_ROWS_IN_SOME_SHOPS
    assert_same_rows(found, other)


def test_both_engines_give_the_same_customers(both_engines: tuple[Engine, Engine], cutoff: datetime) -> None:
    found, other = (customer_features(engine, cutoff) for engine in both_engines)
    assert_same_rows(found, other)
    assert found["person_id"].equals(other["person_id"])


def test_both_engines_give_the_same_panel(both_engines: tuple[Engine, Engine], cutoff: datetime) -> None:
    windows = [time_window(engine, cutoff, cutoff + timedelta(days=28)) for engine in both_engines]
    found, other = (panel(window.past, cutoff, PanelSettings("week", 4, 2), window.known_future) for window in windows)
    assert (found.item_ids, found.location_ids) == (other.item_ids, other.location_ids)
    np.testing.assert_allclose(found.sold, other.sold, rtol=1e-9)
    np.testing.assert_allclose(found.exposure, other.exposure, rtol=1e-9)
    np.testing.assert_allclose(found.revenue, other.revenue, rtol=1e-9, atol=1e-9)
    assert found.offers.keys() == other.offers.keys()
    for name, values in found.offers.items():
        np.testing.assert_allclose(values, other.offers[name], rtol=1e-9)


def test_no_step_within_a_query_is_named_like_a_query() -> None:
    """A name after ``from`` is a query wherever there is one of that name."""
    steps = {step for path in SQL_FOLDER.glob("*.sql") for step in re.findall(r"(\w+) as \(\n", path.read_text())}
    assert len(steps) > 20
    assert not steps & set(QUERIES)
