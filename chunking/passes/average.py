"""Pass `average-deferred`: an average over a tensor that is yet to be rebased is a sum of it.

Precondition: an AveragePool without padding (and without ceil_mode) or a GlobalAveragePool, with
known shapes, whose input has a deferred form (`scales`) and is read by nothing else.

Postcondition: the same tensor: sums of the deferred input, axis by axis by constant Gathers (all
spatial axes at once by ReduceSum where the average is global), then one carrier: for a window of
2^j elements an addition of two halves, by 2^-(k+j); for any other a product by the whole number
nearest to 2^b / count first, and 2^-(k+b). b is as large as a rebase allows: what is left over by a
division, up to 2^(k+b), is taken apart into digits too.

Exactness: exact in reals for windows of a power of two, otherwise bounded: relative error
count / 2^(b+1). In integers the former is finer than the native average, which adds what was
rounded.

Why: the rebase of the input, 64 cells an element, falls away; that of the average stays, once a
window.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from zkml_ray.chunking.passes.base import (
    NO_PARAMETER,
    Builder,
    Exactness,
    Rewrite,
    dims_of,
    input_of,
    node_named,
    refuse,
)
from zkml_ray.chunking.passes.im2col import Window
from zkml_ray.chunking.passes.scales import can_defer, carried, deferred, deferred_bits

MAX_SHIFT_BITS = 26
"""A rebase's divisor must be below the decomposition's range, 2^28; one bit is for the halves."""

MIN_FACTOR_BITS = 6
"""Fewest bits of the whole number that stands for 1/count."""

_OPERATORS = ("AveragePool", "GlobalAveragePool")


class AverageDeferred:
    """The pass."""

    name = "average-deferred"
    exactness: Exactness = "bounded"
    parameters = NO_PARAMETER

    def places(self, model: ir.Model) -> list[Rewrite]:
        """Every average of a deferred tensor."""
        return [
            Rewrite(name=self.name, node=str(node.name))
            for node in model.graph
            if node.op_type in _OPERATORS and not isinstance(_geometry(node), str)
        ]

    def apply(self, model: ir.Model, rewrite: Rewrite) -> None:
        """Replace one average."""
        node = node_named(model, rewrite.node)
        geometry = _geometry(node)
        if isinstance(geometry, str):
            raise refuse(rewrite, geometry)
        window, value = geometry
        build = Builder(model, node, f"{rewrite.node}/{self.name}")
        wide = deferred(build, value)
        if node.op_type == "GlobalAveragePool":
            axes = build.indices(range(2, len(window.source)), "axes")
            total = build.node("ReduceSum", [wide.value, axes], {"keepdims": 1})
        else:
            total = _window_sums(build, wide.value, window, dims_of(node.outputs[0]) or ())
        count = math.prod(window.kernel)
        bits = count.bit_length() - 1
        if count != 1 << bits:
            bits = MAX_SHIFT_BITS - wide.bits
            total = build.node("Mul", [total, build.scalar(round((1 << bits) / count))])
        build.replace(node.outputs[0], carried(build, total, wide.bits + bits))


def _geometry(node: ir.Node) -> tuple[Window, ir.Value] | str:
    """The windows and the input, or why the rewrite cannot be made."""
    if node.op_type not in _OPERATORS:
        return f"it is a {node.op_type}, not an average"
    value, output = input_of(node, 0), dims_of(node.outputs[0])
    if value is None or output is None or not can_defer(value):
        return "its input is rebased already, or something else reads it too"
    geometry = _windows(node, value, output)
    if not isinstance(geometry, str):
        count, room = math.prod(geometry[0].kernel), MAX_SHIFT_BITS - deferred_bits(value)
        if count.bit_length() + (MIN_FACTOR_BITS if count & (count - 1) else 0) > room:
            return "its window is too large for one rebase"
    return geometry


def _windows(
    node: ir.Node, value: ir.Value, output: tuple[int, ...]
) -> tuple[Window, ir.Value] | str:
    if node.op_type == "GlobalAveragePool":
        source = dims_of(value)
        if source is None:
            return "a shape is not known"
        spatial = source[2:]
        none = (0,) * len(spatial)
        return Window(source=source, kernel=spatial, strides=spatial, pads=none + none), value
    window = Window.of(node)
    if window is None:
        return "it is dilated, or a shape is not known"
    for axis, size in enumerate(window.source[2:]):
        where = window.positions(axis, output[2 + axis])
        if where.min() < 0 or where.max() >= size:
            return "it reads padding"
    return window, value


def _window_sums(
    build: Builder, value: ir.Value, window: Window, output: tuple[int, ...]
) -> ir.Value:
    for axis in range(len(window.kernel)):
        value, *rest = [
            build.node("Gather", [value, build.indices(column, "pick")], {"axis": 2 + axis})
            for column in window.positions(axis, output[2 + axis]).T
        ]
        for other in rest:
            value = build.node("Add", [value, other])
    return value
