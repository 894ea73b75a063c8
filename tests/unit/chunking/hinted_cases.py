"""Small models of hinted operators, shared by whoever tries circuits of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from tests.unit.chunking.builders import integers, weight
from tests.unit.chunking.builders import model as build
from tests.unit.chunking.builders import run as run_float
from tests.unit.chunking.hinted_circuit import NUMBERS, checked, hinted_chunk
from zkml_ray.chunking.hinted.numbers import Arithmetic

ONE_DIGIT = Arithmetic(scale=6, logrows=11, range_bits=4)
"""Enough rows for a value to be one digit."""

FINE = Arithmetic(scale=10, logrows=13, range_bits=5)

ALL_NUMBERS = {"two digits": NUMBERS, "one digit": ONE_DIGIT, "fine": FINE}

IMAGE = (1, 3, 6, 5)


def node(op_type: str, *inputs: str, to: str = "y", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs, [to], f"n_{to}", **attributes)


def number(name: str, value: float) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, dtype=np.float32), name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model from x to y.

    Attributes:
        nodes: Its nodes.
        x: Shape of x.
        y: Shape of y.
        constants: Its weights.
        roundings: Between x and y.
        summands: Of the largest sum, for the error that rounded weights make.
    """

    nodes: Sequence[onnx.NodeProto]
    x: Sequence[int]
    y: Sequence[int]
    constants: Sequence[onnx.TensorProto] = field(default=())
    roundings: int = 1
    summands: int = 1

    def proto(self) -> onnx.ModelProto:
        return build(list(self.nodes), {"x": self.x}, {"y": self.y}, list(self.constants))


def conv(
    outputs: int, *kernel: int, to: str = "y", x: str = "x", bias: bool = True, **attributes: object
) -> onnx.NodeProto:
    names = [x, f"w{to}", *([f"b{to}"] if bias else [])]
    given = {"strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [1, 1], "group": 1, **attributes}
    return node("Conv", *names, to=to, kernel_shape=list(kernel), **given)


def wide_conv(
    outputs: list[int], kernel: list[int], to: str = "y", x: str = "x", **attributes: object
) -> onnx.NodeProto:
    return node("Conv", x, f"w{to}", f"b{to}", to=to, kernel_shape=kernel, **attributes)


def taps(outputs: int, inputs: int, *kernel: int, to: str = "y") -> list[onnx.TensorProto]:
    scaled = numpy_helper.to_array(weight(f"w{to}", outputs, inputs, *kernel)) / 3
    return [numpy_helper.from_array(scaled, f"w{to}"), weight(f"b{to}", outputs)]


def dense(rows: int, columns: int, to: str = "w") -> onnx.TensorProto:
    values = numpy_helper.to_array(weight(to, rows, columns)) / np.sqrt(rows)
    return numpy_helper.from_array(values.astype(np.float32), to)


def pool(op_type: str, x: str, *kernel: int, to: str = "y", **attributes: object) -> onnx.NodeProto:
    given = {"strides": list(kernel), "pads": [0, 0, 0, 0], **attributes}
    return node(op_type, x, to=to, kernel_shape=list(kernel), **given)


CASES = {
    "conv": Case(
        nodes=[conv(4, 3, 3)], x=IMAGE, y=[1, 4, 4, 3], constants=taps(4, 3, 3, 3), summands=28
    ),
    "conv without a bias": Case(
        nodes=[conv(2, 2, 3, bias=False)],
        x=IMAGE,
        y=[1, 2, 5, 3],
        constants=taps(2, 3, 2, 3)[:1],
        summands=18,
    ),
    "conv, padded unevenly": Case(
        nodes=[conv(2, 3, 3, pads=[1, 0, 2, 1])],
        x=IMAGE,
        y=[1, 2, 7, 4],
        constants=taps(2, 3, 3, 3),
        summands=28,
    ),
    "conv, strided": Case(
        nodes=[conv(5, 3, 2, strides=[2, 3], pads=[1, 1, 1, 1])],
        x=IMAGE,
        y=[1, 5, 3, 2],
        constants=taps(5, 3, 3, 2),
        summands=19,
    ),
    "conv, dilated": Case(
        nodes=[conv(2, 2, 2, dilations=[3, 2], pads=[0, 1, 0, 1])],
        x=IMAGE,
        y=[1, 2, 3, 5],
        constants=taps(2, 3, 2, 2),
        summands=13,
    ),
    "conv of one pixel": Case(
        nodes=[conv(7, 6, 5)], x=IMAGE, y=[1, 7, 1, 1], constants=taps(7, 3, 6, 5), summands=91
    ),
    "conv, depthwise": Case(
        nodes=[conv(3, 3, 3, group=3, pads=[1, 1, 1, 1])],
        x=IMAGE,
        y=[1, 3, 6, 5],
        constants=taps(3, 1, 3, 3),
        summands=10,
    ),
    "conv, depthwise, two outputs a channel": Case(
        nodes=[conv(6, 2, 2, group=3, strides=[2, 1])],
        x=IMAGE,
        y=[1, 6, 3, 4],
        constants=taps(6, 1, 2, 2),
        summands=5,
    ),
    "conv, relu": Case(
        nodes=[conv(4, 3, 3, to="c"), node("Relu", "c")],
        x=IMAGE,
        y=[1, 4, 4, 3],
        constants=taps(4, 3, 3, 3, to="c"),
        summands=28,
    ),
    "conv, relu, max pool": Case(
        nodes=[conv(4, 3, 2, to="c"), node("Relu", "c", to="r"), pool("MaxPool", "r", 2, 2)],
        x=IMAGE,
        y=[1, 4, 2, 2],
        constants=taps(4, 3, 3, 2, to="c"),
        summands=19,
    ),
    "conv, max pool, relu": Case(
        nodes=[conv(4, 3, 2, to="c"), pool("MaxPool", "c", 2, 2, to="m"), node("Relu", "m")],
        x=IMAGE,
        y=[1, 4, 2, 2],
        constants=taps(4, 3, 3, 2, to="c"),
        summands=19,
    ),
    "conv, max pool": Case(
        nodes=[conv(3, 1, 1, to="c"), pool("MaxPool", "c", 3, 2)],
        x=IMAGE,
        y=[1, 3, 2, 2],
        constants=taps(3, 3, 1, 1, to="c"),
        summands=4,
    ),
    "conv, max pool that leaves a row and a column out": Case(
        nodes=[conv(2, 2, 2, to="c"), pool("MaxPool", "c", 3, 3, strides=[3, 3])],
        x=IMAGE,
        y=[1, 2, 1, 1],
        constants=taps(2, 3, 2, 2, to="c"),
        summands=13,
    ),
    "max pool alone": Case(nodes=[pool("MaxPool", "x", 2, 2)], x=IMAGE, y=[1, 3, 3, 2]),
    "max pool of a max pool": Case(
        nodes=[pool("MaxPool", "x", 2, 2, to="m"), pool("MaxPool", "m", 3, 2)],
        x=IMAGE,
        y=[1, 3, 1, 1],
        roundings=2,
    ),
    "relu alone": Case(nodes=[node("Relu", "x")], x=[2, 3], y=[2, 3]),
    "gemm": Case(
        nodes=[node("Gemm", "x", "w", "b")],
        x=[1, 9],
        y=[1, 5],
        constants=[dense(9, 5), weight("b", 5)],
        summands=10,
    ),
    "gemm, rows, relu": Case(
        nodes=[node("Gemm", "x", "w", "b", to="g"), node("Relu", "g")],
        x=[3, 9],
        y=[3, 13],
        constants=[dense(9, 13), weight("b", 13)],
        summands=10,
    ),
    "gemm, transposed, alpha and beta": Case(
        nodes=[node("Gemm", "x", "w", "b", transB=1, alpha=0.5, beta=-2.0)],
        x=[2, 4],
        y=[2, 3],
        constants=[weight("w", 3, 4), weight("b", 2, 3)],
        summands=5,
    ),
    "gemm without a bias": Case(
        nodes=[node("Gemm", "x", "w")], x=[1, 4], y=[1, 6], constants=[dense(4, 6)], summands=4
    ),
    "matmul": Case(
        nodes=[node("MatMul", "x", "w")],
        x=[2, 3, 4],
        y=[2, 3, 5],
        constants=[dense(4, 5)],
        summands=4,
    ),
    "two layers": Case(
        nodes=[
            node("MatMul", "x", "w", to="a"),
            node("Relu", "a", to="r"),
            node("Gemm", "r", "v", "b"),
        ],
        x=[1, 8],
        y=[1, 3],
        constants=[dense(8, 6), dense(6, 3, to="v"), weight("b", 3)],
        roundings=6,
        summands=40,
    ),
    "two activations multiplied": Case(
        nodes=[node("Transpose", "x", to="t", perm=[1, 0]), node("MatMul", "x", "t")],
        x=[3, 4],
        y=[3, 3],
    ),
    "product of two activations, halved, relu": Case(
        nodes=[
            node("MatMul", "x", "w", to="a"),
            node("Transpose", "a", to="t", perm=[1, 0]),
            node("MatMul", "t", "x", to="m"),
            node("Mul", "m", "h", to="s"),
            node("Relu", "s"),
        ],
        x=[3, 4],
        y=[2, 4],
        constants=[dense(4, 2), number("h", 0.5)],
        roundings=6,
        summands=30,
    ),
    "sum of two layers": Case(
        nodes=[
            node("MatMul", "x", "w", to="a"),
            node("MatMul", "x", "v", to="c"),
            node("Sub", "a", "c"),
        ],
        x=[2, 4],
        y=[2, 3],
        constants=[dense(4, 3), dense(4, 3, to="v")],
        summands=8,
    ),
    "sum of a convolution and a tensor": Case(
        nodes=[conv(3, 3, 3, to="c", pads=[1, 1, 1, 1]), node("Add", "x", "c")],
        x=IMAGE,
        y=IMAGE,
        constants=taps(3, 3, 3, 3, to="c"),
        summands=29,
    ),
    "difference of a tensor and a convolution, relu": Case(
        nodes=[
            conv(3, 3, 3, to="c", pads=[1, 1, 1, 1]),
            node("Sub", "x", "c", to="s"),
            node("Relu", "s"),
        ],
        x=IMAGE,
        y=IMAGE,
        constants=taps(3, 3, 3, 3, to="c"),
        summands=29,
    ),
    "sum of a layer and another's relu": Case(
        nodes=[
            node("MatMul", "x", "w", to="a"),
            node("Relu", "a", to="r"),
            node("MatMul", "x", "v", to="c"),
            node("Add", "r", "c"),
        ],
        x=[2, 4],
        y=[2, 3],
        constants=[dense(4, 3), dense(4, 3, to="v")],
        roundings=2,
        summands=8,
    ),
    "sum of a convolution and a product of other order": Case(
        nodes=[
            conv(2, 1, 1, to="c"),
            node("Relu", "x", to="r"),
            node("MatMul", "r", "w", to="m"),
            node("Add", "c", "m"),
        ],
        x=[1, 2, 3, 4],
        y=[1, 2, 3, 4],
        constants=[*taps(2, 2, 1, 1, to="c"), dense(4, 4)],
        roundings=3,
        summands=12,
    ),
    "sum with itself": Case(nodes=[node("Add", "x", "x")], x=[2, 3], y=[2, 3], summands=2),
    "sum with a constant row": Case(
        nodes=[node("Add", "k", "x")], x=[2, 3], y=[2, 3], constants=[weight("k", 3)], summands=2
    ),
    "constant minus a tensor": Case(
        nodes=[node("Sub", "k", "x")], x=[2, 3], y=[2, 3], constants=[weight("k", 2, 3)], summands=2
    ),
    "tensor minus a constant": Case(
        nodes=[node("Sub", "x", "k")], x=[2, 3], y=[2, 3], constants=[weight("k", 3)], summands=2
    ),
    "product with a number": Case(
        nodes=[node("Mul", "k", "x")], x=[2, 3], y=[2, 3], constants=[number("k", -1.7)]
    ),
    "quotient by a number": Case(
        nodes=[node("Div", "x", "k")], x=[2, 3], y=[2, 3], constants=[number("k", 3.0)]
    ),
    "layer, halved, shifted, relu": Case(
        nodes=[
            node("MatMul", "x", "w", to="a"),
            node("Mul", "a", "h", to="m"),
            node("Add", "m", "k", to="s"),
            node("Relu", "s"),
        ],
        x=[2, 4],
        y=[2, 3],
        constants=[dense(4, 3), number("h", 0.5), weight("k", 3)],
        summands=5,
    ),
    "average pool": Case(
        nodes=[pool("AveragePool", "x", 3, 2)], x=IMAGE, y=[1, 3, 2, 2], summands=6
    ),
    "average pool, overlapping": Case(
        nodes=[pool("AveragePool", "x", 3, 3, strides=[1, 2])], x=IMAGE, y=[1, 3, 4, 2], summands=9
    ),
    "average pool, padding counted": Case(
        nodes=[
            pool("AveragePool", "x", 3, 3, strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1)
        ],
        x=IMAGE,
        y=[1, 3, 3, 3],
        summands=9,
    ),
    "global average pool": Case(
        nodes=[node("GlobalAveragePool", "x")], x=IMAGE, y=[1, 3, 1, 1], summands=30
    ),
    "relu, average pool": Case(
        nodes=[node("Relu", "x", to="r"), pool("AveragePool", "r", 2, 2)],
        x=IMAGE,
        y=[1, 3, 3, 2],
        roundings=2,
        summands=5,
    ),
    "reshape, transpose, dense": Case(
        nodes=[
            node("Reshape", "x", "shape", to="a"),
            node("Transpose", "a", to="t", perm=[1, 0]),
            node("MatMul", "t", "w"),
        ],
        x=[2, 3, 4],
        y=[4, 3],
        constants=[integers("shape", 6, 4), dense(6, 3)],
        summands=6,
    ),
    "flatten": Case(
        nodes=[node("Flatten", "x", to="f"), node("Relu", "f")], x=[1, 2, 2, 3], y=[1, 12]
    ),
    "concat of a tensor with itself": Case(
        nodes=[node("Concat", "x", "x", to="c", axis=1), node("MatMul", "c", "w")],
        x=[2, 3],
        y=[2, 4],
        constants=[dense(6, 4)],
        summands=6,
    ),
    "concat of two layers and the input": Case(
        nodes=[
            node("MatMul", "x", "w", to="a"),
            node("Relu", "a", to="r"),
            node("MatMul", "x", "v", to="b"),
            node("Concat", "r", "x", "b", to="c", axis=1),
            node("MatMul", "c", "u"),
        ],
        x=[2, 3],
        y=[2, 2],
        constants=[dense(3, 4), dense(3, 2, to="v"), dense(9, 2, to="u")],
        roundings=8,
        summands=60,
    ),
    "concat by channel": Case(
        nodes=[
            conv(2, 1, 1, to="a"),
            node("Relu", "x", to="r"),
            node("Concat", "a", "r", axis=1),
        ],
        x=[1, 1, 2, 3],
        y=[1, 3, 2, 3],
        constants=taps(2, 1, 1, 1, to="a"),
        roundings=2,
        summands=4,
    ),
    "squeeze and unsqueeze": Case(
        nodes=[
            node("Squeeze", "x", "axes", to="s"),
            node("Relu", "s", to="r"),
            node("Unsqueeze", "r", "axes"),
        ],
        x=[2, 1, 3],
        y=[2, 1, 3],
        constants=[integers("axes", 1)],
    ),
    "transpose behind a convolution": Case(
        nodes=[conv(4, 3, 3, to="c"), node("Transpose", "c", perm=[0, 2, 3, 1])],
        x=IMAGE,
        y=[1, 4, 3, 4],
        constants=taps(4, 3, 3, 3, to="c"),
        summands=28,
    ),
    "conv of one dimension": Case(
        nodes=[wide_conv([3], [2], strides=[2], pads=[1, 0], to="c"), node("Relu", "c")],
        x=[2, 2, 7],
        y=[2, 3, 4],
        constants=taps(3, 2, 2, to="c"),
        summands=5,
    ),
    "conv of three dimensions, dilated": Case(
        nodes=[
            wide_conv(
                [2], [2, 1, 2], strides=[1, 2, 1], pads=[0, 0, 1, 0, 1, 0], dilations=[1, 1, 2]
            )
        ],
        x=[1, 2, 3, 2, 3],
        y=[1, 2, 2, 2, 2],
        constants=taps(2, 2, 2, 1, 2),
        summands=9,
    ),
    "conv of two images, relu, max pool": Case(
        nodes=[conv(3, 2, 2, to="c"), node("Relu", "c", to="r"), pool("MaxPool", "r", 2, 2)],
        x=[2, 1, 5, 5],
        y=[2, 3, 2, 2],
        constants=taps(3, 1, 2, 2, to="c"),
        summands=5,
    ),
    "conv in two groups": Case(
        nodes=[conv(6, 2, 2, group=2)],
        x=[2, 4, 3, 3],
        y=[2, 6, 2, 2],
        constants=taps(6, 2, 2, 2),
        summands=9,
    ),
    "conv in eight groups": Case(
        nodes=[conv(8, 1, 2, group=8, to="g"), conv(8, 1, 1, group=8, x="g")],
        x=[1, 8, 2, 3],
        y=[1, 8, 2, 2],
        constants=[*taps(8, 1, 1, 2, to="g"), *taps(8, 1, 1, 1)],
        roundings=3,
        summands=6,
    ),
    "conv in seven groups of two": Case(
        nodes=[wide_conv([7], [1], group=7)],
        x=[1, 14, 2],
        y=[1, 7, 2],
        constants=taps(7, 2, 1),
        summands=3,
    ),
    "transposed conv": Case(
        nodes=[node("ConvTranspose", "x", "wy", "by", strides=[2, 1], pads=[1, 0, 0, 1], group=2)],
        x=[2, 2, 3, 3],
        y=[2, 4, 6, 3],
        constants=[*taps(2, 2, 3, 2)[:1], weight("by", 4)],
        summands=5,
    ),
    "transposed conv, window of a stride": Case(
        nodes=[node("ConvTranspose", "x", "wy", strides=[2], dilations=[1], output_padding=[1])],
        x=[1, 2, 3],
        y=[1, 3, 7],
        constants=taps(2, 3, 2)[:1],
        summands=3,
    ),
    "max pool of one dimension": Case(
        nodes=[pool("MaxPool", "x", 2, pads=[0, 0])], x=[2, 3, 6], y=[2, 3, 3]
    ),
    "max pool, overlapping": Case(
        nodes=[pool("MaxPool", "x", 3, 3, strides=[1, 1])], x=[1, 2, 5, 4], y=[1, 2, 3, 2]
    ),
    "max pool, padded and overlapping, behind a convolution": Case(
        nodes=[
            conv(2, 1, 1, to="c"),
            pool("MaxPool", "c", 3, 3, strides=[2, 2], pads=[1, 1, 1, 1], to="m"),
            node("Relu", "m"),
        ],
        x=[1, 3, 5, 5],
        y=[1, 2, 3, 3],
        constants=taps(2, 3, 1, 1, to="c"),
        summands=4,
    ),
    "max pool of 16": Case(
        nodes=[pool("MaxPool", "x", 4, 4, strides=[1, 1])], x=[1, 1, 5, 4], y=[1, 1, 2, 1]
    ),
    "max pool over the end": Case(
        nodes=[pool("MaxPool", "x", 2, 2, ceil_mode=1)], x=[1, 2, 3, 5], y=[1, 2, 2, 3]
    ),
    "average pool of three dimensions, two images": Case(
        nodes=[pool("AveragePool", "x", 2, 1, 2, pads=[0] * 6)],
        x=[2, 2, 2, 2, 3],
        y=[2, 2, 1, 2, 1],
        summands=4,
    ),
    "average pool, padding left out": Case(
        nodes=[pool("AveragePool", "x", 2, 2, strides=[1, 1], pads=[1, 1, 0, 0])],
        x=[1, 2, 3, 3],
        y=[1, 2, 3, 3],
        roundings=5,
        summands=9,
    ),
    "global average pool of two images": Case(
        nodes=[node("GlobalAveragePool", "x")], x=[2, 3, 5], y=[2, 3, 1], summands=5
    ),
    "mean over axes": Case(
        nodes=[node("ReduceMean", "x", axes=[-1, 1], keepdims=0)],
        x=[2, 3, 4, 5],
        y=[2, 4],
        summands=15,
    ),
    "mean over all": Case(nodes=[node("ReduceMean", "x")], x=[2, 7, 7], y=[1, 1, 1], summands=98),
    "sum over an axis": Case(
        nodes=[node("ReduceSum", "x", "axes", keepdims=1)],
        x=[2, 3, 4],
        y=[2, 1, 4],
        constants=[integers("axes", 1)],
        summands=3,
    ),
    "maximum over axes": Case(
        nodes=[node("ReduceMax", "x", axes=[0, 2], keepdims=0)], x=[2, 3, 4], y=[3]
    ),
    "maximum over twenty": Case(
        nodes=[node("ReduceMax", "x", axes=[1], keepdims=0, to="m"), node("Relu", "m")],
        x=[2, 20],
        y=[2],
        roundings=2,
    ),
    "product with a row": Case(
        nodes=[node("Mul", "x", "k")], x=[2, 3], y=[2, 3], constants=[weight("k", 3)], summands=2
    ),
    "product of a layer with a row": Case(
        nodes=[node("MatMul", "x", "w", to="m"), node("Mul", "k", "m")],
        x=[2, 4],
        y=[2, 3],
        constants=[dense(4, 3), weight("k", 3)],
        summands=10,
    ),
    "product of a convolution with a channel's constants": Case(
        nodes=[
            conv(2, 2, 2, to="c"),
            node("Mul", "c", "k"),
        ],
        x=[1, 1, 3, 4],
        y=[1, 2, 2, 3],
        constants=[*taps(2, 1, 2, 2, to="c"), weight("k", 2, 1, 1)],
        summands=10,
    ),
    "product of a layer with a column": Case(
        nodes=[node("MatMul", "x", "w", to="m"), node("Mul", "m", "k")],
        x=[2, 4],
        y=[2, 3],
        constants=[dense(4, 3), weight("k", 2, 1)],
        roundings=4,
        summands=10,
    ),
    "product with a matrix, repeated": Case(
        nodes=[node("Mul", "x", "k")],
        x=[2, 1, 3],
        y=[2, 2, 3],
        constants=[weight("k", 2, 3)],
        summands=2,
    ),
    "quotient by a row": Case(
        nodes=[node("Div", "x", "k")],
        x=[2, 2],
        y=[2, 2],
        constants=[numpy_helper.from_array(np.array([3, -0.7], dtype=np.float32), "k")],
        summands=3,
    ),
    "product with minus one beside the tensor": Case(
        nodes=[
            node("MatMul", "x", "w", to="h"),
            node("Relu", "h", to="r"),
            node("Mul", "h", "k", to="n"),
            node("Concat", "n", "r", axis=1, to="c"),
            node("Relu", "n", to="s"),
            node("Concat", "c", "s", axis=1),
        ],
        x=[2, 4],
        y=[2, 9],
        constants=[dense(4, 3), number("k", -1.0)],
        roundings=3,
        summands=10,
    ),
    "product with zero beside the tensor": Case(
        nodes=[
            node("MatMul", "x", "w", to="h"),
            node("Mul", "h", "k", to="n"),
            node("Concat", "n", "h", axis=1),
        ],
        x=[2, 4],
        y=[2, 6],
        constants=[dense(4, 3), number("k", 0.0)],
        summands=5,
    ),
    "opposite": Case(nodes=[node("Neg", "x")], x=[2, 3], y=[2, 3]),
    "two tensors multiplied": Case(
        nodes=[
            node("MatMul", "x", "w", to="a"),
            node("Relu", "x", to="r"),
            node("Mul", "a", "r", to="p"),
            node("Sub", "p", "x", to="s"),
            node("Relu", "s"),
        ],
        x=[2, 3],
        y=[2, 3],
        constants=[dense(3, 3)],
        roundings=12,
        summands=40,
    ),
    "a tensor squared": Case(
        nodes=[node("Mul", "x", "x", to="q"), node("Add", "q", "x")],
        x=[2, 3],
        y=[2, 3],
        roundings=2,
    ),
    "third power": Case(
        nodes=[node("Pow", "x", "k")], x=[2, 3], y=[2, 3], constants=[number("k", 3)], roundings=6
    ),
    "matrix of constants on the left": Case(
        nodes=[node("MatMul", "w", "x")],
        x=[2, 4, 3],
        y=[2, 5, 3],
        constants=[dense(5, 4)],
        summands=10,
    ),
    "batch of matrices of constants": Case(
        nodes=[node("MatMul", "x", "w")],
        x=[2, 3, 4],
        y=[2, 3, 2],
        constants=[weight("w", 2, 4, 2)],
        summands=5,
    ),
    "batch of matrices of constants on the left, repeated": Case(
        nodes=[node("MatMul", "w", "x")],
        x=[4, 3],
        y=[2, 5, 3],
        constants=[weight("w", 2, 5, 4)],
        summands=5,
    ),
    "matrix times a vector of constants": Case(
        nodes=[node("MatMul", "x", "w")], x=[3, 4], y=[3], constants=[weight("w", 4)], summands=5
    ),
    "vector of constants times a matrix": Case(
        nodes=[node("MatMul", "w", "x")], x=[4, 3], y=[3], constants=[weight("w", 4)], summands=5
    ),
    "matrix of activations times a vector of activations": Case(
        nodes=[
            node("ReduceMean", "x", axes=[0], keepdims=0, to="v"),
            node("MatMul", "x", "v"),
        ],
        x=[3, 4],
        y=[3],
        roundings=12,
        summands=20,
    ),
    "product that repeats a batch": Case(
        nodes=[
            node("Reshape", "x", "shape", to="r"),
            node("MatMul", "x", "r"),
        ],
        x=[2, 2, 4],
        y=[2, 2, 4],
        constants=[integers("shape", 1, 4, 4)],
        roundings=4,
    ),
    "gemm with its first factor transposed": Case(
        nodes=[node("Gemm", "x", "w", "b", transA=1)],
        x=[4, 2],
        y=[2, 3],
        constants=[dense(4, 3), weight("b", 2, 1)],
        summands=6,
    ),
    "sum that repeats elements": Case(
        nodes=[node("Transpose", "x", to="t", perm=[1, 0]), node("Add", "x", "t")],
        x=[1, 4],
        y=[4, 4],
        summands=3,
    ),
    "sum that repeats a layer": Case(
        nodes=[node("MatMul", "x", "w", to="m"), node("Sub", "m", "x")],
        x=[3, 4],
        y=[3, 4],
        constants=[dense(4, 1)],
        roundings=2,
        summands=8,
    ),
    "sum of three": Case(
        nodes=[node("Relu", "x", to="r"), node("Sum", "x", "k", "r")],
        x=[2, 3],
        y=[2, 3],
        constants=[weight("k", 3)],
        roundings=2,
        summands=4,
    ),
    "gathered": Case(
        nodes=[node("Gather", "x", "i", axis=1, to="g"), node("Relu", "g")],
        x=[2, 4],
        y=[2, 2, 2],
        constants=[numpy_helper.from_array(np.array([[3, 0], [-2, 3]], dtype=np.int64), "i")],
    ),
    "sliced": Case(
        nodes=[node("Slice", "x", "a", "b", "c", "d", to="s"), node("Relu", "s")],
        x=[4, 5],
        y=[2, 3],
        constants=[
            integers("a", -1, 1),
            integers("b", -9, 4),
            integers("c", 0, 1),
            integers("d", -2, 1),
        ],
    ),
    "split": Case(
        nodes=[
            helper.make_node("Split", ["x", "sizes"], ["a", "b"], "n_split", axis=1),
            node("Concat", "b", "a", axis=1, to="t"),
            node("Relu", "t"),
        ],
        x=[2, 5],
        y=[2, 5],
        constants=[integers("sizes", 2, 3)],
    ),
    "padded": Case(
        nodes=[node("Pad", "x", "p", to="q"), node("MatMul", "q", "w")],
        x=[2, 3],
        y=[3, 2],
        constants=[integers("p", 1, 2, 0, -1), dense(4, 2)],
        summands=4,
    ),
    "padded with a number": Case(
        nodes=[node("Pad", "x", "p", "k")],
        x=[2, 3],
        y=[2, 5],
        constants=[integers("p", 0, 1, 0, 1), number("k", -1.5)],
    ),
    "padded by its edge": Case(
        nodes=[node("Pad", "x", "p", mode="edge")],
        x=[2, 3],
        y=[4, 3],
        constants=[integers("p", 1, 0, 1, 0)],
    ),
    "padded by reflection": Case(
        nodes=[node("Pad", "x", "p", mode="reflect")],
        x=[2, 3],
        y=[2, 6],
        constants=[integers("p", 0, 2, 0, 1)],
    ),
    "expanded": Case(
        nodes=[node("Expand", "x", "shape", to="e"), node("Relu", "e")],
        x=[3, 1],
        y=[2, 3, 2],
        constants=[integers("shape", 2, 3, 2)],
    ),
    "concat with a constant": Case(
        nodes=[node("Concat", "k", "x", axis=1)],
        x=[1, 2, 3],
        y=[1, 3, 3],
        constants=[weight("k", 1, 1, 3)],
    ),
    "chosen by a mask": Case(
        nodes=[node("Relu", "x", to="r"), node("Where", "mask", "r", "x")],
        x=[2, 4],
        y=[2, 4],
        constants=[numpy_helper.from_array(np.array([True, False, True, False]), "mask")],
        roundings=2,
    ),
    "masked by a number": Case(
        nodes=[node("Where", "mask", "x", "k")],
        x=[2, 4],
        y=[2, 4],
        constants=[
            numpy_helper.from_array(np.array([True, False, True, False]), "mask"),
            number("k", -5.0),
        ],
    ),
    "handed on": Case(nodes=[node("Identity", "x")], x=[2, 4], y=[2, 4]),
    "clipped to six": Case(
        nodes=[
            conv(3, 2, 2, to="c"),
            node("Clip", "c", "low", "high", to="k"),
            conv(2, 1, 1, to="y", x="k"),
        ],
        x=[1, 2, 4, 3],
        y=[1, 2, 3, 2],
        constants=[
            *taps(3, 2, 2, 2, to="c"),
            *taps(2, 3, 1, 1),
            number("low", 0.0),
            number("high", 0.75),
        ],
        roundings=8,
        summands=40,
    ),
    "clipped on both sides": Case(
        nodes=[node("Clip", "x", "low", "high")],
        x=[2, 4],
        y=[2, 4],
        constants=[number("low", -0.3), number("high", 0.7)],
        roundings=2,
    ),
    "clipped from above": Case(
        nodes=[node("Clip", "x", "", "high")],
        x=[2, 4],
        y=[2, 4],
        constants=[number("high", -0.3)],
        roundings=2,
    ),
    "clipped from below": Case(
        nodes=[node("Clip", "x", "low")],
        x=[2, 4],
        y=[2, 4],
        constants=[number("low", 0.3)],
        roundings=2,
    ),
    "leaky": Case(
        nodes=[
            node("MatMul", "x", "w", to="m"),
            node("LeakyRelu", "m", alpha=0.2, to="l"),
            node("MatMul", "l", "v"),
        ],
        x=[2, 4],
        y=[2, 2],
        constants=[dense(4, 3), dense(3, 2, to="v")],
        roundings=8,
        summands=20,
    ),
    "magnitude": Case(
        nodes=[node("MatMul", "x", "w", to="m"), node("Abs", "m")],
        x=[2, 4],
        y=[2, 3],
        constants=[dense(4, 3)],
        summands=4,
    ),
    "larger of a layer and the input": Case(
        nodes=[node("MatMul", "x", "w", to="m"), node("Max", "m", "x")],
        x=[2, 4],
        y=[2, 4],
        constants=[dense(4, 4)],
        roundings=3,
        summands=8,
    ),
    "smallest of three": Case(
        nodes=[node("Relu", "x", to="r"), node("Min", "x", "k", "r")],
        x=[2, 4],
        y=[2, 4],
        constants=[weight("k", 4)],
        roundings=4,
    ),
    "block with a shortcut": Case(
        nodes=[
            conv(2, 3, 3, to="a", pads=[1, 1, 1, 1]),
            node("Relu", "a", to="h"),
            conv(2, 3, 3, to="b", x="h", pads=[1, 1, 1, 1]),
            node("Add", "b", "h", to="s"),
            node("Relu", "s", to="t"),
            node("GlobalAveragePool", "t", to="g"),
            node("Flatten", "g", to="f"),
            node("Gemm", "f", "w", "k"),
        ],
        x=[1, 1, 4, 4],
        y=[1, 3],
        constants=[
            *taps(2, 1, 3, 3, to="a"),
            *(t for t in taps(2, 2, 3, 3, to="b")),
            dense(2, 3),
            weight("k", 3),
        ],
        roundings=12,
        summands=60,
    ),
}


def inputs(case: Case, numbers: Arithmetic, seed: int = 0) -> dict[str, np.ndarray]:
    """Numbers of both signs that quantise exactly, within +-2."""
    values = np.random.default_rng(seed).normal(size=tuple(case.x)).clip(-2, 2)
    return {"x": (np.rint(values * 2.0**numbers.scale) / 2.0**numbers.scale).astype(np.float32)}


def found_and_exact(case: Case, numbers: Arithmetic) -> tuple[np.ndarray, np.ndarray]:
    """What a case's circuit gives, held to the loops' integers, and what onnxruntime does."""
    arrays = inputs(case, numbers)
    found = checked(hinted_chunk(case.proto(), numbers), arrays)["y"] / 2**numbers.scale
    return found, run_float(case.proto(), arrays)["y"]


@st.composite
def convolutions(draw: st.DrawFn) -> Case:
    """A convolution of any window, perhaps a ReLU, perhaps a maximum, either first."""
    height, width = draw(st.integers(3, 7)), draw(st.integers(3, 7))
    depthwise = draw(st.booleans())
    channels, kernel = draw(st.integers(1, 3)), [draw(st.integers(1, 3)) for _ in "yx"]
    copies = draw(st.integers(1, 3))
    outputs = channels * copies if depthwise else draw(st.integers(1, 6))
    strides, dilations = ([draw(st.integers(1, 2)) for _ in "yx"] for _ in "sd")
    pads = [draw(st.integers(0, 2)) for _ in range(4)]
    size = [
        (side + pads[a] + pads[a + 2] - dilations[a] * (kernel[a] - 1) - 1) // strides[a] + 1
        for a, side in enumerate((height, width))
    ]
    group, per_group = (channels, 1) if depthwise else (1, channels)
    nodes = [
        conv(
            outputs,
            *kernel,
            to="t0",
            strides=strides,
            dilations=dilations,
            pads=pads,
            group=group,
        )
    ]
    for operator in draw(st.permutations(["Relu", "MaxPool", "skip"])):
        x, to = f"t{len(nodes) - 1}", f"t{len(nodes)}"
        if operator == "Relu":
            nodes.append(node("Relu", x, to=to))
        if operator == "MaxPool" and min(size) > 0 and draw(st.booleans()):
            window = [draw(st.integers(1, min(3, side))) for side in size]
            if np.prod(window) > 1:
                nodes.append(pool("MaxPool", x, *window, to=to))
                size = [side // w for side, w in zip(size, window, strict=True)]
    nodes.append(node("Mul", f"t{len(nodes) - 1}", "one"))
    return Case(
        nodes=nodes,
        x=[1, channels, height, width],
        y=[1, outputs, *size],
        constants=[*taps(outputs, per_group, *kernel, to="t0"), number("one", 1.0)],
    )
