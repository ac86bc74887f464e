"""Orders are the cheapest that replaying every path finds, keep packs and minimum, and say why."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from serving import replenish
from serving.replenish import (
    Orders,
    exceptions,
    lead_times,
    money_at_risk,
    order_up_to,
    orders,
    reasons,
    z_sigma_level,
)
from serving.supply import Position, Supply

N_STEPS = 6
Shop = tuple[np.ndarray, Supply, Position]


def column(values: st.SearchStrategy, n: int) -> st.SearchStrategy:
    return st.lists(values, min_size=n, max_size=n).map(lambda drawn: np.array(drawn, np.float64))


@st.composite
def shops(draw: st.DrawFn, packs: tuple[float, ...] = (1, 3), minima: tuple[float, ...] = (0, 4)) -> Shop:
    """Up to four series of whole demand with certain lead times."""
    n, n_paths = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    units = st.integers(0, 8)
    paths = draw(npst.arrays(np.float32, (n, n_paths, N_STEPS), elements=units))
    supply = Supply.from_days(
        1,
        draw(column(st.integers(0, 3), n)),
        review_days=draw(column(st.integers(1, 3), n)),
        pack_size=draw(column(st.sampled_from(packs), n)),
        min_order_quantity=draw(column(st.sampled_from(minima), n)),
        holding_cost=draw(column(st.sampled_from([0.0, 0.2, 0.5]), n)),
        shortage_cost=draw(column(st.sampled_from([0.0, 0.6, 1.0, 3.0]), n)),
    )
    arrivals = draw(npst.arrays(np.float64, (n, N_STEPS), elements=st.integers(0, 3)))
    return paths, supply, Position(draw(column(st.integers(0, 20), n)), arrivals)


def replay(shop: Shop, series: int, quantity: float) -> dict[str, np.ndarray]:
    """Walk down every path with an order: units lost before it arrives and after, and unit-periods held after."""
    paths, supply, position = shop
    arrives = int(supply.lead_time[series])
    until = arrives + int(supply.review[series])
    flows: dict[str, list[float]] = {"before": [], "short": [], "held": []}
    for path in paths[series].astype(float):
        stock, before, short, held = position.on_hand[series], 0.0, 0.0, 0.0
        for step in range(until):
            stock += position.arrivals[series, step] + (quantity if step == arrives else 0)
            lost = max(0.0, path[step] - stock)
            stock = max(0.0, stock - path[step])
            before, short = (before + lost, short) if step < arrives else (before, short + lost)
            held += stock if step >= arrives else 0
        for name, value in {"before": before, "short": short, "held": held}.items():
            flows[name].append(value)
    return {name: np.array(values) for name, values in flows.items()}


def cost(shop: Shop, series: int, quantity: float) -> float:
    flows = replay(shop, series, quantity)
    supply = shop[1]
    return supply.holding_cost[series] * flows["held"].mean() + supply.shortage_cost[series] * flows["short"].mean()


def feasible(supply: Supply, series: int, most: float = 40) -> np.ndarray:
    quantities = np.arange(0, most, supply.pack_size[series] or 0.25)
    return quantities[(quantities == 0) | (quantities >= supply.min_order_quantity[series])]


def one(values: np.ndarray, series: int) -> float:
    return float(values[series])


@given(shops(packs=(0, 1, 3)))
def test_no_feasible_order_is_cheaper(shop: Shop):
    placed = orders(*shop, carry=0)
    for series, quantity in enumerate(placed.order_quantity):
        cheapest = min(cost(shop, series, other) for other in feasible(shop[1], series))
        assert cost(shop, series, quantity) == pytest.approx(cheapest, abs=1e-6)


@given(shops())
def test_expectations_are_those_of_the_replayed_paths(shop: Shop):
    placed = orders(*shop, carry=0)
    for series, quantity in enumerate(placed.order_quantity):
        flows = replay(shop, series, quantity)
        assert one(placed.lost_before_arrival, series) == pytest.approx(flows["before"].mean(), abs=1e-5)
        assert one(placed.expected_shortage, series) == pytest.approx(flows["short"].mean(), abs=1e-5)
        assert one(placed.stockout_risk, series) == pytest.approx((flows["short"] > 0).mean())
        holding = shop[1].holding_cost[series] * flows["held"].mean()
        assert one(placed.expected_holding, series) == pytest.approx(holding, abs=1e-5)
        assert one(placed.expected_cost, series) == pytest.approx(cost(shop, series, quantity), abs=1e-5)


@given(shops())
def test_an_order_is_nothing_or_whole_packs_of_at_least_the_minimum(shop: Shop):
    quantity, supply = orders(*shop).order_quantity, shop[1]
    assert ((quantity == 0) | (quantity >= supply.min_order_quantity)).all()
    assert (quantity % supply.pack_size == 0).all()


@given(shops(), st.integers(0, 5))
def test_more_stock_never_orders_more(shop: Shop, more: int):
    paths, supply, position = shop
    richer = orders(paths, supply, replace(position, on_hand=position.on_hand + more))
    assert (richer.order_quantity <= orders(*shop).order_quantity).all()


@given(shops(), st.sampled_from([0.3, 2.0]))
def test_charging_what_is_left_over_for_longer_never_orders_more(shop: Shop, carry: float):
    assert (orders(*shop, carry=carry).order_quantity <= orders(*shop, carry=0).order_quantity).all()


def test_carry_is_holding_cost_where_an_order_covers_one_step():
    paths = np.random.default_rng(0).poisson(5, (1, 50, 3)).astype(np.float32)
    supply = Supply.from_days(1, [2.0], holding_cost=0.2, shortage_cost=1.0)
    dearer = replace(supply, holding_cost=np.array([0.3]))
    position = Position(np.array([10.0]), np.zeros((1, 3)))
    carried, dear = orders(paths, supply, position, carry=0.25), orders(paths, dearer, position, carry=0)
    assert carried.order_quantity == dear.order_quantity
    assert carried.expected_holding == pytest.approx(dear.expected_holding / 1.5)
    with pytest.raises(ValueError, match="carry is -1, it must be zero or more: choose it by simulated cost"):
        orders(paths, supply, position, carry=-1)


@given(shops(), st.sampled_from([0.0, 0.5, 0.9, 1.0]))
def test_a_wanted_fill_rate_is_reached_and_one_pack_less_would_miss_it(shop: Shop, level: float):
    paths, supply, position = shop
    nan = np.full_like(supply.lead_time, np.nan)
    supply = replace(supply, service_level=np.full_like(nan, level), holding_cost=nan, shortage_cost=nan)
    placed = orders(paths, supply, position)
    for series, quantity in enumerate(placed.order_quantity):
        arrives = int(supply.lead_time[series])
        demanded = paths[series, :, arrives : arrives + int(supply.review[series])].sum(axis=1).mean()
        allowed = (1 - level) * demanded + 1e-5
        fewer = quantity - supply.pack_size[series]
        assert replay((paths, supply, position), series, quantity)["short"].mean() <= allowed
        if fewer >= supply.min_order_quantity[series] and fewer >= 0:
            assert replay((paths, supply, position), series, fewer)["short"].mean() > allowed - 3e-5
    assert np.isnan(placed.expected_cost).all()


@given(shops(), st.randoms())
def test_series_are_ordered_one_by_one(shop: Shop, random):
    paths, supply, position = shop
    shuffled = np.array(random.sample(range(len(paths)), len(paths)))
    whole = orders(*shop)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replenish, "_BLOCK", 1)
        alone = orders(paths[shuffled], supply.rows(shuffled), position.rows(shuffled))
    for name in Orders.__slots__:
        np.testing.assert_allclose(getattr(alone, name), getattr(whole, name)[shuffled], rtol=1e-5, atol=1e-5)


@given(npst.arrays(np.float32, (1, 20, 1), elements=st.integers(0, 50)), st.sampled_from([0.5, 0.8, 0.9]))
def test_an_order_that_covers_one_step_is_the_newsvendors_quantile(paths: np.ndarray, fractile: float):
    supply = Supply.from_days(1, [0.0], holding_cost=1 - fractile, shortage_cost=fractile)
    placed = orders(paths, supply, Position(np.zeros(1), np.zeros((1, 1))))
    assert placed.order_quantity == np.quantile(paths, fractile, method="inverted_cdf")
    assert placed.order_up_to == placed.order_quantity


@given(shops(packs=(1,), minima=(0,)), st.integers(1, 9))
def test_what_is_owed_is_ordered_on_top(shop: Shop, owed: int):
    paths, supply, _ = shop
    supply = replace(supply, shortage_cost=np.ones_like(supply.lead_time))
    nothing = Position(np.zeros(len(paths)), np.zeros((len(paths), N_STEPS)))
    indebted = replace(nothing, on_hand=nothing.on_hand - owed)
    assert (
        orders(paths, supply, indebted).order_quantity == orders(paths, supply, nothing).order_quantity + owed
    ).all()


@given(npst.arrays(np.float64, (3, 4), elements=st.integers(0, 9)), column(st.integers(-20, 20), 3))
def test_settling_debts_conserves_units(arrivals: np.ndarray, on_hand: np.ndarray):
    settled, owed = Position(on_hand, arrivals).settled()
    np.testing.assert_array_equal(settled.on_hand + settled.arrivals.sum(axis=1) - owed, on_hand + arrivals.sum(axis=1))
    assert (settled.on_hand >= 0).all()
    assert (settled.arrivals >= 0).all()


def test_lead_times_have_their_mean_and_spread_whatever_the_order_of_the_paths():
    mean, std = np.array([3.0, 2.4, 5.0, 0.0]), np.array([0.0, 0.0, 1.5, 0.0])
    drawn = lead_times(mean, std, 2000)
    np.testing.assert_allclose(drawn.mean(axis=1), mean, atol=0.01)
    np.testing.assert_allclose(drawn.std(axis=1), [0, np.sqrt(0.24), np.sqrt(1.5**2 + 1 / 6), 0], atol=0.06)
    assert abs(np.corrcoef(drawn[2], np.arange(2000))[0, 1]) < 0.01


def test_an_uncertain_lead_time_orders_more():
    paths = np.full((2, 200, 12), 10, np.float32)
    supply = Supply.from_days(1, np.full(2, 4.0), lead_time_std_days=[0.0, 2.0], holding_cost=0.1, shortage_cost=1.0)
    certain, uncertain = orders(paths, supply, Position(np.full(2, 40.0), np.zeros((2, 12)))).order_up_to
    assert (certain, uncertain) == (50, 70)


def test_what_is_lost_before_arrival_is_not_ordered():
    paths = np.full((1, 5, 3), 4, np.float32)
    supply = Supply.from_days(1, [2.0], holding_cost=0.1, shortage_cost=1.0)
    placed = orders(paths, supply, Position(np.array([3.0]), np.zeros((1, 3))))
    assert (placed.order_quantity[0], placed.order_up_to[0], placed.lost_before_arrival[0]) == (4, 12, 5)
    assert (placed.expected_demand[0], placed.safety_stock[0], placed.reorder_point[0]) == (12, 0, 8)


def test_a_series_of_zeros_orders_nothing():
    placed = orders(
        np.zeros((1, 5, 2), np.float32),
        Supply.from_days(1, [1.0], holding_cost=0.0, shortage_cost=1.0, min_order_quantity=6),
        Position(np.zeros(1), np.zeros((1, 2))),
    )
    assert all(getattr(placed, name).item() == 0 for name in Orders.__slots__)


def test_fractions_are_ordered_whole_unless_the_good_is_divisible():
    paths = np.full((2, 5, 1), 2.5, np.float32)
    supply = Supply.from_days(1, [0.0, 0.0], pack_size=[np.nan, 0.0], holding_cost=0.1, shortage_cost=1.0)
    assert orders(paths, supply, Position(np.zeros(2), np.zeros((2, 1)))).order_quantity.tolist() == [3.0, 2.5]


def test_what_supply_leaves_out_has_a_default_and_costs_are_per_period():
    supply = Supply.from_days(7, [10.5, 14.0], holding_cost=[0.1, 0.2], shortage_cost=1.0, review_days=[np.nan, 15.0])
    assert supply.lead_time.tolist() == [1.5, 2.0]
    assert supply.review.tolist() == [1, 2]
    assert (supply.pack_size.tolist(), supply.min_order_quantity.tolist()) == ([1, 1], [0, 0])
    np.testing.assert_allclose(supply.holding_cost, [0.7, 1.4])


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"lead_time_days": [3, np.nan]}, "lead_time of series 1 is missing, it must be zero or more: correct it or"),
        ({"lead_time_days": [3, -1]}, "lead_time of series 1 is -1, it must be zero or more"),
        (
            {"shortage_cost": [1, np.nan]},
            "shortage_cost of series 1 is missing, it must be zero or more where no service",
        ),
        ({"holding_cost": [-0.1, 1]}, "holding_cost of series 0 is -0.1, it must be zero or more"),
        ({"service_level": [np.nan, 95]}, "service_level of series 1 is 95, it must be within 0 to 1"),
        ({"pack_size": [-6, 1]}, "pack_size of series 0 is -6, it must be zero or more"),
    ],
)
def test_bad_supply_is_named(wrong: dict, sentence: str):
    given = {"lead_time_days": [3, 3], "holding_cost": 0.1, "shortage_cost": 1.0, **wrong}
    with pytest.raises(ValueError, match=sentence):
        Supply.from_days(1, **given)


@pytest.mark.parametrize(
    ("paths", "on_hand", "arrivals", "sentence"),
    [
        (np.ones((2, 5, 3)), [1, np.nan], np.zeros((2, 3)), "on_hand of series 1 is missing, it must be finite"),
        (np.ones((2, 5, 3)), [1, 1], np.full((2, 3), -1), "arrivals of series 0 is -1, it must be zero or more"),
        (np.ones((2, 5, 3)), [1, 1], np.zeros((2, 2)), r"arrivals have shape \(2, 2\), the paths need \(2, 3\)"),
        (np.ones((2, 5, 2)), [1, 1], np.zeros((2, 2)), "paths reach 2 steps, lead time and review together 3"),
        (np.ones((3, 5, 3)), [1, 1], np.zeros((2, 3)), "3 series of paths, 2 of supply and 2 of stock do not match"),
        (
            np.full((2, 5, 3), -1),
            [1, 1],
            np.zeros((2, 3)),
            "demand on a path of series 0 is -1, it must be zero or more",
        ),
        (np.full((2, 5, 3), np.nan), [1, 1], np.zeros((2, 3)), "demand on a path of series 0 is missing"),
    ],
)
def test_bad_stock_and_paths_are_named(paths: np.ndarray, on_hand: list, arrivals: np.ndarray, sentence: str):
    supply = Supply.from_days(1, [2.0, 2.0], holding_cost=0.1, shortage_cost=1.0)
    with pytest.raises(ValueError, match=sentence):
        orders(paths.astype(np.float32), supply, Position(np.array(on_hand, float), arrivals.astype(float)))


@pytest.fixture
def three() -> tuple[Orders, Supply]:
    """A series that runs out before its order can arrive, one with plenty, one that is bought in cases."""
    supply = Supply.from_days(
        1,
        np.full(3, 2.0),
        holding_cost=0.1,
        shortage_cost=[2.0, 1.0, 1.0],
        pack_size=[1, 1, 6],
        min_order_quantity=[0, 0, 12],
    )
    paths = np.full((3, 4, 3), 4, np.float32)
    return orders(paths, supply, Position(np.array([1.0, 30.0, 9.0]), np.zeros((3, 3)))), supply


def test_reasons_say_what_is_expected_what_is_there_and_what_cannot_be_helped(three: tuple[Orders, Supply]):
    assert reasons(*three) == [
        "4: 4.0 will be missing, +0.0 to spare "
        "(12.0 demanded until the next order's arrival, 1.0 on hand or on order). "
        "About 7.0 will be lost before it can arrive.",
        "Nothing: 12.0 demanded until the next order's arrival, 30.0 on hand or on order.",
        "12 in packs of 6, no less than 12: 3.0 will be missing, +9.0 to spare "
        "(12.0 demanded until the next order's arrival, 9.0 on hand or on order).",
    ]


def test_exceptions_come_by_money_at_risk_and_leave_out_what_has_no_price(three: tuple[Orders, Supply]):
    placed, supply = three
    money = money_at_risk(placed, supply)
    np.testing.assert_allclose(money, [14.0, 1.8, 0.9], atol=1e-6)
    assert exceptions(placed, supply, limit=2).tolist() == [0, 1]
    unpriced = replace(supply, shortage_cost=np.array([np.nan, 1, 1]), service_level=np.array([0.9, np.nan, np.nan]))
    assert exceptions(placed, unpriced, limit=9).tolist() == [1, 2]


def test_the_newsvendor_refuses_a_fractile_that_buys_all_or_nothing():
    with pytest.raises(ValueError, match="fractile is 1, it must lie within 0 and 1: give both costs above zero"):
        order_up_to(np.ones((1, 3)), np.zeros(1), fractile=1.0)


def test_the_classical_level_rises_with_service_and_with_an_uncertain_lead_time():
    levels = [0.0, 0.5, 0.95, 1.0]
    supply = Supply.from_days(1, np.full(4, 3.0), service_level=levels)
    mean, std = np.full(4, 10.0), np.full(4, 4.0)
    certain = z_sigma_level(mean, std, supply)
    assert certain[2] == pytest.approx(40 + 1.6449 * 8, abs=1e-3)
    assert all(low < high for low, high in pairwise(certain))
    uncertain = z_sigma_level(mean, std, replace(supply, lead_time_std=np.full(4, 0.6)))
    assert uncertain[2] == pytest.approx(40 + 1.6449 * 10, abs=1e-3)
