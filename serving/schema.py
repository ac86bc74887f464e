"""What the service is asked and what it answers; validation and the OpenAPI document both come from these models."""

import re
from datetime import date, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from features.contract import EVENT_NAMES

MOST = 1e9
FARTHEST = 999_999_999
CHANGEABLE = ("price", "display", "mailer")
VISIT_EVENTS = tuple(name for name in EVENT_NAMES if name != "refund")


def _integral(value: Any) -> Any:  # noqa: ANN401
    """JSON Schema counts 3.0 among the integers; everything else stays as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _spelled(value: Any) -> Any:  # noqa: ANN401
    """The number that a query parameter spells; everything else stays as it is, and is then refused."""
    return int(value) if isinstance(value, str) and re.fullmatch("-?[0-9]{1,9}", value) else value


def _told(value: Any) -> Any:  # noqa: ANN401
    """What a query parameter tells by true or false; everything else stays as it is, and is then refused."""
    return value == "true" if value in ("true", "false") else value


def _written(value: Any) -> Any:  # noqa: ANN401
    """An instant comes as a text; a number is refused, also as a text."""
    if not (isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\d[Tt ]", value)):
        raise ValueError("write it as in 2026-01-31T12:00:00Z")
    return value


def _dated(value: Any) -> Any:  # noqa: ANN401
    """A date comes as a text; a number is refused, also as a text."""
    if not (isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value)):
        raise ValueError("write it as in 2026-01-31")
    return value


Id = Annotated[str, Field(min_length=1, max_length=200)]

Day = Annotated[date, Field(strict=False), BeforeValidator(_dated)]


class Request(BaseModel):
    """A request: unknown keys and other types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


class Answer(BaseModel):
    """An answer, as it is documented."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class RecommendationRequest(Request):
    """Where the items will be shown, and what is known of the visitor."""

    placement: Literal["home", "product", "cart"] = "home"
    """Where the items will be shown."""
    user_id: Id | None = None
    """The shop's customer number; absent for a guest."""
    item_ids: Annotated[list[Id], Field(max_length=100)] = []
    """What the visitor looks at: the product, or the cart's content, latest last."""
    n: Annotated[int, Field(ge=1, le=100), BeforeValidator(_integral)] = 10
    """Items wanted."""
    exclude_ids: Annotated[list[Id], Field(max_length=1000)] = []
    """Items that must not come."""
    explain: bool = False
    """Whether each item comes with what each stage adds to its score."""


class RecommendedItem(Answer):
    """One item; the list is sorted, best first."""

    item_id: str
    score: float
    """Comparable within one answer only."""
    reason: str
    """Why the item is shown."""
    tiers: dict[str, float] = {}
    """What each stage adds to the score; only when ``explain`` was asked for."""


class Recommendations(Answer):
    """Items, and how they were found."""

    items: list[RecommendedItem]
    recommendation_id: str
    """Send it back with the events that the items lead to."""
    tier: str
    """The stage that answered."""
    degraded: list[str]
    """Why a better stage could not answer; empty when the best one did."""
    model_version: str
    staleness_s: int
    """Seconds since the end of the data that the model was trained on."""


class PropensityRequest(Request):
    """The customers to score."""

    target: Id | None = None
    """What to score them for; absent: the version's first target of customers."""
    user_ids: Annotated[list[Id], Field(min_length=1, max_length=100)]
    """The shop's customer numbers; whole audiences come from the command `score`."""


class VisitEvent(Request):
    """One event of a running visit, named as in the table of events."""

    event_name: Literal[VISIT_EVENTS]  # type: ignore[valid-type]  # the contract has them as values
    event_timestamp: Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_written)]
    """When it happened, with its zone."""
    item_id: Id | None = None
    transaction_id: Id | None = None
    quantity: Annotated[float, Field(gt=0, le=MOST)] | None = None
    """Units; absent: 1."""
    price: Annotated[float, Field(ge=0, le=MOST)] | None = None
    """Price of one unit; absent: the catalogue's."""


class SessionRequest(Request):
    """A running visit, and who is visiting."""

    target: Id | None = None
    """What to score it for; absent: the version's first target of visits."""
    user_id: Id | None = None
    """The shop's customer number; absent for a guest."""
    user_pseudo_id: Id | None = None
    """The device."""
    source: Id | None = None
    medium: Id | None = None
    campaign: Id | None = None
    device_category: Id | None = None
    events: Annotated[list[VisitEvent], Field(min_length=1, max_length=1000)]
    """The visit so far; it is scored as it was after the last event."""


class PropensityScore(Answer):
    """How likely a target is for one customer, for one customer in a category, or for a visit."""

    user_id: str
    category: str | None = None
    """Of targets by category: the likeliest of each customer."""
    expected_on: date | None = None
    """Of targets by category: the day by which a purchase is as likely as not."""
    probability: Annotated[float, Field(ge=0, le=1)]
    """Calibrated probability of the target."""
    percentile: Annotated[float, Field(ge=0, le=100)]
    """Rank among all, 100 is the likeliest."""
    tier: str
    """model, or base_rate for a customer whom the model does not know."""
    reasons: list[str]
    """What moves the probability most, strongest first."""


class Sufficiency(Answer):
    """Whether there was enough to learn from."""

    enough: bool
    verdict: str
    """How much there was, how well that sets the level, and what would be enough."""
    n_examples: int
    n_rarer_outcomes: int
    n_days: int
    n_censored: int
    """Examples left out because their outcome was not yet certain."""


class PropensityScores(Answer):
    """One score per customer asked for, or several by category, in that order; of a visit one."""

    target: str
    """What the probability is of."""
    as_of: datetime
    """First instant not known to the scores of customers, UTC."""
    sufficiency: Sufficiency
    scores: list[PropensityScore]
    model_version: str


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
    horizon: Annotated[int, Field(ge=1, le=365), BeforeValidator(_integral)] | None = None
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


class DataWindow(Answer):
    """The data that a model was trained on."""

    model_config = ConfigDict(serialize_by_alias=True)

    since: Annotated[str | None, Field(alias="from")]
    until: str


class ServedModel(Answer):
    """A model that answers."""

    task: str
    version: str
    model: str
    window: DataWindow
    created_at: datetime
    age_s: int
    """Seconds since it was trained."""
    staleness_s: int
    """Seconds since the end of its data."""
    metrics: dict[str, Any]
    """Its evaluation at training."""


class AbsentModel(Answer):
    """A task without a model, and why."""

    task: str
    reason: str


class ModelList(Answer):
    """Everything that the service can and cannot answer with."""

    shop: str
    models: list[ServedModel]
    absent: list[AbsentModel]


class Fault(Answer):
    """One thing that is wrong with a request."""

    pointer: str
    """JSON pointer (RFC 6901) into the body, or ``/NAME`` of a query parameter."""
    message: str
    allowed: dict[str, Any]
    """JSON Schema of what is allowed there."""


class ProblemDetails(Answer):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    """What was wrong and what to do."""
    request_id: str
    """Find the request in the log by it."""
    errors: list[Fault] | None = None
    """Every fault of a request that was understood but refused."""
    absent: list[AbsentModel] | None = None
    """Tasks without a model."""
