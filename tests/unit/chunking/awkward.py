"""Random small models with awkward attributes, ranks, shapes and numbers, and how exact they are.

A model is a chain of one to four operators with, now and then, an earlier tensor beside. For each
tensor a bound of the error that rounding may make is carried along, from the float values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[np.float32]

FACTORS = (-1, 0, 1, -0.0, 0.5, -0.25, 3, 1 / 300, 1e-4, 1e-12, 1e4, 1e30)
WILD = (math.inf, -math.inf, math.nan)

MAX_ELEMENTS = 160


@dataclass(frozen=True)
class Made:
    """A model, an input, and what onnxruntime makes of it.

    Attributes:
        proto: The model, from x to y.
        x: An input that scale 6 and finer hold exactly.
        values: Every tensor.
    """

    proto: onnx.ModelProto
    x: Array
    values: Mapping[str, Array]

    @property
    def text(self) -> str:
        """The operators with their attributes, for messages."""
        constants = {t.name: numpy_helper.to_array(t) for t in self.proto.graph.initializer}
        lines = [f"x {list(self.x.shape)}"]
        for node in self.proto.graph.node:
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            inputs = [
                f"{n}={constants[n].tolist() if constants[n].size < 9 else constants[n].shape}"
                if n in constants
                else n
                for n in node.input
            ]
            shapes = [list(self.values[n].shape) for n in node.output if n in self.values]
            made = ", ".join(node.output)
            lines.append(f"{made} = {node.op_type}({', '.join(inputs)}) {attributes} -> {shapes}")
        return "\n".join(lines)


class Maker:
    """Makes one random model."""

    def __init__(self, seed: int, *, wild: bool = False) -> None:
        self.random = np.random.default_rng(seed)
        self.wild = wild
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.tensors: dict[str, Array] = {}

    def made(self) -> Made | None:
        """The model; None where no operator could be placed."""
        random = self.random
        rank = int(random.integers(1, 6))
        top = {1: 9, 2: 7, 3: 6, 4: 5, 5: 3}[rank]
        shape = [int(random.integers(1, top + 1)) for _ in range(rank)]
        while math.prod(shape) > MAX_ELEMENTS:
            shape[int(random.integers(rank))] = 1
        x = np.rint(random.normal(size=shape).clip(-2, 2) * 64).astype(np.float32) / 64
        self.tensors["x"] = x
        last = "x"
        for _ in range(int(random.integers(1, 5))):
            last = self._followed(last) or last
        if last == "x":
            return None
        graph = helper.make_graph(
            self.nodes,
            "awkward",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
            [helper.make_tensor_value_info(last, TensorProto.FLOAT, self.tensors[last].shape)],
            self.constants,
        )
        proto = _model(graph)
        return Made(proto=proto, x=x, values=self.tensors)

    def _followed(self, last: str) -> str | None:
        """An operator behind a tensor; None where it does not fit."""
        kinds = [n for n in dir(self) if n.startswith("op_")]
        before = len(self.nodes), len(self.constants)
        kind = kinds[int(self.random.integers(len(kinds)))]
        try:
            outputs = getattr(self, kind)(last, self.tensors[last].shape)
            found = self._run(outputs)
        except (_Unfit, ValueError, IndexError):
            # Such as an axis of a tensor without any.
            del self.nodes[before[0] :], self.constants[before[1] :]
            return None
        self.tensors.update(found)
        return outputs[int(self.random.integers(len(outputs)))]

    def _run(self, outputs: list[str]) -> dict[str, Array]:
        read = {n for node in self.nodes[-1:] for n in node.input if n in self.tensors}
        graph = helper.make_graph(
            self.nodes[-1:],
            "step",
            [
                helper.make_tensor_value_info(n, TensorProto.FLOAT, self.tensors[n].shape)
                for n in sorted(read)
            ],
            [helper.make_empty_tensor_value_info(n) for n in outputs],
            self.constants,
        )
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 4, 1
        try:
            session = onnxruntime.InferenceSession(
                _model(graph).SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            found = session.run(outputs, {n: self.tensors[n] for n in read})
        except Exception as error:
            raise _Unfit from error
        sizes = [array.size for array in found]
        if min(sizes) < 1 or max(sizes) > MAX_ELEMENTS:
            raise _Unfit
        return dict(zip(outputs, found, strict=True))

    # Pieces.

    def node(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> list[str]:
        name = f"{op.lower()}{len(self.nodes)}"
        names = [name] if outputs == 1 else [f"{name}_{i}" for i in range(outputs)]
        kept = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(helper.make_node(op, list(inputs), names, f"n_{name}", **kept))
        return names

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.constants)}_{len(self.nodes)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype=dtype), name))
        return name

    def weight(self, *shape: int, fan: int = 1) -> str:
        return self.constant(self.random.normal(size=shape) / math.sqrt(max(fan, 1)))

    def factor(self) -> float:
        choices = FACTORS + (WILD if self.wild else ())
        if self.flip():
            return float(self.random.normal())
        return float(choices[int(self.random.integers(len(choices)))])

    def factors(self, shape: tuple[int, ...]) -> str:
        """A constant that broadcasts with a shape: a number, a row, a channel's, any."""
        kind = int(self.random.integers(4))
        if kind == 0:
            return self.constant(self.factor())
        kept = [size if self.flip() else 1 for size in shape]
        if kind == 1:
            kept = kept[int(self.random.integers(len(kept))) :]
        values = np.array([self.factor() for _ in range(math.prod(kept))]).reshape(kept)
        if kind == 3:
            values = self.random.normal(size=kept)
        return self.constant(values)

    def other(self, shape: tuple[int, ...]) -> str:
        """An earlier tensor, or a constant."""
        names = list(self.tensors)
        if self.flip():
            return names[int(self.random.integers(len(names)))]
        return self.factors(shape)

    def flip(self) -> bool:
        return bool(self.random.integers(2))

    def few(self, low: int, high: int) -> int:
        return int(self.random.integers(low, high + 1))

    # Operators.

    def op_add(self, x: str, shape: tuple[int, ...]) -> list[str]:
        sides = [x, self.other(shape)]
        if self.flip():
            sides.reverse()
        return self.node("Add" if self.flip() else "Sub", *sides)

    def op_sum(self, x: str, shape: tuple[int, ...]) -> list[str]:
        return self.node("Sum", x, *(self.other(shape) for _ in range(self.few(0, 2))))

    def op_mul(self, x: str, shape: tuple[int, ...]) -> list[str]:
        sides = [x, self.other(shape)]
        if self.flip():
            sides.reverse()
        return self.node("Mul", *sides)

    def op_div(self, x: str, shape: tuple[int, ...]) -> list[str]:
        return self.node("Div", x, self.factors(shape))

    def op_pow(self, x: str, shape: tuple[int, ...]) -> list[str]:
        return self.node("Pow", x, self.constant(float(self.few(1, 3))))

    def op_pointwise(self, x: str, shape: tuple[int, ...]) -> list[str]:
        op = ("Relu", "Abs", "Neg", "LeakyRelu", "Identity")[self.few(0, 4)]
        alpha = self.factor() if op == "LeakyRelu" and self.flip() else None
        return self.node(op, x, alpha=alpha)

    def op_clip(self, x: str, shape: tuple[int, ...]) -> list[str]:
        bounds = []
        for _ in range(2):
            value = self.factor() if self.flip() else float(self.random.normal())
            bounds.append(self.constant(value) if self.few(0, 2) else "")
        return self.node("Clip", x, *bounds)

    def op_extreme(self, x: str, shape: tuple[int, ...]) -> list[str]:
        return self.node("Max" if self.flip() else "Min", x, self.other(shape))

    def op_matmul(self, x: str, shape: tuple[int, ...]) -> list[str]:
        kind = self.few(0, 5)
        if kind == 0:
            return self.node("MatMul", x, self.weight(shape[-1], self.few(1, 5), fan=shape[-1]))
        if kind == 1:
            return self.node("MatMul", x, self.weight(shape[-1], fan=shape[-1]))
        if kind == 2 and len(shape) > 1:
            rows = (self.few(1, 4),) if self.flip() else ()
            return self.node("MatMul", self.weight(*rows, shape[-2], fan=shape[-2]), x)
        if kind == 3 and len(shape) > 2:
            batch = [size if self.flip() else 1 for size in shape[:-2]]
            inner = (shape[-1], self.few(1, 3))
            return self.node("MatMul", x, self.weight(*batch, *inner, fan=shape[-1]))
        if kind == 4 and len(shape) > 2:
            batch = [size if self.flip() else 1 for size in shape[:-2]]
            inner = (self.few(1, 3), shape[-2])
            return self.node("MatMul", self.weight(*batch, *inner, fan=shape[-2]), x)
        names = list(self.tensors)
        sides = [x, names[self.few(0, len(names) - 1)]]
        if self.flip():
            sides.reverse()
        return self.node("MatMul", *sides)

    def op_gemm(self, x: str, shape: tuple[int, ...]) -> list[str]:
        if len(shape) != 2:
            raise _Unfit
        trans_a, trans_b, columns = self.few(0, 1), self.few(0, 1), self.few(1, 5)
        rows, depth = shape[::-1] if trans_a else shape
        weight = (columns, depth) if trans_b else (depth, columns)
        bias = []
        if self.flip():
            kept = ((), (columns,), (rows, columns), (rows, 1), (1, 1))[self.few(0, 4)]
            bias = [self.weight(*kept)]
        return self.node(
            "Gemm",
            x,
            self.weight(*weight, fan=depth),
            *bias,
            transA=trans_a,
            transB=trans_b,
            alpha=self.factor() if self.few(0, 3) == 0 else None,
            beta=self.factor() if self.few(0, 3) == 0 else None,
        )

    def _window(self, plane: tuple[int, ...]) -> dict[str, Any]:
        rank = len(plane)
        return {
            "kernel_shape": [self.few(1, min(3, size)) for size in plane],
            "strides": [self.few(1, 3) for _ in plane] if self.flip() else None,
            "pads": [self.few(0, 2) for _ in range(2 * rank)] if self.flip() else None,
            "dilations": [self.few(1, 2) for _ in plane] if self.flip() else None,
        }

    def op_conv(self, x: str, shape: tuple[int, ...]) -> list[str]:
        if len(shape) < 3:
            raise _Unfit
        group = [g for g in range(1, shape[1] + 1) if shape[1] % g == 0]
        chosen = group[self.few(0, len(group) - 1)]
        out, depth = chosen * self.few(1, 3), shape[1] // chosen
        window = self._window(shape[2:])
        kernel = window["kernel_shape"]
        fan = depth * math.prod(kernel)
        bias = [self.weight(out)] if self.flip() else []
        weight = self.weight(out, depth, *kernel, fan=fan)
        return self.node("Conv", x, weight, *bias, group=chosen, **window)

    def op_conv_transpose(self, x: str, shape: tuple[int, ...]) -> list[str]:
        if len(shape) < 3:
            raise _Unfit
        group = [g for g in range(1, shape[1] + 1) if shape[1] % g == 0]
        chosen = group[self.few(0, len(group) - 1)]
        window = self._window(shape[2:])
        weight = self.weight(shape[1], self.few(1, 2), *window["kernel_shape"], fan=shape[1])
        return self.node("ConvTranspose", x, weight, group=chosen, **window)

    def op_pool(self, x: str, shape: tuple[int, ...]) -> list[str]:
        if len(shape) < 3:
            raise _Unfit
        window = self._window(shape[2:])
        if self.flip():
            return self.node("MaxPool", x, ceil_mode=self.few(0, 1), **window)
        if self.few(0, 3) == 0:
            return self.node("GlobalAveragePool", x)
        del window["dilations"]
        return self.node("AveragePool", x, count_include_pad=self.few(0, 1), **window)

    def op_reduce(self, x: str, shape: tuple[int, ...]) -> list[str]:
        op = ("ReduceMean", "ReduceSum", "ReduceMax")[self.few(0, 2)]
        axes = [axis - len(shape) * self.few(0, 1) for axis in range(len(shape)) if self.flip()]
        inputs = [self.constant(axes, np.int64)] if axes else []
        return self.node(
            op, x, *inputs, keepdims=self.few(0, 1), noop_with_empty_axes=self.few(0, 1)
        )

    def op_move(self, x: str, shape: tuple[int, ...]) -> list[str]:
        rank = len(shape)
        axis = self.few(-rank, rank - 1)
        size = shape[axis]
        kind = self.few(0, 9)
        if kind == 0:
            return self.node("Transpose", x, perm=self.random.permutation(rank).tolist())
        if kind == 1:
            return self.node("Flatten", x, axis=self.few(0, rank))
        if kind == 2:
            index = self.random.integers(-size, size, size=[(), (1,), (3,), (2, 2)][self.few(0, 3)])
            return self.node("Gather", x, self.constant(index, np.int64), axis=axis)
        if kind == 3:
            ends = [self.few(-size - 1, size + 1) for _ in range(2)]
            step = (-2, -1, 1, 2)[self.few(0, 3)]
            numbers = (ends[0], ends[1], axis, step)
            return self.node("Slice", x, *(self.constant([v], np.int64) for v in numbers))
        if kind == 4 and size > 1:
            first = self.few(1, size - 1)
            sizes = self.constant([first, size - first], np.int64)
            return self.node("Split", x, sizes, axis=axis, outputs=2)
        if kind == 5:
            widths = [self.few(-1, 2) for _ in range(2 * rank)]
            filling = [self.constant(self.factor())] if self.flip() else []
            mode = ("constant", "constant", "edge", "reflect")[self.few(0, 3)]
            return self.node("Pad", x, self.constant(widths, np.int64), *filling, mode=mode)
        if kind == 6:
            names = [n for n in self.tensors if len(self.tensors[n].shape) == rank]
            parts = [x, *(names[self.few(0, len(names) - 1)] for _ in range(self.few(0, 2)))]
            if self.flip():
                parts.append(self.weight(*shape))
            return self.node("Concat", *parts, axis=axis)
        if kind == 7:
            wider = [self.few(1, 2)] * self.few(0, 1) + [
                s if s > 1 else self.few(1, 3) for s in shape
            ]
            return self.node("Expand", x, self.constant(wider, np.int64))
        if kind == 8:
            condition = self.random.integers(0, 2, size=shape[self.few(0, rank - 1) :]) > 0
            sides = [x, self.other(shape)]
            return self.node("Where", self.constant(condition, np.bool_), *sides)
        return self.node("Unsqueeze", x, self.constant([self.few(0, rank)], np.int64))


class _Unfit(Exception):
    """The operator does not fit the tensor."""


def _model(graph: onnx.GraphProto) -> onnx.ModelProto:
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


MOVES = frozenset(
    {
        *("Concat", "Expand", "Flatten", "Gather", "Identity", "Neg", "Pad", "Slice", "Split"),
        *("Transpose", "Unsqueeze", "Where"),
    }
)


def tolerance(made: Made, quantum: float, weight_step: float) -> float:
    """How far the output may be off.

    Args:
        made: The model and its values.
        quantum: Step of rounded values.
        weight_step: Step of weights.
    """
    constants = {t.name: numpy_helper.to_array(t) for t in made.proto.graph.initializer}
    errors = {"x": 0.0}
    for node in made.proto.graph.node:
        values = {**constants, **made.values}
        given = [(errors.get(n, 0.0), values[n]) for n in node.input if n]
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        found = 2.5 * quantum + _carried(node.op_type, attributes, given, weight_step, quantum)
        for name in node.output:
            errors[name] = found
    return errors[made.proto.graph.output[0].name]


def _carried(
    op: str, attributes: dict[str, Any], given: list[Any], weight_step: float, quantum: float
) -> float:
    (error, x), rest = given[0], given[1:]
    size = _size(x)
    if op in MOVES:
        return max(e for e, _ in given)
    if op in ("Relu", "Abs", "Max", "Min", "Clip", "MaxPool", "ReduceMax"):
        return float(sum(e for e, _ in given) + (quantum if op == "Clip" else 0))
    if op == "LeakyRelu":
        alpha = abs(attributes.get("alpha", 0.01))
        rounding = _rounded(alpha, size, 1, weight_step) + alpha * quantum
        return float(error * max(1, alpha) + rounding)
    if op in ("Add", "Sub", "Sum"):
        return float(sum(e for e, _ in given) + len(given) * size * weight_step)
    if op in ("AveragePool", "GlobalAveragePool", "ReduceMean"):
        return float(error + _rounded(1, size, 1, weight_step) * 2)
    if op == "ReduceSum":
        return float(error * x.size + size * x.size * weight_step)
    if op == "Pow":
        power = float(rest[0][1].ravel()[0])
        return float(power * (size + error + quantum) ** (power - 1) * (error + quantum))
    if op == "Div":
        largest = float(np.abs(1 / rest[0][1]).max())
        return float(error * largest + _rounded(largest, size, 1, weight_step))
    (other_error, y), depth = rest[0], _depth(op, x, rest[0][1], attributes)
    # An operand and the other's error; constants have none but their rounding.
    reach = _size(y)
    total = depth * (error * reach + other_error * size + error * other_error)
    total += _rounded(max(reach, size), min(reach, size), depth, weight_step)
    alpha, beta = abs(attributes.get("alpha", 1.0)), abs(attributes.get("beta", 1.0))
    total *= max(1.0, alpha)
    if len(rest) > 1:
        total += rest[1][0] * beta
    return float(total)


def _size(x: Any) -> float:
    return float(np.abs(x).max(initial=0))


def _rounded(weight: float, size: float, depth: int, step: float) -> float:
    """What rounding weights does: half a step each, or a 16th of them where they are small."""
    return float(depth * size * max(step, weight / 16 if weight < 16 * step else step))


def _depth(op: str, x: Any, y: Any, attributes: dict[str, Any]) -> int:
    if op == "Conv":
        return int(math.prod(y.shape[1:]))
    if op == "ConvTranspose":
        return int(math.prod(y.shape) // y.shape[1])
    if op in ("MatMul", "Gemm"):
        return int(x.shape[0] if attributes.get("transA") else x.shape[-1])
    return 1
