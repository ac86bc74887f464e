"""Reads a source as it is: files or database rows become one relation of raw columns, nothing checked yet."""

import glob
import hashlib
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from features import contract
from features.errors import UserError
from features.shops import Shop, Source, Wide

CHUNK_ROWS = 100_000
REJECTS = "rejected_lines"

LINES = (".txt", ".json", ".jsonl")
"""Text without columns of its own: a source's query takes its lines apart."""

_WHOLE_LINES = (
    "header = false, auto_detect = false, delim = '\\x01', quote = '', escape = '', max_line_size = 100000000"
)


class Logged(Source):
    """The events that the service has taken in; its query ends at the newest, so that it says what it reads."""


def journal(home: Path, shop: str) -> Path:
    """Where the service keeps the events of a shop that it takes in: SQLite, the table ``events``."""
    return home / shop / "journal" / "events.sqlite"


def logged(home: Path, shop: str) -> list[Source]:
    """What the service has taken in, a source of ``events``; none while it has taken in nothing."""
    import sqlalchemy

    path = journal(home, shop)
    if not path.exists():
        return []
    try:
        with closing(sqlite3.connect(path)) as connection:
            newest = connection.execute("select max(number) from events").fetchone()[0]
    except sqlite3.Error as error:
        raise UserError(f"{path}, the events that the service took in, cannot be read: {error}") from error
    columns = ", ".join(f"json_extract(event, '$.{c.name}') as {identifier(c.name)}" for c in contract.EVENTS.columns)
    query = f"select {columns} from events where number <= {newest} order by number"
    url = sqlalchemy.URL.create("sqlite", database=str(path)).render_as_string()
    return [Logged(url=url, query=query)] if newest else []


def read(connection: duckdb.DuckDBPyConnection, shop: Shop, source: Source, scratch: Path) -> None:
    """Create the view ``source`` over what a source holds; a CSV's columns are text, other text has ``line``.

    Lines of a CSV that do not have its header's columns are found in the table ``rejected_lines`` once it was read.

    Raises UserError when the source is missing, empty, truncated or in another encoding.
    """
    relation = _database(source, scratch) if source.url else _files(shop, source)
    if source.query and not source.url:
        query = source.query.replace("$folder", str(Path(shop.locate(source.path)).parent))
        relation = f"(with source as (select * from {relation}) {query})"
    connection.execute(f"create or replace temp view source as select * from {relation}")
    if source.wide:
        connection.execute(f"create or replace temp view source as {_unpivoted(relation, source.wide)}")


def digest(shop: Shop, table_sources: list[Source]) -> str:
    """Identifies the files behind a table and how they are read; "" when that cannot be told from one list of files."""
    if any("$folder" in source.query for source in table_sources):
        return ""
    described = [repr(contract.TABLES), *(source.model_dump_json() for source in table_sources)]
    for source in table_sources:
        if isinstance(source, Logged):
            continue
        paths = _paths(shop, source) if source.path else []
        if not paths:
            return ""
        described += [f"{path} {(stat := Path(path).stat()).st_size} {stat.st_mtime_ns}" for path in paths]
    return hashlib.sha256("\n".join([*described, shop.timezone]).encode()).hexdigest()


def exported_at(shop: Shop, table_sources: list[Source]) -> datetime:
    """The instant whose state a table's sources hold: of files when the oldest was written, of databases now, UTC."""
    paths = [path for source in table_sources if source.path for path in _paths(shop, source)]
    return datetime.fromtimestamp(min((Path(path).stat().st_mtime for path in paths), default=time.time()), UTC)


def _paths(shop: Shop, source: Source) -> list[str]:
    return sorted(glob.glob(shop.locate(source.path), recursive=True))  # noqa: PTH207  absolute patterns


def _files(shop: Shop, source: Source) -> str:
    paths = _paths(shop, source)
    if not paths:
        raise UserError(f"no file {shop.locate(source.path)}: correct path in the shop's TOML")
    for path in paths:
        if not Path(path).stat().st_size:
            raise UserError(f"{path} is empty: export it again")
    listed = ", ".join(literal(path) for path in paths)
    if paths[0].endswith(".parquet"):
        return f"read_parquet([{listed}], union_by_name = true)"
    if paths[0].removesuffix(".gz").endswith(LINES):
        return f"read_csv([{listed}], columns = {{'line': 'VARCHAR'}}, {_WHOLE_LINES})"
    return (
        f"read_csv([{listed}], all_varchar = true, header = true, encoding = {literal(source.encoding)}, "
        f"store_rejects = true, rejects_table = '{REJECTS}')"
    )


def _unpivoted(relation: str, wide: Wide) -> str:
    identifiers = ", ".join(identifier(name) for name in wide.id)
    return (
        f"select * from (unpivot (select * from {relation}) "
        f"on columns(* exclude ({identifiers})) into name date value {identifier(wide.value)})"
    )


def _database(source: Source, scratch: Path) -> str:
    path = scratch / "database.parquet"
    writer: pq.ParquetWriter | None = None
    for chunk in _database_chunks(source):
        writer = writer or pq.ParquetWriter(path, chunk.schema)
        writer.write_table(chunk.cast(writer.schema))
    if writer is None:
        raise UserError(f"the query of {_without_password(source.url)} gave no rows: correct query in the shop's TOML")
    writer.close()
    return f"read_parquet('{path}')"


def _database_chunks(source: Source) -> Iterator[pa.Table]:
    import sqlalchemy

    try:
        database = sqlalchemy.create_engine(source.url)
        with database.connect().execution_options(stream_results=True) as connection:
            result = connection.execute(sqlalchemy.text(source.query))
            while rows := result.fetchmany(CHUNK_ROWS):
                yield _arrow(list(result.keys()), [tuple(row) for row in rows])
        database.dispose()
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        raise UserError(f"{_without_password(source.url)} cannot be read: {str(error).splitlines()[0]}") from error


def _arrow(names: list[str], rows: list[tuple[Any, ...]]) -> pa.Table:
    columns = [pa.array(values) for values in zip(*rows, strict=True)]
    texts = [column.cast(pa.string()) if pa.types.is_null(column.type) else column for column in columns]
    return pa.table(dict(zip(names, texts, strict=True)))


def _without_password(url: str) -> str:
    import sqlalchemy

    try:
        return str(sqlalchemy.make_url(url).render_as_string(hide_password=True))
    except sqlalchemy.exc.ArgumentError:
        return "the database"


def literal(value: str | float | bool) -> str:
    """A value as SQL writes it."""
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)


def identifier(name: str) -> str:
    """A column's name as SQL quotes it."""
    return '"' + name.replace('"', '""') + '"'
