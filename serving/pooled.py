"""The pooled tier: a history is the sum of its items' vectors, in no order."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import sparse

from features.histories import EventWeights, Histories
from serving.factors import Ratings, rated
from serving.tiers import Scores


@dataclass(frozen=True, slots=True)
class Pooled:
    """Cosine of the sum of a history's vectors with each item's; zero for items that nobody touched.

    directions : float32, shape (n_items, width), unit vectors; zero for items that nobody touched
    lengths : float32, shape (n_items,), of the items' vectors
    event_weights, half_life_days : float32, shape (n_kinds,), as in ``EventWeights``
    """

    reason: ClassVar[str] = "chosen by people who chose the same"
    directions: Scores
    lengths: Scores
    event_weights: Scores
    half_life_days: Scores

    def scores(self, histories: Histories) -> Scores:
        scores: Scores = self.pooled(histories) @ self.directions.T
        return scores

    def pooled(self, histories: Histories) -> Scores:
        """The direction of each history, float32, shape (n_users, width); zero for an empty one."""
        starts, items, weights = relative(rated(histories, EventWeights(self.event_weights, self.half_life_days)))
        shape = (histories.n_users, len(self.lengths))
        sums = sparse.csr_array((weights * self.lengths[items], items, starts), shape) @ self.directions
        norms = np.sqrt(np.einsum("ud,ud->u", sums, sums))
        found: Scores = sums * np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)[:, None]
        return found


def relative(ratings: Ratings) -> Ratings:
    """Each row's affinities over its largest, so that an old history counts as a new one does.

    >>> relative(Ratings(np.array([0, 2, 2]), np.array([3, 5]), np.array([0.25, 0.5], np.float32))).affinities
    array([0.5, 1. ], dtype=float32)
    """
    lengths = np.diff(ratings.starts)
    begins = ratings.starts[:-1][lengths > 0]
    largest = np.maximum.reduceat(ratings.affinities, begins) if len(begins) else ratings.affinities
    return ratings._replace(affinities=ratings.affinities / np.repeat(largest, lengths[lengths > 0]))
