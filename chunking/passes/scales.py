"""Where ezkl rescales, and how a pass moves that to where it is cheap.

ezkl gives every tensor a scale (log2 of its fixed-point denominator). After an operator whose
result's scale exceeds the target T = max(input scale, parameter scale) * multiplier, it divides
the result back to T: a *rebase*, about 64 cells an element. Three facts of ezkl 23.0.5 under
`rebase_frac_zero_constants=True` (src/graph/node.rs, src/graph/utilities.rs):

- multiplying by the constant 2^-k (k >= 1, one element) is an identity that raises the scale by k:
  no cell, no rebase, the integers stay as they are;
- a constant of whole numbers has scale 0: multiplying by it raises no scale;
- any operator but such an identity is rebased when its result's scale is above T.

So weights times 2^w rounded to integers give sums 2^w too large at the scale of the input, and the
`Mul` by 2^-w tells ezkl so; the next operator after it carries the rebase. The tensor before that
`Mul` is *deferred*: the same real numbers times 2^k, not yet rebased. Sums, maxima and ReLU cost
the same on deferred tensors, and a rebase after a pooling is paid once a window.

What a pass leaves behind never ends in the `Mul`: the carrier is part of the rewrite and an
addition. An operator that follows by chance would change what is rebased, and a reshape is none
for sure: tract removes some and turns others into changes of axes that ezkl never rebases.

A deferred tensor is 2^k times larger: it must stay inside the decomposition's range wherever a
later operator takes it apart. Weight bits are chosen accordingly (`zkml_ray.chunking.choose`), and
a value that leaves the range makes the witness stage fail, never a wrong proof.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from zkml_ray.chunking.passes.base import Builder, constant_of, input_of, only_user

_MOVES = frozenset({"Flatten", "Gather", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_EXACT_FLOAT = float(1 << 24)


@dataclass(frozen=True, slots=True)
class Deferred:
    """A tensor that is the wanted one times 2^bits.

    Attributes:
        value: The tensor.
        bits: log2 of the factor, at least 1.
    """

    value: ir.Value
    bits: int


def integer_weights(weight: npt.NDArray[np.float32], bits: int) -> npt.NDArray[np.float32] | None:
    """Weights times 2^bits, rounded half away from zero as ezkl does; None if too large.

    Args:
        weight: The weights.
        bits: log2 of the factor.
    """
    scaled = np.ldexp(weight.astype(np.float64), bits)
    rounded = np.copysign(np.floor(np.abs(scaled) + 0.5), scaled)
    if not np.isfinite(rounded).all() or np.abs(rounded).max(initial=0.0) > _EXACT_FLOAT:
        return None
    return (rounded + 0.0).astype(np.float32)


def shift_of(node: ir.Node | None) -> tuple[ir.Value, int] | None:
    """What a `Mul` by 2^-k multiplies, and k >= 1; None for any other node."""
    if node is None or node.op_type != "Mul":
        return None
    for index in (0, 1):
        factor, other = constant_of(node.inputs[index]), node.inputs[1 - index]
        if factor is not None and factor.size == 1 and other is not None:
            mantissa, exponent = math.frexp(float(factor.reshape(-1)[0]))
            if mantissa == 0.5 and exponent <= 0:
                return other, 1 - exponent
    return None


def can_defer(value: ir.Value | None) -> bool:
    """Whether `deferred` finds something for this tensor."""
    return value is not None and only_user(value) is not None and deferred_bits(value) > 0


def deferred(build: Builder, value: ir.Value) -> Deferred:
    """Make a tensor's deferred form, ahead of its rebase.

    Precondition: `can_defer(value)`. The old nodes lose their reader and fall away. Exact in
    reals; the integers differ only in where they are rounded.
    """
    node = value.producer()
    shift = shift_of(node)
    if shift is not None:
        return Deferred(*shift)
    if node is None:
        raise AssertionError("can_defer holds only for a node's result")
    if node.op_type in _MOVES:
        inner = deferred(build, _input(node, 0))
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        rest = [_input(node, index) for index in range(1, len(node.inputs))]
        return Deferred(build.node(node.op_type, [inner.value, *rest], attributes), inner.bits)
    halves = _halves(node)
    if halves is not None:
        left, right, bits = halves
        if left is right:
            return Deferred(left, bits - 1)
        return Deferred(build.node("Add", [left, right]), bits)
    index, bias = _bias(node)
    inner = deferred(build, _input(node, 1 - index))
    shifted = np.ldexp(bias, inner.bits).astype(np.float32)
    constant = build.constant(shifted, "bias")
    return Deferred(build.node("Add", [inner.value, constant]), inner.bits)


def carried(build: Builder, value: ir.Value, bits: int) -> ir.Value:
    """A tensor times 2^-bits, rebased by an addition of two halves."""
    half = build.node("Mul", [value, build.scalar(2.0 ** -(bits + 1))])
    return build.node("Add", [half, half])


def carried_sum(build: Builder, left: ir.Value, right: ir.Value, bits: int) -> ir.Value:
    """(left + right) * 2^-bits, for bits >= 1: the sum is rebased."""
    factors = [build.scalar(2.0**-bits) for _ in range(2)]
    return build.node(
        "Add",
        [build.node("Mul", [part, f]) for part, f in zip((left, right), factors, strict=True)],
    )


def deferred_bits(value: ir.Value) -> int:
    """Bits of a tensor's deferred form; 0 if it has none."""
    if only_user(value) is None and not _read_twice_by_one(value):
        return 0
    node = value.producer()
    if node is None:
        return 0
    shift = shift_of(node)
    if shift is not None:
        return shift[1]
    if node.op_type in _MOVES:
        return deferred_bits(_input(node, 0))
    if node.op_type != "Add":
        return 0
    halves = _halves(node)
    if halves is not None:
        return halves[2] - 1 if halves[0] is halves[1] else halves[2]
    index, _ = _bias(node)
    return 0 if index < 0 else deferred_bits(_input(node, 1 - index))


def _halves(node: ir.Node) -> tuple[ir.Value, ir.Value, int] | None:
    """The two tensors and the shift of `Add(Mul(a, 2^-k), Mul(b, 2^-k))`."""
    if node.op_type != "Add":
        return None
    values = [_input(node, index) for index in (0, 1)]
    shifts = [shift_of(value.producer()) for value in values]
    if shifts[0] is None or shifts[1] is None or shifts[0][1] != shifts[1][1]:
        return None
    if not all(only_user(value) is not None or _read_twice_by_one(value) for value in values):
        return None
    return shifts[0][0], shifts[1][0], shifts[0][1]


def _bias(node: ir.Node) -> tuple[int, npt.NDArray[np.float32]]:
    """Which input of an `Add` is constant, and its value; -1 if none is."""
    for index in (0, 1):
        value = constant_of(input_of(node, index))
        if value is not None:
            return index, value
    return -1, np.zeros(0, dtype=np.float32)


def _read_twice_by_one(value: ir.Value) -> bool:
    users = list(value.uses())
    return len(users) == 2 and users[0][0] is users[1][0] and not value.is_graph_output()


def _input(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    if value is None:
        raise AssertionError(f"{node.name} lacks input {index}")
    return value
