"""The features of a forecast: one row per series and horizon step, from the past of an origin alone.

Shapes: S series, H horizon steps, F features, G groups. An origin is the number of periods known: the periods before it
are its past, period ``origin + h`` is the target of step ``h``. Periods in which an item could not be bought are absent
from every lag, mean and count: sums of units are divided by sums of exposure.
"""

from collections.abc import Callable

import numpy as np

from features.calendar import calendar_features
from features.known import Known, latest, mean, ratio, summed
from features.panels import PRICES, PROMOTIONS, Floats, Ints, Panel
from features.periods import DAYS, SEASON, YEAR
from features.price_features import price_features, promotion_features

LEVEL_WINDOW = {"day": 56, "week": 26, "month": 12}
ROLLING_WINDOWS = {"day": (7, 14, 28, 91, 364), "week": (2, 4, 8, 13, 52), "month": (2, 3, 6, 12, 24)}
N_LAGS = {"day": 7, "week": 4, "month": 3}

_PROFILE_SEASONS = {"day": 8, "week": 2, "month": 3}
_AROUND_A_YEAR_AGO = {"day": 3, "week": 1, "month": 0}


def features(panel: Panel, origin: int) -> tuple[tuple[str, ...], Floats]:
    """What is known at an origin about every series and horizon step.

    Units are divided by the series' ``level``, money by its mean price; NaN is unknown. Training and serving call this
    same function; nothing of the panel from the origin on is read but dates and offers.

    origin : periods known, 1 to P
    Returns the names of the F features and float32, shape (S, H, F).
    """
    return _stacked(
        panel,
        origin,
        _step_and_level,
        _lags,
        _rolling,
        _intermittency,
        price_features,
        _groups,
        _season,
        _a_year_ago,
        _calendar,
        calendar_features,
        promotion_features,
        _covariates,
    )


def offered_features(panel: Panel, origin: int) -> tuple[tuple[str, ...], Floats]:
    """Those of ``features`` that read offers from the origin on: no other changes when a plan does.

    Returns the names of the f features and float32, shape (S, H, f).
    """
    return _stacked(panel, origin, price_features, promotion_features, _covariates)


def _stacked(
    panel: Panel, origin: int, *families: Callable[[Known], dict[str, Floats]]
) -> tuple[tuple[str, ...], Floats]:
    known = Known(panel, origin, level(panel, origin)[:, None])
    columns = {name: values for family in families for name, values in family(known).items()}
    shape = (len(panel.item_ids), panel.horizon)
    return tuple(columns), np.stack([np.broadcast_to(v, shape).astype(np.float32) for v in columns.values()], axis=-1)


def level(panel: Panel, origin: int) -> Floats:
    """Mean units per period of the latest ``LEVEL_WINDOW`` periods known at the origin, at least one unit in that time.

    Returns float32, shape (S,), units, > 0.
    """
    window = LEVEL_WINDOW[panel.frequency]
    recent = slice(max(0, origin - window), origin)
    counted = panel.exposure[:, recent] > 0
    sold = np.where(counted, panel.sold[:, recent], 0).sum(axis=1)
    rate = ratio(sold, panel.exposure[:, recent].sum(axis=1))
    return np.maximum(np.nan_to_num(rate), np.float32(1 / window))


def _step_and_level(known: Known) -> dict[str, Floats]:
    steps = np.arange(1, known.panel.horizon + 1, dtype=np.float32)
    return {"step": steps, "level": np.log(known.level)}


def _lags(known: Known) -> dict[str, Floats]:
    n = N_LAGS[known.panel.frequency]
    missing = np.full((len(known.relative), n), np.nan, np.float32)
    padded = np.concatenate([missing, known.relative], axis=1)
    return {f"lag_{lag}": padded[:, -lag, None] for lag in range(1, n + 1)}


def _rolling(known: Known) -> dict[str, Floats]:
    windows = ROLLING_WINDOWS[known.panel.frequency]
    means = {f"mean_{n}": _recent_rate(known, n) / known.level for n in windows}
    deviations = {f"std_{n}": _std(latest(known.relative, n))[:, None] for n in windows[2:4]}
    return means | deviations


def _recent_rate(known: Known, n: int) -> Floats:
    """Units per period of exposure in the latest ``n`` periods, shape (S, 1)."""
    sums = (latest(values, n).sum(axis=1, keepdims=True) for values in (known.sold, known.exposure))
    return ratio(*sums)


def _std(values: Floats) -> Floats:
    variance: Floats = mean(values**2) - mean(values) ** 2
    return np.sqrt(np.maximum(variance, 0))


def _intermittency(known: Known) -> dict[str, Floats]:
    sold, past = known.sold > 0, known.panel.sold[:, : known.origin]
    age = (~np.isnan(past)).sum(axis=1)
    since = np.where(sold.any(axis=1), np.argmax(sold[:, ::-1], axis=1), known.origin)
    zero = np.where(np.isnan(known.relative), np.nan, ~sold).astype(np.float32)
    shares = {f"zero_share_{n}": mean(latest(zero, n))[:, None] for n in (4, 13)}
    exposures = {f"exposure_{n}": latest(known.exposure, n).mean(axis=1, keepdims=True) for n in (1, 13)}
    return {"periods_since_first_sale": age[:, None], "periods_since_last_sale": since[:, None], **shares, **exposures}


def _groups(known: Known) -> dict[str, Floats]:
    """Latest sales of the item, the category, the place and everything over what their series' levels promise."""
    panel, windows = known.panel, (1, *ROLLING_WINDOWS[known.panel.frequency][:3])
    groups = {
        "item": known.item,
        "category": panel.category,
        "location": panel.location,
        "shop": np.zeros_like(panel.category),
    }
    columns = {}
    for name, group in groups.items():
        sold, promised = (summed(values * known.held, group) for values in (known.sold, known.exposure * known.level))
        for n in windows:
            trend = ratio(latest(sold, n).sum(axis=1), latest(promised, n).sum(axis=1))
            columns[f"{name}_trend_{n}"] = trend[group, None]
        columns[f"{name}_season"] = _profile(sold, promised, known)[group]
    return columns


def _profile(sold: Floats, promised: Floats, known: Known) -> Floats:
    """Sales over promise at the target's place in the season, over the latest seasons, shape (G, H)."""
    frequency = known.panel.frequency
    back = [_ago(known, SEASON[frequency], k) for k in range(_PROFILE_SEASONS[frequency])]
    return ratio(_sum_at(sold, back), _sum_at(promised, back))


def _season(known: Known) -> dict[str, Floats]:
    """The same period one season ago, and the mean of up to four seasons, as far as the origin knows them."""
    season = SEASON[known.panel.frequency]
    seen = np.stack([_at(known.relative, _ago(known, season, k)) for k in range(4)], axis=-1)
    return {"season_1": seen[:, :, 0], "season_mean_4": mean(seen)}


def _a_year_ago(known: Known) -> dict[str, Floats]:
    """Sales around the target a year ago over those before the origin's day: of the series, its category, the shop."""
    panel = known.panel
    groups = {"category": panel.category, "shop": np.zeros_like(panel.category)}
    own = {"growth_a_year_ago": _growth_a_year_ago(known, known.sold, known.exposure)}
    return own | {
        f"{name}_growth_a_year_ago": _growth_a_year_ago(
            known, summed(known.sold, group), summed(known.exposure * known.level, group)
        )[group]
        for name, group in groups.items()
    }


def _growth_a_year_ago(known: Known, sold: Floats, promised: Floats) -> Floats:
    frequency = known.panel.frequency
    around = _AROUND_A_YEAR_AGO[frequency]
    target = _ago(known, YEAR[frequency], 0)
    days = [target + k for k in range(-around, around + 1)]
    then = max(known.origin - YEAR[frequency], 0)
    before = slice(max(then - LEVEL_WINDOW[frequency], 0), then)
    usual = ratio(*(values[:, before].sum(axis=1, keepdims=True) for values in (sold, promised)))
    return ratio(ratio(_sum_at(sold, days), _sum_at(promised, days)), usual)


def _ago(known: Known, season: int, k: int) -> Ints:
    """The latest known period at each target's place in a season, and ``k`` seasons before that; shape (H,)."""
    steps = np.arange(known.panel.horizon)
    return known.origin + steps - season * (steps // season + 1 + k)


def _at(values: Floats, periods: Ints) -> Floats:
    """Columns of what is known, NaN for a period outside of it."""
    inside = (periods >= 0) & (periods < values.shape[1])
    return np.where(inside, values[:, np.where(inside, periods, 0)], np.float32(np.nan))


def _sum_at(values: Floats, periods: list[Ints]) -> Floats:
    return np.asarray(sum(np.nan_to_num(_at(values, each)) for each in periods), np.float32)


def _calendar(known: Known) -> dict[str, Floats]:
    """Weekday, day of the month, and day of the year once the past covers one: an unseen season looks like a trend."""
    ahead = known.panel.dates[known.ahead]
    year, month = ahead.astype("datetime64[Y]"), ahead.astype("datetime64[M]")
    in_year, in_month = ((ahead - start).astype(np.float32) for start in (year, month))
    years_seen = known.origin * DAYS[known.panel.frequency] / 365
    weekday = ((ahead.astype("datetime64[D]").astype(np.int64) + 3) % 7).astype(np.float32)
    return {
        "day_of_year": in_year if years_seen >= 1 else np.full_like(in_year, np.nan),
        "day_of_month": in_month,
        "weekday": weekday,
    }


def _covariates(known: Known) -> dict[str, Floats]:
    """Further columns of the offers at the target, as they are."""
    offers = known.panel.offers
    return {name: offers[name][:, known.ahead] for name in offers if name not in (*PRICES, *PROMOTIONS)}
