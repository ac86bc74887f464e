"""The numbers that a shop is run by: in all, by day and channel, week on week, by cohort and by what brings orders."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.engine import Engine
from features.intervals import of_logarithm

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Period = Literal["week", "month"]

MEANINGS = {
    "page_views": "page views (PV); item views where none are logged",
    "visitors": "unique visitors (UV), each counted once",
    "sessions": "visits, ended by a pause of 30 minutes",
    "orders": "orders",
    "buyers": "visitors who bought",
    "revenue": "after discount, before tax and shipping",
    "refunds": "value of refunds",
    "net_revenue": "revenue less refunds",
    "conversion_per_session": "CVR, share of visits with a purchase",
    "conversion_per_visitor": "CVR, share of visitors who bought",
    "average_order_value": "AOV, revenue per order",
    "repeat_rate": "share of buyers with more than one order",
    "realised_ltv": "LTV to date, net revenue per buyer",
}
MONEY = ("revenue", "refunds", "net_revenue", "average_order_value", "realised_ltv")
SHARES = ("conversion_per_session", "conversion_per_visitor", "repeat_rate")

_OF_A_WEEK: Mapping[str, tuple[str, str | None]] = {
    **{name: (name, None) for name in ("page_views", "visitors", "sessions", "orders", "buyers")},
    **{name: (name, None) for name in ("revenue", "refunds", "net_revenue")},
    "conversion_per_session": ("buying_sessions", "sessions"),
    "conversion_per_visitor": ("buyers", "visitors"),
    "average_order_value": ("revenue", "orders"),
}
"""Each number of a week as a sum over persons, or as a ratio of two."""

_WEEKLY = pa.schema(
    [
        ("week", pa.date32()),
        ("kpi", pa.string()),
        *((name, pa.float64()) for name in ("value", "low", "high", "change", "change_low", "change_high")),
    ]
)
_COHORTS = pa.schema(
    [
        ("cohort", pa.date32()),
        ("age", pa.int64()),
        ("n_customers", pa.int64()),
        ("n_buyers", pa.int64()),
        ("share", pa.float64()),
    ]
)


def kept(engine: Engine, as_of: datetime) -> Engine:
    """The shop with its visits and orders before ``as_of`` found once, for all the functions of this module."""
    return engine.keep("sessions", "order_totals", as_of=as_of)


def kpis(engine: Engine, as_of: datetime) -> dict[str, Any]:
    """Every number of ``MEANINGS`` over the days before ``as_of``; None where it is a share of nothing.

    Counts are int, money is in the shop's currency, rates are shares within 0 to 1.
    """
    (row,) = engine.query("kpis", as_of=as_of).to_pylist()
    return {name: row[name] for name in MEANINGS}


def daily_kpis(engine: Engine, as_of: datetime) -> pa.Table:
    """Visits, visitors, buyers, orders, revenue and refunds by day (UTC) and channel; the rows are sorted by both."""
    return engine.query("daily_kpis", as_of=as_of)


def weekly_kpis(engine: Engine, as_of: datetime, until: datetime) -> pa.Table:
    """Each number of each whole week before ``until`` with 95 % intervals, and its change on the week before.

    Persons are the unit of randomness: their visits, orders and money of a week hang together, and so do two weeks of
    one person. With x_iw a person's part of the total T_w of a week, the delta method over a Poisson number of persons
    gives Var(log T_w) = sum_i (x_iw / T_w)^2; a ratio puts the difference of two such terms in the square, a change
    those of both weeks. It is what a bootstrap over persons converges to, without drawing. Shocks that move everybody,
    such as a holiday, are no part of the noise: they are what a change is to show.

    as_of : first instant not known
    until : the last week ends at its midnight (UTC)
    Returns columns ``week`` (its first day), ``kpi``, ``value``, ``low``, ``high``, ``change`` (share of the week
    before), ``change_low`` and ``change_high``, by week; null where there is nothing to divide by or to vary.
    Source: Efron, Tibshirani, An Introduction to the Bootstrap, 1993, chapter 5; Deng, Knoblich, Lu, "Applying the
    Delta Method in Metric Analytics", KDD 2018.
    """
    by_person = [("person_id", "ascending"), ("weeks_ago", "descending")]
    rows = engine.query("weekly_activity", as_of=as_of, until=until).sort_by(by_person)
    if not rows.num_rows:
        return _WEEKLY.empty_table()
    ago, amounts = rows["weeks_ago"].to_numpy(), _amounts(rows)
    n_weeks = int(ago.max()) + 1
    person, week = _numbers(rows["person_id"]), n_weeks - 1 - ago
    starts = np.datetime64(until.date()) - 7 * np.arange(n_weeks, 0, -1)
    parts = []
    for name, (above, below) in _OF_A_WEEK.items():
        numbers = _week_on_week(person, week, n_weeks, amounts[above], amounts[below] if below else None)
        columns = {key: pa.array(values, from_pandas=True) for key, values in numbers.items()}  # NaN becomes null
        parts.append(pa.table({"week": starts, "kpi": pa.repeat(name, n_weeks), **columns}).cast(_WEEKLY))
    return pa.concat_tables(parts).sort_by("week")


def _amounts(rows: pa.Table) -> dict[str, Floats]:
    """What each person did in each week, as summands of the totals."""
    found = {name: rows[name].to_numpy().astype(np.float64) for name in rows.column_names[2:]}
    if not found["page_views"].any():
        found["page_views"] = found["item_views"]
    found["visitors"] = (found["sessions"] > 0).astype(np.float64)
    found["buyers"] = (found["orders"] > 0).astype(np.float64)
    found["net_revenue"] = found["revenue"] - found["refunds"]
    return found


def _week_on_week(person: Ints, week: Ints, n_weeks: int, above: Floats, below: Floats | None) -> dict[str, Floats]:
    """One number in every week; the rows are sorted by person and week, of which there is one each.

    person, week : int arrays, shape (n_rows,)
    above, below : float arrays, shape (n_rows,)   summands of the total, or of the two totals of a ratio
    Returns float64 arrays, shape (n_weeks,), NaN where there is no number.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        value, influence = _total(week, above, n_weeks)
        if below is not None:
            whole, of_whole = _total(week, below, n_weeks)
            value, influence = value / whole, influence - of_whole
        variance = _sums(week, influence**2, n_weeks)
        stayed = (person[1:] == person[:-1]) & (week[1:] == week[:-1] + 1)
        shared = _sums(week[1:][stayed], (influence[1:] * influence[:-1])[stayed], n_weeks)
        positive = np.where(value > 0, value, np.nan)
        ratio = np.append(np.nan, positive[1:] / positive[:-1])
        change_variance = np.append(np.nan, variance[1:] + variance[:-1] - 2 * shared[1:])
    low, high = of_logarithm(value, variance)
    ratio_low, ratio_high = of_logarithm(ratio, change_variance)
    changes = {"change": ratio - 1, "change_low": ratio_low - 1, "change_high": ratio_high - 1}
    return {"value": value, "low": low, "high": high, **changes}


def _total(week: Ints, amount: Floats, n_weeks: int) -> tuple[Floats, Floats]:
    """The total of every week, shape (n_weeks,), and each row's share of it, shape (n_rows,)."""
    total = _sums(week, amount, n_weeks)
    return total, amount / total[week]


def _sums(week: Ints, amount: Floats, n_weeks: int) -> Floats:
    return np.bincount(week, amount, n_weeks).astype(np.float64)


def alerts(weekly: pa.Table) -> pa.Table:
    """The rows of the last week whose change its interval tells from none, worst first; a rise in refunds is a fall.

    Of twenty numbers that stand still, one is listed all the same: the intervals are of 95 %.
    """
    last = weekly.filter(pc.equal(weekly["week"], pc.max(weekly["week"])))
    beyond = last.filter(pc.or_(pc.greater(last["change_low"], 0.0), pc.less(last["change_high"], 0.0)))
    better = pc.if_else(pc.equal(beyond["kpi"], "refunds"), pc.negate(beyond["change"]), beyond["change"])
    return beyond.take(pc.sort_indices(better))


def cohorts(engine: Engine, as_of: datetime, until: datetime, period: Period) -> pa.Table:
    """Of the customers who first bought in a week (from Monday) or month, the share that bought in each one after it.

    A first order is the first in the log: the oldest cohorts hold customers who had bought before the log began.

    as_of : first instant not known
    until : a period that is not over here (UTC) is censored: its cells are null, it makes no cohort
    Returns columns ``cohort`` (its first day), ``age`` (periods after it, 0 is its own), ``n_customers`` and, null
    where censored, ``n_buyers`` and ``share`` of the customers; one row per cohort and age.
    """
    orders = engine.query("order_totals", as_of=as_of)
    ordered, unfinished = _period(orders["ordered_at"].to_numpy(), period), _period(np.datetime64(until.date()), period)
    orders, ordered = orders.filter(ordered < unfinished), ordered[ordered < unfinished]
    if not orders.num_rows:
        return _COHORTS.empty_table()
    bought, oldest = _buyers_by_cohort_and_age(_numbers(orders["person_id"]), ordered), ordered.min()
    n = int(unfinished - oldest)
    bought = np.pad(bought, [(0, n - length) for length in bought.shape])
    cohort, age = np.indices((n, n)).reshape(2, -1)
    n_customers, n_buyers, censored = bought[cohort, 0], bought[cohort, age], cohort + age >= n
    return pa.table(
        {
            "cohort": _first_day(oldest + cohort, period),
            "age": age,
            "n_customers": n_customers,
            "n_buyers": pa.array(n_buyers, mask=censored),
            "share": pa.array(n_buyers / np.maximum(n_customers, 1), mask=censored | (n_customers == 0)),
        },
    ).cast(_COHORTS)


def _buyers_by_cohort_and_age(person: Ints, ordered: Ints) -> Ints:
    """How many persons of each cohort ordered at each age, both in periods from the first order of all on.

    person, ordered : int arrays, shape (n_orders,)   who, and in which period
    """
    ordered = ordered - ordered.min()
    n = ordered.max() + 1
    first = np.full(person.max() + 1, n)
    np.minimum.at(first, person, ordered)
    person, ordered = np.divmod(np.unique(person * n + ordered), n)
    cohort = first[person]
    return np.bincount(cohort * n + ordered - cohort, minlength=n * n).reshape(n, n)


def _period(times: NDArray[np.datetime64] | np.datetime64, period: Period) -> Ints:
    """The number of the week or month in which each instant lies."""
    if period == "month":
        return times.astype("datetime64[M]").astype(np.int64)
    return (times.astype("datetime64[D]").astype(np.int64) + 3) // 7


def _first_day(number: Ints, period: Period) -> NDArray[np.datetime64]:
    if period == "month":
        return number.astype("datetime64[M]").astype("datetime64[D]")
    return (7 * number - 3).astype("datetime64[D]")


def attribution(engine: Engine, as_of: datetime) -> pa.Table:
    """Orders before ``as_of`` and their revenue by the channel that brought them, the channel with most revenue first.

    An order's touches are its buyer's visits in the 30 days before it, its own among them. A direct visit has neither
    medium nor source; it gets credit only where every touch is direct, as in GA4. ``last_non_direct`` gives all of it
    to the last touch, ``time_decay`` a share to each, halved for every 7 days before the order. Either way the credits
    sum to the orders and to the revenue.

    Returns columns ``channel`` and, float64, ``orders_*`` and ``revenue_*`` for both models.
    Source: Google Analytics help, "Get started with attribution".
    """
    found = engine.query("channel_credits", as_of=as_of)
    return found.sort_by([("revenue_last_non_direct", "descending"), ("channel", "ascending")])


def _numbers(column: pa.ChunkedArray) -> Ints:
    """Equal values as equal numbers from 0 on, in the order in which they appear."""
    return np.asarray(column.combine_chunks().dictionary_encode().indices).astype(np.int64)
