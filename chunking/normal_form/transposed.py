"""ConvTranspose as a convolution.

ezkl puts the output elsewhere where output_shape gives its size, and refuses groups and dilations.
So the operator is written with those that both read alike: zeros between the
elements of the input (a constant Gather, from an input with one zero more), and a convolution
with the kernel turned round, once for every channel of the output. Exact.

With x spread by the stride s, y[o] = sum over k of x[o + before - d k] w[k], and padding, output
padding, output_shape and auto_pad only say which o there are. The definition is in ONNX's
Operators.md, ConvTranspose-11.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from zkml_ray.chunking.normal_form.graph import (
    Place,
    array_of,
    data_of,
    described,
    integer,
    ints,
    sizes,
    text,
)
from zkml_ray.chunking.normal_form.structure import refuse_operators
from zkml_ray.errors import ChunkingError


class ExpandTransposedConvolution(InPlacePass):
    """Pre: shapes known, constants are initializers. Post: no ConvTranspose. Exact."""

    def call(self, model: ir.Model) -> PassResult:
        """Replace every ConvTranspose."""
        found = [node for node in model.graph if node.op_type == "ConvTranspose"]
        for node in found:
            _expand(model, node)
        return PassResult(model, modified=bool(found))

    def ensures(self, model: ir.Model) -> None:
        """None is left."""
        refuse_operators(model, frozenset({"ConvTranspose"}))


def _expand(model: ir.Model, node: ir.Node) -> None:
    place, data = Place(model, node), data_of(node)
    weight = array_of(node, 1)
    shape = list(sizes(data, node))
    rank = len(shape) - 2
    if weight is None or weight.ndim != len(shape):
        raise ChunkingError(f"{described(node)} lacks weights of {len(shape)} dimensions")
    kernel = list(weight.shape[2:])
    strides = ints(node, "strides", [1] * rank)
    dilations = ints(node, "dilations", [1] * rank)
    made = sizes(node.outputs[0], node)[2:]
    before = _padding_before(node, shape[2:], kernel, made)
    shape = [size + (1 if axis >= 2 else 0) for axis, size in enumerate(shape)]
    pads = place.integers([0] * len(shape) + [0, 0] + [1] * rank)
    data = place.node("Pad", [data, pads], shape)
    for axis in range(rank):
        size, stride = shape[2 + axis] - 1, strides[axis]
        reach = dilations[axis] * (kernel[axis] - 1)
        spread = np.arange(before[axis] - reach, before[axis] + made[axis])
        there = (spread % stride == 0) & (spread >= 0) & (spread // stride < size)
        index = np.where(there, spread // stride, size)
        shape[2 + axis] = len(index)
        data = place.node("Gather", [data, place.integers(index)], shape, axis=2 + axis)
    group = integer(node, "group", 1)
    turned = place.floats(_turned(weight, group))
    inputs = [data, turned, *[v for v in node.inputs[2:3] if v is not None]]
    attributes = {
        "kernel_shape": kernel,
        "strides": [1] * rank,
        "dilations": dilations,
        "pads": [0] * (2 * rank),
        "group": group,
    }
    place.finish(place.node("Conv", inputs, sizes(node.outputs[0], node), **attributes))


def _padding_before(
    node: ir.Node, source: list[int], kernel: list[int], made: tuple[int, ...]
) -> list[int]:
    """How far into the spread input's reach the output begins, per axis."""
    rank = len(source)
    strides = ints(node, "strides", [1] * rank)
    dilations = ints(node, "dilations", [1] * rank)
    extra = ints(node, "output_padding", [0] * rank)
    auto = text(node, "auto_pad", "NOTSET")
    if auto == "VALID":
        return [0] * rank
    if auto == "NOTSET" and "output_shape" not in node.attributes:
        return ints(node, "pads", [0] * (2 * rank))[:rank]
    found = []
    for axis in range(rank):
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        total = strides[axis] * (source[axis] - 1) + extra[axis] + reach - made[axis]
        # A negative total is room at the end, as every implementation has it.
        half = max(total, 0) // 2
        found.append(half if auto == "SAME_UPPER" else max(total, 0) - half)
    return found


def _turned(weight: npt.NDArray[np.generic], group: int) -> npt.NDArray[np.generic]:
    """[channels in, channels out a group, ...] as [channels out, channels in a group, ...]."""
    read, given, *kernel = weight.shape
    parts = weight.reshape(group, read // group, given, *kernel)
    turned = np.swapaxes(parts, 1, 2).reshape(group * given, read // group, *kernel)
    return np.flip(turned, axis=tuple(range(2, turned.ndim)))
