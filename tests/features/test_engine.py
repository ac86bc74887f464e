"""The engine composes relations and queries, and either backend reads tables and folders alike."""

import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from oracles import assert_same_rows

from features import contract
from features.engine import QUERIES, DuckDB, Engine, composition, empty, uncommented

NUMBERS = pa.table({"n": [1, 2, 3, 4]})


def values(engine: Engine, text: str, **parameters) -> list:
    (column,) = engine.select(text, **parameters).to_pydict().values()
    return sorted(column)


def test_a_relation_is_a_table(engine: Engine) -> None:
    assert values(engine.bind(numbers=NUMBERS), "select n from numbers where n > $least", least=2) == [3, 4]


def test_binding_again_replaces_and_leaves_the_first_as_it_was(engine: Engine) -> None:
    first = engine.bind(numbers=NUMBERS)
    second = first.bind(numbers=NUMBERS.slice(3))
    assert values(second, "select n from numbers") == [4]
    assert values(first, "select n from numbers") == [1, 2, 3, 4]


def test_narrowing_narrows_what_was_narrowed(engine: Engine) -> None:
    once = engine.bind(numbers=NUMBERS).narrow({"numbers": "select * from numbers where n > $bound"}, bound=1)
    twice = once.narrow({"numbers": "select * from numbers where n < $bound"}, bound=4)
    assert values(once, "select n from numbers") == [2, 3, 4]
    assert values(twice, "select n from numbers") == [2, 3]


def test_narrowing_a_relation_that_is_not_bound_is_told(engine: Engine) -> None:
    with pytest.raises(ValueError, match="no relation event: there are"):
        engine.narrow({"event": "select * from events where 1 = 0"})


def test_narrowing_may_read_queries(engine: Engine, events: pa.Table) -> None:
    text = "select events.* from events join known_events on events.event_id = known_events.event_id"
    shop = engine.bind(events=events).narrow({"events": text}, as_of=datetime(2024, 3, 1, tzinfo=UTC))
    latest = shop.select("select max(event_timestamp) as latest from events")["latest"][0].as_py()
    assert datetime(2024, 2, 1) < latest < datetime(2024, 3, 1)


def test_narrowing_sees_each_relation_as_it_was(engine: Engine) -> None:
    pair = engine.bind(left_one=NUMBERS, right_one=NUMBERS.slice(2))
    narrowed = pair.narrow(
        {
            "left_one": "select * from left_one where n in (select n from right_one)",
            "right_one": "select * from right_one where n = 4",
        }
    )
    assert values(narrowed, "select n from left_one") == [3, 4]
    assert values(narrowed, "select n from right_one") == [4]


def test_a_query_reads_the_narrowed_relation(engine: Engine, events: pa.Table) -> None:
    as_of = datetime(2024, 4, 1, tzinfo=UTC)
    shop = engine.bind(events=events).narrow({"events": "select * from events where user_id = 'u1'"})
    found = shop.query("known_events", as_of=as_of)
    assert set(found["person_id"].to_pylist()) == {"u1"}


def test_what_is_kept_is_not_asked_again(engine: Engine, events: pa.Table) -> None:
    as_of = datetime(2024, 4, 1, tzinfo=UTC)
    shop = engine.bind(events=events)
    kept = shop.keep("sessions", "order_totals", as_of=as_of)
    for name in ("sessions", "order_totals", "daily_kpis"):
        assert_same_rows(kept.query(name, as_of=as_of), shop.query(name, as_of=as_of))
    emptied = kept.narrow({"events": "select * from events where 1 = 0"})
    assert emptied.select("select transaction_id from order_totals").num_rows > 0
    assert emptied.query("known_events", as_of=as_of).num_rows == 0


def test_a_select_reads_queries_and_their_own_with(engine: Engine, events: pa.Table) -> None:
    text = "with mine as (select n_purchases from item_features) select cast(sum(n_purchases) as bigint) as n from mine"
    found = engine.bind(events=events).select(text, as_of=datetime(2024, 4, 1, tzinfo=UTC))
    assert found["n"].to_pylist()[0] > 0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (datetime(2024, 3, 1, 1, 30, tzinfo=UTC), datetime(2024, 3, 1, 1, 30)),
        (datetime.fromisoformat("2024-03-01T01:30:00.000005+02:00"), datetime(2024, 2, 29, 23, 30, 0, 5)),
    ],
)
def test_an_aware_instant_arrives_as_utc(engine: Engine, value: datetime, expected: datetime) -> None:
    found = engine.select("select cast($value as timestamp) as instant", value=value)
    assert found.schema.field("instant").type == pa.timestamp("us")
    assert found["instant"].to_pylist() == [expected]


@pytest.mark.parametrize("value", ["it's", 3, 0.1, date(2024, 2, 29)])
def test_a_parameter_arrives_as_it_is(engine: Engine, value: object) -> None:
    assert engine.select("select $value as v", value=value)["v"].to_pylist() == [value]


def test_types_come_back_as_the_contract_has_them(engine: Engine, events: pa.Table) -> None:
    bound = engine.bind(events=events)
    for table in contract.TABLES.values():
        assert bound.select(f"select * from {table.name}").schema.types == empty(table).schema.types
    assert_same_rows(bound.select("select * from events"), events)


def test_every_check_of_the_contract_is_read_by_both(engine: Engine) -> None:
    for table in contract.TABLES.values():
        predicates = [column.check for column in table.columns if column.check] + [check for check, _ in table.checks]
        flags = ", ".join(f"({predicate}) as check_{number}" for number, predicate in enumerate(predicates))
        found = engine.select(f"select {flags} from {table.name}")
        assert set(found.schema.types) == {pa.bool_()}


def test_a_folder_is_read_whole_whatever_its_files_lack(engine: Engine, tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"n": [2], "extra": ["x"]}), tmp_path / "b.parquet")
    found = engine.bind(numbers=tmp_path).select("select n, extra from numbers")
    assert_same_rows(found, pa.table({"n": [1, 2], "extra": [None, "x"]}))


def test_the_names_of_folders_become_typed_columns(engine: Engine, tmp_path: Path) -> None:
    for batch, day in ((1, "2017-01-01"), (10, "2017-01-02")):
        folder = tmp_path / f"batch={batch}" / f"day={day}"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"n": [batch]}), folder / "part.parquet")
    found = engine.bind(numbers=tmp_path).select("select n, cast(batch as bigint) as batch, day from numbers")
    days = pa.array([date(2017, 1, 1), date(2017, 1, 2)])
    assert_same_rows(found, pa.table({"n": [1, 10], "batch": [1, 10], "day": days}))


def test_an_instant_with_a_zone_comes_back_as_utc(engine: Engine) -> None:
    noon = datetime(2024, 3, 1, 12, tzinfo=UTC)
    zoned = pa.table({"instant": pa.array([noon], pa.timestamp("us", "UTC"))})
    found = engine.bind(zoned=zoned).select("select cast(instant as timestamp) as instant from zoned")
    assert_same_rows(found, pa.table({"instant": pa.array([datetime(2024, 3, 1, 12)], pa.timestamp("us"))}))


def test_spark_leaves_the_session_it_was_given_as_it_is(spark_shop: Engine) -> None:
    from features.spark import Spark

    given = spark_shop.backend.session
    given.conf.set("spark.sql.session.timeZone", "Europe/Berlin")
    try:
        spark = Engine(Spark(given)).bind(numbers=NUMBERS)
        assert values(spark, "select n from numbers") == [1, 2, 3, 4]
        assert given.conf.get("spark.sql.session.timeZone") == "Europe/Berlin"
    finally:
        given.conf.set("spark.sql.session.timeZone", "UTC")


def test_duckdb_spills_into_the_folder_named(tmp_path: Path) -> None:
    spill = tmp_path / "spill"
    engine = Engine(DuckDB("100MB", spill, threads=1))
    text = "select md5(cast(range as varchar)) as h, row_number() over (order by md5(cast(range as varchar))) as n"
    found = engine.select(f"select max(n) as n, count(h) as h from ({text} from range(1_000_000)) many")
    assert found.to_pylist() == [{"n": 1_000_000, "h": 1_000_000}]
    assert spill.exists()


def test_composition_puts_what_is_read_first() -> None:
    for name in QUERIES:
        ordered = [part for part, _ in composition(name)]
        assert ordered[-1] == name
        assert all(
            {part for part, _ in composition(other)} <= set(ordered[: ordered.index(other) + 1]) for other in ordered
        )


def test_comments_are_taken_out() -> None:
    assert uncommented("-- what\nselect 1 -- why\n") == "select 1"


def test_importing_the_engine_imports_no_spark() -> None:
    program = "import sys, features.engine, features.windows; print('pyspark' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
