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

    The offset of a quantile is the same quantile of its own errors (split conformal: Romano, Patterson, Candes,
    "Conformalized quantile regression", NeurIPS 2019), in units of the mean. Classes with little held out take those
    of all, and so do the steps of a class. One held-out horizon alone moves nothing: its errors may be its own.

    Returns by class float32, shape (H, Q); under ``ALL`` those of every other class.
    """
    if len(np.unique(held_out.origin)) == 1:
        return {ALL: np.zeros((held_out.actual.shape[1], len(quantiles)), np.float32)}
    errors = (held_out.actual[:, :, None] - held_out.units[:, :, 1:]) / in_units_of(held_out.units)
    found = {ALL: _by_step(errors, quantiles)}
    for name in np.unique(held_out.pattern).tolist():
        own = errors[held_out.pattern == name]
        if _n_known(own) >= LEAST_CELLS:
            found[name] = _by_step(own, quantiles)
    return found


def _by_step(errors: Floats, quantiles: Sequence[float]) -> Floats:
    if _n_known(errors) < LEAST_CELLS * errors.shape[1]:
        together = errors.reshape(-1, 1, errors.shape[2])
        return np.repeat(_of(together, quantiles), errors.shape[1], axis=0)
    return _of(errors, quantiles)


def _of(errors: Floats, quantiles: Sequence[float]) -> Floats:
    """Each column's own quantile over rows, shape (H, Q), of [n, H, Q]."""
    return np.stack([np.nanquantile(errors[:, :, k], level, axis=0) for k, level in enumerate(quantiles)], axis=-1)


def _n_known(errors: NDArray[np.floating]) -> int:
    return int((~np.isnan(errors[:, :, 0])).sum())
