"""A transformer's encoder block, very small: 4 tokens of 8 numbers, 2 heads."""

from __future__ import annotations

import numpy as np
import onnx

from tests.zoo.net import Net

TOKENS, WIDTH, HEADS = 4, 8, 2


def transformer() -> onnx.ModelProto:
    """Pre-norm attention and a GELU (by Erf) feed-forward part, each with its residual."""
    net = Net(30)
    x = net.op("Add", "x", _attention(net, _norm(net, "x")))
    y = net.op("Add", x, _feed_forward(net, _norm(net, x)))
    return net.model({"x": [1, TOKENS, WIDTH]}, {y: [1, TOKENS, WIDTH]})


def _norm(net: Net, x: str) -> str:
    generator = np.random.default_rng(31)
    gamma = net.constant(generator.uniform(0.5, 1.5, size=WIDTH))
    beta = net.constant(generator.normal(size=WIDTH) * 0.1)
    return net.op("LayerNormalization", x, gamma, beta, axis=-1)


def _linear(net: Net, x: str, inputs: int, outputs: int, *, gain: float = 1.0) -> str:
    product = net.op("MatMul", x, net.weight(inputs, outputs, inputs=inputs, gain=gain))
    return net.op("Add", product, net.constant(np.linspace(-0.1, 0.1, outputs)))


def _heads(net: Net, x: str, order: list[int]) -> str:
    split = net.constant([1, TOKENS, HEADS, WIDTH // HEADS], np.int64)
    return net.op("Transpose", net.op("Reshape", x, split), perm=order)


def _attention(net: Net, x: str) -> str:
    # The gain keeps differences of scores within the +-8 that a lookup table spans.
    query = _heads(net, _linear(net, x, WIDTH, WIDTH, gain=0.5), [0, 2, 1, 3])
    key = _heads(net, _linear(net, x, WIDTH, WIDTH, gain=0.5), [0, 2, 3, 1])
    value = _heads(net, _linear(net, x, WIDTH, WIDTH), [0, 2, 1, 3])
    scores = net.op("Div", net.op("MatMul", query, key), net.constant(np.sqrt(WIDTH // HEADS)))
    mixed = net.op("MatMul", net.op("Softmax", scores, axis=-1), value)
    joined = net.op(
        "Reshape",
        net.op("Transpose", mixed, perm=[0, 2, 1, 3]),
        net.constant([1, TOKENS, WIDTH], np.int64),
    )
    return _linear(net, joined, WIDTH, WIDTH)


def _feed_forward(net: Net, x: str) -> str:
    hidden = _linear(net, x, WIDTH, 2 * WIDTH)
    erf = net.op("Erf", net.op("Div", hidden, net.constant(np.sqrt(2))))
    gelu = net.op(
        "Mul", net.op("Mul", hidden, net.op("Add", erf, net.constant(1.0))), net.constant(0.5)
    )
    return _linear(net, gelu, 2 * WIDTH, WIDTH)
