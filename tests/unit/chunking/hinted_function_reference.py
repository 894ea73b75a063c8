"""What hinted circuits make of GELU, softmax, LayerNormalization and products of activations.

Written down a second time like `hinted_reference`: loops over whole numbers, with the tables' and
the hints' roundings.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
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
    """Erf of a tensor that is not rounded yet, with something added."""

    argument: Sum
    plus: float = 0.0


@dataclass(frozen=True)
class Shares:
    """A softmax's weights, exactly, its rows' reciprocal sums, and how many of both a unit is."""

    weights: Whole
    reciprocals: Whole
    resolution: float


@dataclass(frozen=True)
class Masked:
    """Scores by name, and which of them count."""

    source: str
    kept: np.ndarray


class FunctionReference(Reference):
    """The boundaries of a chunk that may have functions."""

    def __init__(self, graph: ModelGraph, numbers: Arithmetic) -> None:
        super().__init__(graph, numbers)
        self._multiples: dict[str, tuple[str, float]] = {}

    # Values.

    def _whole(self, name: str) -> Whole:
        value: Any = self._shared(name)
        if isinstance(value, Fine):
            self._values[name] = self._rounded(self._sum(name))
        return super()._whole(name)

    def _stands(self, name: str) -> None:
        """Numbers that are not rounded are numbers."""
        if not isinstance(self._shared(name), Fine):
            self._whole(name)

    def _shared(self, name: str) -> Any:
        """A value; of a softmax its shares, rounded to a resolution of their own."""
        value: Any = self._values[name]
        if isinstance(value, ErrorFunction):
            found = self._saturated(value.argument, math.erf) + round(value.plus * self._one)
            value = self._values[name] = Fine(found, float(self._one))
        if isinstance(value, Shares):
            exact = Fine(_exactly(value.weights, value.reciprocals[..., None]), value.resolution)
            self._values["softmax"] = exact
            resolution = self._numbers.divisor - 64.0
            rounded = self._rounded(self._sum("softmax"), resolution, signed=False)
            value = self._values[name] = Fine(rounded, resolution)
        return value

    def _sum(self, name: str) -> Sum:
        value: Any = self._shared(name)
        if not isinstance(value, Fine):
            return super()._sum(name)
        fineness = value.resolution / 2.0**self._numbers.scale
        term = Term(np.array([1 / fineness]), lambda w: _exactly(value.whole, w[0]), fineness)
        return Sum(terms=(term,), bias=np.zeros(value.whole.shape), order="last")

    def _spread_to(self, name: str, shape: Sequence[int]) -> Sum:
        """Numbers that are not rounded stay so."""
        value: Any = self._shared(name)
        if not isinstance(value, Fine):
            return super()._spread_to(name, shape)
        whole = np.broadcast_to(value.whole, tuple(shape))
        self._values["spread"] = Fine(whole, value.resolution)
        return self._sum("spread")

    def _multiple(self, name: str) -> tuple[str, float]:
        """A tensor, and the number by which another one is that tensor."""
        return self._multiples.get(name, (name, 1.0))

    def _rounded_shares(self, name: str) -> tuple[Whole, float]:
        """Whole numbers and their resolution, which is a softmax's own where it is read at once."""
        value: Any = self._shared(name)
        if isinstance(value, Fine) and value.resolution == self._numbers.divisor - 64.0:
            return value.whole, value.resolution
        return self._whole(name), float(self._one)

    # Operators.

    def _matmul(self, node: onnx.NodeProto, given: dict[str, Any]) -> Sum:
        if any(self._fixed(name) for name in node.input):
            return super()._matmul(node, given)
        shares: Any = self._values[node.input[0]]
        if isinstance(shares, Shares):
            (left, fine), factors = (shares.weights, shares.resolution), shares.reciprocals
        else:
            left, fine = self._rounded_shares(node.input[0])
            factors = np.ones(left.shape[:-1], dtype=np.int64)
        right, finer = self._rounded_shares(node.input[1])
        scaled = left.astype(object) * factors.astype(object)[..., np.newaxis]
        found: Whole = np.matmul(scaled, right.astype(object))
        fineness = fine * finer / self._one
        term = Term(np.array([1 / fineness]), lambda w: _exactly(found, w[0]), fineness)
        return Sum(terms=(term,), bias=np.zeros(found.shape), order="last")

    def _erf(self, node: onnx.NodeProto, _: dict[str, Any]) -> ErrorFunction:
        self._multiples[node.output[0]] = self._multiple(node.input[0])
        return ErrorFunction(self._plain(node.input[0]))

    def _exp(self, node: onnx.NodeProto, _: dict[str, Any]) -> Whole:
        return self._exponential(node.input[0], self._plain(node.input[0]))

    def _exponential(self, name: str, argument: Sum) -> Whole:
        """How far the argument is below 0, or ln of the range, as far as it counts; rounded."""
        one, largest = self._one, 0
        if not self._is_below_zero(name):
            largest = math.ceil(self._numbers.range_bits * math.log(2) * one)
        top = largest + math.ceil((self._numbers.scale + 1) * math.log(2) * one)
        below = argument.times(-1.0)
        below = replace(below, bias=below.bias + largest / one)
        distance = self._distance(below)
        found = self._table(_power, top - np.minimum(distance, top))
        self._values["exp"] = Fine(found, one * math.exp((top - largest) / one))
        return self._rounded(self._sum("exp"), signed=False)

    def _distance(self, value: Sum) -> Whole:
        """Rounded values that are not negative, of any size."""
        found = self._unbounded(value)
        assert found.min(initial=0) >= 0
        return found

    def _log(self, node: onnx.NodeProto, _: dict[str, Any]) -> Whole:
        """The last entry that is no larger than what is half a step above."""
        top, one = self._numbers.divisor - 1, self._one
        most = self._numbers.range_bits + 1
        if self._is_one_more(node.input[0]):
            # One digit and 1.
            most = min(most, self._numbers.logrows - self._numbers.scale + 1)
        last = top - 1 - math.ceil(most * math.log(2) * one)
        bits = 23 - math.floor((last + 0.5) / one / math.log(2))
        factor = int(np.float32(math.exp((last + 0.5) / one) * 2.0**bits))
        table = [int(v) << bits for v in self._table(_power, np.arange(top + 1))]
        values = self._positive(node.input[0])
        found = [bisect.bisect_right(table, int(v) * factor) - 1 for v in values.ravel()]
        whole = np.array(found, dtype=np.int64).reshape(values.shape)
        return whole - last

    def _positive(self, name: str) -> Whole:
        values = self._whole(name)
        assert values.min(initial=1) > 0
        return values

    def _maker(self, name: str) -> onnx.NodeProto | None:
        return next((n for n in self._graph.nodes.values() if name in n.output), None)

    def _is_below_zero(self, name: str) -> bool:
        """Whether a tensor is -|x|, or the lesser of x and 0."""
        node = self._maker(name)
        if node is None or node.op_type not in ("Clip", "Max", "Min", "Neg"):
            return False
        if node.op_type == "Min":
            return any(self._fixed(n) and self._constant(n).max() <= 0 for n in node.input)
        if node.op_type in ("Clip", "Max"):
            return self._is_below_zero(node.input[0])
        maker = self._maker(node.input[0])
        return maker is not None and maker.op_type == "Abs"

    def _is_one_more(self, name: str) -> bool:
        """Whether a tensor is 1 + e^x, x below zero."""
        node = self._maker(name)
        if node is None or node.op_type != "Add":
            return False
        maker = self._maker(node.input[0])
        return maker is not None and maker.op_type == "Exp" and self._is_below_zero(maker.input[0])

    def _tanh(self, node: onnx.NodeProto, _: dict[str, Any]) -> Fine:
        return Fine(self._saturated(self._plain(node.input[0])), float(self._one))

    def _sigmoid(self, node: onnx.NodeProto, _: dict[str, Any]) -> Fine:
        found = self._saturated(self._plain(node.input[0]).times(0.5))
        return Fine(found + self._one, 2.0 * self._one)

    def _saturated(self, argument: Sum, function: Any = math.tanh) -> Whole:
        """Of rounded values, which count as no larger than the table's last digit."""
        values = self._unbounded(argument)
        found: Whole = np.sign(values) * self._table(function, np.abs(values))
        return found

    def _table(self, function: Any, values: Whole) -> Whole:
        one, last = self._one, self._numbers.divisor - 1
        entry = np.vectorize(lambda v: math.floor(one * function(v / one) + 0.5), [np.int64])
        return np.asarray(entry(np.minimum(values, last)))

    def _add(self, node: onnx.NodeProto, given: dict[str, Any], sign: float = 1.0) -> Any:
        for name, other in (node.input, tuple(node.input)[::-1]):
            value: Any = self._values[name]
            added = self._fixed(other) and self._constant(other).size == 1
            if isinstance(value, ErrorFunction) and added and sign > 0:
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
                if first != second:
                    continue
                plus = round(gate.plus * self._one)
                values = self._rounded(gate.argument, signed=False)
                result = self._table(math.erf, np.abs(values))
                exact = np.abs(values) * result + plus * values
                return Fine(exact, 2.0**self._numbers.scale * self._one * v / u)
        for name, other in (node.input, tuple(node.input)[::-1]):
            left: Any = self._shared(name)
            if isinstance(left, Fine) and not self._fixed(other) and self._is_function(left):
                # One of two functions stays as it is.
                return Fine(left.whole * self._whole(other), left.resolution * self._one)
        return super()._mul(node, given)

    def _unbounded(self, value: Sum) -> Whole:
        """Rounded values of any size."""
        return self._rounded(value, signed=False)

    def _is_function(self, value: Fine) -> bool:
        return value.resolution in (self._one, 2 * self._one, 4 * self._one)

    def _sqrt(self, node: onnx.NodeProto, _: dict[str, Any]) -> Fine:
        squares = self._sum_of_squares(node.input[0])
        if squares is not None:
            exact = [math.isqrt(int(v) * 16) for v in squares.ravel()]
            return Fine(np.array(exact, dtype=np.int64).reshape(squares.shape), 4.0 * self._one)
        values = self._whole(node.input[0])
        assert (values >= 0).all()
        roots = [math.isqrt(int(v) * self._one * 16) for v in values.ravel()]
        return Fine(np.array(roots, dtype=np.int64).reshape(values.shape), 4.0 * self._one)

    def _sum_of_squares(self, name: str) -> Whole | None:
        """A sum over axes of the squares of a tensor's elements, which nothing rounds."""
        total = self._maker(name)
        square = None if total is None else self._maker(total.input[0])
        if (
            total is None
            or square is None
            or (total.op_type, square.op_type) != ("ReduceSum", "Mul")
        ):
            return None
        if square.input[0] != square.input[1]:
            return None
        axes = tuple(int(v) for v in self._constant(total.input[1]))
        whole = self._whole(square.input[0])
        found = (whole**2).sum(axis=axes).reshape(self._graph.tensor(name).shape)
        return np.asarray(found)

    def _pow(self, node: onnx.NodeProto, given: dict[str, Any]) -> Any:
        if self._fixed(node.input[0]):
            factor = math.log(self._constant(node.input[0]).item())
            return self._exponential("", self._plain(node.input[1]).times(factor))
        if self._constant(node.input[1]).item() == 0.5:
            return self._sqrt(node, given)
        return super()._pow(node, given)

    def _quotient(self, node: onnx.NodeProto) -> Whole:
        """To the nearest, halves away from the divisor's sign; of constants as float32 has them."""
        first, second = node.input
        below = self._whole(second).astype(object)
        if self._fixed(first):
            held = np.rint(self._constant(first) * 2.0 * self._one**2).astype(np.float32)
            above = np.frompyfunc(int, 1, 1)(held.astype(np.float64))
        else:
            above = self._whole(first).astype(object) * (2 * self._one)
        assert below.all()
        sign = np.where(below < 0, -1, 1)
        found = (np.asarray(above) * sign + below * sign) // (2 * below * sign)
        return np.asarray(found).astype(np.int64)

    def _div(self, node: onnx.NodeProto, given: dict[str, Any]) -> Any:
        if not self._fixed(node.input[1]):
            return self._quotient(node)
        source, multiple = self._multiple(node.input[0])
        divisor = self._constant(node.input[1])
        if divisor.size == 1:
            self._multiples[node.output[0]] = source, multiple / divisor.item()
        return super()._div(node, given)

    def _where(self, node: onnx.NodeProto, given: dict[str, Any]) -> Any:
        low = self._fixed(node.input[2]) and self._constant(node.input[2]).size == 1
        if low and float(self._constant(node.input[2]).item()) < -1e38:
            shape = self._graph.tensor(node.output[0]).shape
            kept = np.broadcast_to(self._constant(node.input[0]) != 0, shape)
            return Masked(node.input[1], kept)
        return super()._where(node, given)

    def _softmax(self, node: onnx.NodeProto, _: dict[str, Any]) -> Shares:
        numbers, one = self._numbers, self._one
        masked: Any = self._values[node.input[0]]
        source = masked.source if isinstance(masked, Masked) else node.input[0]
        scores = self._rounded(self._plain(source))
        kept = masked.kept if isinstance(masked, Masked) else np.ones(scores.shape, dtype=bool)
        top = numbers.divisor - 1
        unit = math.ceil(math.exp(top / one) * one * (1 + 1e-6)) + 1
        ratio = max(64 * numbers.divisor, 4 * one * int(kept.sum(axis=-1).max()))
        spare = len(bin(unit * ratio)) - 2 - 16
        target = unit * ratio >> spare << spare
        weights = np.zeros(scores.shape, dtype=np.int64)
        reciprocals = np.zeros(scores.shape[:-1], dtype=np.int64)
        for row in np.ndindex(*scores.shape[:-1]):
            largest = max(int(s) for s, k in zip(scores[row], kept[row], strict=True) if k)
            for key, score in enumerate(scores[row]):
                if not kept[(*row, key)]:
                    continue
                argument = max(0, int(score) - largest + top)
                weights[(*row, key)] = math.floor(
                    one * float(np.float32(np.e)) ** (argument / one) + 0.5
                )
            total = int(weights[row].sum())
            reciprocals[row] = self._reciprocal(target, total)
        return Shares(weights, reciprocals, float(target))

    def _layernormalization(self, node: onnx.NodeProto, given: dict[str, Any]) -> Sum:
        values, numbers = self._whole(node.input[0]), self._numbers
        unit = 1 << max(numbers.logrows, numbers.scale + numbers.range_bits + 2)
        width = values.shape[-1]
        gamma, beta = (self._constant(name) for name in node.input[1:])
        # Sums of squares are counted in so many steps that the least above zero is 2^(scale + 4).
        least, finer = max(1, width * (width - 1)), 1
        while finer * least < 1 << (numbers.scale + 4):
            finer *= 2
        variance = float(finer * width**3 * self._one**2)
        epsilon = round(given.get("epsilon", 1e-5) * variance)
        epsilon = int(np.float32(max(epsilon, (finer * least) // (1 << (numbers.scale + 4)))))
        target = int(np.float32(round(unit**2 * variance)))
        normal = np.zeros(values.shape, dtype=np.int64)
        for row in np.ndindex(*values.shape[:-1]):
            centred = [width * int(v) - int(values[row].sum()) for v in values[row]]
            spread = finer * sum(c * c for c in centred) + epsilon
            root = self._root(target, spread)
            normal[row] = [c * root for c in centred]
        fineness = float(width * unit)

        def sums(weights: Whole) -> Whole:
            return _exactly(normal, weights)

        bias: Real = np.broadcast_to(beta, values.shape)
        return Sum(terms=(Term(gamma / fineness, sums, fineness),), bias=bias, order="last")

    def _root(self, target: int, spread: int) -> int:
        """The nearest root of target / spread."""
        return (math.isqrt(4 * target // spread) + 1) // 2

    def _reciprocal(self, target: int, total: int) -> int:
        """The nearest quotient."""
        return (target + total // 2) // total

    @property
    def _one(self) -> int:
        return 1 << self._numbers.scale


def _power(value: float) -> float:
    """Of the base that ezkl has for e."""
    return float(np.float32(np.e)) ** value


def _exactly(left: Whole, right: Any) -> Whole:
    """A product that does not wrap, of whole numbers of any size."""
    exact: Whole = left.astype(object) * np.asarray(right).astype(object)
    return exact
