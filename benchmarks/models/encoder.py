"""Transformer encoders as BERT-like models are exported at opset 17.

Per layer: query, key and value projections, scaled dot-product attention over heads, output
projection, residual, LayerNormalization; then two dense layers with GELU in its Erf form between
them, residual, LayerNormalization. Embeddings are the input. Weights are seeded: their values do
not change a circuit's cost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx

from benchmarks.models.build import GraphBuilder


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSize:
    """Sizes of an encoder.

    Attributes:
        layers: Layers.
        width: Elements of a token's vector.
        heads: Attention heads; they divide the width.
        hidden: Units between the two dense layers.
        tokens: Tokens of the input.
    """

    layers: int = 1
    width: int = 64
    heads: int = 4
    hidden: int = 256
    tokens: int = 16


BLOCK = EncoderSize()
"""One small layer, the file `encoder_block.onnx`."""

MINI_LM = EncoderSize(layers=6, width=384, heads=12, hidden=1536, tokens=8)
"""Six layers of the size of MiniLM-L6: 42 MB of weights, so built where it is needed."""


def build_encoder(size: EncoderSize, seed: int = 0) -> onnx.ModelProto:
    """The model, from embeddings [1, tokens, width] to hidden states of the same shape.

    Args:
        size: Its sizes.
        seed: Of the weights; fewer layers of the same seed are the first layers of more.
    """
    if size.width % size.heads:
        raise ValueError(f"{size.heads} heads do not divide a width of {size.width}")
    generator = np.random.default_rng(seed)
    graph = GraphBuilder("encoder")
    graph.constant("split_shape", [1, size.tokens, size.heads, size.width // size.heads], np.int64)
    graph.constant("join_shape", [1, size.tokens, size.width], np.int64)
    graph.constant("sqrt_head", math.sqrt(size.width // size.heads))
    graph.constant("sqrt_2", math.sqrt(2))
    graph.constant("one", 1.0)
    graph.constant("half", 0.5)
    data = "embeddings"
    for index in range(size.layers):
        last = index == size.layers - 1
        layer = _Layer(graph, generator, size, f"layer{index}")
        attended = layer.normalised(
            "attention.norm", layer.residual("attention.add", layer.attention(data), data)
        )
        data = layer.normalised(
            "output.norm",
            layer.residual("output.add", layer.feed_forward(attended), attended),
            "hidden" if last else None,
        )
    shape = [1, size.tokens, size.width]
    return graph.model([("embeddings", shape)], [("hidden", shape)])


class _Layer:
    """Writes one layer's nodes under a common prefix."""

    def __init__(
        self, graph: GraphBuilder, generator: np.random.Generator, size: EncoderSize, prefix: str
    ) -> None:
        self._graph = graph
        self._generator = generator
        self._size = size
        self._prefix = prefix

    def attention(self, data: str) -> str:
        width = self._size.width
        query, key, value = (
            self._heads(self._dense(f"attention.{name}", data, width, width), name, last)
            for name, last in (
                ("query", (0, 2, 1, 3)),
                ("key", (0, 2, 3, 1)),
                ("value", (0, 2, 1, 3)),
            )
        )
        scores = self._node("MatMul", [query, key], "attention.scores")
        scaled = self._node("Div", [scores, "sqrt_head"], "attention.scaled")
        weights = self._node("Softmax", [scaled], "attention.softmax", axis=-1)
        context = self._node("MatMul", [weights, value], "attention.context")
        merged = self._node("Transpose", [context], "attention.merged", perm=(0, 2, 1, 3))
        joined = self._node("Reshape", [merged, "join_shape"], "attention.joined")
        return self._dense("attention.output", joined, width, width)

    def feed_forward(self, data: str) -> str:
        inner = self._dense("ffn.first", data, self._size.width, self._size.hidden)
        part = self._node("Erf", [self._node("Div", [inner, "sqrt_2"], "gelu.div")], "gelu.erf")
        grown = self._node("Add", [part, "one"], "gelu.add")
        product = self._node("Mul", [inner, grown], "gelu.mul")
        gelu = self._node("Mul", [product, "half"], "gelu.half")
        return self._dense("ffn.second", gelu, self._size.hidden, self._size.width)

    def residual(self, name: str, left: str, right: str) -> str:
        return self._node("Add", [left, right], name)

    def normalised(self, name: str, data: str, output: str | None = None) -> str:
        width, graph = self._size.width, self._graph
        gamma = 1 + 0.1 * self._generator.normal(size=width)
        beta = 0.1 * self._generator.normal(size=width)
        inputs = [
            data,
            graph.constant(f"{self._prefix}.{name}.weight", gamma),
            graph.constant(f"{self._prefix}.{name}.bias", beta),
        ]
        made = output or f"{self._prefix}.{name}_out"
        return graph.node("LayerNormalization", inputs, made, axis=-1, epsilon=1e-5)

    def _heads(self, data: str, name: str, order: tuple[int, ...]) -> str:
        split = self._node("Reshape", [data, "split_shape"], f"attention.{name}.split")
        return self._node("Transpose", [split], f"attention.{name}.heads", perm=order)

    def _dense(self, name: str, data: str, rows: int, columns: int) -> str:
        full = f"{self._prefix}.{name}"
        weight = self._generator.normal(size=(rows, columns)) / math.sqrt(rows)
        self._graph.constant(f"{full}.weight", weight)
        self._graph.constant(f"{full}.bias", 0.02 * self._generator.normal(size=columns))
        product = self._node("MatMul", [data, f"{full}.weight"], f"{name}.matmul")
        return self._node("Add", [f"{full}.bias", product], f"{name}.add")

    def _node(self, operator: str, inputs: list[str], name: str, **attributes: object) -> str:
        return self._graph.node(operator, inputs, f"{self._prefix}.{name}_out", **attributes)
