"""What planners ask of the service and get: forecasts, what other offers would do to them, orders."""

import re
from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from serving.schema import MOST, Answer, Id, Request, integral

FARTHEST = 999_999_999
CHANGEABLE = ("price", "display", "mailer")


def _spelled(value: Any) -> Any:  # noqa: ANN401
    """The number that a query parameter spells; everything else stays as it is, and is then refused."""
    return int(value) if isinstance(value, str) and re.fullmatch("-?[0-9]{1,9}", value) else value


def _told(value: Any) -> Any:  # noqa: ANN401
    """What a query parameter tells by true or false; everything else stays as it is, and is then refused."""
    return value == "true" if value in ("true", "false") else value


def _dated(value: Any) -> Any:  # noqa: ANN401
    """A date comes as a text; a number is refused, also as a text."""
    if not (isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value)):
        raise ValueError("write it as in 2026-01-31")
    return value


Day = Annotated[date, Field(strict=False), BeforeValidator(_dated)]


class ForecastQuery(Request):
    """Which forecasts, and which page of them."""

    item_id: Annotated[list[Id], Field(max_length=100)] = []
    """Items, repeatable; absent: all."""
    location_id: Id | None = None
    """Store or warehouse; absent: all."""
    horizon: Annotated[int, Field(ge=1, le=365), BeforeValidator(_spelled)] | None = None
    """Periods ahead; absent: all that the model forecasts."""
    offset: Annotated[int, Field(ge=0, le=FARTHEST), BeforeValidator(_spelled)] = 0
    """Rows to skip."""
    limit: Annotated[int, Field(ge=1, le=1000), BeforeValidator(_spelled)] = 100
    """Rows in the answer at most."""
    explain: Annotated[bool, BeforeValidator(_told)] = False
    """Whether each row comes with the factors that lead from the series' level to its mean."""


class Forecast(BaseModel):
    """Demand of one item, location and period: its mean, and its quantiles as ``q0.05`` to ``q0.95``, in units."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)
    __pydantic_extra__: dict[str, float]

    item_id: str
    location_id: str | None
    date: date
    """First day of the period."""
    tier: Literal["trees", "sparse"]
    """What tells it: its own past by trees, or, where that is too little, what its like sold when it was new too."""
    mean: float
    """Expected units."""
    level: float | None = None
    """Units per period of late; only when ``explain`` was asked for."""
    effects: dict[str, float] = {}
    """Factors by what they come from; the level times all of them is the mean. Only when ``explain`` was asked for."""


class Forecasts(Answer):
    """One page of forecasts."""

    cutoff: date
    """First day not known to the forecasts."""
    total: int
    """Rows over all pages."""
    unknown_item_ids: list[str]
    """Items asked for that have no forecast."""
    forecasts: list[Forecast]
    model_version: str


_GIVEN: list[Any] = [
    *({"required": [name], "properties": {name: {"type": "number"}}} for name in CHANGEABLE),
    {"required": ["covariates"], "properties": {"covariates": {"minProperties": 1}}},
]


class Change(Request):
    """What an item shall be offered at; at least one of price, display, mailer and covariates must be given."""

    model_config = ConfigDict(json_schema_extra={"anyOf": _GIVEN})

    item_id: Id
    location_id: Id | None = None
    """Store or warehouse; absent: every one."""
    date: Day | None = None
    """First day of a period; absent: every period of the horizon."""
    price: Annotated[float, Field(gt=0, le=MOST)] | None = None
    """Price of one unit."""
    display: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the period on display."""
    mailer: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the period in a mailer."""
    covariates: Annotated[dict[Id, Annotated[float, Field(ge=-MOST, le=MOST)]], Field(max_length=100)] = {}
    """Other columns of the offers that the model reads."""

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if not self.covariates and all(getattr(self, name) is None for name in CHANGEABLE):
            raise ValueError(f"the change changes nothing: give {', '.join(CHANGEABLE)} or covariates")
        return self


class WhatIfRequest(Request):
    """Changes of what is planned."""

    changes: Annotated[list[Change], Field(min_length=1, max_length=1000)]
    """Of two for the same item, location and date the later one counts."""
    horizon: Annotated[int, Field(ge=1, le=365), BeforeValidator(integral)] | None = None
    """Periods ahead; absent: all that the model forecasts."""


class Units(BaseModel):
    """Expected units, and the quantiles as ``q0.05`` to ``q0.95``."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float]

    mean: float


class ChangedForecast(Answer):
    """Demand of one item, location and period as planned and with the changes."""

    item_id: str
    location_id: str | None
    date: date
    """First day of the period."""
    tier: Literal["trees"]
    """What tells it; of what sold too little nobody knows what offers do."""
    before: Units
    after: Units
    effect: float | None
    """The mean after the changes over that before; null where that is 0."""


class WhatIf(Answer):
    """What the changes do, for every series of every item that is changed."""

    cutoff: date
    """First day not known to the forecasts."""
    unknown_item_ids: list[str]
    """Items changed that have no forecast, or one that offers do not move."""
    forecasts: list[ChangedForecast]
    model_version: str


class OrderQuery(Request):
    """Which lines of the order list, and which page of them."""

    item_id: Annotated[list[Id], Field(max_length=100)] = []
    """Items, repeatable; absent: all."""
    location_id: Id | None = None
    """Store or warehouse; absent: all."""
    only_orders: Annotated[bool, BeforeValidator(_told)] = False
    """Whether lines that order nothing are left out."""
    offset: Annotated[int, Field(ge=0, le=FARTHEST), BeforeValidator(_spelled)] = 0
    """Lines to skip."""
    limit: Annotated[int, Field(ge=1, le=1000), BeforeValidator(_spelled)] = 100
    """Lines in the answer at most."""


class Order(Answer):
    """What to order of an item at a location; money is null where no costs are known."""

    item_id: str
    location_id: str | None
    """null: all locations together."""
    order_quantity: Annotated[float, Field(ge=0)]
    """Units to order; 0: nothing."""
    order_up_to: float
    """Units that, on hand and on order, would last until the next order's arrival."""
    reorder_point: float
    """``order_up_to`` less the expected demand between two orders, units."""
    safety_stock: float
    """``order_up_to`` less the expected demand until the next order's arrival, units."""
    on_hand: float
    """Units; below zero are owed to customers."""
    on_order: float
    """Units that will arrive within the forecast."""
    expected_cost: float | None
    """Money for what is left and what is lost from the order's arrival to the next."""
    money_at_risk: float | None
    """``expected_cost`` and what is lost before the order can arrive."""
    reason: str
    """What is expected, what is there, who planned otherwise."""


class Orders(Answer):
    """One page of the latest order list, most money at risk first."""

    as_of: date
    """First day not known to the list."""
    total: int
    """Lines over all pages."""
    unknown_item_ids: list[str]
    """Items asked for that are not in the list."""
    orders: list[Order]
    model_version: str
