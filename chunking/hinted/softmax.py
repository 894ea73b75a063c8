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
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from onnx import helper

from zkml_ray.chunking.hinted.fine import (
    STEP_BITS,
    FineDigits,
    check_not_negative,
    fine_hints,
    places,
    short,
)
from zkml_ray.chunking.hinted.forms import NotHintedError, RowFactor, identity
from zkml_ray.chunking.hinted.grid import View
from zkml_ray.chunking.hinted.numbers import Arithmetic
from zkml_ray.chunking.hinted.pins import pin_rows
from zkml_ray.chunking.hinted.settle import Rounding
from zkml_ray.chunking.hinted.values import Shares

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
    least = numbers.scale + REACH_BITS + (keys > FEW_KEYS)
    if not least <= numbers.logrows <= numbers.scale + REACH_BITS + 1:
        raise NotHintedError(
            f"a softmax of {keys} scores at scale {numbers.scale} has a hinted form in circuits of "
            f"2^{least} rows" + (f" or 2^{least + 1}" if keys <= FEW_KEYS else "") + " alone"
        )
    pending = lowering.linear(node.input[0])
    flat = pending.sites.reshape(-1, keys)
    if pending.form.channels != keys or not np.array_equal(
        flat, np.arange(flat.size).reshape(flat.shape)
    ):
        pending = identity(lowering.view(node.input[0]))
    rows, bits, top = len(flat), numbers.scale, numbers.divisor - 1
    moved = lowering.settle(
        pending,
        Rounding(
            resolution=lowering.resolution,
            offset=0,
            result_digits=1,
            below_digits=numbers.digits,
            row_top=top,
        ),
        node.input[0],
    )
    pin_rows(lowering, moved.below, rows, keys)
    weights = circuit.function("Exp", moved.wire.name, flat.size, bits)
    bounds = SumBounds.of(numbers, keys)
    share = fine_hints(lowering, bounds.digits, rows)
    total = circuit.sum_rows(circuit.reshape(weights, [rows, keys]), rows, keys)
    goal = circuit.raised(circuit.dynamic(bounds.target), 0, bits)
    for change in (1, -1):
        near = circuit.add(share, circuit.whole([change]), rows)
        product = circuit.multiply(total, near, rows)
        left, right = (product, goal) if change > 0 else (goal, product)
        check_not_negative(
            lowering,
            circuit.subtract(left, right, rows),
            rows,
            most=bounds.most,
            honest=bounds.honest,
            nominal=bits,
        )
    lowering.step(
        do="share",
        weights=weights,
        reciprocal=share,
        exponent=moved.wire.name,
        shape=[rows, keys],
        bits=bits,
        target=bounds.target,
        fine=[bounds.digits.count, bounds.digits.step],
        places=places(numbers, bounds.honest),
    )
    wire = lowering.wire(weights, flat.size, 0, bounds.high, float(bounds.target), bits)
    # The wire's order is that of the scores: one row after the other.
    view = View(wire=wire, index=np.arange(flat.size, dtype=np.int64).reshape(shape))
    factors = RowFactor(tensor=share, most=bounds.digits.bound(numbers))
    return Shares(
        weights=view,
        reciprocals=factors,
        rounded=lambda name: _rounded(lowering, view, factors, name),
    )


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


def _rounded(lowering: Lowering, weights: View, reciprocals: RowFactor, name: str) -> View:
    """A softmax as a tensor of its own, finer than other values."""
    circuit = lowering.circuit
    keys, size = weights.shape[-1], weights.index.size
    rows = size // keys
    table = circuit.reshape(weights.wire.name, [rows, keys])
    product = circuit.multiply(table, circuit.reshape(reciprocals.tensor, [rows, 1]), size)
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
    )
    return lowering.settle(
        identity(View(wire=wire, index=weights.index)),
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
