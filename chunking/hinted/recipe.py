"""Computing the hints: the prover's side of a hinted circuit.

A chunk model carries its recipe as metadata: a list of steps, whose arrays are the circuit's own
constants. Nothing here is trusted. A wrong hint makes a proof impossible, not wrong.

A recipe knows every value of its chunk, the outgoing boundaries' too: so it is also a forward pass
of the quantised model, far faster than ezkl's. What a proof shows comes from ezkl's all the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from onnx import numpy_helper

from zkml_ray.chunking.hinted.bits import bits_and_digits
from zkml_ray.chunking.hinted.blinding import Advice
from zkml_ray.chunking.hinted.challenge import CHALLENGES
from zkml_ray.chunking.hinted.circuit import product_cells
from zkml_ray.chunking.hinted.clamp import Clamp
from zkml_ray.chunking.hinted.digits import FineDigits
from zkml_ray.chunking.hinted.functions import entries
from zkml_ray.chunking.hinted.grid import Ints
from zkml_ray.chunking.hinted.numbers import Arithmetic
from zkml_ray.chunking.hinted.rounding import unbounded
from zkml_ray.errors import ChunkingError, RangeExceededError

METADATA_KEY: Final = "zkml_ray/recipe"

SUM_BITS: Final = 62
"""Sums of several terms stay below 2^63."""

EXACT_BITS: Final = 53
"""Sums below 2^53 are exact in float64, whose matrix products are fast."""

STEPS: Final = frozenset(
    {"affine", "bit", "divide", "floor", "gate", "give", "join", "logarithm", "lookup", "multiply"}
    | {"normalise", "odd", "pin", "quotient", "root", "rows", "scale", "settle", "share", "total"}
)
"""What a recipe may ask for besides receiving: each is the solver's method of that name."""


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
            elif step["do"] in STEPS:
                getattr(solver, step["do"])(step)
            else:
                raise ChunkingError(f"{chunk_id}: a step {step['do']} of its recipe is not known")
        hints = np.concatenate(solver.hints) if solver.hints else np.zeros(0, dtype=np.int64)
        return Solved(hints=hints, outgoing=solver.outgoing)

    def _array(self, name: str) -> Ints:
        if name not in self._arrays:
            self._arrays[name] = whole(numpy_helper.to_array(self._constants[name]))
        return self._arrays[name]


def solve(model: onnx.ModelProto, incoming: Mapping[str, Sequence[int]], chunk_id: str) -> Ints:
    """The hints of a chunk's circuit.

    Args:
        model: The chunk model.
        incoming: Per boundary it reads, the values, flat.
        chunk_id: For error messages.

    Returns:
        The hints, in the order in which the circuit was made, without blinders.

    Raises:
        RangeExceededError: A value does not fit the circuit's digits.
    """
    return Recipe(model).solve(incoming, chunk_id).hints


def filled(model: onnx.ModelProto, hints: Ints, given: Sequence[int]) -> list[int]:
    """A chunk model's input: hints, values of incoming boundaries and salts, fresh blinders.

    Args:
        model: The chunk model.
        hints: What `solve` gave.
        given: The values of every boundary it reads, then the salts of all it touches.
    """
    recipe = json.loads(_entry(model))
    advice = advice_of(model)
    random = np.zeros(len(advice.hints.places), dtype=bool)
    for start, count in recipe["blinders"]:
        random[start : start + count] = True
    digits = Arithmetic(**recipe["arithmetic"]).divisor
    return advice.filled(hints.tolist(), np.flatnonzero(~random), given, digits)


def advice_of(model: onnx.ModelProto) -> Advice:
    """The layout of a chunk model's input."""
    return Advice(**json.loads(_entry(model))["advice"])


def cell_count(model: onnx.ModelProto, columns: int) -> int:
    """Cells that a chunk model's circuit was counted to take, at some number of inner columns."""
    single, products = json.loads(_entry(model))["cells"]
    total = int(single)
    for (count, length), times in products:
        total += int(times) * product_cells(count, length, columns)
    return total


def products_of(data: bytes) -> list[Ints] | None:
    """Weights of the products that a chunk model's circuit does not hold.

    Returns:
        [K, N] each, in order; None: no product is checked by a challenge.
    """
    model = onnx.load_model_from_string(data)
    if CHALLENGES not in [source.name for source in model.graph.input]:
        return None
    known = {tensor.name: tensor for tensor in model.graph.initializer}
    terms = [
        term
        for step in json.loads(_entry(model))["steps"]
        for term in step.get("terms", [])
        if term.get("product")
    ]
    arrays = [numpy_helper.to_array(known[term["weights"]]) for term in terms]
    return [whole(array).reshape(len(array), -1) for array in arrays]


def _entry(model: onnx.ModelProto) -> str:
    return str(next(e.value for e in model.metadata_props if e.key == METADATA_KEY))


def whole(array: np.ndarray) -> Ints:
    """A constant's whole numbers, Python's integers where 64 bits do not hold them."""
    if array.dtype.kind == "f" and np.abs(array).max(initial=0) >= 2.0**SUM_BITS:
        return unbounded(array.astype(np.float64))
    return array.astype(np.int64)


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
        shifted = values + self._numbers.offset
        digits = self._digits(shifted, step["boundary"], self._numbers.digits)
        self.hints += digits[1:]

    def give(self, step: Mapping[str, Any]) -> None:
        """An outgoing boundary's values."""
        self.outgoing[step["boundary"]] = self._wires[step["wire"]][self._array(step["index"])]

    def settle(self, step: Mapping[str, Any]) -> None:
        """Round sums to quotients: see `settle.settle`."""
        t, a, b, p = step["layout"]
        divisor, places, width = step["divisor"]
        parts = [np.broadcast_to(self._array(name), (t, a, b, p)) for name in step["constants"]]
        total = sum(parts[1:], start=parts[0])
        for term in step["terms"]:
            found = self._term(term, (t, a, b, p))
            exact = max(_largest(total), _largest(found)).bit_length() < SUM_BITS
            total = total + found if exact else total.astype(object) + found
        quotient = self._quotient(total, divisor, step)
        remainder = total - quotient * divisor
        if total.dtype == object:
            quotient = self._narrow(quotient, step["name"])
        valid = np.broadcast_to(self._array(step["valid"]).astype(bool), (a, b, p))
        every = np.broadcast_to(valid, (t, a, b, p))
        if step["clamp"]:
            self._clamped(quotient[0][valid], step)
            self._remainders(remainder, every, places, width, all_given=step["challenged"])
            return
        best = quotient.max(axis=0)
        name, top = step["name"], step["row_top"]
        moves: list[Ints] = []
        taken = valid
        if top is not None:
            if "kept" in step:
                taken = np.broadcast_to(self._array(step["kept"]).astype(bool), (a, b, p))
            largest = np.where(taken, best, best.min()).max(axis=(1, 2))
            moves = self._digits(largest, name, self._numbers.digits)
            # How far below the largest, as far as it counts; what is further is `below`. Of what
            # is dropped, how far below zero.
            distance = np.where(taken, largest[:, None, None], 0) - quotient
            best = np.minimum(distance[0], top)
            below = distance - best
        else:
            best = np.maximum(best, 0) if step["relu"] else best
            below = best - quotient
        results = best[valid]
        self.hints += self._digits(results, name, step["result_digits"])
        if step["below_digits"]:
            self.hints += self._digits(below[every], name, step["below_digits"])
        if top is not None:
            results = best[taken]
            self._wires[step["below"]], results = results, top - results
        elif step["below"]:
            self._wires[step["below"]] = below[every]
        self.hints += moves
        self._remainders(remainder, every, places, width, all_given=step["challenged"])
        self._wires[step["wire"]] = results - step["offset"]

    def _remainders(
        self, remainder: Ints, every: Ints, places: int, width: int, *, all_given: bool
    ) -> None:
        """Digits of remainders; of packed ones the first one's lowest is what is left."""
        for place in range(places):
            digit = remainder >> (width * place)
            if place < places - 1:
                digit = digit & ((1 << width) - 1)
            kept = every.copy()
            if place == 0 and not all_given:
                kept[..., 0] = False
            self.hints.append(digit[kept].astype(np.int64))

    def _clamped(self, values: Ints, step: Mapping[str, Any]) -> None:
        """Signs and magnitudes: see `clamp.clamped`."""
        top, count, width, signed = step["clamp"]
        clamp = Clamp(top=top, beyond=FineDigits(count=count, step=width), signed=signed)
        negative, within, beyond = clamp.split(values, self._numbers)
        if not signed:
            if negative.any():
                raise self._beyond(step["name"])
            self.hints += [within, *beyond]
            self._wires[step["wire"]] = top - within
            return
        self.hints += [negative, within, *beyond]
        self._wires[step["wire"]], self._wires[step["sign"]] = within, 1 - 2 * negative

    def lookup(self, step: Mapping[str, Any]) -> None:
        """A table's entries."""
        self._wires[step["wire"]] = entries(step["op"], self._wires[step["digits"]], step["one"])

    def logarithm(self, step: Mapping[str, Any]) -> None:
        """The last entries that are no larger: see `logarithm.logarithm`."""
        values, top = self._wires[step["values"]], step["top"]
        if values.size and values.min() < 1:
            raise RangeExceededError(
                f"{self._chunk_id}: {step['name']} has a number of zero or below at scale "
                f"{self._numbers.scale}, which has no logarithm",
                stage="witness",
                chunk_id=self._chunk_id,
            )
        table = entries("Exp", np.arange(top + 1), step["one"])
        scaled = values * step["factor"]
        found = np.searchsorted(table << step["bits"], scaled, side="right") - 1
        if found.size and not 0 <= found.min() <= found.max() < top:
            raise self._beyond(step["name"])
        rest = scaled - (table[found] << step["bits"])
        left = (table[found + 1] << step["bits"]) - 1 - scaled
        self.hints.append(found)
        self._places(rest.tolist(), step["places"])
        self._places(left.tolist(), step["places"])
        self._wires[step["wire"]] = found - step["shift"]

    def odd(self, step: Mapping[str, Any]) -> None:
        """Results with signs: see `functions.odd`."""
        found = entries(step["op"], self._wires[step["within"]], step["one"])
        self._wires[step["wire"]] = found * self._wires[step["sign"]]

    def _quotient(self, total: Ints, divisor: int, step: Mapping[str, Any]) -> Ints:
        """What sums are rounded to; a forger gives others."""
        found: Ints = total // divisor
        return found

    def gate(self, step: Mapping[str, Any]) -> None:
        """U (c + erf v): see `gelu.gated`."""
        positive, negative = self._wires[step["positive"]], self._wires[step["negative"]]
        one = 1 << step["bits"]
        magnitude = positive + negative
        table = [_half_up(one * math.erf(v / one)) for v in range(int(magnitude.max()) + 1)]
        error = np.asarray(table, dtype=np.int64)[magnitude]
        self._wires[step["wire"]] = (positive - negative) * step["plus"] + magnitude * error

    def pin(self, step: Mapping[str, Any]) -> None:
        """Which group of a row has an element at zero: see `pins.pin_rows`."""
        products = self._wires[step["wire"]][self._array(step["members"])].min(axis=2)
        if len(products) > 1:
            first = (products == 0).argmax(axis=0)
            one_hot = np.arange(1, len(products))[:, None] == first
            self.hints.append(one_hot.astype(np.int64).ravel())

    def share(self, step: Mapping[str, Any]) -> None:
        """Weights, and their rows' reciprocal sums: see `softmax.softmax`."""
        one = 1 << step["bits"]
        base = float(np.float32(np.e))
        weights = np.asarray(
            [_half_up(one * base ** (v / one)) for v in self._wires[step["exponent"]].tolist()],
            dtype=np.int64,
        )
        arranged, once = self._rows(weights, step["rows"])
        totals = [int(v) for v in (arranged * once).sum(axis=1)]
        shares = [(step["target"] + v // 2) // max(v, 1) for v in totals]
        self._fine(shares, step["fine"], "softmax")
        for change in (1, -1):
            difference = [
                change * ((r + change) * v - step["target"])
                for r, v in zip(shares, totals, strict=True)
            ]
            self._places(difference, step["places"])
        self._wires[step["weights"]] = weights
        self._wires[step["reciprocal"]] = np.asarray(shares, dtype=np.int64)

    def _rows(self, values: Ints, rows: Sequence[Any]) -> tuple[Ints, Ints]:
        """Keys by row, and which of them count: see `softmax.Rows.recipe`."""
        count, longest, places, counts = rows
        if not places:
            return values.reshape(count, longest), np.ones((count, longest), dtype=np.int64)
        once = np.arange(longest) < self._array(counts)[:, None]
        return values[self._array(places)], once.astype(np.int64)

    def divide(self, step: Mapping[str, Any]) -> None:
        """Weights times their row's reciprocal sum: see `softmax._rounded`."""
        reciprocal = self._wires[step["reciprocal"]]
        weights, _ = self._rows(self._wires[step["weights"]], step["rows"])
        self._wires[step["wire"]] = _product(weights, reciprocal.tolist()).ravel()

    def join(self, step: Mapping[str, Any]) -> None:
        """Elements of several wires, one after the other."""
        self._wires[step["wire"]] = np.concatenate(
            [self._wires[wire][self._array(index)] for wire, index in step["parts"]]
        )

    def affine(self, step: Mapping[str, Any]) -> None:
        """Wires added up, times 1 or -1, and a number."""
        total = sum(self._wires[wire] for wire in step["parts"])
        self._wires[step["wire"]] = np.asarray(total * step["factor"] + step["offset"])

    def total(self, step: Mapping[str, Any]) -> None:
        """Sums of whole numbers: see `exact.exact_sum`."""
        found = self._array(step["constant"])
        for wire, index, factor in step["parts"]:
            found = found + factor * np.append(self._wires[wire], 0)[self._array(index)]
        self._wires[step["wire"]] = found

    def scale(self, step: Mapping[str, Any]) -> None:
        """Whole multiples: see `exact.exact_multiple`."""
        values = np.append(self._wires[step["values"]], 0)[self._array(step["index"])]
        self._wires[step["wire"]] = values * self._array(step["factors"])

    def rows(self, step: Mapping[str, Any]) -> None:
        """Sums of rows: see `exact.exact_rows`."""
        values = np.append(self._wires[step["values"]], 0)[self._array(step["index"])]
        self._wires[step["wire"]] = values.sum(axis=1)

    def bit(self, step: Mapping[str, Any]) -> None:
        """Which numbers are above zero: see `bits.above_zero`."""
        digits = FineDigits(count=step["fine"][0], step=step["fine"][1])
        bits, hints = bits_and_digits(self._wires[step["values"]], digits, self._numbers)
        self.hints += list(hints)
        self._wires[step["wire"]] = bits

    def quotient(self, step: Mapping[str, Any]) -> None:
        """The nearest quotients: see `quotients.quotient`."""
        divisor = self._wires[step["divisor"]][self._array(step["index"])].astype(object)
        wire, array = step["numerator"]
        above = self._array(array).astype(object)
        if wire:
            above = self._wires[wire][self._array(array)].astype(object) * step["unit"]
        if (divisor == 0).any():
            raise RangeExceededError(
                f"{self._chunk_id}: {step['names'][0]} has a zero at scale "
                f"{self._numbers.scale}, and is divided by; a larger --scale tells small numbers "
                "from it",
                stage="witness",
                chunk_id=self._chunk_id,
            )
        negative = (divisor < 0).astype(np.int64)
        sign = 1 - 2 * negative
        size = sign * divisor
        dividend = sign * above + size
        found = self._narrow(dividend // (2 * size), step["names"][1])
        rest = dividend - 2 * size * found
        shifted = found + self._numbers.offset
        self.hints.append(negative)
        self.hints += self._digits(shifted, step["names"][1], self._numbers.digits)
        self._places(rest.tolist(), step["places"])
        self._places((2 * size - 1 - rest).tolist(), step["places"])
        self._wires[step["wire"]] = found

    def root(self, step: Mapping[str, Any]) -> None:
        """Roots: see `quotients.root`."""
        values = self._wires[step["values"]]
        if values.size and values.min() < 0:
            raise RangeExceededError(
                f"{self._chunk_id}: {step['name']} has a negative number, which has no square root",
                stage="witness",
                chunk_id=self._chunk_id,
            )
        numbers = [step["factor"] * int(v) for v in values]
        roots = [math.isqrt(v) for v in numbers]
        self._fine(roots, step["fine"], step["name"])
        rest = [n - r * r for n, r in zip(numbers, roots, strict=True)]
        self._places(rest, step["places"])
        self._places([2 * r - left for r, left in zip(roots, rest, strict=True)], step["places"])
        self._wires[step["wire"]] = np.asarray(roots, dtype=np.int64)

    def floor(self, step: Mapping[str, Any]) -> None:
        """Whole parts: see `decisions.floor`."""
        found = self._wires[step["values"]] // step["step"]
        digits = found - step["least"]
        if digits.size and (digits.min() < 0 or digits.max() > step["most"]):
            raise self._beyond(step["name"])
        self.hints.append(digits)
        self._wires[step["wire"]] = found

    def multiply(self, step: Mapping[str, Any]) -> None:
        """Products of two wires' elements."""
        left, right = (
            np.append(self._wires[wire], 0)[self._array(index)] for wire, index in step["parts"]
        )
        left, right = _wide(left, right, 1)
        self._wires[step["wire"]] = left * right

    def normalise(self, step: Mapping[str, Any]) -> None:
        """Centred values times the reciprocal root: see `layer_norm.layer_norm`."""
        values = self._wires[step["source"]][self._array(step["index"])]
        width = values.shape[1]
        centred = values * width - values.sum(axis=1, keepdims=True)
        squares = (centred.astype(object) ** 2).sum(axis=1)
        spread = [step["factor"] * int(v) + step["epsilon"] for v in squares]
        # The nearest.
        roots = [(math.isqrt(4 * step["target"] // v) + 1) // 2 for v in spread]
        self._fine(roots, step["fine"], step["name"])
        for change in (1, -1):
            difference = [
                change * ((r + change) ** 2 * v - step["target"])
                for r, v in zip(roots, spread, strict=True)
            ]
            self._places(difference, step["places"])
        self._wires[step["wire"]] = _product(centred, roots).ravel()

    def _term(self, term: Mapping[str, Any], layout: tuple[int, int, int, int]) -> Ints:
        t, a, b, p = layout
        wire = np.append(self._wires[term["wire"]], 0)
        picked = wire[self._array(term["index"])]
        found: Ints
        if term["kind"] == "pair":
            right = np.append(self._wires[term["right"]], 0)[self._array(term["right_index"])]
            batch, depth = right.shape[:2]
            picked, right = _wide(picked, right * term["factor"], depth)
            found = np.matmul(picked, right.reshape(batch, depth, b * p))
            if term["rows"]:
                factors = self._wires[term["rows"]].tolist()
                found = _product(found.reshape(len(factors), -1), factors)
            return found.reshape(t, a, b, p)
        weights = self._array(term["weights"])
        length = picked.shape[-1]
        picked, weights = _wide(picked, weights, length)
        if term["kind"] == "columns":
            found = _matmul(picked.reshape(t * a, length), weights.reshape(length, b * p))
            return found.reshape(t, a, b, p)
        if term["kind"] == "rows":
            found = _matmul(picked.reshape(t * a * p, length), weights.reshape(length, b))
            found = found.reshape(t, a, p, b).transpose(0, 1, 3, 2)
            return found
        found = (picked.reshape(t, a, b, p, -1) * weights).sum(axis=-1)
        return found

    def _narrow(self, values: Ints, name: str) -> Ints:
        """Quotients of large sums, in 64 bits."""
        if _largest(values).bit_length() > SUM_BITS:
            raise self._beyond(name)
        return values.astype(np.int64)

    def _fine(self, values: Sequence[int], fine: Sequence[int], name: str) -> None:
        """Hints of several digits: see `fine.FineDigits`."""
        digits, limit = FineDigits(count=fine[0], step=fine[1]), self._numbers.divisor
        split = [digits.split(int(v), limit) for v in values]
        if any(not 0 <= digit < limit for number in split for digit in number):
            raise self._beyond(name)
        self.hints += [np.asarray(place, dtype=np.int64) for place in zip(*split, strict=True)]

    def _places(self, values: Sequence[int], count: int) -> None:
        """The higher digits of numbers that are held at zero or above."""
        step = self._numbers.logrows - 1
        for place in range(1, count):
            digit = [(v >> (step * place)) & ((1 << step) - 1) for v in values]
            self.hints.append(np.asarray(digit, dtype=np.int64))

    def _digits(self, values: Ints, name: str, count: int) -> list[Ints]:
        digits = _split(values, self._numbers) if count > 1 else [values]
        limit = self._numbers.divisor
        if values.size and (values.min() < 0 or max(d.max() for d in digits) >= limit):
            raise self._beyond(name)
        return digits

    def _beyond(self, name: str) -> RangeExceededError:
        reach = 2.0**self._numbers.range_bits
        return RangeExceededError(
            f"{self._chunk_id}: {name} reached a value beyond +-{reach:g}, the range that its "
            "circuit can express; raise --range-bits, or use inputs like those the model was "
            "trained on",
            stage="witness",
            chunk_id=self._chunk_id,
        )


def _half_up(value: float) -> int:
    """The nearest whole number to a number >= 0, as ezkl's tables round."""
    return math.floor(value + 0.5)


def _split(values: Ints, numbers: Arithmetic) -> list[Ints]:
    """Digits of values that are not negative, the lowest first."""
    if numbers.digits == 1:
        return [values]
    excess = values - (numbers.divisor - 1)
    high = np.maximum(0, -(-excess >> numbers.overlap_bits))
    return [values - (high << numbers.overlap_bits), high]


def _largest(values: Ints) -> int:
    return max(abs(int(values.max(initial=0))), abs(int(values.min(initial=0))))


def _wide(left: Ints, right: Ints, length: int) -> tuple[Ints, Ints]:
    """Both as Python's integers where 64 bits may not hold sums of so many of their products."""
    if (_largest(left) * _largest(right) * length).bit_length() <= SUM_BITS:
        return left, right
    return left.astype(object), right.astype(object)


def _product(rows: Ints, factors: Sequence[int]) -> Ints:
    """Every row of a matrix times a number of its own."""
    column = np.asarray(factors, dtype=object)[:, None]
    found: Ints
    if (_largest(rows) * max(factors, default=0)).bit_length() > SUM_BITS:
        found = rows.astype(object) * column
    else:
        found = rows * column.astype(np.int64)
    return found


def _matmul(left: Ints, right: Ints) -> Ints:
    bound = left.shape[1] * _largest(left) * _largest(right)
    if bound.bit_length() <= EXACT_BITS:
        return (left.astype(np.float64) @ right.astype(np.float64)).astype(np.int64)
    product: Ints = left @ right
    return product
