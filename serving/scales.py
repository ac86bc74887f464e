"""Numbers of a matrix as models take them that add and multiply."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.artifact import Artifact, Draft

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scales:
    """Numbers as distances from their centre on a logarithmic scale, and as whether they are missing.

    columns : int64, shape (n_numbers,)   where they stand in the matrix
    fill, centre, scale : float64, shape (n_numbers,)   what stands in for a missing one; of what was spread
    """

    columns: NDArray[np.int64]
    fill: Floats
    centre: Floats
    scale: Floats

    def __call__(self, rows: Floats) -> Floats:
        """The distance of each number followed by 1 where it is missing; float64, shape (n, 2 n_numbers).

        rows : float64, shape (n, n_features), NaN where a value is missing
        """
        numbers = rows[:, self.columns]
        missing = ~np.isfinite(numbers)
        distance = (spread(np.where(missing, self.fill, numbers)) - self.centre) / self.scale
        return np.stack([distance, missing], axis=2).reshape(len(rows), 2 * len(self.columns))

    def save(self, draft: Draft, name: str) -> None:
        for field in self.__slots__:
            draft.array(f"{name}.{field}", getattr(self, field))

    @classmethod
    def load(cls, artifact: Artifact, name: str) -> "Scales":
        return cls(*(artifact.array(f"{name}.{field}") for field in cls.__slots__))


def spread(values: Floats) -> Floats:
    """``sign(x) ln(1 + |x|)``: counts, money and days on one scale."""
    return np.asarray(np.sign(values) * np.log1p(np.abs(values)))
