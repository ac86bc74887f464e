"""Examples in slices of time, so that a model is stopped and calibrated on what came after it was fitted."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.errors import UserError
from features.targets import Examples

SHARE = 0.15
"""Share of the examples at hand that a slice takes, the latest of them."""
LEAST_PER_OUTCOME = 20


class Slices(NamedTuple):
    """Which examples serve what, bool arrays of shape (n,).

    fitting : matured before the first moment of ``stopping``
    stopping : matured before the first moment of ``calibrating``
    before : all that matured before the first moment of ``calibrating``
    calibrating : the latest
    """

    fitting: NDArray[np.bool_]
    stopping: NDArray[np.bool_]
    before: NDArray[np.bool_]
    calibrating: NDArray[np.bool_]

    @property
    def everything(self) -> NDArray[np.bool_]:
        return np.ones(len(self.calibrating), np.bool_)


def slices(examples: Examples) -> Slices:
    """Cut examples so that a slice is used at an instant only if all its outcomes were certain then.

    Neighbouring slices therefore never share an outcome, and examples of one moment are never parted.

    Raises UserError when the examples do not reach over three horizons or a slice lacks one of the outcomes.
    """
    everything = np.ones(len(examples), np.bool_)
    calibrating, before = _latest(examples, everything)
    stopping, fitting = _latest(examples, before)
    found = Slices(fitting, stopping, before, calibrating)
    _require_both_outcomes(examples, found)
    return found


def _latest(examples: Examples, among: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The latest share of some examples, more where an outcome is rare, and those that had matured when it began."""
    if not among.any():
        return among, among
    moments, moment_of = np.unique(examples.moment[among], return_inverse=True)
    positives = _from_each_on(np.bincount(moment_of, examples.outcome[among]))
    negatives = _from_each_on(np.bincount(moment_of, ~examples.outcome[among]))
    large = positives + negatives >= SHARE * among.sum()
    both = np.minimum(positives, negatives) >= LEAST_PER_OUTCOME
    first = moments[np.flatnonzero(large & both)[-1]] if (large & both).any() else moments[0]
    return among & (examples.moment >= first), among & (examples.matured <= first)


def _from_each_on(counts: NDArray[Any]) -> NDArray[Any]:
    return np.cumsum(counts[::-1])[::-1]


def _require_both_outcomes(examples: Examples, found: Slices) -> None:
    for what, part in {
        "fitting": found.fitting,
        "early stopping": found.stopping,
        "calibration": found.calibrating,
    }.items():
        n, n_positive = int(part.sum()), int(examples.outcome[part].sum())
        if min(n_positive, n - n_positive) < LEAST_PER_OUTCOME:
            raise UserError(
                f"of {n} examples for {what} {n_positive} had the outcome and {n - n_positive} had not, at least "
                f"{LEAST_PER_OUTCOME} of each are needed: give a longer history, raise span_days or lower horizon_days"
            )
