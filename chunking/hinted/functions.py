"""Erf in GELU, softmax and LayerNormalization.

GELU. The argument v is settled as v = p - n with p n = 0; |v| = p + n is looked up in the table of
erf; and u (c + erf v), with u a multiple of v, is u c + |u| erf |v|: exact, so it is not rounded
before the next product is.

Softmax. Each row is moved so that its largest score stands at the top of the exponential's table,
where it is exact to 2^-22: how far it is moved is a hint, and one score is shown to stand there, and
none above (`pins`). Scores further below than the table reaches count as just so far below. The
row's reciprocal sum is a hint too: (r - 1) s <= C <= (r + 1) s for the row's sum s, with a C for
which one step of r is at most 2^-(scale + 2) of it, were all of the row's scores alike.

LayerNormalization. With c = D x - sum x, exact, and W = a sum c^2 + e, the hinted reciprocal root r
satisfies (r - 1)^2 W <= C <= (r + 1)^2 W, for the C that makes r the reciprocal of the standard
deviation at its resolution, of which one step is about 2^-(scale + 2) for the largest deviation
that the circuit's values can have. Then c r gamma + beta is rounded once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from onnx import helper

from zkml_ray.chunking.hinted.fine import (
    CONSTANT_BITS,
    FineDigits,
    check_not_negative,
    fine_hints,
    places,
)
from zkml_ray.chunking.hinted.forms import Form, Local, NotHintedError, Pending, identity
from zkml_ray.chunking.hinted.grid import View, Wire
from zkml_ray.chunking.hinted.numbers import Arithmetic
from zkml_ray.chunking.hinted.pins import pin_rows
from zkml_ray.chunking.hinted.settle import Rounding
from zkml_ray.chunking.hinted.values import ErrorFunction

if TYPE_CHECKING:
    from zkml_ray.chunking.hinted.lower import Lowering

TABLE_TOP: Final = 8
"""Largest argument of the exponential's table that is used: exp(8) = 2981."""

SHARE_RESERVE: Final = 64
"""Softmax results stop so far below the largest digit, for their roundings."""

SHARE_BITS: Final = 6
"""Reciprocal sums of a row with one large score are so much finer than weights."""

STEP_BITS: Final = 2
"""One step of a reciprocal sum or root changes it by about 2^-(scale + STEP_BITS) at most: what is
multiplied by it moves by a quarter of a quantum for every unit that it is large."""

FLOOR_BITS: Final = 4
"""Epsilons below 2^-(scale + FLOOR_BITS) of the least variance above zero are as good as that."""


def error_function(lowering: Lowering, node: onnx.NodeProto) -> ErrorFunction:
    """Erf of a tensor, to be multiplied by a multiple of that tensor."""
    numbers, circuit = lowering.numbers, lowering.circuit
    pending = lowering.linear(node.input[0])
    rounding = Rounding(
        resolution=lowering.resolution,
        offset=0,
        result_digits=1,
        below_digits=1,
        keeps_below=True,
    )
    split = replace(pending, relu=True)
    settled = lowering.settle(split, rounding, node.input[0])
    positive, size = settled.wire.name, settled.wire.size
    magnitude = circuit.add(positive, settled.below, size)
    return ErrorFunction(
        source=pending.source,
        multiple=pending.multiple,
        positive=settled.view(),
        negative=settled.below,
        magnitude=magnitude,
        result=circuit.function("Erf", magnitude, size, numbers.scale),
        bits=numbers.scale,
    )


def gated(lowering: Lowering, first: str, second: str) -> View:
    """U (c + erf v), exactly; u and v are multiples of one tensor."""
    gate, name = lowering.value(first), second
    if not isinstance(gate, ErrorFunction):
        gate, name = lowering.value(second), first
    argument = lowering.value(name)
    if not isinstance(gate, ErrorFunction) or not isinstance(argument, Pending):
        raise NotHintedError("products of two tensors have no hinted form")
    if not argument.is_linear or argument.source != gate.source or not gate.source:
        raise NotHintedError("erf is multiplied by another tensor than its argument")
    circuit, numbers = lowering.circuit, lowering.numbers
    size, one = gate.positive.wire.size, 1 << gate.bits
    plus = round(gate.plus * one)
    tensor = circuit.multiply(gate.magnitude, gate.result, size)
    if plus:
        signed = circuit.subtract(gate.positive.wire.name, gate.negative, size)
        raised = circuit.raised(circuit.multiply(signed, circuit.whole([plus]), size), 0, gate.bits)
        tensor = circuit.add(tensor, raised, size)
    bound = numbers.digit_bound * (one + abs(plus))
    ratio = argument.multiple / gate.multiple
    wire = lowering.wire(tensor, size, -bound, bound, lowering.resolution * one / ratio, gate.bits)
    lowering.step(
        do="gate",
        wire=tensor,
        positive=gate.positive.wire.name,
        negative=gate.negative,
        bits=gate.bits,
        plus=plus,
    )
    return View(wire=wire, index=gate.positive.index)


def softmax(lowering: Lowering, node: onnx.NodeProto) -> View:
    """The softmax over the last axis."""
    numbers, circuit = lowering.numbers, lowering.circuit
    shape = lowering.shape(node.output[0])
    axis = _attribute(node, "axis", -1)
    if axis not in (-1, len(shape) - 1):
        raise NotHintedError("a softmax over another axis than the last has no hinted form")
    keys = shape[-1]
    pending = lowering.linear(node.input[0])
    flat = pending.sites.reshape(-1, keys)
    if pending.form.channels != keys or not np.array_equal(
        flat, np.arange(flat.size).reshape(flat.shape)
    ):
        pending = identity(lowering.view(node.input[0]))
    bits = numbers.scale
    if 1 << numbers.logrows != TABLE_TOP << bits:
        # With a smaller table scores would be cut off nearer than TABLE_TOP below the largest.
        raise NotHintedError(
            f"a softmax at scale {bits} has a hinted form in circuits of "
            f"2^{bits + TABLE_TOP.bit_length() - 1} rows alone"
        )
    top = numbers.divisor - 1
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
    rows, size = len(flat), flat.size
    pin_rows(lowering, moved.below, rows, keys)
    power = circuit.function("Exp", moved.wire.name, size, bits)
    weights = circuit.reshape(power, [rows, keys])
    high, unit = _exponential(numbers.digit_bound, bits), _exponential(top, bits)
    total = circuit.sum_rows(weights, rows, keys)
    ratio = max(numbers.divisor << SHARE_BITS, keys << (bits + STEP_BITS))
    digits = FineDigits.reaching(numbers, ratio + 1)
    share = fine_hints(lowering, digits, rows)
    target = _rounded(unit * ratio)
    goal = circuit.raised(circuit.dynamic(target), 0, bits)
    most = (digits.bound(numbers) + 1) * keys * high + target
    # The nearest reciprocal, and one step of it, are within 3/2 of the exact one.
    honest = 2 * keys * high
    for change in (1, -1):
        near = circuit.add(share, circuit.whole([change]), rows)
        product = circuit.multiply(total, near, rows)
        left, right = (product, goal) if change > 0 else (goal, product)
        difference = circuit.subtract(left, right, rows)
        check_not_negative(lowering, difference, rows, most=most, honest=honest, nominal=bits)
    tensor = circuit.multiply(weights, circuit.reshape(share, [rows, 1]), size)
    wire = lowering.wire(
        circuit.reshape(tensor, [size]),
        size,
        0,
        high * digits.bound(numbers),
        float(target),
        bits,
    )
    lowering.step(
        do="share",
        wire=wire.name,
        exponent=moved.wire.name,
        shape=[rows, keys],
        bits=bits,
        target=target,
        fine=[digits.count, digits.step],
        places=places(numbers, honest),
    )
    # The wire's order is that of the scores: one row after the other.
    view = View(wire=wire, index=np.arange(size, dtype=np.int64).reshape(shape))
    resolution = numbers.divisor - SHARE_RESERVE
    return lowering.settle(
        identity(view),
        Rounding(resolution=resolution, offset=0, result_digits=1, below_digits=0),
        node.output[0],
    ).view()


def layer_norm(lowering: Lowering, node: onnx.NodeProto) -> Pending:
    """Normalisation over the last axis."""
    numbers, circuit = lowering.numbers, lowering.circuit
    view = lowering.rounded(node.input[0])
    width = view.shape[-1]
    if _attribute(node, "axis", -1) not in (-1, len(view.shape) - 1):
        raise NotHintedError("a normalisation over more than the last axis has no hinted form")
    gamma = lowering.constant(node.input[1])
    beta = lowering.constant(node.input[2]) if len(node.input) > 2 else np.zeros(width)
    rows, size = view.index.size // width, view.index.size
    values = circuit.gather(view.wire.name, view.index.reshape(rows, width))
    total = circuit.sum_rows(values, rows, width)
    centred = circuit.subtract(
        circuit.multiply(values, circuit.whole([width]), size),
        circuit.reshape(total, [rows, 1]),
        size,
    )
    bound = 2 * width * view.wire.magnitude
    squares = circuit.product("rk,rk->r", centred, centred, outputs=rows, length=width)
    bounds = RootBounds.of(numbers, view.wire, width, epsilon=_attribute(node, "epsilon", 1e-5))
    digits = bounds.digits(numbers)
    if bounds.factor > 1:
        squares = circuit.multiply(squares, circuit.whole([bounds.factor]), rows)
    spread = circuit.add(squares, circuit.whole([bounds.epsilon]), rows)
    root = fine_hints(lowering, digits, rows)
    most = (digits.bound(numbers) + 1) ** 2 * bounds.most + bounds.target
    goal = circuit.whole([bounds.target])
    for change in (1, -1):
        near = circuit.add(root, circuit.whole([change]), rows)
        product = circuit.multiply(circuit.multiply(near, near, rows), spread, rows)
        left, right = (product, goal) if change > 0 else (goal, product)
        difference = circuit.subtract(left, right, rows)
        check_not_negative(lowering, difference, rows, most=most, honest=bounds.honest)
    tensor = circuit.multiply(centred, circuit.reshape(root, [rows, 1]), size)
    reach = bound * digits.bound(numbers)
    resolution = width * view.wire.resolution * bounds.unit
    wire = lowering.wire(circuit.reshape(tensor, [size]), size, -reach, reach, resolution)
    lowering.step(
        do="normalise",
        wire=wire.name,
        source=view.wire.name,
        index=circuit.indices(view.index.reshape(rows, width)),
        factor=bounds.factor,
        epsilon=bounds.epsilon,
        target=bounds.target,
        fine=[digits.count, digits.step],
        places=places(numbers, bounds.honest),
        name=node.input[0],
    )
    index = np.arange(size, dtype=np.int64).reshape(rows, width)
    form = Form(
        groups=rows,
        channels=width,
        local=(Local(wire=wire, index=index[..., None], weights=gamma.reshape(width, 1)),),
        bias=beta.reshape(1, width),
    )
    return Pending(form=form, sites=index.reshape(view.shape))


@dataclass(frozen=True, slots=True, kw_only=True)
class RootBounds:
    """The numbers of a normalisation's root: r^2 W is about C, with W = a sum c^2 + e.

    Attributes:
        unit: r is the reciprocal of the standard deviation, times this.
        factor: a; it gives W bits enough for one step of it not to matter.
        epsilon: e: the operator's epsilon, or what is as good as a smaller one and keeps W above 0.
        target: C.
        most: Largest W in any proof.
        honest: Largest distance between C and (r +- 1)^2 W in an honest proof.
    """

    unit: int
    factor: int
    epsilon: int
    target: int
    most: int
    honest: int

    @classmethod
    def of(cls, numbers: Arithmetic, wire: Wire, width: int, *, epsilon: float) -> RootBounds:
        """What rows of a wire's elements need.

        Args:
            numbers: Of the circuit.
            wire: What is normalised.
            width: Elements of a row.
            epsilon: Added to variances.

        Raises:
            NotHintedError: A number is larger than constants can be, or epsilon is negative.
        """
        if epsilon < 0:
            raise NotHintedError("a normalisation with a negative epsilon has no hinted form")
        # The deviation of values up to 2^range_bits is at most that.
        unit = 1 << max(numbers.logrows, numbers.scale + STEP_BITS + numbers.range_bits)
        # One element that is one step off the others: the least sum of squares above zero.
        least = max(1, width * (width - 1))
        factor = 1
        while factor * least >> (numbers.scale + FLOOR_BITS) == 0:
            factor *= 2
        # sum c^2 is width^3 resolution^2 times the variance.
        variance_unit = factor * float(width**3) * wire.resolution**2
        floor = factor * least >> (numbers.scale + FLOOR_BITS)
        added = _rounded(max(round(epsilon * variance_unit), floor))
        target = _rounded(round(unit**2 * variance_unit))
        if target.bit_length() > CONSTANT_BITS:
            raise NotHintedError("a normalisation's numbers are too large")
        most = factor * width * (2 * width * wire.magnitude) ** 2 + added
        # (r + 1)^2 W - C is at most 3 r W + 3 W for the nearest r, and r W the root of C W.
        honest = 4 * (math.isqrt(target * most) + most)
        return cls(unit=unit, factor=factor, epsilon=added, target=target, most=most, honest=honest)

    def digits(self, numbers: Arithmetic) -> FineDigits:
        """Digits for the root of a row without variance, the largest there is."""
        return FineDigits.reaching(numbers, math.isqrt(self.target // self.epsilon) + 1)


def _exponential(argument: int, bits: int) -> int:
    """At least what ezkl's table holds for an argument."""
    return math.ceil(math.exp(argument / (1 << bits)) * (1 << bits) * (1 + 1e-6)) + 1


def _rounded(number: int) -> int:
    """The nearest number that float32 holds."""
    return int(np.float32(number))


def _attribute(node: onnx.NodeProto, name: str, default: float) -> float:
    for attribute in node.attribute:
        if attribute.name == name:
            found: float = helper.get_attribute_value(attribute)
            return found
    return default
