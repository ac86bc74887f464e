from dataclasses import replace
from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pytest
from scipy.optimize import check_grad
from scipy.special import hyp2f1, roots_genlaguerre, roots_sh_jacobi

from features.errors import UserError
from training import repeat_buying
from training.repeat_buying import HALF_LIFE_DAYS, Clock, OrderHistories, RepeatBuying

R, ALPHA, A, B = 0.6, 4.0, 0.8, 2.5
NO_BURST = Clock(0.0, 1.0)
PUBLISHED = RepeatBuying(R, ALPHA, A, B, NO_BURST, 0.0, 1.0, None, 0.0)


def histories(days_of_orders, days_to_end, units=1.0):
    """Histories of customers by the days of their repeat orders, counted from the first."""
    days = [np.asarray(each, np.int64) for each in days_of_orders]
    n = len(days)
    return OrderHistories(
        to_last=np.array([max(each, default=0) for each in days], np.int64),
        to_end=np.full(n, days_to_end, np.int64),
        units=np.broadcast_to(units, n).astype(float),
        repeats=np.array([len(each) for each in days], float),
        repeat_ages=np.concatenate(days),
        repeat_of=np.repeat(np.arange(n), [len(each) for each in days]),
    )


def simulated(n, days, clock=NO_BURST, size_exponent=0.0, seed=0):
    """Customers who order as the model says, observed for so many days."""
    rng = np.random.default_rng(seed)
    units = np.exp(rng.normal(size=n))
    counted = clock(np.arange(days + 1))
    found = []
    for rate, chance in zip(rng.gamma(R, units**size_exponent / ALPHA), rng.beta(A, B, n), strict=True):
        at, orders = rng.exponential(1 / rate), []
        while at < counted[-1]:
            orders.append(np.searchsorted(counted, at))
            if rng.random() < chance:
                break
            at += rng.exponential(1 / rate)
        found.append(np.unique(orders))
    return histories(found, days, units)


@pytest.fixture(scope="module")
def shop():
    return simulated(8000, 364, Clock(1.5, 6.0), size_exponent=0.7)


@pytest.fixture(scope="module")
def model(shop):
    return repeat_buying.fit(shop)


def parameters(model):
    burst = model.clock.burst, np.log(model.clock.burst_weeks)
    return np.array([*np.log([model.r, model.alpha, model.a, model.b]), *burst, model.size_exponent])


def likelihood(orders, last, end):
    """Of one customer, integrated by Gaussian quadrature over its rate and its chance of leaving."""
    rate, rate_weight = roots_genlaguerre(60, R - 1)
    chance, chance_weight = roots_sh_jacobi(60, A + B - 1, A)
    rate = rate[:, None] / ALPHA
    stayed = (1 - chance) ** orders * np.exp(-rate * end)
    left = chance * (1 - chance) ** (orders - 1) * np.exp(-rate * last) if orders else 0.0
    return rate_weight @ (rate**orders * (stayed + left)) @ chance_weight / rate_weight.sum() / chance_weight.sum()


@pytest.mark.parametrize("days", [[], [7], [14, 70], [7, 14, 21, 63]])
def test_the_likelihood_is_the_integral_over_rates_and_chances(days):
    found, _ = repeat_buying.negative_log_likelihood(parameters(PUBLISHED), histories([days], 84))
    assert np.exp(-found) == pytest.approx(likelihood(len(days), max(days, default=0) / 7, 12.0), rel=1e-6)


@pytest.mark.parametrize("at", [[-1, 1.5, -0.5, 0.7, 0, 0, 0], [0.5, 3, 1, -1, 2.4, 1.2, 0.8]])
def test_the_gradient_is_the_slope(shop, at):
    value, slope = (lambda p, place=place: repeat_buying.negative_log_likelihood(p, shop)[place] for place in (0, 1))
    assert check_grad(value, slope, np.array(at)) < 1e-5


def test_expected_orders_are_those_of_the_publication():
    known, weeks = histories([[], [7], [14, 70], [7, 14, 21, 63]], 84), 26.0
    x, end, last = known.repeats, known.to_end / 7, known.to_last / 7
    series = hyp2f1(R + x, B + x, A + B + x - 1, weeks / (ALPHA + end + weeks))
    above = (A + B + x - 1) / (A - 1) * (1 - ((ALPHA + end) / (ALPHA + end + weeks)) ** (R + x) * series)
    below = 1 + (x > 0) * A / (B + np.maximum(x, 1) - 1) * ((ALPHA + end) / (ALPHA + last)) ** (R + x)
    np.testing.assert_allclose(PUBLISHED.expected_orders(known, weeks * 7), above / below, rtol=1e-10)


@pytest.mark.parametrize("a", [1e-4, 0.999999999, 1.0, 30.0])
@pytest.mark.parametrize("b", [1e-4, 0.5, 4.0])
def test_expectations_stay_sound_at_the_edges(a, b):
    busy = histories([[], np.arange(1, 700), [1]], 700)
    found = replace(PUBLISHED, a=a, b=b).expected_orders(busy, 365)
    assert (found >= 0).all()
    assert (found <= (R + busy.repeats) / (ALPHA + 100) * 365 / 7 * (1 + 1e-9)).all()


def test_the_parameters_of_a_simulated_shop_come_back():
    found = repeat_buying.fit(simulated(20_000, 364), as_published=True)
    assert (found.clock.burst, found.size_exponent, found.drift_level) == (0, 0, None)
    assert (found.r, found.alpha) == (pytest.approx(R, rel=0.1), pytest.approx(ALPHA, rel=0.1))
    assert found.a / (found.a + found.b) == pytest.approx(A / (A + B), abs=0.05)


def test_the_burst_and_the_weight_of_sizes_come_back(model):
    assert model.clock.burst == pytest.approx(1.5, rel=0.2)
    assert model.clock.burst_weeks == pytest.approx(6, rel=0.3)
    assert model.size_exponent == pytest.approx(0.7, abs=0.1)


def test_no_other_parameters_are_likelier(model, shop):
    best, slope = repeat_buying.negative_log_likelihood(parameters(model), shop)
    assert model.log_likelihood == pytest.approx(-best * len(shop.repeats))
    assert np.abs(slope).max() < 1e-5
    assert model.log_likelihood > repeat_buying.fit(shop, as_published=True).log_likelihood


def test_drift_keeps_the_mean_rate(model, shop):
    returned = model.probability_alive(shop) * (shop.repeats > 0)
    still = replace(model, drift_level=None)
    assert returned @ model.mean_rates(shop) == pytest.approx(returned @ still.mean_rates(shop))


def test_recent_orders_promise_more_than_old_ones(model):
    lately, long_ago = histories([[10, 300, 320, 340], [10, 20, 40, 340]], 364), 180
    one, other = model.expected_orders(lately, long_ago)
    assert one > other


def test_who_ordered_once_is_alive_and_expectations_grow_with_time(model, shop):
    alive = model.probability_alive(shop)
    assert ((alive >= 0) & (alive <= 1)).all()
    assert (alive[shop.repeats == 0] == 1).all()
    assert (np.diff([model.expected_orders(shop, days) for days in (0, 30, 365, 3650)], axis=0) >= 0).all()
    assert (model.expected_orders(shop, 0) == 0).all()


def test_a_customer_is_judged_alone_as_among_others(model, shop):
    chosen = np.arange(len(shop.repeats)) % 97 == 5
    np.testing.assert_allclose(
        model.expected_orders(shop.take(chosen), 90), model.expected_orders(shop, 90)[chosen], rtol=1e-12
    )


def test_too_few_who_returned_are_refused_in_a_sentence():
    with pytest.raises(UserError, match=r"^2 of 3 customers ordered on a second day, at least 50 are needed"):
        repeat_buying.fit(histories([[], [3], [4]], 90))


def test_histories_are_read_from_the_days_with_an_order():
    days = {
        "person_id": ["ann", "ann", "ann", "bob"],
        "day": [date(2024, 1, 1), date(2024, 1, 8), date(2024, 2, 1), date(2024, 1, 5)],
        "units": [1.0, 3.0, 2.0, 5.0],
    }
    found = OrderHistories.of(pa.table(days), datetime(2024, 3, 1, tzinfo=UTC))
    assert found.to_last.tolist() == [31, 0]
    assert found.to_end.tolist() == [59, 55]
    assert found.units.tolist() == [2.0, 5.0]
    assert found.repeats.tolist() == [2.0, 0.0]
    assert (found.repeat_ages.tolist(), found.repeat_of.tolist()) == ([7, 31], [0, 0])
    assert found.faded_repeats().tolist() == pytest.approx([0.5 ** (52 / 91) + 0.5 ** (28 / 91), 0.0])


def test_the_clock_runs_at_its_speed_and_fades():
    clock, days = Clock(2.0, 5.0), np.arange(700)
    np.testing.assert_allclose(np.gradient(clock(days), days / 7)[1:-1], 1 + 2 * np.exp(-days[1:-1] / 35), rtol=1e-3)
    np.testing.assert_allclose(np.exp(clock.log_speed(np.array([14]))[0]), 1 + 2 * np.exp(-14 / 35))
    ages = 699 - np.arange(1, 700)
    faded = (np.diff(clock(days)) * 0.5 ** (ages / HALF_LIFE_DAYS)).sum()
    assert clock.faded(np.array([0, 699])).tolist() == pytest.approx([0.0, faded])
