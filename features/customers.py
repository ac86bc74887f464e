"""Customers as they are known at an instant, and what they did then."""

from collections.abc import Sequence
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.engine import Engine

NUMBERS = {
    "days_since_last_order": "ordered {} days ago",
    "n_orders_28d": "{} orders in 28 days",
    "n_orders_91d": "{} orders in 91 days",
    "n_order_days_182d": "{} days with an order in 182 days",
    "n_order_weeks_91d": "{} weeks with an order in 13 weeks",
    "spend_28d": "spent {} in 28 days",
    "spend_91d": "spent {} in 91 days",
    "n_lines_28d": "{} order lines in 28 days",
    "last_order_day_spend": "spent {} on the last day with an order",
    "mean_order_spend": "spends {} per order",
    "mean_days_between_orders": "orders every {} days",
    "longest_days_between_orders": "at most {} days between two orders",
    "share_of_longer_gaps": "{} of earlier pauses were longer than this one",
    "share_of_units_returned": "{} of the units bought in 364 days were returned",
    "share_of_lines_at_discount": "{} of the order lines of 364 days were bought below the item's usual price",
    "days_since_last_visit": "visited {} days ago",
    "n_views_28d": "{} item views in 28 days",
    "n_carts_28d": "{} items put in the cart in 28 days",
}
TEXTS: dict[str, str] = {}
"""What a customer is known by, with the words that explain a value."""


def customer_features(log: Engine, as_of: datetime) -> pa.Table:
    """One row per person who bought in the last 364 days before an instant, from what was known then.

    Returns columns ``person_id`` and NUMBERS (counts and days int64, money and means float64, null where a person has
    none), ordered by person.
    """
    return log.query("customer_features", as_of=as_of).select(["person_id", *NUMBERS]).sort_by("person_id")


def order_summaries(past: Engine, as_of: datetime) -> pa.Table:
    """One row per person who ever bought: days with an order, what they were worth, and revenue less refunds.

    Returns the columns of ``order_summaries.sql`` (counts and days int64, money float64, ``repeat_day_spend`` null for
    who bought on one day only), ordered by person.
    """
    return past.query("order_summaries", as_of=as_of).sort_by("person_id")


def purchase_days(past: Engine, as_of: datetime) -> pa.Table:
    """Every day on which a person bought, with its totals, ordered by ``person_id`` and ``day``."""
    return past.query("purchase_days", as_of=as_of).sort_by([("person_id", "ascending"), ("day", "ascending")])


def orders_between(truth: Engine, since: datetime, end: datetime, person_ids: Sequence[str]) -> pa.Table:
    """What each person bought from one midnight to another.

    truth : must hold the events of [since, end)
    Returns ``n_order_days`` (int64) and ``spend`` (money, float64), a row per person in their order, 0 for no order.
    """
    bought = truth.select(
        "select person_id, count(*) as n_order_days, sum(spend) as spend from purchase_days "
        "where day >= cast(cast($since as timestamp) as date) group by person_id",
        as_of=end,
        since=since,
    )
    place = pc.index_in(pa.array(person_ids, pa.string()), value_set=bought["person_id"].combine_chunks())
    return pa.table({name: pc.fill_null(bought[name].take(place), 0) for name in ("n_order_days", "spend")})


def eligible(customers: pa.Table, eligible_days: int) -> pa.Table:
    """Those who ordered at least once in the last days before the instant of their features."""
    return customers.filter(pc.field("days_since_last_order") <= eligible_days)


def without_guests(log: Engine, as_of: datetime, rows: pa.Table, key: str) -> pa.Table:
    """The rows of people with a customer's id: a guest, known by a device alone, can teach but not be written to.

    key : the column that names a person
    """
    customers = log.select("select distinct user_id from dated_events where user_id is not null", as_of=as_of)
    return rows.filter(pc.is_in(rows[key], value_set=customers["user_id"].combine_chunks()))


def did(log: Engine, event: str, since: datetime, until: datetime, person_ids: Sequence[str]) -> NDArray[np.bool_]:
    """Whether each person did something within [since, until), as known at ``until``; a refund undoes nothing.

    Returns bool, shape (n_persons,).
    """
    doers = log.query("outcomes", event=event, since=since, as_of=until)["person_id"]
    persons = pa.array(person_ids, pa.string())
    return np.asarray(pc.is_in(persons, value_set=doers.combine_chunks()).to_numpy(zero_copy_only=False), np.bool_)
