"""What each operator's results may be: the declared relation, beside the circuit.

The loops of `tests/unit/chunking/hinted_reference.py` say what honest provers compute. Here every
step of theirs that a prover has a choice at takes all choices there are, and there are three:

- a sum Y + c divided by d gives the quotient, or the one below where the remainder plus d still is
  a number that the remainder's digits can hold;
- a root is a neighbour of the real one: (r - 1)^2 W <= C <= (r + 1)^2 W;
- so is a reciprocal: (r - 1) s <= C <= (r + 1) s.

All else is exact. A result that its digits cannot hold has no proof.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from tests.emitted.unknowns import TABLE_END
from tests.unit.chunking.hinted_circuit import HintedChunk
from tests.unit.chunking.hinted_function_reference import Fine, FunctionReference
from tests.unit.chunking.hinted_reference import Sum, Whole, _largest, held_by_float32
from zkml_ray.chunking.hinted.recipe import METADATA_KEY

MAX_CHOICES = 5_000


class ImpossibleError(Exception):
    """These choices have no proof."""


class Choices:
    """Some choices to be made again, and the first option from then on."""

    def __init__(self, made: Sequence[int]) -> None:
        self._made = made
        self.taken: list[int] = []
        self.options: list[int] = []

    def among(self, count: int) -> int:
        """One of so many options."""
        place = len(self.taken)
        self.taken.append(self._made[place] if place < len(self._made) else 0)
        self.options.append(count)
        return self.taken[place]


def outputs_declared(chunk: HintedChunk, inputs: Mapping[str, Whole]) -> set[tuple[int, ...]]:
    """Every vector of outgoing values that the declared relation has for some inputs."""
    names = [tensor.info.name for tensor in chunk.outgoing]
    found: set[tuple[int, ...]] = set()
    waiting: list[list[int]] = [[]]
    for _ in range(MAX_CHOICES):
        if not waiting:
            return found
        made = waiting.pop()
        choices = Choices(made)
        try:
            outputs = Declared(chunk, choices).run(inputs, chunk.nodes, names)
            found.add(tuple(int(v) for name in names for v in outputs[name].ravel()))
        except ImpossibleError:
            pass
        for place in range(len(made), len(choices.taken)):
            for option in range(1, choices.options[place]):
                waiting.append([*choices.taken[:place], option])
    raise AssertionError("too many choices: the case is too large")


class Declared(FunctionReference):
    """One way through the choices."""

    def __init__(self, chunk: HintedChunk, choices: Choices) -> None:
        super().__init__(chunk.graph, chunk.numbers)
        self._choices = choices
        self._top = (1 << chunk.numbers.logrows) - 1 - TABLE_END
        second = 1 << chunk.numbers.overlap_bits if chunk.numbers.digits > 1 else 0
        self._held = self._top * (1 + second)
        self._reach = {value: self._top * places for value, places in _divisors(chunk)}

    def _rounded(self, value: Sum, resolution: float = 0.0, *, signed: bool = True) -> Whole:
        offset = 0 if value.relu or not signed else self._numbers.offset
        found = self._quotients(value, resolution, offset)
        if not signed and not value.relu:
            return self._parted(found, self._top)
        lowest = found.min(initial=0)
        if value.window is not None:
            found = _largest(found, *value.window)
        if value.relu:
            found = np.maximum(found, 0)
        if found.min(initial=0) < 0 or max(found.max(initial=0), -lowest) > self._held:
            raise ImpossibleError
        return found - offset

    def _unbounded(self, value: Sum) -> Whole:
        """Digits that reach whatever sums can be."""
        return self._quotients(value, 0.0, 0)

    def _split(self, name: str) -> Whole:
        """Each part has all digits of a value."""
        return self._parted(self._quotients(self._plain(name), 0.0, 0), self._held)

    def _quotient(self, node: onnx.NodeProto) -> Whole:
        """One for every divisor but zero, as large as digits hold."""
        if not self._whole(node.input[1]).all():
            raise ImpossibleError
        found = super()._quotient(node)
        shifted = found + self._numbers.offset
        if found.size and not 0 <= shifted.min() <= shifted.max() <= self._held:
            raise ImpossibleError
        return found

    def _sqrt(self, node: onnx.NodeProto, given: dict[str, Any]) -> Fine:
        """Negative numbers have none."""
        if self._whole(node.input[0]).min(initial=0) < 0:
            raise ImpossibleError
        return super()._sqrt(node, given)

    def _distance(self, value: Sum) -> Whole:
        """What lies above the table's top has no proof."""
        found = self._unbounded(value)
        if found.min(initial=0) < 0:
            raise ImpossibleError
        return found

    def _positive(self, name: str) -> Whole:
        """What is not above zero has no logarithm."""
        values = self._whole(name)
        if values.min(initial=1) < 1:
            raise ImpossibleError
        return values

    def _floor(self, node: onnx.NodeProto, given: dict[str, Any]) -> Whole:
        """Whole parts outside of the range have no digit."""
        found = super()._floor(node, given)
        if (
            found.size
            and not -self._numbers.offset <= found.min() <= found.max() < self._numbers.offset
        ):
            raise ImpossibleError
        return found

    def _reducemin(self, node: onnx.NodeProto, given: dict[str, Any]) -> Whole:
        """Settled is the largest opposite, which must be a value too."""
        found = super()._reducemin(node, given)
        if found.size and self._numbers.offset - found.min() > self._held:
            raise ImpossibleError
        return found

    def _parted(self, found: Whole, most: int) -> Whole:
        """Numbers whose positive and negative parts reach so far."""
        if np.abs(found).max(initial=0) > most:
            raise ImpossibleError
        return found

    def _quotients(self, value: Sum, resolution: float, offset: int) -> Whole:
        resolution = resolution or 2.0**self._numbers.scale
        coarser = resolution / 2.0**self._numbers.scale
        value = replace(
            value,
            terms=tuple(
                replace(t, weights=t.weights * coarser, fineness=t.fineness / coarser)
                for t in value.terms
            ),
        )
        q = self._divisor(value)
        total: Any = sum(t.sums(np.rint(t.weights * q).astype(np.int64)) for t in value.terms)
        constant = np.rint(value.bias * (q * resolution) + (q // 2 + q * offset))
        held = held_by_float32(constant, q)
        whole = np.asarray(total).astype(object) + held
        found = np.array(whole // q).astype(np.int64)
        for place in np.ndindex(*found.shape):
            # What no circuit divides is never rounded: whole numbers, and products with 0 or 1.
            if int(whole[place] % q) + q <= self._reach.get(q, 0):
                found[place] -= self._choices.among(2)
        return found

    def _root(self, target: int, spread: int) -> int:
        """The root, or a neighbour of it."""
        near = math.isqrt(target // spread)
        fits = [
            root
            for root in range(max(near - 2, 0), near + 4)
            if (root - 1) ** 2 * spread <= target <= (root + 1) ** 2 * spread
        ]
        return fits[self._choices.among(len(fits))]

    def _reciprocal(self, target: int, total: int) -> int:
        """The reciprocal, or a neighbour of it."""
        near = target // total
        fits = [
            share
            for share in range(max(near - 2, 0), near + 4)
            if (share - 1) * total <= target <= (share + 1) * total
        ]
        return fits[self._choices.among(len(fits))]


def _divisors(chunk: HintedChunk) -> Iterator[tuple[int, int]]:
    """Per divisor, what its remainders' digits weigh together."""
    model = onnx.ModelProto.FromString(chunk.data)
    (entry,) = [e.value for e in model.metadata_props if e.key == METADATA_KEY]
    for step in json.loads(entry)["steps"]:
        if step["do"] == "settle":
            value, digits, width = step["divisor"]
            yield value, sum(1 << (width * place) for place in range(digits))
