"""A deep and cross network on a matrix of numbers and texts' places, in numpy."""

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from serving.artifact import Artifact, Draft
from serving.scales import Floats, Scales

FURTHEST = 4.0
"""How far from the centre a number may stand, in its scale: beyond lies what the network never met."""
N_IN_A_BLOCK = 4096

Weights = NDArray[np.float32]
Layer = tuple[Weights, Weights]


@dataclass(frozen=True, slots=True)
class Network:
    """Members that each multiply features with one another beside a deep part; their log-odds are averaged.

    Source: Wang et al., "DCN V2: Improved Deep & Cross Network", WWW 2021, section 3, stacked side by side (3.4).

    texts : int64, shape (n_texts,)   columns of texts
    embeddings : of each text float32, shape (n_members, 1 + n_levels, width); the first stands for an unknown one
    cross, first, second, head : weight float32, shape (n_members, inputs, outputs), and bias (n_members, 1, outputs)
    """

    scales: Scales
    texts: NDArray[np.int64]
    embeddings: tuple[Weights, ...]
    cross: Layer
    first: Layer
    second: Layer
    head: Layer

    def log_odds(self, rows: Floats) -> Floats:
        """float64, shape (n,).

        rows : float64, shape (n, n_features), NaN where a value is missing
        """
        blocks = (rows[start : start + N_IN_A_BLOCK] for start in range(0, len(rows), N_IN_A_BLOCK))
        return np.concatenate([np.empty(0), *map(self._block, blocks)])

    def contributions(self, rows: Floats) -> Floats:
        """What each feature adds to the log-odds against its usual value; float64, shape (n, n_features).

        Usual are the median of a number and the most frequent level of a text.
        """
        n_features = rows.shape[1]
        usual = np.zeros(n_features)
        usual[self.scales.columns] = self.scales.fill
        changed = np.repeat(rows[:, None, :], n_features, axis=1)
        changed[:, range(n_features), range(n_features)] = usual
        without = self.log_odds(changed.reshape(-1, n_features)).reshape(len(rows), n_features)
        return self.log_odds(rows)[:, None] - without

    def _block(self, rows: Floats) -> Floats:
        x = self._inputs(rows)
        crossed = x * linear(self.cross, x) + x
        deep = np.maximum(linear(self.second, np.maximum(linear(self.first, x), 0)), 0)
        members = linear(self.head, np.concatenate([crossed, deep], axis=2))
        return np.asarray(members[..., 0].mean(axis=0, dtype=np.float64))

    def _inputs(self, rows: Floats) -> Weights:
        """float32, shape (n_members, n, n_inputs)."""
        numbers, at = inputs(self.scales, self.texts, rows)
        told = np.broadcast_to(numbers, (len(self.cross[0]), *numbers.shape))
        embedded = (embedding[:, places] for embedding, places in zip(self.embeddings, at.T, strict=True))
        return np.concatenate([told, *embedded], axis=2)

    def save(self, draft: Draft, name: str) -> None:
        self.scales.save(draft, f"{name}.scales")
        draft.array(f"{name}.texts", self.texts)
        for text, embedding in zip(self.texts, self.embeddings, strict=True):
            draft.array(f"{name}.embedding.{text}", embedding)
        for layer in ("cross", "first", "second", "head"):
            save_layer(draft, name, layer, getattr(self, layer))

    @classmethod
    def load(cls, artifact: Artifact, name: str) -> "Network":
        texts = artifact.array(f"{name}.texts")
        embeddings = tuple(artifact.array(f"{name}.embedding.{text}") for text in texts)
        layer = partial(read_layer, artifact, name)
        scales = Scales.load(artifact, f"{name}.scales")
        return cls(scales, texts, embeddings, layer("cross"), layer("first"), layer("second"), layer("head"))


def mixed(trees: Floats, network: Floats, share: float) -> Floats:
    """The log-odds of trees and a network together, of which the network gives a share."""
    return (1 - share) * trees + share * network


def inputs(scales: Scales, texts: NDArray[np.int64], rows: Floats) -> tuple[Weights, NDArray[np.int64]]:
    """What a network reads of a matrix: numbers float32 (n, 2 n_numbers), and texts int64 (n, n_texts), 0 unknown."""
    numbers = np.clip(scales(rows), -FURTHEST, FURTHEST).astype(np.float32)
    return numbers, np.nan_to_num(rows[:, texts] + 1).astype(np.int64)


def linear(layer: Layer, x: Weights) -> Weights:
    """A layer's outputs, float32, shape (n_members, n, n_outputs)."""
    weight, bias = layer
    return np.asarray(x @ weight + bias)


def save_layer(draft: Draft, name: str, layer: str, of: Layer) -> None:
    for part, values in zip(("weight", "bias"), of, strict=True):
        draft.array(f"{name}.{layer}.{part}", values)


def read_layer(artifact: Artifact, name: str, layer: str) -> Layer:
    """The weight and bias of a network's layer, as ``save_layer`` wrote them."""
    return artifact.array(f"{name}.{layer}.weight"), artifact.array(f"{name}.{layer}.bias")
