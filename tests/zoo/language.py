"""Language models as exporters write them: tokens of int64, positions, masks. Very small.

GPT: pre-norm blocks, a causal mask sliced from a buffer and chosen by, as nanoGPT is exported.
BERT: post-norm blocks, token types, an attention mask that is an input and becomes an added
number, as encoders of Hugging Face are exported.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.zoo.net import Net

LOWEST = float(np.finfo(np.float32).min)


@dataclass(frozen=True)
class Size:
    """Sizes of a language model."""

    tokens: int = 8
    width: int = 16
    heads: int = 2
    layers: int = 1
    words: int = 65


class _Writer(Net):
    """A net, and its sizes."""

    def __init__(self, seed: int, size: Size) -> None:
        super().__init__(seed)
        self.size = size

    def integers(self, *values: int) -> str:
        return self.constant(list(values), np.int64)

    def linear(self, x: str, inputs: int, outputs: int, *, gain: float = 1.0) -> str:
        product = self.op("MatMul", x, self.weight(inputs, outputs, inputs=inputs, gain=gain))
        return self.op("Add", product, self.constant(np.linspace(-0.1, 0.1, outputs)))

    def norm_row(self, x: str) -> str:
        width = self.size.width
        gamma = self.constant(np.linspace(0.7, 1.3, width))
        return self.op(
            "LayerNormalization", x, gamma, self.constant(np.linspace(-0.1, 0.1, width)), axis=-1
        )

    def gelu(self, x: str) -> str:
        erf = self.op("Erf", self.op("Div", x, self.constant(np.sqrt(2))))
        half = self.op("Mul", x, self.op("Add", erf, self.constant(1.0)))
        return self.op("Mul", half, self.constant(0.5))

    def heads_of(self, x: str, order: list[int]) -> str:
        size = self.size
        split = self.integers(-1, size.tokens, size.heads, size.width // size.heads)
        return self.op("Transpose", self.op("Reshape", x, split), perm=order)

    def scores(self, x: str) -> tuple[str, str]:
        """Scaled scores, and values by head."""
        width, heads = self.size.width, self.size.heads
        query, key, value = (self.linear(x, width, width, gain=gain) for gain in (0.7, 0.7, 1.0))
        query, value = (self.heads_of(part, [0, 2, 1, 3]) for part in (query, value))
        product = self.op("MatMul", query, self.heads_of(key, [0, 2, 3, 1]))
        return self.op("Div", product, self.constant(np.sqrt(width // heads))), value

    def mixed(self, masked: str, value: str) -> str:
        width, tokens = self.size.width, self.size.tokens
        mixed = self.op("MatMul", self.op("Softmax", masked, axis=-1), value)
        joined = self.op("Transpose", mixed, perm=[0, 2, 1, 3])
        joined = self.op("Reshape", joined, self.integers(-1, tokens, width))
        return self.linear(joined, width, width)

    def feed_forward(self, x: str) -> str:
        width = self.size.width
        return self.linear(self.gelu(self.linear(x, width, 2 * width)), 2 * width, width)

    def integer_model(self, inputs: list[str], output: str, shape: list[int]) -> onnx.ModelProto:
        """The model of inputs of int64, one number a token."""
        given = [
            helper.make_tensor_value_info(n, TensorProto.INT64, [1, self.size.tokens])
            for n in inputs
        ]
        made = helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)
        graph = helper.make_graph(self._nodes, "language", given, [made], self._weights)
        opset = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=9)
        onnx.checker.check_model(model, full_check=True)
        return model


def gpt(size: Size | None = None) -> onnx.ModelProto:
    """Logits of the next word, for every token."""
    size = size or Size()
    net = _Writer(40, size)
    width, tokens = size.width, size.tokens
    words = net.op("Gather", net.weight(size.words, width, inputs=1), "tokens")
    length = net.op("Gather", net.op("Shape", "tokens"), net.constant(1, np.int64))
    nought, one = net.constant(0, np.int64), net.constant(1, np.int64)
    places = net.op("Range", nought, length, one)
    x = net.op("Add", words, net.op("Gather", net.weight(32, width, inputs=4), places))
    buffer = net.constant(np.tri(32)[None, None])
    for _ in range(size.layers):
        scores, value = net.scores(net.norm_row(x))
        ends = net.op("Unsqueeze", length, net.integers(0))
        rows = net.op("Slice", buffer, net.integers(0), ends, net.integers(2))
        part = net.op("Slice", rows, net.integers(0), ends, net.integers(3))
        dropped = net.op("Equal", part, net.constant(0.0))
        masked = net.op("Where", dropped, net.constant(-np.inf), scores)
        x = net.op("Add", x, net.mixed(masked, value))
        x = net.op("Add", x, net.feed_forward(net.norm_row(x)))
    logits = net.op("MatMul", net.norm_row(x), net.weight(width, size.words, inputs=width))
    return net.integer_model(["tokens"], logits, [1, tokens, size.words])


def bert(size: Size | None = None) -> onnx.ModelProto:
    """What the encoder makes of every token."""
    size = size or Size(words=300)
    net = _Writer(41, size)
    width, tokens = size.width, size.tokens
    words = net.op("Gather", net.weight(size.words, width, inputs=1), "input_ids")
    kinds = net.op("Gather", net.weight(2, width, inputs=4), "token_type_ids")
    places = net.weight(1, tokens, width, inputs=4)
    x = net.norm_row(net.op("Add", net.op("Add", words, kinds), places))
    mask = net.op("Unsqueeze", "attention_mask", net.integers(1, 2))
    dropped = net.op("Sub", net.constant(1.0), net.op("Cast", mask, to=TensorProto.FLOAT))
    low = net.op("Mul", dropped, net.constant(LOWEST))
    for _ in range(size.layers):
        scores, value = net.scores(x)
        x = net.norm_row(net.op("Add", x, net.mixed(net.op("Add", scores, low), value)))
        x = net.norm_row(net.op("Add", x, net.feed_forward(x)))
    inputs = ["input_ids", "attention_mask", "token_type_ids"]
    return net.integer_model(inputs, x, [1, tokens, width])
