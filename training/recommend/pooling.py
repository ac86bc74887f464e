"""Fits the pooled tier: each item of a history is predicted from the sum of all its other items' vectors.

The loss is cross-entropy over the catalogue as in Covington et al., "Deep Neural Networks for YouTube Recommendations",
RecSys 2016, section 3, with nothing between the sum and the softmax. It is of cosines over a temperature, so that the
lengths of vectors are free to learn how much an item says about its history, and over what the person does not have:
what it has is not to be recommended, and is no mistake.

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
from serving.pooled import Pooled, relative
from training.device import Device
from training.recommend.cross_entropy import Negatives, of_cosines
from training.recommend.pooled import PooledConfig
from training.schedule import cosine

START = 0.02
"""Deviation of the vectors at the start."""
LEAST = 1e-5
"""Share of a history that the others of an item must weigh for it to be predicted from them."""


def fit(log: Log, config: PooledConfig, events: EventWeights, device: Device) -> Pooled:
    """Vectors of the items after ``n_epochs`` passes over the histories."""
    pooling = Pooling(rated(log.histories, events), log.n_items, config, device)
    for _ in range(config.n_epochs):
        pooling.epoch()
    vectors_VD = pooling.vectors_VD.detach().cpu()
    directions, lengths = functional.normalize(vectors_VD, dim=1).numpy(), vectors_VD.norm(dim=1).numpy()
    return Pooled(directions, lengths, events.weights, events.half_life_days)


def of_several(ratings: Ratings) -> Ratings:
    """The ratings of those rows alone that have at least two."""
    lengths = np.diff(ratings.starts)
    kept = np.repeat(lengths > 1, lengths)
    starts = np.concatenate([[0], np.cumsum(lengths[lengths > 1])])
    return Ratings(starts, ratings.columns[kept], ratings.affinities[kept])


class Pooling:
    """The vectors, their optimiser and the histories, on one device.

    ratings : the items of each person; those of nobody who has several keep a vector of zeros
    """

    def __init__(self, ratings: Ratings, n_items: int, config: PooledConfig, device: Device) -> None:
        self.config, self.device = config, torch.device(device.name)
        self.rng = np.random.default_rng(config.seed)
        torch.manual_seed(config.seed)
        starts, items, weights = relative(of_several(ratings))
        self.starts, self.lengths = starts[:-1], np.diff(starts)
        self.items, self.weights = self._on_device(items), self._on_device(weights)
        touched = torch.unique(self.items)
        self.negatives = Negatives(touched, self.items, config.n_negatives)
        start_VD = torch.zeros(n_items, config.width)
        start_VD[touched.cpu()] = torch.randn(len(touched), config.width) * START
        self.vectors_VD = start_VD.to(self.device).requires_grad_()
        self.optimizer = torch.optim.AdamW([self.vectors_VD], weight_decay=config.weight_decay, fused=True)
        self.steps_per_epoch = max(1, round(len(items) / config.batch_size))
        self.step = 0

    def epoch(self) -> float:
        """One pass over the histories in random order; the mean loss of its steps."""
        losses = [self.update(*step) for step in self.steps()]
        return torch.stack(losses).mean().item() if losses else 0.0

    def steps(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Each step's items among all, int64 (T,), and whose they are, from 0, int64 (T,).

        People are whole: who has more items than a step is to have makes one larger, and another is left out.
        """
        people = self.rng.permutation(len(self.lengths))
        ends = np.cumsum(self.lengths[people])
        cuts = np.searchsorted(ends, len(self.items) * np.arange(1, self.steps_per_epoch) / self.steps_per_epoch)
        for together in filter(len, np.split(people, cuts)):
            lengths = self.lengths[together]
            own = np.repeat(np.arange(len(together)), lengths)
            begins = self.starts[together] - np.cumsum(lengths) + lengths
            yield self._on_device(np.arange(len(own)) + begins[own]), self._on_device(own)

    def update(self, places_T: Tensor, own_T: Tensor) -> Tensor:
        """One step towards each of some items from the others of its person; the loss before it."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * cosine(self.step, self.steps_per_epoch * self.config.n_epochs)
        self.step += 1
        self.optimizer.zero_grad()
        loss = self._loss(self.items[places_T], self.weights[places_T], own_T)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _loss(self, items_T: Tensor, weights_T: Tensor, own_T: Tensor) -> Tensor:
        read_T = weights_T * (torch.rand(len(items_T), device=self.device) >= self.config.dropout)
        read_TD = functional.embedding(items_T, self.vectors_VD) * read_T[:, None]
        n_people = int(own_T[-1]) + 1
        sums_PD = read_TD.new_zeros(n_people, self.config.width).index_add(0, own_T, read_TD)
        sums_P = read_T.new_zeros(n_people).index_add(0, own_T, read_T)
        is_told_T = sums_P[own_T] - read_T > LEAST * sums_P[own_T]
        told_T = weights_T * is_told_T / (weights_T * is_told_T).sum().clamp(min=LEAST)
        states_TD = sums_PD[own_T] - read_TD
        return of_cosines(states_TD, items_T, told_T, self.vectors_VD, self.negatives, self.config.temperature, own_T)

    def _on_device(self, array: NDArray[np.generic]) -> Tensor:
        values = torch.from_numpy(array).to(self.device)
        return values if values.is_floating_point() else values.long()
