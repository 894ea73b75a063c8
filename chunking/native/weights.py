"""Products with constant weights that would be rounded too coarsely.

ezkl rounds weights to the circuit's scale S, an absolute step of 2^-S. Where that moves the weights
of an output by a share that shows, they become whole numbers, and a product with 2^-bits in front
of an addition, of the bias or of two halves, gives the result back with one rebase, as before.
"""

from __future__ import annotations

import math
from typing import Final, Protocol

import numpy as np
import onnx

from zkml_ray.chunking.native.writer import Reals, Writer, is_whole, whole_and_bits

COARSE: Final = 2.0**-10
"""Weights are made whole where rounding moves those of one output by a larger share (Euclidean)."""


MAX_TAKEN_IN: Final = 8
"""Largest power of two before a product that is taken into its weights, which lose as many bits."""


def coarse_weights(rows: Reals, scale: int) -> bool:
    """Whether an output's weights lose too many digits at a scale.

    Args:
        rows: Per output, its weights; shape [outputs, weights].
        scale: The circuit's.
    """
    if is_whole(rows) or not np.isfinite(rows).all():
        return False
    lost = np.rint(np.ldexp(rows, scale)) - np.ldexp(rows, scale)
    norm = np.sqrt((np.ldexp(rows, scale) ** 2).sum(axis=1))
    return bool((np.sqrt((lost**2).sum(axis=1)) > COARSE * norm).any())


class Chunk(Protocol):
    """What is read of the chunk."""

    def float_constants(self, node: onnx.NodeProto) -> dict[str, Reals]:
        """A node's constant inputs."""

    def source(self, write: Writer, data: str, most: int) -> tuple[str, int]:
        """A tensor at the circuit's scale, and bits, of which 2^-bits times it is the data."""


def lower_conv(chunk: Chunk, write: Writer, node: onnx.NodeProto) -> bool:
    """Convolution. The weights are [channels, channels a group, ...]."""
    constants = chunk.float_constants(node)
    weight = constants.get(node.input[1])
    added = node.input[2] if len(node.input) > 2 else ""
    if weight is None or not coarse_weights(weight.reshape(len(weight), -1), write.scale):
        return False
    data, raised = chunk.source(write, node.input[0], MAX_TAKEN_IN)
    whole, bits = whole_and_bits(np.ldexp(weight, -raised), write.max_bits)
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    product = write.node("Conv", [data, write.constant(whole)], **attributes)
    by_channel = (1, len(weight), *[1] * (weight.ndim - 2))
    if added and added not in constants:
        product = write.halved(write.shifted(product, bits + 1)) if bits else product
        spread = write.node("Reshape", [added, write.indices(by_channel)])
        write.node("Add", [product, spread], to=node.output[0])
        return True
    bias = constants[added].reshape(by_channel) if added else None
    scaled_sum(write, product, bits, bias, node.output[0])
    return True


def lower_product(chunk: Chunk, write: Writer, node: onnx.NodeProto) -> bool:
    """MatMul and Einsum of two operands, one of which is constant."""
    constants = chunk.float_constants(node)
    found = [index for index, name in enumerate(node.input) if name in constants]
    if len(found) != 1 or len(node.input) != 2:
        return False
    weight = constants[node.input[found[0]]]
    if not coarse_weights(_by_output(node, found[0], weight), write.scale):
        return False
    inputs = list(node.input)
    data, raised = chunk.source(write, inputs[1 - found[0]], MAX_TAKEN_IN)
    whole, bits = whole_and_bits(np.ldexp(weight, -raised), write.max_bits)
    inputs[found[0]], inputs[1 - found[0]] = write.constant(whole), data
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    product = write.node(node.op_type, inputs, **attributes)
    scaled_sum(write, product, bits, None, node.output[0])
    return True


def lower_gemm(chunk: Chunk, write: Writer, node: onnx.NodeProto) -> bool:
    """Gemm: alpha A B + beta C, as a product and a sum where a factor or weights need it."""
    constants = chunk.float_constants(node)
    given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    alpha, beta = float(given.get("alpha", 1.0)), float(given.get("beta", 1.0))
    added = node.input[2] if len(node.input) > 2 and node.input[2] else None
    turns = [bool(given.get(name, 0)) for name in ("transA", "transB")]
    weights = [
        values.T if turned and values is not None else values
        for values, turned in zip(map(constants.get, node.input[:2]), turns, strict=True)
    ]
    small = any(
        values is not None and coarse_weights(_rows(values, index), write.scale)
        for index, values in enumerate(weights)
    )
    if alpha == 1 and (beta == 1 or added is None) and not small:
        return False
    one_constant = (weights[0] is None) != (weights[1] is None)
    sides, bits = [], 0
    for name, values, turned, index in zip(node.input[:2], weights, turns, (0, 1), strict=True):
        if one_constant and values is not None:
            factors = alpha * values
            if coarse_weights(_rows(factors, index), write.scale):
                factors, bits = whole_and_bits(factors, write.max_bits)
            sides.append(write.constant(factors))
            continue
        data = name if values is not None else chunk.source(write, name, 0)[0]
        sides.append(write.node("Transpose", [data], perm=[1, 0]) if turned else data)
    bias = None if added is None else constants.get(added)
    product = write.node("MatMul", sides)
    if alpha != 1 and not one_constant:
        product = write.times(product, np.array(alpha))
    if added is None:
        _finished(write, product, bits, node.output[0])
        return True
    if bias is not None:
        scaled_sum(write, product, bits, beta * bias, node.output[0])
        return True
    if bits:
        product = write.halved(write.shifted(product, bits + 1))
    other = added if beta == 1 else write.times(added, np.array(beta))
    write.node("Add", [product, other], to=node.output[0])
    return True


def scaled_sum(write: Writer, product: str, bits: int, bias: Reals | None, output: str) -> None:
    """Write product 2^-bits + bias with one rebase.

    Args:
        write: Where to.
        product: A tensor at its input's scale.
        bits: What its weights were raised by.
        bias: Constants that broadcast against it, or None.
        output: Name of the result.
    """
    if bias is None or not bias.any():
        _finished(write, product, bits, output)
    else:
        moved = write.shifted(product, bits) if bits else product
        write.node("Add", [moved, write.constant(bias)], to=output)


def _finished(write: Writer, product: str, bits: int, output: str) -> None:
    if bits:
        write.halved(write.shifted(product, bits + 1), to=output)
    else:
        write.node("Identity", [product], to=output)


def _rows(matrix: Reals, index: int) -> Reals:
    """The weights of each output: rows of a product's left side, columns of its right one."""
    return matrix if index == 0 else matrix.T


def _by_output(node: onnx.NodeProto, index: int, weight: Reals) -> Reals:
    """The weights of each output: [outputs, weights].

    Args:
        node: A MatMul, or an Einsum of two operands that share the letters they sum over.
        index: Which operand the weights are.
        weight: The weights.
    """
    if node.op_type == "MatMul":
        summed = {weight.ndim - 1 if index == 0 or weight.ndim == 1 else weight.ndim - 2}
    else:
        equation = next(a.s.decode() for a in node.attribute if a.name == "equation")
        terms, _, result = equation.replace(" ", "").partition("->")
        letters = terms.split(",")[index]
        summed = {axis for axis, letter in enumerate(letters) if letter not in result}
    kept = [axis for axis in range(weight.ndim) if axis not in summed]
    outputs = math.prod(weight.shape[axis] for axis in kept)
    found: Reals = weight.transpose(*kept, *sorted(summed)).reshape(outputs, -1)
    return found
