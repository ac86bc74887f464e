"""What is known of a panel at an origin, and the means and ratios that features are made of.

Shapes: S series, H horizon steps, G groups.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from features.panels import Floats, Ints, Panel, demand, least


@dataclass(frozen=True)
class Known:
    """What is known of a panel at an origin.

    level : float32, shape (S, 1), units per period, > 0
    sold, exposure : float32, shape (S, origin), units and shares, 0 where a period does not count
    """

    panel: Panel
    origin: int
    level: Floats

    @cached_property
    def sold(self) -> Floats:
        return np.where(self.exposure > 0, self.panel.sold[:, : self.origin], np.float32(0))

    @cached_property
    def exposure(self) -> Floats:
        return self.panel.exposure[:, : self.origin]

    @cached_property
    def relative(self) -> Floats:
        """Demand over level, shape (S, origin), NaN where it cannot be said."""
        return demand(self.panel.sold[:, : self.origin], self.exposure) / self.level

    @cached_property
    def log_price(self) -> Floats:
        """Logarithm of the price asked, shape (S, P + H), NaN where unknown or zero."""
        price = self.panel.offers["price"]
        logs: Floats = np.log(np.where(price > 0, price, np.float32(np.nan)))
        return logs

    @cached_property
    def held(self) -> Floats:
        """1 for the series that a panel built at the origin would hold, shape (S, 1): groups are made of them alone."""
        n_sales = (self.sold > 0).sum(axis=1, keepdims=True)
        return np.asarray(n_sales >= least(self.panel.min_periods), np.float32)

    @cached_property
    def item(self) -> Ints:
        """Number of each series' item, shape (S,)."""
        return np.unique(np.array(self.panel.item_ids, str), return_inverse=True)[1]

    @cached_property
    def rivals(self) -> Ints:
        """Number of each series' category and place, shape (S,): the choice that a customer stands before."""
        panel = self.panel
        places = panel.location.max(initial=0) + 1
        return np.unique(panel.category * places + panel.location, return_inverse=True)[1]

    @property
    def ahead(self) -> slice:
        return slice(self.origin, self.origin + self.panel.horizon)


def mean(values: Floats) -> Floats:
    """Mean over the last axis of what is known; NaN where nothing is."""
    known = ~np.isnan(values)
    counted = known.sum(axis=-1)
    return np.where(counted > 0, np.nansum(values, axis=-1) / np.maximum(counted, 1), np.float32(np.nan))


def median(values: Floats) -> Floats:
    """Median over the last axis of what is known, the lower of two in the middle; NaN where nothing is.

    >>> median(np.float32([[3, 1, np.nan, 2], [np.nan] * 4]))
    array([ 2., nan], dtype=float32)
    """
    counted = (~np.isnan(values)).sum(axis=-1, keepdims=True)
    return np.take_along_axis(np.sort(values, axis=-1), np.maximum(counted - 1, 0) // 2, axis=-1)[..., 0]


def ratio(above: Floats, below: Floats) -> Floats:
    """Quotient, NaN where what is below is not above zero."""
    safe = np.where(below > 0, below, np.nan)
    return (above / safe).astype(np.float32)


def latest(values: Floats, n: int) -> Floats:
    return values[:, max(0, values.shape[1] - n) :]


def summed(values: NDArray[np.floating], group: Ints) -> Floats:
    """Sums of rows by group, shape (G, n_columns)."""
    n_groups = group.max(initial=-1) + 1
    sums = np.zeros((n_groups, values.shape[1]), np.float32)
    for column, each in enumerate(values.T):
        sums[:, column] = np.bincount(group, each, minlength=n_groups)
    return sums
