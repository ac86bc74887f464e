"""Answers by how much a campaign touch raises the probability of a purchase."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from serving.artifact import Artifact
from serving.trees import Trees

Floats = NDArray[np.float64]

HELD_OUT, TREATED = 0, 1
MODELS: Mapping[str, tuple[str, ...]] = {
    "constant": (),
    "s_learner": ("model",),
    "t_learner": ("model_held_out", "model_treated"),
}
"""The LightGBM texts of each kind of uplift model."""


def responses(trees: Sequence[Trees], rows: Floats) -> Floats:
    """Probabilities of a purchase if held out and if treated, shape (2, n).

    trees : one model that reads the treatment, 0 or 1, in its last column (S-learner), or one model of the held-out and
        one of the treated (T-learner)
    rows : float64, shape (n, n_features), NaN where a value is missing
    Source: Künzel, Sekhon, Bickel, Yu, "Metalearners for estimating heterogeneous treatment effects", PNAS 2019.
    """
    if len(trees) == 1:
        return np.stack([trees[0].predict(with_treatment(rows, arm)) for arm in (HELD_OUT, TREATED)])
    return np.stack([model.predict(rows) for model in trees])


def with_treatment(rows: Floats, treated: NDArray[np.bool_] | int) -> Floats:
    """The matrix that an S-learner reads, shape (n, n_features + 1)."""
    return np.column_stack([rows, np.broadcast_to(np.asarray(treated, np.float64), len(rows))])


class UpliftScorer:
    """An uplift model: ``intercept + slope * (p_treated - p_held_out)``, or a constant.

    The artifact holds ``uplift.json`` (model, one of MODELS; intercept; slope), ``features.json`` (names in the order
    of the columns) and the LightGBM texts that MODELS names.
    """

    def __init__(self, artifact: Artifact) -> None:
        facts = artifact.json("uplift")
        self.model: str = facts["model"]
        self.features: list[str] = artifact.json("features")
        self._intercept: float = facts["intercept"]
        self._slope: float = facts["slope"]
        self._trees = [Trees.from_text(artifact.text(name)) for name in MODELS[self.model]]

    @classmethod
    def load(cls, artifact: Artifact) -> "UpliftScorer":
        """The scorer of an artifact; raises ArtifactError when a file is missing."""
        return cls(artifact)

    def uplift(self, rows: Floats) -> Floats:
        """What a touch adds to the probability of a purchase; below 0 it deters.

        rows : float64, shape (n, n_features), in the order of ``features``, NaN where a value is missing
        Returns float64, shape (n,).
        Raises ValueError when the matrix has another number of columns.
        """
        if rows.shape[1:] != (len(self.features),):
            raise ValueError(f"the matrix has shape {rows.shape}, the model reads (n, {len(self.features)})")
        if not self._trees:
            return np.full(len(rows), self._intercept)
        held_out, treated = responses(self._trees, rows)
        return np.asarray(self._intercept + self._slope * (treated - held_out))
