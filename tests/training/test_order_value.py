import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import gamma

from features.errors import UserError
from training import order_value
from training.order_value import OrderValue

P, Q, GAMMA = 6.25, 3.74, 15.44


def drawn(n=20_000, seed=0):
    """Customers' numbers of orders and mean spends as the model says."""
    rng = np.random.default_rng(seed)
    n_orders = rng.geometric(0.5, n).astype(float)
    scale = rng.gamma(Q, 1 / GAMMA, n)
    return n_orders, rng.gamma(P * n_orders, 1 / (scale * n_orders))


def test_the_parameters_of_drawn_orders_come_back():
    found = order_value.fit(*drawn())
    assert (found.p, found.q, found.gamma) == (
        pytest.approx(P, rel=0.1),
        pytest.approx(Q, rel=0.1),
        pytest.approx(GAMMA, rel=0.15),
    )


def test_the_unit_of_money_changes_nothing_else():
    n_orders, spend = drawn(2000)
    euros, cents = order_value.fit(n_orders, spend), order_value.fit(n_orders, 100 * spend)
    assert (cents.p, cents.q, cents.gamma) == pytest.approx((euros.p, euros.q, 100 * euros.gamma), rel=1e-3)


@pytest.mark.parametrize(("n_orders", "spend"), [(1.0, 20.0), (7.0, 80.0)])
def test_expected_money_is_the_mean_of_the_posterior(n_orders, spend):
    def weight(scale):
        return gamma.pdf(spend, P * n_orders, scale=1 / (scale * n_orders)) * gamma.pdf(scale, Q, scale=1 / GAMMA)

    mean = quad(lambda scale: P / scale * weight(scale), 0, 10)[0] / quad(weight, 0, 10)[0]
    (found,) = OrderValue(P, Q, GAMMA).expected(np.array([n_orders]), np.array([spend]))
    assert found == pytest.approx(mean, rel=1e-4)


def test_who_has_no_orders_is_expected_to_spend_what_everybody_does():
    assert OrderValue(P, Q, GAMMA).expected(np.zeros(1), np.array([np.nan])) == pytest.approx(P * GAMMA / (Q - 1))


def test_customers_without_orders_or_money_do_not_count():
    n_orders, spend = drawn(2000)
    more = np.append(n_orders, [0.0, 3.0]), np.append(spend, [50.0, 0.0])
    assert order_value.fit(*more) == order_value.fit(n_orders, spend)


def test_too_few_are_refused_in_a_sentence():
    with pytest.raises(UserError, match=r"^1 customers paid for an order on a second day, at least 50 are needed"):
        order_value.fit(np.array([1.0, 0.0]), np.array([3.0, 3.0]))
