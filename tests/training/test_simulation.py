"""The simulator agrees with a slow one, conserves units, and nothing is cheaper than foresight."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from serving.supply import Position, Supply
from training.simulation import (
    Outcome,
    Policy,
    clairvoyant,
    moving_average,
    path_policy,
    seasonal_factors,
    simulate,
    steady_state,
)

Game = tuple[np.ndarray, Position, Supply]


@st.composite
def games(draw: st.DrawFn, n_series: int = 3, n_periods: int = 6, least: int = 0) -> Game:
    def column(values: st.SearchStrategy) -> np.ndarray:
        return np.array(draw(st.lists(values, min_size=n_series, max_size=n_series)), np.float64)

    demand = draw(npst.arrays(np.float64, (n_series, n_periods), elements=st.integers(0, 5)))
    arrivals = draw(npst.arrays(np.float64, (n_series, 2), elements=st.integers(0, 3)))
    supply = Supply.from_days(
        1,
        column(st.integers(0, 2)),
        review_days=column(st.integers(1, 3)),
        holding_cost=column(st.sampled_from([0.0, 0.2, 0.6])),
        shortage_cost=column(st.sampled_from([0.0, 0.5, 1.0])),
    )
    return demand, Position(column(st.integers(least, 8)), arrivals), supply


def scripted(planned: np.ndarray) -> Policy:
    """Orders as planned, [n_series, n_periods], whatever happens."""
    return lambda period, on_hand, on_order: planned[:, period]


def plans(n_series: int = 3, n_periods: int = 6) -> st.SearchStrategy[np.ndarray]:
    return npst.arrays(np.float64, (n_series, n_periods), elements=st.integers(0, 6))


def slow_cost(game: Game, planned: np.ndarray, series: int) -> tuple[float, float]:
    """Holding and shortage cost of one series, with a list of deliveries and no arrays."""
    demand, opening, supply = game
    deliveries = dict(enumerate(opening.arrivals[series]))
    stock, held, lost = opening.on_hand[series], 0.0, 0.0
    for period, wanted in enumerate(demand[series]):
        if period % supply.review[series] == 0:
            arrival = period + supply.lead_time[series]
            deliveries[arrival] = deliveries.get(arrival, 0.0) + planned[series, period]
        stock += deliveries.get(period, 0.0)
        sold = min(max(stock, 0.0), wanted)
        stock -= sold
        lost += wanted - sold
        held += max(stock, 0.0)
    return held * supply.holding_cost[series], lost * supply.shortage_cost[series]


@given(games(least=-2), plans())
def test_costs_are_those_of_the_slow_simulator(game: Game, planned: np.ndarray):
    outcome = simulate(*game, scripted(planned))
    slow = np.array([slow_cost(game, planned, series) for series in range(3)]).sum(axis=0)
    np.testing.assert_allclose([outcome.holding_cost.sum(), outcome.shortage_cost.sum()], slow)
    np.testing.assert_allclose(outcome.cost, outcome.holding_cost + outcome.shortage_cost)


def units(position: Position) -> np.ndarray:
    return position.on_hand + position.arrivals.sum(axis=1)


@given(games(least=-2), plans())
def test_units_are_conserved_and_service_is_a_share(game: Game, planned: np.ndarray):
    demand, opening, _ = game
    outcome = simulate(*game, scripted(planned))
    sold = (demand - outcome.lost).sum(axis=1)
    np.testing.assert_allclose(units(opening) + outcome.ordered.sum(axis=1), sold + units(outcome.closing))
    for share in (outcome.fill_rate, outcome.cycle_service_level):
        assert ((share >= 0) & (share <= 1)).all()


@given(games(), plans())
def test_foresight_costs_no_more_than_any_plan(game: Game, planned: np.ndarray):
    floor = simulate(*game, clairvoyant(*game))
    costs = [series_costs(outcome) for outcome in (floor, simulate(*game, scripted(planned)))]
    assert (costs[0] <= costs[1] + 1e-9).all()


@settings(max_examples=20, deadline=None)
@given(games(n_series=1, n_periods=4))
def test_foresight_costs_what_the_best_of_all_plans_costs(game: Game):
    game = (np.minimum(game[0], 2), *game[1:])
    floor = simulate(*game, clairvoyant(*game)).cost.sum()
    every = (np.array([plan], np.float64) for plan in product(range(9), range(7), range(5), range(3)))
    assert floor == pytest.approx(min(sum(slow_cost(game, plan, 0)) for plan in every))


def series_costs(outcome: Outcome) -> np.ndarray:
    supply = outcome.supply
    return supply.holding_cost * outcome.left.sum(axis=1) + supply.shortage_cost * outcome.lost.sum(axis=1)


def test_an_order_at_the_end_of_a_week_is_there_at_the_start_of_the_third_week_after():
    """The VN2 challenge: holding .2 per unit left, 1 per lost unit, and two weeks that the opening decides."""
    supply = Supply.from_days(7, [14.0], holding_cost=0.2 / 7, shortage_cost=1.0)
    opening = Position(np.array([3.0]), np.array([[0.0, 1.0]]))
    outcome = simulate(np.array([[2.0, 4.0, 3.0, 0.0]]), opening, supply, scripted(np.array([[5.0, 0, 0, 0]])))
    assert outcome.left.tolist() == [[1, 0, 2, 2]]
    assert outcome.lost.tolist() == [[0, 2, 0, 0]]
    np.testing.assert_allclose(outcome.cost, [0.2, 2.0, 0.4, 0.4])
    np.testing.assert_allclose(outcome.fill_rate, [1, 0.5, 1, 1])
    assert outcome.cycle_service_level.tolist() == [1, 0, 1, 1]


def test_the_replay_goes_on_from_where_a_policy_stood():
    supply = Supply.from_days(1, [2.0, 0.0], holding_cost=0.1, shortage_cost=1.0)
    demand, policy = np.full((2, 12), 3.0), scripted(np.full((2, 12), 3.0))
    opening = steady_state(demand, supply, policy)
    np.testing.assert_allclose(opening.arrivals[:, :3], [[3, 3, 0], [0, 0, 0]])
    assert simulate(demand, opening, supply, policy).cost.sum() == 0


@given(games(n_series=2))
def test_orders_from_certain_paths_are_foresight_where_demand_is_worth_serving(game: Game):
    """Paths that all tell the truth leave nothing to chance: with a review every period the policy is optimal."""
    demand, opening, supply = game
    supply = replace(supply, review=np.ones(2), shortage_cost=np.ones(2), holding_cost=np.full(2, 0.1))

    def ahead(period: int) -> np.ndarray:
        return np.pad(demand, ((0, 0), (0, 3)))[:, None, period : period + 3].astype(np.float32)

    game = (demand, opening, supply)
    foresight = simulate(*game, clairvoyant(*game))
    np.testing.assert_allclose(simulate(*game, path_policy(ahead, supply)).cost.sum(), foresight.cost.sum(), atol=1e-9)


def test_orders_from_paths_cost_less_than_weeks_of_cover():
    rng = np.random.default_rng(5)
    demand = rng.poisson(rng.gamma(2, 2, (60, 1)), (60, 60)).astype(float)
    paths = rng.poisson(demand[:, :20].mean(axis=1)[:, None, None], (60, 100, 3)).astype(np.float32)
    supply = Supply.from_days(7, np.full(60, 14.0), holding_cost=0.2 / 7, shortage_cost=1.0)
    season, in_stock = np.zeros(64, np.int64), np.ones_like(demand, bool)
    opening = steady_state(demand[:, :30], supply, moving_average(demand, in_stock, season, 0))
    cover = simulate(demand[:, 30:], opening, supply, moving_average(demand, in_stock, season, 30))
    ours = simulate(demand[:, 30:], opening, supply, path_policy(lambda period: paths, supply))
    assert ours.cost.sum() < 0.85 * cover.cost.sum()


def slow_benchmark(sales: np.ndarray, in_stock: np.ndarray, season: np.ndarray, now: int, stock: float) -> float:
    """The benchmark's order of the only series that counts, the first, from loops."""

    def total(column: int) -> float:
        known = [sales[row, column] for row in range(len(sales)) if in_stock[row, column]]
        return sum(known) / len(known)

    means = {}
    for week in set(season[:now].tolist()):
        totals = [total(column) for column in range(now) if season[column] == week]
        means[week] = sum(totals) / len(totals)
    overall = sum(means.values()) / len(means)
    factor = {week: mean / overall for week, mean in means.items()}
    recent = [sales[0, column] / factor[season[column]] for column in range(now - 13, now) if in_stock[0, column]]
    up_to = sum(recent) / len(recent) * sum(factor.get(week, 1.0) for week in season[now : now + 4].tolist())
    return round(max(0.0, up_to - stock))


def test_the_benchmark_is_the_organisers_and_sees_no_future():
    rng = np.random.default_rng(3)
    sales = rng.poisson(8, (5, 40)).astype(float)
    in_stock, season = rng.random((5, 40)) > 0.2, np.arange(44) % 11
    future = sales.copy()
    future[:, 30:] = 1000
    for seen in (sales, future):
        policy = moving_average(seen, in_stock, season, first_period=28)
        quantity = policy(2, np.full(5, 3.0), np.ones((5, 3)))
        assert quantity[0] == slow_benchmark(sales, in_stock, season, 30, 6.0)


def test_series_that_were_never_in_stock_order_nothing():
    nothing = np.zeros((2, 20))
    policy = moving_average(nothing, nothing > 0, np.arange(24), first_period=20)
    assert policy(0, np.zeros(2), np.zeros((2, 3))).tolist() == [0, 0]


def test_seasons_without_sales_or_history_are_left_alone():
    known = np.array([[0.0, 4.0, 2.0], [0.0, np.nan, 2.0]])
    assert seasonal_factors(known, np.array([0, 1, 2, 0, 1, 3])).tolist() == [1, 2, 1, 1, 2, 1]


@pytest.mark.parametrize(
    ("lead_time", "ordered", "sentence"),
    [
        (1.5, 1.0, r"lead_time of series 0 is 1\.5 periods, the simulator takes whole ones: round it"),
        (1.0, -2.0, "the policy orders -2 of series 0: an order must be zero or more units"),
        (1.0, np.nan, "the policy orders nan of series 0: an order must be zero or more units"),
    ],
)
def test_what_the_simulator_cannot_replay_is_named(lead_time: float, ordered: float, sentence: str):
    supply = Supply.from_days(1, [lead_time], holding_cost=0.1, shortage_cost=1.0)
    with pytest.raises(ValueError, match=sentence):
        simulate(np.ones((1, 3)), Position(np.zeros(1), np.zeros((1, 1))), supply, scripted(np.full((1, 3), ordered)))


def test_foresight_refuses_debts():
    supply = Supply.from_days(1, [1.0], holding_cost=0.1, shortage_cost=1.0)
    with pytest.raises(ValueError, match="on_hand reaches -3, foresight needs zero or more: settle what is owed"):
        clairvoyant(np.ones((1, 3)), Position(np.array([-3.0]), np.zeros((1, 1))), supply)
