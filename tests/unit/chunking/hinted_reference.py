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
    """

    weights: Real
    sums: Callable[[Whole], Whole]
    fineness: float = 1.0


@dataclass(frozen=True)
class Sum:
    """A tensor that is not rounded yet.

    Attributes:
        terms: What is added up.
        bias: Real numbers.
        order: The grid that it was made on; sums of one grid are added before they are rounded.
        relu: Whether negative results become zero.
        window: (kernel, strides) of a maximum, or None.
    """

    terms: tuple[Term, ...]
    bias: Real
    order: str
    relu: bool = False
    window: tuple[list[int], list[int]] | None = None

    @property
    def plain(self) -> bool:
        return not self.relu and self.window is None

    def times(self, factor: float) -> Sum:
        terms = tuple(replace(term, weights=term.weights * factor) for term in self.terms)
        return replace(self, terms=terms, bias=self.bias * factor)


Value = Whole | Sum | Real


class Reference:
    """The boundaries of one chunk in whole numbers."""

    def __init__(self, graph: ModelGraph, numbers: Arithmetic) -> None:
        self._graph = graph
        self._numbers = numbers
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
            self._values[node.output[0]] = getattr(self, "_" + node.op_type.lower())(
                node, _attributes(node)
            )
        return {name: self._whole(name) for name in outputs}

    # Values.

    def _whole(self, name: str) -> Whole:
        value = self._values[name]
        if isinstance(value, Sum):
            value = self._values[name] = self._rounded(value)
        assert value.dtype == np.int64
        return value

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
        # The circuit holds one constant an element, as float32.
        constant = np.rint(value.bias * (q * resolution) + (q // 2 + q * offset))
        held = np.frompyfunc(int, 1, 1)(constant.astype(np.float32).astype(np.float64))
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
        """q, with as many more bits as the finest numbers have, in as few digits as hold them."""
        excess = math.log2(max(term.fineness for term in value.terms))
        if excess <= 2:
            return self._numbers.divisor
        digits = 2
        while math.ceil(excess / (digits - 1)) >= self._numbers.logrows:
            digits += 1
        return self._numbers.divisor << (math.ceil(excess / (digits - 1)) * (digits - 1))

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
        return replace(made, bias=made.bias + bias[None, :, None, None])

    def _windows(self, x: Whole, weight: Real, given: Mapping[str, Any]) -> Sum:
        term = Term(weight, lambda weights: _convolved(x, weights, given))
        shape = term.sums(np.zeros(weight.shape, dtype=np.int64)).shape
        return Sum(terms=(term,), bias=np.zeros(shape), order=f"channels {shape}")

    def _gemm(self, node: onnx.NodeProto, given: dict[str, Any]) -> Sum:
        weight = self._constant(node.input[1])
        weight = (weight.T if given.get("transB", 0) else weight) * given.get("alpha", 1.0)
        made = self._product(self._whole(node.input[0]), weight)
        if len(node.input) > 2:
            bias = self._constant(node.input[2]) * given.get("beta", 1.0)
            made = replace(made, bias=np.broadcast_to(bias, made.bias.shape))
        return made

    def _matmul(self, node: onnx.NodeProto, _: dict[str, Any]) -> Sum:
        left, right = node.input
        if right in self._graph.initializers:
            return self._product(self._whole(left), self._constant(right))
        # Both have a denominator of 2^s, and the result has one.
        product = self._whole(left) @ self._whole(right)
        term = Term(np.full(1, 0.5**self._numbers.scale), lambda weights: product * weights[0])
        return Sum(terms=(term,), bias=np.zeros(product.shape), order="last")

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
        return Sum(terms=(Term(weight, sums),), bias=np.zeros(shape), order="last")

    def _add(self, node: onnx.NodeProto, _: dict[str, Any], sign: float = 1.0) -> Sum:
        first, second = node.input
        factors = {first: 1.0, second: sign}
        if first == second:
            return self._plain(first).times(1.0 + sign)
        waits = {n: isinstance(self._values[n], Sum) for n in node.input}
        constant = {n: n in self._graph.initializers for n in node.input}
        base, other = first, second
        if constant[first] or (waits[second] and not waits[first]):
            base, other = second, first
        left = self._plain(base).times(factors[base])
        if constant[other]:
            added = self._constant(other) * factors[other]
            return replace(left, bias=left.bias + np.broadcast_to(added, left.bias.shape))
        right = self._values[other]
        together = isinstance(right, Sum) and right.plain and right.order == left.order
        if not together:
            self._whole(other)
        right = self._sum(other).times(factors[other])
        return replace(left, terms=left.terms + right.terms, bias=left.bias + right.bias)

    def _sub(self, node: onnx.NodeProto, given: dict[str, Any]) -> Sum:
        return self._add(node, given, sign=-1.0)

    def _mul(self, node: onnx.NodeProto, _: dict[str, Any]) -> Sum:
        first, second = node.input
        if first in self._graph.initializers:
            first, second = second, first
        return self._plain(first).times(float(self._constant(second).ravel()[0]))

    def _div(self, node: onnx.NodeProto, _: dict[str, Any]) -> Sum:
        return self._plain(node.input[0]).times(1 / float(self._constant(node.input[1]).ravel()[0]))

    def _relu(self, node: onnx.NodeProto, _: dict[str, Any]) -> Sum:
        return replace(self._sum(node.input[0]), relu=True)

    def _maxpool(self, node: onnx.NodeProto, given: dict[str, Any]) -> Sum:
        value = self._values[node.input[0]]
        if isinstance(value, Sum) and value.window is not None:
            self._whole(node.input[0])
        window = (given["kernel_shape"], given.get("strides", [1, 1]))
        return replace(self._sum(node.input[0]), window=window)

    def _averagepool(self, node: onnx.NodeProto, given: dict[str, Any]) -> Sum:
        x = self._whole(node.input[0])
        channels = x.shape[1]
        weight = np.full((channels, 1, *given["kernel_shape"]), 1 / np.prod(given["kernel_shape"]))
        return self._windows(x, weight, {**given, "group": channels})

    def _globalaveragepool(self, node: onnx.NodeProto, _: dict[str, Any]) -> Sum:
        shape = self._whole(node.input[0]).shape
        return self._averagepool(node, {"kernel_shape": list(shape[2:])})

    def _reshape(self, node: onnx.NodeProto, _: dict[str, Any]) -> Whole:
        shape = self._graph.tensor(node.output[0]).shape
        return self._whole(node.input[0]).reshape(shape)

    def _concat(self, node: onnx.NodeProto, given: dict[str, Any]) -> Whole:
        return np.concatenate([self._whole(name) for name in node.input], axis=given["axis"])

    _flatten = _squeeze = _unsqueeze = _reshape

    def _transpose(self, node: onnx.NodeProto, given: dict[str, Any]) -> Whole:
        return self._whole(node.input[0]).transpose(given.get("perm"))


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _convolved(x: Whole, weight: Whole, given: Mapping[str, Any]) -> Whole:
    """ONNX's Conv of one image, tap by tap."""
    _, _, height, width = x.shape
    outputs, depth, tall, wide = weight.shape
    top, left, bottom, right = given.get("pads", [0, 0, 0, 0])
    down, across = given.get("strides", [1, 1])
    spread_y, spread_x = given.get("dilations", [1, 1])
    rows = (height + top + bottom - spread_y * (tall - 1) - 1) // down + 1
    columns = (width + left + right - spread_x * (wide - 1) - 1) // across + 1
    found = np.zeros((1, outputs, rows, columns), dtype=np.int64)
    per_group = outputs // given.get("group", 1)
    for o, r, c, d, i, j in itertools.product(
        range(outputs), range(rows), range(columns), range(depth), range(tall), range(wide)
    ):
        y, z = r * down - top + i * spread_y, c * across - left + j * spread_x
        if 0 <= y < height and 0 <= z < width:
            found[0, o, r, c] += x[0, o // per_group * depth + d, y, z] * weight[o, d, i, j]
    return found


def _largest(x: Whole, kernel: list[int], strides: list[int]) -> Whole:
    """ONNX's MaxPool without padding."""
    rows, columns = ((x.shape[2 + a] - kernel[a]) // strides[a] + 1 for a in (0, 1))
    found = np.zeros((*x.shape[:2], rows, columns), dtype=np.int64)
    for r, c in itertools.product(range(rows), range(columns)):
        y, z = r * strides[0], c * strides[1]
        found[:, :, r, c] = x[:, :, y : y + kernel[0], z : z + kernel[1]].max(axis=(2, 3))
    return found
