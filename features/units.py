"""The units of whom propensity models are asked, each behind the contract of ``features.targets``."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features import categories, customers, sessions, touches
from features.engine import Engine
from features.targets import ALL, Examples, Target, Unit, UnitName, instant, joined, moments, newest


class Customers:
    """Customers, asked at equal steps of time."""

    keys: tuple[str, ...] = ("person_id",)
    numbers = customers.NUMBERS
    texts = customers.TEXTS
    recency_frequency: tuple[str, ...] = ("days_since_last_order", "n_orders_91d")

    def examples(
        self, log: Engine, target: Target, since: datetime, until: datetime, step: timedelta, most: int = ALL
    ) -> Examples:
        def happened(asked: pa.Table, at: datetime) -> NDArray[np.bool_]:
            return customers.did(log, target.event, at, at + target.horizon, asked["person_id"].to_pylist())

        return _asked_at_steps(self, happened, log, target, moments(since, until - target.horizon, step), until, most)

    def present(self, log: Engine, target: Target, as_of: datetime) -> pa.Table:
        return customers.eligible(customers.customer_features(log, as_of), target.eligible_days)


class CustomersInCategories:
    """Customers in every category they bought in, asked at equal steps of time."""

    keys: tuple[str, ...] = categories.KEYS
    numbers = categories.NUMBERS
    texts = categories.TEXTS
    recency_frequency: tuple[str, ...] = ("days_since_last_category_order", "n_category_days_182d")

    def examples(
        self, log: Engine, target: Target, since: datetime, until: datetime, step: timedelta, most: int = ALL
    ) -> Examples:
        def happened(asked: pa.Table, at: datetime) -> NDArray[np.bool_]:
            return categories.bought_again(log, at, at + target.horizon, asked)

        return _asked_at_steps(self, happened, log, target, moments(since, until - target.horizon, step), until, most)

    def present(self, log: Engine, target: Target, as_of: datetime) -> pa.Table:
        found = categories.category_features(log, as_of)
        return found.filter(pc.field("days_since_last_category_order") <= target.eligible_days)


class Touches:
    """Touches of campaigns, asked on the day on which they were sent.

    held_out_too : whether those that were held back from a customer are among the examples
    """

    keys: tuple[str, ...] = touches.KEYS
    numbers = touches.NUMBERS
    texts = touches.TEXTS
    recency_frequency: tuple[str, ...] = ("days_since_last_order", "n_orders_91d")

    def __init__(self, held_out_too: bool = False) -> None:
        self.held_out_too = held_out_too

    def examples(
        self, log: Engine, target: Target, since: datetime, until: datetime, step: timedelta, most: int = ALL
    ) -> Examples:
        del step
        sent = touches.touches(log, target.event, target.horizon_days, until)
        sent = sent.filter(pc.field("sent_at") >= instant(since))
        if not self.held_out_too:
            sent = sent.filter(pc.coalesce(sent["treated"], True))
        matured = _after(_instants(sent["sent_at"]), target.horizon)
        certain = matured <= instant(until)
        days = _newest_day_first(sent.filter(pa.array(certain)))
        parts = newest((self._asked(log, target, day) for day in days), most)
        found = joined(parts, lambda: self._with_customers(log, sent.slice(0, 0), until))
        return Examples(found.table, found.moment, found.matured, found.outcome, int((~certain).sum()))

    def _asked(self, log: Engine, target: Target, sent: pa.Table) -> Examples:
        moment = _instants(sent["sent_at"])
        table = self._with_customers(log, sent, moment[0].astype("datetime64[D]").item())
        outcome = sent["responded_at"].is_valid().to_numpy() == target.happens
        return Examples(table, moment, _after(moment, target.horizon), outcome)

    def _with_customers(self, log: Engine, sent: pa.Table, as_of: datetime) -> pa.Table:
        at = datetime(as_of.year, as_of.month, as_of.day, tzinfo=UTC)
        return touches.with_customers(log, sent, at).select([*self.keys, "treated", *self.numbers, *self.texts])

    def present(self, log: Engine, target: Target, as_of: datetime) -> pa.Table:
        """Every eligible customer as if touched now, by the channel of the last campaign."""
        sent = log.select("select * from campaign_touches where sent_at < cast($as_of as timestamp)", as_of=as_of)
        asked = customers.eligible(customers.customer_features(log, as_of), target.eligible_days)["person_id"]
        more = touches.imagined(sent, asked.combine_chunks(), as_of)
        imagined = log.bind(campaign_touches=pa.concat_tables([sent, more], promote_options="default"))
        found = touches.touches(imagined, target.event, target.horizon_days, as_of + timedelta(microseconds=1))
        return self._with_customers(log, found.filter(pc.field("sent_at") == instant(as_of)), as_of)


class Sessions:
    """Running visits, asked after every event until the first purchase."""

    keys: tuple[str, ...] = ("visitor_id", "session_id", "event_id")
    numbers = sessions.NUMBERS
    texts = sessions.TEXTS
    recency_frequency: tuple[str, ...] = ("n_carts", "n_views")

    def examples(
        self, log: Engine, target: Target, since: datetime, until: datetime, step: timedelta, most: int = ALL
    ) -> Examples:
        del step
        since = max(since, sessions.day_since_which(log, until, most))
        rows = sessions.session_progress(log, since, until).filter(pc.field("n_purchases") == 0)
        moment = rows["started_us"].to_numpy().astype("datetime64[us]")
        matured = _after(_instants(rows["known_at"]), sessions.SETTLED)
        outcome = (rows["n_purchases_to_come"].to_numpy() > 0) == target.happens
        certain = matured <= instant(until)
        return Examples(self._known(rows), moment, matured, outcome, int((~certain).sum())).take(certain)

    def present(self, log: Engine, target: Target, as_of: datetime) -> pa.Table:
        """Nobody: a visit is asked while it runs, event by event."""
        del target
        nobody = log.narrow({"events": "select * from events where 1 = 0"})
        return self._known(sessions.session_progress(nobody, as_of, as_of))

    def _known(self, rows: pa.Table) -> pa.Table:
        return rows.select([*self.keys, *self.numbers, *self.texts])


UNITS: dict[UnitName, Unit] = {
    "user": Customers(),
    "user_category": CustomersInCategories(),
    "touch": Touches(),
    "session": Sessions(),
}


def _asked_at_steps(
    unit: Unit,
    happened: Callable[[pa.Table, datetime], NDArray[np.bool_]],
    log: Engine,
    target: Target,
    asked_at: Iterator[datetime],
    until: datetime,
    most: int,
) -> Examples:
    """Everybody there is at each moment, and whether it happened to them."""

    def asked(at: datetime) -> Examples:
        table = unit.present(log, target, at)
        moment = np.full(table.num_rows, instant(at))
        return Examples(table, moment, _after(moment, target.horizon), happened(table, at) == target.happens)

    return joined(newest(map(asked, asked_at), most), lambda: unit.present(log, target, until))


def _after(moment: NDArray[np.datetime64], pause: timedelta) -> NDArray[np.datetime64]:
    return np.asarray(moment + np.timedelta64(pause), "datetime64[us]")


def _instants(column: pa.ChunkedArray) -> NDArray[np.datetime64]:
    return np.asarray(column.to_numpy(), "datetime64[us]")


def _newest_day_first(sent: pa.Table) -> Iterator[pa.Table]:
    days = _instants(sent["sent_at"]).astype("datetime64[D]")
    for day in np.unique(days)[::-1]:
        yield sent.filter(pa.array(days == day))
