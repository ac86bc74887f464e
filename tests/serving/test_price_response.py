"""The price response finds the elasticities that made the data, and is the level where prices say nothing."""

from dataclasses import replace

import numpy as np
import pytest
from panels import plain_panel

from features.demand import level
from features.known import Known
from features.panels import Panel
from serving.price_response import LEAST, price_response
from serving.recipe import base_of

N_ITEMS, N_PLACES, N_WEEKS, HORIZON = 3, 20, 80, 2
N_SERIES = N_ITEMS * N_PLACES
ELASTICITY, CROSS, MAILER = -2.5, 1.0, 0.6


def expected(price: np.ndarray, mailer: np.ndarray) -> np.ndarray:
    """Units at prices and promotions, [S, P + H]; the series of a place follow each other every N_PLACES."""
    logs = np.log(price)
    total = logs.reshape(N_ITEMS, N_PLACES, -1).sum(axis=0)
    others = (np.tile(total, (N_ITEMS, 1)) - logs) / (N_ITEMS - 1)
    return 200 * np.exp(ELASTICITY * logs + CROSS * others + MAILER * mailer)


@pytest.fixture
def panel(rng: np.random.Generator) -> Panel:
    shape = (N_SERIES, N_WEEKS + HORIZON)
    price, mailer = rng.uniform(0.8, 1.25, shape), (rng.random(shape) < 0.25).astype(float)
    sold = (expected(price, mailer) * rng.lognormal(0, 0.1, shape))[:, :N_WEEKS].astype(np.float32)
    offers = {"price": price, "base_price": np.full(shape, np.nan), "display": np.zeros(shape), "mailer": mailer}
    return plain_panel(
        sold,
        HORIZON,
        item_ids=tuple(f"i{row // N_PLACES}" for row in range(N_SERIES)),
        location_ids=tuple(f"p{row % N_PLACES}" for row in range(N_SERIES)),
        location=np.arange(N_SERIES) % N_PLACES,
        offers=offers,
    )


def response(panel: Panel, origin: int = N_WEEKS) -> np.ndarray:
    return price_response(Known(panel, origin, level(panel, origin)[:, None]))


def with_offers(panel: Panel, **offers: np.ndarray) -> Panel:
    return replace(panel, offers={**panel.offers, **offers})


def test_it_forecasts_what_prices_and_promotions_make(panel: Panel):
    truth = expected(panel.offers["price"], panel.offers["mailer"])[:, N_WEEKS:]
    errors = np.abs(response(panel) / truth - 1)
    assert errors.mean() < 0.05
    assert np.abs(level(panel, N_WEEKS)[:, None] / truth - 1).mean() > 0.3


def test_a_cut_of_a_fifth_moves_demand_by_the_elasticity(panel: Panel):
    cut = panel.offers["price"].copy()
    cut[0, N_WEEKS] *= 0.8
    before, after = response(panel), response(with_offers(panel, price=cut))
    assert np.log(after[0, 0] / before[0, 0]) == pytest.approx(ELASTICITY * np.log(0.8), rel=0.1)
    assert np.log(after[N_PLACES, 0] / before[N_PLACES, 0]) == pytest.approx(CROSS * np.log(0.8) / 2, rel=0.2)


def test_a_series_of_little_history_reacts_as_its_item(panel: Panel):
    short = panel.sold.copy(), panel.exposure.copy()
    short[0][0, :-6], short[1][0, :-6] = np.nan, 0
    young = replace(panel, sold=short[0], exposure=short[1])
    cut = panel.offers["price"].copy()
    cut[0, N_WEEKS] *= 0.8
    moved = np.log(response(with_offers(young, price=cut))[0, 0] / response(young)[0, 0])
    assert moved == pytest.approx(ELASTICITY * np.log(0.8), rel=0.15)


def test_without_prices_it_is_the_level(panel: Panel):
    unknown = np.full_like(panel.offers["price"], np.nan)
    np.testing.assert_array_equal(
        response(with_offers(panel, price=unknown)), np.repeat(level(panel, N_WEEKS)[:, None], HORIZON, axis=1)
    )
    some = panel.offers["price"].copy()
    some[0, N_WEEKS + 1] = np.nan
    found = response(with_offers(panel, price=some))
    assert found[0, 1] == level(panel, N_WEEKS)[0]
    assert found[0, 0] != level(panel, N_WEEKS)[0]


def test_it_stays_between_a_tenth_of_the_level_and_twice_the_highest_period(panel: Panel):
    absurd = panel.offers["price"].copy()
    absurd[:, N_WEEKS], absurd[:, N_WEEKS + 1] = 1e-3, 1e3
    found = response(with_offers(panel, price=absurd))
    assert (found[:, 0] <= 2.001 * panel.sold.max(axis=1)).all()
    assert (found >= 0.999 * LEAST * level(panel, N_WEEKS)[:, None]).all()


@pytest.mark.parametrize("origin", [1, 2, 30])
def test_what_comes_after_the_origin_changes_nothing(panel: Panel, origin: int):
    sold = panel.sold.copy()
    sold[:, origin:] = 1e6
    found = base_of(panel, origin, "price_response")
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found, base_of(replace(panel, sold=sold), origin, "price_response"))


def test_periods_that_nobody_could_buy_in_teach_nothing(panel: Panel):
    closed, sold = panel.exposure.copy(), panel.sold.copy()
    closed[:, 40:50], sold[:, 40:50] = 0, 0
    found = response(replace(panel, exposure=closed, sold=sold))
    truth = expected(panel.offers["price"], panel.offers["mailer"])[:, N_WEEKS:]
    assert np.abs(found / truth - 1).mean() < 0.05


def test_a_series_that_is_hardly_sold_says_nothing_about_others(panel: Panel):
    """A panel built at the origin would not hold it."""
    rare = panel.sold.copy()
    rare[0, 3:] = 0
    other_price = panel.offers["price"].copy()
    other_price[0] = 9.0
    without, with_it = (response(replace(each, sold=rare)) for each in (panel, with_offers(panel, price=other_price)))
    np.testing.assert_array_equal(without[1:], with_it[1:])
