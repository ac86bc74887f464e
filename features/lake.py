"""The lake: a shop's checked tables as Parquet, appended batch by batch.

``lake/TABLE/lake_batch=N/...`` holds one batch; events are partitioned below it by ``lake_day``. A batch is written
under ``staging`` and renamed into place, so readers see all of it or nothing.
"""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

from features import contract
from features.engine import DuckDB, Engine, with_contract
from features.errors import UserError
from features.home import home
from features.periods import later, period_start
from features.shops import Shop
from features.windows import FIRST_INSTANT

MEMORY_LIMIT = "3GB"
PARTITIONS = ("lake_batch", "lake_day")


class Lake:
    """The tables of one shop under ``$SHOPKEEPER_HOME``."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.folder = home() / shop.name
        self.tables = self.folder / "lake"
        self.staging = self.folder / "staging"
        self.quarantine = self.folder / "quarantine"
        self.reports = self.folder / "reports"

    def batches(self, table: str) -> list[Path]:
        """The batches of a table, oldest first."""
        return sorted((self.tables / table).glob("lake_batch=*"), key=_number)

    def next_batch(self, table: str) -> Path:
        last = self.batches(table)[-1:]
        return self.tables / table / f"lake_batch={_number(last[0]) + 1 if last else 1}"

    def engine(self) -> Engine:
        """A DuckDB engine over the tables as they are now."""
        return self.bind(Engine(DuckDB(MEMORY_LIMIT, self.folder / "spill")))

    def bind(self, engine: Engine) -> Engine:
        """The lake's tables on any engine: of snapshots the last batch, of keyed tables the latest row of each key."""
        engine = with_contract(engine)
        for table in contract.TABLES.values():
            batches = self.batches(table.name)
            if batches:
                folder = batches[-1] if table.kind == "snapshot" else self.tables / table.name
                engine = engine.bind(**{table.name: folder})
                if table.kind == "keyed" and len(batches) > 1:
                    engine = engine.narrow({table.name: _latest(table)})
        return engine

    def end(self) -> datetime:
        """The first instant not yet known: the period in which the log ends is unfinished and left out.

        Raises UserError when the lake holds neither events nor demand.
        """
        engine = self.engine()
        last_event = engine.select("select max(event_timestamp) as last from events")["last"][0].as_py()
        if last_event is not None:
            return period_start(last_event.replace(tzinfo=UTC), self.shop.demand_frequency)
        last_date = engine.select("select max(date) as last from demand")["last"][0].as_py()
        if last_date is None:
            raise UserError(f"shop {self.shop.name} has no data yet: run `shopkeeper ingest --shop {self.shop.name}`")
        last_period = datetime(last_date.year, last_date.month, last_date.day, tzinfo=UTC)
        return later(last_period, 1, self.shop.demand_frequency)

    def after_last_event(self) -> datetime:
        """The first instant at which every event is known; midnight of 1970 when there is none."""
        last = self.engine().select("select max(event_timestamp) as last from events")["last"][0].as_py()
        return FIRST_INSTANT if last is None else last.replace(tzinfo=UTC) + timedelta(microseconds=1)

    def fingerprint(self) -> str:
        """Identifies the content: sha256 over the batches' names and file sizes."""
        files = sorted(path for path in self.tables.rglob("*.parquet"))
        listed = "\n".join(f"{path.relative_to(self.tables)} {path.stat().st_size}" for path in files)
        return hashlib.sha256(listed.encode()).hexdigest()[:16]


def _number(batch: Path) -> int:
    return int(batch.name.removeprefix("lake_batch="))


def key_text(column: str) -> str:
    """A key column in which absent values are equal to one another."""
    return f"""coalesce(cast("{column}" as string), '')"""


def _latest(table: contract.Table) -> str:
    keys = ", ".join(key_text(column).replace('"', "") for column in table.key)
    return (
        f"select * from (select *, row_number() over (partition by {keys} order by lake_batch desc) as recency "
        f"from {table.name}) ranked where recency = 1"
    )
