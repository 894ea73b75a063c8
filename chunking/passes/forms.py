"""What the transformer passes share: reading patterns, writing nodes in integer arithmetic.

How ezkl 23.0.5 keeps scales, on which every pass that places rebases relies:

- a tensor is an integer over 2^s, its nominal scale; inputs and fractional constants start at the
  circuit's scale S, constants of whole numbers at 0 (`rebase_frac_zero_constants`), so multiplying
  by whole numbers leaves s as it is;
- multiplying by 2^-k only raises s by k: it is free, and rounds nothing;
- a product's scale is the sum of its operands'. An operator whose result exceeds S divides it back
  to S (a rebase, the dearest operation there is), except multiplication by 2^-k itself.

So integer weights W = round(2^k w) and one multiplication by 2^-k just before an operator make that
operator rebase, and no earlier one. A rebase divides by at most base^legs (2^28 by default), which
bounds S + the sum of all k that one rebase takes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx import numpy_helper

from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.passes.base import MADE_SUFFIX, Builder, only_user
from zkml_ray.errors import ChunkingError

Array = npt.NDArray[np.float64]


def constant(build: Builder, values: npt.ArrayLike, what: str) -> ir.Value:
    """Add a float32 constant."""
    return build.constant(np.asarray(values, dtype=np.float32), what)


def reshaped(build: Builder, data: ir.Value, shape: Sequence[int]) -> ir.Value:
    """Reshape; free in a circuit."""
    return build.node("Reshape", [data, build.indices(shape, "shape")])


def lowered(build: Builder, data: ir.Value, bits: int) -> ir.Value:
    """Multiply by 2^-bits: free, and the next operator rebases by as much more."""
    return build.node("Mul", [data, build.scalar(2.0**-bits)])


def is_lowered(graph: ModelGraph, value: str) -> bool:
    """Whether a tensor is one of `lowered`'s, which no cut may go through.

    A chunk gives its tensors at the inputs' scale: what has been made small, because the next
    operator makes it large again, would lose its digits there.
    """
    node = graph.nodes[graph.producer_of[value]]
    if not value.endswith(MADE_SUFFIX) or node.op_type != "Mul":
        return False
    factors = [graph.initializers[name] for name in node.input if name in graph.initializers]
    return any(not factor.dims and float(numpy_helper.to_array(factor)) < 1 for factor in factors)


def dense(build: Builder, data: ir.Value, weight: Array, bias: Array | None, bits: int) -> ir.Value:
    """Data @ weight + bias with whole-number weights and one rebase, after the bias.

    Args:
        build: Where to write.
        data: Shape [..., rows, width].
        weight: Shape [width, columns].
        bias: Shape [columns], or None.
        bits: Bits after the point of the weights.
    """
    columns = constant(build, whole(weight, bits), "weight")
    if bias is None or not bias.any():
        return build.node("MatMul", [lowered(build, data, bits), columns])
    product = build.node("MatMul", [data, columns])
    return build.node("Add", [lowered(build, product, bits), constant(build, bias, "bias")])


def total_of(build: Builder, parts: Sequence[ir.Value]) -> ir.Value:
    """The sum of tensors of one shape."""
    total = parts[0]
    for part in parts[1:]:
        total = build.node("Add", [total, part])
    return total


def whole(values: Array, bits: int) -> Array:
    """round(values * 2^bits): weights as whole numbers.

    Raises:
        ChunkingError: One of them is too large to be a float32 exactly.
    """
    rounded = np.rint(values * 2.0**bits)
    if np.abs(rounded).max(initial=0) > 1 << 24:
        raise ChunkingError(f"weights of {bits} bits after the point exceed 24 bits in all")
    return np.asarray(rounded, dtype=np.float64)


def numbers_of(value: ir.Value | None) -> Array | None:
    """A constant's values, or None where the value is none, or no constant."""
    if value is None:
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else np.asarray(tensor.numpy(), dtype=np.float64)


def scalar_of(value: ir.Value | None) -> float | None:
    """The one number of a constant of one element, or None."""
    constant = numbers_of(value)
    return None if constant is None or constant.size != 1 else float(constant.reshape(()))


def shape_of(value: ir.Value | None) -> tuple[int, ...]:
    """A tensor's static shape.

    Raises:
        ChunkingError: It is not known.
    """
    if value is None or value.shape is None or not value.shape.is_static():
        raise ChunkingError("a rewrite needs the shapes of the tensors around it")
    return tuple(int(size) for size in value.shape.numpy())


def unscaled(value: ir.Value | None) -> tuple[ir.Value | None, float]:
    """Follow products with and divisions by single constants back.

    Returns:
        (source, factor) with value = factor * source.
    """
    factor = 1.0
    while value is not None:
        node = value.producer()
        if node is None or node.op_type not in ("Mul", "Div"):
            break
        left, right = node.inputs
        if (number := scalar_of(right)) is not None:
            value, factor = left, factor * number if node.op_type == "Mul" else factor / number
        elif node.op_type == "Mul" and (number := scalar_of(left)) is not None:
            value, factor = right, factor * number
        else:
            break
    return value, factor


def with_bias(value: ir.Value | None) -> tuple[ir.Value | None, Array | None]:
    """(data, constant) where value = data + constant; (value, None) where it is no such sum."""
    node = None if value is None else value.producer()
    if node is not None and node.op_type == "Add":
        for data, other in (node.inputs, node.inputs[::-1]):
            constant = numbers_of(other)
            if constant is not None and numbers_of(data) is None:
                return data, constant
    return value, None


def bias_user(value: ir.Value) -> tuple[ir.Value, Array | None]:
    """(sum, constant) where the only use of a tensor adds a constant; (value, None) otherwise."""
    node = only_user(value)
    if node is not None and node.op_type == "Add":
        total, constant = with_bias(node.outputs[0])
        if total is value and constant is not None:
            return node.outputs[0], constant
    return value, None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense:
    """A dense layer as exporters write it: data @ weight + bias.

    Attributes:
        data: What it reads, shape [..., rows, width].
        weight: Shape [width, columns], constant.
        bias: Shape [columns], or None.
        output: Its result.
    """

    data: ir.Value
    weight: Array
    bias: Array | None
    output: ir.Value


def dense_before(value: ir.Value | None) -> Dense | None:
    """The dense layer whose result a tensor is."""
    product, bias = with_bias(value)
    node = None if product is None else product.producer()
    return None if node is None or value is None else _dense(node, bias, value)


def dense_after(value: ir.Value) -> Dense | None:
    """The dense layer that alone reads a tensor, as its data."""
    node = only_user(value)
    if node is None:
        return None
    output, bias = bias_user(node.outputs[0])
    found = _dense(node, bias, output)
    return found if found is not None and found.data is value else None


def _dense(node: ir.Node, bias: Array | None, output: ir.Value) -> Dense | None:
    if node.op_type != "MatMul":
        return None
    data, weight = node.inputs[0], numbers_of(node.inputs[1])
    if data is None or weight is None or weight.ndim != 2:
        return None
    if bias is not None and bias.size != weight.shape[1]:
        return None
    row = None if bias is None else bias.reshape(-1)
    return Dense(data=data, weight=weight, bias=row, output=output)
