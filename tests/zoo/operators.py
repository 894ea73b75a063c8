"""Random uses of every operator: shapes of several ranks, sizes up to thousands, any axis.

Each is a model of one operator on one input. Numbers are multiples of the quantisation step, so
what an operator's result is off by comes from the operator and its constants alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET: Final = 18
Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """A use of an operator.

    Attributes:
        nodes: Its nodes; they read x and make y.
        shape: Shape of x.
        constants: What they read besides.
        low: Smallest number in x.
        high: Largest number in x.
    """

    nodes: Sequence[onnx.NodeProto]
    shape: Sequence[int]
    constants: Sequence[onnx.TensorProto] = field(default=())
    low: float = -4.0
    high: float = 4.0

    def model(self) -> onnx.ModelProto:
        """The model, its output's shape inferred."""
        graph = helper.make_graph(
            list(self.nodes),
            "use",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(self.shape))],
            [onnx.ValueInfoProto(name="y")],
            list(self.constants),
        )
        opset = [helper.make_opsetid("", OPSET)]
        made = helper.make_model(graph, opset_imports=opset, ir_version=9)
        return onnx.shape_inference.infer_shapes(made, strict_mode=True)

    def values(self, scale: int, seed: int = 0) -> Array:
        """Numbers for x, multiples of 2^-scale."""
        drawn = np.random.default_rng(seed).uniform(self.low, self.high, size=self.shape)
        return np.ldexp(np.rint(np.ldexp(drawn, scale)), -scale).astype(np.float32)

    def behind_a_shift(self) -> Use:
        """The same of x / 4, which ezkl only takes note of: the next operator divides."""
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in self.nodes]
        for copy in copies:
            copy.input[:] = ["quarter" if name == "x" else name for name in copy.input]
        shift = node("Mul", "x", "shift", to="quarter")
        constants = [*self.constants, scalar("shift", 0.25)]
        return replace(self, nodes=[shift, *copies], constants=constants)

    def described(self) -> str:
        """What is needed to find a failure again."""
        written = []
        for node in self.nodes:
            given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            written.append(f"{node.op_type}{given or ''}")
        shapes = [list(tensor.dims) for tensor in self.constants]
        return f"{' '.join(written)} of {list(self.shape)} with {shapes}"


def node(op_type: str, *inputs: str, to: str = "y", **attributes: object) -> onnx.NodeProto:
    """A node named after what it makes."""
    return helper.make_node(op_type, list(inputs), [to], name=f"n_{to}", **attributes)


class Drawer:
    """Draws uses of operators from a seed."""

    def __init__(self, seed: int, most: int) -> None:
        """Draw.

        Args:
            seed: Of the generator.
            most: Elements of the largest tensor.
        """
        self._random = np.random.default_rng(seed)
        self._most = most

    def use(self, operator: str) -> Use:
        """A use of an operator in `DRAWN`."""
        return DRAWN[operator](self)

    def whole(self, low: int, high: int) -> int:
        """A whole number, small ones as often as large ones of each magnitude."""
        drawn = math.exp(self._random.uniform(math.log(low), math.log(high + 1)))
        return min(high, max(low, int(drawn)))

    def real(self, low: float, high: float) -> float:
        """A factor of any magnitude within these bounds, either sign."""
        size = math.exp(self._random.uniform(math.log(low), math.log(high)))
        return float(np.float32(size if self.flag() else -size))

    def flag(self) -> bool:
        return bool(self._random.integers(2))

    def pick(self, *among: int) -> int:
        return int(self._random.choice(among))

    def shape(self, *, lowest: int = 1, highest: int = 4) -> list[int]:
        """A shape of so many axes, one of them perhaps thousands long."""
        rank = self.pick(*range(lowest, highest + 1))
        made, left = [1] * rank, self._most
        for axis in self._random.permutation(rank):
            made[axis] = self.whole(1, left) if axis % 2 else self.whole(1, max(1, left // 4))
            left //= made[axis]
        return made

    def axis(self, shape: Sequence[int]) -> int:
        """An axis, counted from either end."""
        return self.pick(*range(-len(shape), len(shape)))

    def axes(self, shape: Sequence[int]) -> list[int]:
        """Some axes or all, counted from either end, in any order."""
        count = self.pick(*range(1, len(shape) + 1))
        chosen = self._random.permutation(len(shape))[:count]
        return [int(axis) - (len(shape) if self.flag() else 0) for axis in chosen]

    def floats(self, name: str, shape: Sequence[int], size: float = 1.0) -> onnx.TensorProto:
        values = self._random.normal(size=tuple(shape)) * size
        return numpy_helper.from_array(values.astype(np.float32), name)

    def broadcast(self, shape: Sequence[int]) -> list[int]:
        """A shape that broadcasts to this one."""
        return [size if self.flag() else 1 for size in shape][self.pick(*range(len(shape))) :]

    def permutation(self, count: int) -> list[int]:
        return [int(index) for index in self._random.permutation(count)]

    def indices(self, high: int, *shape: int) -> npt.NDArray[np.int64]:
        return self._random.integers(-high, high, size=shape)


def integers(name: str, values: npt.ArrayLike) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype=np.int64), name)


def scalar(name: str, value: float) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, dtype=np.float32), name)


def _pointwise(op_type: str, low: float, high: float) -> Callable[[Drawer], Use]:
    return lambda draw: Use(nodes=[node(op_type, "x")], shape=draw.shape(), low=low, high=high)


def _with_constant(op_type: str, size: float) -> Callable[[Drawer], Use]:
    def use(draw: Drawer) -> Use:
        shape = draw.shape()
        constant = draw.floats("k", draw.broadcast(shape), size)
        sides = ("x", "k") if draw.flag() else ("k", "x")
        return Use(nodes=[node(op_type, *sides)], shape=shape, constants=[constant])

    return use


def _factor(draw: Drawer) -> Use:
    shape, factor = draw.shape(), draw.real(1e-7, 100.0)
    return Use(
        nodes=[node("Mul", "x", "k")],
        shape=shape,
        constants=[scalar("k", factor)],
        low=-1000.0,
        high=1000.0,
    )


def _divisor(draw: Drawer) -> Use:
    kind = draw.pick(0, 1, 2)
    if kind == 0:
        divisor = scalar("k", draw.real(0.01, 1e6))
        return Use(
            nodes=[node("Div", "x", "k")], shape=draw.shape(), constants=[divisor], high=1000.0
        )
    if kind == 1:
        return Use(
            nodes=[node("Div", "k", "x")],
            shape=draw.shape(),
            constants=[scalar("k", draw.real(0.5, 50.0))],
            low=1.0,
            high=1000.0,
        )
    shape = draw.shape(lowest=2, highest=3)
    nodes = [
        node("ReduceSum", "x", "a", to="s", keepdims=1),
        node("Div", "x", "s"),
    ]
    return Use(nodes=nodes, shape=shape, constants=[integers("a", [-1])], low=0.5, high=4.0)


def _power(draw: Drawer) -> Use:
    exponent = draw.pick(1, 2, 3, 4, 5) if draw.flag() else 0.5
    return Use(
        nodes=[node("Pow", "x", "k")],
        shape=draw.shape(),
        constants=[scalar("k", exponent)],
        low=0.25,
        high=3.0,
    )


def _reduction(op_type: str) -> Callable[[Drawer], Use]:
    def use(draw: Drawer) -> Use:
        shape = draw.shape()
        keep = {"keepdims": draw.pick(0, 1)}
        if draw.pick(0, 1, 2) == 0:
            if draw.flag():
                return Use(nodes=[node(op_type, "x", **keep)], shape=shape, low=0.0)
            idle = node(op_type, "x", noop_with_empty_axes=1, **keep)
            return Use(nodes=[idle], shape=shape, low=0.0)
        axes = integers("a", draw.axes(shape))
        low = -4.0 if op_type == "ReduceMax" else 0.0
        return Use(nodes=[node(op_type, "x", "a", **keep)], shape=shape, constants=[axes], low=low)

    return use


def _image(draw: Drawer, *, most: int = 12) -> list[int]:
    rank = draw.pick(1, 2, 2, 3)
    return [draw.pick(1, 2), draw.pick(2, 4), *[draw.pick(*range(6, most)) for _ in range(rank)]]


def _window(draw: Drawer, rank: int, *, dilated: bool = True) -> dict[str, list[int]]:
    window = {
        "kernel_shape": [draw.pick(1, 2, 3) for _ in range(rank)],
        "strides": [draw.pick(1, 2, 3) for _ in range(rank)],
    }
    if dilated and draw.flag():
        window["dilations"] = [draw.pick(1, 2) for _ in range(rank)]
    return window


def _padded(draw: Drawer, window: dict[str, list[int]]) -> dict[str, object]:
    if draw.flag() and _overlap(window):
        return {**window, "auto_pad": ("SAME_UPPER", "SAME_LOWER", "VALID")[draw.pick(0, 1, 2)]}
    pads = [draw.pick(*range(size)) for size in window["kernel_shape"] * 2]
    return {**window, "pads": pads}


def _overlap(window: Mapping[str, list[int]]) -> bool:
    """Whether no element lies between two windows: elsewhere versions of ONNX disagree."""
    pairs = zip(window["strides"], window["kernel_shape"], strict=True)
    return all(stride <= size for stride, size in pairs)


def _pool(op_type: str) -> Callable[[Drawer], Use]:
    def use(draw: Drawer) -> Use:
        shape = _image(draw)
        window = _window(draw, len(shape) - 2, dilated=False)
        given: dict[str, object] = {**window, "ceil_mode": int(_overlap(window))}
        if draw.flag():
            given = _padded(draw, window)
        if op_type == "AveragePool":
            given["count_include_pad"] = draw.pick(0, 1)
        return Use(nodes=[node(op_type, "x", **given)], shape=shape)

    return use


def _conv(draw: Drawer) -> Use:
    shape = _image(draw, most=9)
    window = _window(draw, len(shape) - 2)
    group = draw.pick(1, 2)
    filters = [2 * group, shape[1] // group, *window["kernel_shape"]]
    constants = [draw.floats("w", filters, abs(draw.real(0.002, 1.0)))]
    if draw.flag():
        constants.append(draw.floats("b", [2 * group]))
    inputs = ["x", *[tensor.name for tensor in constants]]
    given = _padded(draw, window)
    if given.get("auto_pad") in ("SAME_UPPER", "SAME_LOWER"):
        given.pop("dilations", None)  # onnxruntime has no such thing
    operator = node("Conv", *inputs, group=group, **given)
    return Use(nodes=[operator], shape=shape, constants=constants)


def _transposed(draw: Drawer) -> Use:
    shape = _image(draw, most=8)
    rank = len(shape) - 2
    window = _window(draw, rank)
    group = draw.pick(1, 2)
    given: dict[str, object] = {**window, "group": group}
    if draw.flag():
        given["output_padding"] = [draw.pick(*range(stride)) for stride in window["strides"]]
    if draw.flag():
        given["pads"] = [draw.pick(*range(size)) for size in window["kernel_shape"] * 2]
    constants = [draw.floats("w", [shape[1], draw.pick(1, 2), *window["kernel_shape"]])]
    if draw.flag():
        constants.append(draw.floats("b", [group * constants[0].dims[1]]))
    inputs = ["x", *[tensor.name for tensor in constants]]
    return Use(nodes=[node("ConvTranspose", *inputs, **given)], shape=shape, constants=constants)


def _gemm(draw: Drawer) -> Use:
    rows, inner, columns = draw.pick(1, 2, 3), draw.whole(1, 1000), draw.pick(1, 2, 4)
    left, right = draw.pick(0, 1), draw.pick(0, 1)
    given: dict[str, object] = {"transA": left, "transB": right}
    if draw.flag():
        given |= {"alpha": draw.real(0.001, 2.0), "beta": draw.real(0.001, 2.0)}
    weights = draw.floats("w", [columns, inner] if right else [inner, columns], 0.1)
    bias = draw.floats("b", draw.broadcast([rows, columns]))
    shape = [inner, rows] if left else [rows, inner]
    return Use(nodes=[node("Gemm", "x", "w", "b", **given)], shape=shape, constants=[weights, bias])


def _matmul(draw: Drawer) -> Use:
    inner = draw.whole(1, 1000)
    shape = [*[draw.pick(1, 2) for _ in range(draw.pick(0, 1, 2))], draw.pick(1, 2, 3), inner]
    if draw.pick(0, 1, 2) == 0:
        turned = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
        nodes = [node("Transpose", "x", to="t", perm=turned), node("MatMul", "x", "t")]
        return Use(nodes=nodes, shape=shape, low=-1.0, high=1.0)
    weights = draw.floats("w", [inner, draw.pick(1, 3)], abs(draw.real(0.001, 1.0)))
    return Use(nodes=[node("MatMul", "x", "w")], shape=shape, constants=[weights])


def _einsum(draw: Drawer) -> Use:
    sizes = [draw.pick(1, 2, 3), draw.whole(1, 100), draw.pick(1, 2, 3)]
    equation, weights = [
        ("abc,cd->abd", [sizes[2], 2]),
        ("abc,bd->acd", [sizes[1], 2]),
        ("abc, b -> ca", [sizes[1]]),
        ("abc,dc", [2, sizes[2]]),
        ("abc,dcb->ad", [2, sizes[2], sizes[1]]),
        ("abc,abc,dbc->da", [2, sizes[1], sizes[2]]),
        ("abc,adc,bd->cb", [sizes[1], sizes[1]]),
    ][draw.pick(*range(7))]
    constants = [draw.floats("w", weights, 0.3)]
    turned = node("Einsum", "x", to="t", equation="abc->acb")
    inputs = ["x"] * (equation.count(",")) + ["w"]
    nodes = [node("Einsum", *inputs, equation=equation)]
    if draw.flag():
        # tract takes a Transpose in front of an Einsum into its equation.
        back = node("Transpose", "t", to="u", perm=[0, 2, 1])
        nodes = [turned, back, node("Einsum", *["u"] * (len(inputs) - 1), "w", equation=equation)]
    return Use(nodes=nodes, shape=sizes, constants=constants, low=-1.0, high=1.0)


def _norm(draw: Drawer) -> Use:
    shape = draw.shape(lowest=2)
    shape[-1] = max(shape[-1], 4)
    axis = draw.axis(shape)
    constants = [draw.floats("g", shape[axis:])]
    if draw.flag():
        constants.append(draw.floats("b", shape[axis:]))
    inputs = ["x", *[tensor.name for tensor in constants]]
    operator = node("LayerNormalization", *inputs, axis=axis)
    return Use(nodes=[operator], shape=shape, constants=constants)


def _batch_norm(draw: Drawer) -> Use:
    shape = draw.shape(lowest=2)
    channels = shape[1]
    variance = numpy_helper.to_array(draw.floats("v", [channels])) ** 2 * 1000 + 0.5
    constants = [
        *[draw.floats(name, [channels]) for name in ("s", "b", "m")],
        numpy_helper.from_array(variance, "v"),
    ]
    operator = node("BatchNormalization", "x", "s", "b", "m", "v")
    return Use(nodes=[operator], shape=shape, constants=constants, low=-50.0, high=50.0)


def _expand(draw: Drawer) -> Use:
    made = draw.shape(lowest=2)
    return Use(
        nodes=[node("Expand", "x", "s")],
        shape=draw.broadcast(made),
        constants=[integers("s", made)],
    )


def _gather(draw: Drawer) -> Use:
    shape = draw.shape()
    axis = draw.axis(shape)
    index = draw.indices(shape[axis], *[(), (3,), (2, 2)][draw.pick(0, 1, 2)])
    return Use(
        nodes=[node("Gather", "x", "i", axis=axis)], shape=shape, constants=[integers("i", index)]
    )


def _slice(draw: Drawer) -> Use:
    shape = draw.shape()
    axes = draw.axes(shape)
    starts, ends, steps = [], [], []
    for axis in axes:
        step = draw.pick(-3, -1, 1, 2)
        size = shape[axis]
        first = draw.pick(*range(size))
        last = draw.pick(size, 1 << 40, first + 1) if step > 0 else -(size + 1)
        starts.append(first - (size if draw.flag() else 0))
        ends.append(last)
        steps.append(step)
    named = zip("bcde", (starts, ends, axes, steps), strict=True)
    return Use(
        nodes=[node("Slice", "x", "b", "c", "d", "e")],
        shape=shape,
        constants=[integers(name, values) for name, values in named],
    )


def _split(draw: Drawer) -> Use:
    shape = draw.shape()
    axis = draw.axis(shape)
    shape[axis] = max(shape[axis], 5)
    if draw.flag():
        made = helper.make_node("Split", ["x"], ["p", "q"], name="split", axis=axis, num_outputs=2)
        return Use(nodes=[made, node("Concat", "q", "p", axis=axis)], shape=shape)
    sizes = integers("s", [2, shape[axis] - 2])
    made = helper.make_node("Split", ["x", "s"], ["p", "q"], name="split", axis=axis)
    return Use(nodes=[made, node("Concat", "q", "p", axis=axis)], shape=shape, constants=[sizes])


def _reshape(draw: Drawer) -> Use:
    shape = draw.shape(lowest=2)
    to = [[-1], [0, -1], [1, *shape, 1], [*shape[::-1]]][draw.pick(0, 1, 2, 3)]
    return Use(nodes=[node("Reshape", "x", "s")], shape=shape, constants=[integers("s", to)])


def _flatten(draw: Drawer) -> Use:
    shape = draw.shape()
    return Use(
        nodes=[node("Flatten", "x", axis=draw.pick(*range(-len(shape), len(shape) + 1)))],
        shape=shape,
    )


def _transpose(draw: Drawer) -> Use:
    shape = draw.shape()
    given = {} if draw.flag() else {"perm": draw.permutation(len(shape))}
    return Use(nodes=[node("Transpose", "x", **given)], shape=shape)


def _squeeze(draw: Drawer) -> Use:
    shape = [1, draw.whole(2, 2000), 1]
    axes = [[0], [-1], [2, 0], [-3, 2]][draw.pick(0, 1, 2, 3)]
    if draw.flag():
        return Use(nodes=[node("Squeeze", "x")], shape=shape)
    return Use(nodes=[node("Squeeze", "x", "a")], shape=shape, constants=[integers("a", axes)])


def _unsqueeze(draw: Drawer) -> Use:
    axes = [[0], [-1], [3, 1], [-1, 0]][draw.pick(0, 1, 2, 3)]
    return Use(
        nodes=[node("Unsqueeze", "x", "a")],
        shape=draw.shape(lowest=2, highest=3),
        constants=[integers("a", axes)],
    )


def _pad(draw: Drawer) -> Use:
    shape = [draw.pick(3, 4, 5, 9) for _ in range(draw.pick(1, 2, 3))]
    mode = ("constant", "reflect", "edge", "wrap")[draw.pick(0, 1, 2)]
    low = -2 if mode == "constant" else 0
    pads = [draw.pick(*range(low, 3)) for _ in range(2 * len(shape))]
    constants = [integers("p", pads)]
    if mode == "constant" and draw.flag():
        constants.append(scalar("k", draw.real(0.01, 10.0)))
    inputs = ["x", *[tensor.name for tensor in constants]]
    return Use(nodes=[node("Pad", *inputs, mode=mode)], shape=shape, constants=constants)


def _clip(draw: Drawer) -> Use:
    bounds = [scalar("l", -abs(draw.real(0.1, 3.0))), scalar("h", abs(draw.real(0.1, 3.0)))]
    inputs, kept = [
        (("x", "l", "h"), bounds),
        (("x", "l"), bounds[:1]),
        (("x", "", "h"), bounds[1:]),
    ][draw.pick(0, 1, 2)]
    return Use(nodes=[node("Clip", *inputs)], shape=draw.shape(), constants=kept)


def _where(draw: Drawer) -> Use:
    shape = draw.shape()
    chosen = np.array(draw.indices(2, *draw.broadcast(shape)) > 0)
    constants = [numpy_helper.from_array(chosen, "c"), draw.floats("k", draw.broadcast(shape))]
    sides = ("x", "k") if draw.flag() else ("k", "x")
    return Use(nodes=[node("Where", "c", *sides)], shape=shape, constants=constants)


def _sum(draw: Drawer) -> Use:
    shape = draw.shape()
    constants = [draw.floats(name, draw.broadcast(shape)) for name in "kl"][: draw.pick(0, 1, 2)]
    inputs = ["x", *[tensor.name for tensor in constants]]
    return Use(nodes=[node("Sum", *inputs)], shape=shape, constants=constants)


def _concat(draw: Drawer) -> Use:
    shape = draw.shape()
    axis = draw.axis(shape)
    return Use(
        nodes=[node("Concat", "x", "k", "x", axis=axis)],
        shape=shape,
        constants=[draw.floats("k", shape)],
    )


def _leaky(draw: Drawer) -> Use:
    return Use(
        nodes=[node("LeakyRelu", "x", alpha=draw.real(0.001, 1.5))],
        shape=draw.shape(),
        low=-300.0,
        high=300.0,
    )


def _softmax(draw: Drawer) -> Use:
    shape = draw.shape()
    return Use(nodes=[node("Softmax", "x", axis=draw.axis(shape))], shape=shape)


def _global(draw: Drawer) -> Use:
    shape = [draw.pick(1, 2), draw.pick(1, 2), *draw.shape(highest=2)]
    return Use(nodes=[node("GlobalAveragePool", "x")], shape=shape, low=0.0)


def _neighbours(draw: Drawer) -> Use:
    """Max and Min: with one constant, several, or of more than two tensors."""
    shape = draw.shape()
    op_type = ("Max", "Min")[draw.pick(0, 1)]
    constants = [
        draw.floats("k", draw.broadcast(shape)),
        scalar("l", draw.real(0.1, 2.0)),
    ][: draw.pick(1, 2)]
    inputs = ["x", *[tensor.name for tensor in constants]]
    return Use(nodes=[node(op_type, *inputs)], shape=shape, constants=constants)


DRAWN: Final[Mapping[str, Callable[[Drawer], Use]]] = {
    "Abs": _pointwise("Abs", -1000.0, 1000.0),
    "Acos": _pointwise("Acos", -1.0, 1.0),
    "Acosh": _pointwise("Acosh", 4.0, 7.5),
    "Add": _with_constant("Add", 3.0),
    "Asin": _pointwise("Asin", -1.0, 1.0),
    "Asinh": _pointwise("Asinh", -7.5, 7.5),
    "Atan": _pointwise("Atan", -7.5, 7.5),
    "Atanh": _pointwise("Atanh", -0.95, 0.95),
    "AveragePool": _pool("AveragePool"),
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "ConvTranspose": _transposed,
    "Cos": _pointwise("Cos", -7.5, 7.5),
    "Cosh": _pointwise("Cosh", -4.0, 4.0),
    "Div": _divisor,
    "Einsum": _einsum,
    "Erf": _pointwise("Erf", -4.0, 4.0),
    "Exp": _pointwise("Exp", -6.0, 2.0),
    "Expand": _expand,
    "Flatten": _flatten,
    "Floor": _pointwise("Floor", -1000.0, 1000.0),
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": _global,
    "Identity": _pointwise("Identity", -4.0, 4.0),
    "LayerNormalization": _norm,
    "LeakyRelu": _leaky,
    "Log": _pointwise("Log", 0.5, 7.5),
    "MatMul": _matmul,
    "Max": _neighbours,
    "MaxPool": _pool("MaxPool"),
    "Min": _neighbours,
    "Mul": lambda draw: _factor(draw) if draw.flag() else _with_constant("Mul", 0.01)(draw),
    "Neg": _pointwise("Neg", -1000.0, 1000.0),
    "Pad": _pad,
    "Pow": _power,
    "ReduceMax": _reduction("ReduceMax"),
    "ReduceMean": _reduction("ReduceMean"),
    "ReduceSum": _reduction("ReduceSum"),
    "Relu": _pointwise("Relu", -1000.0, 1000.0),
    "Reshape": _reshape,
    "Sigmoid": _pointwise("Sigmoid", -7.5, 7.5),
    "Sign": _pointwise("Sign", -2.0, 2.0),
    "Sin": _pointwise("Sin", -7.5, 7.5),
    "Sinh": _pointwise("Sinh", -4.0, 4.0),
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Sqrt": _pointwise("Sqrt", 0.0, 100.0),
    "Squeeze": _squeeze,
    "Sub": _with_constant("Sub", 3.0),
    "Sum": _sum,
    "Tanh": _pointwise("Tanh", -7.5, 7.5),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
"""Draws a use of each operator."""
