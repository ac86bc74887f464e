"""How far quantiles must move so that, of what was held out, as much lies below each as it says."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from features.panels import Floats
from serving.recipe import ALL, in_units_of
from training.demand.dependence import HeldOut

LEAST_CELLS = 2_000
"""Held-out periods, known ones, that a class or a step of it needs for offsets of its own."""


def offsets(held_out: HeldOut, quantiles: Sequence[float]) -> dict[str, Floats]:
    """Offsets of every class and step, as ``serving.recipe.moved`` reads them.

    The offset of a quantile is the same quantile of its own errors, in units of the mean (in the manner of Romano,
    Patterson, Candes, "Conformalized quantile regression", NeurIPS 2019, without their guarantee: the quantiles that
    answer are learnt from more than those that erred here). Classes with little held out take those
    of all, and so do the steps of a class. One held-out horizon alone moves nothing: its errors may be its own.

    Returns by class float32, shape (H, Q); under ``ALL`` those of every other class.
    """
    if len(np.unique(held_out.origin)) == 1:
        return {ALL: np.zeros((held_out.actual.shape[1], len(quantiles)), np.float32)}
    errors = (held_out.actual[:, :, None] - held_out.units[:, :, 1:]) / in_units_of(held_out.units)
    found = {ALL: _by_step(errors, quantiles)}
    for name in np.unique(held_out.pattern).tolist():
        own = errors[held_out.pattern == name]
        if _known(own).sum() >= LEAST_CELLS:
            found[name] = _by_step(own, quantiles)
    return found


def _by_step(errors: Floats, quantiles: Sequence[float]) -> Floats:
    """Each step's own where enough of it is known, those of all steps elsewhere, shape (H, Q)."""
    found = np.tile(_of(errors.reshape(-1, errors.shape[2]), quantiles), (errors.shape[1], 1))
    for step in np.flatnonzero(_known(errors).sum(axis=0) >= LEAST_CELLS):
        found[step] = _of(errors[:, step], quantiles)
    return found


def _of(errors: Floats, quantiles: Sequence[float]) -> Floats:
    """Each column's own quantile, shape (Q,), of [n, Q] without the rows that are not known."""
    known = errors[~np.isnan(errors[:, 0])]
    if not len(known):
        return np.zeros(len(quantiles), np.float32)
    found = [np.quantile(known[:, k], level) for k, level in enumerate(quantiles)]
    return np.array(found, np.float32)


def _known(errors: Floats) -> NDArray[np.bool_]:
    return ~np.isnan(errors[:, :, 0])
