"""Models that are large to plan: a residual network, a decoder layer, an encoder of six layers.

Their shapes are those of ResNet-18 (7x7 stem, batch normalisation folded) at 32x32 pixels, of a
layer of GPT-2 at 64 tokens and of MiniLM-L6 at 128 tokens; weights are seeded and embeddings are
the input. They have 11, 7 and 11 million weights, so they are built where they are needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
import onnx

from benchmarks.models.build import GraphBuilder
from benchmarks.models.encoder import EncoderSize, build_encoder

STAGES: Final = (64, 128, 256, 512)
"""Channels of ResNet-18's stages, each of two blocks."""


def build_resnet18(seed: int = 0, *, side: int = 32, classes: int = 1000) -> onnx.ModelProto:
    """ResNet-18 with its batch normalisations folded into convolutions.

    Args:
        seed: Of the weights.
        side: Height and width of the image, a multiple of 32.
        classes: Outputs.
    """
    generator = np.random.default_rng(seed)
    graph = GraphBuilder("resnet18")

    def conv(data: str, name: str, inputs: int, outputs: int, kernel: int, stride: int) -> str:
        weight = generator.normal(size=(outputs, inputs, kernel, kernel))
        graph.constant(f"{name}.weight", weight * math.sqrt(2 / (inputs * kernel * kernel)))
        graph.constant(f"{name}.bias", generator.normal(size=outputs) * 0.1)
        return graph.conv(
            data,
            f"{name}.weight",
            f"{name}.bias",
            f"{name}_out",
            kernel=kernel,
            stride=stride,
            pad=kernel // 2,
        )

    def relu(data: str) -> str:
        return graph.node("Relu", [data], f"{data}.relu")

    data = relu(conv("image", "stem", 3, STAGES[0], 7, 2))
    data = graph.node(
        "MaxPool", [data], "pooled", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]
    )
    channels = STAGES[0]
    for stage, width in enumerate(STAGES):
        for block in range(2):
            name, stride = f"stage{stage}.{block}", 2 if stage and not block else 1
            inner = relu(conv(data, f"{name}.conv1", channels, width, 3, stride))
            main = conv(inner, f"{name}.conv2", width, width, 3, 1)
            if channels != width:
                data = conv(data, f"{name}.shortcut", channels, width, 1, stride)
            data = relu(graph.node("Add", [main, data], f"{name}.sum"))
            channels = width
    pooled = graph.node("GlobalAveragePool", [data], "averaged")
    flat = graph.node("Flatten", [pooled], "flat", axis=1)
    graph.constant("head.weight", generator.normal(size=(channels, classes)) / math.sqrt(channels))
    graph.constant("head.bias", 0.02 * generator.normal(size=classes))
    product = graph.node("MatMul", [flat, "head.weight"], "head.product")
    graph.node("Add", [product, "head.bias"], "scores")
    return graph.model([("image", [1, 3, side, side])], [("scores", [1, classes])])


def build_gpt2_layer(
    seed: int = 0, *, width: int = 768, heads: int = 12, tokens: int = 64, exact: bool = False
) -> onnx.ModelProto:
    """A layer of GPT-2: normalised before attention and before the hidden units.

    Args:
        seed: Of the weights.
        width: Elements of a token's vector.
        heads: Attention heads.
        tokens: Tokens of the input.
        exact: GELU by Erf and attention to all tokens, instead of GELU by Tanh and to earlier ones.
    """
    generator = np.random.default_rng(seed)
    graph = GraphBuilder("gpt2_layer")
    head = width // heads
    graph.constant("split_shape", [1, tokens, heads, head], np.int64)
    graph.constant("join_shape", [1, tokens, width], np.int64)
    for name, value in (("sqrt_head", math.sqrt(head)), ("one", 1.0), ("half", 0.5)):
        graph.constant(name, value)

    def normalised(data: str, name: str) -> str:
        gamma = graph.constant(f"{name}.weight", 1 + 0.1 * generator.normal(size=width))
        beta = graph.constant(f"{name}.bias", 0.1 * generator.normal(size=width))
        return graph.node("LayerNormalization", [data, gamma, beta], f"{name}_out", axis=-1)

    def dense(data: str, name: str, rows: int, columns: int) -> str:
        weight = generator.normal(size=(rows, columns)) / math.sqrt(rows)
        graph.constant(f"{name}.weight", weight)
        graph.constant(f"{name}.bias", 0.02 * generator.normal(size=columns))
        product = graph.node("MatMul", [data, f"{name}.weight"], f"{name}.product_out")
        return graph.node("Add", [product, f"{name}.bias"], f"{name}_out")

    def heads_of(data: str, name: str, order: tuple[int, ...]) -> str:
        split = graph.node("Reshape", [data, "split_shape"], f"{name}.split_out")
        return graph.node("Transpose", [split], f"{name}.heads_out", perm=order)

    data = normalised("hidden", "norm1")
    query, key, value = (
        heads_of(dense(data, name, width, width), name, order)
        for name, order in (
            ("query", (0, 2, 1, 3)),
            ("key", (0, 2, 3, 1)),
            ("value", (0, 2, 1, 3)),
        )
    )
    scores = graph.node("MatMul", [query, key], "scores_out")
    scores = graph.node("Div", [scores, "sqrt_head"], "scaled_out")
    if not exact:
        below = np.tril(np.ones((1, 1, tokens, tokens), dtype=bool))
        graph.constant("mask", np.where(below, 0.0, np.finfo(np.float32).min))
        scores = graph.node("Add", [scores, "mask"], "masked_out")
    shares = graph.node("Softmax", [scores], "shares_out", axis=-1)
    mixed = graph.node("MatMul", [shares, value], "mixed_out")
    merged = graph.node("Transpose", [mixed], "merged_out", perm=(0, 2, 1, 3))
    joined = graph.node("Reshape", [merged, "join_shape"], "joined_out")
    data = graph.node("Add", ["hidden", dense(joined, "output", width, width)], "attended_out")
    inner = dense(normalised(data, "norm2"), "first", width, 4 * width)
    if exact:
        graph.constant("sqrt_2", math.sqrt(2))
        scaled = graph.node("Div", [inner, "sqrt_2"], "gelu.argument_out")
        part = graph.node("Erf", [scaled], "gelu.erf_out")
    else:
        graph.constant("cubic", 0.044715)
        graph.constant("three", 3.0)
        graph.constant("slope", math.sqrt(2 / math.pi))
        cube = graph.node("Pow", [inner, "three"], "gelu.cube_out")
        small = graph.node("Mul", [cube, "cubic"], "gelu.small_out")
        total = graph.node("Add", [inner, small], "gelu.total_out")
        scaled = graph.node("Mul", [total, "slope"], "gelu.argument_out")
        part = graph.node("Tanh", [scaled], "gelu.tanh_out")
    grown = graph.node("Add", [part, "one"], "gelu.grown_out")
    half = graph.node("Mul", [inner, "half"], "gelu.half_out")
    gelu = graph.node("Mul", [half, grown], "gelu_out")
    graph.node("Add", [data, dense(gelu, "second", 4 * width, width)], "y")
    shape = [1, tokens, width]
    return graph.model([("hidden", shape)], [("y", shape)])


LARGE: Final[Mapping[str, Callable[[], onnx.ModelProto]]] = MappingProxyType(
    {
        "resnet18": build_resnet18,
        "gpt2-layer": build_gpt2_layer,
        "gpt2-layer-erf": lambda: build_gpt2_layer(exact=True),
        "minilm": lambda: build_encoder(
            EncoderSize(layers=6, width=384, heads=12, hidden=1536, tokens=128)
        ),
    }
)
"""The models by name."""
