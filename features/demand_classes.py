"""Classes of demand: how often and how evenly a series sells, what it is worth, whether it begins or ends.

Every function takes ``demand``: float32, shape (n_series, n_periods), units, >= 0; NaN is a period whose demand nobody
knows (before the first sale, out of stock), which counts neither as sold nor as unsold.
"""

import numpy as np
from numpy.typing import NDArray

from features.panels import Floats

Classes = NDArray[np.str_]

INTERVAL_CUTOFF = 1.32
VARIATION_CUTOFF = 0.49


def pattern(demand: Floats, min_periods: int = 12, ending_after: float = 6.0) -> Classes:
    """The class that chooses a series' pool and its fallback.

    ``new``: fewer known periods than ``min_periods``; ``ending``: unsold for longer than ``ending_after`` of its usual
    intervals, or never sold; else by the interval between sales and the variation of their sizes ``smooth``,
    ``erratic`` (sizes vary), ``intermittent`` (sells seldom) or ``lumpy`` (both).

    min_periods : known periods, of the panel's length
    ending_after : usual intervals; where sales fall at random, a series that goes on is mistaken for ending with
        probability exp(-ending_after)
    Returns str, shape (n_series,).
    Source: Syntetos, Boylan, Croston, "On the categorization of demand patterns", JORS 2005.

    >>> steady, uneven, seldom = [3, 2, 3, 2, 3, 2, 3, 2], [1, 9, 1, 9, 1, 1, 1, 9], [0, 4, 0, 0, 4, 0, 0, 4]
    >>> pattern(np.array([steady, uneven, seldom, [5, 0, 0, 0, 0, 0, 0, 0]], np.float32), min_periods=8).tolist()
    ['smooth', 'erratic', 'intermittent', 'ending']
    """
    seldom = demand_interval(demand) >= INTERVAL_CUTOFF
    varied = size_variation(demand) >= VARIATION_CUTOFF
    cases = {
        "new": (~np.isnan(demand)).sum(axis=1) < min_periods,
        "ending": _silence(demand) > ending_after * _usual_interval(demand),
        "lumpy": seldom & varied,
        "intermittent": seldom,
        "erratic": varied,
    }
    return np.select(list(cases.values()), list(cases), "smooth")


def demand_interval(demand: Floats) -> Floats:
    """Known periods per period with a sale (ADI), float32, shape (n_series,), >= 1; infinite without a sale."""
    return _per_sale((~np.isnan(demand)).sum(axis=1), demand)


def size_variation(demand: Floats) -> Floats:
    """Squared coefficient of variation of what sold in the periods with a sale, float32, shape (n_series,); 0 without.

    >>> size_variation(np.array([[0, 1, 3, np.nan]], np.float32))
    array([0.25], dtype=float32)
    """
    return _variation(np.where(demand > 0, demand, np.nan)) ** 2


def by_share(amount: NDArray[np.floating], cutoffs: tuple[float, float] = (0.8, 0.95)) -> Classes:
    """ABC: A is the fewest series that make the first share of the amount, B those up to the second, C the rest.

    amount : shape (n_series,), money or units, >= 0
    cutoffs : ascending shares of the total
    Returns str, shape (n_series,); all C where nothing was sold.

    >>> by_share(np.array([5, 80, 0, 15])).tolist()
    ['C', 'A', 'C', 'B']
    """
    order = np.argsort(-amount, kind="stable")
    share_before = np.empty(len(amount))
    share_before[order] = (np.cumsum(amount[order]) - amount[order]) / max(float(amount.sum()), np.finfo(float).tiny)
    a, b = (share_before < cutoff - 1e-9 for cutoff in cutoffs)
    return np.select([a & (amount > 0), b & (amount > 0)], ["A", "B"], "C")


def by_variation(demand: Floats, cutoffs: tuple[float, float] = (0.5, 1.0)) -> Classes:
    """XYZ: X is demand that varies less than the first cut-off, Y less than the second, Z the rest and the unsold.

    cutoffs : ascending coefficients of variation over known periods, those without a sale included
    Returns str, shape (n_series,).

    >>> by_variation(np.array([[4, 5, 4], [1, 6, 8], [0, 0, 9], [0, 0, 0]], np.float32)).tolist()
    ['X', 'Y', 'Z', 'Z']
    """
    x, y = (_variation(demand) < cutoff for cutoff in cutoffs)
    sold = (demand > 0).any(axis=1)
    return np.select([x & sold, y & sold], ["X", "Y"], "Z")


def _per_sale(periods: NDArray[np.integer], demand: Floats) -> Floats:
    n_sales = (demand > 0).sum(axis=1)
    return np.where(n_sales > 0, periods / np.maximum(n_sales, 1), np.inf).astype(np.float32)


def _silence(demand: Floats) -> NDArray[np.intp]:
    """Known periods since the last sale, all of them without one."""
    sold_later = np.logical_or.accumulate((demand > 0)[:, ::-1], axis=1)[:, ::-1]
    silence: NDArray[np.intp] = (~np.isnan(demand) & ~sold_later).sum(axis=1)
    return silence


def _usual_interval(demand: Floats) -> Floats:
    """Known periods up to the last sale, per sale; 0 without one, so that any silence is longer."""
    known = (~np.isnan(demand)).sum(axis=1)
    interval = _per_sale(known - _silence(demand), demand)
    return np.where(np.isinf(interval), np.float32(0), interval)


def _variation(values: Floats) -> Floats:
    """Coefficient of variation over the last axis of what is known, 0 where the mean is."""
    known = ~np.isnan(values)
    counted = np.maximum(known.sum(axis=1), 1)
    mean = np.nansum(values, axis=1) / counted
    spread = np.sqrt(np.nansum(np.square(values - mean[:, None]), axis=1) / counted)
    variation: Floats = np.divide(spread, mean, out=np.zeros_like(mean), where=mean > 0).astype(np.float32)
    return variation
