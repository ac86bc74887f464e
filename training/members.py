"""Layers of networks that learn side by side, each in one array: its first dimension is the members."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import Parameter, ParameterList


def layer(n_members: int, n_inputs: int, n_outputs: int) -> ParameterList:
    """Weight, shape (n_members, n_inputs, n_outputs), and bias (n_members, 1, n_outputs), even around zero."""
    bound = n_inputs**-0.5
    shapes = (n_members, n_inputs, n_outputs), (n_members, 1, n_outputs)
    return ParameterList(Parameter((2 * torch.rand(shape) - 1) * bound) for shape in shapes)


def linear(of: ParameterList, x: Tensor) -> Tensor:
    """The layer's outputs, shape (n_members, n, n_outputs); inputs (n_members, n, n_inputs) or the same for all."""
    return x @ of[0] + of[1]


def batches(n: int, size: int) -> Iterator[Tensor]:
    """Rows in random order, over and over; the last batch of a round may be short."""
    while True:
        yield from torch.randperm(n).split(size)
