"""What the service is asked and what it answers; validation and the OpenAPI document both come from these models."""

import re
from datetime import date, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from features.contract import AVAILABILITY, EVENT_NAMES, ITEM_EVENTS
from serving.filters import LONGEST

MOST = 1e9
VISIT_EVENTS = tuple(name for name in EVENT_NAMES if name != "refund")


def integral(value: Any) -> Any:  # noqa: ANN401
    """JSON Schema counts 3.0 among the integers; everything else stays as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _written(value: Any) -> Any:  # noqa: ANN401
    """An instant comes as a text; a number is refused, also as a text."""
    if not (isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\d[Tt ]", value)):
        raise ValueError("write it as in 2026-01-31T12:00:00Z")
    return value


Id = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]


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
    user_pseudo_id: Id | None = None
    """Device or cookie: what a guest did on it counts, also after a login."""
    item_ids: Annotated[list[Id], Field(max_length=100)] = []
    """What the visitor looks at: the product, or the cart's content, latest last."""
    n: Annotated[int, Field(ge=1, le=100), BeforeValidator(integral)] = 10
    """Items wanted."""
    exclude_ids: Annotated[list[Id], Field(max_length=1000)] = []
    """Items that must not come."""
    filters: Annotated[str, Field(min_length=1, max_length=LONGEST)] | None = None
    """Which items may come, as ``item_category = 'wine' and (price < 20 or not item_brand in ('a', 'b'))``; texts know
    =, != and in, numbers and dates <, <=, > and >= too. What is sold out or hidden never comes."""
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


ORDER_EVENTS = ("purchase", "refund")


def _needs(name: str, events: tuple[str, ...]) -> dict[str, Any]:
    """In JSON Schema: events of some names state something."""
    stated = {"required": [name], "properties": {name: {"type": "string"}}}
    return {"if": {"properties": {"event_name": {"enum": list(events)}}}, "then": stated}


_SAYS_ENOUGH: dict[str, Any] = {
    "anyOf": [{"required": [n], "properties": {n: {"type": "string"}}} for n in ("user_id", "user_pseudo_id")],
    "allOf": [_needs("item_id", ITEM_EVENTS), _needs("transaction_id", ORDER_EVENTS)],
}


class LoggedEvent(Request):
    """What a visitor did, with one item where it is about items; named as in the table of events."""

    model_config = ConfigDict(json_schema_extra=_SAYS_ENOUGH)

    event_id: Id | None = None
    """Identifies the event of one item, which is the same one when it is sent again; absent: it is another one."""
    event_name: Literal[EVENT_NAMES]  # type: ignore[valid-type]  # the contract has them as values
    event_timestamp: Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_written)] | None = None
    """When it happened, with its zone; absent, or still to come: now."""
    user_id: Id | None = None
    """The shop's customer number, once known."""
    user_pseudo_id: Id | None = None
    """Device or cookie, known for guests too."""
    session_id: Id | None = None
    item_id: Id | None = None
    transaction_id: Id | None = None
    quantity: Annotated[float, Field(gt=0, le=MOST)] | None = None
    """Units; absent: 1."""
    price: Annotated[float, Field(ge=0, le=MOST)] | None = None
    """Price of one unit as paid, after discount."""
    discount: Annotated[float, Field(ge=-MOST, le=MOST)] | None = None
    """Reduction per unit."""
    coupon: Id | None = None
    currency: Id | None = None
    value: Annotated[float, Field(ge=-MOST, le=MOST)] | None = None
    location_id: Id | None = None
    index: Annotated[int, Field(ge=0, le=1_000_000), BeforeValidator(integral)] | None = None
    """Position in the list shown."""
    item_list_id: Id | None = None
    """List or placement shown."""
    source: Id | None = None
    medium: Id | None = None
    campaign: Id | None = None
    device_category: Id | None = None
    country: Id | None = None
    search_term: Id | None = None
    recommendation_id: Id | None = None
    """The answer that showed the item."""
    experiment_id: Id | None = None
    variant: Id | None = None

    @model_validator(mode="after")
    def _says_enough(self) -> Self:
        if self.user_id is None and self.user_pseudo_id is None:
            raise ValueError("user_id and user_pseudo_id are both missing: give the one that is known")
        if self.item_id is None and self.event_name in ITEM_EVENTS:
            raise ValueError(f"item_id is missing: {self.event_name} is about an item")
        if self.transaction_id is None and self.event_name in ORDER_EVENTS:
            raise ValueError(f"transaction_id is missing: {self.event_name} is of an order")
        return self


class EventsRequest(Request):
    """Events as they happen, in any order."""

    events: Annotated[list[LoggedEvent], Field(min_length=1, max_length=250)]


class PutItem(Request):
    """What is to be known of an item from now on; what is absent stays as it is."""

    item_id: Id
    availability: Literal[AVAILABILITY] | None = None  # type: ignore[valid-type]  # the contract has them as values
    """What is out_of_stock or hidden is not recommended."""
    price: Annotated[float, Field(ge=0, le=MOST)] | None = None
    """List price."""
    item_brand: Id | None = None
    item_category: Id | None = None
    """Top category. By its brand and categories an item is recommended before a model knows it."""
    item_category2: Id | None = None
    item_category3: Id | None = None
    item_category4: Id | None = None
    item_category5: Id | None = None
    created_at: Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_written)] | None = None
    """When the item was listed."""


class ItemsRequest(Request):
    """Changes of items, effective at once, until a newer export of the items is ingested and trained on."""

    items: Annotated[list[PutItem], Field(min_length=1, max_length=1000)]


class ItemsTaken(Answer):
    """What was taken in; it is on the disk, and every answer from now on knows it."""

    items: int
    """Items told of."""


class EventsTaken(Answer):
    """What has been written to disk."""

    accepted: int
    """Events that were new."""
    known: int
    """Events that had come before, by their ``event_id``."""


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


class RefusedModel(Answer):
    """A version that was promoted last, failed when it was tried, and does not serve."""

    task: str
    version: str
    reason: str


class ModelList(Answer):
    """Everything that the service can and cannot answer with."""

    shop: str
    models: list[ServedModel]
    absent: list[AbsentModel]
    refused: list[RefusedModel]


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
    """The first faults of a request that was understood but refused."""
