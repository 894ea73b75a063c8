"""Products, quotients and means: factors that keep their precision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx

from zkml_ray.chunking.native.chunk import Chunk, attributes
from zkml_ray.chunking.native.weights import lower_conv, lower_product
from zkml_ray.chunking.native.windows import lower_dilated
from zkml_ray.chunking.native.writer import Reals, Writer, power_of_two
from zkml_ray.errors import ChunkingError

MAX_POWER: Final = 64
"""Larger whole powers are left to ezkl: they leave every range."""


def times_constants(chunk: Chunk, write: Writer, node: onnx.NodeProto) -> bool:
    """A product with constants; one of two tensors stays."""
    constants = chunk.float_constants(node)
    if len(constants) != 1 or len(node.input) != 2 or node.input[0] == node.input[1]:
        return False
    name, values = next(iter(constants.items()))
    shift = power_of_two(values)
    if (values == np.floor(values)).all() or (shift is not None and shift <= write.max_bits):
        return False
    data = node.input[1] if node.input[0] == name else node.input[0]
    return chunk.factor(write, data, values, node.output[0])


def divide(chunk: Chunk, write: Writer, node: onnx.NodeProto) -> bool:
    """A quotient by constants, or by a tensor."""
    divisor, dividend = (chunk.values(name) for name in (node.input[1], node.input[0]))
    if divisor is None:
        return quotient(chunk, write, node)
    if dividend is not None:
        return False
    if not divisor.all():
        raise ChunkingError(f"node {node.name}: Div by a constant that is 0 cannot be proved")
    return chunk.factor(write, node.input[0], 1.0 / divisor, node.output[0])


def quotient(chunk: Chunk, write: Writer, node: onnx.NodeProto) -> bool:
    """The quotient x / y by a reciprocal of y with spare bits, and what is left of x once more.

    ezkl rounds 1/y to the scale S. Here y is lowered by 2^j, nominally, for which its reciprocal
    has j bits more: at most so many that the reciprocal of 2^-S stays within the range. Then
    q = x r is off by a share e of about y 2^-(S + j), and q + (x - q y) r by e^2.
    """
    dividend, divisor = (
        name if chunk.values(name) is not None else chunk.source(write, name, 0)[0]
        for name in node.input
    )
    quotient_of(write, dividend, divisor, node.output[0], chunk.values(dividend), chunk.scale)
    return True


def quotient_of(
    write: Writer,
    dividend: str,
    divisor: str,
    to: str,
    constant: Reals | None,
    scale: int,
) -> None:
    """See `quotient`.

    Args:
        write: Where to.
        dividend: At the circuit's scale, or a constant.
        divisor: At the circuit's scale.
        to: Name of the result.
        constant: The dividend's numbers, where it is a constant.
        scale: The circuit's scale.
    """
    spare = max(0, write.max_bits // 2 - scale)
    inverse = write.node("Reciprocal", [write.shifted(divisor, spare) if spare else divisor])

    def quotient(of: str) -> str:
        return write.node("Mul", [write.shifted(of, spare) if spare else of, inverse])

    if constant is None:
        first = quotient(dividend)
    else:
        first = write.times(inverse, np.ldexp(constant, -spare))
    rest = write.node("Sub", [dividend, write.node("Mul", [first, divisor])])
    write.node("Add", [first, quotient(rest)], to=to)


def mean(chunk: Chunk, write: Writer, node: onnx.NodeProto) -> bool:
    """A sum times 1/n."""
    if node.op_type == "GlobalAveragePool":
        axes: list[int] | None = list(range(2, len(chunk.shape(node.input[0]))))
        keep = 1
    else:
        axes = chunk.whole_axes(node)
        keep = int(str(attributes(node).get("keepdims", 1)))
    if axes is None:
        return False
    _average(chunk, write, node.input[0], axes, keep, node.output[0])
    return True


def _average(
    chunk: Chunk, write: Writer, data: str, axes: Sequence[int], keep: int, to: str | None
) -> str:
    shape = chunk.shape(data)
    count = math.prod(shape[axis] for axis in axes)
    total = write.node("ReduceSum", [data, write.indices(axes)], keepdims=keep)
    return divided(write, total, count, to)


def divided(write: Writer, total: str, count: int, to: str | None = None) -> str:
    """A sum over `count`, rebased."""
    shift = power_of_two(np.array(1.0 / count))
    if shift is not None and shift < write.max_bits:
        return write.halved(write.shifted(total, shift + 1), to=to)
    if count == 1:
        return write.node("Identity", [total], to=to)
    return write.times(total, np.array(1.0 / count), to=to)


def matmul(chunk: Chunk, write: Writer, node: onnx.NodeProto) -> bool:
    """A product that repeats one of its batches, which ezkl cannot lay out, repeats it first."""
    constants = chunk.float_constants(node)
    if constants or any(len(chunk.shape(name)) < 3 for name in node.input):
        return lower_product(chunk, write, node)
    shapes = [chunk.shape(name) for name in node.input]
    batches = [shape[:-2] for shape in shapes]
    whole = np.broadcast_shapes(*batches)
    if all(batch == whole for batch in batches):
        return False
    sides = []
    for name, shape in zip(node.input, shapes, strict=True):
        raised = (*[1] * (len(whole) + 2 - len(shape)), *shape)
        made = (*whole, *shape[-2:])
        side = name if raised == shape else write.node("Reshape", [name, write.indices(raised)])
        sides.append(side if raised == made else write.node("Expand", [side, write.indices(made)]))
    write.node("MatMul", sides, to=node.output[0])
    return True


def power(chunk: Chunk, write: Writer, node: onnx.NodeProto) -> bool:
    """A whole power above 2 as products: ezkl would divide by 2^((n - 1) S) at once."""
    exponent = chunk.values(node.input[1])
    if exponent is None or exponent.size != 1 or chunk.values(node.input[0]) is not None:
        return False
    number = float(exponent.reshape(-1)[0])
    if not 3 <= number <= MAX_POWER or number != int(number):
        return False
    factor, result = node.input[0], ""
    for digit in reversed(f"{int(number):b}"):
        if digit == "1":
            result = write.node("Mul", [result, factor]) if result else factor
        factor = write.node("Mul", [factor, factor])
    write.nodes.pop()
    write.node("Identity", [result], to=node.output[0])
    return True


def conv(chunk: Chunk, write: Writer, node: onnx.NodeProto) -> bool:
    """A convolution with dilations as one without, and small weights."""
    plain = lower_dilated(write, node, chunk.shape(node.input[0]))
    if plain is None:
        return lower_conv(chunk, write, node)
    kept = list(write.nodes)
    if not lower_conv(chunk, write, plain):
        write.nodes = [*kept, plain]
    return True
