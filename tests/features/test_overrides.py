"""Overrides are a history that only grows: as of an instant the latest word counts, and later words change nothing."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from features import overrides

NOON = datetime(2024, 4, 1, 12, tzinfo=UTC)
MONDAYS = [date(2024, 4, 8), date(2024, 4, 15)]

Word = tuple[int, str, str | None, date, float | None]
"""Minutes after ``NOON``, item, location, period, units."""


def batch(*words: Word) -> pa.Table:
    rows = [
        {
            "item_id": item_id,
            "location_id": location_id,
            "date": day,
            "quantity": quantity,
            "made_at": NOON + timedelta(minutes=minutes),
            "made_by": "anna",
            "reason": f"said at {minutes}",
            "model_mean": 1.0,
            "model_version": "1",
        }
        for minutes, item_id, location_id, day, quantity in words
    ]
    return pa.Table.from_pylist(rows, schema=overrides.SCHEMA)


def stands(folder: Path, minutes: int) -> dict[tuple[str, str | None, date], float]:
    rows = overrides.standing(folder, NOON + timedelta(minutes=minutes)).to_pylist()
    found = {(row["item_id"], row["location_id"], row["date"]): row["quantity"] for row in rows}
    assert len(found) == len(rows)
    return found


words = st.tuples(
    st.integers(0, 9),
    st.sampled_from("ab"),
    st.sampled_from([None, "north"]),
    st.sampled_from(MONDAYS),
    st.none() | st.integers(0, 50).map(float),
)


@settings(max_examples=60)
@given(st.lists(words, max_size=12, unique_by=lambda word: word[:4]), st.integers(0, 10))
def test_the_latest_word_before_an_instant_counts_and_no_later_one(history: list[Word], minutes: int):
    with TemporaryDirectory() as name:
        folder = Path(name) / "overrides"
        for word in history:
            overrides.append(folder, batch(word))
        expected: dict[tuple[str, str | None, date], float | None] = {}
        for word in sorted(history, key=lambda word: word[0]):
            if word[0] < minutes:
                expected[word[1:4]] = word[4]
        assert stands(folder, minutes) == {key: units for key, units in expected.items() if units is not None}


def test_a_word_said_at_the_instant_itself_comes_too_late(tmp_path: Path):
    overrides.append(tmp_path, batch((5, "a", None, MONDAYS[0], 3.0)))
    assert stands(tmp_path, 5) == {}
    assert stands(tmp_path, 6) == {("a", None, MONDAYS[0]): 3.0}


def test_what_was_appended_is_never_touched_again(tmp_path: Path):
    overrides.append(tmp_path, batch((0, "a", None, MONDAYS[0], 3.0)))
    (first,) = tmp_path.iterdir()
    before = first.read_bytes()
    overrides.append(tmp_path, batch((1, "a", None, MONDAYS[0], None)))
    overrides.append(tmp_path, batch((1, "a", None, MONDAYS[1], 4.0)))
    assert first.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 3


def test_a_batch_that_is_still_being_written_is_not_read(tmp_path: Path):
    overrides.append(tmp_path, batch((0, "a", None, MONDAYS[0], 3.0)))
    (tmp_path / ".half.parquet").write_bytes(b"PAR1")
    assert stands(tmp_path, 1) == {("a", None, MONDAYS[0]): 3.0}


def test_a_shop_without_overrides_has_none(tmp_path: Path):
    assert overrides.standing(tmp_path / "nowhere", NOON).equals(overrides.NONE)


def test_overrides_stand_at_their_series_and_period(tmp_path: Path):
    plans = batch((0, "a", "north", MONDAYS[1], 3.0), (0, "b", None, MONDAYS[0], 0.0), (0, "a", None, MONDAYS[0], 9.0))
    keys = [("b", ""), ("a", "south"), ("a", "north")]
    rows = overrides.rows_of(plans, keys, np.array(MONDAYS, "datetime64[D]"))
    assert rows.tolist() == [[1, -1], [-1, -1], [-1, 0]]
    np.testing.assert_array_equal(overrides.units_of(plans, rows), [[0, np.nan], [np.nan, np.nan], [np.nan, 3]])


@given(
    hnp.arrays(np.float32, (3, 5), elements=st.floats(0, 1e4, width=32)),
    hnp.arrays(np.float64, 3, elements=st.floats(0, 1e6)),
)
def test_samples_get_the_planned_mean_and_keep_their_order(units: np.ndarray, planned: np.ndarray):
    moved = overrides.scaled(units, planned)
    np.testing.assert_allclose(moved.mean(axis=1, dtype=np.float64), planned, rtol=1e-5, atol=1e-30)
    assert (moved >= 0).all()
    for before, after in zip(units, moved, strict=True):
        assert (np.diff(after[np.argsort(before, kind="stable")]) >= 0).all()


@pytest.mark.parametrize("planned", [0.0, 7.5])
def test_where_nothing_is_expected_the_plan_is_certain(planned: float):
    assert overrides.scaled(np.zeros((1, 4), np.float32), np.array([planned])).tolist() == [[planned] * 4]
