"""The stock of a seeded shop, from the morning's arrivals to the evening's orders."""

from typing import NamedTuple

import numpy as np

from features.seeded.catalogue import LEAD_TIME_VARIATION, Catalogue
from features.seeded.chance import Bools, Floats, Ints
from features.seeded.clock import DAY_US


class Sale(NamedTuple):
    """What a day's basket lines found: whether any stock was left, and the units taken."""

    in_stock: Bools
    taken: Floats


class Stockroom:
    """Stock on hand and on order under a periodic-review, order-up-to policy.

    mean_demand : float array, shape (n_items,)   units per day that the policy expects, without season or promotion
    Source: Silver, Pyke, Thomas, "Inventory and Production Management in Supply Chains", 4th edition, 2017, (R, S).
    """

    DEPTH = 64  # days ahead that an arrival can lie

    def __init__(self, catalogue: Catalogue, mean_demand: Floats) -> None:
        self.catalogue = catalogue
        cycle_days = catalogue.lead_days + catalogue.review_days
        self.target = np.ceil(catalogue.cover * mean_demand * cycle_days + 1)
        self.on_hand = self.target.copy()
        self.arriving = np.zeros((self.DEPTH, len(mean_demand)))
        self.available_fraction = np.ones(len(mean_demand))

    @property
    def on_order(self) -> Floats:
        return np.asarray(self.arriving.sum(axis=0))

    def receive(self, day: int) -> None:
        """Open a day with what arrives on it."""
        self.on_hand = self.on_hand + self.arriving[day % self.DEPTH]
        self.arriving[day % self.DEPTH] = 0
        self.available_fraction = (self.on_hand > 0).astype(float)

    def sell(self, item: Ints, quantity: Floats, time: Ints) -> Sale:
        """Serve lines first come, first served.

        item, quantity, time : arrays, shape (n_lines,)   quantity 0 only asks; time in us since midnight
        """
        order = np.lexsort((time, item))
        item, quantity, time = item[order], quantity[order], time[order]
        asked_before = np.cumsum(quantity) - quantity
        asked_before -= asked_before[np.searchsorted(item, item)]
        left = np.maximum(self.on_hand[item] - asked_before, 0)
        emptied = (left > 0) & (quantity >= left)
        self.available_fraction[item[emptied]] = time[emptied] / DAY_US
        self.on_hand = np.maximum(self.on_hand - np.bincount(item, quantity, len(self.on_hand)), 0)
        back = np.argsort(order)
        return Sale((left > 0)[back], np.minimum(left, quantity)[back])

    def reorder(self, day: int, rng: np.random.Generator) -> None:
        """Order up to the target in whole packs after the close of an item's review day."""
        goods = self.catalogue
        due = goods.listed(day) & (day % goods.review_days == 0)
        short = np.maximum(self.target - self.on_hand - self.on_order, 0)
        packs = np.maximum(np.ceil(short / goods.pack), goods.least_packs)
        lead = np.maximum(np.rint(rng.normal(goods.lead_days, goods.lead_days * LEAD_TIME_VARIATION)), 1).astype(int)
        ordered = np.flatnonzero(due & (short > 0))
        self.arriving[(day + lead[ordered]) % self.DEPTH, ordered] += (packs * goods.pack)[ordered]
