"""The catalogue as it stands: what a model was exported with, and what the shop has put since.

A put is of one item and one attribute: whether it is there, what it costs, and of a new item all that is known. Items
that the model does not know are scored like those that they share their attributes with.
"""

from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.catalogue import AVAILABILITY, Bools, Catalogue, Rows, Texts, Value
from serving.filters import parsed

N_MASKS = 64
"""Filters whose masks are kept, those asked for last."""
N_CHANGES = 10_000
"""Changes that masks are brought up to date by; after more they are made anew."""
N_ALIKE = 20
"""Known items that a new one is scored like."""


class Put(NamedTuple):
    """What was put of an item; numbers count up."""

    number: int
    item_id: str
    name: str
    value: Value


class _Mask(NamedTuple):
    n_changes: int
    admitted: Bools


class Shelf:
    """Which items there are now and what they state.

    item_ids : those that the model knows, then the new ones
    newest : the number of the newest put that was taken in
    """

    def __init__(self, item_ids: list[str], catalogue: Catalogue) -> None:
        self.item_ids = item_ids
        self.n_known = len(item_ids)
        self.newest = 0
        self._catalogue = catalogue
        self._index = {item_id: index for index, item_id in enumerate(item_ids)}
        self._alike = np.zeros((0, N_ALIKE), np.int64)
        self._weights = np.zeros((0, N_ALIKE), np.float32)
        self._masks: dict[str | None, _Mask] = {}
        self._changed: list[int] = []

    def put(self, puts: Iterable[Put]) -> None:
        """Take in what was put; it counts from the next question on."""
        puts = list(puts)
        if not puts:
            return
        for put in puts:
            if self._index.setdefault(put.item_id, len(self.item_ids)) == len(self.item_ids):
                self.item_ids.append(put.item_id)
        self._catalogue = self._catalogue.grown(len(self.item_ids))
        for put in puts:
            self._catalogue = self._catalogue.having(self._index[put.item_id], put.name, put.value)
            self.newest = max(self.newest, put.number)
        changed = [self._index[put.item_id] for put in puts]
        if any(row >= self.n_known for row in changed):
            self._alike, self._weights = _alike(self._catalogue, self.n_known)
        self._changed += changed
        if len(self._changed) > N_CHANGES:
            self._masks, self._changed = {}, []

    def index(self, item_id: str) -> int | None:
        """The place of an item, None when nobody told of it."""
        return self._index.get(item_id)

    def admitted(self, expression: str | None) -> Bools:
        """Which items may come under a filter, bool, shape (n_items,); not to be written to."""
        kept = self._masks.pop(expression, None)
        mask = self._current(expression, kept) if kept else self._made(expression)
        self._masks[expression] = mask
        if len(self._masks) > N_MASKS:
            del self._masks[next(iter(self._masks))]
        return mask.admitted

    def scored(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores of the items that the model knows, and with them of the new ones.

        scores : float32, shape (n_known,)
        Returns float32, shape (n_items,); -inf for a new item that shares no attribute with a known one.
        """
        if not len(self._alike):
            return scores
        total = self._weights.sum(axis=1)
        of_new = np.where(total > 0, np.einsum("ik,ik->i", scores[self._alike], self._weights), -np.inf)
        return np.concatenate([scores, of_new.astype(np.float32)])

    def score(self, scores: NDArray[np.float32], index: int) -> float:
        """The score of one item, as ``scored`` has it."""
        return float(scores[index] if index < self.n_known else self.scored(scores)[index])

    def known_like(self, index: int, n: int) -> list[int]:
        """The item itself where the model knows it, else the ``n`` known ones that are most like it."""
        if index < self.n_known:
            return [index]
        row = index - self.n_known
        return [int(item) for item in self._alike[row, :n][self._weights[row, :n] > 0]]

    def _made(self, expression: str | None) -> _Mask:
        return _Mask(len(self._changed), _admitted(expression, self._catalogue))

    def _current(self, expression: str | None, mask: _Mask) -> _Mask:
        rows = np.unique(np.array(self._changed[mask.n_changes :], np.int64))
        if not len(rows):
            return mask
        admitted = np.zeros(len(self.item_ids), np.bool_)
        admitted[: len(mask.admitted)] = mask.admitted
        admitted[rows] = _admitted(expression, self._catalogue.of_rows(rows))
        return _Mask(len(self._changed), admitted)


def _admitted(expression: str | None, catalogue: Catalogue) -> Bools:
    shown = catalogue.shown()
    return shown if expression is None else shown & parsed(expression).mask(catalogue)


def _alike(catalogue: Catalogue, n_known: int) -> tuple[Rows, NDArray[np.float32]]:
    """Of each new item the known ones that it shares most texts with, and their weights; a rarer text says more.

    Returns int64 and float32, shape (n_new, N_ALIKE) each; weights add up to 1, or to 0 where nothing is shared.
    """
    told = [column for name, column in catalogue.columns.items() if name != AVAILABILITY]
    columns = [column for column in told if isinstance(column, Texts)]
    n_new = catalogue.n_items - n_known
    items, weights = np.zeros((n_new, N_ALIKE), np.int64), np.zeros((n_new, N_ALIKE), np.float32)
    having = cache(lambda column, code: np.flatnonzero((columns[column].codes[:n_known] == code).any(axis=1)))
    for new in range(n_new):
        codes = [(n, code) for n, column in enumerate(columns) for code in column.codes[n_known + new] if code >= 0]
        shared = [having(*each) for each in codes]
        says = [np.full(len(rows), np.log((1 + n_known) / (1 + len(rows)))) for rows in shared]
        rows, places = np.unique(np.concatenate([*shared, np.zeros(0, np.int64)]), return_inverse=True)
        likeness = np.bincount(places, np.concatenate([*says, np.zeros(0)]), len(rows))
        best = np.argsort(-likeness, kind="stable")[:N_ALIKE]
        items[new, : len(best)], weights[new, : len(best)] = rows[best], likeness[best]
    return items, weights / np.maximum(weights.sum(axis=1, keepdims=True), np.float32(1e-12))
