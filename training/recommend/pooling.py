"""Fits the pooled tier: each item of a history is predicted from the sum of all its other items' vectors.

The loss is cross-entropy over the catalogue as in Covington et al., "Deep Neural Networks for YouTube Recommendations",
RecSys 2016, section 3, with nothing between the sum and the softmax. It is of cosines over a temperature, so that the
lengths of vectors are free to learn how much an item says about its history.

Shapes: T items to be predicted in a step, P people, D width, V items.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from features.histories import EventWeights, Log
from serving.factors import Ratings, rated
from serving.pooled import Pooled
from training.device import Device
from training.recommend.cross_entropy import Candidates, CrossEntropy
from training.recommend.pooled import PooledConfig
from training.recommend.schedule import cosine

START = 0.02
"""Deviation of the vectors at the start."""


def fit(log: Log, config: PooledConfig, events: EventWeights, device: Device) -> Pooled:
    """Vectors of the items after ``n_epochs`` passes over the histories."""
    pooling = Pooling(rated(log.histories, events), log.n_items, config, device)
    for _ in range(config.n_epochs):
        pooling.epoch()
    vectors_VD = pooling.vectors_VD.detach().cpu()
    directions, lengths = functional.normalize(vectors_VD, dim=1).numpy(), vectors_VD.norm(dim=1).numpy()
    return Pooled(directions, lengths, events.weights, events.half_life_days)


class Pooling:
    """The vectors, their optimiser and the histories, on one device.

    ratings : the items of each person; those of nobody keep a vector of zeros
    """

    def __init__(self, ratings: Ratings, n_items: int, config: PooledConfig, device: Device) -> None:
        self.config, self.device = config, torch.device(device.name)
        self.rng = np.random.default_rng(config.seed)
        torch.manual_seed(config.seed)
        self.starts, self.lengths = ratings.starts[:-1], np.diff(ratings.starts)
        self.items = self._on_device(ratings.columns)
        self.affinities = self._on_device(ratings.affinities)
        touched = torch.unique(self.items)
        self.candidates = Candidates(touched, self.items, config.n_negatives)
        start_VD = torch.zeros(n_items, config.width)
        start_VD[touched.cpu()] = torch.randn(len(touched), config.width) * START
        self.vectors_VD = start_VD.to(self.device).requires_grad_()
        self.optimizer = torch.optim.AdamW([self.vectors_VD], weight_decay=config.weight_decay, fused=True)
        self.people = np.flatnonzero(self.lengths > 1)
        self.steps_per_epoch = max(1, round(self.lengths[self.people].sum() / config.batch_size))
        self.step = 0

    def epoch(self) -> float:
        """One pass over the histories in random order; the mean loss of its steps."""
        losses = [self.update(*step) for step in self.steps()]
        return torch.stack(losses).mean().item() if losses else 0.0

    def steps(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Each step's entries of ``ratings``, int64 (T,), and whose they are, from 0, int64 (T,); people are whole."""
        if not len(self.people):
            return
        people = self.rng.permutation(self.people)
        ends = np.cumsum(self.lengths[people])
        cuts = np.searchsorted(ends, ends[-1] * np.arange(1, self.steps_per_epoch) / self.steps_per_epoch)
        for together in np.split(people, cuts):
            lengths = self.lengths[together]
            own = np.repeat(np.arange(len(together)), lengths)
            begins = self.starts[together] - np.cumsum(lengths) + lengths
            yield self._on_device(np.arange(len(own)) + begins[own]), self._on_device(own)

    def update(self, entries_T: Tensor, own_T: Tensor) -> Tensor:
        """One step towards each of some items from the others of its person; the loss before it."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * cosine(self.step, self.steps_per_epoch * self.config.n_epochs)
        self.step += 1
        self.optimizer.zero_grad()
        loss = self._loss(self.items[entries_T], self.affinities[entries_T], own_T)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _loss(self, items_T: Tensor, affinities_T: Tensor, own_T: Tensor) -> Tensor:
        is_read_T = torch.rand(len(items_T), device=self.device) >= self.config.dropout
        read_TD = functional.embedding(items_T, self.vectors_VD) * (affinities_T * is_read_T)[:, None]
        sums_PD = read_TD.new_zeros(int(own_T[-1]) + 1, self.config.width).index_add(0, own_T, read_TD)
        states_TD = functional.normalize(sums_PD[own_T] - read_TD, dim=1) / self.config.temperature
        candidates, columns_T, inclusion_C = self.candidates(items_T)
        items_CD = functional.normalize(functional.embedding(candidates, self.vectors_VD), dim=1)
        loss: Tensor = CrossEntropy.apply(
            states_TD, items_CD, columns_T, affinities_T / affinities_T.sum(), inclusion_C
        )
        return loss

    def _on_device(self, array: NDArray[np.generic]) -> Tensor:
        values = torch.from_numpy(array).to(self.device)
        return values if values.is_floating_point() else values.long()
