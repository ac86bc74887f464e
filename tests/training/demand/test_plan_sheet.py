"""A planner's sheet is taken whole or not at all, and the first wrong line is told with what is allowed there."""

from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.errors import UserError
from training.demand.forecasts import Forecast
from training.demand.plan_sheet import Change, batch, read

DATES = ["2023-06-05", "2023-06-12"]
KEYS = [("a", "north"), ("a", "south"), ("b", "")]
FORECAST = Forecast(
    KEYS, np.array(DATES, "datetime64[D]"), "week", [0.5], np.arange(12, dtype=np.float32).reshape(3, 2, 2)
)
HEAD = "item_id,location_id,date,quantity"
GOOD = "a,north,2023-06-05,3"


def sheet(folder: Path, *lines: str) -> Path:
    path = folder / "plan.csv"
    path.write_text("\n".join(lines))
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    st.dictionaries(st.tuples(st.integers(0, 2), st.integers(0, 1)), st.none() | st.floats(0, 1e9), min_size=1).flatmap(
        lambda cells: st.permutations(list(cells.items()))
    )
)
def test_what_is_written_is_read_in_any_order(tmp_path: Path, cells: list):
    rows = [
        f"{KEYS[series][0]}, {KEYS[series][1]},{DATES[step]},{'' if units is None else units}"
        for (series, step), units in cells
    ]
    assert read(sheet(tmp_path, HEAD, *rows), FORECAST) == [Change(*cell, units) for cell, units in cells]


def test_other_columns_blank_lines_and_a_byte_order_mark_do_no_harm(tmp_path: Path):
    path = sheet(tmp_path, "\ufeffdate,note,quantity,item_id", "", '2023-06-12,"one, two",1.5,b', "")
    assert read(path, FORECAST) == [Change(2, 1, 1.5)]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("c,north,2023-06-05,1", "item c at north is not forecast: items are a, b"),
        ("a,east,2023-06-05,1", "item a at east is not forecast: it is at location_id north, south"),
        ("a,,2023-06-05,1", "item a is not forecast: it is at location_id north, south"),
        ("b,north,2023-06-05,1", "item b at north is not forecast: location_id must be empty, its locations are"),
        ("b,,2023-06-06,1", "date 2023-06-06 is not the first day of a period .* take 2023-06-05, 2023-06-12"),
        ("b,,5.6.2023,1", "date 5.6.2023 is not the first day"),
        ("b,,,1", r"date \(empty\) is not the first day"),
        (",,2023-06-05,1", r"item \(empty\) is not forecast"),
        ("b,,2023-06-05,-1", "quantity -1 is not allowed: write units from 0 to .*, or nothing to withdraw"),
        ("b,,2023-06-05,nan", "quantity nan is not allowed"),
        ("b,,2023-06-05,inf", "quantity inf is not allowed"),
        ("b,,2023-06-05,many", "quantity many is not allowed"),
        ("b,,2023-06-05,1,200", "5 fields stand under 4 columns: quote a field that holds a comma"),
        ("b,,2023-06-05", "3 fields stand under 4 columns"),
        ("a,north,2023-06-05,4", "item a at north on 2023-06-05 stands in line 2 already: keep one of them"),
    ],
)
def test_a_wrong_line_is_told_with_its_number_and_what_is_allowed(tmp_path: Path, line: str, told: str):
    with pytest.raises(UserError, match=f"line 3: ({told})") as refused:
        read(sheet(tmp_path, HEAD, GOOD, line), FORECAST)
    assert str(refused.value).endswith("; nothing was appended")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "begins with nothing: its first line must name the columns item_id, date, quantity"),
        (b"item_id;date;quantity\n", "begins with item_id;date;quantity: .* with commas between them"),
        (b"item_id,date,quantity,quantity\n", "once each"),
        (b"item_id,date,quantity\n", "plans nothing: give a line per item and period"),
        (b"item_id,date,quantity\n\xff,2023-06-05,1\n", "is no CSV in UTF-8"),
    ],
)
def test_a_sheet_that_is_none_is_told(tmp_path: Path, text: bytes, told: str):
    path = tmp_path / "plan.csv"
    path.write_bytes(text)
    with pytest.raises(UserError, match=told):
        read(path, FORECAST)


def test_a_batch_keeps_who_when_why_and_what_the_model_said():
    at = datetime(2023, 6, 1, 9, tzinfo=UTC)
    rows = batch([Change(0, 1, 5.0), Change(2, 0, None)], FORECAST, at, "anna", "fair", "7").to_pylist()
    said = {"made_at": at, "made_by": "anna", "reason": "fair", "model_version": "7"}
    assert rows == [
        {"item_id": "a", "location_id": "north", "date": date(2023, 6, 12), "quantity": 5.0, "model_mean": 2.0, **said},
        {"item_id": "b", "location_id": None, "date": date(2023, 6, 5), "quantity": None, "model_mean": 8.0, **said},
    ]
