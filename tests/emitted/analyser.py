"""Intervals over an emitted hinted circuit: what its ONNX nodes alone say.

The circuit's input is unknown: any field element may stand in any place. What is looked up is in
[0, 2^k - 1]. From that alone, and from the nodes, follow the intervals of all cells; a cell that
is looked up and computed is an equation, whose slots are told apart by the vectors of powers that
the circuit multiplies with. `Analysis.findings` says what does not follow:

- a packed equation some of whose slots may reach S = 2^b, or which may reach 2^252 as a whole: then
  its sum can be zero without every slot being zero;
- any other cell that is looked up and may reach 2^252, or is so large that it seems to be a
  packed equation that was not recognised; but for a number v >= 0 that is looked up, and c v beside
  it, with c beyond the table: then v is zero;
- a number that reaches a lookup or a boundary's packed element without having been held in any
  range; only in packed elements of its own (salts) may one stand;
- a boundary's packed element that two different tensors of values in range give.

The argument is that of docs/adr/0017, claims 1, 2, 4, 8, 11 and 12. Relations between cells are not
used, with these exceptions: a cell less itself is zero, a cell times itself is not negative, and a
number that is looked up is in the table's range wherever it is used; so is a digit x no larger than
c where c - x is looked up as well, c being known. Incoming values are held by an
equation of their own, x + c - 2^h d = r with digits d and r: so x = r + 2^h d - c.

Two rounds: the first finds what is looked up; the second computes with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import onnx

from tests.emitted import reading, whole
from tests.emitted.intervals import (
    Intervals,
    NotUnderstoodError,
    added,
    contracted,
    multiplied,
    squared,
    subtracted,
)
from tests.emitted.whole import Array

FIELD_BITS: Final = 252
UNPACKED_BITS: Final = 132
"""Equations of one slot stay below: numbers at or above zero have up to 130 bits."""

MAX_ROUNDS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A tensor of cells.

    Attributes:
        cells: Their numbers, of the tensor's shape.
        range: Their intervals, less what is unknown; None: the tensor mixes packings.
        atom: The unknown cell that is a summand of each, -1 for none, -2 where what is unknown is
            not just that; None: nothing is unknown.
    """

    cells: Array
    range: Intervals | None
    atom: Array | None = None

    @property
    def exact(self) -> bool:
        """Whether every number is known, and none packed."""
        return (
            self.atom is None
            and self.range is not None
            and self.range.slots == 1
            and self.range.exact
        )

    @property
    def known(self) -> Intervals:
        """The intervals."""
        if self.range is None:
            raise NotUnderstoodError("numbers of different packings in one operation")
        return self.range


@dataclass(slots=True, kw_only=True)
class Block:
    """Cells that one node computed, flat; intervals before what lookups say of them."""

    start: int
    tensor: Tensor
    node: str
    multiple: tuple[int, Array] | None = None
    """Each is a constant times another cell."""
    weights: tuple[Array, Array] | None = None
    """Each is a sum of cells [..., K] times weights [K, N]."""
    complement: tuple[Array, Array] | None = None
    """Each is a known number less another cell."""


@dataclass(slots=True, kw_only=True)
class Analysis:
    """What was found.

    Attributes:
        findings: What does not follow; empty for a sound circuit.
        packed: Packed equations.
        slots: Their slots.
        single: Other equations.
        zeros: Numbers held at zero by a multiple of theirs.
        looked_up: Cells of the input that are looked up as they are.
        values: Cells of the input that an equation holds in range.
        free: Cells of the input that nothing holds: salts, and blinders of the input's columns.
        fill: Largest share of its 2^b that a slot reaches: 1 is full.
    """

    findings: list[str] = field(default_factory=list)
    packed: int = 0
    slots: int = 0
    single: int = 0
    zeros: int = 0
    looked_up: int = 0
    values: int = 0
    free: int = 0
    fill: float = 0.0


def analyse(model: onnx.ModelProto, *, logrows: int, scale: int) -> Analysis:
    """Analyse a chunk model.

    Args:
        model: As it was emitted.
        logrows: log2 of the circuit's rows, as the plan says.
        scale: The plan's; functions' tables are at it.
    """
    return Analyser(model, logrows=logrows, scale=scale).analysis()


class Analyser:
    """One chunk model's analysis."""

    def __init__(self, model: onnx.ModelProto, *, logrows: int, scale: int) -> None:
        self._graph = model.graph
        self._top = (1 << logrows) - 1
        self._one = 1 << scale
        (source,) = model.graph.input
        (self._length,) = [d.dim_value for d in source.type.tensor_type.shape.dim]
        self._constants = {t.name: reading.constant(t) for t in model.graph.initializer}
        zeros = np.zeros(self._length, dtype=np.int64)
        self._low, self._high = zeros, zeros.copy()
        self._held = np.zeros(self._length, dtype=bool)
        self._looked: Array = np.zeros(0, dtype=bool)
        self._blocks: list[Block] = []
        self._starts: list[int] = []
        self._lookups: list[Array] = []
        self._next = 0
        self._tensors: dict[str, Tensor] = {}

    def analysis(self) -> Analysis:
        """Run it."""
        for _ in range(MAX_ROUNDS):
            self._round()
            if not self._learned():
                break
        else:
            raise NotUnderstoodError("incoming values hold one another in range")
        found = Analysis()
        cells = np.unique(np.concatenate(self._lookups))
        inputs = cells[cells < self._length]
        found.looked_up = len(inputs)
        found.values = int(self._held.sum()) - len(inputs)
        found.free = self._length - int(self._held.sum())
        self._check_equations(found, cells[cells >= self._length])
        self._check_outputs(found)
        return found

    def interval(self, name: str) -> Intervals:
        """A tensor's intervals, as the last round left them."""
        return self._tensors[name].known

    # The rounds.

    def _round(self) -> None:
        self._blocks, self._starts, self._lookups = [], [], []
        self._next = self._length
        self._tensors = {}
        (source,) = self._graph.input
        cells = np.arange(self._length, dtype=np.int64)
        self._tensors[source.name] = Tensor(
            cells=cells,
            range=Intervals(self._low[None], self._high[None]),
            atom=None if self._held.all() else np.where(self._held, -1, cells),
        )
        for node in self._graph.node:
            given = [self._operand(name) for name in node.input]
            try:
                self._tensors[node.output[0]] = self._computed(node, given)
            except NotUnderstoodError as error:
                raise NotUnderstoodError(f"{node.op_type} {node.output[0]}: {error}") from None

    def _learned(self) -> bool:
        """Take over what this round's lookups say; whether that was news."""
        cells = np.unique(np.concatenate([*self._lookups, np.zeros(0, dtype=np.int64)]))
        before = (self._looked.sum(), self._held.sum(), self._high.sum())
        self._looked = np.zeros(self._next, dtype=bool)
        self._looked[cells] = True
        inputs = cells[cells < self._length]
        self._hold(inputs, 0, self._top)
        for block, places in self._by_block(cells[cells >= self._length]):
            tensor = block.tensor
            if tensor.atom is None or tensor.known.slots > 1:
                continue
            atoms = tensor.atom[places]
            kept = atoms >= 0
            low, high = tensor.known.low[0][places][kept], tensor.known.high[0][places][kept]
            self._hold(atoms[kept], whole.minus(np.int64(0), high), self._top - low)
        for block, places in self._by_block(cells[cells >= self._length]):
            if block.complement is not None:
                self._limit(*(part[places] for part in block.complement))
        return bool(before != (self._looked.sum(), self._held.sum(), self._high.sum()))

    def _limit(self, known: Array, cells: Array) -> None:
        """Digits that leave something of a known number are no larger."""
        digits = (cells >= 0) & (cells < self._length)
        digits[digits] &= self._held[cells[digits]]
        cells, known = cells[digits], known[digits]
        self._high[cells] = np.minimum(self._high[cells], known)

    def _hold(self, atoms: Array, low: Array | int, high: Array | int) -> None:
        new = ~self._held[atoms]
        self._low[atoms[new]] = np.broadcast_to(low, atoms.shape)[new]
        self._high[atoms[new]] = np.broadcast_to(high, atoms.shape)[new]
        self._held[atoms] = True

    def _by_block(self, cells: Array) -> list[tuple[Block, Array]]:
        owners = np.searchsorted(self._starts, cells, side="right") - 1
        return [
            (self._blocks[owner], cells[owners == owner] - self._blocks[owner].start)
            for owner in np.unique(owners)
        ]

    # Nodes.

    def _operand(self, name: str) -> Tensor | Array | float:
        return self._tensors[name] if name in self._tensors else self._constants[name]

    def _computed(self, node: onnx.NodeProto, given: Sequence[Tensor | Array | float]) -> Tensor:
        op, args = node.op_type, reading.attributes(node)
        if op == "Mul" and isinstance(given[1], float):
            return self._tensor(given[0])
        if op == "Gather":
            assert isinstance(given[1], np.ndarray)
            index = given[1]
            return self._unpacked(_moved(self._tensor(given[0]), lambda a: np.take(a, index, 0)))
        if op == "Reshape":
            assert isinstance(given[1], np.ndarray)
            return _moved(self._tensor(given[0]), lambda a: a.reshape(given[1]))
        if op == "Concat":
            return _joined([self._tensor(one) for one in given], args["axis"])
        if op == reading.RANGE_TABLE or op in reading.TABLES:
            return self._looked_up(node, self._tensor(given[0]))
        if op == "ReduceSum":
            assert isinstance(given[1], np.ndarray)
            one, (axis,) = self._tensor(given[0]), given[1]
            keepdims = bool(args["keepdims"])
            low, high = (
                whole.total(end, axis + 1, keepdims=keepdims)
                for end in (one.known.low, one.known.high)
            )
            atom = None if one.atom is None else _unknown(one.atom.max(axis, keepdims=keepdims))
            return self._new(node, Intervals(low, high, one.known.bits), atom)
        left, right = self._tensor(given[0]), self._tensor(given[1])
        if op == "Sub" and np.array_equal(left.cells, right.cells) and (left.cells >= 0).all():
            return self._new(node, Intervals.exactly(np.zeros(left.cells.shape, np.int64)), None)
        if op in ("Add", "Sub"):
            combine = added if op == "Add" else subtracted
            found = combine(left.known, right.known)
            made = self._new(node, found, _sum_of_unknown(left, right, op, found.shape))
            if op == "Sub" and left.exact and right.known.slots == 1:
                known = np.broadcast_to(left.known.low[0], made.cells.shape)
                cells = np.broadcast_to(right.cells, made.cells.shape)
                self._blocks[-1].complement = (known.ravel(), cells.ravel())
            return made
        if op in ("Mul", "Einsum", "MatMul"):
            return self._product(node, left, right)
        raise NotUnderstoodError("no rule for this operator")

    def _tensor(self, operand: Tensor | Array | float) -> Tensor:
        if isinstance(operand, Tensor):
            return operand
        if isinstance(operand, float):
            raise NotUnderstoodError("a power of two below 1 in another place than a product's")
        return Tensor(
            cells=np.full(operand.shape, -1, dtype=np.int64), range=Intervals.exactly(operand)
        )

    def _looked_up(self, node: onnx.NodeProto, one: Tensor) -> Tensor:
        if (one.cells < 0).any():
            raise NotUnderstoodError("a constant is looked up")
        self._lookups.append(one.cells.ravel())
        shape = one.cells.shape
        low, high = np.zeros(shape, dtype=np.int64), np.full(shape, self._top, dtype=np.int64)
        if one.range is not None and one.range.slots == 1:
            surely = np.ones(shape, dtype=bool) if one.atom is None else one.atom == -1
            low = np.where(surely, np.clip(one.range.low[0], 0, self._top), low).astype(np.int64)
            high = np.where(surely, np.clip(one.range.high[0], 0, self._top), high)
        if node.op_type == reading.RANGE_TABLE:
            return Tensor(cells=one.cells, range=Intervals(low[None], high.astype(np.int64)[None]))
        table = reading.TABLES[node.op_type]
        ends = []
        for end in (low, high):
            entries = {int(v): table(int(v), self._one) for v in np.unique(end)}
            ends.append(np.vectorize(entries.__getitem__, otypes=[object])(end.astype(np.int64)))
        return self._new(node, Intervals(*(whole.fitted(e)[None] for e in ends)), None)

    def _product(self, node: onnx.NodeProto, left: Tensor, right: Tensor) -> Tensor:
        op = node.op_type
        itself = np.array_equal(left.cells, right.cells) and (left.cells >= 0).all()
        for one, other in ((left, right), (right, left)):
            if _is_unread(one) and (other.cells.size > 1 or not other.exact):
                raise NotUnderstoodError("a vector that seems to be one of powers, and is not")
        if op == "Mul":
            found = squared(left.known) if itself else multiplied(left.known, right.known)
            atom = _product_of_unknown(left, right, found.shape)
            made = self._new(node, found, atom)
            one, factor = (left, right) if right.exact else (right, left)
            if factor.exact and factor.cells.size == 1:
                value = int(factor.known.low.ravel()[0])
                self._blocks[-1].multiple = (value, one.cells.ravel())
            return made
        if left.atom is not None or right.atom is not None:
            return self._product_with_unknown(node, left, right)
        equation = _equation(node)
        found = _einsum(equation, left.known, right.known, itself=bool(itself))
        made = self._new(node, found, None)
        if op == "MatMul" and right.exact:
            self._blocks[-1].weights = (left.cells, right.known.low[0])
        return made

    def _product_with_unknown(self, node: onnx.NodeProto, left: Tensor, right: Tensor) -> Tensor:
        """Salts in a boundary's packed elements: a row with one is unknown as a whole."""
        if node.op_type != "MatMul" or right.atom is not None or left.atom is None:
            shape = _einsum_shape(node, left, right)
            zeros = np.zeros((1, *shape), dtype=np.int64)
            return self._new(node, Intervals(zeros, zeros), np.full(shape, -2))
        found = _einsum("mk,kn->mn", left.known, right.known, itself=False)
        unknown = (left.atom != -1).any(axis=1)
        atom = np.where(unknown[:, None], -2, -1) * np.ones(found.shape, dtype=np.int64)
        made = self._new(node, found, atom)
        self._blocks[-1].weights = (left.cells, right.known.low[0])
        return made

    def _unpacked(self, one: Tensor) -> Tensor:
        """A vector of powers that the circuit computed, as the unit of every slot."""
        if one.cells.ndim != 1 or (one.cells < 0).all() or not one.exact:
            return one
        bits = reading.stride_of(one.known.low, self._top)
        if not bits:
            return one
        unit = np.eye(one.cells.size, dtype=np.int64)
        return Tensor(cells=one.cells, range=Intervals(unit, unit, bits))

    def _new(self, node: onnx.NodeProto, found: Intervals, atom: Array | None) -> Tensor:
        atom = None if atom is None else _or_none(atom)
        shape = found.shape
        size = int(np.prod(shape, dtype=np.int64))
        cells = np.arange(self._next, self._next + size, dtype=np.int64)
        flat = Tensor(
            cells=cells,
            range=found.mapped(np.ravel),
            atom=None if atom is None else np.broadcast_to(atom, shape).ravel(),
        )
        self._blocks.append(Block(start=self._next, tensor=flat, node=node.output[0]))
        self._starts.append(self._next)
        self._next += size
        cells = cells.reshape(shape)
        looked = self._looked[cells] if len(self._looked) >= self._next else None
        if looked is not None and looked.any() and found.slots == 1 and atom is None:
            low = np.where(looked, np.maximum(found.low[0, ...], 0), found.low[0, ...])
            high = np.where(looked, np.minimum(found.high[0, ...], self._top), found.high[0, ...])
            if (low > high).any():
                raise NotUnderstoodError("a number is looked up that can never be in the table")
            found = Intervals(whole.fitted(low)[None], whole.fitted(high)[None])
        return Tensor(cells=cells, range=found, atom=atom)

    # What must follow.

    def _check_equations(self, found: Analysis, cells: Array) -> None:
        zeros = self._zeros(found)
        for block, places in self._by_block(cells):
            tensor = block.tensor
            if tensor.atom is not None and (tensor.atom[places] == -2).any():
                found.findings.append(
                    f"{block.node}: looked up, and depends on numbers that nothing holds in range"
                )
                continue
            # What an incoming value is held by is what holds it; else the remainder is the digit.
            ranges = tensor.known
            low, high = ranges.low[:, places], ranges.high[:, places]
            first = (whole.minus(low[0], np.int64(self._top)), high[0])
            reach = [np.maximum(abs(first[0]), abs(first[1]))]
            reach += [np.maximum(abs(a), abs(b)) for a, b in zip(low[1:], high[1:], strict=True)]
            largest = [whole.largest(slot) for slot in reach]
            weighed = sum(most << (ranges.bits * slot) for slot, most in enumerate(largest))
            if weighed.bit_length() > FIELD_BITS:
                found.findings.append(f"{block.node}: may reach 2^{weighed.bit_length()}")
            if ranges.slots > 1:
                found.packed += len(places)
                found.slots += len(places) * ranges.slots
                most = max(largest)
                found.fill = max(found.fill, most / (1 << ranges.bits))
                if most >= 1 << ranges.bits:
                    found.findings.append(
                        f"{block.node}: slots 2^{ranges.bits} apart may reach {most}, "
                        f"{most / (1 << ranges.bits):.3f} of that"
                    )
            elif np.isin(block.start + places, zeros).all():
                pass
            elif weighed.bit_length() <= UNPACKED_BITS:
                found.single += len(places)
            else:
                found.findings.append(
                    f"{block.node}: an equation of one slot may reach 2^{weighed.bit_length()}"
                )

    def _zeros(self, found: Analysis) -> Array:
        """Cells of which v and c v are looked up, c beyond the table: v is zero."""
        zero: list[Array] = []
        for block in self._blocks:
            if block.multiple is None or block.multiple[0] <= self._top:
                continue
            factor, sources = block.multiple
            products = block.start + np.arange(len(sources))
            if (factor * self._top).bit_length() > FIELD_BITS or (sources < self._length).any():
                continue
            if self._looked[sources].all() and self._looked[products].all():
                owners = self._by_block(np.unique(sources))
                if all((b.tensor.known.low[0, ...][p] >= 0).all() for b, p in owners):
                    found.zeros += len(products)
                    zero += [sources, products]
        return np.concatenate([*zero, np.zeros(0, dtype=np.int64)])

    def _check_outputs(self, found: Analysis) -> None:
        """Packed elements of boundaries: one tensor of values each, salts apart."""
        for output in self._graph.output:
            for cell in self._tensors[output.name].cells.ravel():
                problem = self._packed_element(int(cell))
                if problem:
                    found.findings.append(f"{output.name}: {problem}")
                    return

    def _packed_element(self, cell: int) -> str:
        terms = self._terms(cell, 1)
        values, free = [], 0
        for part, weight in terms:
            low, high, atom = self._of(part)
            free += atom
            if low != high or (atom and low):
                values.append((abs(weight), low, high))
        if free and values:
            return "numbers that nothing holds in range stand beside values in a packed element"
        if free:
            return ""
        below = 0
        for weight, low, high in sorted(values):
            if weight <= below:
                return f"a packed element's values below 2^{weight.bit_length()} may reach {below}"
            below += weight * (high - low)
        reach = sum(weight * max(abs(low), abs(high)) for weight, low, high in values)
        return "" if reach.bit_length() <= FIELD_BITS else "a packed element may wrap"

    def _terms(self, cell: int, weight: int) -> list[tuple[int, int]]:
        if cell >= self._length:
            owner = int(np.searchsorted(self._starts, cell, side="right")) - 1
            block = self._blocks[owner]
            if block.weights is not None:
                cells, weights = block.weights
                row, column = divmod(cell - block.start, weights.shape[1])
                found = []
                for part, own in zip(cells[row], weights[:, column], strict=True):
                    if part >= 0 and own:
                        found += self._terms(int(part), weight * int(own))
                return found
        return [(cell, weight)]

    def _of(self, cell: int) -> tuple[int, int, bool]:
        if cell < self._length:
            return int(self._low[cell]), int(self._high[cell]), not self._held[cell]
        ((block, (place,)),) = self._by_block(np.asarray([cell]))
        tensor = block.tensor
        if tensor.known.slots > 1:
            raise NotUnderstoodError("a packed number in a boundary")
        low, high = int(tensor.known.low[0][place]), int(tensor.known.high[0][place])
        return low, high, tensor.atom is not None and int(tensor.atom[place]) != -1


def _is_unread(one: Tensor) -> bool:
    """Whether it is a known vector that the circuit computed, and not zero."""
    return one.cells.size > 1 and (one.cells >= 0).any() and one.exact and one.known.low.any()


def _moved(one: Tensor, change: object) -> Tensor:
    assert callable(change)
    return Tensor(
        cells=change(one.cells),
        range=None if one.range is None else one.range.mapped(change),
        atom=None if one.atom is None else _or_none(change(one.atom)),
    )


def _or_none(atom: Array) -> Array | None:
    return None if (atom == -1).all() else atom


def _joined(parts: Sequence[Tensor], axis: int) -> Tensor:
    cells = np.concatenate([part.cells for part in parts], axis=axis)
    atom = None
    if any(part.atom is not None for part in parts):
        atoms = [np.full(p.cells.shape, -1) if p.atom is None else p.atom for p in parts]
        atom = _or_none(np.concatenate(atoms, axis=axis))
    ranges = [part.range for part in parts if part.range is not None]
    slots = {one.slots for one in ranges}
    bits = {one.bits for one in ranges}
    if len(ranges) < len(parts) or len(slots) > 1 or len(bits) > 1:
        return Tensor(cells=cells, range=None, atom=atom)
    low, high = (
        np.concatenate(ends, axis=axis + 1)
        for ends in ([one.low for one in ranges], [one.high for one in ranges])
    )
    return Tensor(cells=cells, range=Intervals(low, high, bits.pop()), atom=atom)


def _unknown(atom: Array) -> Array:
    return np.where(atom == -1, -1, -2)


def _sum_of_unknown(left: Tensor, right: Tensor, op: str, shape: tuple[int, ...]) -> Array | None:
    """One summand's, if only one has any."""
    if left.atom is None and right.atom is None:
        return None
    first = np.broadcast_to(-1 if left.atom is None else left.atom, shape)
    second = np.broadcast_to(-1 if right.atom is None else right.atom, shape)
    if op == "Sub":
        second = _unknown(second)
    both = (first != -1) & (second != -1)
    return np.where(both, -2, np.where(first == -1, second, first))


def _product_of_unknown(left: Tensor, right: Tensor, shape: tuple[int, ...]) -> Array | None:
    """Unknown, but for a product with one."""
    if left.atom is None and right.atom is None:
        return None
    first = np.broadcast_to(-1 if left.atom is None else left.atom, shape)
    second = np.broadcast_to(-1 if right.atom is None else right.atom, shape)
    return np.where((first != -1) | (second != -1), -2, -1)


def _equation(node: onnx.NodeProto) -> str:
    if node.op_type == "MatMul":
        return "mk,kn->mn"
    found: str = reading.attributes(node)["equation"].decode()
    return found


def _einsum_shape(node: onnx.NodeProto, left: Tensor, right: Tensor) -> tuple[int, ...]:
    first, second, result = reading.letters(_equation(node))
    sizes = dict(zip(first, left.cells.shape, strict=True))
    sizes |= dict(zip(second, right.cells.shape, strict=True))
    return tuple(sizes[letter] for letter in result)


def _einsum(equation: str, left: Intervals, right: Intervals, *, itself: bool) -> Intervals:
    first, second, result = reading.letters(equation)
    if itself and first == second:
        square = squared(left)
        axes = [first.index(letter) for letter in first if letter not in result]
        low, high = square.low, square.high
        for axis in sorted(axes, reverse=True):
            low, high = whole.total(low, axis + 1), whole.total(high, axis + 1)
        return Intervals(low, high)
    shared = [letter for letter in first if letter in second]
    batch = [letter for letter in shared if letter in result]
    inner = [letter for letter in shared if letter not in result]
    rows = [letter for letter in first if letter not in second]
    columns = [letter for letter in second if letter not in first]
    if set(rows + columns) - set(result):
        raise NotUnderstoodError("a sum over one operand alone")
    sizes = dict(zip(first, left.shape, strict=True)) | dict(zip(second, right.shape, strict=True))

    def size(names: Sequence[str]) -> int:
        return int(np.prod([sizes[n] for n in names], dtype=np.int64))

    def arranged(one: Intervals, names: str, *groups: Sequence[str]) -> Intervals:
        order = [names.index(letter) for group in groups for letter in group]
        shape = [size(group) for group in groups]
        return one.mapped(lambda a: a.transpose(order).reshape(shape))

    found = contracted(
        arranged(left, first, batch, rows, inner), arranged(right, second, batch, inner, columns)
    )
    names = [*batch, *rows, *columns]
    shape = [sizes[name] for name in names]
    back = [names.index(letter) for letter in result]
    return found.mapped(lambda a: a.reshape(shape).transpose(back))
