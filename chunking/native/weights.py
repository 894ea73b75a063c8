"""Products with constant weights that would be rounded too coarsely.

ezkl rounds weights to the circuit's scale S, an absolute step of 2^-S. Where that moves the weights
of an output by a share that shows, they become whole numbers, and a product with 2^-bits in front
of an addition, of the bias or of two halves, gives the result back with one rebase, as before.
"""

from __future__ import annotations

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
    bias = constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if weight is None or not coarse_weights(weight.reshape(len(weight), -1), write.scale):
        return False
    if bias is None and len(node.input) > 2 and node.input[2]:
        return False
    data, raised = chunk.source(write, node.input[0], MAX_TAKEN_IN)
    whole, bits = whole_and_bits(np.ldexp(weight, -raised), write.max_bits)
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    product = write.node("Conv", [data, write.constant(whole)], **attributes)
    if bias is not None:
        bias = bias.reshape(1, -1, *[1] * (weight.ndim - 2))
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
    left, right = constants.get(node.input[0]), constants.get(node.input[1])
    added = node.input[2] if len(node.input) > 2 and node.input[2] else None
    turn_left, turn_right = bool(given.get("transA", 0)), bool(given.get("transB", 0))
    small = right is not None and coarse_weights(right if turn_right else right.T, write.scale)
    if alpha == 1 and (beta == 1 or added is None) and not small:
        return False
    sides = []
    for index, turned in ((0, turn_left), (1, turn_right)):
        name = node.input[index]
        if name not in constants:
            name, _ = chunk.source(write, name, 0)
        sides.append(write.node("Transpose", [name], perm=[1, 0]) if turned else name)
    bias = None if added is None else constants.get(added)
    if right is not None and left is None:
        weight = alpha * (right.T if turn_right else right)
        if coarse_weights(weight.T, write.scale):
            whole, bits = whole_and_bits(weight, write.max_bits)
        else:
            whole, bits = weight, 0
        product = write.node("MatMul", [sides[0], write.constant(whole)])
    else:
        product, bits = write.node("MatMul", sides), 0
        if alpha != 1:
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


def _by_output(node: onnx.NodeProto, index: int, weight: Reals) -> Reals:
    if node.op_type == "MatMul" and weight.ndim == 2:
        return weight if index == 0 else weight.T
    return weight.reshape(1, -1)
