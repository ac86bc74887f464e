"""Brings a shop's sources into its lake: every row is accepted, quarantined with the reason, or counted as known.

Each table goes through three steps: the source's rows are typed and checked into a staged file; rows already known are
set apart; what is new becomes one batch. Nothing is visible before it is whole, and the same source again adds nothing.
"""

import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import duckdb
import orjson

from features import contract, sources
from features.engine import DuckDB
from features.errors import UserError
from features.home import home
from features.lake import MEMORY_LIMIT, Lake, key_text
from features.mapping import typed_and_checked
from features.shops import Shop, Source
from features.windows import FIRST_INSTANT

COUNTED = ("event_name", "availability")
DISTINCT = ("user_id", "user_pseudo_id", "session_id", "item_id", "transaction_id", "location_id")


@dataclass(frozen=True, slots=True)
class TableReport:
    """What became of a table's rows: read = accepted + duplicate + quarantined.

    values : rows read per value of the columns with a closed list; distinct : different ids among the rows read;
    first, last : time range of the rows accepted so far; source : digest of where the rows came from, "" when unknown;
    exported_at : the instant whose state the rows are.
    """

    table: str
    read: int
    accepted: int
    duplicate: int
    quarantined: dict[str, int]
    values: dict[str, dict[str, int]]
    distinct: dict[str, int]
    first: str
    last: str
    source: str = ""
    exported_at: str = ""


def ingest(shop: Shop, announce: Callable[[str], None] = lambda _: None) -> list[TableReport]:
    """Read every table of the shop's configuration into its lake and store the report.

    announce : called with each table's name before it is read.

    Raises UserError in one sentence when a source cannot be read or lacks a required column.
    """
    lake = Lake(shop)
    reports = []
    with _alone(lake):
        earlier = last_reports(lake)
        for name, table_sources in _sources(shop).items():
            announce(name)
            digest = sources.digest(shop, table_sources)
            unchanged = digest and name in earlier and earlier[name].source == digest and lake.batches(name)
            report = _again(earlier[name]) if unchanged else _ingest_table(lake, contract.TABLES[name], table_sources)
            exported_at = sources.exported_at(shop, table_sources).isoformat()
            reports.append(replace(report, source=digest, exported_at=exported_at))
        _store(lake, reports)
    return reports


def _sources(shop: Shop) -> dict[str, list[Source]]:
    """The sources of every table, of events what the service has taken in too."""
    taken_in = sources.logged(home(), shop.name) if shop.live else []
    return {**shop.tables, "events": [*shop.tables.get("events", []), *taken_in]} if taken_in else shop.tables


@contextmanager
def _alone(lake: Lake) -> Iterator[None]:
    """Hold the lake's lock; a process that dies lets go of it."""
    lake.folder.mkdir(parents=True, exist_ok=True)
    with (lake.folder / "ingest.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another ingest into {lake.folder} is running: wait until it has ended") from error
        yield


def last_reports(lake: Lake) -> dict[str, TableReport]:
    """What the last ingest made of each table."""
    stored = sorted(lake.reports.glob("ingest_*.json"))
    tables = orjson.loads(stored[-1].read_bytes()) if stored else []
    return {table["table"]: TableReport(**table) for table in tables}


def items_as_of(lake: Lake) -> datetime:
    """When the shop exported the items of the lake, UTC; the beginning of time when it never did."""
    report = last_reports(lake).get("items")
    return datetime.fromisoformat(report.exported_at) if report and report.exported_at else FIRST_INSTANT


def _again(report: TableReport) -> TableReport:
    """What reading the same files once more would give: every good row is known."""
    return replace(report, accepted=0, duplicate=report.duplicate + report.accepted)


def _ingest_table(lake: Lake, table: contract.Table, table_sources: list[Source]) -> TableReport:
    shutil.rmtree(lake.staging, ignore_errors=True)
    lake.staging.mkdir(parents=True)
    connection = _connection(lake)
    try:
        for number, source in enumerate(table_sources):
            _stage(connection, lake, table, source, number)
        connection.execute(f"create view staged as select * from {_staged(lake)}")
        report = _settle(connection, lake, table)
    except duckdb.Error as error:
        raise UserError(f"table {table.name}: {_first_sentence(error)}") from error
    finally:
        connection.close()
        shutil.rmtree(lake.staging, ignore_errors=True)
    return report


def _connection(lake: Lake) -> duckdb.DuckDBPyConnection:
    connection = DuckDB(MEMORY_LIMIT, lake.folder / "spill").connection
    connection.execute("set preserve_insertion_order = true")
    connection.execute(f"set timezone = '{lake.shop.timezone}'")
    return connection


def _staged(lake: Lake) -> str:
    return f"read_parquet('{lake.staging}/staged_*.parquet', union_by_name = true)"


def _first_sentence(error: duckdb.Error) -> str:
    return " ".join(str(error).splitlines()[:2])


def _stage(
    connection: duckdb.DuckDBPyConnection, lake: Lake, table: contract.Table, source: Source, number: int
) -> None:
    connection.execute(f"drop table if exists {sources.REJECTS}")
    sources.read(connection, lake.shop, source, lake.staging)
    theirs = [row[0] for row in connection.execute("describe source").fetchall()]
    select = typed_and_checked(table, source, theirs, number)
    connection.execute(f"copy ({select}) to '{lake.staging}/staged_{number}.parquet'")
    if _rejected_lines(connection):
        connection.execute(f"copy ({_REJECTED}) to '{lake.staging}/staged_{number}_lines.parquet'")


_REJECTED = f"""
    select
        min(csv_line) as "_row",
        'line does not fit the header: ' || lower(min(error_type::varchar)) as "_reason",
        cast(line as bigint) as "_number"
    from {sources.REJECTS}
    group by file_id, line
"""


def _rejected_lines(connection: duckdb.DuckDBPyConnection) -> bool:
    tables = connection.execute("select count(*) from duckdb_tables() where table_name = ?", [sources.REJECTS])
    return bool(tables.fetchall()[0][0]) and bool(
        connection.execute(f"select count(*) from {sources.REJECTS}").fetchall()[0][0]
    )


def _settle(connection: duckdb.DuckDBPyConnection, lake: Lake, table: contract.Table) -> TableReport:
    columns = [row[0] for row in connection.execute("describe staged").fetchall() if not row[0].startswith("_")]
    connection.execute("create view accepted as select * from staged where _reason is null")
    connection.execute(f"create view known as {_known(lake, table, columns)}")
    fresh = _fresh(connection, table, columns)
    accepted = connection.execute(f"select count(*) from ({fresh})").fetchall()[0][0]
    if accepted and not _same_snapshot(connection, lake, table, fresh, columns):
        _write_batch(connection, lake, table, fresh)
    elif table.kind == "snapshot":
        accepted = 0
    _write_quarantine(connection, lake, table)
    return _report(connection, lake, table, accepted)


def _known(lake: Lake, table: contract.Table, columns: list[str]) -> str:
    """What the lake holds of a table, as key and content hashes; snapshots are replaced whole, so nothing counts."""
    if table.kind == "snapshot" or not lake.batches(table.name):
        return "select cast(null as ubigint) as key_hash, cast(null as ubigint) as content_hash where false"
    files = f"read_parquet('{lake.tables / table.name}/**/*.parquet', union_by_name = true, hive_partitioning = true)"
    if table.kind == "append":
        return f"select {_key_hash(table)} as key_hash, cast(0 as ubigint) as content_hash from {files}"
    held = {row[0] for row in duckdb.sql(f"describe select * from {files}").fetchall()}
    content = ", ".join(sources.identifier(name) if name in held else "null" for name in columns)
    return f"""
        select {_key_hash(table)} as key_hash, hash({content}) as content_hash from {files}
        qualify row_number() over (partition by {_key_hash(table)} order by lake_batch desc) = 1
    """


def _key_hash(table: contract.Table) -> str:
    return f"hash({', '.join(key_text(column) for column in table.key)})"


def _fresh(connection: duckdb.DuckDBPyConnection, table: contract.Table, columns: list[str]) -> str:
    """A SELECT of the rows to write: of each key the first (append) or last row, unless the lake has it.

    Keys that occur once and are not in the lake, nearly all, take no window: only the rest is sorted.
    """
    content = "cast(0 as ubigint)" if table.kind == "append" else f"hash({', '.join(_names(columns))})"
    connection.execute(f"""
        create temp table repeated as
        select key_hash from (
            select {_key_hash(table)} as key_hash from accepted union all select key_hash from known
        ) group by key_hash having count(*) > 1
    """)
    selected = ", ".join(_names(columns))
    order = "_number" if table.kind == "append" else "_number desc"
    return f"""
        select {selected} from accepted where {_key_hash(table)} not in (select key_hash from repeated)
        union all
        select {selected} from (
            select * from accepted where {_key_hash(table)} in (select key_hash from repeated)
            qualify row_number() over (partition by {", ".join(_names(table.key))} order by {order}) = 1
        ) last_of_key
        where ({_key_hash(table)}, {content}) not in (select (key_hash, content_hash) from known)
    """


def _names(columns: list[str] | tuple[str, ...]) -> list[str]:
    return [sources.identifier(name) for name in columns]


def _same_snapshot(
    connection: duckdb.DuckDBPyConnection, lake: Lake, table: contract.Table, fresh: str, columns: list[str]
) -> bool:
    batches = lake.batches(table.name)
    if table.kind != "snapshot" or not batches:
        return False
    held = f"select * from read_parquet('{batches[-1]}/*.parquet', hive_partitioning = false)"
    held_columns = [row[0] for row in connection.execute(f"describe {held}").fetchall()]
    if sorted(held_columns) != sorted(columns):
        return False
    digest = f"select count(*), sum(hash({', '.join(_names(columns))}))"
    return bool(
        connection.execute(f"{digest} from ({fresh})").fetchall()
        == connection.execute(f"{digest} from ({held})").fetchall()
    )


def _write_batch(connection: duckdb.DuckDBPyConnection, lake: Lake, table: contract.Table, fresh: str) -> None:
    staged_batch = lake.staging / "batch"
    if table.day:
        days = f"select *, cast({table.day} as date) as lake_day from ({fresh}) rows_to_write order by {table.day}"
        connection.execute(f"copy ({days}) to '{staged_batch}' (format parquet, partition_by (lake_day))")
    else:
        staged_batch.mkdir()
        connection.execute(f"copy ({fresh}) to '{staged_batch}/rows.parquet' (format parquet)")
    batch = lake.next_batch(table.name)
    batch.parent.mkdir(parents=True, exist_ok=True)
    staged_batch.rename(batch)


def _write_quarantine(connection: duckdb.DuckDBPyConnection, lake: Lake, table: contract.Table) -> None:
    rejected = 'select _reason as reason, _row as "row" from staged where _reason is not null'
    path = lake.quarantine / f"{table.name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    earlier = f"union select * from read_parquet('{path}')" if path.exists() else ""
    connection.execute(f"copy (select distinct * from ({rejected} {earlier})) to '{lake.staging}/quarantine.parquet'")
    (lake.staging / "quarantine.parquet").rename(path)


def _report(connection: duckdb.DuckDBPyConnection, lake: Lake, table: contract.Table, accepted: int) -> TableReport:
    columns = [row[0] for row in connection.execute("describe staged").fetchall()]
    read = connection.execute("select count(*) from staged").fetchall()[0][0]
    reasons = _counts(connection, "_reason", "where _reason is not null")
    return TableReport(
        table=table.name,
        read=read,
        accepted=accepted,
        duplicate=read - accepted - sum(reasons.values()),
        quarantined=reasons,
        values={name: _counts(connection, name) for name in COUNTED if name in columns},
        distinct=_distinct(connection, [name for name in DISTINCT if name in columns]),
        **_range(connection, lake, table),
    )


def _counts(connection: duckdb.DuckDBPyConnection, column: str, where: str = "") -> dict[str, int]:
    counted = f"select {column}, count(*) from staged {where} group by 1 having {column} is not null order by 2 desc, 1"
    return dict(connection.execute(counted).fetchall())


def _distinct(connection: duckdb.DuckDBPyConnection, columns: list[str]) -> dict[str, int]:
    if not columns:
        return {}
    counted = ", ".join(f'count(distinct "{name}")' for name in columns)
    found = connection.execute(f"select {counted} from staged").fetchall()[0]
    return {name: count for name, count in zip(columns, found, strict=True) if count}


def _range(connection: duckdb.DuckDBPyConnection, lake: Lake, table: contract.Table) -> dict[str, str]:
    time = table.day or next((column.name for column in table.columns if column.name in ("date", "sent_at")), "")
    if not time or not lake.batches(table.name):
        return {"first": "", "last": ""}
    files = f"read_parquet('{lake.tables / table.name}/**/*.parquet', union_by_name = true)"
    first, last = connection.execute(f"select min({time})::varchar, max({time})::varchar from {files}").fetchall()[0]
    return {"first": first, "last": last}


def _store(lake: Lake, reports: list[TableReport]) -> None:
    lake.reports.mkdir(parents=True, exist_ok=True)
    number = len(list(lake.reports.glob("ingest_*.json"))) + 1
    path: Path = lake.reports / f"ingest_{number:04d}.json"
    path.write_bytes(orjson.dumps(reports, option=orjson.OPT_INDENT_2))
