"""Pass `maxpool-pairwise`: a max pooling becomes maxima of pairs, before ReLU and rebase.

Precondition: a MaxPool with one output, unit dilations and known shapes, whose windows each hold
at least one element of the input.

Postcondition: the same tensor. Where the pooled tensor is a ReLU's result, read by nothing else,
the pooling comes first: both are monotone and commute. Axis by axis, with constant Gathers:

- on a deferred tensor (`scales`), while the growth stays within `MAX_GROWTH_BITS`:
  2 max(a, b) = a + b + |a - b|, the last addition carrying the rebase of everything;
- otherwise max(a, b) = a + ReLU(b - a).

Padding picks the nearest element inside, which lies in the same window: no -inf is needed.

Exactness: exact in reals. Rebase is monotone too, so that in integers the result is that of the
native operators (bit-exact), wherever ezkl's witness rounds monotonously, as it does.

Why: ezkl's MaxPool is a shuffle argument, dear in columns. A maximum of two costs 20 cells on a
deferred tensor; ReLU and rebase are paid once a window instead of once an element.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from zkml_ray.chunking.passes.base import (
    NO_PARAMETER,
    Builder,
    Exactness,
    Rewrite,
    constant_of,
    dims_of,
    input_of,
    node_named,
    only_user,
    refuse,
)
from zkml_ray.chunking.passes.im2col import Window
from zkml_ray.chunking.passes.scales import can_defer, carried_sum, deferred

MAX_GROWTH_BITS = 2
"""A pooled tensor made by |.| is this many bits larger at most: 2x2 windows. Larger windows would
cost range that weights need more."""


class MaxPoolPairwise:
    """The pass."""

    name = "maxpool-pairwise"
    exactness: Exactness = "exact in reals"
    parameters = NO_PARAMETER

    def places(self, model: ir.Model) -> list[Rewrite]:
        """Every MaxPool that satisfies the precondition."""
        return [
            Rewrite(name=self.name, node=str(node.name))
            for node in model.graph
            if node.op_type == "MaxPool" and not isinstance(_geometry(node), str)
        ]

    def apply(self, model: ir.Model, rewrite: Rewrite) -> None:
        """Replace one MaxPool, and the ReLU before it."""
        node = node_named(model, rewrite.node)
        geometry = _geometry(node)
        if isinstance(geometry, str):
            raise refuse(rewrite, geometry)
        window, output, value = geometry
        build = Builder(model, node, f"{rewrite.node}/{self.name}")
        relu = value.producer()
        if relu is None or relu.op_type != "Relu" or only_user(value) is None:
            relu = None
        source = value if relu is None else relu.inputs[0]
        if source is None:
            raise refuse(rewrite, "the ReLU before it has no input")
        growth = sum(size - 1 for size in window.kernel)
        bias = _spatially_constant_bias(source, len(window.kernel))
        if can_defer(source) and 0 < growth <= MAX_GROWTH_BITS:
            summand = source if bias is None else bias[0]
            left, right, bits = _by_magnitude(build, summand, window, output)
            if bias is None:
                pooled = carried_sum(build, left, right, bits)
            else:
                shifted = build.node(
                    "Mul", [build.node("Add", [left, right]), build.scalar(2.0**-bits)]
                )
                pooled = build.node("Add", [shifted, build.constant(bias[1], "bias")])
        else:
            pooled = _by_relu(build, source, window, output)
        if relu is not None:
            pooled = build.node("Relu", [pooled], name=f"{relu.name}/pooled")
        build.replace(node.outputs[0], pooled)


def _geometry(node: ir.Node) -> tuple[Window, tuple[int, ...], ir.Value] | str:
    if node.op_type != "MaxPool":
        return f"it is a {node.op_type}, not a MaxPool"
    window, output, value = Window.of(node), dims_of(node.outputs[0]), input_of(node, 0)
    if window is None or output is None or value is None:
        return "it is dilated, or a shape is not known"
    if len(node.outputs) > 1 and node.outputs[1].uses():
        return "its indices are used"
    for axis, size in enumerate(window.source[2:]):
        where = window.positions(axis, output[2 + axis])
        if ((where < 0) | (where >= size)).all(axis=1).any():
            return "a window lies outside the input"
    return window, output, value


def _spatially_constant_bias(
    source: ir.Value, rank: int
) -> tuple[ir.Value, npt.NDArray[np.float32]] | None:
    """The deferred tensor and the constant of an addition that commutes with the pooling."""
    node = source.producer()
    if node is None or node.op_type != "Add":
        return None
    for index in (0, 1):
        constant, other = constant_of(node.inputs[index]), node.inputs[1 - index]
        if constant is None or other is None or not can_defer(other):
            continue
        if set(constant.shape[-rank:]) <= {1}:
            return other, constant
    return None


def _picks(
    build: Builder, value: ir.Value, window: Window, output: tuple[int, ...], axis: int
) -> list[ir.Value]:
    """Per kernel element along a spatial axis, the slice of the tensor that it reads."""
    where: npt.NDArray[np.int64] = window.positions(axis, output[2 + axis])
    inside = np.clip(where, 0, window.source[2 + axis] - 1)
    return [
        build.node("Gather", [value, build.indices(column, "pick")], {"axis": 2 + axis})
        for column in inside.T
    ]


def _by_magnitude(
    build: Builder, source: ir.Value, window: Window, output: tuple[int, ...]
) -> tuple[ir.Value, ir.Value, int]:
    """Two tensors and bits: the pooled tensor is their sum times 2^-bits."""
    start = deferred(build, source)
    value, bits = start.value, start.bits
    pairs: tuple[ir.Value, ir.Value] | None = None
    for axis in range(len(window.kernel)):
        if pairs is not None:
            value = build.node("Add", list(pairs))
        first, *rest = _picks(build, value, window, output, axis)
        for index, other in enumerate(rest):
            if index:
                # `first` became twice the maximum so far: bring the next element along.
                other = build.node("Mul", [other, build.scalar(float(1 << index))])
                assert pairs is not None
                first = build.node("Add", list(pairs))
            distance = build.node("Abs", [build.node("Sub", [first, other])])
            pairs = build.node("Add", [first, other]), distance
            bits += 1
        if not rest:
            value, pairs = first, None
    if pairs is None:
        raise AssertionError("a window of one element has no maximum to take")
    return *pairs, bits


def _by_relu(build: Builder, value: ir.Value, window: Window, output: tuple[int, ...]) -> ir.Value:
    for axis in range(len(window.kernel)):
        value, *rest = _picks(build, value, window, output, axis)
        for other in rest:
            excess = build.node("Relu", [build.node("Sub", [other, value])])
            value = build.node("Add", [value, excess])
    return value
