"""Demand panels: what each series sold in each period, in how much of it it could be bought, and what is planned.

Shapes: S series, P past periods, H periods of the horizon.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.engine import Engine
from features.errors import UserError
from features.periods import NUMBER, Frequency, first_day, number, period_start

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

Keys = Sequence[tuple[str, str]]
"""Item and location of each series; location "" is all locations together."""

PROMOTIONS = ("display", "mailer")
PRICES = ("price", "base_price")

StockOuts = Literal["shared", "missing", "ignored"]
"""What a period counts for in which an item was not on sale all the time: for the share of it if that is half or more,
for nothing, or whole as if it had been."""
LEAST_SHARE: dict[StockOuts, float] = {"shared": 0.5, "missing": 1.0, "ignored": 0.0}
LEAST_OPEN_SERIES = 10
"""Series that a location must have on sale before a period without any sale counts as closed."""


@dataclass(frozen=True, slots=True)
class Panel:
    """Sales per series and period up to a cut-off, with what is planned for the horizon after it.

    item_ids, location_ids : the shop's, length S; location "" is all locations together
    dates : datetime64[D], shape (P + H,), first day of each period
    sold : float32, shape (S, P), units, >= 0, NaN before the first sale
    exposure : float32, shape (S, P), share of the period that counts: in which the item could be bought, 1 where
        nothing else was noted; 0 before the first sale, where the location was closed, and where ``StockOuts`` say so
    revenue : float32, shape (S, P), money, 0 without a sale
    category, location : int64, shape (S,), number of the item's second category level, else its first; of its place
    offers : float32, shape (S, P + H) each: price and base_price in money, display and mailer as shares, and what other
        columns of ``offers`` were asked for; NaN is unknown
    min_periods : periods with a sale that a series needs before it is forecast
    country : whose public holidays count, such as "DE-BW"; None: none do
    """

    item_ids: tuple[str, ...]
    location_ids: tuple[str, ...]
    dates: NDArray[np.datetime64]
    sold: Floats
    exposure: Floats
    revenue: Floats
    category: Ints
    location: Ints
    offers: dict[str, Floats]
    frequency: Frequency
    min_periods: int
    country: str | None = None

    @property
    def n_periods(self) -> int:
        return int(self.sold.shape[1])

    @property
    def horizon(self) -> int:
        return len(self.dates) - self.n_periods

    @property
    def demand(self) -> Floats:
        """Units per period had the item been on sale all the time, float32, shape (S, P); NaN where nobody knows."""
        return demand(self.sold, self.exposure)

    def eligible(self, origin: int) -> NDArray[np.bool_]:
        """The series, shape (S,), that a forecast at the origin covers: ``min_periods`` sales, pro rata of the past."""
        n_sales = (self.sold[:, :origin] > 0).sum(axis=1)
        enough: NDArray[np.bool_] = n_sales >= self.min_periods * origin / self.n_periods
        return enough


def demand(sold: Floats, exposure: Floats) -> Floats:
    """Units per whole period: ``sold / exposure``, NaN without exposure.

    That is the rate of a Poisson process that was observed for a part of the time; the rule by which the
    watch ended does not matter (Cox and Hinkley, "Theoretical Statistics", 1974, section 2.3).

    >>> demand(np.float32([6, 6, 6]), np.float32([1, 0.5, 0]))
    array([ 6., 12., nan], dtype=float32)
    """
    counted = exposure > 0
    return np.where(counted, sold / np.where(counted, exposure, 1), np.float32(np.nan))


@dataclass(frozen=True, slots=True)
class PanelSettings:
    """What a panel holds, beside the instant it is of.

    by_location : whether each location has its own series, or an item has one for all
    covariates : further columns of ``offers`` to read
    stock_outs : what periods count for in which an item was not on sale all the time
    country : whose public holidays count, such as "DE-BW"; None: none do
    """

    frequency: Frequency
    horizon: int
    min_periods: int
    by_location: bool = False
    covariates: tuple[str, ...] = field(default=())
    stock_outs: StockOuts = "shared"
    country: str | None = None


def panel(past: Engine, as_of: datetime, settings: PanelSettings, known_future: Engine | None) -> Panel:
    """The panel of what was sold in whole periods before ``as_of``.

    known_future : engine whose offers reach into the horizon; None: nothing is planned
    Series with half of ``min_periods`` sales are kept too, as examples of what is not forecast yet.
    Raises UserError when no series was sold in ``min_periods`` periods, or offers lack a covariate.
    """
    start = period_start(as_of, settings.frequency)
    sold = past.query(
        "period_demand",
        as_of=start,
        frequency=settings.frequency,
        by_location=int(settings.by_location),
        least_periods=least(settings.min_periods),
    )
    end = int(number(start.date(), settings.frequency))
    first = _numbers(sold["period"]).min(initial=end)
    quantity, revenue = (_filled(sold, name, first, end) for name in ("quantity", "revenue"))
    if not ((quantity > 0).sum(axis=1) >= settings.min_periods).any():
        raise UserError(
            f"no item was sold in {settings.min_periods} {settings.frequency}s before {start:%Y-%m-%d}: "
            "lower min_periods or ingest more history"
        )
    series = sold.take(np.flatnonzero(np.diff(_numbers(sold["series_idx"]), prepend=-1)))
    location = _coded(series["location_id"])
    begun = np.logical_or.accumulate(quantity > 0, axis=1)
    together = _together(series["location_id"].to_pylist())
    on_sale = _exposure(past, series, start, settings.frequency, range(first, end), together)
    exposure = np.ones_like(on_sale) if settings.stock_outs == "ignored" else on_sale
    counted = begun & _open(quantity, begun, location) & (exposure >= LEAST_SHARE[settings.stock_outs])
    plans = [past] if known_future is None else [past, known_future]
    return Panel(
        item_ids=tuple(series["item_id"].to_pylist()),
        location_ids=tuple(series["location_id"].to_pylist()),
        dates=first_day(np.arange(first, end + settings.horizon), settings.frequency),
        sold=np.where(begun, quantity, np.float32(np.nan)),
        exposure=np.where(counted, exposure, np.float32(0)),
        revenue=revenue,
        category=_coded(series["category"]),
        location=location,
        offers=_offers(plans, series, settings, range(first, end + settings.horizon)),
        frequency=settings.frequency,
        min_periods=settings.min_periods,
        country=settings.country,
    )


_SOLD = f"""
select series_idx, {NUMBER.format(day="day")} as period, sum(quantity) as quantity
from (
    select item_id, location_id, date as day, quantity from demand
    union all
    select
        item_id,
        location_id,
        cast(event_timestamp as date) as day,
        case when event_name = 'purchase' then quantity else -quantity end as quantity
    from known_events
    where event_name in ('purchase', 'refund') and not exists (select 1 from demand)
) sold
join series on sold.item_id = series.item_id
    and ($together = 1 or series.location_id = coalesce(sold.location_id, ''))
group by 1, 2
"""


def outcome(truth: Engine, end: datetime, of: Panel, keys: Keys | None = None) -> tuple[Floats, Floats]:
    """What a window's truth sold of series in a panel's horizon, and their exposure there.

    end : first instant that the truth does not hold, UTC
    keys : the series' items and locations; absent: those of the panel
    Returns two float32, shape (S, H): units >= 0, 0 where none was sold; share of the period on sale.
    """
    keys = list(zip(of.item_ids, of.location_ids, strict=True)) if keys is None else keys
    columns = {"item_id": [item for item, _ in keys], "location_id": [place for _, place in keys]}
    series = pa.table({"series_idx": range(len(keys)), **columns})
    together = _together(of.location_ids)
    found = truth.bind(series=series).select(_SOLD, as_of=end, frequency=of.frequency, together=together)
    first = int(number(of.dates[of.n_periods], of.frequency))
    ahead = range(first, first + of.horizon)
    units = _placed(found, "quantity", len(keys), ahead, np.float32(0))
    return np.maximum(units, 0), _exposure(truth, series, end, of.frequency, ahead, together)


_AVAILABLE = f"""
select
    series_idx,
    {NUMBER.format(day="date")} as period,
    avg(coalesce(available_fraction, case when on_hand <= 0 then 0.0 else 1.0 end)) as available
from stock
join series on stock.item_id = series.item_id
    and ($together = 1 or series.location_id = coalesce(stock.location_id, ''))
where date < cast(cast($as_of as timestamp) as date)
group by 1, 2
"""


def _exposure(
    known: Engine, series: pa.Table, as_of: datetime, frequency: Frequency, periods: range, together: int
) -> Floats:
    found = known.bind(series=series).select(_AVAILABLE, as_of=as_of, frequency=frequency, together=together)
    return _placed(found, "available", series.num_rows, periods, np.float32(1))


def _together(location_ids: Sequence[str]) -> int:
    """1 where a panel's series are of all locations together; else one without a place is of what names none."""
    return int(not any(location_ids))


def _open(quantity: Floats, begun: NDArray[np.bool_], location: Ints) -> NDArray[np.bool_]:
    """Whether a series' location was open, shape (S, P): of many items on sale, one at least was sold."""
    n_locations = location.max(initial=-1) + 1
    on_sale, sold = (np.zeros((n_locations, quantity.shape[1]), np.int64) for _ in range(2))
    np.add.at(on_sale, location, begun)
    np.add.at(sold, location, quantity > 0)
    return ((sold > 0) | (on_sale < LEAST_OPEN_SERIES))[location]


def least(min_periods: int) -> int:
    """Periods with a sale from which on a series is in a panel."""
    return math.ceil(min_periods / 2)


def _coded(column: pa.ChunkedArray) -> Ints:
    return _numbers(column.combine_chunks().dictionary_encode().indices)


def _numbers(column: pa.ChunkedArray | pa.Array) -> Ints:
    return np.asarray(column, np.int64)


def _filled(sold: pa.Table, name: str, first: int, end: int) -> Floats:
    return _placed(sold, name, _numbers(sold["series_idx"]).max(initial=-1) + 1, range(first, end), np.float32(0))


def _placed(found: pa.Table, name: str, n_series: int, periods: range, otherwise: np.float32) -> Floats:
    """A column of (series_idx, period) rows as an array [n_series, len(periods)]; other periods are left out."""
    column = _numbers(found["period"]) - periods.start
    inside = (column >= 0) & (column < len(periods))
    values = np.full((n_series, len(periods)), otherwise, np.float32)
    values[_numbers(found["series_idx"])[inside], column[inside]] = np.asarray(found[name].cast(pa.float32()))[inside]
    return values


_OFFERS = f"""
select series_idx, {NUMBER.format(day="date")} as period, {{columns}}
from offers
left join series on offers.item_id = series.item_id
    and ($together = 1 or offers.location_id is null or offers.location_id = series.location_id)
group by 1, 2
"""


def _offers(plans: Sequence[Engine], series: pa.Table, settings: PanelSettings, periods: range) -> dict[str, Floats]:
    for plan in plans:
        _require(settings.covariates, plan)
    names = tuple(dict.fromkeys((*PRICES, *PROMOTIONS, *settings.covariates)))
    text = _OFFERS.format(columns=", ".join(f'avg(cast("{name}" as double)) as "{name}"' for name in names))
    asked = {"frequency": settings.frequency, "together": _together(series["location_id"].to_pylist())}
    found = pa.concat_tables([plan.bind(series=series).select(text, **asked) for plan in plans])
    unmatched = found.set_column(0, "series_idx", found["series_idx"].fill_null(series.num_rows))
    offers = {name: _placed(unmatched, name, series.num_rows + 1, periods, np.float32(np.nan)) for name in names}
    return {name: (unplanned_is_zero(values) if name in PROMOTIONS else values)[:-1] for name, values in offers.items()}


def _require(covariates: Sequence[str], plan: Engine) -> None:
    there = plan.select("select * from offers limit 0").column_names
    if missing := sorted(set(covariates) - set(there)):
        raise UserError(
            f"offers have no column {', '.join(missing)}: covariates can be {', '.join(there)}; "
            "ingest the column or leave it out of covariates"
        )
    for name in covariates:
        word = plan.select(_WORD.format(name=name))["word"][0].as_py()
        if word is not None:
            raise UserError(f"column {name} of offers says {word}, a covariate is a number: leave it out of covariates")


_WORD = """
select min(cast("{name}" as string)) as word
from offers
where "{name}" is not null and try_cast(cast("{name}" as string) as double) is null
"""


def unplanned_is_zero(shares: Floats) -> Floats:
    """Where a period has any promotion, of whatever item, an item without one has none; else it is unknown.

    shares : float32, shape (S, n_periods), of every series of a panel
    """
    planned = ~np.isnan(shares).all(axis=0)
    return np.where(planned & np.isnan(shares), np.float32(0), shares)
