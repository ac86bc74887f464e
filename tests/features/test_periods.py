"""Periods are numbered alike in Python and in SQL, and windows of months end with months."""

from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import periods
from features.engine import Engine
from features.periods import Span, first_day, later, number, period_start

FREQUENCIES = ("day", "week", "month")
INSTANT = datetime(2024, 3, 7, 13, 5, tzinfo=UTC)


@pytest.mark.parametrize(("frequency", "start"), [("day", (3, 7)), ("week", (3, 4)), ("month", (3, 1))])
def test_a_period_starts_at_midnight(frequency: str, start: tuple[int, int]) -> None:
    assert period_start(INSTANT, frequency) == datetime(2024, *start, tzinfo=UTC)


@given(st.dates(date(1990, 1, 1), date(2100, 1, 1)), st.sampled_from(FREQUENCIES), st.integers(-30, 30))
def test_a_day_lies_in_the_period_that_begins_last_before_it(day: date, frequency: str, n: int) -> None:
    this = int(number(day, frequency))
    assert first_day(this, frequency).item() <= day < first_day(this + 1, frequency).item()
    instant = datetime(day.year, day.month, day.day, 23, tzinfo=UTC)
    assert int(number(later(instant, n, frequency).date(), frequency)) == this + n


@pytest.mark.parametrize("frequency", FREQUENCIES)
def test_both_engines_number_as_python_does(engine: Engine, frequency: str) -> None:
    days = [date(2019, 12, 28) + timedelta(days=17 * n) for n in range(60)]
    text = f"select {periods.NUMBER.format(day='day')} as period from demand order by day"
    found = engine.bind(demand=pa.table({"day": days})).select(text, frequency=frequency)
    assert found["period"].to_pylist() == [int(number(day, frequency)) for day in days]


def test_a_span_of_months_keeps_to_months() -> None:
    assert Span(2, "month").after(INSTANT, -1) == datetime(2024, 1, 1, tzinfo=UTC)
