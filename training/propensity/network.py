"""Fits deep and cross networks, challengers of the trees on the same features."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn import Parameter, ParameterList
from torch.nn.functional import binary_cross_entropy_with_logits, dropout, relu

from serving.network import Network, inputs
from serving.scales import Floats
from training.members import batches, layer, linear
from training.propensity.config import NetworkConfig
from training.scales import fitted_scales
from training.schedule import cosine

SEED = 0
FIRST_SPREAD = 0.3
"""Standard deviation of the numbers that stand for a text before anything is learnt."""


class DeepCross(nn.Module):
    """Members in one array each: ``serving.network.Network`` while it learns.

    n_numbers : inputs that are numbers
    n_levels : of every text
    """

    def __init__(self, n_numbers: int, n_levels: Sequence[int], config: NetworkConfig) -> None:
        super().__init__()
        self._dropout = config.dropout
        members, width = config.n_members, config.width
        self.embeddings = ParameterList(_embedding(members, n, config.embedding) for n in n_levels)
        n_inputs = n_numbers + sum(embedding.shape[2] for embedding in self.embeddings)
        self.cross = layer(members, n_inputs, n_inputs)
        self.first = layer(members, n_inputs, width)
        self.second = layer(members, width, width)
        self.head = layer(members, n_inputs + width, 1)

    def forward(self, numbers: Tensor, at: Tensor) -> Tensor:
        """Log-odds of every member, shape (n_members, n); inputs as ``serving.network.inputs`` gives them."""
        told = numbers.expand(len(self.cross[0]), *numbers.shape)
        x = torch.cat([told, *(each[:, places] for each, places in zip(self.embeddings, at.T, strict=True))], dim=2)
        crossed = x * linear(self.cross, x) + x
        deep = self._dropped(relu(linear(self.first, x)))
        deep = self._dropped(relu(linear(self.second, deep)))
        return linear(self.head, torch.cat([crossed, deep], dim=2))[..., 0]

    def _dropped(self, x: Tensor) -> Tensor:
        return dropout(x, self._dropout, self.training)


def fit(
    rows: Floats, outcome: NDArray[np.bool_], n_levels: Sequence[int], config: NetworkConfig, device: str
) -> Network:
    """Minimise each member's log loss with AdamW, the step size along a cosine.

    The same seed gives the same members on one kind of processor, whatever the number of its cores.

    rows : float64, shape (n, n_features), NaN where a value is missing
    n_levels : of every feature, 0 for a number
    device : "cpu" or "cuda"
    """
    texts = np.array([column for column, n in enumerate(n_levels) if n], int)
    scales = fitted_scales(rows, [column for column, n in enumerate(n_levels) if not n])
    numbers, at = (torch.from_numpy(each).to(device) for each in inputs(scales, texts, rows))
    target = torch.from_numpy(outcome.astype(np.float32)).to(device)
    with torch.random.fork_rng(), threadpool_limits(1):  # products so small wait ten times as long for a second thread
        torch.manual_seed(SEED)
        network = DeepCross(numbers.shape[1], [n_levels[text] for text in texts], config).to(device)
        optimizer = torch.optim.AdamW(network.parameters(), config.learning_rate, weight_decay=config.weight_decay)
        n_steps = min(config.n_epochs * -(-len(rows) // config.batch_size), config.most_steps)
        for step, batch in zip(range(n_steps), batches(len(rows), config.batch_size), strict=False):
            optimizer.param_groups[0]["lr"] = config.learning_rate * cosine(step, n_steps)
            chosen = batch.to(device)
            log_odds = network(numbers[chosen], at[chosen])
            loss = binary_cross_entropy_with_logits(log_odds, target[chosen].expand_as(log_odds))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    arrays = {name: each.detach().cpu().numpy() for name, each in network.named_parameters()}
    embeddings = tuple(arrays[f"embeddings.{number}"] for number in range(len(texts)))
    layers = ((arrays[f"{name}.0"], arrays[f"{name}.1"]) for name in ("cross", "first", "second", "head"))
    return Network(scales, texts, embeddings, *layers)


def _embedding(n_members: int, n_levels: int, width: int) -> Parameter:
    """A text that was never met stands at the origin."""
    known = FIRST_SPREAD * torch.randn(n_members, n_levels, min(width, n_levels))
    return Parameter(torch.cat([torch.zeros_like(known[:, :1]), known], dim=1))
