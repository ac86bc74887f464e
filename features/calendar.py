"""Public holidays, and what a forecast reads from the calendar: the target's weekday and holidays beside the past's.

Shapes: S series, H horizon steps, K holidays of different names. A day that is a holiday is no example of its weekday,
and a period that does not count (exposure 0) is an example of nothing.
"""

from collections.abc import Mapping
from datetime import date, timedelta
from functools import cache

import numpy as np
from numpy.typing import NDArray

from features.known import Known, mean, ratio, summed
from features.periods import first_day, number

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

EASTER_DAYS = 70
"""Days from Easter Sunday beyond which it is no matter."""
WEEKDAY_WINDOWS = (182, 364)
"""Days over which demand of a weekday is averaged."""

_USUAL_DAYS = 28
_A_SUNDAY = np.datetime64("1970-01-04")


def country_fault(country: str) -> str:
    """Why there are no public holidays of a country such as "DE" or "DE-BW"; "" where there are.

    >>> country_fault("DE-BW"), country_fault("Germany")
    ('', 'no country Germany: use an ISO 3166 code such as DE, or one with its subdivision such as DE-BW')
    >>> country_fault("DE-XX")[:36]
    'DE has no subdivision XX: it has BB,'
    """
    import holidays

    code, _, subdivision = country.partition("-")
    countries = holidays.list_supported_countries()
    if code not in countries:
        return f"no country {code}: use an ISO 3166 code such as DE, or one with its subdivision such as DE-BW"
    if subdivision not in ("", *countries[code]):
        return f"{code} has no subdivision {subdivision}: it has {', '.join(countries[code]) or 'none'}"
    return ""


def public_holidays(days: NDArray[np.datetime64], country: str) -> NDArray[np.str_]:
    """The name of the public holiday on each day, "" where there is none.

    The eves of Christmas and of the new year and the Sundays of Easter and of Pentecost count where the day to which
    they belong is a holiday.

    days : datetime64[D], shape (n,)
    country : ISO 3166 code, with a subdivision or without, such as "DE-BW"
    Source: the package ``holidays``, which computes them and asks no network.

    >>> public_holidays(np.array(["2024-03-31", "2024-05-01", "2024-05-02"], "datetime64[D]"), "DE").tolist()
    ['Easter Sunday', 'Labor Day', '']
    """
    names: dict[date, str] = {}
    for year in np.unique(days.astype("datetime64[Y]")).astype(int).tolist():
        names |= _of_year(country, 1970 + year)
    return np.array([names.get(day, "") for day in days.astype("datetime64[D]").astype(object)], np.str_)


@cache
def _of_year(country: str, year: int) -> Mapping[date, str]:
    import holidays

    code, _, subdivision = country.partition("-")
    listed = holidays.country_holidays(code, subdiv=subdivision or None, years=(year, year + 1), language="en_US")
    names = {day: name.partition(";")[0].partition(" (")[0] for day, name in listed.items()}
    beside = {"Christmas Eve": date(year, 12, 24), "New Year's Eve": date(year, 12, 31)}
    extra = {day: name for name, day in beside.items() if day + timedelta(1) in names}
    for easter in _easters(year):
        if easter + timedelta(1) in names or easter - timedelta(2) in names:
            extra[easter] = "Easter Sunday"
        if easter + timedelta(50) in names:
            extra[easter + timedelta(49)] = "Pentecost"
    return {day: name for day, name in (extra | names).items() if day.year == year}


def _easters(year: int) -> tuple[date, date]:
    from dateutil.easter import EASTER_ORTHODOX, EASTER_WESTERN, easter

    return easter(year, EASTER_WESTERN), easter(year, EASTER_ORTHODOX)


def calendar_features(known: Known) -> dict[str, Floats]:
    """What the calendar says of every series and step, arrays that broadcast to (S, H); NaN is unknown.

    Of days: demand on the target's weekday, and with a country the holidays around the target and what holidays of the
    past sold over usual days. Of weeks and months: the number of holidays in them, if a country is given.
    """
    panel = known.panel
    if panel.frequency != "day":
        return {} if panel.country is None else {"holidays": _holidays_within(known, panel.country)}
    if panel.country is None:
        return _weekdays(known, np.zeros(known.origin, bool))
    names = public_holidays(panel.dates, panel.country)
    holiday = names != ""
    return {
        **_weekdays(known, holiday[: known.origin]),
        **_near(known, panel.country),
        **_ratios(known, names),
        "sunday_on_holiday": np.where(holiday[known.ahead], _usual_sunday(known, holiday), np.float32(np.nan)),
    }


def _holidays_within(known: Known, country: str) -> Floats:
    """Public holidays in each target period, shape (H,)."""
    panel, ahead = known.panel, known.panel.dates[known.ahead]
    numbers = number(ahead, panel.frequency)
    starts, ends = first_day(numbers, panel.frequency), first_day(numbers + 1, panel.frequency)
    days = np.arange(starts[0], ends[-1])
    so_far = np.concatenate([[0], np.cumsum(public_holidays(days, country) != "")])
    first = (starts - starts[0]).astype(np.int64)
    after = (ends - starts[0]).astype(np.int64)
    return np.asarray(so_far[after] - so_far[first], np.float32)


def _weekdays(known: Known, holiday: NDArray[np.bool_]) -> dict[str, Floats]:
    """Demand on the target's weekday over the level, of days that are no holidays: means, upper decile, deviation."""
    weeks = _by_weekday(np.where(holiday, np.float32(np.nan), known.relative))
    means = {f"weekday_mean_{n}": mean(weeks[:, :, -(n // 7) :]) for n in WEEKDAY_WINDOWS}
    usual = means[f"weekday_mean_{WEEKDAY_WINDOWS[-1]}"]
    variance = mean((weeks - usual[:, :, None]) ** 2)
    columns = means | {"weekday_high": _upper_decile(weeks), "weekday_std": np.sqrt(variance)}
    steps = np.arange(known.panel.horizon) % 7
    return {name: values[:, steps] for name, values in columns.items()}


def _by_weekday(past: Floats) -> Floats:
    """The latest weeks, shape (S, 7, n): weekdays in the order in which they come after the origin."""
    longest = WEEKDAY_WINDOWS[-1]
    recent = past[:, max(0, past.shape[1] - longest) :]
    missing = np.full((len(recent), -recent.shape[1] % 7), np.nan, np.float32)
    weeks = np.concatenate([missing, recent], axis=1).reshape(len(recent), -1, 7)
    return np.ascontiguousarray(weeks.transpose(0, 2, 1))


def _upper_decile(values: Floats) -> Floats:
    """The value below which nine in ten of the known ones lie, over the last axis, between two neighbours linearly."""
    ascending = np.sort(values, axis=-1)
    place = 0.9 * np.maximum((~np.isnan(values)).sum(axis=-1, keepdims=True) - 1, 0)
    below, above = (np.take_along_axis(ascending, round_(place).astype(int), -1) for round_ in (np.floor, np.ceil))
    decile = below + (above - below) * (place - np.floor(place))
    return np.asarray(decile[..., 0], np.float32)


def _near(known: Known, country: str) -> dict[str, Floats]:
    """The target's neighbourhood, shape (H,): holidays on it, before and after it, and the days since Easter."""
    days = known.panel.dates[known.ahead].astype("datetime64[D]")
    around = np.arange(days[0] - 3, days[-1] + 4)
    holiday = (public_holidays(around, country) != "").astype(np.float32)
    shifted = {shift: holiday[3 + shift : 3 + shift + len(days)] for shift in range(-3, 4)}
    names = {-2: "holiday_2_days_before", -1: "holiday_day_before", 0: "holiday", 1: "holiday_day_after"}
    columns = {name: shifted[shift] for shift, name in {**names, 2: "holiday_2_days_after"}.items()}
    return columns | {"holidays_around": sum(shifted.values()), "days_since_easter": _since_easter(days, country)}


def _since_easter(days: NDArray[np.datetime64], country: str) -> Floats:
    """Days since the nearest Easter Sunday, negative before it; NaN far from it and where it is no holiday."""
    around = np.arange(days[0] - EASTER_DAYS, days[-1] + EASTER_DAYS + 1)
    easters = around[public_holidays(around, country) == "Easter Sunday"]
    if not len(easters):
        return np.full(len(days), np.nan, np.float32)
    since = (days[:, None] - easters).astype(np.float32)
    nearest = np.take_along_axis(since, np.abs(since).argmin(axis=1)[:, None], axis=1)[:, 0]
    return np.where(np.abs(nearest) <= EASTER_DAYS, nearest, np.float32(np.nan))


def _ratios(known: Known, names: NDArray[np.str_]) -> dict[str, Floats]:
    """What the target's holiday sold in the past over usual days around it: this one, any; of the series, of others.

    Ratios are of sums over the years, so that slow sellers do not have the loudest say.
    """
    _, kind = np.unique(names, return_inverse=True)
    sold, usual = _of_holidays(known, names != "", kind)
    place, target = known.panel.location, kind[known.ahead]
    columns = {
        "holiday_ratio": ratio(sold, usual)[:, target],
        "holiday_ratio_any": ratio(sold.sum(axis=1), usual.sum(axis=1))[:, None],
        "holiday_ratio_of_location": ratio(summed(sold, place), summed(usual, place))[place][:, target],
        "holiday_ratio_of_all": ratio(sold.sum(axis=0), usual.sum(axis=0))[target],
    }
    on_holiday = names[known.ahead] != ""
    return {name: np.where(on_holiday, values, np.float32(np.nan)) for name, values in columns.items()}


def _of_holidays(known: Known, holiday: NDArray[np.bool_], kind: Ints) -> tuple[Floats, Floats]:
    """Units on the past's holidays by kind, and what usual days around them promised for these days, shape (S, K)."""
    sold, usual = np.zeros((2, len(known.sold), kind.max() + 1), np.float32)
    for day in np.flatnonzero(holiday[: known.origin]).tolist():
        around = slice(max(0, day - _USUAL_DAYS), min(day + _USUAL_DAYS + 1, known.origin))
        plain = ~holiday[around]
        units, exposure = (values[:, around][:, plain].sum(axis=1) for values in (known.sold, known.exposure))
        promised = np.nan_to_num(ratio(units, exposure)) * known.exposure[:, day]
        sold[:, kind[day]] += np.where(promised > 0, known.sold[:, day], 0)
        usual[:, kind[day]] += promised
    return sold, usual


def _usual_sunday(known: Known, holiday: NDArray[np.bool_]) -> Floats:
    """Mean demand of a Sunday over the level, shape (S, 1)."""
    sunday = (known.panel.dates[: known.origin] - _A_SUNDAY).astype(np.int64) % 7 == 0
    recent = np.where(sunday & ~holiday[: known.origin], known.relative, np.float32(np.nan))
    return mean(recent[:, -WEEKDAY_WINDOWS[-1] :])[:, None]
