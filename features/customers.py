"""Customers as a propensity model sees them at an instant, and what they then did."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.engine import Engine

FEATURES = {
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
    "days_since_last_visit": "visited {} days ago",
    "n_views_28d": "{} item views in 28 days",
    "n_carts_28d": "{} items put in the cart in 28 days",
}
"""The columns of ``customer_features`` in the order of a model's matrix, with the words that explain a value."""

LOOKBACK_DAYS = 364
"""How far back ``customer_features.sql`` reads, and so the longest pause of a customer it knows."""


def customer_features(past: Engine, as_of: datetime) -> pa.Table:
    """One row per person who bought in the last 364 days before an instant, from what was known then.

    Returns columns ``person_id`` and FEATURES (counts and days int64, money and means float64, null where a person has
    none), ordered by person.
    """
    return past.query("customer_features", as_of=as_of).select(["person_id", *FEATURES]).sort_by("person_id")


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


def feature_matrix(customers: pa.Table) -> NDArray[np.float64]:
    """FEATURES as a matrix, rounded to 1e-6: two engines sum money in different orders.

    Returns float64, shape (n_persons, n_features), NaN where a value is null.
    """
    columns = [customers[name].cast(pa.float64()).to_numpy() for name in FEATURES]
    return np.round(np.column_stack(columns), 6)


def repurchase_labels(
    truth: Engine, as_of: datetime, horizon_days: int, person_ids: Sequence[str]
) -> NDArray[np.bool_]:
    """Whether each person bought within the days from an instant on; a purchase refunded later counts.

    truth : must hold the events of [as_of, as_of + horizon_days)
    Returns bool, shape (n_persons,).
    """
    end = as_of + timedelta(days=horizon_days)
    buyers = truth.query("repurchase_labels", as_of=end, since=as_of)["person_id"]
    persons = pa.array(person_ids, pa.string())
    return np.asarray(pc.is_in(persons, value_set=buyers.combine_chunks()).to_numpy(zero_copy_only=False), np.bool_)
