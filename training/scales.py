"""Fits the scales of numbers."""

from collections.abc import Sequence

import numpy as np

from serving.scales import Floats, Scales, spread

LEAST_SPREAD = 1e-9
"""A smaller standard deviation, beside the mean, is rounding."""


def fitted_scales(rows: Floats, columns: Sequence[int]) -> Scales:
    """The centre and spread of numbers, a missing one standing at the median."""
    numbers = rows[:, columns]
    known = np.isfinite(numbers)
    fill = np.array(
        [np.median(each[which]) if which.any() else 0.0 for each, which in zip(numbers.T, known.T, strict=True)]
    )
    told = spread(np.where(known, numbers, fill))
    centre, spreads = told.mean(axis=0), told.std(axis=0)
    varies = spreads > LEAST_SPREAD * np.maximum(1.0, np.abs(centre))
    return Scales(np.array(columns, int), fill, centre, np.where(varies, spreads, 1.0))
