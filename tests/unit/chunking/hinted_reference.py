"""What hinted circuits compute, written down a second time: loops over whole numbers.

A value is rounded, Z = floor((Y + q/2) / q), where its elements are needed and not before, so what
stands between two roundings is one sum: that much of `zkml_ray.chunking.hinted` is its definition,
and followed here. Everything else (windows, strides, layouts, packing) is ONNX's text in loops.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.hinted.numbers import Arithmetic

Whole = npt.NDArray[np.int64]
Real = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Term:
    """Sums of products of whole numbers with weights.

    Attributes:
        weights: Real numbers, per unit of a rounded value.
        sums: The sums, given the weights in whole numbers.
        fineness: How much finer than rounded values the summed numbers are.
        over: Numbers of the weights' shape, added up for each result; its shape is that of the
            sums by broadcasting. None: every result has one weight.
    """

    weights: Real
    sums: Callable[[Whole], Whole]
    fineness: float = 1.0
    over: Callable[[Whole], Whole] | None = None


@dataclass(frozen=True)
class Sum:
    """A tensor that is not rounded yet.

    Attributes:
        terms: What is added up.
        bias: Real numbers.
        order: The grid that it was made on; sums of one grid are added before they are rounded.
        relu: Whether negative results become zero.
        window: (kernel, strides, dilations, pads, outputs) of a maximum, or None.
    """

    terms: tuple[Term, ...]
    bias: Real
    order: str
    relu: bool = False
    window: tuple[Sequence[int], ...] | None = None

    @property
    def plain(self) -> bool:
        return not self.relu and self.window is None

    def times(self, factor: float) -> Sum:
        terms = tuple(replace(term, weights=term.weights * factor) for term in self.terms)
        return replace(self, terms=terms, bias=self.bias * factor)


Value = Whole | Sum | Real

_NAMED = {"Sum": "_sum_of_all", "Split": "_parts"}
"""Operators whose names something else has."""


class Reference:
    """The boundaries of one chunk in whole numbers."""

    def __init__(self, graph: ModelGraph, numbers: Arithmetic) -> None:
        self._graph = graph
        self._numbers = numbers
        self._signs: set[str] = set()
        self._values: dict[str, Value] = {
            name: numpy_helper.to_array(t).astype(np.float64)
            for name, t in graph.initializers.items()
        }

    def run(
        self, inputs: Mapping[str, Whole], nodes: Sequence[str], outputs: Sequence[str]
    ) -> dict[str, Whole]:
        """Per output, its whole numbers in its shape, from what some nodes make of the inputs."""
        self._values.update(inputs)
        for node in (self._graph.nodes[name] for name in nodes):
            operator = _NAMED.get(node.op_type, "_" + node.op_type.lower())
            made = getattr(self, operator)(node, _attributes(node))
            values = made if isinstance(made, tuple) else (made,)
            self._values.update(zip(node.output, values, strict=True))
        return {name: self._whole(name) for name in outputs}

    # Values.

    def _whole(self, name: str) -> Whole:
        value = self._values[name]
        if isinstance(value, Sum):
            value = self._values[name] = self._rounded(value)
        assert value.dtype == np.int64
        return value

    def _stands(self, name: str) -> None:
        """See to it that a tensor's elements are numbers."""
        self._whole(name)

    def _fixed(self, name: str) -> bool:
        """Whether a tensor is a constant."""
        value = self._values[name]
        return isinstance(value, np.ndarray) and value.dtype == np.float64

    def _rounded(self, value: Sum, resolution: float = 0.0, *, signed: bool = True) -> Whole:
        numbers = self._numbers
        resolution = resolution or 2.0**numbers.scale
        coarser = resolution / 2.0**numbers.scale
        value = replace(
            value,
            terms=tuple(
                replace(t, weights=t.weights * coarser, fineness=t.fineness / coarser)
                for t in value.terms
            ),
        )
        q = self._divisor(value)
        total = sum(term.sums(np.rint(term.weights * q).astype(np.int64)) for term in value.terms)
        offset = 0 if value.relu or not signed else numbers.offset
        # The circuit holds one constant an element.
        constant = np.rint(value.bias * (q * resolution) + (q // 2 + q * offset))
        held = held_by_float32(constant, q)
        found = (total + held) // q
        found = found.astype(np.int64)
        if value.window is not None:
            found = _largest(found, *value.window)
        return np.maximum(found, 0) if value.relu else found - offset

    def _sum(self, name: str) -> Sum:
        value = self._values[name]
        if isinstance(value, Sum):
            return value
        whole = self._whole(name)
        term = Term(np.ones(1), lambda weights: whole * weights[0])
        return Sum(terms=(term,), bias=np.zeros(whole.shape), order="last")

    def _divisor(self, value: Sum) -> int:
        """What the sums are divided by; their weights are whole multiples of its inverse.

        The table's size, or for one weight alone the next smaller number that makes it whole; or,
        where the numbers are so fine that it would be less than one, a multiple of 8 or more.
        """
        q = self._numbers.divisor
        sizes = np.abs(np.concatenate([term.weights.ravel() for term in value.terms]))
        sizes = sizes[sizes > 0]
        if not sizes.size or sizes.max() - sizes.min() > 1e-9 * sizes[0]:
            return self._coarse(value)
        exact = math.floor(q * sizes[0] * (1 + 1e-9)) / sizes[0]
        near = round(exact)
        fits = 2 * exact > self._numbers.digit_bound and abs(exact - near) < 1e-9 * exact
        return near if fits else self._small_multiple(1 / sizes[0]) or self._coarse(value)

    def _small_multiple(self, inverse: float) -> int:
        """The largest of a whole number that few remainder digits hold, 0 if none will do."""
        q, near = self._numbers.divisor, int(np.float32(inverse))
        if inverse <= q or abs(near / inverse - 1) > 2.0**-50:
            return 0
        for digits, step in itertools.product(range(2, 9), range(1, q.bit_length())):
            multiple = (q << step * (digits - 1)) // near
            found = multiple * near
            reach = self._numbers.digit_bound * sum(1 << step * i for i in range(digits))
            if multiple >= 8 and reach < 2 * found and int(np.float32(found)) == found:
                return found
        return 0

    def _coarse(self, value: Sum) -> int:
        """q, with as many more bits as the finest numbers have, in as few digits as hold them.

        With 6, 12 or 18 more where weights would be too coarse, or as many as the largest weight
        leaves room for.
        """
        excess = math.log2(max(term.fineness for term in value.terms))
        found = self._with_bits(excess)
        for more in (6, 12, 18):
            if not self._too_coarse(value, found):
                break
            largest = max(np.abs(term.weights).max(initial=0) for term in value.terms)
            room = (self._with_bits(excess + bits) for bits in range(more, more - 6, -1))
            found = next(finer for finer in room if largest * finer < (1 << 24) - 1)
        return found

    def _with_bits(self, bits: float) -> int:
        if bits <= 2:
            return self._numbers.divisor
        digits = 2
        while math.ceil(bits / (digits - 1)) >= self._numbers.logrows:
            digits += 1
        return self._numbers.divisor << (math.ceil(bits / (digits - 1)) * (digits - 1))

    def _too_coarse(self, value: Sum, divisor: int) -> bool:
        """Whether rounding moves some result's weights by more than a 32nd of them, visibly.

        Visibly: two quanta (ten, where finer numbers are summed) for values at the range's end.
        """
        moved: Any = 0
        sizes: Any = 0
        for term in value.terms:
            scaled = term.weights * float(divisor)
            reach = math.ceil(term.fineness * self._numbers.offset)
            parts = [np.abs(np.rint(scaled) - scaled), np.abs(scaled)]
            counted = [np.rint(part * 1024).astype(np.int64) for part in parts]
            if term.over is not None:
                counted = [term.over(part) for part in counted]
            moved = moved + counted[0].astype(object) * reach
            sizes = sizes + counted[1].astype(object) * reach
        quanta = 2 if max(term.fineness for term in value.terms) <= 2 else 10
        wrong = (moved > quanta * 1024 * divisor) & (moved * 32 > sizes)
        return bool(np.any(wrong))

    def _plain(self, name: str) -> Sum:
        value = self._values[name]
        if isinstance(value, Sum) and not value.plain:
            self._whole(name)
        return self._sum(name)

    def _constant(self, name: str) -> Real:
        return np.asarray(self._values[name], dtype=np.float64)

    # Operators.

    def _conv(self, node: onnx.NodeProto, given: dict[str, Any]) -> Sum:
        x, weight = self._whole(node.input[0]), self._constant(node.input[1])
        bias = self._constant(node.input[2]) if len(node.input) > 2 else np.zeros(len(weight))
        made = self._windows(x, weight, given)
        return replace(made, bias=made.bias + bias.reshape(1, -1, *[1] * (x.ndim - 2)))

    def _convtranspose(self, node: onnx.NodeProto, given: dict[str, Any]) -> Sum:
        x, weight = self._whole(node.input[0]), self._constant(node.input[1])
        shape = self._graph.tensor(node.output[0]).shape
        bias = self._constant(node.input[2]) if len(node.input) > 2 else np.zeros(shape[1])
        group, planes = given.get("group", 1), [1] * (x.ndim - 2)

        def over(weights: Whole) -> Whole:
            parts = weights.reshape(group, weight.shape[0] // group, weight.shape[1], -1)
            found: Whole = parts.sum(axis=(1, 3)).reshape(1, -1, *planes)
            return found

        term = Term(weight, lambda weights: _spread(x, weights, shape, given), over=over)
        return Sum(
            terms=(term,),
            bias=np.zeros(shape) + bias.reshape(1, -1, *[1] * (x.ndim - 2)),
            order=f"channels {shape}",
        )

    def _windows(self, x: Whole, weight: Real, given: Mapping[str, Any]) -> Sum:
        planes = [1] * (x.ndim - 2)

        def over(weights: Whole) -> Whole:
            found: Whole = weights.reshape(len(weight), -1).sum(axis=1).reshape(1, -1, *planes)
            return found

        term = Term(weight, lambda weights: _convolved(x, weights, given), over=over)
        shape = term.sums(np.zeros(weight.shape, dtype=np.int64)).shape
        return Sum(terms=(term,), bias=np.zeros(shape), order=f"channels {shape}")

    def _gemm(self, node: onnx.NodeProto, given: dict[str, Any]) -> Sum:
        weight = self._constant(node.input[1])
        weight = (weight.T if given.get("transB", 0) else weight) * given.get("alpha", 1.0)
        x = self._whole(node.input[0])
        made = self._product(x.T if given.get("transA", 0) else x, weight)
        if len(node.input) > 2:
            bias = self._constant(node.input[2]) * given.get("beta", 1.0)
            made = replace(made, bias=np.broadcast_to(bias, made.bias.shape))
        return made

    def _matmul(self, node: onnx.NodeProto, _: dict[str, Any]) -> Sum:
        left, right = node.input
        if self._fixed(right) or self._fixed(left):
            return self._weighted(left, right, self._graph.tensor(node.output[0]).shape)
        # Both have a denominator of 2^s, and the result has one.
        product = np.matmul(self._whole(left), self._whole(right))
        term = Term(np.full(1, 0.5**self._numbers.scale), lambda weights: product * weights[0])
        return Sum(terms=(term,), bias=np.zeros(product.shape), order="last")

    def _weighted(self, left: str, right: str, shape: Sequence[int]) -> Sum:
        """A product of whole numbers and constants, either on the left, of any ranks."""
        if self._fixed(right):
            x, weight = self._whole(left), self._constant(right)
            term = Term(weight, lambda weights: _matrices(x, weights), over=_over_rows)
        else:
            x, weight = self._whole(right), self._constant(left)
            columns = x.ndim > 1 and weight.ndim > 1
            term = Term(
                weight,
                lambda weights: _matrices(weights, x),
                over=lambda weights: weights.sum(axis=-1, keepdims=columns),
            )
        return Sum(terms=(term,), bias=np.zeros(shape), order="last")

    def _product(self, x: Whole, weight: Real) -> Sum:
        def sums(weights: Whole) -> Whole:
            found = np.zeros((*x.shape[:-1], weights.shape[1]), dtype=np.int64)
            for place in np.ndindex(*found.shape):
                found[place] = sum(
                    int(a) * int(b)
                    for a, b in zip(x[place[:-1]], weights[:, place[-1]], strict=True)
                )
            return found

        shape = (*x.shape[:-1], weight.shape[1])
        return Sum(terms=(Term(weight, sums, over=_over_rows),), bias=np.zeros(shape), order="last")

    def _add(self, node: onnx.NodeProto, _: dict[str, Any], sign: float = 1.0) -> Sum:
        first, second = node.input
        factors = {first: 1.0, second: sign}
        if first == second:
            return self._plain(first).times(1.0 + sign)
        shape = self._graph.tensor(node.output[0]).shape
        waits = {
            n: isinstance(self._values[n], Sum) and self._graph.tensor(n).shape == shape
            for n in node.input
            if not self._fixed(n)
        }
        constant = {n: self._fixed(n) for n in node.input}
        base, other = first, second
        if constant[first] or (not constant[second] and waits[second] and not waits[first]):
            base, other = second, first
        if self._graph.tensor(base).shape != shape and not constant[other]:
            fits = self._graph.tensor(other).shape == shape
            base, other = (other, base) if fits else (base, other)
        left = self._spread_to(base, shape).times(factors[base])
        if constant[other]:
            added = self._constant(other) * factors[other]
            return replace(left, bias=left.bias + np.broadcast_to(added, left.bias.shape))
        right = self._values[other]
        together = isinstance(right, Sum) and right.plain and right.order == left.order
        if not together:
            self._stands(other)
        right = self._spread_to(other, shape).times(factors[other])
        return replace(left, terms=left.terms + right.terms, bias=left.bias + right.bias)

    def _spread_to(self, name: str, shape: Sequence[int]) -> Sum:
        """A tensor, repeated by the rules of broadcasting; rounded then."""
        if self._fixed(name) or self._graph.tensor(name).shape == tuple(shape):
            return self._plain(name)
        whole = np.broadcast_to(self._whole(name), tuple(shape))
        term = Term(np.ones(1), lambda weights: whole * weights[0])
        return Sum(terms=(term,), bias=np.zeros(tuple(shape)), order="last")

    def _sub(self, node: onnx.NodeProto, given: dict[str, Any]) -> Sum:
        return self._add(node, given, sign=-1.0)

    def _mul(self, node: onnx.NodeProto, _: dict[str, Any]) -> Sum:
        first, second = node.input
        if self._fixed(first):
            first, second = second, first
        if self._fixed(second):
            return self._times(first, self._constant(second), node)
        whole = self._whole(first) * self._whole(second)
        return _exact(whole, 2.0**self._numbers.scale)

    def _times(self, name: str, factor: Real, node: onnx.NodeProto) -> Sum:
        if factor.size == 1:
            return self._plain(name).times(float(factor.ravel()[0]))
        shape = self._graph.tensor(node.output[0]).shape
        spread = np.broadcast_to(factor, shape)
        value = self._values[name]
        by_channel = spread.swapaxes(1, -1) if "channels" in getattr(value, "order", "") else spread
        rows = by_channel.reshape(-1, by_channel.shape[-1])
        if isinstance(value, Sum) and value.plain and (rows == rows[:1]).all():
            # One factor for every channel of the sum's grid: weights take it up.
            terms = tuple(_by_channel(term, spread, value.order) for term in value.terms)
            return replace(value, terms=terms, bias=value.bias * spread, order="factors")
        whole = np.broadcast_to(self._whole(name), shape)
        term = Term(spread, lambda weights: whole * weights)
        return Sum(terms=(term,), bias=np.zeros(shape), order="factors")

    def _div(self, node: onnx.NodeProto, _: dict[str, Any]) -> Sum:
        return self._times(node.input[0], 1 / self._constant(node.input[1]), node)

    def _sign(self, node: onnx.NodeProto, _: dict[str, Any]) -> Whole:
        self._signs.add(node.output[0])
        return np.sign(self._decided(node.input[0])).astype(np.int64) * self._unit

    def _floor(self, node: onnx.NodeProto, _: dict[str, Any]) -> Whole:
        return self._whole(node.input[0]) // self._unit * self._unit

    @property
    def _unit(self) -> int:
        return 1 << self._numbers.scale

    def _decided(self, name: str) -> Whole:
        """Whole numbers; what nothing asks to be rounded is not, but for constants."""
        value = self._values[name]
        if not isinstance(value, Sum) or not value.plain:
            return self._whole(name)
        exact = all((np.abs(t.weights) == 1).all() and t.fineness == 1 for t in value.terms)
        if not exact:
            return self._whole(name)
        found: Any = sum(t.sums(t.weights.astype(np.int64)) for t in value.terms)
        bias = value.bias * float(self._unit)
        return np.asarray(found + np.trunc(bias + np.copysign(0.5, bias)).astype(np.int64))

    def _neg(self, node: onnx.NodeProto, _: dict[str, Any]) -> Sum:
        return self._plain(node.input[0]).times(-1.0)

    def _sum_of_all(self, node: onnx.NodeProto, _: dict[str, Any]) -> Sum:
        shape = self._graph.tensor(node.output[0]).shape
        total = self._plain(node.input[0])
        for name in node.input[1:]:
            if self._fixed(name):
                bias = np.broadcast_to(self._constant(name), shape)
                total = replace(total, bias=total.bias + bias)
                continue
            self._whole(name)
            part = self._spread_to(name, shape)
            total = replace(total, terms=total.terms + part.terms)
        return total

    def _pow(self, node: onnx.NodeProto, _: dict[str, Any]) -> Sum:
        whole, one = self._whole(node.input[0]), 2.0**self._numbers.scale
        found = whole
        for step in range(1, int(self._constant(node.input[1]))):
            if step > 1:
                found = self._rounded(_exact(found, one))
            found = found * whole
        return _exact(found, one) if self._constant(node.input[1]) > 1 else self._sum(node.input[0])

    def _abs(self, node: onnx.NodeProto, _: dict[str, Any]) -> Whole:
        if node.input[0] in self._signs:
            return np.abs(self._whole(node.input[0]))
        return np.abs(self._split(node.input[0]))

    def _leakyrelu(self, node: onnx.NodeProto, given: dict[str, Any]) -> Sum:
        whole = self._split(node.input[0])
        low = np.minimum(whole, 0)
        above = Term(np.ones(1), lambda weights: np.maximum(whole, 0) * weights[0])
        below = Term(np.full(1, given.get("alpha", 0.01)), lambda weights: low * weights[0])
        return Sum(terms=(above, below), bias=np.zeros(whole.shape), order="last")

    def _split(self, name: str) -> Whole:
        """Rounded without an offset: constants differ by what float32 makes of it."""
        return self._rounded(self._plain(name), signed=False)

    def _clip(self, node: onnx.NodeProto, _: dict[str, Any]) -> Whole:
        one = 2.0**self._numbers.scale
        value = self._plain(node.input[0])
        low, high = (
            round(float(self._constant(name)) * one) if name else None
            for name in [*node.input[1:], "", ""][:2]
        )
        if low is not None:
            above = self._rounded(replace(value, bias=value.bias - low / one, relu=True)) + low
            return above if high is None else np.minimum(above, high)
        turned = value.times(-1.0)
        return high - self._rounded(replace(turned, bias=turned.bias + high / one, relu=True))

    def _max(self, node: onnx.NodeProto, _: dict[str, Any], sign: int = 1) -> Sum:
        shape = self._graph.tensor(node.output[0]).shape
        names = sorted(node.input, key=lambda name: self._fixed(name))
        found = np.broadcast_to(self._whole(names[0]), shape)
        for name in names[1:]:
            constant = self._fixed(name)
            other = np.broadcast_to(self._constant(name) if constant else self._whole(name), shape)
            bias, part = (other, 0) if constant else (np.zeros(shape), other)
            excess = _exact((found - part) * sign, 1.0)
            excess = replace(excess, bias=-bias * sign, relu=True)
            whole = self._rounded(excess) * sign + part
            total = replace(_exact(whole, 1.0), bias=bias)
            found = self._rounded(total)
        return total

    def _min(self, node: onnx.NodeProto, given: dict[str, Any]) -> Sum:
        return self._max(node, given, -1)

    def _relu(self, node: onnx.NodeProto, _: dict[str, Any]) -> Sum | Whole:
        if node.input[0] in self._signs:
            return np.maximum(self._whole(node.input[0]), 0)
        return replace(self._sum(node.input[0]), relu=True)

    def _maxpool(self, node: onnx.NodeProto, given: dict[str, Any]) -> Sum:
        value = self._values[node.input[0]]
        if isinstance(value, Sum) and value.window is not None:
            self._whole(node.input[0])
        rank = len(given["kernel_shape"])
        window = (
            given["kernel_shape"],
            given.get("strides", [1] * rank),
            given.get("dilations", [1] * rank),
            given.get("pads", [0] * (2 * rank)),
            self._graph.tensor(node.output[0]).shape[2:],
        )
        return replace(self._sum(node.input[0]), window=window)

    def _averagepool(self, node: onnx.NodeProto, given: dict[str, Any]) -> Sum:
        x = self._whole(node.input[0])
        channels = x.shape[1]
        weight = np.full((channels, 1, *given["kernel_shape"]), 1 / np.prod(given["kernel_shape"]))
        return self._windows(x, weight, {**given, "group": channels})

    def _globalaveragepool(self, node: onnx.NodeProto, _: dict[str, Any]) -> Sum:
        shape = self._whole(node.input[0]).shape
        return self._averagepool(node, {"kernel_shape": list(shape[2:])})

    def _reducemean(self, node: onnx.NodeProto, given: dict[str, Any]) -> Sum:
        return self._reduced(node, given, lambda count: 1 / count)

    def _reducesum(self, node: onnx.NodeProto, given: dict[str, Any]) -> Sum:
        return self._reduced(node, given, lambda count: 1.0)

    def _reduced(
        self, node: onnx.NodeProto, given: dict[str, Any], weight: Callable[[int], float]
    ) -> Sum:
        whole, axes = self._whole(node.input[0]), self._axes(node)
        keep = bool(given.get("keepdims", 1))
        total = whole.sum(axis=axes, keepdims=keep)
        count = whole.size // total.size
        term = Term(
            np.full(1, weight(count)),
            lambda weights: total * weights[0],
            over=lambda weights: weights * count,
        )
        return Sum(terms=(term,), bias=np.zeros(total.shape), order="last")

    def _reducemax(self, node: onnx.NodeProto, given: dict[str, Any]) -> Whole:
        keep = bool(given.get("keepdims", 1))
        return self._whole(node.input[0]).max(axis=self._axes(node), keepdims=keep)

    def _reducemin(self, node: onnx.NodeProto, given: dict[str, Any]) -> Whole:
        keep = bool(given.get("keepdims", 1))
        return self._whole(node.input[0]).min(axis=self._axes(node), keepdims=keep)

    def _axes(self, node: onnx.NodeProto) -> tuple[int, ...] | None:
        if len(node.input) < 2:
            return None
        return tuple(self._integers(node.input[1]))

    def _integers(self, name: str) -> list[int]:
        found: list[int] = self._constant(name).astype(np.int64).ravel().tolist()
        return found

    def _gather(self, node: onnx.NodeProto, given: dict[str, Any]) -> Whole:
        index = self._constant(node.input[1]).astype(np.int64)
        return self._whole(node.input[0]).take(index, axis=given.get("axis", 0))

    def _slice(self, node: onnx.NodeProto, _: dict[str, Any]) -> Whole:
        starts, ends, axes, steps = (self._integers(name) for name in node.input[1:5])
        found = self._whole(node.input[0])
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
            places = range(found.shape[axis])[start:end:step]
            found = found.take(list(places), axis=axis)
        return found

    def _parts(self, node: onnx.NodeProto, given: dict[str, Any]) -> tuple[Whole, ...]:
        axis = given.get("axis", 0)
        sizes = [self._graph.tensor(name).shape[axis] for name in node.output]
        parts = np.split(self._whole(node.input[0]), np.cumsum(sizes)[:-1], axis=axis)
        return tuple(parts)

    def _pad(self, node: onnx.NodeProto, given: dict[str, Any]) -> Value:
        whole, widths = self._whole(node.input[0]), self._integers(node.input[1])
        pairs = list(zip(widths[: whole.ndim], widths[whole.ndim :], strict=True))
        cut = tuple(
            slice(max(0, -a), size - max(0, -b))
            for (a, b), size in zip(pairs, whole.shape, strict=True)
        )
        whole, pairs = whole[cut], [(max(0, a), max(0, b)) for a, b in pairs]
        mode = given.get("mode", b"constant").decode()
        if mode != "constant":
            return np.pad(whole, pairs, mode=mode)
        filling = float(self._constant(node.input[2])) if len(node.input) > 2 else 0.0
        found = _exact(np.pad(whole, pairs), 1.0)
        return replace(found, bias=np.pad(np.zeros(whole.shape), pairs, constant_values=filling))

    def _expand(self, node: onnx.NodeProto, _: dict[str, Any]) -> Whole:
        shape = self._graph.tensor(node.output[0]).shape
        return np.broadcast_to(self._whole(node.input[0]), shape)

    def _where(self, node: onnx.NodeProto, _: dict[str, Any]) -> Sum:
        shape = self._graph.tensor(node.output[0]).shape
        where = np.broadcast_to(self._constant(node.input[0]) != 0, shape)
        whole, bias = np.zeros(shape, dtype=np.int64), np.zeros(shape)
        for name, taken in ((node.input[1], where), (node.input[2], ~where)):
            if self._fixed(name):
                bias = np.where(taken, self._constant(name), bias)
            else:
                whole = np.where(taken, self._whole(name), whole)
        return replace(_exact(whole, 1.0), bias=bias)

    def _identity(self, node: onnx.NodeProto, _: dict[str, Any]) -> Whole:
        return self._whole(node.input[0])

    def _reshape(self, node: onnx.NodeProto, _: dict[str, Any]) -> Value:
        shape = self._graph.tensor(node.output[0]).shape
        if self._fixed(node.input[0]):
            return self._constant(node.input[0]).reshape(shape)
        return self._whole(node.input[0]).reshape(shape)

    def _concat(self, node: onnx.NodeProto, given: dict[str, Any]) -> Value:
        whole, bias = [], []
        for name in node.input:
            constant = self._fixed(name)
            bias.append(self._constant(name) if constant else np.zeros(self._whole(name).shape))
            whole.append(np.zeros(bias[-1].shape, np.int64) if constant else self._whole(name))
        joined = np.concatenate(whole, axis=given["axis"])
        if not any(self._fixed(name) for name in node.input):
            return joined
        return replace(_exact(joined, 1.0), bias=np.concatenate(bias, axis=given["axis"]))

    _flatten = _squeeze = _unsqueeze = _reshape

    def _transpose(self, node: onnx.NodeProto, given: dict[str, Any]) -> Whole:
        return self._whole(node.input[0]).transpose(given.get("perm"))


def held_by_float32(constant: Real, divisor: int) -> Any:
    """A constant as the sum of as many float32 numbers as leave out a 128th of the divisor."""
    found, rest = np.zeros(constant.shape, dtype=object), constant
    for part in range(5):
        if part == 0 or np.abs(rest).max(initial=0) > divisor / 128:
            near = rest.astype(np.float32).astype(np.float64)
            found, rest = found + np.frompyfunc(int, 1, 1)(near), rest - near
    return found


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _over_rows(weights: Whole) -> Whole:
    """Per column of a matrix, or of each of several, its sum."""
    found: Whole = (
        weights.sum(axis=-2, keepdims=weights.ndim > 2) if weights.ndim > 1 else weights.sum()
    )
    return found


def _exact(whole: Whole, fineness: float) -> Sum:
    """Whole numbers that are finer than rounded values, exactly."""
    term = Term(np.full(1, 1 / fineness), lambda weights: whole * weights[0], fineness)
    return Sum(terms=(term,), bias=np.zeros(whole.shape), order="last")


def _matrices(left: Whole, right: Whole) -> Whole:
    """ONNX's MatMul, which is numpy's."""
    found: Whole = np.matmul(left, right)
    return found


def _by_channel(term: Term, factor: Real, order: str) -> Term:
    """A term whose weights are multiplied by a constant for each channel of what they make."""
    if "channels" in order:
        channel = np.moveaxis(factor, 1, -1).reshape(-1, factor.shape[1])[0]
        return replace(
            term, weights=term.weights * channel.reshape(-1, *[1] * (term.weights.ndim - 1))
        )
    channel = factor.reshape(-1, factor.shape[-1])[0]
    if term.weights.size > 1:
        return replace(term, weights=term.weights * channel)
    sums = term.sums

    def scaled(weights: Whole) -> Whole:
        found: Whole = sums(np.ones(1, dtype=np.int64)) * weights
        return found

    return replace(term, weights=term.weights[0] * channel, sums=scaled, over=None)


def _places(
    plane: Sequence[int], made: Sequence[int], given: Mapping[str, Any]
) -> list[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    """Output position, tap and position read of a window over a plane of any dimensions."""
    rank = len(plane)
    strides, spread = (given.get(name, [1] * rank) for name in ("strides", "dilations"))
    pads = given.get("pads", [0] * (2 * rank))
    found = []
    for place in itertools.product(*(range(size) for size in made)):
        for tap in itertools.product(*(range(size) for size in given["kernel_shape"])):
            read = tuple(place[a] * strides[a] - pads[a] + tap[a] * spread[a] for a in range(rank))
            if all(0 <= read[a] < plane[a] for a in range(rank)):
                found.append((place, tap, read))
    return found


def _convolved(x: Whole, weight: Whole, given: Mapping[str, Any]) -> Whole:
    """ONNX's Conv of any dimensions, tap by tap."""
    images, _, *plane = x.shape
    outputs, depth, *kernel = weight.shape
    rank = len(plane)
    strides, spread = (given.get(name, [1] * rank) for name in ("strides", "dilations"))
    pads = given.get("pads", [0] * (2 * rank))
    made = [
        (plane[a] + pads[a] + pads[a + rank] - spread[a] * (kernel[a] - 1) - 1) // strides[a] + 1
        for a in range(rank)
    ]
    found = np.zeros((images, outputs, *made), dtype=np.int64)
    per_group = outputs // given.get("group", 1)
    places = _places(plane, made, {**given, "kernel_shape": kernel})
    for n, o, d in itertools.product(range(images), range(outputs), range(depth)):
        for place, tap, read in places:
            source = x[(n, o // per_group * depth + d, *read)]
            found[(n, o, *place)] += source * weight[(o, d, *tap)]
    return found


def _spread(x: Whole, weight: Whole, shape: Sequence[int], given: Mapping[str, Any]) -> Whole:
    """ONNX's ConvTranspose: every input adds its window to the output."""
    images, inputs, *plane = x.shape
    _, per_group, *kernel = weight.shape
    group = given.get("group", 1)
    found = np.zeros(tuple(shape), dtype=np.int64)
    # What a convolution reads is what its transpose writes.
    places = _places(shape[2:], plane, {**given, "kernel_shape": kernel})
    for n, c, m in itertools.product(range(images), range(inputs), range(per_group)):
        out = c // (inputs // group) * per_group + m
        for place, tap, written in places:
            found[(n, out, *written)] += x[(n, c, *place)] * weight[(c, m, *tap)]
    return found


def _largest(
    x: Whole,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    made: Sequence[int],
) -> Whole:
    """ONNX's MaxPool, padding left out."""
    given = {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": pads}
    found = np.full((*x.shape[:2], *made), np.iinfo(np.int64).min)
    for place, _, read in _places(x.shape[2:], made, given):
        here = (slice(None), slice(None), *place)
        found[here] = np.maximum(found[here], x[(slice(None), slice(None), *read)])
    return found
