"""What is known of the items that may be recommended, as arrays in the order of their ids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features import contract
from features.errors import UserError
from features.lake import PARTITIONS
from serving.artifact import Artifact, Draft

Bools = NDArray[np.bool_]
Rows = NDArray[np.int64]
Value = float | str
"""What an attribute is compared with, as it is written."""

NOT_ATTRIBUTES = ("item_id", "item_name", "valid_from", "cost", *PARTITIONS)
"""Columns of ``items`` by which nobody filters: what goods cost the shop could be found out so."""
AVAILABILITY, SHOWN = "availability", "in_stock"
"""The availability of what may be recommended; items that state none may be too."""
KEYWORDS = ("and", "or", "not", "in")
"""Words of filters, which name no attribute."""
_SEPARATOR = "|"
_NUMERIC = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean)


@dataclass(frozen=True, slots=True)
class Texts:
    """A text of every item, or several.

    codes : int32, shape (n_items, n_slots), what ``levels`` counts; an empty slot holds -1
    levels : counted from 0
    """

    codes: NDArray[np.int32]
    levels: dict[str, int]

    @property
    def stated(self) -> Bools:
        return np.asarray((self.codes >= 0).any(axis=1))

    def among(self, values: Sequence[Value]) -> Bools:
        """Which items have one of some texts, bool, shape (n_items,); raises UserError for a number."""
        wanted = np.zeros(len(self.levels) + 1, np.bool_)
        for value in values:
            if not isinstance(value, str):
                raise UserError(f"is a text and is compared with {value:g}: write it in quotes")
            if value in self.levels:
                wanted[self.levels[value]] = True
        return np.asarray(wanted[self.codes].any(axis=1))

    def of(self, rows: Rows) -> Self:
        """The cells of some items."""
        return replace(self, codes=self.codes[rows])

    def grown(self, n_items: int) -> Self:
        """The column for so many items, the new ones without a text."""
        return replace(self, codes=_grown(self.codes, n_items, self.codes.shape[1], -1))

    def having(self, row: int, value: Value) -> Self:
        """The column with other texts of one item."""
        parts = _parts(str(value))
        for part in parts:
            self.levels.setdefault(part, len(self.levels))
        codes = _grown(self.codes, len(self.codes), max(len(parts), self.codes.shape[1]), -1)
        codes[row] = -1
        codes[row, : len(parts)] = [self.levels[part] for part in parts]
        return replace(self, codes=codes)


@dataclass(frozen=True, slots=True)
class Numbers:
    """A number of every item, or an instant.

    values : float64, shape (n_items,), NaN where none is stated; instants in seconds since 1970
    are_instants : whether values are written as dates or instants
    """

    values: NDArray[np.float64]
    are_instants: bool

    @property
    def stated(self) -> Bools:
        return ~np.isnan(self.values)

    def among(self, values: Sequence[Value]) -> Bools:
        """Which items have one of some values, bool, shape (n_items,); raises UserError for what is none."""
        return np.isin(self.values, [self.read(value) for value in values])

    def of(self, rows: Rows) -> Self:
        """The cells of some items."""
        return replace(self, values=self.values[rows])

    def grown(self, n_items: int) -> Self:
        """The column for so many items, the new ones without a number."""
        return replace(self, values=_grown(self.values[:, None], n_items, 1, np.nan)[:, 0])

    def having(self, row: int, value: Value) -> Self:
        """The column with another number of one item."""
        values = _grown(self.values[:, None], len(self.values), 1, np.nan)[:, 0]
        values[row] = self.read(value)
        return replace(self, values=values)

    def read(self, value: Value) -> float:
        """What a written value is in this column; raises UserError where it can be none."""
        if self.are_instants:
            return _seconds(value)
        if isinstance(value, str):
            raise UserError(f"is a number and is compared with the text {value!r}: write it without quotes")
        return value


Column = Texts | Numbers


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The attributes of items; every column has a row per item."""

    columns: Mapping[str, Column]
    n_items: int

    @classmethod
    def of(cls, items: pa.Table, item_ids: Sequence[str]) -> Self:
        """The rows of a table ``items`` for some ids; an id that it lacks states nothing."""
        places = pc.index_in(pa.array(item_ids, pa.string()), items["item_id"].combine_chunks())
        names = [name for name in items.column_names if name not in NOT_ATTRIBUTES and _can_be_written(name)]
        columns = {name: _column(items[name].take(places)) for name in names}
        return cls({name: column for name, column in columns.items() if column is not None}, len(item_ids))

    @classmethod
    def load(cls, artifact: Artifact) -> Self:
        told = artifact.json("catalogue")
        texts = {
            name: Texts(artifact.array(f"catalogue.{name}"), {level: code for code, level in enumerate(levels)})
            for name, levels in told["texts"].items()
        }
        numbers = {
            name: Numbers(artifact.array(f"catalogue.{name}"), are_instants)
            for name, are_instants in told["numbers"].items()
        }
        return cls({**texts, **numbers}, told["n_items"])

    def save(self, draft: Draft) -> None:
        texts, numbers = {}, {}
        for name, column in self.columns.items():
            if isinstance(column, Texts):
                draft.array(f"catalogue.{name}", column.codes)
                texts[name] = list(column.levels)
            else:
                draft.array(f"catalogue.{name}", column.values)
                numbers[name] = column.are_instants
        draft.json("catalogue", {"texts": texts, "numbers": numbers, "n_items": self.n_items})

    def of_rows(self, rows: Rows) -> "Catalogue":
        """The attributes of some items."""
        return Catalogue({name: column.of(rows) for name, column in self.columns.items()}, len(rows))

    def grown(self, n_items: int) -> "Catalogue":
        """These attributes for so many items, of which the new ones state nothing."""
        return Catalogue({name: column.grown(n_items) for name, column in self.columns.items()}, n_items)

    def having(self, row: int, name: str, value: Value) -> "Catalogue":
        """These attributes with another value of one item; what this process may write to changes in place."""
        column = self.columns.get(name) or _blank(name, self.n_items)
        return Catalogue({**self.columns, name: column.having(row, value)}, self.n_items)

    def column(self, name: str) -> Column:
        if name not in self.columns:
            raise UserError(f"items have no attribute {name}; filters can name {', '.join(sorted(self.columns))}")
        return self.columns[name]

    def shown(self) -> Bools:
        """Which items may be recommended at all, bool, shape (n_items,)."""
        availability = self.columns.get(AVAILABILITY)
        if availability is None:
            return np.ones(self.n_items, np.bool_)
        return ~availability.stated | availability.among([SHOWN])


def _can_be_written(name: str) -> bool:
    """Whether a filter can name a column."""
    return name.isascii() and name.isidentifier() and name not in KEYWORDS


def _column(cells: pa.ChunkedArray) -> Column | None:
    """A column as it is compared; None for what is neither text nor number nor instant."""
    kind = cells.type
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        instants = cells.cast(pa.timestamp("us"), safe=False).cast(pa.int64()).cast(pa.float64(), safe=False)
        return Numbers(pc.divide(instants, 1e6).to_numpy(), are_instants=True)
    if any(is_kind(kind) for is_kind in _NUMERIC):
        return Numbers(cells.cast(pa.float64(), safe=False).to_numpy(), are_instants=False)
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return None
    listed = [_parts(cell) for cell in cells.to_pylist()]
    levels = {level: code for code, level in enumerate(sorted({value for values in listed for value in values}))}
    codes = np.full((len(listed), max(1, max(map(len, listed), default=0))), -1, np.int32)
    for row, values in enumerate(listed):
        codes[row, : len(values)] = [levels[value] for value in values]
    return Texts(codes, levels)


def _blank(name: str, n_items: int) -> Column:
    """A column of a name of the contract in which no item states anything."""
    kind = next(column.type for column in contract.ITEMS.columns if column.name == name)
    if kind == "VARCHAR":
        return Texts(np.full((n_items, 1), -1, np.int32), {})
    return Numbers(np.full(n_items, np.nan), are_instants=kind == "TIMESTAMP")


def _grown(cells: NDArray[Any], n_rows: int, n_slots: int, empty: float) -> NDArray[Any]:
    """Cells that can be written, of so many rows and slots; the same array where it is all that already."""
    if cells.shape == (n_rows, n_slots) and cells.flags.writeable:
        return cells
    grown = np.full((n_rows, n_slots), empty, cells.dtype)
    grown[: cells.shape[0], : cells.shape[1]] = cells
    return grown


def _parts(cell: str | None) -> list[str]:
    return [value for part in (cell or "").split(_SEPARATOR) if (value := part.strip())]


def _seconds(value: Value) -> float:
    try:
        instant = datetime.fromisoformat(value if isinstance(value, str) else "")
    except ValueError as error:
        raise UserError(f"is an instant and is compared with {value!r}: write it as '2026-01-31'") from error
    return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp()
