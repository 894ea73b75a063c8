"""Pass gelu-ffn: dense, GELU in its Erf form, dense, with three rebases, in parts.

Precondition: f u (1 + erf(a u)) @ W2 + b2 with u = x @ W1 + b1, weights constant; the scalars a and
f stand anywhere among the factors; nothing else reads what lies between x and the result. x is no
product with a single constant, as it is in this pass's own result.

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

from zkml_ray.chunking.passes.base import (
    ANY_PARTS,
    Builder,
    Exactness,
    Rewrite,
    node_named,
    only_user,
)
from zkml_ray.chunking.passes.forms import (
    Array,
    bias_user,
    constant,
    dense,
    numbers_of,
    scalar_of,
    total_of,
    unscaled,
    with_bias,
)
from zkml_ray.errors import ChunkingError

WEIGHT_BITS: Final = 18
"""Bits after the point of the weights; a rebase takes back no more than these."""

HIDDEN_BITS: Final = 3
"""Extra bits of the hidden layer after the activation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ffn:
    data: ir.Value
    first: Array
    first_bias: Array | None
    second: Array
    second_bias: Array | None
    output: ir.Value
    inner: float
    outer: float


class GeluFfn:
    """See the module."""

    name = "gelu-ffn"
    exactness: Exactness = "bounded"
    parameters = ANY_PARTS

    def places(self, model: ir.Model) -> list[Rewrite]:
        """Where the precondition holds."""
        return [
            Rewrite(name=self.name, node=str(node.name), parameter=1)
            for node in model.graph
            if node.op_type == "Erf" and _match(node) is not None
        ]

    def apply(self, model: ir.Model, rewrite: Rewrite) -> None:
        """Rewrite one pair of dense layers."""
        node = node_named(model, rewrite.node)
        ffn = _match(node) if node.op_type == "Erf" else None
        anchor = None if ffn is None else ffn.output.producer()
        if ffn is None or anchor is None:
            raise ChunkingError(f"node {rewrite.node} is no Erf between two dense layers")
        if not 1 <= rewrite.parameter <= len(ffn.second):
            raise ChunkingError(
                f"node {rewrite.node}: {len(ffn.second)} hidden units cannot be dealt out to "
                f"{rewrite.parameter} parts"
            )
        _emit(Builder(model, anchor, f"{rewrite.node}/ffn"), ffn, rewrite.parameter)


def _emit(build: Builder, ffn: _Ffn, count: int) -> None:
    results: list[ir.Value] = []
    for units in np.array_split(np.arange(len(ffn.second)), count):
        bias = None if ffn.first_bias is None else ffn.inner * ffn.first_bias[units]
        first = ffn.inner * ffn.first[:, units]
        hidden = dense(build, ffn.data, first, bias, WEIGHT_BITS)
        grown = build.node("Add", [build.node("Erf", [hidden]), constant(build, 1.0, "one")])
        grown = build.node("Mul", [grown, constant(build, 2.0**HIDDEN_BITS, "raise")])
        second = ffn.outer / ffn.inner * 2.0**-HIDDEN_BITS * ffn.second[units]
        active = build.node("Mul", [hidden, grown])
        bias = None if results else ffn.second_bias
        results.append(dense(build, active, second, bias, WEIGHT_BITS + HIDDEN_BITS))
    build.replace(ffn.output, total_of(build, results))


def _match(erf: ir.Node) -> _Ffn | None:
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
    if not found or node is None or node.op_type != "MatMul" or node.inputs[0] is not total:
        return None
    second = numbers_of(node.inputs[1])
    if second is None or second.ndim != 2:
        return None
    output, second_bias = bias_user(node.outputs[0])
    product, first_bias = with_bias(hidden)
    dense = None if product is None else product.producer()
    if dense is None or dense.op_type != "MatMul" or dense.inputs[0] is None:
        return None
    if unscaled(dense.inputs[0])[0] is not dense.inputs[0]:
        return None
    first = numbers_of(dense.inputs[1])
    if first is None or first.ndim != 2:
        return None
    if first_bias is not None and first_bias.size != first.shape[1]:
        return None
    if second_bias is not None and second_bias.size != second.shape[1]:
        return None
    return _Ffn(
        data=dense.inputs[0],
        first=first,
        first_bias=None if first_bias is None else first_bias.reshape(-1),
        second=second,
        second_bias=None if second_bias is None else second_bias.reshape(-1),
        output=output,
        inner=inner,
        outer=outer,
    )
