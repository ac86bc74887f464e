"""The factorisation tiers: people and items as vectors; a person's is found from the history when asked."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from features.histories import EventWeights, Histories
from serving.tiers import Scores


@dataclass(frozen=True, slots=True)
class Factors:
    """Item factors into which histories are folded by one exact least-squares step of implicit ALS.

    ``x_u = (gram + Y' C_u Y)^-1 Y' (1 + C_u) p_u`` with confidence ``C_u`` = alpha x summed affinities of the history.
    Source: Hu, Koren, Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008, equation 4.

    item_factors : float32, shape (n_items, n_factors)
    gram : float32, shape (n_factors, n_factors), Y'Y plus the regularisation on the diagonal
    event_weights, half_life_days : float32, shape (n_kinds,), as in ``EventWeights``
    """

    reason: ClassVar[str] = "chosen by people with a similar history"
    item_factors: Scores
    gram: Scores
    event_weights: Scores
    half_life_days: Scores
    alpha: float

    def scores(self, histories: Histories) -> Scores:
        scores: Scores = self.folded_in(histories) @ self.item_factors.T
        return scores

    def folded_in(self, histories: Histories) -> Scores:
        """Factors of each person, shape (n_users, n_factors); zero without a history."""
        n_items, n_factors = self.item_factors.shape
        affinities = EventWeights(self.event_weights, self.half_life_days).affinities(histories)
        keys, of_key = np.unique(histories.users * n_items + histories.items, return_inverse=True)
        confidence = np.float32(self.alpha) * np.bincount(of_key, affinities, len(keys)).astype(np.float32)
        users, items = np.divmod(keys, n_items)
        people, starts = np.unique(users, return_index=True)
        bounds = np.append(starts, len(keys))
        found = np.zeros((histories.n_users, n_factors), np.float32)
        for person, first, last in zip(people, bounds[:-1], bounds[1:], strict=True):
            factors, weights = self.item_factors[items[first:last]], confidence[first:last, None]
            left = self.gram + factors.T @ (factors * weights)
            found[person] = np.linalg.solve(left, (factors * (1 + weights)).sum(axis=0))
        return found
