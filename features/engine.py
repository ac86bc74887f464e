"""Runs the feature queries of ``features/sql`` on DuckDB or on Spark.

A query is one SELECT in the subset of SQL that both engines read as it stands. It names its inputs as relations: tables
of the contract, or other queries. Whatever it reads is put before it as common table expressions, so a query sees just
the relations that its engine was given. Parameters are written ``$name``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import cache
from itertools import count
from pathlib import Path
from typing import Protocol

import duckdb
import pyarrow as pa

from features import contract

SQL_FOLDER = Path(__file__).with_name("sql")
QUERIES = tuple(sorted(path.stem for path in SQL_FOLDER.glob("*.sql")))

Parameter = str | int | float | date | datetime

_ARROW_TYPES = {
    "VARCHAR": pa.string(),
    "BIGINT": pa.int64(),
    "DOUBLE": pa.float64(),
    "TIMESTAMP": pa.timestamp("us"),
    "DATE": pa.date32(),
    "BOOLEAN": pa.bool_(),
}


def empty(table: contract.Table) -> pa.Table:
    """A table of the contract without rows, typed."""
    return pa.schema([(column.name, _ARROW_TYPES[column.type]) for column in table.columns]).empty_table()


class Backend(Protocol):
    """What is different between the engines: how data is reached and how a statement is run."""

    inline: str
    """Written behind ``as`` of a relation that must not be materialised."""

    def scan(self, source: pa.Table | Path) -> str:
        """A SELECT that reads an Arrow table, or every Parquet file below a folder."""

    def fetch(self, text: str, parameters: Mapping[str, Parameter]) -> pa.Table:
        """Run one statement."""


@dataclass(frozen=True, slots=True)
class Engine:
    """Relations by name, and the queries over them.

    >>> engine = Engine(DuckDB()).bind(items=pa.table({"item_id": ["a", "b"]}))
    >>> engine.narrow({"items": "select * from items where item_id > $low"}, low="a").select("from items").to_pydict()
    {'item_id': ['b']}
    """

    backend: Backend
    relations: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Parameter] = field(default_factory=dict)

    def bind(self, **sources: pa.Table | Path) -> "Engine":
        """The same engine with more relations: Arrow tables or folders of Parquet files."""
        return replace(self, relations={**self.relations, **{n: self.backend.scan(s) for n, s in sources.items()}})

    def narrow(self, selects: Mapping[str, str], **parameters: Parameter) -> "Engine":
        """The same engine with relations replaced by a SELECT over what they were; nothing else of them is reachable.

        A SELECT may read the other relations and the queries too. Raises ValueError for a relation that is not bound.
        """
        unknown = selects.keys() - self.relations.keys()
        if unknown:
            raise ValueError(f"no relation {', '.join(sorted(unknown))}: there are {', '.join(self.relations)}")
        fixed = {name: f"{name}_{next(_NUMBERS)}" for name in parameters}
        narrowed = {
            name: self._over_relations(
                _renamed(text, fixed), {n: _renamed(q, fixed) for n, q in _queries(text, self._kept).items()}
            )
            for name, text in selects.items()
        }
        return replace(
            self,
            relations={**self.relations, **narrowed},
            parameters={**self.parameters, **{fixed[name]: value for name, value in parameters.items()}},
        )

    def keep(self, *names: str, **parameters: Parameter) -> "Engine":
        """The same engine with queries answered once, in order, for others that read them.

        The answers hold for these parameters alone: ask nothing as of another instant afterwards.
        """
        kept = self
        for name in names:
            kept = kept.bind(**{name: kept.query(name, **parameters)})
        return kept

    def query(self, name: str, **parameters: Parameter) -> pa.Table:
        """The table that ``features/sql/NAME.sql`` gives over the relations bound."""
        if name in self._kept:
            return self.select(f"select * from {name}")
        ordered = dict(composition(name, self._kept))
        text = ordered.pop(name)
        return self._run(self._over_relations(text, ordered), parameters)

    def select(self, text: str, **parameters: Parameter) -> pa.Table:
        """The table that a SELECT gives over the relations and queries."""
        return self._run(self._over_relations(text, _queries(text, self._kept)), parameters)

    @property
    def _kept(self) -> frozenset[str]:
        return frozenset(self.relations) & frozenset(QUERIES)

    def _over_relations(self, text: str, queries: Mapping[str, str]) -> str:
        whole = "\n".join([*queries.values(), text])
        read = {name: self.relations[name] for name in _reads(whole, tuple(self.relations))}
        heads = [f"{name} as {self.backend.inline} (\n{body}\n)" for name, body in read.items()]
        heads += [f"{name} as (\n{body}\n)" for name, body in queries.items()]
        return _with(heads, text)

    def _run(self, text: str, parameters: Mapping[str, Parameter]) -> pa.Table:
        known = {**self.parameters, **parameters}
        return self.backend.fetch(text, {name: known[name] for name in _placeholders(text)})


_NUMBERS = count()


@cache
def composition(name: str, kept: frozenset[str] = frozenset()) -> tuple[tuple[str, str], ...]:
    """The queries that a query reads, in the order in which they must stand, itself last, as (name, text).

    kept : queries that need not be composed, their answers being there
    """
    text = uncommented((SQL_FOLDER / f"{name}.sql").read_text())
    return (*_queries(text, kept).items(), (name, text))


def _queries(text: str, kept: frozenset[str]) -> dict[str, str]:
    """Every query that a SELECT reads and that is not kept, in the order in which they must stand."""
    ordered: dict[str, str] = {}
    for name in _reads(text, tuple(name for name in QUERIES if name not in kept)):
        ordered.update(composition(name, kept))
    return ordered


def uncommented(text: str) -> str:
    return re.sub(r"--[^\n]*", "", text).strip()


def _reads(text: str, names: tuple[str, ...]) -> list[str]:
    found = set(re.findall(r"\b(?:from|join)\s+(\w+)", text))
    return [name for name in names if name in found]


def _renamed(text: str, fixed: Mapping[str, str]) -> str:
    return re.sub(r"\$(\w+)", lambda match: f"${fixed[match[1]]}", text)


def _placeholders(text: str) -> set[str]:
    return set(re.findall(r"\$(\w+)", text))


def _with(heads: list[str], text: str) -> str:
    if not heads:
        return text
    own = re.match(r"with\s+", text)
    joined = ",\n".join(heads)
    return f"with {joined},\n{text[own.end() :]}" if own else f"with {joined}\n{text}"


class DuckDB:
    """The embedded engine: an in-memory database whose larger-than-memory work spills to a folder.

    memory_limit : what DuckDB may hold, for instance "4GB".
    spill : folder for what does not fit, made when needed; absent: DuckDB's own choice.
    threads : 0 means all cores.
    """

    inline = "not materialized"
    _MACROS = (
        "create macro unix_date(day) as date_diff('day', date '1970-01-01', day)",
        "create macro explode(items) as unnest(items)",
        "create macro sequence(first, last, step := 1) as generate_series(first, last, step)",
        "create macro unix_micros(instant) as epoch_us(instant)",
    )

    def __init__(self, memory_limit: str = "4GB", spill: Path | None = None, threads: int = 0) -> None:
        settings = {"memory_limit": memory_limit, "timezone": "UTC", "preserve_insertion_order": "false"}
        settings |= {"threads": str(threads)} if threads else {}
        settings |= {"temp_directory": str(spill)} if spill else {}
        self.connection = duckdb.connect()
        for name, value in settings.items():
            self.connection.execute(f"set {name} = '{value}'")
        for macro in self._MACROS:
            self.connection.execute(macro)
        self._numbers = count()

    def scan(self, source: pa.Table | Path) -> str:
        if isinstance(source, Path):
            return (
                f"select * from read_parquet('{source}/**/*.parquet', union_by_name = true, hive_partitioning = true)"
            )
        name = f"scan_{next(self._numbers)}"
        self.connection.register(name, source)
        return f"select * from {name}"

    def fetch(self, text: str, parameters: Mapping[str, Parameter]) -> pa.Table:
        return self.connection.sql(text, params=dict(parameters)).to_arrow_table()


def duckdb_engine(memory_limit: str = "4GB", spill: Path | None = None, threads: int = 0) -> Engine:
    """A DuckDB engine on which every table of the contract is bound, empty."""
    return with_contract(Engine(DuckDB(memory_limit, spill, threads)))


def with_contract(engine: Engine) -> Engine:
    """Bind every table of the contract without rows, so that a shop that lacks one is a shop where it is empty."""
    return engine.bind(**{table.name: empty(table) for table in contract.TABLES.values()})
