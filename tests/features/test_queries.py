"""Every file in features/sql binds, parses in both dialects, equals its oracle, and gives the same on both engines."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlglot
from oracles import ORACLES, assert_same_rows, expected, parameters

from features import contract
from features.seeded.tables import write
from features.engine import QUERIES, SQL_FOLDER, Engine, empty

CUTOFFS = [datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 4, 10, 13, 30, tzinfo=UTC)]
JULY_2017 = datetime(2017, 7, 1, tzinfo=UTC)
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
def seeded_shop(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pa.Table]:
    folder = tmp_path_factory.mktemp("seeded")
    write(folder, n_events=2_000, seed=1)
    return {table.name: whole(table, folder) for table in (contract.EVENTS, contract.ITEMS)}


def whole(table: contract.Table, folder: Path) -> pa.Table:
    """A folder's table with the columns that the seeded shop does without."""
    found = pq.read_table(folder / table.name)
    return pa.concat_tables([empty(table), found], promote_options="permissive").select(empty(table).column_names)


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
    found = duckdb_shop.query(name, **parameters(CUTOFFS[0]))
    assert found.num_rows == (name == "kpis")
    assert set(found.schema.types) <= TYPES


@pytest.mark.parametrize("as_of", CUTOFFS, ids=str)
@pytest.mark.parametrize("name", QUERIES)
def test_it_equals_its_oracle(
    duckdb_shop: Engine, events: pa.Table, items: pa.Table, name: str, as_of: datetime
) -> None:
    tables = {"events": events, "items": items, "demand": empty(contract.DEMAND)}
    assert_equals_oracle(duckdb_shop, tables, name, as_of)


def test_period_demand_prefers_the_demand_table(
    duckdb_shop: Engine, events: pa.Table, items: pa.Table, demand: pa.Table
) -> None:
    tables = {"events": events, "items": items, "demand": demand}
    assert_equals_oracle(duckdb_shop, tables, "period_demand", CUTOFFS[0])


def assert_equals_oracle(engine: Engine, tables: dict[str, pa.Table], name: str, as_of: datetime) -> None:
    found = engine.bind(**tables).query(name, **parameters(as_of))
    assert found.num_rows > 0
    assert_same_rows(found, expected(name, tables, as_of, found.schema))


@pytest.mark.parametrize("name", QUERIES)
def test_both_engines_agree_on_the_tiny_shop(
    duckdb_shop: Engine, spark_shop: Engine, events: pa.Table, items: pa.Table, name: str
) -> None:
    assert_engines_agree(duckdb_shop, spark_shop, {"events": events, "items": items}, name, CUTOFFS[1])


@pytest.mark.parametrize("name", QUERIES)
def test_both_engines_agree_on_the_seeded_shop(
    duckdb_shop: Engine, spark_shop: Engine, seeded_shop: dict[str, pa.Table], name: str
) -> None:
    as_of = datetime(2023, 3, 1, tzinfo=UTC)
    assert_engines_agree(duckdb_shop, spark_shop, seeded_shop, name, as_of)


@pytest.mark.parametrize("name", QUERIES)
def test_both_engines_agree_on_a_month_of_complete_journey(
    duckdb_shop: Engine, spark_shop: Engine, complete_journey: dict[str, pa.Table], name: str
) -> None:
    assert_engines_agree(duckdb_shop, spark_shop, complete_journey, name, JULY_2017)


def assert_engines_agree(left: Engine, right: Engine, tables: dict, name: str, as_of: datetime) -> None:
    found = left.bind(**tables).query(name, **parameters(as_of))
    assert found.num_rows > 0
    assert_same_rows(found, right.bind(**tables).query(name, **parameters(as_of)))
