"""An emitted circuit as equations between its hints, given what it reads.

What a prover chooses are the hints; each is a digit in [0, T), T being where ezkl's table ends.
Packed equations are taken apart, slot by slot: that they hold slot by slot is what the analyser
shows (`tests/emitted/analyser.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx

from tests.emitted import reading
from tests.emitted.polynomials import Polynomial, terms_of
from tests.emitted.solver import Problem, Solver, Table
from tests.unit.chunking.hinted_circuit import HintedChunk
from zkml_ray.chunking.hinted.recipe import advice_of

Cells = npt.NDArray[Any]
"""Elements are polynomials or numbers."""

TABLE_END: Final = 8
"""ezkl leaves out so many rows: five of halo2's blinding, and three."""


class UnsatisfiableError(Exception):
    """Nothing that a prover may choose satisfies the circuit."""


def outputs_allowed(
    chunk: HintedChunk, inputs: Mapping[str, Any], enough: int = 0
) -> set[tuple[int, ...]]:
    """Every vector of outgoing values that some hints satisfy the circuit with.

    Args:
        chunk: A small circuit.
        inputs: Per incoming boundary, its whole numbers.
        enough: Stop at so many vectors; 0: all.
    """
    try:
        return Unknowns(chunk, inputs).outputs(enough)
    except UnsatisfiableError:
        return set()


class Unknowns:
    """A circuit's equations."""

    def __init__(self, chunk: HintedChunk, inputs: Mapping[str, Any]) -> None:
        self._chunk = chunk
        self._model = onnx.ModelProto.FromString(chunk.data)
        self._top = (1 << chunk.numbers.logrows) - 1 - TABLE_END
        self._one = 1 << chunk.numbers.scale
        self._problem = Problem()
        self._pairs: dict[tuple[int, int, int], int] = {}
        self._named_pairs: set[tuple[int, int, int]] = set()
        advice = advice_of(self._model)
        given = [int(v) for t in chunk.incoming for v in inputs[t.info.name].ravel()]
        self._values: dict[int, int] = dict(zip(advice.given().tolist(), given, strict=False))
        self._functions: list[tuple[dict[tuple[int, ...], int], int, Callable[[int], int]]] = []
        self._cells: dict[str, Cells] = {}
        self._read(advice.length)

    def outputs(self, enough: int = 0) -> set[tuple[int, ...]]:
        """What the outgoing boundaries may hold."""
        cells = [c for place in range(len(self._chunk.outgoing)) for c in self._outgoing(place)]
        problem = self._problem
        wanted, shifts = [], []
        for cell in cells:
            terms = {names: f for (_, names), f in terms_of(cell).items()}
            shift = terms.pop((), 0)
            least = self._least(terms)
            wanted.append(self._name({**terms, (): -least} if least else terms))
            shifts.append(shift + least)
        self._look_up(wanted)
        self._joined()
        solver = Solver(problem, [n for n in wanted if n >= 0])
        found = set()
        for values in solver.values(enough):
            known = iter(values)
            found.add(
                tuple(
                    s + (next(known) if n >= 0 else 0) for n, s in zip(wanted, shifts, strict=True)
                )
            )
        self.nodes = solver.nodes
        return found

    def _look_up(self, wanted: Sequence[int]) -> None:
        """Add the functions whose results something is said of."""
        problem = self._problem
        used = {n for c in problem.constraints for _, names in c.terms for n in names} | {*wanted}
        for terms, result, table in self._functions:
            if result not in used:
                continue
            if all(f > 0 and len(names) == 1 for names, f in terms.items()):
                argument = self._name(terms)
                problem.high[argument] = min(problem.high[argument], self._top)
            else:
                argument = problem.unknown(0, self._top)
                self._turn(terms, argument)
                problem.hold({**terms, (argument,): -1}, 0, 0)
            problem.tables.append(Table(argument, result, table))

    def _turn(self, terms: Mapping[tuple[int, ...], int], argument: int) -> None:
        """Where the argument is c - e: write e as c less the argument where that is shorter."""
        (name, *more) = [names for names in terms if names]
        if more or len(name) != 1 or terms[name] != -1:
            return
        for constraint in self._problem.constraints:
            found: dict[tuple[int, ...], int] = {}
            for factor, names in constraint.terms:
                parts = [(factor, names)]
                if names.count(name[0]) == 1 and len(names) > 1:
                    rest = [n for n in names if n != name[0]]
                    parts = [
                        (factor * terms.get((), 0), tuple(rest)),
                        (-factor, tuple(sorted((*rest, argument)))),
                    ]
                for own, key in parts:
                    found[key] = found.get(key, 0) + own
            left = [(factor, names) for names, factor in found.items() if factor]
            if len(left) < len(constraint.terms):
                constraint.terms = left

    def _name(self, terms: dict[tuple[int, ...], int]) -> int:
        """An unknown that is a sum, which cannot be negative; -1 for none."""
        if not terms:
            return -1
        if len(terms) == 1 and next(iter(terms.values())) == 1 and len(next(iter(terms))) == 1:
            return next(iter(terms))[0]
        pair = _pair(terms)
        if pair is not None:
            self._named_pairs.add(pair)
            return self._pair(pair)
        high = sum(self._most(names) * f for names, f in terms.items() if f > 0)
        name = self._problem.unknown(0, high)
        self._problem.hold({**terms, (name,): -1}, 0, 0)
        return name

    def _least(self, terms: Mapping[tuple[int, ...], int]) -> int:
        """What a sum cannot be less than."""
        return sum(self._most(names) * f for names, f in terms.items() if f < 0)

    def _most(self, names: tuple[int, ...]) -> int:
        """What a product cannot be more than."""
        return math.prod(self._problem.high[n] for n in names)

    def _pair(self, pair: tuple[int, int, int]) -> int:
        """The unknown a + w b."""
        if pair not in self._pairs:
            low, far, weight = pair
            high = self._problem.high
            self._pairs[pair] = self._problem.unknown(0, high[low] + weight * high[far])
        return self._pairs[pair]

    def _joined(self) -> None:
        """Write a + w b as one unknown wherever it stands: other digits of it are no other case."""
        problem, used = self._problem, {}
        for low, far, weight in list(self._pairs):
            for constraint in problem.constraints:
                terms = {names: factor for factor, names in constraint.terms}
                one, many = terms.get((low,), 0), terms.get((far,), 0)
                if weight == 1 and one and many % one == 0 and many // one > 1:
                    self._pair((low, far, many // one))
        for pair, name in self._pairs.items():
            low, far, weight = pair
            problem.high[name] = problem.high[low] + weight * problem.high[far]
            stands = pair in self._named_pairs
            for constraint in problem.constraints:
                terms = {names: factor for factor, names in constraint.terms}
                replaced = _replaced(terms, low, far, weight, name)
                if replaced is not None and replaced != terms:
                    constraint.terms = [(factor, names) for names, factor in replaced.items()]
                    stands = True
            if stands:
                used[pair] = name
        for (low, far, weight), name in used.items():
            problem.hold({(low,): 1, (far,): weight, (name,): -1}, 0, 0)
            other = used.get((low, far, 1))
            if weight > 1 and other is not None:
                # a + b <= a + w b <= w (a + b).
                problem.late.add(other)
                problem.hold({(name,): 1, (other,): -1}, 0, 1 << 64)
                problem.hold({(other,): weight, (name,): -1}, 0, 1 << 64)

    # The circuit.

    def _read(self, length: int) -> None:
        graph = self._model.graph
        constants = {t.name: reading.constant(t) for t in graph.initializer}
        source = np.empty(length, dtype=object)
        for place in range(length):
            source[place] = self._values.get(place)
        self._cells[graph.input[0].name] = source
        self._hints: dict[int, int] = {}
        for node in graph.node:
            if node.op_type == "MatMul":
                break  # From here on values are packed into leaves.
            given = [self._cells.get(n, constants.get(n)) for n in node.input]
            self._cells[node.output[0]] = self._computed(node, given)

    def _outgoing(self, place: int) -> Sequence[Polynomial | int]:
        index = len(self._chunk.incoming) + place
        count = self._chunk.outgoing[place].layout.element_count
        cells: list[Polynomial | int] = self._boundary(index).ravel().tolist()[:count]
        return cells

    def _boundary(self, index: int) -> Cells:
        for node in self._model.graph.node:
            if node.output[0] == f"zkml_ray/boundary_{index}/elements":
                constants = {t.name for t in self._model.graph.initializer}
                found = node.input[0]
                while found not in self._cells:
                    (maker,) = [n for n in self._model.graph.node if n.output[0] == found]
                    found = next(n for n in maker.input if n not in constants)
                return self._cells[found]
        raise KeyError(index)

    def _computed(self, node: onnx.NodeProto, given: Sequence[Any]) -> Cells:
        op, args = node.op_type, reading.attributes(node)
        if op == "Gather":
            found = np.take(given[0], given[1], axis=0)
            if given[0].dtype == object and given[0].shape != (len(self._cells),):
                return self._powers(node, self._named(given[0], given[1], found))
            return found
        if op == "Concat":
            return np.concatenate([np.asarray(g, dtype=object) for g in given], axis=args["axis"])
        if op == "Reshape":
            return np.asarray(given[0]).reshape(given[1])
        if op == reading.RANGE_TABLE:
            self._hold_digits(given[0])
            return np.asarray(given[0])
        if op in reading.TABLES:
            return self._function(op, given[0])
        if op == "ReduceSum":
            return np.asarray(
                np.asarray(given[0], dtype=object).sum(
                    axis=int(given[1][0]), keepdims=bool(args["keepdims"])
                )
            )
        left = np.asarray(given[0], dtype=object)
        if op == "Mul" and isinstance(given[1], float):
            return left
        right = np.asarray(given[1], dtype=object)
        if op == "Einsum":
            return _einsum(args["equation"].decode(), left, right)
        if op == "Add":
            return self._noted(left + right)
        if op == "Sub":
            return np.asarray(left - right)
        if op == "Mul":
            return np.asarray(left * right)
        # An operator that circuits have and this search does not know: the suite fails.
        raise NotImplementedError(op)

    def _named(self, source: Cells, index: Cells, found: Cells) -> Cells:
        """Unknowns for what is taken out of the input and is not given."""
        if source is not self._cells[self._model.graph.input[0].name]:
            return found
        named = np.empty(found.shape, dtype=object)
        for place, at in zip(np.ndindex(*found.shape), np.asarray(index).ravel(), strict=True):
            if found[place] is not None:
                named[place] = found[place]
                continue
            if int(at) not in self._hints:
                self._hints[int(at)] = self._problem.unknown(0, 1 << 256)
            named[place] = Polynomial.unknown(self._hints[int(at)])
        return named

    def _powers(self, node: onnx.NodeProto, found: Cells) -> Cells:
        if found.ndim != 1 or not all(isinstance(v, int) for v in found):
            return found
        if not reading.stride_of(found, self._top):
            return found
        powers = [Polynomial.power(slot) for slot in range(len(found))]
        made = np.empty(len(powers), dtype=object)
        made[:] = powers
        return made

    def _noted(self, cells: Cells) -> Cells:
        """Sums of two unknowns are unknowns of their own in the end."""
        for cell in np.asarray(cells, dtype=object).ravel():
            terms = {names: f for (slot, names), f in terms_of(cell).items() if not slot and names}
            if isinstance(cell, Polynomial) and all(not slot for slot, _ in cell.terms):
                pair = _pair(terms)
                if pair is not None:
                    self._pair(pair)
        return np.asarray(cells)

    def _hold_digits(self, cells: Cells) -> None:
        for cell in np.asarray(cells, dtype=object).ravel():
            if not isinstance(cell, Polynomial):
                if not 0 <= int(cell) <= self._top:
                    raise UnsatisfiableError
                continue
            if len(cell.terms) == 1:
                ((slot, names), factor) = next(iter(cell.terms.items()))
                if factor == 1 and not slot and len(names) == 1:
                    high = self._problem.high
                    high[names[0]] = min(high[names[0]], self._top)
                    continue
            for slot, terms in cell.slots().items():
                self._problem.hold(terms, 0, 0 if slot else self._top)

    def _function(self, op: str, cells: Cells) -> Cells:
        self._hold_digits(cells)
        table = _table(op, self._one)
        found = np.empty(cells.shape, dtype=object)
        for place in np.ndindex(*cells.shape):
            cell = cells[place]
            if not isinstance(cell, Polynomial):
                found[place] = table(int(cell))
                continue
            if any(slot for slot, _ in cell.terms):
                found[place] = 0  # An equation: what its digit gives is of no use.
                continue
            result = self._problem.unknown(0, table(self._top))
            terms = {names: f for (_, names), f in cell.terms.items()}
            self._functions.append((terms, result, table))
            found[place] = Polynomial.unknown(result)
        return found


@lru_cache
def _table(op: str, one: int) -> Any:
    entries: dict[int, int] = {}

    def found(value: int) -> int:
        if value not in entries:
            entries[value] = reading.TABLES[op](value, one)
        return entries[value]

    return found


def _pair(terms: Mapping[tuple[int, ...], int]) -> tuple[int, int, int] | None:
    """a, b and w of a + w b."""
    if len(terms) != 2 or any(len(names) != 1 for names in terms):
        return None
    (first, one), (second, weight) = sorted(terms.items(), key=lambda item: (item[1], item[0]))
    if one != 1 or weight < 1:
        return None
    return first[0], second[0], weight


def _replaced(
    terms: Mapping[tuple[int, ...], int], low: int, far: int, weight: int, name: int
) -> dict[tuple[int, ...], int] | None:
    """Terms with a + w b written as one unknown, if that leaves neither a nor b."""
    found = dict(terms)
    while True:
        first = next((names for names in found if low in names), None)
        if first is None:
            return None if any(far in names for names in found) else found
        place = first.index(low)
        rest = first[:place] + first[place + 1 :]
        second = tuple(sorted((*rest, far)))
        factor = found[first]
        if found.get(second) != factor * weight:
            return None
        del found[first], found[second]
        found[tuple(sorted((*rest, name)))] = factor


def _einsum(equation: str, left: Cells, right: Cells) -> Cells:
    first, second, result = reading.letters(equation)
    summed = [letter for letter in dict.fromkeys(first + second) if letter not in result]
    letters = [*result, *summed]

    def spread(operand: Cells, names: str) -> Cells:
        order = operand.transpose([names.index(n) for n in letters if n in names])
        sizes = iter(order.shape)
        return order.reshape([next(sizes) if n in names else 1 for n in letters])

    product = spread(left, first) * spread(right, second)
    return np.asarray(np.asarray(product).sum(axis=tuple(range(len(result), len(letters)))))
