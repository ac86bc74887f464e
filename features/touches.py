"""Campaign touches as they were when they were sent, and whether they were answered."""

from datetime import datetime

import pyarrow as pa

from features import customers
from features.engine import Engine

KEYS = ("user_id", "campaign_id", "sent_at")
OWN_NUMBERS = {
    "n_earlier_touches": "touched {} times before",
    "n_earlier_responses": "answered {} times before",
    "days_since_last_touch": "touched {} days ago",
}
NUMBERS = {**OWN_NUMBERS, **customers.NUMBERS}
TEXTS = {"channel": "touched by {}"}
"""What a touch is known by, with the words that explain a value."""


def touches(log: Engine, event: str, horizon_days: int, as_of: datetime) -> pa.Table:
    """Every touch before an instant, in order of time.

    event : what answers it; ``response``, that it says so itself
    Returns KEYS, ``channel``, ``treated``, ``cost``, ``responded_at`` (null: not within the horizon), OWN_NUMBERS.
    """
    found = log.query("touch_responses", event=event, horizon_days=horizon_days, as_of=as_of)
    return found.sort_by([("sent_at", "ascending"), ("campaign_id", "ascending"), ("user_id", "ascending")])


def with_customers(log: Engine, sent: pa.Table, as_of: datetime) -> pa.Table:
    """Touches with what was known of their customers at an instant, null of a stranger, in the same order."""
    known = customers.customer_features(log, as_of)
    numbered = sent.append_column("number", pa.array(range(sent.num_rows), pa.int64()))
    joined = numbered.join(known, keys="user_id", right_keys="person_id", join_type="left outer")
    return joined.sort_by("number").drop_columns("number")


def imagined(sent: pa.Table, user_ids: pa.Array, at: datetime) -> pa.Table:
    """A touch of each customer at an instant, by the channel of the last that was sent; columns as in ``sent``."""
    channel = sent.sort_by("sent_at")["channel"][-1].as_py() if sent.num_rows else None
    n = len(user_ids)
    columns = {
        "user_id": user_ids,
        "campaign_id": pa.repeat(pa.scalar(IMAGINED, pa.string()), n),
        "sent_at": pa.repeat(pa.scalar(at.replace(tzinfo=None), pa.timestamp("us")), n),
        "channel": pa.repeat(pa.scalar(channel, pa.string()), n),
    }
    schema = sent.schema
    arrays = [columns.get(field.name, pa.nulls(n)).cast(field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


IMAGINED = "imagined"
"""The campaign of a touch that was not sent."""
