"""The transformer's encoder: attention and moving averages over histories that lie end to end on a tape.

A tape is cut into blocks no shorter than the longest history: what an event may look back at lies in its own block and
the one before.

Shapes: T events of a tape, N blocks of B events, K = 2 B events within sight of a block, L distances, S of them
averaged over, D width, H heads or G averages of E each.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.recommend.sequence import SequenceConfig

SPAN = 16
"""Events over which moving averages run."""
N_AVERAGES = 8
"""Parts of an event's vector that are averaged each with its own weights, where the width can be so divided."""


class Block(nn.Module):
    """Attention and moving averages, both by distance and causal, and a feed-forward layer; normalised after each."""

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__()
        width = config.width
        self.n_heads, self.dropout, self.moving_average = config.n_heads, config.dropout, config.moving_average
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.mixed = nn.Linear(width, width)
        self.wide = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)
        self.norm_attention, self.norm_feed_forward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.distance_bias_HL = nn.Parameter(torch.zeros(config.n_heads, config.max_length))
        rates_G = torch.linspace(0.1, 1.5, math.gcd(N_AVERAGES, width))  # from nearly even to nearly the last one alone
        self.average_bias_GS = nn.Parameter(-rates_G[:, None] * torch.arange(min(SPAN, config.max_length)))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x_TD: Tensor, is_own_N1BK: Tensor) -> Tensor:
        heard_TD = self._attended(x_TD, is_own_N1BK)
        if self.moving_average:
            heard_TD = heard_TD.lerp(self._averaged(x_TD.to(heard_TD.dtype), is_own_N1BK), self.moving_average)
        x_TD = self.norm_attention(x_TD + self._dropped(heard_TD))
        fed_TD = self.narrow(functional.gelu(self.wide(x_TD)))
        return self.norm_feed_forward(x_TD + self._dropped(fed_TD))

    def _attended(self, x_TD: Tensor, is_own_N1BK: Tensor) -> Tensor:
        n_blocks, _, block, _ = is_own_N1BK.shape
        split = self.queries_keys_values(x_TD).view(n_blocks, block, 3, self.n_heads, -1)
        queries_NHBE, keys_NHBE, values_NHBE = split.permute(2, 0, 3, 1, 4)
        products_NHBK = (queries_NHBE @ in_sight(keys_NHBE).transpose(2, 3)).float() / math.sqrt(split.shape[-1])
        weights_NHBK = (products_NHBK + self.bias_HBK(block)).masked_fill(~is_own_N1BK, -torch.inf).softmax(-1)
        values_NHKE = in_sight(values_NHBE)
        heard_NHBE = weights_NHBK.to(values_NHKE.dtype) @ values_NHKE
        return self.mixed(heard_NHBE.transpose(1, 2).reshape(x_TD.shape))

    def _averaged(self, x_TD: Tensor, is_own_N1BK: Tensor) -> Tensor:
        n_blocks, _, block, _ = is_own_N1BK.shape
        x_NGBE = x_TD.view(n_blocks, block, len(self.average_bias_GS), -1).transpose(1, 2)
        averaged_NGBE = (self.averages_GBK(block).to(x_TD.dtype) * is_own_N1BK) @ in_sight(x_NGBE)
        return averaged_NGBE.transpose(1, 2).reshape(x_TD.shape)

    def bias_HBK(self, block: int) -> Tensor:
        """What is added to the attention of each event of a block to each within sight; -inf to later ones."""
        return by_distance(self.distance_bias_HL, block, -torch.inf)

    def averages_GBK(self, block: int) -> Tensor:
        """With what weight each event of a block hears each within sight; those before a history count nothing."""
        return by_distance(self.average_bias_GS.softmax(-1), block, 0.0)

    def _dropped(self, x: Tensor) -> Tensor:
        return dropped(x, self.dropout) if self.training else x


def in_sight(x_NHBE: Tensor) -> Tensor:
    """Each block with the one before it, shape (N, H, K, E)."""
    return torch.cat([x_NHBE.roll(1, 0), x_NHBE], 2)


def by_distance(values_HL: Tensor, block: int, beyond: float) -> Tensor:
    """Values by distance as a table of a block's events and those within sight, shape (H, B, K).

    ``beyond`` stands for the distances that have no value: those of later events and those from L on.

    >>> by_distance(torch.tensor([[5.0, 7.0]]), 2, 0.0)
    tensor([[[0., 7., 5., 0.],
             [0., 0., 7., 5.]]])
    """
    n_far = 2 * block - values_HL.shape[1]
    row_HJ = functional.pad(values_HL.flip(-1), (n_far, block - 1), value=beyond)
    return row_HJ.unfold(-1, 2 * block, 1).flip(-2)


class Encoder(nn.Module):
    """From what is read at each event to the direction of the event that follows it."""

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.block_size = -(-config.max_length // 16) * 16  # tensor cores multiply sixteen by sixteen
        self.norm = nn.LayerNorm(config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        place = torch.arange(2 * self.block_size)
        self.register_buffer("distance_BK", place[self.block_size :, None] - place, persistent=False)

    def forward(self, events_TD: Tensor, n_before_T: Tensor) -> Tensor:
        """T, a multiple of ``block_size``, events of which each has ``n_before`` earlier ones of its own history."""
        is_own_N1BK = self.distance_BK <= n_before_T.view(-1, 1, self.block_size, 1)
        x_TD = self.norm(events_TD)
        if self.training:
            x_TD = dropped(x_TD, self.dropout)
        for block in self.blocks:
            x_TD = block(x_TD, is_own_N1BK)
        return x_TD


def dropped(x: Tensor, share: float) -> Tensor:
    """Dropout from random bytes, eight from one draw: the share is rounded to 1/256."""
    threshold = round(share * 256)
    if not threshold:
        return x
    draws = torch.empty((x.numel() + 7) // 8, dtype=torch.int64, device=x.device).random_(-(2**63), None)
    kept = draws.view(torch.uint8)[: x.numel()].view(x.shape) >= threshold
    return x * kept * (256 / (256 - threshold))
