"""How series are ordered and where they stand: the terms of supply, the stock on hand and what is on order."""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Paths = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Supply:
    """How each series is ordered and what stock costs; arrays of shape (N,), float64, in periods of the forecast.

    lead_time : periods, >= 0, from the order to its arrival; a fraction arrives on some paths a period later
    lead_time_std : periods, >= 0
    review : whole periods between two orders, >= 1
    pack_size : units, >= 0; 0 is divisible
    min_order_quantity : units, >= 0; an order is at least this or nothing
    holding_cost : money per unit left at the end of a period, >= 0; NaN where a service level is wanted instead
    shortage_cost : money per unit lost, >= 0; NaN likewise
    service_level : wanted share of demand that is served from stock (fill rate), 0 to 1; NaN: the cheapest order
    Raises ValueError naming the first series with a value that is missing or outside its range.
    """

    lead_time: Floats
    lead_time_std: Floats
    review: Floats
    pack_size: Floats
    min_order_quantity: Floats
    holding_cost: Floats
    shortage_cost: Floats
    service_level: Floats

    def __post_init__(self) -> None:
        for name in ("lead_time", "lead_time_std", "pack_size", "min_order_quantity"):
            refuse(~(getattr(self, name) >= 0), getattr(self, name), name, "zero or more")
        refuse(~((self.review >= 1) & (self.review % 1 == 0)), self.review, "review", "a whole number of 1 or more")
        by_cost = np.isnan(self.service_level)
        refuse(~by_cost & ~_within(self.service_level, 0, 1), self.service_level, "service_level", "within 0 to 1")
        for name in ("holding_cost", "shortage_cost"):
            cost = getattr(self, name)
            refuse(cost < 0, cost, name, "zero or more")
            refuse(by_cost & np.isnan(cost), cost, name, "zero or more where no service_level is set")

    @classmethod
    def from_days(
        cls,
        period_days: float,
        lead_time_days: ArrayLike,
        *,
        lead_time_std_days: ArrayLike = np.nan,
        review_days: ArrayLike = np.nan,
        pack_size: ArrayLike = np.nan,
        min_order_quantity: ArrayLike = np.nan,
        holding_cost: ArrayLike = np.nan,
        shortage_cost: ArrayLike = np.nan,
        service_level: ArrayLike = np.nan,
    ) -> Self:
        """The columns of the ``supply`` table, NaN where missing, each of shape (N,) or one number for all series.

        period_days : days in a period of the forecast
        holding_cost : money per unit and day
        Missing means: a certain lead time, a review every period, packs of one, no minimum. Review is rounded to whole
        periods. A lead time of zero arrives before the first step's demand; a missing one is refused.

        >>> Supply.from_days(7, [14.0], review_days=10, holding_cost=0.1, shortage_cost=1.0).lead_time
        array([2.])
        """
        lead_time = np.atleast_1d(np.asarray(lead_time_days, np.float64)) / period_days

        def column(values: ArrayLike, missing: float = np.nan) -> Floats:
            given = np.broadcast_to(np.asarray(values, np.float64), lead_time.shape)
            return np.where(np.isnan(given), missing, given)

        return cls(
            lead_time=lead_time,
            lead_time_std=column(lead_time_std_days, 0.0) / period_days,
            review=np.maximum(1.0, np.rint(column(review_days, period_days) / period_days)),
            pack_size=column(pack_size, 1.0),
            min_order_quantity=column(min_order_quantity, 0.0),
            holding_cost=column(holding_cost) * period_days,
            shortage_cost=column(shortage_cost),
            service_level=column(service_level),
        )

    def rows(self, chosen: Ints) -> "Supply":
        """The supply of some series."""
        return Supply(*(getattr(self, field.name)[chosen] for field in fields(self)))


@dataclass(frozen=True, slots=True)
class Position:
    """What is there and what is coming.

    on_hand : float64, shape (N,), units; below zero is owed to customers and served from the first arrivals
    arrivals : float64, shape (N, T), units on order that arrive at the start of each step, >= 0
    Raises ValueError naming the first series with a value that is missing or outside its range.
    """

    on_hand: Floats
    arrivals: Floats

    def __post_init__(self) -> None:
        refuse(~np.isfinite(self.on_hand), self.on_hand, "on_hand", "finite")
        worst = self.arrivals.min(axis=1, initial=0.0)
        refuse(~(worst >= 0), worst, "arrivals", "zero or more")

    def rows(self, chosen: Ints) -> "Position":
        """The position of some series."""
        return Position(self.on_hand[chosen], self.arrivals[chosen])

    def settled(self) -> "tuple[Position, Floats]":
        """What is left once arrivals have served what is owed, and the units, shape (N,), that they leave owed.

        >>> Position(np.array([-5.0]), np.array([[3.0, 4.0]])).settled()
        (Position(on_hand=array([0.]), arrivals=array([[0., 2.]])), array([0.]))
        """
        owed = np.maximum(-self.on_hand, 0)
        coming = self.arrivals.cumsum(axis=1)
        left = np.maximum(coming - owed[:, None], 0)
        still_owed = np.maximum(owed - coming.max(axis=1, initial=0.0), 0)
        return Position(np.maximum(self.on_hand, 0), np.diff(left, axis=1, prepend=0.0)), still_owed


def refuse(wrong: Bools, values: Floats, name: str, allowed: str) -> None:
    """Raise ValueError about the first wrong value."""
    if wrong.any():
        first = int(wrong.argmax())
        value = values[first]
        got = "missing" if np.isnan(value) else f"{value:g}"
        raise ValueError(f"{name} of series {first} is {got}, it must be {allowed}: correct it or leave the series out")


def _within(values: Floats, low: float, high: float) -> Bools:
    inside: Bools = (values >= low) & (values <= high)
    return inside
