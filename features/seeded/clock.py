"""The days of a seeded shop, numbered from 0; instants are us since 1970."""

import numpy as np
from numpy.typing import NDArray

FIRST_DAY = np.datetime64("2023-01-02", "D")  # a Monday
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
NEVER = np.iinfo(np.int64).max


def midnight(day: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """The instants at which days begin.

    >>> midnight(1) - midnight(0) == DAY_US
    np.True_
    """
    return np.asarray((day + FIRST_DAY.astype(int)) * DAY_US)
