"""Names for groups of customers: what they did (recency, frequency, money) and what they promise (tiers)."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Scores = NDArray[np.int64]

N_SCORES = 5


def scores(values: Floats) -> Scores:
    """1 to 5 by the share of customers with a smaller value: fifths, but customers who tie are never parted.

    values : float64, shape (n,), larger is better

    >>> scores(np.array([1.0, 1.0, 1.0, 2.0, 9.0]))
    array([1, 1, 1, 4, 5])
    """
    smaller = np.searchsorted(np.sort(values), values)
    return np.asarray(1 + N_SCORES * smaller // max(len(values), 1), np.int64)


def segments(recency: Scores, frequency: Scores, money: Scores, n_orders: NDArray[np.int64]) -> list[str]:
    """The first rule that holds for each customer; scores are 1 to 5, n_orders counts all orders ever.

    - ``new``: one order, recency 4 or 5
    - ``champions``: all scores 4 or 5
    - ``loyal``: recency 3 or more, frequency 4 or 5
    - ``at risk``: recency 1 or 2, frequency or money 4 or 5
    - ``lost``: recency 1 or 2
    - ``occasional``: everybody else
    """
    recent, often, rich = recency >= 4, frequency >= 4, money >= 4
    lapsed = recency <= 2
    rules = {
        "new": recent & (n_orders == 1),
        "champions": recent & often & rich,
        "loyal": ~lapsed & often,
        "at risk": lapsed & (often | rich),
        "lost": lapsed,
    }
    return [str(name) for name in np.select(list(rules.values()), list(rules), "occasional")]


def tiers(values: Floats, shares: Mapping[str, float]) -> list[str]:
    """The tier of each customer by predicted value: the best share gets the first tier, and so on; ties stay together.

    values : float64, shape (n,), money
    shares : share of customers per tier, the best tier first, summing to 1

    >>> tiers(np.array([5.0, 90.0, 7.0, 5.0]), {"gold": 0.25, "silver": 0.25, "basic": 0.5})
    ['basic', 'gold', 'silver', 'basic']
    """
    larger = len(values) - np.searchsorted(np.sort(values), values, side="right")
    limits = np.cumsum(list(shares.values()))[:-1] * len(values)
    names = list(shares)
    return [names[place] for place in np.searchsorted(limits, larger, side="right")]
