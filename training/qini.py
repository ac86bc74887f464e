"""Metrics of predicted uplift on a randomised campaign; touches of equal uplift are one level, so ties never break.

What a touch did to its customer is never seen; what it did to a group of touches is the difference between the purchase
rates of its treated and its held out.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.classification import levels
from training.evaluation import N_RESAMPLES, PERCENTILES, Row

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

RESAMPLES_AT_ONCE = 20


class Counts(NamedTuple):
    """Touches and purchases per level, the highest uplift first; float64 arrays, shape (..., n_levels)."""

    treated: Floats
    treated_bought: Floats
    held_out: Floats
    held_out_bought: Floats


def counts(uplift: Floats, treated: Bools, bought: Bools) -> Counts:
    """Touches and purchases per distinct uplift.

    uplift : float64, shape (n,)   predicted
    treated, bought : bool, shape (n,)

    >>> counts(np.array([0.1, 0.3, 0.3]), np.array([True, True, False]), np.array([False, True, True]))
    Counts(treated=array([1., 1.]), treated_bought=array([1., 0.]), held_out=array([1., 0.]), \
held_out_bought=array([1., 0.]))
    """
    distinct, level_of = levels(uplift)
    arms = (_per_level(2 * level_of[arm] + bought[arm], len(distinct)) for arm in (treated, ~treated))
    return Counts(*chain.from_iterable(arms))


def qini_curve(counts: Counts) -> tuple[Floats, Floats]:
    """The purchases that treating the touches of highest predicted uplift adds, against the share of touches treated.

    With T treated and C held-out touches down to a level, of which T+ and C+ bought, and N treated in all, the gain is
    ``(T+ - C+ T / C) / N``: purchases added per treated touch. It ends at the average uplift.

    Returns shares of all touches, from 0 to 1, and gains, both of shape (..., n_levels + 1).
    Source: Radcliffe, "Using control groups to target on predicted lift", Direct Marketing Analytics Journal, 2007.

    >>> bought = np.array([True, False, False, False, True, True])
    >>> qini_curve(counts(np.array([3.0, 3, 2, 2, 1, 1]), np.array([True, False] * 3), bought))[1]
    array([0.        , 0.33333333, 0.33333333, 0.33333333])
    """
    treated, treated_bought, held_out, held_out_bought = (np.cumsum(each, axis=-1) for each in counts)
    gain = (treated_bought - held_out_bought * treated / np.maximum(1.0, held_out)) / treated[..., -1:]
    touches = treated + held_out
    return _from_zero(touches / touches[..., -1:]), _from_zero(gain)


def qini(counts: Counts) -> Floats:
    """Area between the Qini curve and its diagonal, which is what a random order gives, shape (...).

    In purchases per treated touch, averaged over the shares that could be treated: not divided by the area of a perfect
    order, which nobody knows. 0 for a constant; negative when the order is worse than random.
    """
    share, gain = qini_curve(counts)
    return np.asarray(np.trapezoid(gain, share, axis=-1) - gain[..., -1] / 2)


def uplift_at(share: float, counts: Counts) -> Floats:
    """Purchase rate of the treated less that of the held out, among a share of touches of highest predicted uplift.

    share : in (0, 1]; a level at the edge enters in part
    Returns float64, shape (...); a group without any touch counts as one that does not buy.
    """
    touches = counts.treated + counts.held_out
    room = share * touches.sum(axis=-1, keepdims=True) - (np.cumsum(touches, axis=-1) - touches)
    taken = np.clip(room / np.maximum(1.0, touches), 0, 1)
    treated, treated_bought, held_out, held_out_bought = ((taken * each).sum(axis=-1) for each in counts)
    return np.asarray(treated_bought / np.maximum(1.0, treated) - held_out_bought / np.maximum(1.0, held_out))


METRICS: dict[str, Callable[[Counts], Floats]] = {
    "qini": qini,
    **{f"uplift_at_{percent}pct": partial(uplift_at, percent / 100) for percent in (10, 20, 30, 100)},
}


def uplift_rows(model: str, split: str, uplift: Floats, treated: Bools, bought: Bools) -> list[Row]:
    """METRICS of a model with 95 % percentile bootstrap intervals: treated and held out are each drawn anew.

    uplift : float64, shape (n,)   predicted
    treated, bought : bool, shape (n,)   with both treated and held out
    """
    observed = counts(uplift, treated, bought)
    drawn = [[metric(each) for metric in METRICS.values()] for each in _resampled(uplift, treated, bought)]
    lows, highs = np.percentile(np.concatenate(drawn, axis=1), PERCENTILES, axis=1)
    return [
        Row(model, split, "all", False, name, float(metric(observed)), float(low), float(high), len(uplift))
        for (name, metric), low, high in zip(METRICS.items(), lows, highs, strict=True)
    ]


def _resampled(uplift: Floats, treated: Bools, bought: Bools) -> Iterator[Counts]:
    """Counts of N_RESAMPLES resamples, RESAMPLES_AT_ONCE in a block; the order of the touches does not matter."""
    rng = np.random.default_rng(0)
    distinct, level_of = levels(uplift)
    arms = [np.sort(2 * level_of[arm] + bought[arm]) for arm in (treated, ~treated)]
    for _ in range(N_RESAMPLES // RESAMPLES_AT_ONCE):
        drawn = (_per_level(_drawn(cells, rng), len(distinct)) for cells in arms)
        yield Counts(*chain.from_iterable(drawn))


def _drawn(cells: NDArray[np.intp], rng: np.random.Generator) -> NDArray[np.intp]:
    """Cells drawn with replacement, shape (RESAMPLES_AT_ONCE, n)."""
    return cells[rng.integers(0, len(cells), (RESAMPLES_AT_ONCE, len(cells)))]


def _per_level(cells: NDArray[np.intp], n_levels: int) -> tuple[Floats, Floats]:
    """Touches and purchases per level, shape (..., n_levels).

    cells : int, shape (..., n)   twice the level, and one more for a purchase
    """
    shape = cells.shape[:-1]
    block = 2 * n_levels * np.arange(np.prod(shape, dtype=int)).reshape(*shape, 1)
    found = np.bincount((cells + block).ravel(), minlength=2 * n_levels * block.size).astype(np.float64)
    found = found.reshape(*shape, n_levels, 2)
    return found.sum(axis=-1), found[..., 1]


def _from_zero(values: Floats) -> Floats:
    """The same with a 0 before the first value of every row."""
    return np.concatenate([np.zeros_like(values[..., :1]), values], axis=-1)
