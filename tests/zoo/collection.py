"""A collection of small graphs in the forms that exporters write: one of every kind of layer.

Batches are symbolic, as exporters leave them; old versions of operators, shape arithmetic, integers
and truth values stand where they usually do. Weights are seeded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.zoo.net import Net

BATCH: Final = "batch_size"
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
DOUBLE = TensorProto.DOUBLE

Shape = Sequence[int | str]
Body = Callable[[Net], "str | tuple[str, ...]"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One graph.

    Attributes:
        body: Adds its nodes, which read the inputs by their names, and gives its outputs' names.
        inputs: Shape and element type of each input.
        opset: Version of its operators.
        low: Smallest number of an input.
        high: Largest.
    """

    body: Body
    inputs: Mapping[str, tuple[Shape, int]]
    opset: int = 17
    low: float = -1.0
    high: float = 1.0

    def model(self) -> onnx.ModelProto:
        """The ONNX model."""
        net = Net(seed=0)
        made = self.body(net)
        outputs = (made,) if isinstance(made, str) else made
        return net.exported(self.inputs, outputs, opset=self.opset)

    def arrays(self, seed: int) -> dict[str, np.ndarray]:
        """Random inputs, a batch of one."""
        drawn = np.random.default_rng(seed)
        arrays: dict[str, np.ndarray] = {}
        for name, (shape, element) in self.inputs.items():
            sizes = [1 if size == BATCH else size for size in shape]
            if element == BOOL:
                arrays[name] = drawn.random(sizes) < 0.5
            elif element == INT64:
                arrays[name] = drawn.integers(int(self.low), int(self.high) + 1, sizes)
            else:
                kind = helper.tensor_dtype_to_np_dtype(element)
                arrays[name] = drawn.uniform(self.low, self.high, sizes).astype(kind)
        return arrays


def one(shape: Shape, body: Body, **options: Any) -> Example:
    """A graph with one float input, x."""
    return Example(body=body, inputs={"x": (shape, FLOAT)}, **options)


def layer(op_type: str, *sizes: int, **attributes: Any) -> Example:
    """One operator that reads x alone."""
    return one([BATCH, *sizes], lambda net: net.op(op_type, "x", **attributes))


def between(op_type: str, low: float, high: float) -> Example:
    """A function of one number that is not defined everywhere, or grows fast."""
    return one([BATCH, 6], lambda net: net.op(op_type, "x"), low=low, high=high)


def with_constant(op_type: str, value: object, *sizes: int, **options: Any) -> Example:
    """One operator of x and a constant."""
    return one([BATCH, *sizes], lambda net: net.op(op_type, "x", net.constant(value)), **options)


def reversed_constant(op_type: str, value: object, **options: Any) -> Example:
    """One operator of a constant and x."""
    return one([BATCH, 8], lambda net: net.op(op_type, net.constant(value), "x"), **options)


def integers(net: Net, *values: int) -> str:
    return net.constant(values, np.int64)


# Layers


def conv(net: Net, **attributes: Any) -> str:
    return net.conv("x", 3, 4, 3, **attributes)


def conv_transposed(net: Net) -> str:
    weight = net.weight(3, 3, 5, 5, inputs=27)
    attributes = {"kernel_shape": [5, 5], "pads": [2, 2, 2, 2], "output_padding": [1, 1]}
    return net.op("ConvTranspose", "x", weight, strides=[2, 2], dilations=[1, 1], **attributes)


def average_with_padding(net: Net) -> str:
    padded = net.op("Pad", "x", mode="constant", pads=[0] * 8, value=0.0)
    pooled = net.op("AveragePool", padded, kernel_shape=[2, 2], strides=[1, 1])
    return net.op("Gather", pooled, net.constant(0, np.int64), axis=1)


def power_average(net: Net) -> str:
    """Lp pooling as torch writes it: a signed root of a mean of powers."""
    two, half, count = (net.constant(value) for value in (2.0, 0.5, 4.0))
    pooled = net.op("AveragePool", net.op("Pow", "x", two), kernel_shape=[2, 2], strides=[1, 1])
    positive = net.op("Relu", net.op("Abs", pooled))
    return net.op(
        "Pow", net.op("Mul", net.op("Sign", pooled), net.op("Mul", positive, count)), half
    )


def instance_norm(net: Net) -> str:
    return net.op("InstanceNormalization", "x", net.constant([1.0]), net.constant([0.1]))


def layer_norm(net: Net) -> str:
    scale, shift = net.constant(np.linspace(0.5, 1.5, 10)), net.constant(np.linspace(-1, 1, 10))
    return net.op("LayerNormalization", "x", scale, shift, axis=-1)


def variance(net: Net) -> str:
    mean = net.op("ReduceMean", "x", axes=[2, 3], keepdims=1)
    off = net.op("Sub", "x", mean)
    return net.op("ReduceMean", net.op("Mul", off, off), axes=[2, 3], keepdims=0)


def gelu(net: Net) -> str:
    half = net.op("Div", "x", net.constant(2.0**0.5))
    grown = net.op("Add", net.op("Erf", half), net.constant(1.0))
    return net.op("Mul", net.op("Mul", "x", grown), net.constant(0.5))


def gelu_by_tanh(net: Net, x: str = "x") -> str:
    cubed = net.op("Mul", net.op("Mul", x, x), x)
    inner = net.op("Add", x, net.op("Mul", cubed, net.constant(0.044715)))
    bent = net.op("Tanh", net.op("Mul", inner, net.constant(0.7978846)))
    grown = net.op("Add", bent, net.constant(1.0))
    return net.op("Mul", net.op("Mul", x, grown), net.constant(0.5))


def mish(net: Net) -> str:
    return net.op("Mul", "x", net.op("Tanh", net.op("Softplus", "x")))


def remainder(net: Net) -> str:
    by = net.constant(0.7)
    whole = net.op("Floor", net.op("Div", "x", by))
    return net.op("Sub", "x", net.op("Mul", whole, by))


def upsampled(net: Net) -> str:
    roi, scales = net.constant(np.zeros(0)), net.constant([1.0, 1.0, 2.0, 2.0])
    attributes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return net.op("Resize", "x", roi, scales, mode="nearest", **attributes)


def resized_linear(net: Net) -> str:
    size = integers(net, 1, 2, 8, 8)
    return net.op("Resize", "x", "", "", size, mode="linear")


def padded_as_computed(net: Net) -> str:
    """Reflected by amounts that a little program reverses, then enlarged."""
    first = net.op(
        "ConstantOfShape", integers(net, 4), value=numpy_helper.from_array(np.zeros(1, np.int64))
    )
    amounts = net.op("Concat", integers(net, 1, 1, 1, 1), first, axis=0)
    pairs = net.op("Reshape", amounts, integers(net, -1, 2))
    ends = (integers(net, v) for v in (-1, -9, 0, -1))
    turned = net.op("Transpose", net.op("Slice", pairs, *ends), perm=[1, 0])
    pads = net.op("Cast", net.op("Reshape", turned, integers(net, -1)), to=INT64)
    padded = net.op("Pad", "x", pads, mode="reflect")
    attributes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    scales = net.constant([1.0, 1.0, 2.0, 2.0])
    return net.op("Resize", padded, "", scales, mode="nearest", **attributes)


def matmul_eye(net: Net) -> str:
    return net.op("MatMul", "x", net.constant(np.eye(8)))


def window(net: Net) -> str:
    return net.op("Add", "x", net.constant(np.blackman(8)))


def triangle(net: Net, upper: int) -> str:
    return net.op("Trilu", "x", upper=upper)


def stacked(net: Net) -> str:
    return net.op("Concat", "x", "x", axis=5)


def sliced_by_attribute(net: Net) -> str:
    return net.op("Slice", "x", *(integers(net, v) for v in (0, 2, 2)))


# Integers and truth values


def less(net: Net) -> str:
    return net.op("Less", "a", "b")


def truth(net: Net) -> str:
    both = net.op("And", "a", "b")
    either = net.op("Xor", both, "c")
    return net.op("And", net.op("Or", either, "a"), net.op("Not", "c"))


def chosen(net: Net) -> str:
    small = net.op("Less", net.op("Cast", "x", to=FLOAT), net.constant(3.0))
    return net.op("Where", small, "x", net.constant(np.full(8, 7), np.int64))


def top_two(net: Net) -> tuple[str, ...]:
    return tuple(net.op_many("TopK", "x", integers(net, 2), outputs=2, axis=1))


def largest_class(net: Net) -> str:
    return net.op("ArgMax", net.op("Reshape", "x", integers(net, 1, 8)), axis=-1, keepdims=0)


def elements_taken(net: Net) -> str:
    return net.op("GatherElements", "x", "at", axis=1)


def whole_quotient(net: Net) -> str:
    return net.op("Div", "x", net.constant(3, np.int64))


# Networks


def mlp(net: Net, widths: Sequence[int], slope: str = "Relu") -> str:
    x = "x"
    for index, (inputs, outputs) in enumerate(pairwise(widths)):
        x = net.dense(x, inputs, outputs)
        if index < len(widths) - 2:
            slopes = [net.constant([0.25])] if slope == "PRelu" else []
            x = net.op(slope, x, *slopes)
    return x


def from_nothing(net: Net) -> str:
    """A perceptron whose weights are expanded from constants of a shape."""
    filled = net.op(
        "ConstantOfShape",
        integers(net, 8, 1),
        value=numpy_helper.from_array(np.array([0.125], dtype=np.float32)),
    )
    wide = net.op("Expand", filled, integers(net, 8, 4))
    tiled = net.op("Tile", wide, integers(net, 1, 2))
    x = net.op("Relu", net.op("Gemm", "x", tiled))
    return net.dense(x, 8, 3)


def small_cnn(net: Net, size: int, dense: Sequence[int]) -> str:
    x = net.op("Relu", net.conv("x", 1, 4, 5, pads=[0] * 4, strides=[2, 2]))
    x = net.op("Relu", net.conv(x, 4, 4, 5, pads=[0] * 4, strides=[2, 2]))
    for _ in range(2):
        size = (size - 5) // 2 + 1
    x = net.op("Flatten", x, axis=1)
    widths = [4 * size * size, *dense]
    for index, (inputs, outputs) in enumerate(pairwise(widths)):
        x = net.dense(x, inputs, outputs)
        if index < len(dense) - 1:
            x = net.op("Relu", x)
    return x


def lenet_of_squares(net: Net) -> str:
    """Between its layers x + x^2."""
    x = "x"
    for inputs, outputs in ((1, 3), (3, 4)):
        x = net.conv(x, inputs, outputs, 5, pads=[0] * 4)
        x = net.op("Add", x, net.op("Mul", x, net.op("Mul", x, net.constant(0.25))))
        x = net.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    return net.dense(net.op("Flatten", x), 4 * 25, 10)


def rearranged_cnn(net: Net) -> str:
    x = net.op("Relu", net.conv("x", 1, 4, 5, pads=[0] * 4, strides=[2, 2]))
    return net.dense(net.op("Reshape", x, integers(net, -1, 4 * 36)), 144, 10)


def many_operators(net: Net) -> str:
    x = net.op("Relu", net.conv("x", 3, 3, 1))
    y = net.op("Sigmoid", net.op("Add", x, net.conv("x", 3, 3, 1)))
    z = net.op("Pow", net.op("Sub", y, net.constant(0.5)), net.constant(2.0))
    return net.op("Relu", net.op("Add", net.op("MatMul", z, x), y))


def tutorial(net: Net) -> tuple[str, ...]:
    squared = net.op("Pow", net.op("Add", "x", "y"), net.constant(2.0))
    product = net.op("Add", net.op("MatMul", squared, "z"), net.constant(3.0))
    positive = net.op("Relu", net.op("Sub", "x", "z"))
    folded = net.op("Sigmoid", net.conv(positive, 3, 3, 2, pads=[0, 0, 1, 1]))
    return net.op("Div", product, net.constant(2.0)), folded


def two_inputs(net: Net) -> str:
    x = net.op("Relu", net.conv("image", 1, 2, 3, pads=[0] * 4, strides=[2, 2]))
    joined = net.op("Concat", net.op("Flatten", x), "age", axis=1)
    return net.op("Sigmoid", net.dense(joined, 2 * 9 + 1, 2))


def many_heads(net: Net) -> tuple[str, ...]:
    x = net.op("Relu", net.norm(net.conv("x", 3, 4, 3, strides=[2, 2]), 4))
    x = net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    shape = net.op("Shape", x)
    count = net.op("Gather", shape, net.constant(0, np.int64))
    count = net.op("Unsqueeze", count, integers(net, 0))
    flat = net.op("Reshape", x, net.op("Concat", count, integers(net, -1), axis=0))
    heads = [net.dense(flat, 16, 3) for _ in range(2)]
    return heads[0], net.op("Tanh", heads[1])


def unet(net: Net, mode: str) -> str:
    """Down and up once: the enlarged image beside the one of its size."""
    top = net.op("Relu", net.conv("x", 1, 3, 3))
    low = net.op("MaxPool", top, kernel_shape=[2, 2], strides=[2, 2])
    low = net.op("Relu", net.conv(low, 3, 4, 3))
    scales = net.constant([1.0, 1.0, 2.0, 2.0])
    up = net.op("Resize", low, "", scales, mode=mode)
    joined = net.op("Concat", top, net.conv(up, 4, 3, 1), axis=1)
    return net.conv(net.op("Relu", net.conv(joined, 6, 3, 3)), 3, 2, 1)


def trend_and_season(net: Net) -> str:
    """A forecast from a moving average and from what is left of it."""
    first = net.op("Slice", "x", *(integers(net, v) for v in (0, 1, 1)))
    padded = net.op("Concat", net.op("Tile", first, integers(net, 1, 2, 1)), "x", axis=1)
    turned = net.op("Transpose", padded, perm=[0, 2, 1])
    trend = net.op("AveragePool", turned, kernel_shape=[3], strides=[1])
    season = net.op("Sub", net.op("Transpose", "x", perm=[0, 2, 1]), trend)
    parts = [net.op("MatMul", part, net.weight(12, 4, inputs=12)) for part in (trend, season)]
    return net.op("Transpose", net.op("Add", *parts), perm=[0, 2, 1])


def split_norm(net: Net, x: str, width: int) -> str:
    """LayerNorm in the ten operators that old exporters wrote."""
    off = net.op("Sub", x, net.op("ReduceMean", x, axes=[-1], keepdims=1))
    spread = net.op("ReduceMean", net.op("Pow", off, net.constant(2.0)), axes=[-1], keepdims=1)
    root = net.op("Sqrt", net.op("Add", spread, net.constant(1e-5)))
    scaled = net.op("Mul", net.op("Div", off, root), net.constant(np.linspace(0.5, 1.5, width)))
    return net.op("Add", scaled, net.constant(np.linspace(-0.1, 0.1, width)))


def heads_of(net: Net, x: str, steps: int, heads: int, width: int) -> list[str]:
    """Queries, keys and values of every head: [1, heads, steps, width]."""
    made = []
    for _ in range(3):
        y = net.op("MatMul", x, net.weight(heads * width, heads * width, inputs=heads * width))
        y = net.op("Reshape", y, integers(net, -1, steps, heads, width))
        made.append(net.op("Transpose", y, perm=[0, 2, 1, 3]))
    return made


def self_attention(net: Net, x: str = "x", *, mask: float | None = None, norm: bool = True) -> str:
    steps, heads, width = 4, 2, 4
    y = split_norm(net, x, heads * width) if norm else x
    q, k, v = heads_of(net, y, steps, heads, width)
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]))
    scores = net.op("Mul", scores, net.constant(width**-0.5))
    if mask is not None:
        lower = net.constant(np.tril(np.ones((1, 1, steps, steps))))
        hidden = net.op("Equal", lower, net.constant(0.0))
        scores = net.op("Where", hidden, net.constant(mask), scores)
    mixed = net.op("MatMul", net.op("Softmax", scores, axis=3), v)
    flat = net.op("Transpose", mixed, perm=[0, 2, 1, 3])
    flat = net.op("Reshape", flat, integers(net, -1, steps, heads * width))
    return net.op("Add", x, net.op("MatMul", flat, net.weight(8, 8, inputs=8)))


def feed_forward(net: Net, x: str) -> str:
    y = net.op("MatMul", split_norm(net, x, 8), net.weight(8, 16, inputs=8))
    y = gelu_by_tanh(net, y)
    return net.op("Add", x, net.op("MatMul", y, net.weight(16, 8, inputs=16)))


def transformer_block(net: Net) -> str:
    return feed_forward(net, self_attention(net, mask=-1e9))


def language_model(net: Net) -> str:
    """Tokens to the next one's logits."""
    x = net.op("Gather", net.constant(np.linspace(-1, 1, 16 * 8).reshape(16, 8)), "tokens")
    x = net.op("Add", x, net.weight(1, 4, 8, inputs=8))
    x = feed_forward(net, self_attention(net, x, mask=float("-inf")))
    return net.op("MatMul", split_norm(net, x, 8), net.weight(8, 16, inputs=8))


def recurrent(net: Net, op_type: str, *, bidirectional: bool = False) -> str:
    """Steps of 3 numbers, the initial state as exporters expand it from the batch's size."""
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[op_type]
    directions = 2 if bidirectional else 1
    steps = net.op("Unsqueeze", "x", axes=[1])
    shape = net.op("Shape", steps)
    count = net.op("Unsqueeze", net.op("Gather", shape, net.constant(1, np.int64)), axes=[0])
    sizes = net.op("Concat", integers(net, directions), count, integers(net, 3), axis=0)
    state = net.op("ConstantOfShape", sizes)
    reads = [
        steps,
        net.weight(directions, gates * 3, 3, inputs=3),
        net.weight(directions, gates * 3, 3, inputs=3),
        net.weight(directions, gates * 6, inputs=3),
        "",
        state,
        *([state] if op_type == "LSTM" else []),
    ]
    attributes = {"direction": "bidirectional"} if bidirectional else {}
    if op_type == "GRU":
        attributes["linear_before_reset"] = 1
    y, *_ = net.op_many(op_type, *reads, outputs=2, hidden_size=3, **attributes)
    return net.op("Squeeze", y, axes=[1]) if not bidirectional else y


def forecast(net: Net) -> str:
    """Two LSTMs in a row, and a dense layer of the last state."""
    x = net.op("Reshape", "x", integers(net, 4, 1, 1))
    for inputs in (1, 3):
        weights = [net.weight(1, 12, n, inputs=3) for n in (inputs, 3)]
        (y,) = net.op_many(
            "LSTM", x, *weights, net.weight(1, 24, inputs=9), outputs=1, hidden_size=3
        )
        x = net.op("Squeeze", y, integers(net, 1))
    last = net.op("Slice", x, integers(net, -1), integers(net, 9), integers(net, 0))
    return net.dense(net.op("Reshape", last, integers(net, 1, 3)), 3, 1)


def generator(net: Net) -> str:
    x = net.op("Elu", net.dense("x", 6, 4 * 4 * 2))
    x = net.op("Transpose", net.op("Reshape", x, integers(net, -1, 4, 4, 2)), perm=[0, 3, 1, 2])
    weight = net.weight(2, 2, 3, 3, inputs=18)
    attributes = {"strides": [2, 2], "pads": [0, 0, 1, 1]}
    x = net.op("Elu", net.norm(net.op("ConvTranspose", x, weight, **attributes), 2))
    return net.op("Sigmoid", net.conv(x, 2, 1, 3))


# Linear models and trees


def linear_in_double(net: Net) -> str:
    x = net.op("Cast", "x", to=FLOAT)
    return net.dense(x, 4, 1)


def support_vectors(net: Net) -> str:
    score = net.op("MatMul", "x", net.constant(np.linspace(-1, 1, 16).reshape(16, 1), np.float64))
    score = net.op("Add", score, net.constant([0.1], np.float64))
    positive = net.op(
        "Greater", net.op("Reshape", score, integers(net, -1)), net.constant(0.0, np.float64)
    )
    return net.op("Gather", integers(net, 3, 5), net.op("Cast", positive, to=INT64))


TREE_FEATURES: Final = np.array([1, 3, 0])
TREE_THRESHOLDS: Final = np.array([0.1, -0.2, 0.3])


def tree_by_products(net: Net, x: str = "x", seed: int = 0) -> str:
    """A tree of depth two as matrices: which tests a leaf needs, and how many."""
    taken = net.op("Gather", x, net.constant(TREE_FEATURES, np.int64), axis=1)
    below = net.op("Less", taken, net.constant(TREE_THRESHOLDS + seed / 16))
    paths = net.constant([[1, 1, -1, -1], [1, -1, 0, 0], [0, 0, 1, -1]])
    needed = net.constant([2, 1, 1, 0])
    met = net.op("MatMul", net.op("Cast", below, to=FLOAT), paths)
    leaf = net.op("ArgMax", net.op("Cast", net.op("Equal", met, needed), to=FLOAT), axis=1)
    values = np.random.default_rng(seed).uniform(-1, 1, 4)
    return net.op("Gather", net.constant(values), leaf)


def boosted_trees(net: Net) -> str:
    trees = [tree_by_products(net, seed=seed) for seed in range(3)]
    return net.op("Add", net.op("Add", trees[0], trees[1]), trees[2])


def voting_trees(net: Net) -> str:
    trees = [tree_by_products(net, seed=seed) for seed in range(4)]
    total = trees[0]
    for tree in trees[1:]:
        total = net.op("Add", total, tree)
    return net.op("Div", total, net.constant(4.0))


def tree_by_steps(net: Net, count: int = 2) -> str:
    """Trees that are walked down: at every step the next node's number is computed."""
    draw = np.random.default_rng(1)
    at = None
    for depth in range(2):
        nodes = count << depth
        features = draw.integers(0, 4, nodes)
        thresholds = draw.uniform(-0.5, 0.5, nodes)
        if at is None:
            feature, threshold = integers(net, *features), net.constant(thresholds)
            value = net.op("Gather", "x", feature, axis=1)
            base = integers(net, *(np.arange(count) * 2))
            doubled = base
        else:
            flat = net.op("Reshape", at, integers(net, -1))
            feature = net.op("Gather", integers(net, *features), flat)
            feature = net.op("Reshape", feature, integers(net, -1, count))
            value = net.op("GatherElements", "x", feature, axis=1)
            found = net.op("Gather", net.constant(thresholds), flat)
            threshold = net.op("Reshape", found, integers(net, -1, count))
            doubled = net.op("Mul", at, integers(net, 2))
        right = net.op("Cast", net.op("Not", net.op("Less", value, threshold)), to=INT64)
        at = net.op("Add", doubled, right)
    flat = net.op("Reshape", at, integers(net, -1))
    leaves = net.op("Gather", net.constant(draw.uniform(-1, 1, (count * 4, 3))), flat)
    leaves = net.op("Reshape", leaves, integers(net, -1, count, 3))
    return net.op("ReduceSum", leaves, integers(net, 1), keepdims=0)


def classified_trees(net: Net) -> tuple[str, ...]:
    sums = tree_by_steps(net)
    return net.op("ArgMax", sums, axis=1, keepdims=0), net.op("Softmax", sums, axis=1)


def one_hot_tree(net: Net) -> str:
    """Features are picked by a product with a one-hot row."""
    at = net.op("ArgMax", net.op("Slice", "x", *(integers(net, v) for v in (0, 2, 1))), axis=1)
    flat = net.op("Reshape", at, integers(net, -1))
    depth, values = net.constant(4, np.int64), net.constant([0.0, 1.0])
    picked = net.op("Mul", net.op("OneHot", flat, depth, values), "x")
    value = net.op("ReduceSum", picked, integers(net, 1), keepdims=0)
    return net.op("Cast", net.op("Greater", value, net.constant(0.2)), to=FLOAT)


def covariances(net: Net) -> str:
    """Variances and correlations of the columns of a table."""
    off = net.op("Sub", "x", net.op("ReduceMean", "x", axes=[0], keepdims=1))
    product = net.op("MatMul", net.op("Transpose", off), off)
    spread = net.op("Div", product, net.constant(5.0))
    diagonal = net.op("GatherND", spread, net.constant([[i, i] for i in range(3)], np.int64))
    deviation = net.op("Sqrt", diagonal)
    column = net.op("Unsqueeze", deviation, integers(net, 1))
    return net.op("Div", net.op("Div", spread, column), deviation)


_IMAGE = [BATCH, 3, 2, 2]
_TRUTHS = {name: ([BATCH, 3], BOOL) for name in ("a", "b", "c")}

EXAMPLES: Final[dict[str, Example]] = {
    # functions of one number
    "relu": layer("Relu", 3),
    "leaky_relu": layer("LeakyRelu", 3, alpha=0.1),
    "prelu": with_constant("PRelu", [[[0.25]], [[0.5]], [[0.1]]], 3, 2, 2),
    "elu": layer("Elu", 3, 2, 3, alpha=1.0),
    "celu": layer("Celu", 8, alpha=0.5),
    "selu": layer("Selu", 8),
    "sigmoid": layer("Sigmoid", 3),
    "tanh": layer("Tanh", 3),
    "erf": layer("Erf", 3),
    "exp": layer("Exp", 8),
    "log": between("Log", 0.25, 4.0),
    "sqrt": between("Sqrt", 0.01, 4.0),
    "softplus": layer("Softplus", 8),
    "softsign": layer("Softsign", 8),
    "hard_sigmoid": layer("HardSigmoid", 8),
    "hard_swish": layer("HardSwish", 8),
    "mish": one([BATCH, 8], mish),
    "gelu": one([BATCH, 3], gelu),
    "gelu_by_tanh": one([BATCH, 3], gelu_by_tanh),
    "abs": layer("Abs", 3),
    "neg": layer("Neg", 3),
    "sign": layer("Sign", 3),
    "reciprocal": between("Reciprocal", 0.5, 2.0),
    "reciprocal_root": one(
        [BATCH, 8], lambda net: net.op("Reciprocal", net.op("Sqrt", "x")), low=0.5, high=2.0
    ),
    "sin": layer("Sin", 6),
    "cos": layer("Cos", 6),
    "asin": between("Asin", -0.9, 0.9),
    "acos": between("Acos", -0.9, 0.9),
    "atan": layer("Atan", 6),
    "sinh": layer("Sinh", 6),
    "cosh": layer("Cosh", 6),
    "asinh": layer("Asinh", 6),
    "acosh": between("Acosh", 1.1, 2.0),
    "atanh": between("Atanh", -0.8, 0.8),
    "round": layer("Round", 3, 2, 3),
    "floor": layer("Floor", 3, 2, 3),
    "ceil": layer("Ceil", 3, 2, 3),
    "clip_by_attribute": one(
        [BATCH, 2, 2, 8], lambda net: net.op("Clip", "x", min=-0.5, max=0.5), opset=10
    ),
    "square": with_constant("Pow", 2.0, 4),
    "root_by_power": with_constant("Pow", 0.5, 4, low=0.1, high=2.0),
    "power_of_two": reversed_constant("Pow", 2.0),
    "divided": with_constant("Div", 10.0, 1),
    "divided_by_little": with_constant("Div", 0.01, 8, low=-0.2, high=0.2),
    "product_and_quotient": one(
        [BATCH, 1],
        lambda net: net.op("Div", net.op("Mul", "x", "x"), net.constant(3.0)),
    ),
    "remainder": one([BATCH, 8], remainder),
    "quotient_of_inputs": Example(
        body=lambda net: net.op("Div", "a", "b"),
        inputs={"a": ([BATCH, 4], FLOAT), "b": ([BATCH, 4], FLOAT)},
        low=0.5,
        high=2.0,
    ),
    # sums, largest values, softmax
    "mean": one([BATCH, 1, 300], lambda net: net.op("ReduceMean", "x", axes=[2]), opset=11),
    "variance": one([BATCH, 1, 3, 3], variance, opset=10),
    "largest": one([BATCH, 3, 2, 2], lambda net: net.op("ReduceMax", "x", axes=[1]), opset=10),
    "smallest": one([BATCH, 3, 2, 2], lambda net: net.op("ReduceMin", "x", axes=[1]), opset=10),
    "l1": one([BATCH, 2, 2, 8], lambda net: net.op("ReduceL1", "x", axes=[3], keepdims=0)),
    "l2": one([BATCH, 2, 2, 8], lambda net: net.op("ReduceL2", "x", axes=[3], keepdims=0)),
    "log_sum_exp": one([BATCH, 2, 2, 8], lambda net: net.op("ReduceLogSumExp", "x", axes=[3])),
    "softmax": one([BATCH, 3], lambda net: net.op("Softmax", "x", axis=1), opset=10),
    "log_softmax": layer("LogSoftmax", 8, axis=-1),
    "largest_class": one([BATCH, 8], largest_class),
    # shapes and places
    "identity": layer("Identity", 2),
    "concat": one([BATCH, 3, 2, 3, 2, 2], stacked, opset=10),
    "flatten": layer("Flatten", 3, 2, 3, axis=1),
    "reshape": one(
        [BATCH, 1, 3, 2], lambda net: net.op("Reshape", "x", integers(net, -1, 3)), opset=10
    ),
    "pad": one(_IMAGE, lambda net: net.op("Pad", "x", pads=[0, 0, 1, 1, 0, 0, 1, 1]), opset=10),
    "slice": one([BATCH, 3, 2], sliced_by_attribute, opset=10),
    "transpose": layer("Transpose", 2, 3, 4, perm=[0, 3, 1, 2]),
    "upsample": one([BATCH, 3, 5, 5], upsampled, opset=11),
    "padded_as_computed": one([1, 2, 4, 4], padded_as_computed),
    "resize_linear": one([1, 2, 4, 4], resized_linear),
    "lower_triangle": one([BATCH, 3, 3], partial(triangle, upper=0)),
    "upper_triangle": one([BATCH, 3, 3], partial(triangle, upper=1)),
    "eye": one([BATCH, 8], matmul_eye),
    "window": one([BATCH, 8], window),
    "depth_to_space": layer("DepthToSpace", 4, 2, 2, blocksize=2, mode="CRD"),
    # integers and truth values
    "less": Example(body=less, inputs={n: ([BATCH, 4], FLOAT) for n in ("a", "b")}, opset=15),
    "truth": Example(body=truth, inputs=_TRUTHS, opset=16),
    "truth_identity": Example(
        body=lambda net: net.op("Identity", "a"), inputs={"a": ([BATCH, 3], BOOL)}
    ),
    "where": Example(body=chosen, inputs={"x": ([BATCH, 8], INT64)}, low=0, high=6),
    "top_two": one([BATCH, 6], top_two, opset=14),
    "gather_elements": Example(
        body=elements_taken,
        inputs={"x": ([BATCH, 5, 3], FLOAT), "at": ([BATCH, 2, 3], INT64)},
        low=0,
        high=4,
    ),
    "whole_quotient": Example(
        body=whole_quotient, inputs={"x": ([BATCH, 2, 8], INT64)}, low=0, high=20
    ),
    # layers
    "linear": one([BATCH, 1], lambda net: net.dense("x", 1, 1), opset=10),
    "conv": one([BATCH, 3, 4, 4], partial(conv, strides=[1, 1]), opset=10),
    "downsample": one([BATCH, 3, 6, 6], partial(conv, strides=[2, 2], pads=[0] * 4), opset=10),
    "conv_transposed": one([BATCH, 3, 4, 4], conv_transposed, opset=10),
    "batch_norm": one(_IMAGE, lambda net: net.norm("x", 3), opset=10),
    "instance_norm": one([BATCH, 1, 2, 2], instance_norm, opset=10),
    "layer_norm": one([BATCH, 10, 10], layer_norm),
    "max_pool": layer("MaxPool", 3, 2, 2, kernel_shape=[2, 2], strides=[1, 1]),
    "average_pool": one(_IMAGE, average_with_padding, opset=10),
    "power_average": one(_IMAGE, power_average),
    # small networks
    "mlp_one": one([BATCH, 3], lambda net: net.op("Relu", net.dense("x", 3, 4)), opset=10),
    "mlp_four": one([BATCH, 41], partial(mlp, widths=[41, 16, 16, 2]), opset=14),
    "mlp_prelu": one([BATCH, 41], partial(mlp, widths=[41, 16, 16, 2], slope="PRelu"), opset=14),
    "mlp_deep": one([BATCH, 10], partial(mlp, widths=[10, 12, 12, 12, 12, 12, 4])),
    "weights_from_shapes": one([BATCH, 8], from_nothing, opset=12),
    "relu_twice": one([BATCH, 3], lambda net: net.op("Relu", net.op("Relu", "x")), opset=10),
    "relu_sigmoid": one(
        [BATCH, 3, 4, 4], lambda net: net.op("Sigmoid", net.op("Relu", "x")), opset=10
    ),
    "sigmoid_twice": one([BATCH, 1], lambda net: net.op("Sigmoid", net.op("Sigmoid", "x"))),
    "relu_sigmoid_conv": one(
        [BATCH, 3, 6, 6],
        lambda net: net.op("Sigmoid", net.conv(net.op("Relu", conv(net)), 4, 2, 3)),
        opset=10,
    ),
    "cnn_one_dense": one([BATCH, 1, 28, 28], partial(small_cnn, size=28, dense=[10]), opset=10),
    "cnn_two_dense": one([BATCH, 1, 20, 20], partial(small_cnn, size=20, dense=[8, 4]), opset=10),
    "lenet_of_squares": one([BATCH, 1, 32, 32], lenet_of_squares, opset=10),
    "cnn_reshaped": one([BATCH, 1, 16, 16], rearranged_cnn, opset=10),
    "many_operators": one([BATCH, 3, 3, 3], many_operators, opset=10),
    "tutorial": Example(
        body=tutorial,
        inputs={"x": (_IMAGE, FLOAT)} | {n: ([1, 3, 2, 2], FLOAT) for n in ("y", "z")},
        opset=10,
    ),
    "two_inputs": Example(
        body=two_inputs,
        inputs={"age": ([BATCH, 1], FLOAT), "image": ([BATCH, 1, 8, 8], FLOAT)},
        opset=10,
    ),
    "many_heads": one([1, 3, 8, 8], many_heads, opset=13),
    "unet_nearest": one([BATCH, 1, 8, 8], partial(unet, mode="nearest"), opset=13),
    "unet_linear": one([BATCH, 1, 8, 8], partial(unet, mode="linear"), opset=13),
    "trend_and_season": one([BATCH, 12, 1], trend_and_season, opset=11),
    "generator": one([1, 6], generator, opset=12),
    # attention
    "self_attention": one([BATCH, 4, 8], partial(self_attention, norm=False), opset=13),
    "attention_block": one([BATCH, 4, 8], self_attention, opset=13),
    "transformer_block": one([BATCH, 4, 8], transformer_block, opset=13),
    "language_model": Example(
        body=language_model, inputs={"tokens": ([BATCH, 4], INT64)}, opset=13, low=0, high=15
    ),
    # recurrent
    "rnn": one([BATCH, 3], partial(recurrent, op_type="RNN"), opset=11),
    "gru": one([BATCH, 3], partial(recurrent, op_type="GRU"), opset=10),
    "lstm": one([BATCH, 3], partial(recurrent, op_type="LSTM"), opset=10),
    "lstm_bidirectional": one(
        [BATCH, 3], partial(recurrent, op_type="LSTM", bidirectional=True), opset=10
    ),
    "lstm_forecast": one([1, 4, 1], forecast, opset=15),
    # linear models and trees
    "linear_in_double": Example(
        body=linear_in_double, inputs={"x": ([BATCH, 4], DOUBLE)}, opset=10
    ),
    "support_vectors": Example(body=support_vectors, inputs={"x": ([BATCH, 16], DOUBLE)}, opset=10),
    "decision_tree": one([BATCH, 4], tree_by_products, opset=11),
    "boosted_trees": one([BATCH, 4], boosted_trees, opset=11),
    "voting_trees": one([BATCH, 4], voting_trees, opset=11),
    "walked_trees": one([BATCH, 4], tree_by_steps, opset=13),
    "classified_trees": one([BATCH, 4], classified_trees, opset=13),
    "one_hot_tree": one([BATCH, 4], one_hot_tree, opset=13),
    "covariances": one([6, 3], covariances, opset=13),
}
