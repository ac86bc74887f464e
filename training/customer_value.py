"""What each customer has been worth, and what it promises for the next twelve months; the two are never added."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import isclose
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field, field_validator

from features.customers import order_summaries, orders_between, purchase_days
from features.engine import Engine
from features.errors import UserError
from features.windows import Window, time_window
from training import order_value, repeat_buying, segments
from training.config import CONFIG_FOLDER, Config
from training.order_value import OrderValue
from training.repeat_buying import OrderHistories, RepeatBuying
from training.value_metrics import decile_table, level_metrics, normalized_gini

Floats = NDArray[np.float64]

YEAR_DAYS = 365
CONFIGURATION = CONFIG_FOLDER / "customers" / "best.toml"
_MONTH_ENDS = np.rint(np.arange(1, 13) * YEAR_DAYS / 12)


class CustomersConfig(Config):
    """How customers' values are counted and which tiers are suggested."""

    yearly_discount: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share by which money of a year ahead is worth less than today's."""
    tiers: dict[str, Annotated[float, Field(gt=0, le=1)]]
    """Share of customers per membership tier, the best tier first; they sum to 1."""

    @field_validator("tiers")
    @classmethod
    def _of_everybody(cls, tiers: dict[str, float]) -> dict[str, float]:
        if not isclose(sum(tiers.values()), 1):
            raise ValueError(f"shares sum to {sum(tiers.values()):g}, not to 1")
        return tiers


@dataclass(frozen=True, slots=True)
class Season:
    """How sales rise and fall over a year: weights of an average day of January, February and so on."""

    monthly_sales: tuple[float, ...] | None

    def average_days(self, days: float, as_of: datetime, n_known: int) -> float:
        """The days from an instant on, counted in average days of those known before it.

        >>> christmas = Season((1.0,) * 11 + (2.0,))
        >>> christmas.average_days(31, datetime(2025, 12, 1), n_known=300)
        62.0
        """
        if self.monthly_sales is None:
            return days
        first, now = np.datetime64(as_of.date()) - n_known, np.datetime64(as_of.date())
        ahead = self._weights(now, now + round(days))
        return float(ahead.sum() / self._weights(first, now).mean())

    def _weights(self, first: np.datetime64, end: np.datetime64) -> Floats:
        months = np.arange(first, end).astype("datetime64[M]").astype(np.int64) % 12
        return np.array(self.monthly_sales)[months]


@dataclass(frozen=True, slots=True)
class CustomerValue:
    """Fitted models of orders and of their worth, and the customers as they were known at ``as_of``.

    histories, summaries : of the same n_customers, the latter as rows of ``order_summaries``
    """

    as_of: datetime
    season: Season
    buying: RepeatBuying
    order_value: OrderValue
    histories: OrderHistories
    summaries: pa.Table

    def probability_alive(self) -> Floats:
        return self.buying.probability_alive(self.histories)

    def expected_orders(self, days: float) -> Floats:
        """Days with an order within the days to come, shape (n_customers,)."""
        n_known = int(self.histories.to_end.max()) + 1
        return self.buying.expected_orders(self.histories, self.season.average_days(days, self.as_of, n_known))

    def expected_spend(self) -> Floats:
        """Money per order day to come, before refunds, shape (n_customers,)."""
        spend = pc.fill_null(self.summaries["repeat_day_spend"], 0.0).to_numpy()
        return self.order_value.expected(self.histories.repeats, spend)

    def yearly_value(self, yearly_discount: float) -> Floats:
        """Money expected in the twelve months to come, each discounted from its middle, shape (n_customers,)."""
        reached = np.array([np.zeros(self.summaries.num_rows), *map(self.expected_orders, _MONTH_ENDS)])
        weights = (1 - yearly_discount) ** ((np.arange(12) + 0.5) / 12)
        return np.asarray(weights @ np.diff(reached, axis=0) * self.expected_spend())


def fit(past: Engine, as_of: datetime, season: Season, as_published: bool = False) -> CustomerValue:
    """Fit on every order known at an instant.

    as_published : BG/NBD as it stands, for comparison
    Raises UserError when too few customers ordered or paid on a second day.
    """
    summaries = order_summaries(past, as_of)
    histories = OrderHistories.of(purchase_days(past, as_of), as_of)
    buying = repeat_buying.fit(histories, as_published)
    spend = pc.fill_null(summaries["repeat_day_spend"], 0.0).to_numpy()
    return CustomerValue(as_of, season, buying, order_value.fit(histories.repeats, spend), histories, summaries)


def customer_table(past: Engine, model: CustomerValue, config: CustomersConfig) -> pa.Table:
    """One row per customer: what was realised before ``as_of``, what is expected after it, segment and tier."""
    known = model.summaries
    realised, days_since = known["net_spend"].to_numpy(), known["days_since_last_order"].to_numpy()
    value = model.yearly_value(config.yearly_discount)
    recency, frequency, money = map(segments.scores, (-days_since, known["n_orders"].to_numpy(), realised))
    return pa.table(
        {
            "person_id": known["person_id"],
            "realised_revenue": realised,
            "realised_orders": known["n_orders"],
            "days_since_last_order": days_since,
            "expected_orders_12m": model.expected_orders(YEAR_DAYS),
            "predicted_value_12m": value,
            "probability_alive": model.probability_alive(),
            "recency_score": recency,
            "frequency_score": frequency,
            "money_score": money,
            "segment": segments.segments(recency, frequency, money, known["n_orders"].to_numpy()),
            "suggested_tier": segments.tiers(value, config.tiers),
            "membership_tier": _membership_tiers(past, known["person_id"]),
        }
    )


def _membership_tiers(past: Engine, person_ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """The tier that each customer has, null where the shop does not say."""
    users = past.select("select user_id, membership_tier from users")
    return users["membership_tier"].take(pc.index_in(person_ids, value_set=users["user_id"].combine_chunks()))


@dataclass(frozen=True, slots=True)
class Judged:
    """A back-test: models fitted ``days`` before an instant, judged on what came until then.

    rows : per model and target (orders, value) ``mae``, ``rmse``, ``correlation``, ``bias`` and ``gini``
    deciles : customers by falling predicted value, with sums of what was predicted and realised
    """

    as_of: datetime
    days: int
    rows: list[dict[str, Any]]
    deciles: list[dict[str, float]]


def back_test(engine: Engine, as_of: datetime, season: Season) -> Judged:
    """Judge on the last year, or on the last half of a history shorter than two years.

    Raises UserError when what lies before is too short to fit on.
    """
    first = engine.select("select min(day) as day from purchase_days", as_of=as_of)["day"][0].as_py()
    if first is None:
        raise UserError(f"nobody has ordered before {as_of:%Y-%m-%d}: ingest purchases or give a later --until")
    days = min(YEAR_DAYS, (as_of.date() - first).days // 2)
    return judge(time_window(engine, as_of - timedelta(days=days), as_of), season)


def judge(window: Window, season: Season) -> Judged:
    """Fit on a window's past, predict its days, and compare with what its customers did; BG/NBD is as published."""
    days = (window.end - window.as_of).days
    model = fit(window.past, window.as_of, season)
    person_ids = model.summaries["person_id"].to_pylist()
    realised = orders_between(window.truth, window.as_of, window.end, person_ids)
    orders, spend = realised["n_order_days"].to_numpy().astype(np.float64), realised["spend"].to_numpy()
    published = fit(window.past, window.as_of, Season(None), as_published=True)
    predictions = {
        "repeat_buying": _predicted(model, days),
        "bg_nbd": _predicted(published, days),
        "same_rate": _same_rate(model.summaries, days),
    }
    rows = [row for name, predicted in predictions.items() for row in _rows(name, predicted, (orders, spend))]
    return Judged(window.as_of, days, rows, decile_table(predictions["repeat_buying"][1], spend))


def _predicted(model: CustomerValue, days: int) -> tuple[Floats, Floats]:
    orders = model.expected_orders(days)
    return orders, orders * model.expected_spend()


def _same_rate(summaries: pa.Table, days: int) -> tuple[Floats, Floats]:
    """Orders and their money if everybody went on as before."""
    repeats, known_days = summaries["n_order_days"].to_numpy() - 1, summaries["days_since_first_order"].to_numpy()
    orders = repeats * days / np.maximum(known_days, 1)
    return orders, orders * pc.fill_null(summaries["repeat_day_spend"], 0.0).to_numpy()


def _rows(name: str, predicted: tuple[Floats, Floats], realised: tuple[Floats, Floats]) -> Iterator[dict[str, Any]]:
    for target, expected, came in zip(("orders", "value"), predicted, realised, strict=True):
        yield {
            "model": name,
            "target": target,
            **level_metrics(expected, came),
            "gini": normalized_gini(expected, came),
        }
