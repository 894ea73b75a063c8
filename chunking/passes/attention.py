"""Pass attention: self-attention with five rebases and no maximum, in parts.

Precondition: softmax(s Q K^T) V @ Wo with Q, K, V = x @ W + b split into heads by any Reshape and
Transpose, all of one x of one sequence; softmax over the keys; weights constant; nothing else
reads what lies between x and the result. Rounding leaves every column's weights what they are
(`precision`).

Postcondition: the heads are dealt out to as many parts as the parameter says. Each part has, with m
the mean of x over the tokens and weights as whole numbers,

    Q = x @ s Wq + s bq                              rebased
    z = Q (x - m) Wk, by query, key and head         rebased
    e = exp(z),  p = e * (2^k / sum e)               rebased
    c = p (x @ Wv)                                   rebased
    y = c @ Wo + (bo + bv Wo)                        rebased

and the result is the sum of the parts. A part's result is as small as the layer's, so parts can be
proved in circuits of their own.

Softmax is unchanged by what is added to all scores of a query: so bk drops out, and x may be
centred for the keys. Scores that average 0 take the place of scores less their maximum: the largest
exponential of a row is at least 1, no row underflows, and no maximum has to be proved.

Exactness: bounded. Weights are rounded to `WEIGHT_BITS` after the point or, where they meet a
second operand that has the scale, `DEFERRED_BITS`: finer than ezkl would hold them. Scores must
stay within the table of Exp on both sides of 0.

Why: ezkl also rebases K, V, the biases' sums and the scaled scores, and sorts every row of scores
for its maximum, 40 cells a score.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from zkml_ray.chunking.passes.base import ANY_PARTS, Builder, only_user
from zkml_ray.chunking.passes.forms import (
    Array,
    Dense,
    constant,
    dense,
    dense_after,
    dense_before,
    lowered,
    reshaped,
    shape_of,
    total_of,
    unscaled,
    whole,
)
from zkml_ray.chunking.passes.pattern import PatternPass
from zkml_ray.chunking.passes.precision import check_kept

WEIGHT_BITS: Final = 18
"""Bits after the point of the query's and output's weights; a rebase takes back no more."""

DEFERRED_BITS: Final = 15
"""Bits after the point of the key's and value's weights, whose product with a second operand is
rebased: with scale 12, that takes back 27 bits, the most there are."""

SHARE_BITS: Final = 2
"""Extra bits of the probabilities, which are small where a query has many keys."""

INVERSE_BITS: Final = 8
"""Extra bits of the reciprocal of a row's sum."""

MEAN_BITS: Final = 24
"""Bits after the point of 1 / tokens."""

_MOVING = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze"})

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Projection:
    """A dense layer and where its outputs go.

    Attributes:
        layer: The layer, of [..., tokens, width] and [width, units].
        factor: Its outputs are multiplied by this.
        order: For every element of the moved tensor, its position in [tokens, units], row-major;
            leading axes of size 1 dropped, 3 axes left.
    """

    layer: Dense
    factor: float
    order: Indices

    def columns(self, heads: Indices) -> tuple[Array, Array]:
        """Weight [width, units] and bias [units] of some heads, one head after the other."""
        units = self._units()[heads].reshape(-1)
        return self.layer.weight[:, units] * self.factor, self._bias()[units] * self.factor

    def bias_heads(self) -> Array:
        """The bias by head, [heads, head width]."""
        return np.asarray(self._bias()[self._units()] * self.factor, dtype=np.float64)

    def is_by_head(self) -> bool:
        """Whether the order is [heads, tokens, head width] of some assignment of units to heads."""
        tokens = np.arange(self.order.shape[1]) * self.layer.weight.shape[1]
        expected = self._units()[:, None, :] + tokens[None, :, None]
        return bool(np.array_equal(self.order, expected))

    def _units(self) -> Indices:
        return self.order[:, 0, :]

    def _bias(self) -> Array:
        return np.zeros(self.layer.weight.shape[1]) if self.layer.bias is None else self.layer.bias


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    query: _Projection
    key: _Projection
    value: _Projection
    scale: float
    mix: Array
    bias: Array | None
    output: ir.Value


def _write(build: Builder, found: _Found, count: int) -> None:
    _check_weights(found)
    data = found.query.layer.data
    rows = reshaped(build, data, shape_of(data)[-2:])
    bias = np.einsum("he,hen->n", found.value.bias_heads(), found.mix)
    if found.bias is not None:
        bias = bias + found.bias
    results: list[ir.Value] = []
    for heads in np.array_split(np.arange(len(found.mix)), count):
        context = _context(build, found, rows, heads)
        mix = found.mix[heads].reshape(-1, found.mix.shape[-1]) * 2.0**-SHARE_BITS
        share = None if results else bias
        results.append(dense(build, context, mix, share, WEIGHT_BITS + SHARE_BITS))
    total = total_of(build, results)
    build.replace(found.output, reshaped(build, total, (*shape_of(data)[:-1], len(bias))))


def _check_weights(found: _Found) -> None:
    what = f"attention that makes {found.output.name}"
    mix = found.mix.reshape(-1, found.mix.shape[-1])
    check_kept(mix, WEIGHT_BITS, 0, what)
    heads = np.arange(len(found.mix))
    for projection, factor, bits in (
        (found.query, found.scale, WEIGHT_BITS),
        (found.key, 1.0, DEFERRED_BITS),
        (found.value, 1.0, DEFERRED_BITS),
    ):
        check_kept(projection.columns(heads)[0] * factor, bits, 0, what)


def _context(build: Builder, found: _Found, rows: ir.Value, heads: Indices) -> ir.Value:
    """2^SHARE_BITS times what some heads make of the values, [tokens, heads * head width]."""
    tokens = shape_of(found.query.layer.data)[-2]
    split = (tokens, len(heads), found.query.order.shape[2])
    total = build.node("ReduceSum", [rows, build.indices([0], "axis")], {"keepdims": 1})
    share = constant(build, np.rint(2.0**MEAN_BITS / tokens), "share")
    mean = build.node("Mul", [lowered(build, total, MEAN_BITS), share])
    centred = build.node("Sub", [rows, mean])
    weight, bias = (found.scale * part for part in (found.query.columns(heads)))
    query = dense(build, rows, weight, bias, WEIGHT_BITS)
    key = _deferred(build, centred, found.key.columns(heads)[0], split)
    query = lowered(build, reshaped(build, query, split), DEFERRED_BITS)
    scores = build.node("Einsum", [query, key], {"equation": "qhe,khe->qkh"})
    powers = build.node("Exp", [scores])
    sums = build.node("ReduceSum", [powers, build.indices([1], "keys")], {"keepdims": 1})
    inverse = build.node("Reciprocal", [lowered(build, sums, INVERSE_BITS)])
    shares = build.node("Mul", [powers, lowered(build, inverse, INVERSE_BITS - SHARE_BITS)])
    value_split = (tokens, len(heads), found.mix.shape[1])
    value = _deferred(build, rows, found.value.columns(heads)[0], value_split)
    context = build.node(
        "Einsum", [shares, lowered(build, value, DEFERRED_BITS)], {"equation": "qkh,khe->qhe"}
    )
    return reshaped(build, context, (tokens, len(heads) * found.mix.shape[1]))


def _deferred(build: Builder, rows: ir.Value, weight: Array, split: tuple[int, ...]) -> ir.Value:
    """Rows @ weight times 2^DEFERRED_BITS, split into heads, not rebased."""
    columns = constant(build, whole(weight, DEFERRED_BITS), "weight")
    return reshaped(build, build.node("MatMul", [rows, columns]), split)


def _match(softmax: ir.Node) -> _Found | None:
    if softmax.op_type != "Softmax":
        return None
    scores, scale = unscaled(softmax.inputs[0])
    product = None if scores is None else scores.producer()
    if product is None or product.op_type != "MatMul":
        return None
    query, key = (_projection(value) for value in product.inputs)
    mixing = only_user(softmax.outputs[0])
    if query is None or key is None or mixing is None or mixing.op_type != "MatMul":
        return None
    if mixing.inputs[0] is not softmax.outputs[0] or not _over_last_axis(softmax):
        return None
    value = _projection(mixing.inputs[1])
    if value is None or not query.layer.data is key.layer.data is value.layer.data:
        return None
    key = _transposed(key)
    if math.prod(shape_of(query.layer.data)[:-2]) != 1:
        return None
    if not all(projection.is_by_head() for projection in (query, key, value)):
        return None
    found = _output(mixing.outputs[0], value)
    if found is None:
        return None
    mix, bias, output = found
    return _Found(query=query, key=key, value=value, scale=scale, mix=mix, bias=bias, output=output)


def _projection(value: ir.Value | None) -> _Projection | None:
    """Follow a head tensor back to the dense layer it comes from."""
    moves: list[ir.Node] = []
    factor = 1.0
    while value is not None:
        value, number = unscaled(value)
        factor *= number
        node = None if value is None else value.producer()
        if node is None or node.op_type not in _MOVING:
            break
        moves.append(node)
        value = node.inputs[0]
    layer = dense_before(value)
    if layer is None:
        return None
    shape = shape_of(layer.output)
    if len(shape) < 2 or math.prod(shape[:-2]) != 1:
        return None
    order = _moved(np.arange(math.prod(shape)).reshape(shape), moves[::-1])
    if order.ndim < 3 or math.prod(order.shape[:-3]) != 1:
        return None
    return _Projection(layer=layer, factor=factor, order=order.reshape(order.shape[-3:]))


def _transposed(projection: _Projection) -> _Projection:
    return replace(projection, order=projection.order.swapaxes(1, 2))


def _moved(indices: Indices, moves: list[ir.Node]) -> Indices:
    for node in moves:
        if node.op_type == "Transpose":
            indices = indices.transpose(list(node.attributes["perm"].as_ints()))
        else:
            indices = indices.reshape(shape_of(node.outputs[0]))
    return indices


def _output(context: ir.Value, value: _Projection) -> tuple[Array, Array | None, ir.Value] | None:
    """The output projection by head, [heads, head width, columns], its bias, and its result."""
    moves: list[ir.Node] = []
    node = only_user(context)
    current = context
    while node is not None and node.op_type in _MOVING and node.inputs[0] is current:
        moves.append(node)
        current = node.outputs[0]
        node = only_user(current)
    layer = dense_after(current)
    if layer is None:
        return None
    heads, tokens, head_width = value.order.shape
    shape = shape_of(context)
    if math.prod(shape) != heads * tokens * head_width:
        return None
    order = _moved(np.arange(math.prod(shape)).reshape(shape), moves).reshape(tokens, -1)
    by_head = np.arange(math.prod(shape)).reshape(heads, tokens, head_width)
    units = order[0]
    if order.shape[1] != layer.weight.shape[0] or not np.array_equal(
        order, units[None, :] + head_width * np.arange(tokens)[:, None]
    ):
        return None
    mix = np.zeros((heads, head_width, layer.weight.shape[1]))
    for row, unit in enumerate(units):
        head, _, element = (int(i[0]) for i in np.nonzero(by_head == unit))
        mix[head, element] = layer.weight[row]
    return mix, layer.bias, layer.output


def _over_last_axis(softmax: ir.Node) -> bool:
    axis = softmax.attributes["axis"].as_int() if "axis" in softmax.attributes else -1
    return axis in (-1, len(shape_of(softmax.inputs[0])) - 1)


ATTENTION: Final = PatternPass(
    name="attention",
    parameters=ANY_PARTS,
    default=1,
    label="attention",
    missing="is no softmax of a self-attention",
    match=_match,
    write=_write,
    parts=lambda found: (len(found.mix), "heads"),
)
"""See the module."""
