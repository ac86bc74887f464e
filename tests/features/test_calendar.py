"""Holidays fall where the law puts them, and calendar features say what the past showed, nothing of what came later."""

from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panels import plain_panel

from features.calendar import calendar_features, country_fault, public_holidays
from features.demand import features, level
from features.known import Known
from features.panels import Panel
from features.periods import Frequency

GERMAN_2018 = {
    "2018-01-01", "2018-01-06", "2018-03-30", "2018-04-01", "2018-04-02", "2018-05-01", "2018-05-10", "2018-05-20",
    "2018-05-21", "2018-05-31", "2018-10-03", "2018-11-01", "2018-12-24", "2018-12-25", "2018-12-26", "2018-12-31",
}  # fmt: skip
START, N_DAYS, HORIZON = date(2016, 1, 4), 1000, 120
RATES = np.array([2.0, 5.0, 9.0, 4.0])
ON_HOLIDAYS = np.array([3.0, 0.5, 1.0, 2.0])


def days(first: str, after: str) -> np.ndarray:
    return np.arange(first, after, dtype="datetime64[D]")


def panel_of(sold: np.ndarray, country: str | None, frequency: Frequency = "day", horizon: int = HORIZON) -> Panel:
    in_the_south = np.arange(len(sold)) >= 2
    return plain_panel(
        sold,
        horizon,
        since=START.isoformat(),
        frequency=frequency,
        location_ids=tuple(np.where(in_the_south, "south", "north").tolist()),
        location=in_the_south.astype(np.int64),
        min_periods=1,
        country=country,
    )


@pytest.fixture(scope="module")
def known() -> Panel:
    """Four series whose weekdays differ; on holidays each sells its own multiple of a usual Thursday."""
    dates = np.datetime64(START) + np.arange(N_DAYS)
    weekday = np.arange(N_DAYS) % 7
    usual = RATES[:, None] * (1 + weekday)
    holiday = public_holidays(dates, "DE-BW") != ""
    return panel_of(np.where(holiday, 4 * (RATES * ON_HOLIDAYS)[:, None], usual), "DE-BW")


def known_at(panel: Panel, origin: int) -> Known:
    return Known(panel, origin, level(panel, origin)[:, None])


def columns(panel: Panel, origin: int) -> dict[str, np.ndarray]:
    shape = (len(panel.item_ids), panel.horizon)
    return {name: np.broadcast_to(v, shape) for name, v in calendar_features(known_at(panel, origin)).items()}


def test_the_holidays_of_a_state_are_those_of_its_law_and_the_days_that_belong_to_them():
    year = days("2018-01-01", "2019-01-01")
    assert set(year[public_holidays(year, "DE-BW") != ""].astype(str)) == GERMAN_2018
    assert not set(year[public_holidays(year, "DE-BE") != ""].astype(str)) & {"2018-01-06", "2018-11-01"}


def test_easter_is_the_churchs_own():
    spring = days("2024-03-01", "2024-06-01")
    found = {
        country: spring[public_holidays(spring, country) == "Easter Sunday"].astype(str) for country in ("DE", "GR")
    }
    assert {country: dates.tolist() for country, dates in found.items()} == {"DE": ["2024-03-31"], "GR": ["2024-05-05"]}


def test_a_country_without_christmas_has_no_eve_of_it():
    assert public_holidays(days("2024-12-24", "2024-12-26"), "JP").tolist() == ["", ""]


def test_days_off_for_others_are_one_kind():
    assert "Day off" in public_holidays(days("2024-02-01", "2024-03-01"), "CN")


@pytest.mark.parametrize("country", ["DE", "DE-BW", "US-CA", "CN"])
def test_known_countries_have_no_fault(country: str):
    assert not country_fault(country)


@pytest.mark.parametrize("country", ["de", "Germany", "XX", "DE-XX", ""])
def test_unknown_countries_have_one(country: str):
    assert country_fault(country)


def test_a_holiday_is_compared_with_usual_days_around_it(known: Panel):
    found = columns(known, N_DAYS)
    holiday = found["holiday"][0] == 1
    names = public_holidays(known.dates[N_DAYS:], "DE-BW")
    assert set(names[holiday]) >= {"German Unity Day", "All Saints' Day", "Christmas Day"}
    for name in ("holiday_ratio", "holiday_ratio_any"):
        np.testing.assert_allclose(
            found[name][:, holiday], np.repeat(ON_HOLIDAYS[:, None], holiday.sum(), 1), rtol=0.06
        )
        assert np.isnan(found[name][:, ~holiday]).all()
    weight = RATES * ON_HOLIDAYS
    here = [weight[:2].sum() / RATES[:2].sum()] * 2 + [weight[2:].sum() / RATES[2:].sum()] * 2
    np.testing.assert_allclose(found["holiday_ratio_of_location"][:, holiday][:, 0], here, rtol=0.06)
    np.testing.assert_allclose(found["holiday_ratio_of_all"][0, holiday], weight.sum() / RATES.sum(), rtol=0.06)


def test_a_holiday_never_seen_is_unknown_of_itself_only(known: Panel):
    found = columns(known, 120)
    unseen = public_holidays(known.dates[120:240], "DE-BW") == "Pentecost"
    assert np.isnan(found["holiday_ratio"][:, unseen]).all()
    assert np.isfinite(found["holiday_ratio_any"][:, unseen]).all()


def test_a_weekday_is_known_by_days_that_are_no_holidays(known: Panel):
    found = columns(known, N_DAYS)
    scale = known_at(known, N_DAYS).level
    weekday = (N_DAYS + np.arange(HORIZON)) % 7
    for name in ("weekday_mean_182", "weekday_mean_364", "weekday_high"):
        np.testing.assert_allclose(found[name] * scale, RATES[:, None] * (1 + weekday), rtol=1e-5)
    np.testing.assert_allclose(found["weekday_std"], 0, atol=1e-5)
    sunday = found["sunday_on_holiday"][:, found["holiday"][0] == 1]
    np.testing.assert_allclose(sunday * scale, np.repeat(7 * RATES[:, None], sunday.shape[1], 1), rtol=1e-5)


@settings(max_examples=20, deadline=None)
@given(origin=st.integers(1, 500), seed=st.integers(0, 99))
def test_statistics_of_weekdays_are_those_of_a_slow_reading(origin: int, seed: int):
    rng = np.random.default_rng(seed)
    panel = replace(panel_of(rng.poisson(3, (2, 500)), None), exposure=(rng.random((2, 500)) < 0.8).astype(np.float32))
    found, scale = columns(panel, origin), known_at(panel, origin).level[:, 0]
    for row in range(2):
        recent = [t for t in range(max(0, origin - 364), origin) if panel.exposure[row, t] and (t - origin) % 7 == 3]
        units = panel.sold[row, recent]
        assert np.isnan(found["weekday_mean_364"][row, 3]) == (not recent)
        if recent:
            assert found["weekday_mean_364"][row, 3] * scale[row] == pytest.approx(units.mean(), rel=1e-4)
            assert found["weekday_high"][row, 3] * scale[row] == pytest.approx(np.quantile(units, 0.9), rel=1e-4)
            assert found["weekday_std"][row, 3] * scale[row] == pytest.approx(units.std(), rel=1e-3, abs=1e-3)


def test_what_does_not_count_is_no_example(known: Panel):
    rng = np.random.default_rng(1)
    closed = rng.random(known.exposure.shape) < 0.2
    shut = replace(known, exposure=np.where(closed, np.float32(0), known.exposure))
    otherwise = replace(shut, sold=np.where(closed, np.float32(1e6), known.sold))
    for one, other in zip(columns(shut, 900).values(), columns(otherwise, 900).values(), strict=True):
        np.testing.assert_array_equal(one, other)


@settings(max_examples=10, deadline=None)
@given(origin=st.integers(1, N_DAYS - 1), units=st.floats(0, 1e5, width=32))
def test_what_comes_after_the_origin_changes_nothing(known: Panel, origin: int, units: float):
    sold = known.sold.copy()
    sold[:, origin:] = units
    changed = columns(replace(known, sold=sold), origin)
    for name, values in columns(known, origin).items():
        np.testing.assert_array_equal(values, changed[name], err_msg=name)


def test_the_neighbourhood_of_a_target_is_that_of_the_calendar(known: Panel):
    found = columns(known, N_DAYS)
    at = int((np.datetime64("2018-11-02") - known.dates[N_DAYS]).astype(int))
    around = {name: found[name][0, at] for name in found if name.startswith("holiday") and "ratio" not in name}
    assert around == {
        "holiday": 0, "holiday_day_before": 1, "holiday_2_days_before": 0, "holiday_day_after": 0,
        "holiday_2_days_after": 0, "holidays_around": 1,
    }  # fmt: skip
    assert np.isnan(found["days_since_easter"][0, at])


def test_easter_is_near_before_and_after():
    panel = panel_of(np.ones((1, 100)), "DE", horizon=100)
    found = columns(panel, 60)["days_since_easter"][0]
    at = int((np.datetime64("2016-03-27") - panel.dates[60]).astype(int))
    assert found[at - 5 : at + 3].tolist() == [-5, -4, -3, -2, -1, 0, 1, 2]


def test_without_a_country_only_weekdays_are_known(known: Panel):
    assert all(name.startswith("weekday_") for name in columns(replace(known, country=None), 500))


@pytest.mark.parametrize(("frequency", "start", "n"), [("week", "2016-12-26", 3), ("month", "2016-05-01", 4)])
def test_weeks_and_months_count_their_holidays(frequency: Frequency, start: str, n: int):
    panel = panel_of(np.ones((1, 60)), "DE", frequency, horizon=6)
    origin = int(np.flatnonzero(panel.dates == np.datetime64(start))[0])
    found = columns(panel, origin)
    assert list(found) == ["holidays"]
    assert found["holidays"][0, 0] == n
    assert not columns(replace(panel, country=None), origin)


def test_a_forecast_reads_them(known: Panel):
    names, values = features(known, 900)
    assert values.shape == (4, HORIZON, len(names))
    assert {"holiday_ratio", "weekday_mean_364", "days_since_easter"} <= set(names)
