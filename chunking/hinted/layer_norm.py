"""LayerNormalization.

With c = D x - sum x, exact, and W = a sum c^2 + e, the hinted reciprocal root r satisfies
(r - 1)^2 W <= C <= (r + 1)^2 W, for the C that makes r the reciprocal of the standard deviation at
its resolution, of which one step is about 2^-(scale + 2) for the largest deviation that the
circuit's values can have. Then c r gamma + beta is rounded once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from onnx import helper

from zkml_ray.chunking.hinted.fine import (
    CONSTANT_BITS,
    STEP_BITS,
    FineDigits,
    check_not_negative,
    fine_hints,
    near_float32,
    places,
)
from zkml_ray.chunking.hinted.forms import Form, Local, NotHintedError, Pending
from zkml_ray.chunking.hinted.grid import Wire
from zkml_ray.chunking.hinted.numbers import Arithmetic

if TYPE_CHECKING:
    from zkml_ray.chunking.hinted.lower import Lowering

FLOOR_BITS: Final = 4
"""Epsilons below 2^-(scale + FLOOR_BITS) of the least variance above zero are as good as that."""


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
        added = near_float32(max(round(epsilon * variance_unit), floor))
        target = near_float32(round(unit**2 * variance_unit))
        if target.bit_length() > CONSTANT_BITS:
            raise NotHintedError("a normalisation's numbers are too large")
        most = factor * width * (2 * width * wire.magnitude) ** 2 + added
        # (r + 1)^2 W - C is at most 3 r W + 3 W for the nearest r, and r W the root of C W.
        honest = 4 * (math.isqrt(target * most) + most)
        return cls(unit=unit, factor=factor, epsilon=added, target=target, most=most, honest=honest)

    def digits(self, numbers: Arithmetic) -> FineDigits:
        """Digits for the root of a row without variance, the largest there is."""
        return FineDigits.reaching(numbers, math.isqrt(self.target // self.epsilon) + 1)


def _attribute(node: onnx.NodeProto, name: str, default: float) -> float:
    for attribute in node.attribute:
        if attribute.name == name:
            found: float = helper.get_attribute_value(attribute)
            return found
    return default
