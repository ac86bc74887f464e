"""Forecasts of series, corrected by forecasts of their sums: what is made for a sum sees what its parts drown in noise.

With errors that are not correlated, the least expected squared error of coherent means is that of
``x + D S' (S D S' + T)^-1 (y - S x)``: means x of the series and their variances D, direct forecasts y of the sums and
theirs T, and S, which sums. A variance is a dispersion times the forecast, as of counts; so each sum gives all of its
series one share more or less, and a series' factor is one plus the shares of its sums. Of a sum, the forecast is the
greater of the two: one of nothing is not sure.

Shapes: n series that are forecast, H periods of the horizon, K kinds of sums, G sums of all kinds.

Source: Wickramasuriya, Athanasopoulos, Hyndman, "Optimal forecast reconciliation for hierarchical and grouped time
series through trace minimization", JASA 2019, with diagonal covariance (WLS).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.errors import UserError
from features.panels import Floats, Ints, Panel
from features.periods import SEASON
from serving.smoothing import MEMBERS

SumsOf = Literal["item", "category", "location", "shop"]
"""What a sum is of: an item in all locations, the items of a category, what a location sells, or everything."""

Doubles = NDArray[np.float64]

FACTORS = (0.5, 2.0)
"""Range of the factors: a sum that disagrees more has misread its past."""
MOST_SUMS = 5_000
"""Sums whose equations are solved; they take time by the cube of it."""
LEAST_KNOWN = 0.5
"""Share of what a sum usually sells that must be known in a period."""
_DIRECT = MEMBERS["holt_winters_additive"]
_TINY = 1e-9


class Sums(NamedTuple):
    """Forecasts made for sums, and which series they are of.

    kinds : length K
    members : int64, shape (K, n), the number from 0 to G - 1 of each series' sum of each kind
    kind : int64, shape (G,), place of a sum's kind
    ahead : float64, shape (G, H), units, >= 0; NaN of a sum whose past is unknown
    """

    kinds: tuple[SumsOf, ...]
    members: Ints
    kind: Ints
    ahead: Doubles

    def of(self, units: NDArray[np.floating]) -> Doubles:
        """Series' units, shape (n, H) or (n, P), added up to those of the sums, shape (G, H) or (G, P)."""
        return added(units, self.members, len(self.kind))


def direct(known: Panel, origin: int, kinds: Sequence[SumsOf]) -> Sums:
    """Statistical forecasts of the sums of the series that are eligible at an origin, from what they sold before it.

    Raises UserError when there are more sums than can be reconciled.
    """
    series = np.flatnonzero(known.eligible(origin))
    each = [np.unique(_labels(known, of)[series], return_inverse=True) for of in kinds]
    sizes = [len(labels) for labels, _ in each]
    if sum(sizes) > MOST_SUMS:
        counted = ", ".join(f"{size} of {of}" for of, size in zip(kinds, sizes, strict=True))
        raise UserError(
            f"reconcile asks for {sum(sizes)} sums ({counted}), {MOST_SUMS} are allowed: name fewer kinds of sums"
        )
    offsets = np.cumsum([0, *sizes[:-1]])
    members = np.stack([numbers + offset for (_, numbers), offset in zip(each, offsets, strict=True)])
    past = history(known.sold[series, :origin], known.demand[series, :origin], members, sum(sizes))
    ahead = _DIRECT.forecast(past, known.horizon, SEASON[known.frequency])
    told = np.where(np.isnan(past).all(axis=1, keepdims=True), np.nan, ahead)
    return Sums(tuple(kinds), members, np.repeat(np.arange(len(kinds)), sizes), told)


def history(sold: Floats, demand: Floats, members: Ints, n_sums: int) -> Doubles:
    """Demand of sums, float64, shape (G, P), units.

    What is unknown of a sum is as its series usually share it; NaN where less than ``LEAST_KNOWN`` of that is known,
    and before the first sale.

    sold, demand : float32, shape (n, P), as of ``Panel``

    >>> sold = np.float32([[np.nan, 4, 4, 4], [2, 2, 0, 2]])
    >>> demand = np.float32([[np.nan, 4, 4, np.nan], [2, 2, np.nan, 2]])
    >>> history(sold, demand, np.array([[0, 0]]), 1)
    array([[ 2.,  6.,  6., nan]])
    """
    known = ~np.isnan(demand)
    units = np.where(known, demand, 0).astype(np.float64)
    usual = (units.sum(axis=1) / np.maximum(known.sum(axis=1), 1))[:, None]
    due, there = (added(usual * which, members, n_sums) for which in (~np.isnan(sold), known))
    enough = (due > 0) & (there >= LEAST_KNOWN * due)
    return np.where(enough, added(units, members, n_sums) * due / np.maximum(there, _TINY), np.nan)


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """How much forecasts err, of series and of each kind of sum: squared errors over what was forecast, units."""

    series: float
    sums: Mapping[SumsOf, float]

    def factors(self, means: Floats, known: Panel, origin: int) -> Floats:
        """What the means of the series that are eligible at an origin are multiplied by, float32, shape (n, H).

        means : float32, shape (n, H), units, >= 0
        Raises UserError when there are more sums than can be reconciled.
        """
        return self.towards(direct(known, origin, tuple(self.sums)), means)

    def towards(self, sums: Sums, means: Floats) -> Floats:
        """The same towards forecasts of sums that are already made."""
        dispersion = np.array([self.sums[of] for of in sums.kinds])[sums.kind]
        parts, found = sums.of(means), []
        for x, said, y in zip(means.T.astype(np.float64), parts.T, sums.ahead.T, strict=True):
            ahead = np.where(np.isnan(y), said, y)
            found.append(factors(self.series * x, x, sums.members, ahead, dispersion * np.maximum(ahead, said)))
        return np.stack(found, axis=1).astype(np.float32)


def factors(variance: Doubles, means: Doubles, members: Ints, ahead: Doubles, noise: Doubles) -> Doubles:
    """What means are multiplied by so that they heed forecasts of their sums, float64, shape (n,), in ``FACTORS``.

    variance : float64, shape (n,), of the means' errors
    means : float64, shape (n,), units; a mean of 0 keeps its factor of 1
    members : int64, shape (K, n), the number of each series' sum of each kind
    ahead, noise : float64, shape (G,), forecasts of the sums, and the variance of their errors

    >>> factors(np.array([1.0, 3.0]), np.array([1.0, 3.0]), np.array([[0, 0]]), np.array([6.0]), np.array([4.0]))
    array([1.25, 1.25])
    """
    together = np.zeros((len(ahead), len(ahead)))
    for ones, others in product(members, repeat=2):
        np.add.at(together, (ones, others), variance)
    own = np.diag(together)
    together[np.diag_indices_from(together)] += np.maximum(noise, _TINY * own + _TINY)
    shares = np.linalg.solve(together, ahead - added(means, members, len(ahead)))
    moved = variance * shares[members].sum(axis=0)
    return np.asarray(np.clip(1 + np.where(means > 0, moved / np.maximum(means, _TINY), 0), *FACTORS))


def added(values: NDArray[np.floating], members: Ints, n_sums: int) -> Doubles:
    """Values of series, shape (n, ...), added up to sums, float64, shape (G, ...)."""
    sums = np.zeros((n_sums, *values.shape[1:]))
    for numbers in members:
        np.add.at(sums, numbers, values)
    return sums


def _labels(known: Panel, of: SumsOf) -> NDArray[np.generic]:
    """What a series' sum is called, shape (S,)."""
    labels: dict[SumsOf, NDArray[np.generic]] = {
        "item": np.array(known.item_ids),
        "category": known.category,
        "location": known.location,
        "shop": np.zeros(len(known.item_ids), np.int64),
    }
    return labels[of]
