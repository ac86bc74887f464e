"""Panels that tests draw: what is not said is plain."""

from typing import Any

import numpy as np

from features.panels import PRICES, PROMOTIONS, Panel
from features.periods import Frequency, first_day, number


def plain_panel(
    sold: np.ndarray, horizon: int, since: str = "2023-01-02", frequency: Frequency = "week", **said: Any
) -> Panel:
    """Series of one shop, category and place, always on sale, of whose offers nobody knows anything.

    sold : shape (S, P), units; revenue is as much
    since : ISO date in the first period
    said : what ``Panel`` holds otherwise; offers are cast to its float32
    """
    n_series, n_periods = sold.shape
    first, units = int(number(np.datetime64(since), frequency)), sold.astype(np.float32)
    unknown = np.full((n_series, n_periods + horizon), np.nan)
    offers = said.pop("offers", dict.fromkeys((*PRICES, *PROMOTIONS), unknown))
    plain = {
        "item_ids": tuple(f"i{row}" for row in range(n_series)),
        "location_ids": ("",) * n_series,
        "exposure": np.ones_like(units),
        "revenue": units,
        "category": np.zeros(n_series, np.int64),
        "location": np.zeros(n_series, np.int64),
        "min_periods": 10,
    }
    return Panel(
        dates=first_day(np.arange(first, first + n_periods + horizon), frequency),
        sold=units,
        offers={name: values.astype(np.float32) for name, values in offers.items()},
        frequency=frequency,
        **{**plain, **said},
    )
