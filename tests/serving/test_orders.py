"""The service answers from the latest order list, and from a new one as soon as it is there."""

import csv
import io
import os
from datetime import date
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import Client

from serving import app, orders, plan_schema
from serving.models import Models, Serving
from serving.settings import Settings

LINES = [("a", "north", 5.0), ("b", None, 0.0), ("a", "south", 0.0), ("c", "north", 2.0)]
EVERYTHING = {"item_ids": [], "location_id": None, "only_orders": False, "offset": 0, "limit": 1000}
NUMBERS = ("order_quantity", "order_up_to", "reorder_point", "safety_stock", "on_hand", "on_order")
SCHEMA = pa.schema(
    {
        **dict.fromkeys(("item_id", "location_id"), pa.string()),
        **dict.fromkeys((*NUMBERS, "expected_cost", "money_at_risk"), pa.float64()),
        "reason": pa.string(),
        "as_of": pa.date32(),
        "model_version": pa.string(),
    }
)
FIRST, SECOND = date(2024, 4, 8), date(2024, 4, 15)


def listed(lines: list[tuple[str, str | None, float]], as_of: date, version: str = "7") -> pa.Table:
    rows = [
        {
            "item_id": item_id,
            "location_id": location_id,
            **dict.fromkeys(NUMBERS, 1.5),
            "order_quantity": quantity,
            "expected_cost": None,
            "money_at_risk": 2.5,
            "reason": f"{quantity:g}, because",
            "as_of": as_of,
            "model_version": version,
        }
        for item_id, location_id, quantity in lines
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def keep(home: Path, table: pa.Table, as_of: date, modified_ns: int = 0) -> None:
    path = orders.file_of(home, "mini", as_of)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    os.utime(path, ns=(modified_ns, modified_ns))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHOPKEEPER_HOME", str(tmp_path))
    keep(tmp_path, listed(LINES, FIRST), FIRST)
    return tmp_path


def get(query: str = "", **headers: str) -> httpx.Response:
    return Client(app.build(Serving(Models("mini")), Settings())).get(f"/v1/orders{query}", headers=headers)


def test_the_answer_is_as_documented(home: Path):
    answer = get()
    plan_schema.Orders.model_validate_json(answer.content)
    found = answer.json()
    assert (found["as_of"], found["model_version"], found["total"]) == ("2024-04-08", "7", 4)
    assert [(row["item_id"], row["location_id"], row["order_quantity"]) for row in found["orders"]] == LINES
    assert found["orders"][0]["expected_cost"] is None
    assert set(found["orders"][0]) == set(plan_schema.Order.model_fields)


@pytest.mark.parametrize(
    ("query", "lines"),
    [
        ("?item_id=a", [0, 2]),
        ("?item_id=c&item_id=a", [0, 2, 3]),
        ("?location_id=north", [0, 3]),
        ("?only_orders=true", [0, 3]),
        ("?only_orders=false&item_id=b", [1]),
        ("?item_id=a&location_id=south&only_orders=true", []),
        ("?offset=1&limit=2", [1, 2]),
    ],
)
def test_a_query_chooses_lines_and_keeps_their_order(home: Path, query: str, lines: list[int]):
    found = get(query).json()["orders"]
    assert [(row["item_id"], row["location_id"], row["order_quantity"]) for row in found] == [LINES[n] for n in lines]


def test_strangers_are_named(home: Path):
    assert get("?item_id=z&item_id=a&item_id=z").json()["unknown_item_ids"] == ["z"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limit=st.integers(1, 5), only_orders=st.booleans(), location_id=st.sampled_from([None, "north", "x"]))
def test_pages_together_are_the_whole(home: Path, limit: int, only_orders: bool, location_id: str | None):
    asked = {**EVERYTHING, "only_orders": only_orders, "location_id": location_id}
    whole = orders.answer(home, "mini", asked)
    starts = range(0, whole["total"], limit)
    pages = [orders.answer(home, "mini", {**asked, "offset": start, "limit": limit})["orders"] for start in starts]
    assert [row for page in pages for row in page] == whole["orders"]
    assert len(whole["orders"]) == whole["total"]


def test_csv_holds_what_json_holds(home: Path):
    answer = get(accept="text/csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    told = [answer.headers[name] for name in ("x-total", "x-as-of", "x-model-version")]
    assert told == ["4", "2024-04-08", "7"]
    expected = [
        {name: "" if value is None else str(value) for name, value in row.items()} for row in get().json()["orders"]
    ]
    assert list(csv.DictReader(io.StringIO(answer.text))) == expected


def test_an_empty_page_of_csv_has_a_header(home: Path):
    assert get("?offset=9", accept="text/csv").text.strip() == ",".join(plan_schema.Order.model_fields)


def test_a_list_made_again_and_a_later_one_are_answered_at_once(home: Path):
    assert get().json()["total"] == 4
    keep(home, listed(LINES[:1], FIRST, "8"), FIRST, modified_ns=1)
    assert [get().json()[name] for name in ("total", "model_version")] == [1, "8"]
    keep(home, listed(LINES[:2], SECOND), SECOND)
    assert [get().json()[name] for name in ("total", "as_of")] == [2, "2024-04-15"]


def test_a_list_of_an_earlier_morning_or_a_half_written_one_changes_nothing(home: Path):
    keep(home, listed(LINES[:1], date(2020, 1, 6)), date(2020, 1, 6), modified_ns=9)
    (home / "mini" / "orders" / ".2024-04-15.parquet").write_bytes(b"PAR1")
    assert get().json()["as_of"] == "2024-04-08"


def test_before_the_first_list_the_answer_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SHOPKEEPER_HOME", str(tmp_path))
    answer = get()
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert "run `shopkeeper reorder --shop mini --out orders.csv`" in answer.json()["detail"]


@pytest.mark.parametrize("query", ["only_orders=yes", "only_orders=1", "only_orders=true&only_orders=true", "limit=0"])
def test_a_refused_query_says_where(home: Path, query: str):
    answer = get(f"?{query}")
    assert answer.status_code == 422
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [f"/{query.partition('=')[0]}"]
