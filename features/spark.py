"""The distributed engine: the same queries on Apache Spark 4.

Only this module imports pyspark, which the extra ``spark`` installs together with the need for Java 17.
"""

import re
from collections.abc import Mapping
from itertools import count
from pathlib import Path

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from features.engine import Engine, Parameter, with_contract

_LOCAL = {
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.memory": "2g",
    "spark.log.level": "ERROR",
    "spark.sql.shuffle.partitions": "2",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}
_AS_DUCKDB = {
    "spark.sql.ansi.doubleQuotedIdentifiers": "true",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.timestampType": "TIMESTAMP_NTZ",
}


class Spark:
    """Apache Spark as the backend of an engine.

    session : where it runs. Views and settings live in a session of their own beside it, so it stays as it is.
    """

    inline = ""

    def __init__(self, session: SparkSession) -> None:
        self.session = session.newSession()
        for name, value in _AS_DUCKDB.items():
            self.session.conf.set(name, value)
        self._numbers = count()

    def scan(self, source: pa.Table | Path) -> str:
        name = f"scan_{next(self._numbers)}"
        self._read(source).createTempView(name)
        return f"select * from {name}"

    def fetch(self, text: str, parameters: Mapping[str, Parameter]) -> pa.Table:
        named = re.sub(r"\$(\w+)", r":\1", text)
        return _without_zones(self.session.sql(named, args=dict(parameters)).toArrow())

    def _read(self, source: pa.Table | Path) -> DataFrame:
        if isinstance(source, Path):
            return self.session.read.parquet(str(source), mergeSchema=True)
        return self.session.createDataFrame(source)


def spark_engine(session: SparkSession | None = None) -> Engine:
    """A Spark engine on which every table of the contract is bound, empty.

    session : a cluster's session; absent: two local cores.
    """
    return with_contract(Engine(Spark(session or local_session())))


def local_session() -> SparkSession:
    """A session on two cores of this machine that listens on the loopback address alone."""
    builder = SparkSession.builder.master("local[2]").appName("shopkeeper")
    return builder.config(map=_LOCAL).getOrCreate()


def _without_zones(table: pa.Table) -> pa.Table:
    """Instants as the contract types them: microseconds of UTC that carry no zone."""
    fields = [
        field.with_type(pa.timestamp("us")) if pa.types.is_timestamp(field.type) else field for field in table.schema
    ]
    return table.cast(pa.schema(fields))
