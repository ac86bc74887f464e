"""What computes a forecast: features and bases give the mean, the mean gives quantiles, and those are moved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from features.demand import features, level
from features.demand_classes import Classes, pattern
from features.known import Known
from features.panels import Floats, Panel
from features.periods import SEASON
from serving.price_response import price_response
from serving.quantile_network import QuantileNetwork
from serving.reconcile import Reconciliation
from serving.smoothing import MEMBERS


class Regressor(Protocol):
    """What predicts multiples: float64 [n, n_features] to float64 [n]."""

    def predict(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """One prediction per row."""


ALL = "all"
"""Name of the offsets of classes that have none of their own."""
ROWS_AT_ONCE = 200_000
LEAST_MEAN = np.float32(0.01)
"""Share of its base below which a mean does not fall where quantiles are multiples of it."""

Base = Literal["level", "price_response", "theta", "holt", "holt_winters_additive", "holt_winters_multiplicative"]

QuantilesOf = Literal["mean", "base"]
"""What quantiles are multiples of: the mean, learnt from how forecasts of held-out horizons erred; or the base, learnt
from every example as the mean is, for a horizon so long that little can be held out."""


def base_of(known: Panel, origin: int, base: Base) -> Floats:
    """What trees correct, float32, shape (S, horizon), units, > 0: a series' level, or a forecast of another kind.

    "price_response" is told by prices and promotions, see ``serving.price_response``; the others are statistical
    forecasts, which do not fall below a tenth of the level.
    """
    flat = np.repeat(level(known, origin)[:, None], known.horizon, axis=1)
    if base == "level":
        return flat
    if base == "price_response":
        return price_response(Known(known, origin, flat[:, :1]))
    ahead = MEMBERS[base].forecast(known.demand[:, :origin], known.horizon, SEASON[known.frequency])
    return np.maximum(ahead.astype(np.float32), flat / 10)


class Inputs(NamedTuple):
    """What a forecast is computed from, of every eligible series: what ``features`` says, and the bases.

    names : of the features
    rows : float32, shape (n_eligible, horizon, F)
    bases : float32, shape (n_eligible, horizon, n_bases), units
    patterns : shape (n_eligible,), see ``features.demand_classes.pattern``
    """

    names: tuple[str, ...]
    rows: Floats
    bases: Floats
    patterns: Classes


def inputs(known: Panel, origin: int, bases: Sequence[Base]) -> Inputs:
    """What the forecast at an origin is computed from."""
    eligible = known.eligible(origin)
    names, rows = features(known, origin)
    scales = np.stack([base_of(known, origin, base)[eligible] for base in bases], axis=-1)
    return Inputs(names, rows[eligible], scales, pattern(known.demand[eligible, :origin]))


@dataclass(frozen=True, slots=True)
class Recipe:
    """What turns a panel into a forecast: the mean, and quantiles as multiples of it or of what it is a multiple of.

    means : one for each base, from features to units over it; the mean is their geometric mean in units
    shape : for each quantile, ascending, from ``shape_rows`` to its multiple of the mean, or from features to units
        over the first base
    bases : what the means are multiples of, see ``base_of``
    quantiles_of : see ``QuantilesOf``
    offsets : how far quantiles are moved, see ``moved``; none are without
    network, share : what gives a share of the quantiles, and which; None: there is none
    reconciliation : what makes means heed forecasts of their sums; None: they do not
    """

    means: Sequence[Regressor]
    shape: Sequence[Regressor]
    bases: tuple[Base, ...] = ("level",)
    quantiles_of: QuantilesOf = "mean"
    offsets: Mapping[str, Floats] = field(default_factory=dict)
    network: QuantileNetwork | None = None
    share: float = 0.0
    reconciliation: Reconciliation | None = None

    def forecast(self, known: Panel, origin: int) -> Floats:
        """Forecasts of every series that is eligible at an origin; quantiles ascend and nothing is below zero.

        origin : periods known
        Returns float32, shape (n_eligible, horizon, 1 + n_quantiles), units: the mean, then the quantiles.
        """
        _, rows, bases, patterns = inputs(known, origin, self.bases)
        units = self.units(rows, bases, patterns)
        return units * self.factors(units, known, origin)

    def factors(self, units: Floats, known: Panel, origin: int) -> Floats:
        """What sums say of every series that is eligible at an origin, float32, shape (n_eligible, horizon, 1).

        units : float32, shape (n_eligible, horizon, 1 + n_quantiles), as of ``units``
        Returns what means and quantiles are multiplied by; 1 where they are not reconciled.
        """
        if self.reconciliation is None:
            return np.ones_like(units[:, :, :1])
        return self.reconciliation.factors(units[:, :, 0], known, origin)[:, :, None]

    def units(self, rows: Floats, bases: Floats, patterns: Classes) -> Floats:
        """The same from what ``Inputs`` holds of any one or more series, before it is reconciled."""
        flat, scales = rows.reshape(-1, rows.shape[-1]), bases.reshape(-1, bases.shape[-1])
        parts = [slice(i, i + ROWS_AT_ONCE) for i in range(0, len(flat), ROWS_AT_ONCE)]
        units = np.concatenate([self.of_rows(flat[part], scales[part]) for part in parts])
        values = units.reshape(*rows.shape[:2], units.shape[-1])
        return moved(values, patterns, self.offsets) if self.offsets else values

    def of_rows(self, rows: Floats, scales: Floats) -> Floats:
        """The same of rows, whose quantiles are not moved, float32, shape (n, 1 + n_quantiles), units.

        rows : float32, shape (n, F), features; scales : float32, shape (n, n_bases), units
        """
        relative, scale = mean_of(self.means, rows, scales), scales[:, 0]
        of_base = self.quantiles_of == "base"
        read = (rows if of_base else shape_rows(rows, relative, scale)).astype(np.float64)
        multiples = np.stack([model.predict(read) for model in self.shape], axis=-1).astype(np.float32)
        multiples.sort(axis=-1)
        unit = scale if of_base else floored(relative) * scale
        quantiles = np.maximum(multiples, 0) * unit[:, None]
        if self.network is not None:
            quantiles = (1 - self.share) * quantiles + self.share * self.network.quantiles(rows, scales)
        return np.concatenate([np.maximum(relative * scale, 0)[:, None], quantiles], axis=1)


def mean_of(means: Sequence[Regressor], rows: Floats, scales: Floats) -> Floats:
    """What several models say together, over the first base: the geometric mean of their units.

    rows : float32, shape (n, F); scales : float32, shape (n, n_bases), units
    Returns float32, shape (n,); the answer of one model alone as it is, of several at least ``LEAST_MEAN`` each.
    """
    wide = rows.astype(np.float64)
    relative = [model.predict(wide).astype(np.float32) for model in means]
    if len(relative) == 1:
        return relative[0]
    units = floored(np.stack(relative, axis=1)) * scales
    together: Floats = np.exp(np.log(units).mean(axis=1))
    return together / scales[:, 0]


def moved(values: Floats, patterns: Classes, offsets: Mapping[str, Floats]) -> Floats:
    """The same forecast with quantiles moved by their class's offsets, ascending and not below zero.

    values : float32, shape (n, H, 1 + Q), units
    patterns : class of each series, see ``features.demand_classes.pattern``
    offsets : by class float32, shape (H, Q), in units of the mean; of a class that is not there, under ``ALL``
    """
    names, number = np.unique(patterns, return_inverse=True)
    own = np.stack([offsets.get(name, offsets[ALL]) for name in names.tolist()])
    quantiles = np.sort(np.maximum(values[:, :, 1:] + own[number] * in_units_of(values), 0), axis=-1)
    return np.concatenate([values[:, :, :1], quantiles], axis=2)


def in_units_of(values: Floats) -> Floats:
    """What offsets are multiples of: the mean, shape (n, H, 1)."""
    return np.maximum(values[:, :, :1], np.float32(1e-3))


def in_whole_units(values: Floats, known: Panel, origin: int) -> Floats:
    """The same forecast with whole quantiles for series that have only sold in whole units, for so are theirs.

    values : float32, shape (n_eligible, horizon, 1 + n_quantiles), of the origin
    """
    past = known.sold[known.eligible(origin), :origin]
    whole = (np.isnan(past) | (past == np.rint(past))).all(axis=1)
    rounded = np.concatenate([values[:, :, :1], np.rint(values[:, :, 1:])], axis=2)
    return np.where(whole[:, None, None], rounded, values)


def floored(relative: Floats) -> Floats:
    """A mean over its base that quantiles can be multiples of."""
    return np.maximum(relative, LEAST_MEAN)


def shape_rows(rows: Floats, relative: Floats, scale: Floats) -> Floats:
    """What the shape of a distribution is told from: the features, and the mean over the base and in units.

    rows : float32, shape (n, F)
    relative, scale : float32, shape (n,), the mean over the base, and the base in units
    """
    return np.column_stack([rows, np.log(floored(relative)), np.log(floored(relative) * scale)])


def model_names(bases: Sequence[Base], quantiles: Sequence[float]) -> list[str]:
    """The texts' names: of the means, then of the quantiles in the order of the forecast's columns.

    >>> model_names(["level"], [0.05, 0.5])
    ['mean_level', 'quantile_0.05', 'quantile_0.5']
    """
    return [*(f"mean_{base}" for base in bases), *(f"quantile_{quantile:g}" for quantile in quantiles)]
