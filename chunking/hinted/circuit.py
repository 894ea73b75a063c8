"""Emitting a hinted circuit: ONNX nodes over whole numbers at scale 0.

ezkl turns them into one multiplication or addition a cell and adds nothing: no scale is ever
raised, so nothing is rebased. The one lookup is `HardSwish` at scale 0, which is the identity on
whole numbers >= 0 (round(x (x + 3) / 6) is 1 and 2 for x = 1 and 2): its table, which starts at 0,
is a range check that passes its input on.

Everything looked up must lead to an output, or tract drops it. `finish` therefore takes something
of every lookup, times a zero that tract does not know to be one, and the caller adds that to
something that is committed to.

A function (Erf, Exp) has a table over the same digits, which then serves for all range checks: a
second table would make every column dearer. It works on numbers of a nominal scale above zero; a
product with 2^-k is how a number gets one, at no cost. What is computed from a function's results
keeps that scale.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from copy import copy
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from zkml_ray.chunking.hinted.blinding import Spread
from zkml_ray.chunking.hinted.grid import Ints
from zkml_ray.chunking.hinted.numbers import FLOAT_BITS, PACKED_BITS
from zkml_ray.errors import ChunkingError

_CONSTANT_BITS: Final = 126
_ISOLATION_BITS: Final = 100
"""v and v 2^100 both lie in the table only if v is zero."""


GIVEN: Final = "zkml_ray/given"
"""The hints as they are given, among the blinders that are looked up with them."""

HINTS: Final = "zkml_ray/hints"
"""The hints, between two zeros."""


_NOT_KEPT: Final = "zkml_ray/indices"

Mark: TypeAlias = "dict[str, Any]"
"""What a circuit, or whoever makes it, has come to."""


def product_cells(count: int, length: int, columns: int) -> int:
    """Cells of so many inner products: each begins at a full row, as does what follows."""
    return count * -(-length // columns) * columns + columns - 1


class Circuit:
    """The nodes of one chunk's circuit, and an estimate of its cells.

    Attributes:
        nodes: In topological order.
        initializers: Their constants.
        cells: Estimated cells, inner products left out.
        products: Of every einsum and sum, its inner products and the length of each.
        hint_count: Hints so far, blinders among them.
        blinders: Positions of the blinders among the hints.
        mixed: Of every vector that stands among such blinders, its elements without them.
    """

    def __init__(self, *, logrows: int, columns: int, counted: bool = False) -> None:
        """Start an empty circuit.

        Args:
            logrows: log2 of its rows.
            columns: Its inner columns; both say where blinders stand (`blinding`).
            counted: It is made for its size alone: its constants are not kept.
        """
        self.logrows = logrows
        self.columns = columns
        self.counted = counted
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.cells = 0
        self.products: list[tuple[int, int]] = []
        self.hint_count = 0
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._constant_sizes: dict[str, int] = {}
        self.blinders: list[Ints] = []
        self.mixed: list[int] = []
        self._padded: dict[str, str] = {}
        self._powers: dict[tuple[int, int], str] = {}
        self._derived: list[tuple[str, int, int]] = []
        self._function: tuple[str, int] | None = None
        self._products: list[str] = []
        self._product_bound = 0
        self._zero = ""
        self._known: dict[tuple[str, ...], str] = {}
        self._spreads: list[tuple[int, int]] = []

    def mark(self) -> Mark:
        """Where it stands, for `rewind`."""
        return {
            name: copy(value) if isinstance(value, (list, dict)) else value
            for name, value in vars(self).items()
        }

    def rewind(self, mark: Mark) -> None:
        """Forget what was emitted since a mark; a mark is good for one time."""
        vars(self).update(mark)

    def cells_at(self, columns: int) -> int:
        """Estimated cells with so many inner columns, each of which has blinders of its own."""
        hints, cells = self.hint_count, self.cells
        for count, uses in self._spreads:
            more = self._grown(count, count, columns)
            hints += more
            # A blinder is a hint as well.
            cells += (uses + 1) * more
        more = self._grown(self.hint_count, hints, columns)
        cells += more - (hints - self.hint_count)
        return cells + sum(product_cells(*size, columns) for size in self.products)

    def _grown(self, count: int, later: int, columns: int) -> int:
        """How much longer values among blinders are with other columns."""
        before = Spread.of(count, logrows=self.logrows, columns=self.columns).length
        return Spread.of(later, logrows=self.logrows, columns=columns).length - before

    # Constants and plain operators.

    def whole(self, values: npt.NDArray[Any] | Sequence[float]) -> str:
        """A constant tensor of whole numbers (float32, exactly)."""
        array = np.asarray(values)
        exact = array.astype(np.float32)
        small = array.dtype == np.int64 and np.abs(array).max(initial=0) <= 1 << FLOAT_BITS
        if not small and not np.array_equal(exact.astype(np.float64), array.astype(np.float64)):
            raise ChunkingError(f"a constant needs more than the {FLOAT_BITS} bits of float32")
        return self._constant(exact)

    def indices(self, values: Ints | Sequence[int]) -> str:
        """A constant tensor of indices (int64)."""
        if self.counted:
            return _NOT_KEPT  # takes no cell
        return self._constant(np.asarray(values, dtype=np.int64))

    def node(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node with one result; cells are not counted."""
        return self.named(op, inputs, f"zkml_ray/hinted/{len(self.nodes):05d}", **attributes)

    def named(self, op: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """The same, with a name of its own."""
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def gather(self, tensor: str, index: Ints, *, size: int | None = None) -> str:
        """Elements of a flat tensor by constant positions, in the index's shape; free.

        Args:
            tensor: Flat.
            index: Positions; -1 gives zero if `size` is known.
            size: Elements of the tensor.
        """
        if (index < 0).any():
            if size is None:
                raise ValueError("the tensor's size is needed to pad it")
            if tensor not in self._padded:
                zero = self.whole(np.zeros(1, dtype=np.int64))
                self._padded[tensor] = self.node("Concat", [tensor, zero], axis=0)
            tensor = self._padded[tensor]
            index = np.where(index < 0, size, index)
        return self.node("Gather", [tensor, self.indices(index)], axis=0)

    def reshape(self, tensor: str, shape: Sequence[int]) -> str:
        """Free."""
        return self.node("Reshape", [tensor, self.indices(list(shape))])

    def concat(self, tensors: Sequence[str]) -> str:
        """Flat tensors, one after the other; free."""
        return tensors[0] if len(tensors) == 1 else self.node("Concat", tensors, axis=0)

    def add(self, left: str, right: str, size: int) -> str:
        """Elementwise; `size` elements in the result."""
        return self._elementwise("Add", left, right, size)

    def subtract(self, left: str, right: str, size: int) -> str:
        """Elementwise."""
        return self._elementwise("Sub", left, right, size)

    def multiply(self, left: str, right: str, size: int) -> str:
        """Elementwise."""
        return self._elementwise("Mul", left, right, size)

    def _elementwise(self, op: str, left: str, right: str, size: int) -> str:
        # Tract computes the same thing once.
        key = (op, left, right)
        if key not in self._known:
            self.cells += size
            self._known[key] = self.node(op, [left, right])
        return self._known[key]

    def product(self, equation: str, left: str, right: str, *, outputs: int, length: int) -> str:
        """An einsum of two operands: `outputs` inner products of `length` each."""
        key = (equation, left, right)
        if key not in self._known:
            self.products.append((outputs, length))
            self._known[key] = self.node("Einsum", [left, right], equation=equation)
        return self._known[key]

    # Hints and checks.

    def hints(self, count: int) -> Ints:
        """Positions of so many new hints."""
        start = self.hint_count
        self.hint_count += count
        self.cells += count
        return np.arange(start, self.hint_count, dtype=np.int64)

    def hinted(self, index: Ints) -> str:
        """The hints at some positions, -1 for zero; free."""
        padded = np.where(index < 0, 0, index + 1)
        return self.node("Gather", [HINTS, self.indices(padded)], axis=0)

    def check_digits(self, tensor: str, count: int, nominal: int = 0) -> None:
        """Hold a flat tensor's elements in the table's range [0, T).

        Args:
            tensor: Flat.
            count: Its elements.
            nominal: Its nominal scale: zero, or that of a function that this circuit looks up.
        """
        self._derived.append((tensor, count, nominal))
        self.cells += count

    def function(self, op: str, tensor: str, count: int, nominal: int) -> str:
        """Look up a function of digits; the result's nominal scale is the argument's.

        Args:
            op: "Erf" or "Exp".
            tensor: Nominal scale 0; its elements are held in the table's range by this.
            count: Its elements.
            nominal: log2 of the fixed-point denominator of argument and result.

        Raises:
            ChunkingError: The circuit has another function already: every table makes every
                column dearer.
        """
        self._function = self._function or (op, nominal)
        if self._function != (op, nominal):
            raise ChunkingError(f"a circuit with {self._function[0]} cannot have {op} as well")
        spread = Spread.of(count, logrows=self.logrows, columns=self.columns)
        self._spreads.append((count, 1))
        self.cells += spread.length
        mixed = self._mixed(self.raised(tensor, 0, nominal), count, spread, nominal)
        return self.gather(self.node(op, [mixed]), spread.places)

    def _mixed(self, tensor: str, count: int, spread: Spread, nominal: int) -> str:
        """Digits among blinders."""
        index = self.hints(spread.length - count)
        self.blinders.append(index)
        self.mixed.append(count)
        blinders = self.raised(self.hinted(index), 0, nominal)
        order = np.empty(spread.length, dtype=np.int64)
        order[spread.places] = np.arange(count)
        order[spread.others()] = np.arange(count, spread.length)
        return self.gather(self.concat([tensor, blinders]), order)

    def raised(self, tensor: str, nominal: int, target: int) -> str:
        """The same numbers at a higher nominal scale; free.

        Never of a constant: tract would compute the product, and the number would be another.

        Raises:
            ChunkingError: The scale is lower: the numbers would be multiplied.
        """
        if nominal == target:
            return tensor
        if nominal > target:
            raise ChunkingError(f"numbers of scale {nominal} cannot be read at scale {target}")
        return self.node(
            "Mul", [tensor, self._constant(np.asarray([2.0 ** (nominal - target)], np.float32))]
        )

    @property
    def checks_hints_alone(self) -> bool:
        """Whether hints are looked up in the range table, which hands them on.

        A circuit with a function has only that one's table, over the same digits; what it gives
        for a hint is of no use, so that hints are looked up beside their use.
        """
        return self._function is None

    def check_zero(self, total: str, bound: int) -> None:
        """Hold a scalar, a sum of products of digits, at zero.

        Args:
            total: Shape [1]; it cannot be negative.
            bound: Its largest value in any proof.
        """
        self._product_bound += bound
        # All totals together are one sum: below 2^252 it is zero in the field only if it is zero.
        if self._product_bound.bit_length() > PACKED_BITS:
            raise ChunkingError("a pooling window has too many elements for one product")
        self._products.append(total)

    def powers(self, bits: int, count: int) -> str:
        """The vector (1, S, S^2, ...) with S = 2^bits, `count` long.

        Constants end at 2^126, and tract computes with constants in float32 what it can: so the
        vector is made of powers that depend, by a zero, on an input.
        """
        key = (bits, count)
        if key not in self._powers:
            run = min(count, _CONSTANT_BITS // bits + 1)
            low = self.whole(2.0 ** (bits * np.arange(run)))
            part = self.add(low, self._dynamic_zero(), run)
            parts, have = [part], run
            step = self.whole([2.0 ** (bits * min(run, _CONSTANT_BITS // bits))])
            stride = min(run, _CONSTANT_BITS // bits)
            while have < count:
                previous = self.concat(parts)
                source = self.gather(previous, np.arange(have - stride, have))
                parts.append(self.multiply(source, step, stride))
                have += stride
            whole = self.concat(parts)
            self._powers[key] = self.gather(whole, np.arange(count))
        return self._powers[key]

    def dynamic(self, value: int) -> str:
        """A tensor [1] of a number that tract does not know to be constant."""
        return self.add(self.whole([value]), self._dynamic_zero(), 1)

    def sum_rows(self, tensor: str, rows: int, length: int) -> str:
        """Sums of a matrix's rows: [rows]."""
        self.products.append((rows, length))
        return self.node("ReduceSum", [tensor, self.indices([1])], keepdims=0)

    def _dynamic_zero(self) -> str:
        if not self._zero:
            # Twice, because tract makes a slice of a single element, and ezkl may assign anew the
            # whole tensor that a slice is taken from.
            first = self.hinted(np.asarray([0, 0], dtype=np.int64))
            nothing = self.subtract(first, first, 2)
            self.products.append((1, 2))
            self._zero = self.node("ReduceSum", [nothing, self.indices([0])], keepdims=1)
        return self._zero

    def finish(self) -> tuple[str, int]:
        """Emit the remaining checks. No hint may be asked for afterwards.

        Returns:
            A tensor [1] that is zero whatever the checks say, and depends on all of them, to be
            added to something that is committed to; and its nominal scale.
        """
        table, top = self._function or ("HardSwish", 0)
        if self._products:
            total = self._products[0]
            for other in self._products[1:]:
                total = self.add(total, other, 1)
            far = self.multiply(total, self.whole([2.0**_ISOLATION_BITS]), 1)
            self.check_digits(total, 1)
            self.check_digits(far, 1)
        alive = []
        if self._derived:
            tensors = [self.raised(tensor, nominal, top) for tensor, _, nominal in self._derived]
            count = sum(count for _, count, _ in self._derived)
            spread = Spread.of(count, logrows=self.logrows, columns=self.columns)
            self._spreads.append((count, 1))
            self.cells += spread.length - count
            mixed = self._mixed(self.concat(tensors), count, spread, top)
            alive.append(self._alive(table, mixed, spread.length))
        # ezkl assigns a constant where it is used, but one of several uses on its own as well.
        self.cells += sum(self._constant_sizes[name] for name in self._used_again())
        # Hints come last, for the blinders above are hints too.
        advice = self.advice()
        self.cells += advice.length - self.hint_count
        if self._function and self.hint_count:
            alive.append(self._alive(table, self.raised(GIVEN, 0, top), advice.length))
        total = self.raised(self._dynamic_zero(), 0, top)
        for each in alive:
            total = self.add(total, each, 1)
        return self.multiply(total, self._dynamic_zero(), 1), top

    def _used_again(self) -> list[str]:
        """Constants that several products read (tied weights); others have few elements."""
        products = [node for node in self.nodes if node.op_type == "Einsum"]
        uses = Counter(name for node in products for name in node.input)
        return [name for name in self._constant_sizes if uses[name] > 1]

    def advice(self) -> Spread:
        """The hints among the blinders that are looked up with them."""
        return Spread.of(self.hint_count, logrows=self.logrows, columns=self.columns)

    def _alive(self, table: str, tensor: str, size: int) -> str:
        """Look a vector up; a tensor [1] of two of the results, so that tract keeps the lookup.

        A lookup is one node: it stays whole or goes. One element, or a run of them, would be a
        slice, which tract moves in front of the lookup. That every element is looked up shows in
        the cells that are laid out (tests/unit/chunking/test_hinted_rows.py).
        """
        looked_up = self.node(table, [tensor])
        ends = self.gather(looked_up, np.asarray([0, size - 1], dtype=np.int64))
        self.products.append((1, 2))
        return self.node("ReduceSum", [ends, self.indices([0])], keepdims=1)

    def _constant(self, array: np.ndarray) -> str:
        key = (array.dtype.str, array.shape, hashlib.sha256(array.tobytes()).digest())
        if key not in self._constants:
            name = f"zkml_ray/constant/{len(self._constants):05d}"
            self._constants[key] = name
            if not self.counted:
                self.initializers.append(numpy_helper.from_array(array, name))
            if array.dtype.kind == "f":
                self._constant_sizes[name] = array.size
        return self._constants[key]
