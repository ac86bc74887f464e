"""Customers in a category as they are known at an instant, and whether they bought in it again."""

from datetime import datetime

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.engine import Engine

KEYS = ("person_id", "category")
NUMBERS = {
    "days_since_last_category_order": "bought in the category {} days ago",
    "n_category_days": "bought in the category on {} days in a year",
    "n_category_days_28d": "bought in the category on {} days in 28 days",
    "n_category_days_91d": "bought in the category on {} days in 91 days",
    "n_category_days_182d": "bought in the category on {} days in 182 days",
    "last_category_units": "{} units of the category when last bought",
    "mean_category_units": "{} units of the category at a time",
    "mean_category_spend": "spends {} at a time in the category",
    "mean_category_gap_days": "buys in the category every {} days",
    "longest_category_gap_days": "at most {} days between two purchases in the category",
    "last_category_gap_days": "{} days between the last two purchases in the category",
    "share_of_category_gap": "{} times the usual pause in the category has passed",
    "days_since_first_category_order": "first bought in the category {} days ago",
    "days_since_last_order": "ordered {} days ago",
    "n_order_days_91d": "{} days with an order in 91 days",
    "category_sales_28d": "the category was bought {} times in 28 days",
    "category_trend": "the category sells {} times what it did a month before",
    "category_gap_days": "people buy in the category every {} days",
}
TEXTS = {"category": "category {}"}
"""What a customer is known by in a category, with the words that explain a value."""


def category_features(log: Engine, as_of: datetime) -> pa.Table:
    """One row per person and category bought in the last 364 days, from what was known at an instant.

    Returns ``person_id``, ``category`` and NUMBERS, ordered by both keys.
    """
    found = log.query("category_features", as_of=as_of).select([*KEYS, *NUMBERS])
    return found.sort_by([(key, "ascending") for key in KEYS])


def bought_again(log: Engine, since: datetime, until: datetime, rows: pa.Table) -> NDArray[np.bool_]:
    """Whether each person of the rows bought in each category within [since, until).

    rows : has KEYS
    Returns bool, shape (n_rows,).
    """
    bought = log.query("category_outcomes", since=since, as_of=until)
    marked = bought.append_column("bought", pa.array(np.ones(bought.num_rows, bool)))
    numbered = rows.select(list(KEYS)).append_column("number", pa.array(np.arange(rows.num_rows)))
    joined = numbered.join(marked, keys=list(KEYS), join_type="left outer").sort_by("number")
    return np.asarray(joined["bought"].fill_null(False).to_numpy(), np.bool_)
