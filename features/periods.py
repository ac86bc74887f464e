"""Days, weeks and months, numbered: what demand is counted in.

Days and weeks are numbered from Monday 1969-12-29, months from January 1970.
"""

from datetime import UTC, date, datetime
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Frequency = Literal["day", "week", "month"]

DAYS: dict[Frequency, float] = {"day": 1.0, "week": 7.0, "month": 365.25 / 12}
"""How long a period is, of months the mean."""
SEASON: dict[Frequency, int] = {"day": 7, "week": 52, "month": 12}
"""Periods after which sales are expected to repeat themselves."""
YEAR: dict[Frequency, int] = {"day": 364, "week": 52, "month": 12}
"""Periods of a year, of days those that keep the weekday."""

NUMBER = """
    cast(case $frequency
        when 'month' then 12 * (year({day}) - 1970) + month({day}) - 1
        when 'week' then floor((unix_date({day}) + 3) / 7)
        else unix_date({day}) + 3
    end as bigint)
"""
"""SQL for the number of the period in which a day lies, as ``number`` counts."""

_MONDAY = np.datetime64("1969-12-29")


def number(day: date | NDArray[np.datetime64], frequency: Frequency) -> NDArray[np.int64]:
    """The number of the period in which a day lies.

    >>> int(number(date(1970, 1, 4), "week")), int(number(date(1971, 3, 1), "month"))
    (0, 14)
    """
    days = np.asarray(day, "datetime64[D]")
    if frequency == "month":
        return days.astype("datetime64[M]").astype(np.int64)
    return (days - _MONDAY).astype(np.int64) // int(DAYS[frequency])


def first_day(numbers: NDArray[np.int64] | int, frequency: Frequency) -> NDArray[np.datetime64]:
    """The first day, datetime64[D], of each period.

    >>> str(first_day(1, "week")), str(first_day(14, "month"))
    ('1970-01-05', '1971-03-01')
    """
    if frequency == "month":
        return np.asarray(numbers, np.int64).astype("datetime64[M]").astype("datetime64[D]")
    return np.asarray(_MONDAY + int(DAYS[frequency]) * np.asarray(numbers, np.int64))


def period_start(instant: datetime, frequency: Frequency) -> datetime:
    """Midnight of the first day of the period in which an instant lies (UTC)."""
    return later(instant, 0, frequency)


def later(instant: datetime, n: int, frequency: Frequency) -> datetime:
    """Midnight (UTC) of the first day of the period that comes ``n`` periods after an instant's, before it if negative.

    >>> later(datetime(2024, 1, 31, 9, tzinfo=UTC), 1, "month").date()
    datetime.date(2024, 2, 1)
    """
    first = first_day(number(instant.date(), frequency) + n, frequency)
    return datetime.fromisoformat(str(first)).replace(tzinfo=UTC)


class Span(NamedTuple):
    """So many periods of one frequency.

    >>> str(Span(2, "month")), str(Span(1, "week"))
    ('2 months', '1 week')
    """

    n: int
    frequency: Frequency

    def __str__(self) -> str:
        return f"{self.n} {self.frequency}{'' if self.n == 1 else 's'}"

    def after(self, instant: datetime, times: int = 1) -> datetime:
        """The start of the period that comes so many spans after an instant's, before it if negative."""
        return later(instant, times * self.n, self.frequency)
