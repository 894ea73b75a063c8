"""Softmax.

Each row is moved so that its largest score stands at the top of the exponential's table, where it
is exact to 2^-22: how far it is moved is a hint, and one score is shown to stand there, and none
above (`pins`). Scores further below than the table reaches count as just so far below. The row's
reciprocal sum is a hint too: (r - 1) s <= C <= (r + 1) s for the row's sum s, with a C for which
one step of r is at most 2^-(scale + 2) of it, were all of the row's scores alike.

A product with values, sum_j w_j v_j, is multiplied by r and rounded then: shares are not rounded on
their way. Anything else that reads them has them rounded first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from zkml_ray.chunking.hinted.circuit import Circuit
from zkml_ray.chunking.hinted.fine import (
    STEP_BITS,
    FineDigits,
    check_not_negative,
    fine_hints,
    places,
    short,
)
from zkml_ray.chunking.hinted.forms import NotHintedError, RowFactor, identity
from zkml_ray.chunking.hinted.grid import Ints, View
from zkml_ray.chunking.hinted.numbers import Arithmetic
from zkml_ray.chunking.hinted.pins import pin_rows
from zkml_ray.chunking.hinted.settle import Rounding
from zkml_ray.chunking.hinted.values import Masked, Shares

if TYPE_CHECKING:
    from zkml_ray.chunking.hinted.lower import Lowering

REACH_BITS: Final = 3
"""In circuits of 2^(scale + 3) rows the exponential's table reaches 8 below the largest score: what
lies further below counts as exp(-8) = 0.0003 of it. With twice the rows it reaches 16."""

FEW_KEYS: Final = 64
"""Rows of more scores need the table that reaches 16: as many times 0.0003 is 2 %. There twice the
rows cost a sixth more time or less, among 16 keys two fifths (docs/adr/0025)."""

SHARE_BITS: Final = 6
"""Reciprocal sums of a row with one large score are so much finer than weights."""

SHARE_RESERVE: Final = 64
"""Rounded shares stop so far below the largest digit, for their roundings."""

_INEXACT_BITS: Final = 10
"""What the table holds at its top is `unit` but for less than 2^-10 of it."""


def softmax(lowering: Lowering, node: onnx.NodeProto) -> Shares:
    """The softmax over the last axis."""
    numbers, circuit = lowering.numbers, lowering.circuit
    shape = lowering.shape(node.output[0])
    axis = _attribute(node, "axis", -1)
    if axis not in (-1, len(shape) - 1):
        raise NotHintedError("a softmax over another axis than the last has no hinted form")
    keys = shape[-1]
    value, source = lowering.value(node.input[0]), node.input[0]
    kept = np.ones(shape, dtype=bool)
    if isinstance(value, Masked):
        kept, source = value.kept, value.source
    rows = Rows(kept=kept.reshape(-1, keys))
    least = numbers.scale + REACH_BITS + (rows.longest > FEW_KEYS)
    if not least <= numbers.logrows <= numbers.scale + REACH_BITS + 1:
        raise NotHintedError(
            f"a softmax of {rows.longest} scores at scale {numbers.scale} has a hinted form in "
            f"circuits of 2^{least} rows"
            + (f" or 2^{least + 1}" if rows.longest <= FEW_KEYS else "")
            + " alone",
            by_rows=True,
        )
    pending = lowering.linear(source)
    flat = pending.sites.reshape(-1, keys)
    if pending.form.channels != keys or not np.array_equal(
        flat, np.arange(flat.size).reshape(flat.shape)
    ):
        pending = identity(lowering.view(source))
    bits, top = numbers.scale, numbers.divisor - 1
    moved = lowering.settle(
        pending,
        Rounding(
            resolution=lowering.resolution,
            offset=0,
            result_digits=1,
            below_digits=numbers.digits,
            row_top=top,
            kept=None if rows.whole else rows.kept,
        ),
        source,
    )
    pin_rows(lowering, moved.below, rows.places)
    weights = circuit.function("Exp", moved.wire.name, rows.size, bits)
    bounds = SumBounds.of(numbers, rows.longest)
    share = fine_hints(lowering, bounds.digits, rows.count)
    total = rows.totals(circuit, weights)
    goal = circuit.raised(circuit.dynamic(bounds.target), 0, bits)
    for change in (1, -1):
        near = circuit.add(share, circuit.whole([change]), rows.count)
        product = circuit.multiply(total, near, rows.count)
        left, right = (product, goal) if change > 0 else (goal, product)
        check_not_negative(
            lowering,
            circuit.subtract(left, right, rows.count),
            rows.count,
            most=bounds.most,
            honest=bounds.honest,
            nominal=bits,
        )
    lowering.step(
        do="share",
        weights=weights,
        reciprocal=share,
        exponent=moved.wire.name,
        rows=rows.recipe(circuit),
        bits=bits,
        target=bounds.target,
        fine=[bounds.digits.count, bounds.digits.step],
        places=places(numbers, bounds.honest),
    )
    wire = lowering.wire(weights, rows.size, 0, bounds.high, float(bounds.target), bits)
    # The wire's order is that of the scores: one row after the other.
    view = View(wire=wire, index=rows.index.reshape(shape))
    factors = RowFactor(tensor=share, most=bounds.digits.bound(numbers))
    return Shares(
        weights=view,
        reciprocals=factors,
        rounded=lambda name: _rounded(lowering, view, rows, factors, name),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The keys of a softmax's rows.

    Attributes:
        kept: Shape [rows, keys]: which of them a row has.
    """

    kept: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        if not self.kept.any(axis=1).all():
            raise NotHintedError("a row has no key")

    @property
    def count(self) -> int:
        """How many rows."""
        return len(self.kept)

    @property
    def size(self) -> int:
        """Keys of all rows."""
        return int(self.kept.sum())

    @property
    def longest(self) -> int:
        """Keys of a row, at most."""
        return int(self.kept.sum(axis=1).max())

    @property
    def whole(self) -> bool:
        """Whether rows have all keys."""
        return bool(self.kept.all())

    @property
    def index(self) -> Ints:
        """Shape [rows, keys]: positions among the keys of all rows; -1 where one is dropped."""
        places: Ints = np.cumsum(self.kept).reshape(self.kept.shape) - 1
        return np.where(self.kept, places, -1)

    @property
    def places(self) -> Ints:
        """Shape [rows, longest]: a row's positions, some of them again where it is shorter."""
        found = [np.resize(row[row >= 0], self.longest) for row in self.index]
        return np.stack(found).astype(np.int64)

    @property
    def arranged_index(self) -> Ints:
        """Shape [rows, keys]: positions in `places`, flat; -1 where a key is dropped."""
        within = np.cumsum(self.kept, axis=1) - 1 + self.longest * np.arange(self.count)[:, None]
        return np.where(self.kept, within, -1)

    def arranged(self, circuit: Circuit, tensor: str) -> str:
        """A flat tensor of all keys in the shape of `places`."""
        if self.whole:
            return circuit.reshape(tensor, list(self.kept.shape))
        return circuit.gather(tensor, self.places)

    def totals(self, circuit: Circuit, tensor: str) -> str:
        """Sums of the rows of a flat tensor: [rows]."""
        table = self.arranged(circuit, tensor)
        if self.whole:
            return circuit.sum_rows(table, self.count, self.longest)
        once = np.arange(self.longest) < self.kept.sum(axis=1)[:, None]
        mask = circuit.whole(once.astype(np.int64))
        return circuit.product("rk,rk->r", table, mask, outputs=self.count, length=self.longest)

    def recipe(self, circuit: Circuit) -> list[Any]:
        """Rows, keys of the longest, and names of `places` and of how many each has; or ""."""
        if self.whole:
            return [self.count, self.longest, "", ""]
        counts = self.kept.sum(axis=1).astype(np.int64)
        return [self.count, self.longest, circuit.indices(self.places), circuit.indices(counts)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SumBounds:
    """The numbers of a row's reciprocal sum: r s is about C, for the sum s of the row's weights.

    Attributes:
        high: Largest weight in any proof.
        target: C: what r is to a row of one large score, times that score's weight.
        digits: Of r.
        most: Largest distance between C and (r +- 1) s in any proof.
        honest: The same in an honest proof.
    """

    high: int
    target: int
    digits: FineDigits
    most: int
    honest: int

    @classmethod
    def of(cls, numbers: Arithmetic, keys: int) -> SumBounds:
        """What rows of so many scores need."""
        bits = numbers.scale
        high, unit = (_exponential(v, bits) for v in (numbers.digit_bound, numbers.divisor - 1))
        ratio = max(numbers.divisor << SHARE_BITS, keys << (bits + STEP_BITS))
        digits = FineDigits.reaching(numbers, ratio + (ratio >> _INEXACT_BITS) + 2)
        target = short(unit * ratio)
        return cls(
            high=high,
            target=target,
            digits=digits,
            most=(digits.bound(numbers) + 1) * keys * high + target,
            # The nearest reciprocal, and one step of it, are within 3/2 of the exact one.
            honest=2 * keys * high,
        )


def _rounded(
    lowering: Lowering, weights: View, rows: Rows, reciprocals: RowFactor, name: str
) -> View:
    """A softmax as a tensor of its own, finer than other values."""
    circuit, size = lowering.circuit, rows.places.size
    table = rows.arranged(circuit, weights.wire.name)
    product = circuit.multiply(table, circuit.reshape(reciprocals.tensor, [rows.count, 1]), size)
    wire = lowering.wire(
        circuit.reshape(product, [size]),
        size,
        0,
        weights.wire.high * reciprocals.most,
        weights.wire.resolution,
        weights.wire.nominal,
    )
    lowering.step(
        do="divide",
        wire=wire.name,
        weights=weights.wire.name,
        reciprocal=reciprocals.tensor,
        rows=rows.recipe(circuit),
    )
    return lowering.settle(
        identity(View(wire=wire, index=rows.arranged_index.reshape(weights.shape))),
        Rounding(
            resolution=lowering.numbers.divisor - SHARE_RESERVE,
            offset=0,
            result_digits=1,
            below_digits=0,
        ),
        name,
    ).view()


def _exponential(argument: int, bits: int) -> int:
    """At least what ezkl's table holds for an argument."""
    return math.ceil(math.exp(argument / (1 << bits)) * (1 << bits) * (1 + 1e-6)) + 1


def _attribute(node: onnx.NodeProto, name: str, default: float) -> float:
    for attribute in node.attribute:
        if attribute.name == name:
            found: float = helper.get_attribute_value(attribute)
            return found
    return default
