"""Features as a matrix: numbers as they are, texts as their place among those that were frequent when it was fitted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

MOST_LEVELS = 63


@dataclass(frozen=True, slots=True)
class Encoder:
    """What the columns of a matrix are.

    numbers : names of the columns that are numbers, first in the matrix
    levels : name of each column that is a text, after the numbers, and its texts, the most frequent first

    >>> encoder = Encoder(("price",), {"medium": ("email", "cpc")})
    >>> encoder.matrix(pa.table({"medium": ["cpc", "tv"], "price": [2, None]}))
    array([[ 2.,  1.],
           [nan, nan]])
    >>> encoder.row([2.0], ["cpc"])
    array([2., 1.])
    """

    numbers: tuple[str, ...]
    levels: Mapping[str, tuple[str, ...]]

    @classmethod
    def fitted(cls, table: pa.Table, numbers: Sequence[str], texts: Sequence[str]) -> "Encoder":
        """An encoder that knows the most frequent texts of a table."""
        return cls(tuple(numbers), {name: _frequent(table[name]) for name in texts})

    @property
    def names(self) -> list[str]:
        return [*self.numbers, *self.levels]

    @property
    def n_levels(self) -> list[int]:
        """Of every column, 0 for a number."""
        return [*(0 for _ in self.numbers), *(len(texts) for texts in self.levels.values())]

    def matrix(self, table: pa.Table) -> NDArray[np.float64]:
        """Rounded to 1e-6, for two engines sum money in different orders.

        Returns float64, shape (n, n_features), NaN where a value is missing or a text unknown.
        """
        rows = np.empty((table.num_rows, len(self.numbers) + len(self.levels)))
        for column, name in enumerate(self.numbers):
            rows[:, column] = table[name].cast(pa.float64()).to_numpy(zero_copy_only=False)
        for column, (name, texts) in enumerate(self.levels.items(), len(self.numbers)):
            places = pc.index_in(table[name].cast(pa.string()), value_set=pa.array(texts, pa.string()))
            rows[:, column] = places.cast(pa.float64()).to_numpy(zero_copy_only=False)
        return np.round(rows, 6, out=rows)

    def row(self, numbers: Sequence[float], texts: Sequence[str | None]) -> NDArray[np.float64]:
        """One row of ``matrix`` from its values, float64, shape (n_features,)."""
        known = zip(self.levels.values(), texts, strict=True)
        places = (levels.index(text) if text in levels else nan for levels, text in known)
        return np.round(np.array([*numbers, *places]), 6)


def _frequent(column: pa.ChunkedArray) -> tuple[str, ...]:
    counts = column.drop_null().value_counts().to_pylist()
    ranked = sorted(counts, key=lambda each: (-each["counts"], each["values"]))
    return tuple(str(each["values"]) for each in ranked[:MOST_LEVELS])
