"""The pooled tier: a history is the sum of its items' vectors, in no order."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import sparse

from features.histories import EventWeights, Histories
from serving.factors import rated
from serving.tiers import Scores


@dataclass(frozen=True, slots=True)
class Pooled:
    """Cosine of the sum of a history's vectors with each item's.

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
        starts, items, affinities = rated(histories, EventWeights(self.event_weights, self.half_life_days))
        shares = sparse.csr_array(
            (affinities * self.lengths[items], items, starts), (histories.n_users, len(self.lengths))
        )
        sums = shares @ self.directions
        norms = np.sqrt(np.einsum("ud,ud->u", sums, sums))
        found: Scores = sums * np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)[:, None]
        return found
