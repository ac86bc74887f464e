"""Demand panels, and the features of a forecast: one row per series and horizon step, from the past of an origin alone.

Shapes: S series, P past periods, H horizon steps, F features. An origin is the number of periods known: the periods
before it are its past, period ``origin + h`` is the target of step ``h``.
"""

import math
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.engine import Engine
from features.errors import UserError
from features.windows import Frequency, period_start

Floats = NDArray[np.float32]

PERIOD_DAYS = {"day": 1, "week": 7}
SEASON = {"day": 7, "week": 52}
LEVEL_WINDOW = {"day": 56, "week": 26}
ROLLING_WINDOWS = {"day": (7, 14, 28, 91, 364), "week": (2, 4, 8, 13, 52)}
N_LAGS = {"day": 7, "week": 4}

_MONDAY = np.datetime64("1969-12-29")
_PROMOTIONS = ("display", "mailer")
_PROMOTION_WINDOW = 26


@dataclass(frozen=True, slots=True)
class Panel:
    """Sales per series and period up to a cut-off, with what is planned for the horizon after it.

    item_ids, location_ids : the shop's, length S; location "" is all locations together
    dates : datetime64[D], shape (P + H,), first day of each period
    quantity : float32, shape (S, P), units, >= 0, NaN before the first sale
    revenue : float32, shape (S, P), money, 0 without a sale
    category : int64, shape (S,), number of the item's second category level, else its first
    offers : float32, shape (S, P + H) each: price and base_price in money, display and mailer as shares; NaN is unknown
    min_periods : periods with a sale that a series needs before it is forecast
    """

    item_ids: tuple[str, ...]
    location_ids: tuple[str, ...]
    dates: NDArray[np.datetime64]
    quantity: Floats
    revenue: Floats
    category: NDArray[np.int64]
    offers: dict[str, Floats]
    frequency: Frequency
    min_periods: int

    @property
    def n_periods(self) -> int:
        return int(self.quantity.shape[1])

    @property
    def horizon(self) -> int:
        return len(self.dates) - self.n_periods

    def eligible(self, origin: int) -> NDArray[np.bool_]:
        """The series, shape (S,), that a forecast at the origin covers: ``min_periods`` sales, pro rata of the past."""
        n_sales = (self.quantity[:, :origin] > 0).sum(axis=1)
        enough: NDArray[np.bool_] = n_sales >= self.min_periods * origin / self.n_periods
        return enough


def panel(
    past: Engine,
    as_of: datetime,
    frequency: Frequency,
    horizon: int,
    known_future: Engine | None,
    min_periods: int,
    by_location: bool = False,
) -> Panel:
    """The panel of what was sold in whole periods before ``as_of``.

    known_future : engine whose offers reach into the horizon; None: nothing is planned
    min_periods : see Panel; series with half as many sales are kept too, as examples of what is not forecast yet
    Raises UserError when no series was sold in ``min_periods`` periods.
    """
    start = period_start(as_of, frequency)
    days = PERIOD_DAYS[frequency]
    sold = past.query(
        "period_demand",
        as_of=start,
        period_days=days,
        by_location=int(by_location),
        least_periods=_least(min_periods),
    )
    end = int((np.datetime64(start.date()) - _MONDAY).astype(np.int64)) // days
    first = _numbers(sold["period"]).min(initial=end)
    quantity, revenue = (_filled(sold, name, first, end) for name in ("quantity", "revenue"))
    if not ((quantity > 0).sum(axis=1) >= min_periods).any():
        raise UserError(
            f"no item was sold in {min_periods} {frequency}s before {start:%Y-%m-%d}: "
            "lower min_periods or ingest more history"
        )
    series = sold.take(np.flatnonzero(np.diff(_numbers(sold["series_idx"]), prepend=-1)))
    plans = [past] if known_future is None else [past, known_future]
    return Panel(
        item_ids=tuple(series["item_id"].to_pylist()),
        location_ids=tuple(series["location_id"].to_pylist()),
        dates=_MONDAY + days * np.arange(first, end + horizon),
        quantity=_from_first_sale(quantity),
        revenue=revenue,
        category=_numbers(series["category"].combine_chunks().dictionary_encode().indices),
        offers=_offers(plans, series, days, range(first, end + horizon)),
        frequency=frequency,
        min_periods=min_periods,
    )


_SOLD = """
select series_idx, cast(floor((unix_date(day) + 3) / $period_days) as bigint) as period, sum(quantity) as quantity
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
    and (series.location_id = '' or series.location_id = coalesce(sold.location_id, ''))
group by series_idx, cast(floor((unix_date(day) + 3) / $period_days) as bigint)
"""


def sales(truth: Engine, end: datetime, of: Panel) -> Floats:
    """Units that a window's truth sold of a panel's series in the panel's horizon, 0 where it sold none.

    end : first instant that the truth does not hold, UTC
    Returns float32, shape (S, H), units, >= 0.
    """
    days = PERIOD_DAYS[of.frequency]
    keys = {"series_idx": range(len(of.item_ids)), "item_id": of.item_ids, "location_id": of.location_ids}
    found = truth.bind(series=pa.table({name: list(column) for name, column in keys.items()})).select(
        _SOLD, as_of=end, period_days=days
    )
    step = _numbers(found["period"]) - (of.dates[of.n_periods] - _MONDAY).astype(np.int64) // days
    inside = (step >= 0) & (step < of.horizon)
    units = np.zeros((len(of.item_ids), of.horizon), np.float32)
    units[_numbers(found["series_idx"])[inside], step[inside]] = np.asarray(found["quantity"])[inside]
    return np.maximum(units, 0)


def _least(min_periods: int) -> int:
    return math.ceil(min_periods / 2)


def _numbers(column: pa.ChunkedArray | pa.Array) -> NDArray[np.int64]:
    return np.asarray(column, np.int64)


def _filled(sold: pa.Table, name: str, first: int, end: int) -> Floats:
    series = _numbers(sold["series_idx"])
    filled = np.zeros((series.max(initial=-1) + 1, end - first), np.float32)
    filled[series, _numbers(sold["period"]) - first] = np.asarray(sold[name])
    return filled


def _from_first_sale(quantity: Floats) -> Floats:
    begun = np.logical_or.accumulate(quantity > 0, axis=1)
    return np.where(begun, quantity, np.float32(np.nan))


_OFFERS = """
select
    series_idx,
    cast(floor((unix_date(date) + 3) / $period_days) as bigint) as period,
    avg(price) as price,
    avg(base_price) as base_price,
    avg(display) as display,
    avg(mailer) as mailer
from offers
left join series on offers.item_id = series.item_id
    and (series.location_id = '' or offers.location_id is null or offers.location_id = series.location_id)
group by series_idx, cast(floor((unix_date(date) + 3) / $period_days) as bigint)
"""


def _offers(plans: list[Engine], series: pa.Table, days: int, periods: range) -> dict[str, Floats]:
    found = pa.concat_tables([plan.bind(series=series).select(_OFFERS, period_days=days) for plan in plans])
    column = _numbers(found["period"]) - periods.start
    inside = (column >= 0) & (column < len(periods))
    row = _numbers(found["series_idx"].fill_null(len(series)))[inside]
    offers = {}
    for name in ("price", "base_price", *_PROMOTIONS):
        values = np.full((len(series) + 1, len(periods)), np.nan, np.float32)
        values[row, column[inside]] = np.asarray(found[name].cast(pa.float32()))[inside]
        offers[name] = (_unplanned_is_zero(values) if name in _PROMOTIONS else values)[:-1]
    return offers


def _unplanned_is_zero(shares: Floats) -> Floats:
    """Where a period has any promotion, of whatever item, an item without one has none; else it is unknown."""
    planned = ~np.isnan(shares).all(axis=0)
    return np.where(planned & np.isnan(shares), np.float32(0), shares)


def features(panel: Panel, origin: int) -> tuple[tuple[str, ...], Floats]:
    """What is known at an origin about every series and horizon step.

    Units are divided by the series' ``level``, money by its mean price; NaN is unknown. Training and serving call this
    same function; nothing of the panel from the origin on is read but dates and offers.

    origin : periods known, 1 to P
    Returns the names of the F features and float32, shape (S, H, F).
    """
    past = panel.quantity[:, :origin]
    scale = level(panel, origin)[:, None]
    columns = {
        "step": np.arange(1, panel.horizon + 1),
        "level": np.log(scale),
        **_lags(past / scale, N_LAGS[panel.frequency]),
        **_rolling(past / scale, ROLLING_WINDOWS[panel.frequency]),
        **_intermittency(past),
        **_price(panel, origin),
        **_category(panel, origin),
        **_season(panel, origin, scale),
        **_calendar(panel, origin),
        **_promotion(panel, origin, scale),
    }
    shape = (len(past), panel.horizon)
    return tuple(columns), np.stack([np.broadcast_to(v, shape).astype(np.float32) for v in columns.values()], axis=-1)


def level(panel: Panel, origin: int) -> Floats:
    """Mean units per period of the latest ``LEVEL_WINDOW`` periods known at the origin, at least one unit in that time.

    Returns float32, shape (S,), units, > 0.
    """
    window = LEVEL_WINDOW[panel.frequency]
    recent = panel.quantity[:, max(0, origin - window) : origin]
    return np.maximum(np.nan_to_num(_mean(recent)), np.float32(1 / window))


def _mean(values: Floats) -> Floats:
    """Mean over the last axis of what is known; NaN where nothing is."""
    known = ~np.isnan(values)
    counted = known.sum(axis=-1)
    return np.where(counted > 0, np.nansum(values, axis=-1) / np.maximum(counted, 1), np.float32(np.nan))


def _latest(values: Floats, n: int) -> Floats:
    return values[:, max(0, values.shape[1] - n) :]


def _lags(past: Floats, n: int) -> dict[str, Floats]:
    missing = np.full((len(past), n), np.nan, np.float32)
    padded = np.concatenate([missing, past], axis=1)
    return {f"lag_{lag}": padded[:, -lag, None] for lag in range(1, n + 1)}


def _rolling(past: Floats, windows: tuple[int, ...]) -> dict[str, Floats]:
    means = {f"mean_{n}": _mean(_latest(past, n))[:, None] for n in windows}
    deviations = {f"std_{n}": _std(_latest(past, n))[:, None] for n in windows[2:4]}
    return means | deviations


def _std(values: Floats) -> Floats:
    variance: Floats = _mean(values**2) - _mean(values) ** 2
    return np.sqrt(np.maximum(variance, 0))


def _intermittency(past: Floats) -> dict[str, Floats]:
    sold = past > 0
    age = (~np.isnan(past)).sum(axis=1)
    since = np.where(sold.any(axis=1), np.argmax(sold[:, ::-1], axis=1), past.shape[1])
    zero = np.where(np.isnan(past), np.nan, ~sold).astype(np.float32)
    shares = {f"zero_share_{n}": _mean(_latest(zero, n))[:, None] for n in (4, 13)}
    return {"periods_since_first_sale": age[:, None], "periods_since_last_sale": since[:, None], **shares}


def _price(panel: Panel, origin: int) -> dict[str, Floats]:
    revenue, quantity = panel.revenue[:, :origin], np.nan_to_num(panel.quantity[:, :origin])
    usual, recent = (_ratio(_latest(revenue, n).sum(axis=1), _latest(quantity, n).sum(axis=1)) for n in (origin, 4))
    ahead = slice(origin, origin + panel.horizon)
    planned, base = panel.offers["price"][:, ahead], panel.offers["base_price"][:, ahead]
    return {
        "price": usual[:, None],
        "price_recent": _ratio(recent, usual)[:, None],
        "price_planned": _ratio(planned, usual[:, None]),
        "price_off_base": _ratio(planned, base),
    }


def _ratio(above: Floats, below: Floats) -> Floats:
    safe = np.where(below > 0, below, np.nan)
    return (above / safe).astype(np.float32)


def _category(panel: Panel, origin: int) -> dict[str, Floats]:
    """Latest sales of the category over its usual ones, of the series that a panel as of the origin would hold."""
    past = panel.quantity[:, :origin]
    held = (past > 0).sum(axis=1) >= _least(panel.min_periods)
    sold = np.zeros((panel.category.max() + 1, origin), np.float32)
    np.add.at(sold, panel.category[held], np.nan_to_num(past[held]))
    usual = _mean(_latest(sold, LEVEL_WINDOW[panel.frequency]))
    return {
        f"category_trend_{n}": _ratio(_mean(_latest(sold, n)), usual)[panel.category, None]
        for n in ROLLING_WINDOWS[panel.frequency][:2]
    }


def _season(panel: Panel, origin: int, scale: Floats) -> dict[str, Floats]:
    """The same period one season ago, and the mean of up to four seasons, as far as the origin knows them."""
    season = SEASON[panel.frequency]
    steps = np.arange(panel.horizon)
    nearest = origin + steps - season * (steps // season + 1)
    seen = np.stack([_at(panel.quantity, nearest - k * season) for k in range(4)], axis=-1) / scale[:, :, None]
    return {"season_1": seen[:, :, 0], "season_mean_4": _mean(seen)}


def _at(values: Floats, periods: NDArray[np.int64]) -> Floats:
    return np.where(periods >= 0, values[:, np.maximum(periods, 0)], np.nan).astype(np.float32)


def _calendar(panel: Panel, origin: int) -> dict[str, Floats]:
    """Weekday, and day of the year once the past covers one: an unseen season cannot be told from a trend."""
    ahead = panel.dates[origin : origin + panel.horizon]
    in_year = (ahead - ahead.astype("datetime64[Y]")).astype(np.float32)
    years_seen = origin * PERIOD_DAYS[panel.frequency] / 365
    weekday = ((ahead.astype("datetime64[D]").astype(np.int64) + 3) % 7).astype(np.float32)
    return {"day_of_year": in_year if years_seen >= 1 else np.full_like(in_year, np.nan), "weekday": weekday}


def _promotion(panel: Panel, origin: int, scale: Floats) -> dict[str, Floats]:
    """Display and mailer of the target, how usual they are, and what sold in periods promoted alike."""
    columns = {"mean_promoted_alike": _promoted_alike(panel, origin) / scale}
    for name in _PROMOTIONS:
        share = panel.offers[name]
        columns[name] = share[:, origin : origin + panel.horizon]
        columns[f"{name}_usual"] = _mean(_latest(share[:, :origin], 8))[:, None]
    return columns


def _promoted_alike(panel: Panel, origin: int) -> Floats:
    """Mean units, shape (S, H), of the latest known periods that were promoted at all, or not, as the target is."""
    share = np.fmax(panel.offers["display"], panel.offers["mailer"])
    known, ahead = _latest(share[:, :origin], _PROMOTION_WINDOW), share[:, origin : origin + panel.horizon]
    past = _latest(panel.quantity[:, :origin], _PROMOTION_WINDOW)
    promoted, usual = (_mean(np.where(alike, past, np.nan))[:, None] for alike in (known > 0, known == 0))
    return np.where(ahead > 0, promoted, np.where(ahead == 0, usual, np.nan)).astype(np.float32)
