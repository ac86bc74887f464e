"""How likely a purchase is in a seeded shop to somebody who knows how it is drawn, and what a visit was so far."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import comb
from scipy.stats import binom, poisson

from features.seeded.people import INTEREST_LOGIT, MEDIA, SOURCE_LOGITS
from features.seeded.shop import FURTHER_LINE_SHARE, MOST_FURTHER_LINES, Shop
from features.seeded.visits import MOST_BROWSED

Floats = NDArray[np.float64]

N_NODES = 9
LINES = np.arange(1, MOST_FURTHER_LINES + 2)
BROWSED = np.arange(MOST_BROWSED + 1)


@dataclass(frozen=True, slots=True)
class InStock:
    """Shares of visits whose basket is in stock, of those with a cart and of all."""

    carted: float
    all: float


def best_possible(shop: Shop, seen: pa.Table, in_stock: InStock) -> Floats:
    """The probability of a purchase to come by Bayes' rule, given the visitor's own logit, float64, shape (n,).

    A visit's interest is known to nobody; it is integrated over (Gauss-Hermite). With p the purchase probability at an
    interest, a basket is put in the cart with ``c = 1 - (1 - p)^2`` (wanted or only tempted) and then bought with
    ``p / c``; without a cart so far, none of its items was among the views whose next step has been seen.

    seen : ``visitor_id`` (a device), ``medium``, ``n_views``, ``n_carts`` of each visit at a moment
    """
    person = np.array([int(visitor.removeprefix("d")) for visitor in seen["visitor_id"].to_pylist()])
    source = np.array([MEDIA.index(medium) for medium in seen["medium"].to_pylist()])
    logit = shop.people.logit[person] + SOURCE_LOGITS[source]
    n_views, carted = seen["n_views"].to_numpy(), seen["n_carts"].to_numpy() > 0
    settled = np.maximum(np.where(carted, n_views, n_views - 1), carted)
    nodes, weights = np.polynomial.hermite_e.hermegauss(N_NODES)
    bought, happened = np.zeros(len(person)), np.zeros(len(person))
    for interest, weight in zip(nodes, weights / weights.sum(), strict=True):
        chance = 1 / (1 + np.exp(-(logit + INTEREST_LOGIT * interest)))
        possible, unseen = _views(n_views, settled, float(np.exp(0.4 + 0.4 * interest)))
        wanted_or_tempted = 1 - (1 - chance) ** 2
        none_yet = wanted_or_tempted * unseen + (1 - wanted_or_tempted) * possible
        without = in_stock.all * none_yet + (1 - in_stock.all) * possible
        happened += weight * np.where(carted, wanted_or_tempted * (possible - unseen), without)
        bought += weight * chance * np.where(carted, in_stock.carted * (possible - unseen), in_stock.all * unseen)
    return bought / happened


def _views(n_views: NDArray[np.int64], settled: NDArray[np.int64], mean_browsed: float) -> tuple[Floats, Floats]:
    """How likely so many views are, and together with no item in mind among those whose next step has been seen.

    settled : how many those are: without a cart so far all views but the last
    """
    browsed = poisson.pmf(BROWSED, mean_browsed)
    browsed[-1] += 1 - browsed.sum()
    seen, of_row = np.unique(np.stack([n_views, settled]), axis=1, return_inverse=True)
    possible, unseen = np.zeros(seen.shape[1]), np.zeros(seen.shape[1])
    for lines, share in zip(LINES, binom.pmf(LINES - 1, MOST_FURTHER_LINES, FURTHER_LINE_SHARE), strict=True):
        total = lines + BROWSED
        enough = (total >= np.maximum(seen[0], 1)[:, None]) * share * browsed
        possible += enough.sum(axis=1)
        unseen += (enough * comb(np.maximum(total - seen[1][:, None], 0), lines) / comb(total, lines)).sum(axis=1)
    return possible[of_row.ravel()], unseen[of_row.ravel()]
