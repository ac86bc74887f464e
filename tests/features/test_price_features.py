"""Features of prices say what they are named, of the rivals too; the slow way is a loop over series and steps."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from panels import plain_panel

from features.demand import level
from features.known import Known
from features.panels import Panel
from features.price_features import WINDOW, price_features, promotion_features

N_ITEMS, N_PLACES, N_WEEKS, HORIZON = 5, 3, 40, 2
N_SERIES = N_ITEMS * N_PLACES


@pytest.fixture
def panel(rng: np.random.Generator) -> Panel:
    """Five items, i4 of another category, in three places; a tenth of the prices is unknown; i3 hardly sold."""
    shape = (N_SERIES, N_WEEKS + HORIZON)
    item, place = np.repeat(np.arange(N_ITEMS), N_PLACES), np.tile(np.arange(N_PLACES), N_ITEMS)
    price = rng.choice([1.0, 1.5, 2.0, 3.0], shape)
    sold = rng.poisson(6, (N_SERIES, N_WEEKS)).astype(np.float32)
    sold[item == 3, 1:] = 0
    return plain_panel(
        sold,
        HORIZON,
        item_ids=tuple(f"i{each}" for each in item),
        location_ids=tuple(f"p{each}" for each in place),
        category=(item == 4).astype(np.int64),
        location=place,
        offers={
            "price": np.where(rng.random(shape) < 0.1, np.nan, price),
            "base_price": np.full(shape, np.nan),
            "display": rng.random(shape) < 0.3,
            "mailer": rng.random(shape) < 0.2,
        },
    )


def known_at(panel: Panel, origin: int = N_WEEKS) -> Known:
    return Known(panel, origin, level(panel, origin)[:, None])


def rivals(panel: Panel, series: int) -> np.ndarray:
    """The others of the category and place that sold enough to be known."""
    alike = (panel.category == panel.category[series]) & (panel.location == panel.location[series])
    enough = (panel.sold > 0).sum(axis=1) >= panel.min_periods / 2
    return np.flatnonzero(alike & enough & (np.arange(N_SERIES) != series))


def slowly(panel: Panel, of: Callable[[np.ndarray, np.ndarray, int], float]) -> np.ndarray:
    """A feature from the log prices of a series and of its rivals [n_rivals, P + H], and the target's period."""
    logs = np.log(panel.offers["price"])
    return np.array(
        [
            [of(logs[series], logs[rivals(panel, series)], N_WEEKS + step) for step in range(HORIZON)]
            for series in range(N_SERIES)
        ]
    )


def usual(own: np.ndarray) -> float:
    known = np.sort(own[N_WEEKS - WINDOW : N_WEEKS][~np.isnan(own[N_WEEKS - WINDOW : N_WEEKS])])
    return known[(len(known) - 1) // 2]


def over_rivals(own: np.ndarray, others: np.ndarray, at: int) -> float:
    known = others[:, at][~np.isnan(others[:, at])]
    return own[at] - known.mean() if len(known) else np.nan


def change(own: np.ndarray, others: np.ndarray, at: int) -> float:
    past = np.array([over_rivals(own, others, period) for period in range(N_WEEKS - WINDOW, N_WEEKS)])
    known = past[~np.isnan(past)]
    return over_rivals(own, others, at) - known.mean() if len(known) else np.nan


def cheapest(own: np.ndarray, others: np.ndarray, at: int) -> float:
    known = others[:, at][~np.isnan(others[:, at])]
    return own[at] - known.min() if len(known) else np.nan


def cheaper(own: np.ndarray, others: np.ndarray, at: int) -> float:
    known = others[:, at][~np.isnan(others[:, at])]
    return (known < own[at]).mean() if len(known) and not np.isnan(own[at]) else np.nan


@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("discount", lambda own, _, at: own[at] - usual(own)),
        ("discount_2", lambda own, _, at: own[at - 2] - usual(own)),
        ("price_over_rivals", over_rivals),
        ("price_over_rivals_change", change),
        ("price_over_cheapest_rival", cheapest),
        ("share_of_cheaper_rivals", cheaper),
    ],
)
def test_prices_are_compared_as_a_customer_would(
    panel: Panel, name: str, of: Callable[[np.ndarray, np.ndarray, int], float]
):
    np.testing.assert_allclose(price_features(known_at(panel))[name], slowly(panel, of), rtol=1e-4, atol=1e-5)


def test_promotions_of_rivals_and_of_the_item_elsewhere_are_means(panel: Panel):
    found = promotion_features(known_at(panel))
    mailer = panel.offers["mailer"][:, N_WEEKS:]
    beside = rivals(panel, 0)
    np.testing.assert_allclose(found["mailer_of_rivals"][0], mailer[beside].mean(axis=0))
    np.testing.assert_allclose(found["mailer_of_item"][0], mailer[:N_PLACES].mean(axis=0), rtol=1e-6)
    assert np.isnan(found["mailer_of_rivals"][-1]).all()  # i4 is alone in its category


def test_periods_are_counted_from_the_latest_promotion_before_the_target(panel: Panel):
    mailer = np.zeros_like(panel.offers["mailer"])
    mailer[0, [N_WEEKS - 4, N_WEEKS]] = 1
    mailer[1, N_WEEKS - WINDOW - 1] = 1
    found = promotion_features(known_at(replace(panel, offers={**panel.offers, "mailer": mailer})))
    assert found["periods_since_mailer"][0].tolist() == [4, 1]
    assert np.isnan(found["periods_since_mailer"][1]).all()


def test_what_was_offered_alike_sold_alike(panel: Panel):
    """Twice the level at half the price, in every week in which it was asked."""
    price = np.where(np.arange(N_WEEKS + HORIZON) % 4 == 0, 1, 2) * np.ones((N_SERIES, 1))
    sold = 6 / price[:, :N_WEEKS]
    none = np.zeros_like(panel.offers["mailer"])
    offers = {**panel.offers, "price": price, "display": none, "mailer": none}
    alike = replace(panel, sold=sold.astype(np.float32), offers={k: v.astype(np.float32) for k, v in offers.items()})
    found = promotion_features(known_at(alike))["mean_offered_alike"] * level(alike, N_WEEKS)[:, None]
    np.testing.assert_allclose(found, np.tile([6.0, 3.0], (N_SERIES, 1)), rtol=1e-4)


def test_the_order_of_series_changes_nothing(panel: Panel, rng: np.random.Generator):
    order = rng.permutation(N_SERIES)
    shuffled = replace(
        panel,
        item_ids=tuple(panel.item_ids[row] for row in order),
        location_ids=tuple(panel.location_ids[row] for row in order),
        offers={name: values[order] for name, values in panel.offers.items()},
        **{name: getattr(panel, name)[order] for name in ("sold", "exposure", "revenue", "category", "location")},
    )
    for family in (price_features, promotion_features):
        expected, found = family(known_at(panel)), family(known_at(shuffled))
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values[order], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("origin", [1, 2, 3])
def test_a_past_of_few_periods_leaves_unknown_what_it_cannot_say(panel: Panel, origin: int):
    for columns in (price_features(known_at(panel, origin)), promotion_features(known_at(panel, origin))):
        assert all(np.broadcast_shapes(values.shape, (N_SERIES, HORIZON)) for values in columns.values())
    assert np.isnan(price_features(known_at(panel, 1))["discount_2"][:, 0]).all()
