"""The factorisation tiers: people and items as vectors; a person's is solved for from the history when asked.

The solver's lines run on numpy arrays and torch tensors alike: training alternates it between people and items.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.histories import EventWeights, Histories
from serving.tiers import Scores

Array = Any
"""A numpy array, or a torch tensor on any device."""

N_STEPS = 15
"""Steps after which a history of any length is folded in to the last digits of float32."""
CELLS = 2**20
"""Numbers gathered at once: few enough to stay in the processor's cache."""
TINY = 1e-30


class Ratings(NamedTuple):
    """What rows hold of columns, one entry per pair, row by row.

    starts : int64, shape (n_rows + 1,); the entries of row r are ``starts[r]:starts[r + 1]``
    columns : int32 or int64, shape (n,)
    affinities : float32, shape (n,), > 0
    """

    starts: NDArray[np.integer]
    columns: NDArray[np.integer]
    affinities: Scores


class Batch(NamedTuple):
    """Rows of about equal length side by side; where a row is shorter, column 0 stands with confidence 0.

    rows : int64, shape (b,)
    columns : int64, shape (b, width)
    confidences : float32, shape (b, 1, width), what an entry weighs more than an absent one, which weighs 1
    ridges : float32, shape (b, 1), penalty on a row's vector
    """

    rows: Array
    columns: Array
    confidences: Array
    ridges: Array


@dataclass(frozen=True, slots=True)
class Penalties:
    """What turns affinities into a least-squares problem.

    alpha : an entry of affinity a weighs ``1 + alpha * a``
    regularization : a vector is penalised by ``regularization * sqrt(sum of its affinities)``: most for those of whom
        most is known, whose vectors the data would otherwise stretch
    """

    alpha: float
    regularization: float


def batches(ratings: Ratings, penalties: Penalties, n_factors: int, cells: int = CELLS) -> Iterator[Batch]:
    """The rows that hold anything, shortest first, in batches that gather at most ``cells`` numbers (or one row)."""
    lengths = np.diff(ratings.starts)
    order = np.argsort(lengths, kind="stable")
    order = order[np.searchsorted(lengths[order], 1) :]
    while len(order):
        most = max(1, cells // (n_factors * int(lengths[order[0]])))
        width = int(lengths[order[:most][-1]])
        rows, order = np.split(order, [max(1, cells // (n_factors * width))])
        yield _batch(ratings, penalties, rows)


def _batch(ratings: Ratings, penalties: Penalties, rows: NDArray[np.int64]) -> Batch:
    lengths = ratings.starts[rows + 1] - ratings.starts[rows]
    place = np.arange(lengths.max())
    real = place < lengths[:, None]
    entries = np.where(real, ratings.starts[rows][:, None] + place, 0)
    affinities = np.where(real, ratings.affinities[entries], np.float32(0))
    ridges = np.float32(penalties.regularization) * np.sqrt(affinities.sum(axis=1, keepdims=True))
    columns = np.where(real, ratings.columns[entries], 0)
    return Batch(rows, columns, np.float32(penalties.alpha) * affinities[:, None], ridges)


def solved(factors: Array, gram: Array, batch: Batch, guess: Array, n_steps: int = N_STEPS) -> Array:
    """The vectors x that minimise ``sum_j c_j (p_j - x y_j)^2 + ridge |x|^2`` over all columns j, shape (b, n_factors).

    p_j is 1 for a row's entries and 0 elsewhere. Conjugate gradients on the normal equations, preconditioned by what
    all rows share, which is diagonal: the few entries that a row adds to it take few steps.

    factors : y, float32, shape (n_columns, n_factors), whose gram matrix ``y' y`` is diagonal
    gram : float32, shape (n_factors,), that diagonal
    guess : float32, shape (b, n_factors), where to start from
    Source: Hu, Koren, Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008, equation 4;
    Takacs, Pilaszy, Tikk, "Applications of the conjugate gradient method for implicit feedback", RecSys 2011.
    """
    y, c = factors[batch.columns], batch.confidences
    shared = gram + batch.ridges

    def image(x: Array) -> Array:
        return shared * x + ((c * (x[:, None] @ y.mT)) @ y)[:, 0]

    x, residual = guess, ((c + (c > 0)) @ y)[:, 0] - image(guess)
    scaled = direction = residual / shared
    gain = _dot(residual, scaled)
    for _ in range(n_steps):
        bent = image(direction)
        length = gain / (_dot(direction, bent) + TINY)
        x, residual = x + length * direction, residual - length * bent
        scaled, before = residual / shared, gain
        gain = _dot(residual, scaled)
        direction = scaled + gain / (before + TINY) * direction
    return x


def _dot(left: Array, right: Array) -> Array:
    return (left * right).sum(1)[:, None]


@dataclass(frozen=True, slots=True)
class Factors:
    """Item factors, into which a history is folded as ``solved`` has it: as in training, without its people.

    item_factors : float32, shape (n_items, n_factors), turned so that their gram matrix is diagonal
    gram : float32, shape (n_factors,), that diagonal
    event_weights, half_life_days : float32, shape (n_kinds,), as in ``EventWeights``
    alpha, regularization : as in ``Penalties``
    """

    reason: ClassVar[str] = "chosen by people with a similar history"
    item_factors: Scores
    gram: Scores
    event_weights: Scores
    half_life_days: Scores
    alpha: float
    regularization: float

    def scores(self, histories: Histories) -> Scores:
        scores: Scores = self.folded_in(histories) @ self.item_factors.T
        return scores

    def folded_in(self, histories: Histories) -> Scores:
        """Factors of each person, float32, shape (n_users, n_factors); zero without a history."""
        n_factors = self.item_factors.shape[1]
        ratings = rated(histories, EventWeights(self.event_weights, self.half_life_days))
        found = np.zeros((histories.n_users, n_factors), np.float32)
        for batch in batches(ratings, Penalties(self.alpha, self.regularization), n_factors):
            guess = np.zeros((len(batch.rows), n_factors), np.float32)
            found[batch.rows] = solved(self.item_factors, self.gram, batch, guess)
        return found


def rated(histories: Histories, events: EventWeights) -> Ratings:
    """The items of each person once, with the summed affinities of their events, where these count anything."""
    keys, of_key = np.unique(histories.users << 32 | histories.items, return_inverse=True)
    affinities = np.bincount(of_key, events.affinities(histories), len(keys)).astype(np.float32)
    keys, affinities = keys[affinities > 0], affinities[affinities > 0]
    users, items = keys >> 32, keys & 0xFFFFFFFF
    return Ratings(np.searchsorted(users, np.arange(histories.n_users + 1)), items, affinities)
