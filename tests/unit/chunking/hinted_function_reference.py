"""What hinted circuits make of GELU, softmax, LayerNormalization and products of activations.

Written down a second time like `hinted_reference`: loops over whole numbers, with the tables' and
the hints' roundings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from tests.unit.chunking.hinted_reference import Real, Reference, Sum, Term, Whole
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.hinted.numbers import Arithmetic


@dataclass(frozen=True)
class Fine:
    """Numbers that are not rounded, exactly, and how many of them a unit is."""

    whole: Whole
    resolution: float


@dataclass(frozen=True)
class ErrorFunction:
    """Erf of a tensor's rounded values, with something added; `values` stand for the argument."""

    values: Whole
    result: Whole
    plus: float = 0.0


class FunctionReference(Reference):
    """The boundaries of a chunk that may have functions."""

    def __init__(self, graph: ModelGraph, numbers: Arithmetic) -> None:
        super().__init__(graph, numbers)
        self._multiples: dict[str, tuple[str, float]] = {}

    # Values.

    def _whole(self, name: str) -> Whole:
        value: Any = self._values[name]
        if isinstance(value, Fine):
            self._values[name] = self._rounded(self._sum(name))
        return super()._whole(name)

    def _sum(self, name: str) -> Sum:
        value: Any = self._values[name]
        if not isinstance(value, Fine):
            return super()._sum(name)
        fineness = value.resolution / 2.0**self._numbers.scale
        term = Term(np.array([1 / fineness]), lambda w: _exactly(value.whole, w[0]), fineness)
        return Sum(terms=(term,), bias=np.zeros(value.whole.shape), order="last")

    def _multiple(self, name: str) -> tuple[str, float]:
        """A tensor, and the number by which another one is that tensor."""
        return self._multiples.get(name, (name, 1.0))

    def _rounded_shares(self, name: str) -> tuple[Whole, float]:
        """Whole numbers and their resolution, which is a softmax's own where it is read at once."""
        value: Any = self._values[name]
        if isinstance(value, Fine) and value.resolution < self._numbers.divisor:
            return value.whole, value.resolution
        return self._whole(name), float(self._one)

    # Operators.

    def _matmul(self, node: onnx.NodeProto, given: dict[str, Any]) -> Sum:
        if any(self._fixed(name) for name in node.input):
            return super()._matmul(node, given)
        (left, fine), (right, finer) = (self._rounded_shares(name) for name in node.input)
        exact = np.matmul(left.astype(object), right.astype(object))
        found: Whole = np.asarray(exact, dtype=np.int64)
        fineness = fine * finer / self._one
        term = Term(np.array([1 / fineness]), lambda w: _exactly(found, w[0]), fineness)
        return Sum(terms=(term,), bias=np.zeros(found.shape), order="last")

    def _erf(self, node: onnx.NodeProto, _: dict[str, Any]) -> ErrorFunction:
        values, one = self._rounded(self._plain(node.input[0]), signed=False), self._one
        self._multiples[node.output[0]] = self._multiple(node.input[0])
        table = np.vectorize(lambda v: math.floor(one * math.erf(abs(v) / one) + 0.5), [np.int64])
        return ErrorFunction(values, table(values))

    def _add(self, node: onnx.NodeProto, given: dict[str, Any], sign: float = 1.0) -> Any:
        for name, other in (node.input, tuple(node.input)[::-1]):
            value: Any = self._values[name]
            if isinstance(value, ErrorFunction):
                self._multiples[node.output[0]] = self._multiple(name)
                return replace(value, plus=value.plus + self._constant(other).item())
        return super()._add(node, given, sign)

    def _mul(self, node: onnx.NodeProto, given: dict[str, Any]) -> Any:
        for name, other in (node.input, tuple(node.input)[::-1]):
            if self._fixed(other) and self._constant(other).size == 1:
                source, multiple = self._multiple(name)
                factor = self._constant(other).item()
                self._multiples[node.output[0]] = source, multiple * factor
            gate: Any = self._values[name]
            if isinstance(gate, ErrorFunction):
                (first, u), (second, v) = self._multiple(other), self._multiple(name)
                assert first == second
                plus = round(gate.plus * self._one)
                exact = np.abs(gate.values) * gate.result + plus * gate.values
                return Fine(exact, 2.0**self._numbers.scale * self._one * v / u)
        return super()._mul(node, given)

    def _div(self, node: onnx.NodeProto, given: dict[str, Any]) -> Sum:
        source, multiple = self._multiple(node.input[0])
        divisor = self._constant(node.input[1])
        if divisor.size == 1:
            self._multiples[node.output[0]] = source, multiple / divisor.item()
        return super()._div(node, given)

    def _softmax(self, node: onnx.NodeProto, _: dict[str, Any]) -> Fine:
        numbers, one = self._numbers, self._one
        scores = self._rounded(self._plain(node.input[0]))
        top = min(numbers.divisor - 1, 8 * one)
        unit = math.ceil(math.exp(top / one) * one * (1 + 1e-6)) + 1
        target = int(np.float32(unit * numbers.divisor * 64))
        weights = np.zeros(scores.shape, dtype=np.int64)
        for row in np.ndindex(*scores.shape[:-1]):
            for key, score in enumerate(scores[row]):
                argument = max(0, int(score) - int(max(scores[row])) + top)
                weights[(*row, key)] = math.floor(
                    one * float(np.float32(np.e)) ** (argument / one) + 0.5
                )
            total = int(weights[row].sum())
            weights[row] *= (target + total // 2) // total
        resolution = numbers.divisor - 64.0
        self._values["softmax"] = Fine(weights, float(target))
        return Fine(self._rounded(self._sum("softmax"), resolution, signed=False), resolution)

    def _layernormalization(self, node: onnx.NodeProto, given: dict[str, Any]) -> Sum:
        values, unit = self._whole(node.input[0]), 1 << self._numbers.logrows
        width = values.shape[-1]
        gamma, beta = (self._constant(name) for name in node.input[1:])
        variance = float(width**3 * self._one**2)
        epsilon = int(np.float32(round(given.get("epsilon", 1e-5) * variance)))
        target = int(np.float32(round(unit**2 * variance)))
        normal = np.zeros(values.shape, dtype=np.int64)
        for row in np.ndindex(*values.shape[:-1]):
            centred = [width * int(v) - int(values[row].sum()) for v in values[row]]
            root = math.isqrt(target // (sum(c * c for c in centred) + epsilon))
            normal[row] = [c * root for c in centred]
        fineness = float(width * unit)

        def sums(weights: Whole) -> Whole:
            return _exactly(normal, weights)

        bias: Real = np.broadcast_to(beta, values.shape)
        return Sum(terms=(Term(gamma / fineness, sums, fineness),), bias=bias, order="last")

    @property
    def _one(self) -> int:
        return 1 << self._numbers.scale


def _exactly(left: Whole, right: Any) -> Whole:
    """A product that does not wrap."""
    exact = left.astype(object) * right
    assert max((abs(int(v)) for v in exact.ravel()), default=0) < 2**63
    return exact.astype(np.int64)
