"""Writes the sequence transformer's encoders as an ONNX graph, node by node: small, and the same on every exporter."""

from collections.abc import Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

if TYPE_CHECKING:
    from training.recommend.encoder import Block, Encoder

OPSET = 20
"""The first with Gelu."""
IR_VERSION = 9


class Graph:
    """Nodes and constants in the order in which they were added; a value is spoken of by its name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._numbers = count()

    def constant(self, values: NDArray[Any] | Tensor) -> str:
        array = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
        name = f"constant_{next(self._numbers)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def add(self, operator: str, *inputs: str, **attributes: object) -> str:
        return self.several(operator, 1, *inputs, **attributes)[0]

    def several(self, operator: str, n_outputs: int, *inputs: str, **attributes: object) -> list[str]:
        outputs = [f"value_{next(self._numbers)}" for _ in range(n_outputs)]
        self.nodes.append(helper.make_node(operator, list(inputs), outputs, **attributes))
        return outputs

    def linear(self, x: str, weight: Tensor, bias: Tensor) -> str:
        return self.add("Add", self.add("MatMul", x, self.constant(weight.T)), self.constant(bias))

    def normalised(self, x: str, norm: Any) -> str:  # noqa: ANN401
        return self.add(
            "LayerNormalization", x, self.constant(norm.weight), self.constant(norm.bias), axis=-1, epsilon=norm.eps
        )


def written(encoders: Sequence["Encoder"]) -> bytes:
    """One model in which each encoder reads its slice of the events and gives a unit vector at the last one.

    Input ``events``, float32 (n, length, width of all), and ``last``, int64 (n,); output ``direction``, float32 (n,
    width of all).
    """
    graph = Graph()
    slices = graph.several("Split", len(encoders), "events", axis=2, num_outputs=len(encoders))
    ends = graph.add("Tile", graph.add("Shape", "events", start=1, end=2), graph.integers(2))
    last = graph.add("Unsqueeze", "last", graph.integers(1))
    directions = []
    for encoder, x in zip(encoders, slices, strict=True):
        state = graph.add("GatherND", _encoded(graph, encoder, x, ends), last, batch_dims=1)
        directions.append(graph.add("LpNormalization", state, axis=1, p=2))
    graph.nodes.append(helper.make_node("Concat", directions, ["direction"], axis=1))
    width = sum(encoder.norm.weight.shape[0] for encoder in encoders)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "encoder",
            [
                helper.make_tensor_value_info("events", TensorProto.FLOAT, ["n", "length", width]),
                helper.make_tensor_value_info("last", TensorProto.INT64, ["n"]),
            ],
            [helper.make_tensor_value_info("direction", TensorProto.FLOAT, ["n", width])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def _encoded(graph: Graph, encoder: "Encoder", x: str, ends: str) -> str:
    x = graph.normalised(x, encoder.norm)
    for block in encoder.blocks:
        x = _through(graph, block, x, ends)
    return x


def _through(graph: Graph, block: "Block", x: str, ends: str) -> str:
    heard = _attended(graph, block, x, ends)
    if block.moving_average:
        heard = graph.add("Mul", heard, graph.constant(np.array(1 - block.moving_average, np.float32)))
        heard = graph.add("Add", heard, _averaged(graph, block, x, ends))
    x = graph.normalised(graph.add("Add", x, heard), block.norm_attention)
    wide = graph.add("Gelu", graph.linear(x, block.wide.weight, block.wide.bias))
    narrow = graph.linear(wide, block.narrow.weight, block.narrow.bias)
    return graph.normalised(graph.add("Add", x, narrow), block.norm_feed_forward)


def _attended(graph: Graph, block: "Block", x: str, ends: str) -> str:
    width = block.mixed.weight.shape[0]
    n_heads, head = block.n_heads, width // block.n_heads
    joint = graph.linear(x, block.queries_keys_values.weight, block.queries_keys_values.bias)
    split = graph.add("Reshape", joint, graph.integers(0, 0, 3, n_heads, head))
    of_heads = graph.add("Transpose", split, perm=[2, 0, 3, 1, 4])
    queries, keys, values = (
        graph.add("Squeeze", part, graph.integers(0)) for part in graph.several("Split", 3, of_heads, num_outputs=3)
    )
    length = block.distance_bias_HL.shape[1]
    bias = _up_to(graph, block.bias_HBK(length)[..., length:], ends)
    products = graph.add("MatMul", queries, graph.add("Transpose", keys, perm=[0, 1, 3, 2]))
    scale = graph.constant(np.array(head**-0.5, np.float32))
    weights = graph.add("Softmax", graph.add("Add", graph.add("Mul", products, scale), bias), axis=-1)
    heard = graph.add("Transpose", graph.add("MatMul", weights, values), perm=[0, 2, 1, 3])
    together = graph.add("Reshape", heard, graph.integers(0, 0, width))
    return graph.linear(together, block.mixed.weight, block.mixed.bias)


def _averaged(graph: Graph, block: "Block", x: str, ends: str) -> str:
    """The moving averages, times their share."""
    width, length = block.mixed.weight.shape[0], block.distance_bias_HL.shape[1]
    n_averages = len(block.average_bias_GS)
    parts = graph.add("Reshape", x, graph.integers(0, 0, n_averages, width // n_averages))
    weights = _up_to(graph, block.averages_GBK(length)[..., length:] * block.moving_average, ends)
    averaged = graph.add("MatMul", weights, graph.add("Transpose", parts, perm=[0, 2, 1, 3]))
    return graph.add("Reshape", graph.add("Transpose", averaged, perm=[0, 2, 1, 3]), graph.integers(0, 0, width))


def _up_to(graph: Graph, table: Tensor, ends: str) -> str:
    """A table by place and place, shape (n_heads, length, length), as far as the histories are long."""
    return graph.add("Slice", graph.constant(table), graph.integers(0, 0), ends, graph.integers(1, 2))
