"""Pass `conv-im2col`: a convolution becomes a matrix product with integer weights.

Precondition: a Conv with constant weights (and bias), unit dilations, known shapes, numeric pads;
the weights times 2^parameter are at most 2^24 in magnitude, and rounding leaves every channel's
weights what they are (`precision`). Parameter: weight bits w.

Postcondition: the same output tensor, made by `Gather` of the input's flattened elements (padding
picks an appended zero) -> MatMul by round(W * 2^w) -> Reshape -> Mul 2^-w -> Add bias. The addition
carries the rebase (without a bias, an addition of two halves). A 1x1 convolution of one image with
stride 1 and no padding needs no Gather but a Reshape. With groups it is one product by a stack of
matrices.

Exactness: bounded, each weight is rounded to a multiple of 2^-w, which ezkl does too: at w equal to
the parameter scale the integers are those of the native convolution (bit-exact).

Why: ezkl lays a native convolution out as one dot product for every output element and window,
after the same divisions. A Gather with constant indices costs no cell, and ezkl knows cheap ways
for matrix products. And the rebase can now be moved: behind a ReLU, behind a pooling.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from zkml_ray.chunking.passes.base import (
    ANY_BITS,
    Builder,
    Exactness,
    Rewrite,
    constant_of,
    dims_of,
    input_of,
    node_named,
    refuse,
)
from zkml_ray.chunking.passes.precision import check_kept
from zkml_ray.chunking.passes.scales import carried, integer_weights
from zkml_ray.limits import MAX_COLUMNS

DEFAULT_BITS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A convolution's or pooling's geometry.

    Attributes:
        source: Input dimensions [N, C, spatial...].
        kernel: Kernel sizes.
        strides: Strides.
        pads: Padding before every spatial axis, then after.
    """

    source: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]

    @classmethod
    def of(cls, node: ir.Node) -> Window | None:
        """A normalised node's geometry; None where it is dilated or not all known."""
        source = dims_of(input_of(node, 0))
        attributes = node.attributes
        names = ("kernel_shape", "strides", "pads")
        if source is None or len(source) < 3 or any(name not in attributes for name in names):
            return None
        if "dilations" in attributes and set(attributes["dilations"].as_ints()) != {1}:
            return None
        kernel, strides, pads = (tuple(attributes[name].as_ints()) for name in names)
        return cls(source=source, kernel=kernel, strides=strides, pads=pads)

    def positions(self, axis: int, count: int) -> npt.NDArray[np.int64]:
        """Input coordinates [count, kernel] along a spatial axis; padding lies outside 0..size-1.

        Args:
            axis: The spatial axis, from 0.
            count: Output size along it.
        """
        starts = np.arange(count) * self.strides[axis] - self.pads[axis]
        made: npt.NDArray[np.int64] = starts[:, None] + np.arange(self.kernel[axis])[None, :]
        return made


def column_indices(window: Window, output: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """For every kernel element and output position, which input element it reads.

    Args:
        window: The geometry.
        output: The output's spatial sizes.

    Returns:
        [C, kernel elements, N, output positions]: row-major indices into the flattened input; the
        input's element count where padding is read.
    """
    batch, channels = window.source[:2]
    spatial = window.source[2:]
    rank = len(spatial)
    offsets = np.zeros((1,) * (2 * rank), dtype=np.int64)
    inside = np.ones((1,) * (2 * rank), dtype=bool)
    for axis, size in enumerate(spatial):
        # Axes: kernel 0..rank-1, then output positions.
        where = window.positions(axis, output[axis]).T
        shape = [1] * (2 * rank)
        shape[axis], shape[rank + axis] = where.shape
        step = math.prod(spatial[axis + 1 :])
        offsets = offsets + where.reshape(shape) * step
        inside = inside & ((where >= 0) & (where < size)).reshape(shape)
    per_channel = math.prod(spatial)
    images = np.arange(batch)[None, None, :, None] * channels
    planes = (images + np.arange(channels)[:, None, None, None]) * per_channel
    flat = offsets.reshape(1, math.prod(window.kernel), 1, math.prod(output))
    outside = ~np.broadcast_to(inside, offsets.shape).reshape(flat.shape)
    return np.where(outside, batch * channels * per_channel, planes + flat).astype(np.int64)


def gather_columns(
    build: Builder, data: ir.Value, indices: npt.NDArray[np.int64], count: int
) -> ir.Value:
    """Pick elements of a tensor by row-major index, `count` (its size) standing for zero."""
    flat = build.node("Reshape", [data, build.indices([count], "shape")])
    if (indices == count).any():
        zero = build.constant(np.zeros(1, dtype=np.float32), "zero")
        flat = build.node("Concat", [flat, zero], {"axis": 0})
    return build.node("Gather", [flat, build.indices(indices, "columns")], {"axis": 0})


class ConvIm2col:
    """The pass."""

    name = "conv-im2col"
    exactness: Exactness = "bounded"
    parameters = ANY_BITS

    def places(self, model: ir.Model) -> list[Rewrite]:
        """Every Conv that satisfies the precondition at `DEFAULT_BITS`."""
        return [
            Rewrite(name=self.name, node=str(node.name), parameter=DEFAULT_BITS)
            for node in model.graph
            if node.op_type == "Conv" and isinstance(_parts(node, DEFAULT_BITS), _Parts)
        ]

    def apply(self, model: ir.Model, rewrite: Rewrite) -> None:
        """Replace one Conv."""
        node = node_named(model, rewrite.node)
        parts = _parts(node, rewrite.parameter)
        if isinstance(parts, str):
            raise refuse(rewrite, parts)
        what = f"rewrite {self.name} at {rewrite.node}"
        check_kept(parts.exact, rewrite.parameter, -1, what)
        build = Builder(model, node, f"{rewrite.node}/{self.name}")
        columns = _columns(build, parts)
        weights = build.constant(parts.weight, "weights")
        sums = build.node("MatMul", [weights, columns])
        value = _shaped(build, sums, parts.output)
        if parts.bias is None:
            value = carried(build, value, rewrite.parameter)
        else:
            bias = parts.bias.reshape(1, -1, *[1] * (len(parts.output) - 2))
            shifted = build.node("Mul", [value, build.scalar(2.0**-rewrite.parameter)])
            value = build.node("Add", [shifted, build.constant(bias, "bias")])
        build.replace(node.outputs[0], value)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    data: ir.Value
    window: Window
    exact: npt.NDArray[np.float32]
    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32] | None
    output: tuple[int, ...]


def _parts(node: ir.Node, bits: int) -> _Parts | str:
    """What the rewrite is made of, or why it cannot be made."""
    if node.op_type != "Conv":
        return f"it is a {node.op_type}, not a Conv"
    data, weight, bias = input_of(node, 0), constant_of(input_of(node, 1)), None
    if input_of(node, 2) is not None:
        bias = constant_of(input_of(node, 2))
        if bias is None:
            return "its bias is not constant"
    if data is None or weight is None:
        return "its weights are not constant"
    window, output = Window.of(node), dims_of(node.outputs[0])
    if window is None or output is None:
        return "it is dilated, or a shape is not known"
    read = window.source[1] * math.prod(window.kernel)
    if output[0] * math.prod(output[2:]) * read > MAX_COLUMNS:
        return f"its columns would have more than {MAX_COLUMNS} elements"
    groups = node.attributes["group"].as_int()
    shape = (groups, len(weight) // groups, -1) if groups > 1 else (len(weight), -1)
    exact = weight.reshape(shape)
    integers = integer_weights(exact, bits)
    if not 1 <= bits <= 24 or integers is None:
        return f"its weights do not fit integers at {bits} bits"
    return _Parts(data=data, window=window, exact=exact, weight=integers, bias=bias, output=output)


def _shaped(build: Builder, value: ir.Value, output: tuple[int, ...]) -> ir.Value:
    """[(groups,) C of a group, N * positions] -> [N, C, spatial...]."""
    batch, channels, *spatial = output
    if batch == 1:
        return build.node("Reshape", [value, build.indices(output, "shape")])
    value = build.node("Reshape", [value, build.indices([channels, batch, *spatial], "shape")])
    return build.node("Transpose", [value], {"perm": [1, 0, *range(2, len(output))]})


def _columns(build: Builder, parts: _Parts) -> ir.Value:
    """[(groups,) C * kernel elements of a group, N * output positions]."""
    window, spatial = parts.window, parts.output[2:]
    rows = parts.weight.shape[-1]
    pointwise = {*window.kernel, *window.strides} == {1} and set(window.pads) == {0}
    groups = parts.weight.shape[:-2]
    positions = window.source[0] * math.prod(spatial)
    if pointwise and window.source[0] == 1:
        shape = build.indices([*groups, rows, positions], "shape")
        return build.node("Reshape", [parts.data, shape])
    indices = column_indices(window, spatial).reshape(*groups, rows, positions)
    return gather_columns(build, parts.data, indices, math.prod(window.source))
