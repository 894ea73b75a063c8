"""Pass layer-norm: layer normalisation with one rebase an element.

Precondition: LayerNormalization over the last axis, or ReduceMean, Sub, Pow 2 (or Mul), ReduceMean,
Add, Sqrt, Div over it, as exporters write it out; gamma and beta constant, and no element of gamma
another one once it is rounded (`precision`).

Postcondition: for a row x of width d, with c = x - mean(x), r = sqrt(sum(c^2) + d eps) and 2^l the
power of two next to sqrt(d),

    y = (c * G - sum(c) * round(G / d) + r * B) * (2^(l+1) / r) * 2^-(b+1)
    G = round(2^(b-l) sqrt(d) gamma),  B = round(2^(b-l) beta)      whole numbers

The mean, the sum of squares and 1 / r are rebased once a row, the last product once an element;
nothing comes after that product, so what crosses a cut there has just been rebased.

Exactness: bounded. gamma is rounded to b bits after the point (b is the parameter), beta to b - l.
The mean is rounded to the scale, which the term with sum(c) makes up for. 1 / r is taken of an
input 2^(l+1) times smaller, and so keeps one bit more than the scale has, whatever d is; ezkl's own
keeps l bits fewer.

Why: ezkl rebases the centred value, its square, the quotient and the product with gamma: 112 cells
an element at the default decomposition, about 75 here. The rebase takes back scale + b + 1 bits,
which must stay below those of the decomposition.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir as ir

from zkml_ray.chunking.passes.base import ANY_BITS, Builder, only_user
from zkml_ray.chunking.passes.forms import (
    Array,
    bias_user,
    constant,
    lowered,
    numbers_of,
    reshaped,
    scalar_of,
    shape_of,
    whole,
)
from zkml_ray.chunking.passes.pattern import PatternPass
from zkml_ray.chunking.passes.precision import check_kept

WEIGHT_BITS: Final = 15
"""Bits after the point of gamma: with scale 11, the rebase takes back 27 bits, the most it can."""

MEAN_BITS: Final = 24
"""Bits after the point of 1/d."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Norm:
    data: ir.Value
    gamma: Array
    beta: Array | None
    epsilon: float
    output: ir.Value


def _write(build: Builder, norm: _Norm, bits: int) -> None:
    shape = shape_of(norm.data)
    width = shape[-1]
    level = round(math.log2(width) / 2)
    total = build.node("ReduceSum", [norm.data, build.indices([-1], "axis")], {"keepdims": 1})
    share = constant(build, np.rint(2.0**MEAN_BITS / width), "share")
    mean = build.node("Mul", [lowered(build, total, MEAN_BITS), share])
    centred = build.node("Sub", [norm.data, mean])
    letters = "abcdefgh"[: len(shape)]
    equation = f"{letters},{letters}->{letters[:-1]}"
    squares = build.node("Einsum", [centred, centred], {"equation": equation})
    offset = constant(build, norm.epsilon * width, "epsilon")
    power = build.node("Add", [reshaped(build, squares, (*shape[:-1], 1)), offset])
    root = build.node("Sqrt", [power])
    inverse = build.node("Reciprocal", [lowered(build, root, level + 1)])
    factors = norm.gamma * math.sqrt(width) * 2.0**-level
    check_kept(factors, bits, None, f"layer normalisation that makes {norm.output.name}")
    gamma = whole(factors, bits)
    grown = build.node("Mul", [centred, constant(build, gamma, "gamma")])
    # The mean was rounded: what the centred row still adds up to is spread over it.
    rest = build.node("ReduceSum", [centred, build.indices([-1], "axis")], {"keepdims": 1})
    spread = build.node("Mul", [rest, constant(build, np.rint(gamma / width), "spread")])
    grown = build.node("Sub", [grown, spread])
    if norm.beta is not None and norm.beta.any():
        beta = constant(build, whole(norm.beta, bits - level), "beta")
        grown = build.node("Add", [grown, build.node("Mul", [root, beta])])
    # The scale rises by the root's level + 1, and by gamma's bits less its level.
    build.replace(norm.output, build.node("Mul", [grown, lowered(build, inverse, bits + 1)]))


def _match(node: ir.Node) -> _Norm | None:
    if node.op_type == "LayerNormalization":
        return _match_operator(node)
    return _match_written_out(node) if node.op_type == "ReduceMean" else None


def _match_operator(node: ir.Node) -> _Norm | None:
    data, gamma = node.inputs[0], numbers_of(node.inputs[1])
    beta = numbers_of(node.inputs[2]) if len(node.inputs) > 2 else None
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else -1
    if data is None or gamma is None or any(o.uses() for o in node.outputs[1:]):
        return None
    width = shape_of(data)[-1]
    last = axis in (-1, len(shape_of(data)) - 1)
    if not last or gamma.size != width or (len(node.inputs) > 2 and beta is None):
        return None
    epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5
    return _Norm(
        data=data, gamma=gamma.reshape(-1), beta=beta, epsilon=epsilon, output=node.outputs[0]
    )


def _match_written_out(node: ir.Node) -> _Norm | None:
    data = node.inputs[0]
    if data is None or not _last_axis_kept(node, data):
        return None
    centring = only_user(node.outputs[0])
    if centring is None or centring.op_type != "Sub" or centring.inputs[0] is not data:
        return None
    centred = centring.outputs[0]
    square = next((u for u, _ in centred.uses() if u.op_type in ("Pow", "Mul")), None)
    if square is None or not _is_square(square, centred):
        return None
    mean = only_user(square.outputs[0])
    if mean is None or mean.op_type != "ReduceMean" or not _last_axis_kept(mean, centred):
        return None
    summed, epsilon = bias_user(mean.outputs[0])
    root = only_user(summed)
    if epsilon is None or epsilon.size != 1 or root is None or root.op_type != "Sqrt":
        return None
    quotient = only_user(root.outputs[0])
    if quotient is None or quotient.op_type != "Div" or quotient.inputs[0] is not centred:
        return None
    if {user for user, _ in centred.uses()} != {square, quotient}:
        return None
    width = shape_of(data)[-1]
    output, gamma, beta = quotient.outputs[0], np.ones(width), None
    scaling = only_user(output)
    if scaling is not None and scaling.op_type == "Mul":
        other = scaling.inputs[1] if scaling.inputs[0] is output else scaling.inputs[0]
        factors = numbers_of(other)
        if factors is not None and factors.shape[-1:] == (width,) == (factors.size,):
            output, gamma = scaling.outputs[0], factors.reshape(-1)
            shifted, offset = bias_user(output)
            if offset is not None and offset.shape[-1:] == (width,) == (offset.size,):
                output, beta = shifted, offset.reshape(-1)
    return _Norm(
        data=data, gamma=gamma, beta=beta, epsilon=float(epsilon.reshape(())), output=output
    )


def _is_square(node: ir.Node, value: ir.Value) -> bool:
    if node.op_type == "Mul":
        return node.inputs[0] is value and node.inputs[1] is value
    return node.inputs[0] is value and scalar_of(node.inputs[1]) == 2.0


def _last_axis_kept(node: ir.Node, data: ir.Value) -> bool:
    if "axes" in node.attributes:
        axes = list(node.attributes["axes"].as_ints())
    else:
        constant = numbers_of(node.inputs[1]) if len(node.inputs) > 1 else None
        axes = [] if constant is None else [int(a) for a in constant.reshape(-1)]
    kept = node.attributes["keepdims"].as_int() if "keepdims" in node.attributes else 1
    return axes in ([-1], [len(shape_of(data)) - 1]) and kept == 1


LAYER_NORM: Final = PatternPass(
    name="layer-norm",
    parameters=ANY_BITS,
    default=WEIGHT_BITS,
    label="norm",
    missing="begins no layer normalisation",
    match=_match,
    write=_write,
)
"""See the module."""
