"""What a propensity model predicts: of whom, which event, within how long; and the examples that teach it."""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Literal, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from features.contract import EVENT_NAMES
from features.engine import Engine

LOOKBACK_DAYS = 364
"""How far back the queries of customers read."""
ALL = sys.maxsize
RESPONSE = "response"
"""The event that a touch's own ``responded_at`` states."""

UnitName = Literal["user", "user_category", "touch", "session"]


class Target(BaseModel):
    """A question about the future, asked of every unit at a moment."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    unit: UnitName
    """Of whom: a customer, a customer in a category, a campaign's touch, or a running visit."""
    event: str = "purchase"
    """What happens: an event of the contract or, of touches, their own ``response``."""
    happens: bool = True
    """False asks that it does not happen, as churn does."""
    horizon_days: Annotated[int, Field(gt=0, le=LOOKBACK_DAYS)] = 28
    """Within how many days; a visit's horizon is its end."""
    eligible_days: Annotated[int, Field(gt=0, le=LOOKBACK_DAYS)] = LOOKBACK_DAYS
    """Asked of those who bought in the last so many days."""

    @model_validator(mode="after")
    def _known_event(self) -> "Target":
        allowed = {
            "user": EVENT_NAMES,
            "user_category": ("purchase",),
            "touch": (*EVENT_NAMES, RESPONSE),
            "session": ("purchase",),
        }[self.unit]
        if self.event not in allowed:
            raise ValueError(f"event {self.event!r} of unit {self.unit}: it is one of {', '.join(allowed)}")
        return self

    @property
    def horizon(self) -> timedelta:
        return timedelta(days=self.horizon_days)


@dataclass(frozen=True, slots=True)
class Examples:
    """Units at moments, what was known of them then, and what came of it.

    table : the unit's keys and features
    moment : datetime64[us], shape (n,)   when it was asked
    matured : datetime64[us], shape (n,)   from when on the outcome was certain
    outcome : bool, shape (n,)
    n_censored : moments whose outcome was not certain yet; they are not among the examples
    """

    table: pa.Table
    moment: NDArray[np.datetime64]
    matured: NDArray[np.datetime64]
    outcome: NDArray[np.bool_]
    n_censored: int = 0

    def __len__(self) -> int:
        return len(self.outcome)

    def take(self, chosen: NDArray[np.bool_]) -> "Examples":
        """Some of them; what was censored stays counted."""
        table = self.table.filter(pa.array(chosen))
        return Examples(table, self.moment[chosen], self.matured[chosen], self.outcome[chosen], self.n_censored)


class Unit(Protocol):
    """What units of a kind are known by.

    keys : columns that name a unit
    numbers, texts : name of each feature and the words that explain a value
    recency_frequency : the few features that a rule of thumb would look at
    """

    keys: tuple[str, ...]
    numbers: dict[str, str]
    texts: dict[str, str]
    recency_frequency: tuple[str, ...]

    def examples(
        self, log: Engine, target: Target, since: datetime, until: datetime, step: timedelta, most: int = ALL
    ) -> Examples:
        """Those asked within [since, until), from what was known when each was asked.

        step : time between two moments at which units that have no moment of their own are asked
        most : moments older than are needed for about so many examples are not asked at
        """

    def present(self, log: Engine, target: Target, as_of: datetime) -> pa.Table:
        """Those to be asked at an instant: keys, numbers and texts."""


def moments(since: datetime, last: datetime, step: timedelta) -> Iterator[datetime]:
    """Instants at equal steps, newest first, the last of them given.

    >>> day = timedelta(days=1)
    >>> [each.day for each in moments(datetime(2024, 1, 2), datetime(2024, 1, 8), 3 * day)]
    [8, 5, 2]
    """
    for number in range((last - since) // step + 1):
        yield last - number * step


def newest(parts: Iterable[Examples], most: int) -> list[Examples]:
    """The first parts that together have so many examples, the last first: parts come newest first."""
    found: list[Examples] = []
    for part in parts:
        found.insert(0, part)
        if sum(map(len, found)) >= most:
            break
    return found


def joined(parts: list[Examples], like: Callable[[], pa.Table]) -> Examples:
    """Examples one after the other; ``like`` gives a table with the columns that there are when there is no part."""
    if not parts:
        none = np.empty(0, "datetime64[us]")
        return Examples(like().slice(0, 0), none, none, np.empty(0, bool))
    return Examples(
        pa.concat_tables([part.table for part in parts]),
        np.concatenate([part.moment for part in parts]),
        np.concatenate([part.matured for part in parts]),
        np.concatenate([part.outcome for part in parts]),
        sum(part.n_censored for part in parts),
    )


def instant(moment: datetime) -> np.datetime64:
    """An aware datetime in UTC as numpy has it."""
    return np.datetime64(moment.replace(tzinfo=None), "us")
