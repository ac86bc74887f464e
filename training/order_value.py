"""Fits what an order is worth: Gamma-Gamma, in which a customer's orders vary around a mean of its own.

Fader, Hardie, "The Gamma-Gamma Model of Monetary Value", 2013: orders are gamma with shape ``p``, their scale is gamma
with shape ``q`` and scale ``gamma`` over customers, and what is spent does not depend on how often.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import betaln

from features.errors import UserError

Floats = NDArray[np.float64]

LEAST_CUSTOMERS = 50
_BOUNDS = [(-5.0, 10.0)] * 3


@dataclass(frozen=True, slots=True)
class OrderValue:
    """A fitted model; ``gamma`` is in units of money."""

    p: float
    q: float
    gamma: float

    def expected(self, n_orders: Floats, mean_spend: Floats) -> Floats:
        """Expected money per order: the customer's own mean drawn towards everybody's by how few orders it has.

        n_orders : float64, shape (n,), orders that ``mean_spend`` is of; 0 gives everybody's mean
        mean_spend : float64, shape (n,), money, any number where there is no order
        Returns float64, shape (n,), money.
        """
        own = np.where(n_orders > 0, n_orders * mean_spend, 0.0)
        return np.asarray(self.p * (self.gamma + own) / (self.p * n_orders + self.q - 1))


def fit(n_orders: Floats, mean_spend: Floats) -> OrderValue:
    """The parameters of greatest likelihood; ``q`` stays above 1, below which no mean exists.

    n_orders, mean_spend : float64, shape (n,), as for ``OrderValue.expected``; no orders or no money does not count
    Raises UserError when fewer than 50 customers remain.
    """
    counted = (n_orders > 0) & (mean_spend > 0)
    if counted.sum() < LEAST_CUSTOMERS:
        raise UserError(
            f"{counted.sum()} customers paid for an order on a second day, at least {LEAST_CUSTOMERS} are needed to "
            "learn what orders are worth: give a longer history, and prices"
        )
    x, money = n_orders[counted], mean_spend[counted]
    unit = float(money.mean())
    found = minimize(_negative_log_likelihood, np.zeros(3), args=(x, money / unit), method="L-BFGS-B", bounds=_BOUNDS)
    p, above_one, gamma = np.exp(found.x).tolist()
    return OrderValue(p, 1 + above_one, gamma * unit)


def _negative_log_likelihood(parameters: Floats, x: Floats, mean: Floats) -> float:
    p, q, gamma = np.exp(parameters) + np.array([0.0, 1.0, 0.0])
    total = x * mean
    terms = p * x * np.log(total) - np.log(mean) + q * np.log(gamma) - (p * x + q) * np.log(gamma + total)
    return float(-(terms - betaln(p * x, q)).mean())
