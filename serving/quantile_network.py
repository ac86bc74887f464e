"""A network that says the quantiles of demand, in numpy."""

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from serving.artifact import Artifact, Draft
from serving.network import N_IN_A_BLOCK, Layer, Weights, inputs, linear, read_layer, save_layer
from serving.scales import Floats, Scales

LAYERS = ("first", "second", "head")
NO_TEXTS = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class QuantileNetwork:
    """Members that each say a whole distribution; their quantiles are averaged.

    A member says the lowest quantile and increments above zero, so that its quantiles never cross. Source: Park et al.,
    "Learning Quantile Functions without Quantile Crossing for Distribution-free Time Series Forecasting", AISTATS 2022.

    scales : of what is read, columns of ``read``
    unit : float32, shape (1,)   what a member's numbers are multiples of, in the first base
    first, second, head : weight float32, shape (n_members, inputs, outputs), and bias (n_members, 1, outputs)
    """

    scales: Scales
    unit: Weights
    first: Layer
    second: Layer
    head: Layer

    def quantiles(self, rows: Weights, bases: Weights) -> Weights:
        """float32, shape (n, n_quantiles), units, ascending, none below zero.

        rows : float32, shape (n, n_features), NaN where a value is missing
        bases : float32, shape (n, n_bases), units, > 0
        """
        starts = range(0, len(rows), N_IN_A_BLOCK)
        blocks = (slice(start, start + N_IN_A_BLOCK) for start in starts)
        none = np.empty((0, self.head[1].shape[-1]), np.float32)
        relative = np.concatenate([none, *(self._relative(read(rows[block], bases[block])) for block in blocks)])
        return relative * bases[:, :1]

    def _relative(self, rows: Floats) -> Weights:
        x = numbers(self.scales, rows)
        shallow = np.maximum(linear(self.first, x), 0)
        said = linear(self.head, shallow + np.maximum(linear(self.second, shallow), 0))
        increments = np.logaddexp(np.float32(0), said[..., 1:])
        members = np.concatenate([said[..., :1], increments], axis=-1).cumsum(axis=-1)
        return np.asarray(np.maximum(self.unit * members.mean(axis=0), 0))

    def save(self, draft: Draft, name: str) -> None:
        self.scales.save(draft, f"{name}.scales")
        draft.array(f"{name}.unit", self.unit)
        for layer in LAYERS:
            save_layer(draft, name, layer, getattr(self, layer))

    @classmethod
    def load(cls, artifact: Artifact, name: str) -> "QuantileNetwork":
        layers = map(partial(read_layer, artifact, name), LAYERS)
        return cls(Scales.load(artifact, f"{name}.scales"), artifact.array(f"{name}.unit"), *layers)


def read(rows: Weights, bases: Weights) -> Floats:
    """The features and the logarithms of the bases, float64, shape (n, n_features + n_bases)."""
    return np.column_stack([rows, np.log(bases)]).astype(np.float64)


def numbers(scales: Scales, rows: Floats) -> NDArray[np.float32]:
    """What the first layer takes, float32, shape (n, n_inputs); ``rows`` as ``read`` gives them."""
    return inputs(scales, NO_TEXTS, rows)[0]
