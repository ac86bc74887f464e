"""Fits the quantile network, the challenger of the trees on the same features."""

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn import ParameterList
from torch.nn.functional import dropout, relu, softplus

from features.panels import Floats, Ints
from serving.quantile_network import LAYERS, QuantileNetwork, numbers, read
from training.demand.config import DemandConfig, NetworkConfig
from training.demand.learning import Examples
from training.members import batches, layer, linear
from training.scales import fitted_scales
from training.schedule import cosine

MOST_SCALED = 100_000
"""Rows from which the scales of features are learnt."""
LEAST_INCREMENT = 1e-3
"""Of one quantile over another before anything is learnt."""
LONGEST_STEP = 1.0
"""Norm to which a gradient is cut: a single large seller weighs as much as a thousand small ones."""


class IncrementalQuantiles(nn.Module):
    """Members in one array each: ``serving.quantile_network.QuantileNetwork`` while it learns.

    pooled : float64, shape (n_quantiles,)   the quantiles of all examples over their base: what it says at first
    """

    def __init__(self, n_inputs: int, pooled: NDArray[np.float64], config: NetworkConfig) -> None:
        super().__init__()
        self._dropout = config.dropout
        self.unit = max(float(pooled[-1] - pooled[0]), LEAST_INCREMENT)
        self.first = layer(config.n_members, n_inputs, config.width)
        self.second = layer(config.n_members, config.width, config.width)
        self.head = layer(config.n_members, config.width, len(pooled))
        increments = np.maximum(np.diff(pooled) / self.unit, LEAST_INCREMENT)
        said = np.r_[pooled[0] / self.unit, np.log(np.expm1(increments))]
        with torch.no_grad():
            self.head[0].zero_()
            self.head[1].copy_(torch.from_numpy(said))

    def forward(self, x: Tensor) -> Tensor:
        """Quantiles over the base, shape (n_members, n, n_quantiles); ``x`` [n, n_inputs]."""
        shallow = self._dropped(relu(linear(self.first, x)))
        said = linear(self.head, shallow + self._dropped(relu(linear(self.second, shallow))))
        return self.unit * torch.cat([said[..., :1], softplus(said[..., 1:])], dim=-1).cumsum(dim=-1)

    def _dropped(self, x: Tensor) -> Tensor:
        return dropout(x, self._dropout, self.training)


def fit(taught: Examples, columns: Ints, config: DemandConfig, settings: NetworkConfig, device: str) -> QuantileNetwork:
    """Minimise each member's mean pinball loss in units with AdamW, the step size along a cosine.

    The same seed gives the same members on one kind of processor, whatever the number of its cores.

    columns : those of ``serving.quantile_network.read`` that it reads
    device : "cpu" or "cuda"
    """
    rng = np.random.default_rng(config.seed)
    some = np.sort(rng.permutation(len(taught.units))[:MOST_SCALED])
    scales = fitted_scales(read(taught.rows[some], taught.bases[some]), columns.tolist())
    pooled = _pooled(taught, np.array(config.quantiles))
    weight = taught.weight() / taught.weight().mean()
    target, weights, quantiles = (
        torch.from_numpy(np.asarray(each, np.float32)).to(device)
        for each in (taught.relative()[:, None], weight[:, None], config.quantiles)
    )
    with torch.random.fork_rng(), threadpool_limits(1):  # products so small wait ten times as long for a second thread
        torch.manual_seed(config.seed)
        network = IncrementalQuantiles(2 * len(scales.columns), pooled, settings).to(device)
        optimizer = torch.optim.AdamW(network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
        rounds = batches(len(taught.units), settings.batch_size)
        for step, batch in zip(range(settings.n_steps), rounds, strict=False):
            optimizer.param_groups[0]["lr"] = settings.learning_rate * cosine(step, settings.n_steps)
            rows = numbers(scales, read(taught.rows[batch.numpy()], taught.bases[batch.numpy()]))
            chosen = batch.to(device)
            short = target[chosen] - network(torch.from_numpy(rows).to(device))
            loss = (torch.maximum(quantiles * short, (quantiles - 1) * short) * weights[chosen]).mean(dim=(1, 2)).sum()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), LONGEST_STEP)
            optimizer.step()
    return QuantileNetwork(
        scales, np.array([network.unit], np.float32), *(_arrays(getattr(network, name)) for name in LAYERS)
    )


def _pooled(taught: Examples, quantiles: NDArray[np.float64]) -> NDArray[np.float64]:
    """The quantiles of all units over their base, weighted in units."""
    relative, weight = taught.relative(), taught.weight()
    order = np.argsort(relative)
    below = weight[order].cumsum(dtype=np.float64)
    return np.interp(quantiles, below / below[-1], relative[order])


def _arrays(of: ParameterList) -> tuple[Floats, Floats]:
    weight, bias = (each.detach().cpu().numpy() for each in of)
    return weight, bias
