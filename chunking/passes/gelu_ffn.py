"""Pass gelu-ffn: dense, GELU in its Erf form, dense, with three rebases, in parts.

Precondition: f u (1 + erf(a u)) @ W2 + b2 with u = x @ W1 + b1, weights constant; the scalars a and
f stand anywhere among the factors; nothing else reads what lies between x and the result. x is no
product with a single constant, as it is in this pass's own result. Rounding leaves every column's
weights what they are (`precision`).

Postcondition: the hidden units are dealt out to as many parts as the parameter says. Each part has
v = x @ (a W1) + a b1, w = v (1 + erf(v)) and w @ (f / a) W2, rebased once each, all weights whole
numbers; the result is the sum of the parts. A part's result is as small as the layer's, so parts
can be proved in circuits of their own.

Exactness: bounded. Weights are rounded to `WEIGHT_BITS` after the point, finer than the scale at
which ezkl would hold them. v must stay within the table of Erf.

Why: the hidden layer is 4 to 6 times as wide as x, and ezkl rebases it at the first product, its
bias, at a u, at the product with 1 + erf and at the half.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir as ir

from zkml_ray.chunking.passes.base import ANY_PARTS, Builder, only_user
from zkml_ray.chunking.passes.forms import (
    Dense,
    bias_user,
    constant,
    dense,
    dense_after,
    dense_before,
    scalar_of,
    total_of,
    unscaled,
)
from zkml_ray.chunking.passes.pattern import PatternPass
from zkml_ray.chunking.passes.precision import check_kept

WEIGHT_BITS: Final = 18
"""Bits after the point of the weights; a rebase takes back no more than these."""

HIDDEN_BITS: Final = 3
"""Extra bits of the hidden layer after the activation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ffn:
    first: Dense
    second: Dense
    inner: float
    outer: float

    @property
    def output(self) -> ir.Value:
        return self.second.output


def _write(build: Builder, ffn: _Ffn, count: int) -> None:
    results: list[ir.Value] = []
    outer = ffn.outer / ffn.inner * ffn.second.weight
    for weights in (ffn.inner * ffn.first.weight, outer):
        check_kept(weights, WEIGHT_BITS, 0, f"feed-forward that makes {ffn.output.name}")
    for units in np.array_split(np.arange(len(ffn.second.weight)), count):
        bias = None if ffn.first.bias is None else ffn.inner * ffn.first.bias[units]
        first = ffn.inner * ffn.first.weight[:, units]
        hidden = dense(build, ffn.first.data, first, bias, WEIGHT_BITS)
        grown = build.node("Add", [build.node("Erf", [hidden]), constant(build, 1.0, "one")])
        grown = build.node("Mul", [grown, constant(build, 2.0**HIDDEN_BITS, "raise")])
        second = outer[units] * 2.0**-HIDDEN_BITS
        active = build.node("Mul", [hidden, grown])
        bias = None if results else ffn.second.bias
        results.append(dense(build, active, second, bias, WEIGHT_BITS + HIDDEN_BITS))
    build.replace(ffn.output, total_of(build, results))


def _match(erf: ir.Node) -> _Ffn | None:
    if erf.op_type != "Erf":
        return None
    hidden, inner = unscaled(erf.inputs[0])
    total, one = bias_user(erf.outputs[0])
    if hidden is None or one is None or one.size != 1 or float(one.reshape(())) != 1.0:
        return None
    outer, found = 1.0, False
    node = only_user(total)
    while node is not None and node.op_type in ("Mul", "Div"):
        other = node.inputs[1] if node.inputs[0] is total else node.inputs[0]
        number = scalar_of(other)
        if number is not None:
            if node.op_type == "Div" and node.inputs[0] is not total:
                return None
            outer = outer * number if node.op_type == "Mul" else outer / number
        else:
            source, factor = unscaled(other)
            if found or node.op_type == "Div" or source is not hidden:
                return None
            outer, found = outer * factor, True
        total = node.outputs[0]
        node = only_user(total)
    first, second = dense_before(hidden), dense_after(total)
    if not found or first is None or second is None:
        return None
    if unscaled(first.data)[0] is not first.data:
        return None
    return _Ffn(first=first, second=second, inner=inner, outer=outer)


GELU_FFN: Final = PatternPass(
    name="gelu-ffn",
    parameters=ANY_PARTS,
    default=1,
    label="ffn",
    missing="is no Erf between two dense layers",
    match=_match,
    write=_write,
    parts=lambda ffn: (len(ffn.second.weight), "hidden units"),
)
"""See the module."""
