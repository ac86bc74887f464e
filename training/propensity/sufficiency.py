"""Whether there was enough to learn a target from, and what would be."""

from math import sqrt

import numpy as np
from numpy.typing import NDArray

from features.targets import Examples
from serving.artifact import Json
from training.propensity.slices import Slices

LEAST_POSITIVES = 500
"""Rarer outcomes overall leave trees little to learn."""
LEAST_CALIBRATION_POSITIVES = 100
"""Rarer outcomes on the slice that sets the level leave it more than a tenth off, by chance alone."""


def sufficiency(examples: Examples, parts: Slices) -> Json:
    """``n_examples``, ``n_rarer_outcomes``, ``n_days``, ``n_censored``, ``enough``, and ``verdict``, all in words.

    Outcomes are counted once per customer or visitor and moment: the rows of a visit share theirs.
    """
    rarer = examples.outcome if examples.outcome.mean() <= 0.5 else ~examples.outcome
    n_rare, n_level = (_occasions(examples, rarer & part) for part in (True, parts.calibrating))
    n_days = int((examples.matured.max() - examples.moment.min()) / np.timedelta64(1, "D")) + 1
    missing = max(LEAST_POSITIVES / max(n_rare, 1), LEAST_CALIBRATION_POSITIVES / max(n_level, 1))
    return {
        "n_examples": len(examples),
        "n_rarer_outcomes": n_rare,
        "n_days": n_days,
        "n_censored": examples.n_censored,
        "enough": missing <= 1,
        "verdict": _verdict(n_rare, n_level, n_days, missing),
    }


def _occasions(examples: Examples, chosen: NDArray[np.bool_]) -> int:
    who = examples.table.column(0).combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    return len(np.unique(np.stack([who[chosen], examples.moment[chosen].astype(np.int64)]), axis=1).T)


def _verdict(n_rare: int, n_level: int, n_days: int, missing: float) -> str:
    """In words.

    >>> _verdict(800, 200, 182, 0.6)
    '800 of the rarer outcome in 182 days: enough; the level is known to about 7 %'
    >>> _verdict(99, 4, 182, 5.0)
    '99 of the rarer outcome in 182 days: too few to rely on; the level is known to about 50 %; 910 days would do'
    """
    level = f"the level is known to about {100 / sqrt(max(n_level, 1)):.0f} %"
    told = f"{n_rare} of the rarer outcome in {n_days} days"
    if missing <= 1:
        return f"{told}: enough; {level}"
    return f"{told}: too few to rely on; {level}; {round(n_days * missing)} days would do"
