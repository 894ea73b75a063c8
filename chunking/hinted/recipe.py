"""Computing the hints: the prover's side of a hinted circuit.

A chunk model carries its recipe as metadata: a list of steps, whose arrays are the circuit's own
constants. Nothing here is trusted. A wrong hint makes a proof impossible, not wrong.

A recipe knows every value of its chunk, the outgoing boundaries' too: so it is also a forward pass
of the quantised model, far faster than ezkl's. What a proof shows comes from ezkl's all the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from onnx import numpy_helper

from zkml_ray.chunking.hinted.grid import Ints
from zkml_ray.chunking.hinted.numbers import Arithmetic
from zkml_ray.errors import RangeExceededError

METADATA_KEY: Final = "zkml_ray/recipe"

EXACT_BITS: Final = 53
"""Sums below 2^53 are exact in float64, whose matrix products are fast."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Solved:
    """What a recipe computes.

    Attributes:
        hints: In the order of the circuit's input.
        outgoing: Per boundary that the chunk produces, its values, flat.
    """

    hints: Ints
    outgoing: Mapping[str, Ints]


class Recipe:
    """A chunk model's recipe, read once for many inputs."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Read it from a chunk model."""
        self._recipe: dict[str, Any] = json.loads(_entry(model))
        self._numbers = Arithmetic(**self._recipe["arithmetic"])
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._arrays: dict[str, Ints] = {}

    def solve(self, incoming: Mapping[str, Sequence[int] | Ints], chunk_id: str) -> Solved:
        """Compute a chunk in whole numbers.

        Args:
            incoming: Per boundary it reads, the values, flat.
            chunk_id: For error messages.

        Raises:
            RangeExceededError: A value does not fit the circuit's digits.
        """
        solver = _Solver(self._numbers, self._array, chunk_id)
        for step in self._recipe["steps"]:
            if step["do"] == "receive":
                solver.receive(step, np.asarray(incoming[step["boundary"]], dtype=np.int64))
            elif step["do"] == "give":
                solver.give(step)
            else:
                solver.settle(step)
        hints = np.concatenate(solver.hints) if solver.hints else np.zeros(0, dtype=np.int64)
        return Solved(hints=hints, outgoing=solver.outgoing)

    def _array(self, name: str) -> Ints:
        if name not in self._arrays:
            self._arrays[name] = numpy_helper.to_array(self._constants[name]).astype(np.int64)
        return self._arrays[name]


def solve(model: onnx.ModelProto, incoming: Mapping[str, Sequence[int]], chunk_id: str) -> Ints:
    """The hints of a chunk's circuit.

    Args:
        model: The chunk model.
        incoming: Per boundary it reads, the values, flat.
        chunk_id: For error messages.

    Returns:
        The hints, in the order of the circuit's input.

    Raises:
        RangeExceededError: A value does not fit the circuit's digits.
    """
    return Recipe(model).solve(incoming, chunk_id).hints


def hint_count(model: onnx.ModelProto) -> int:
    """How many hints a chunk model's input begins with."""
    return int(json.loads(_entry(model))["hints"])


def _entry(model: onnx.ModelProto) -> str:
    return str(next(e.value for e in model.metadata_props if e.key == METADATA_KEY))


class _Solver:
    def __init__(self, numbers: Arithmetic, array: Any, chunk_id: str) -> None:
        self._numbers = numbers
        self._array = array
        self._chunk_id = chunk_id
        self._wires: dict[str, Ints] = {}
        self.hints: list[Ints] = []
        self.outgoing: dict[str, Ints] = {}

    def receive(self, step: Mapping[str, Any], values: Ints) -> None:
        """A boundary's values: the higher digits."""
        self._wires[step["wire"]] = values
        digits = self._digits(values + self._numbers.offset, step["boundary"])
        self.hints += digits[1:]

    def give(self, step: Mapping[str, Any]) -> None:
        """An outgoing boundary's values."""
        self.outgoing[step["boundary"]] = self._wires[step["wire"]][self._array(step["index"])]

    def settle(self, step: Mapping[str, Any]) -> None:
        """Round sums to quotients: see `lower.settle`."""
        t, a, b, p = step["layout"]
        q = self._numbers.divisor
        total = np.broadcast_to(self._array(step["constant"]), (t, a, b, p)).copy()
        for term in step["terms"]:
            total += self._term(term, (t, a, b, p))
        quotient = total // q
        remainder = total - quotient * q
        valid = np.broadcast_to(self._array(step["valid"]).astype(bool), (a, b, p))
        every = np.broadcast_to(valid, (t, a, b, p))
        best = quotient.max(axis=0)
        if step["relu"]:
            best = np.maximum(best, 0)
        self.hints += self._digits(best[valid], step["name"])
        if step["below"]:
            below = (best[None] - quotient)[every]
            self.hints += self._digits(below, step["name"])
        rest = every.copy()
        rest[..., 0] = False
        self.hints.append(remainder[rest])
        self._wires[step["wire"]] = best[valid] - step["offset"]

    def _term(self, term: Mapping[str, Any], layout: tuple[int, int, int, int]) -> Ints:
        t, a, b, p = layout
        wire = np.append(self._wires[term["wire"]], 0)
        picked = wire[self._array(term["index"])]
        weights = self._array(term["weights"])
        if term["kind"] == "columns":
            length = picked.shape[-1]
            product = _matmul(picked.reshape(t * a, length), weights.reshape(length, b * p))
            return product.reshape(t, a, b, p)
        if term["kind"] == "rows":
            length = picked.shape[-1]
            product = _matmul(picked.reshape(t * a * p, length), weights.reshape(length, b))
            return product.reshape(t, a, p, b).transpose(0, 1, 3, 2)
        return (picked.reshape(t, a, b, p, -1) * weights).sum(axis=-1)

    def _digits(self, values: Ints, name: str) -> list[Ints]:
        digits = _split(values, self._numbers)
        limit = self._numbers.divisor
        if values.size and (values.min() < 0 or max(d.max() for d in digits) >= limit):
            reach = 2.0**self._numbers.range_bits
            raise RangeExceededError(
                f"{self._chunk_id}: {name} reached a value beyond +-{reach:g}, the range that its "
                "circuit can express; raise --range-bits, or use inputs like those the model was "
                "trained on",
                stage="witness",
                chunk_id=self._chunk_id,
            )
        return digits


def _split(values: Ints, numbers: Arithmetic) -> list[Ints]:
    """Digits of values that are not negative, the lowest first."""
    if numbers.digits == 1:
        return [values]
    excess = values - (numbers.divisor - 1)
    high = np.maximum(0, -(-excess >> numbers.overlap_bits))
    return [values - (high << numbers.overlap_bits), high]


def _matmul(left: Ints, right: Ints) -> Ints:
    bound = left.shape[1] * int(np.abs(left).max(initial=0)) * int(np.abs(right).max(initial=0))
    if bound.bit_length() <= EXACT_BITS:
        return (left.astype(np.float64) @ right.astype(np.float64)).astype(np.int64)
    product: Ints = left @ right
    return product
