"""The data contract: every table and column that Shopkeeper reads, with its checks.

A check is a SQL predicate over one row that both engines read; a row for which it is false or NULL is quarantined with
the column's reason. Times are ``TIMESTAMP`` in UTC with microseconds, money is in the shop's currency.
"""

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["append", "keyed", "snapshot"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its SQL type, its meaning, and the predicate that a good value satisfies."""

    name: str
    type: Literal["VARCHAR", "BIGINT", "DOUBLE", "TIMESTAMP", "DATE", "BOOLEAN"]
    doc: str
    unit: str = ""
    required: bool = False
    check: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """One table: how rows are identified and how later rows meet earlier ones.

    kind : ``append`` keeps the first row of a key; ``keyed`` lets a later row win and keeps the earlier in history;
        ``snapshot`` is replaced whole.
    day : the column that partitions the table by day, or "" when it is not partitioned.
    checks : predicates over several columns, as (predicate, reason).
    """

    name: str
    doc: str
    kind: Kind
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    day: str = ""
    checks: tuple[tuple[str, str], ...] = field(default=())

    @property
    def required(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns if column.required)

    def types(self) -> dict[str, str]:
        return {column.name: column.type for column in self.columns}


EVENT_NAMES = (
    "page_view",
    "search",
    "view_item_list",
    "select_item",
    "view_item",
    "add_to_wishlist",
    "add_to_cart",
    "remove_from_cart",
    "view_cart",
    "begin_checkout",
    "add_payment_info",
    "purchase",
    "refund",
    "sign_up",
    "login",
)
ITEM_EVENTS = ("select_item", "view_item", "add_to_wishlist", "add_to_cart", "remove_from_cart", "purchase", "refund")
AVAILABILITY = ("in_stock", "out_of_stock", "hidden")


def _one_of(column: str, values: tuple[str, ...]) -> str:
    return f"{column} in ({', '.join(repr(value) for value in values)})"


def _text(name: str, doc: str, required: bool = False) -> Column:
    return Column(name, "VARCHAR", doc, required=required, check=f"{name} <> ''", reason=f"{name} is empty")


def _at_least_zero(name: str, doc: str, unit: str, required: bool = False) -> Column:
    return Column(name, "DOUBLE", doc, unit, required, f"{name} >= 0", f"{name} is negative")


def _share(name: str, doc: str) -> Column:
    return Column(name, "DOUBLE", doc, "share", check=f"{name} between 0 and 1", reason=f"{name} is not within 0 to 1")


_ITEM_ID = _text("item_id", "The shop's item number.", required=True)
_LOCATION_ID = _text("location_id", "Store or warehouse; absent: the shop has one.")
_DATE = Column("date", "DATE", "First day of the period.", required=True)

EVENTS = Table(
    "events",
    "What visitors did, one row per event and item (GA4's e-commerce events).",
    kind="append",
    key=("event_id",),
    day="event_timestamp",
    columns=(
        _text("event_id", "Identifies the row; a row that comes again is the same event.", required=True),
        Column(
            "event_name",
            "VARCHAR",
            "What happened.",
            required=True,
            check=_one_of("event_name", EVENT_NAMES),
            reason="event_name is unknown",
        ),
        Column(
            "event_timestamp",
            "TIMESTAMP",
            "When it happened.",
            "UTC",
            required=True,
            check="event_timestamp >= timestamp '1990-01-01' "
            "and event_timestamp < cast(current_timestamp as timestamp) + interval 2 days",
            reason="event_timestamp lies before 1990 or in the future",
        ),
        _text("user_pseudo_id", "Device or cookie, known for guests too."),
        _text("user_id", "The shop's customer number, once known."),
        _text("item_id", "Item of an item event."),
        _text("transaction_id", "Order of a purchase or refund."),
        _text("session_id", "Visit; absent: a pause of 30 minutes starts a new one."),
        Column("received_at", "TIMESTAMP", "When we learnt of it; absent: when it happened.", "UTC"),
        Column(
            "quantity",
            "DOUBLE",
            "Units of the item; absent: 1.",
            "units",
            check="quantity > 0",
            reason="quantity is not above zero",
        ),
        _at_least_zero("price", "Price of one unit as paid, after discount.", "money"),
        Column("discount", "DOUBLE", "Reduction per unit, as the source signs it.", "money"),
        _text("coupon", "Coupon code."),
        _text("currency", "ISO 4217 code."),
        Column("value", "DOUBLE", "Value of the event as the source states it.", "money"),
        _LOCATION_ID,
        Column("index", "BIGINT", "Position in the list shown.", check='"index" >= 0', reason="index is negative"),
        _text("item_list_id", "List or placement shown."),
        _text("source", "Traffic source."),
        _text("medium", "Traffic medium."),
        _text("campaign", "Traffic campaign."),
        _text("device_category", "desktop, mobile, tablet."),
        _text("country", "Country of the visitor."),
        _text("search_term", "What was searched for."),
        _text("recommendation_id", "The answer that showed the item."),
        _text("experiment_id", "Experiment of the visit."),
        _text("variant", "Variant of the experiment."),
    ),
    checks=(
        ("user_pseudo_id is not null or user_id is not null", "user_pseudo_id and user_id are both missing"),
        (f"item_id is not null or not {_one_of('event_name', ITEM_EVENTS)}", "item_id is missing on an item event"),
        (
            "transaction_id is not null or event_name not in ('purchase', 'refund')",
            "transaction_id is missing on a purchase or refund",
        ),
    ),
)

ITEMS = Table(
    "items",
    "The catalogue.",
    kind="snapshot",
    key=("item_id",),
    columns=(
        _ITEM_ID,
        _text("item_name", "Name."),
        _text("item_brand", "Brand."),
        _text("item_category", "Top category."),
        _text("item_category2", "Second level."),
        _text("item_category3", "Third level."),
        _text("item_category4", "Fourth level."),
        _text("item_category5", "Fifth level."),
        _at_least_zero("price", "List price.", "money"),
        _at_least_zero("cost", "Purchase cost.", "money"),
        Column(
            "availability",
            "VARCHAR",
            "hidden items are neither recommended nor forecast.",
            check=_one_of("availability", AVAILABILITY),
            reason="availability is unknown",
        ),
        Column("created_at", "TIMESTAMP", "When the item was listed.", "UTC"),
        Column("valid_from", "TIMESTAMP", "Since when this row holds.", "UTC"),
    ),
)

USERS = Table(
    "users",
    "Customers and their attributes; every further column passes through.",
    kind="snapshot",
    key=("user_id",),
    columns=(
        _text("user_id", "The shop's customer number.", required=True),
        _text("membership_tier", "Loyalty tier."),
    ),
)

CAMPAIGN_TOUCHES = Table(
    "campaign_touches",
    "Whom a campaign reached.",
    kind="keyed",
    key=("user_id", "campaign_id", "sent_at", "channel"),
    columns=(
        _text("user_id", "The shop's customer number.", required=True),
        _text("campaign_id", "Campaign.", required=True),
        Column("sent_at", "TIMESTAMP", "When it was sent.", "UTC", required=True),
        _text("channel", "E-mail, post, push and so on."),
        Column("treated", "BOOLEAN", "False for a held-out customer."),
        Column("responded_at", "TIMESTAMP", "When the customer answered, where the campaign's tool says so.", "UTC"),
        _at_least_zero("cost", "Cost of the touch.", "money"),
    ),
)

DEMAND = Table(
    "demand",
    "Aggregated sales, for shops that have no orders; else derived from purchases less refunds.",
    kind="keyed",
    key=("item_id", "location_id", "date"),
    columns=(
        _ITEM_ID,
        _LOCATION_ID,
        _DATE,
        _at_least_zero("quantity", "Units sold in the period.", "units", required=True),
        Column("revenue", "DOUBLE", "Revenue of the period.", "money"),
    ),
)

STOCK = Table(
    "stock",
    "Stock per period; the latest row is the stock on hand.",
    kind="keyed",
    key=("item_id", "location_id", "date"),
    columns=(
        _ITEM_ID,
        _LOCATION_ID,
        _DATE,
        Column("on_hand", "DOUBLE", "Units on hand at the start of the period.", "units"),
        _share("available_fraction", "Share of the period in which the item could be bought."),
        _at_least_zero("on_order", "Units ordered and not yet arrived.", "units"),
    ),
)

OFFERS = Table(
    "offers",
    "Prices and promotions per period; may reach into the future.",
    kind="keyed",
    key=("item_id", "location_id", "date"),
    columns=(
        _ITEM_ID,
        _LOCATION_ID,
        _DATE,
        _at_least_zero("price", "Price in the period.", "money"),
        _at_least_zero("base_price", "Price without promotion.", "money"),
        _share("display", "Share of locations that display the item."),
        _share("mailer", "Share of locations that advertise it."),
    ),
)

SUPPLY = Table(
    "supply",
    "How an item is ordered and what stock costs.",
    kind="snapshot",
    key=("item_id", "location_id"),
    columns=(
        _ITEM_ID,
        _LOCATION_ID,
        _at_least_zero("lead_time_days", "Order to arrival.", "days", required=True),
        _at_least_zero("lead_time_std_days", "Standard deviation of the lead time.", "days"),
        _at_least_zero("review_days", "Days between two orders.", "days"),
        _at_least_zero("pack_size", "Units in a pack.", "units"),
        _at_least_zero("min_order_quantity", "Smallest order.", "units"),
        _at_least_zero("holding_cost", "Cost of a unit held for a day.", "money"),
        _at_least_zero("shortage_cost", "Cost of a lost unit.", "money"),
        _share("service_level", "Wanted share of demand served."),
    ),
)

PIPELINE = Table(
    "pipeline",
    "Open orders.",
    kind="snapshot",
    key=("item_id", "location_id", "arrives_on"),
    columns=(
        _ITEM_ID,
        _LOCATION_ID,
        _at_least_zero("quantity", "Units ordered.", "units", required=True),
        Column("arrives_on", "DATE", "Day of arrival.", required=True),
    ),
)

TABLES = {
    table.name: table for table in (EVENTS, ITEMS, USERS, CAMPAIGN_TOUCHES, DEMAND, STOCK, OFFERS, SUPPLY, PIPELINE)
}
