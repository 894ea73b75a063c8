"""Sign, and what comparisons make of it; Floor.

A comparison is Relu(Sign(a - b)) (docs/adr/0028): it asks one bit of a - b, which is not rounded
where a and b are not: values as they were given, constants rounded as inputs are. Other tensors are
rounded before, and what rounding leaves open decides.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import onnx

from zkml_ray.chunking.hinted.bits import above_zero
from zkml_ray.chunking.hinted.forms import Floats, NotHintedError, Pending
from zkml_ray.chunking.hinted.grid import Ints, View
from zkml_ray.chunking.hinted.operators.exact import exact_sum
from zkml_ray.chunking.hinted.values import Signs, Value
from zkml_ray.chunking.hinted.whole import MAX_WHOLE_BITS, in_range, is_whole

if TYPE_CHECKING:
    from zkml_ray.chunking.hinted.lower import Lowering


def sign(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """Sign: bits are made as they are asked for."""
    values = _whole_numbers(lowering, node.input[0])
    shape = values.shape

    name = node.output[0]

    def above() -> View:
        """1 where v > 0."""
        return lowering.once(f"{name}/above", lambda: _bits(lowering, values))

    def not_below() -> View:
        """1 where v >= 0."""
        one = np.ones((), dtype=np.int64)
        resolution = values.wire.resolution
        raised = exact_sum(lowering, [(values, 1)], one, shape, resolution)
        return _bits(lowering, raised)

    def combined(factor: int, constant: int) -> View:
        found = lowering.once(f"{name}/not below", not_below)
        parts = [(above(), 1), (found, factor)]
        return exact_sum(lowering, parts, np.asarray(constant, dtype=np.int64), shape, 1.0)

    return Signs(
        index=values.index,
        above=above,
        other=lambda: lowering.once(f"{name}/other", lambda: combined(-1, 1)),
        signs=lambda: lowering.once(f"{name}/signs", lambda: combined(1, -1)),
    )


def _bits(lowering: Lowering, values: View) -> View:
    return View(wire=above_zero(lowering, values.wire), index=values.index)


def _whole_numbers(lowering: Lowering, name: str) -> View:
    """A tensor's elements, as they are where nothing asks for a rounding."""
    value = lowering.value(name)
    if isinstance(value, View) and is_whole(value):
        return value
    exact = _exactly(lowering, lowering.linear(name))
    return lowering.rounded(name) if exact is None else exact


def _exactly(lowering: Lowering, pending: Pending) -> View | None:
    """A sum of whole numbers with weights 1 and -1, and of constants rounded as inputs are."""
    form, own = pending.form, lowering.resolution
    if form.dense or form.pairs:
        return None
    parts = []
    for term in form.local:
        factor = float(term.weights.ravel()[0]) * own / term.wire.resolution
        if term.wire.nominal or abs(factor) != 1.0 or (term.weights != term.weights[0]).any():
            return None
        if term.index.shape[2] != 1:
            return None
        parts.append((View(wire=term.wire, index=term.index.ravel()), int(factor)))
    most = float(np.abs(form.bias).max(initial=0))
    in_range(lowering.numbers, math.ceil(min(most, 2.0**MAX_WHOLE_BITS)))
    size = form.groups * form.channels
    constant = np.broadcast_to(_rounded(form.bias * own), (form.groups, form.channels)).ravel()
    made = exact_sum(lowering, parts, constant, (size,), own)
    return View(wire=made.wire, index=pending.sites)


def _rounded(numbers: Floats) -> Ints:
    """To the nearest whole number, halves away from zero: as inputs are."""
    found: Ints = (np.sign(numbers) * np.floor(np.abs(numbers) + 0.5)).astype(np.int64)
    return found


def floor(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """Floor of rounded values: v + c = 2^s Z + R, with R >= 0 and 2^s - 1 - R >= 0."""
    value = lowering.value(node.input[0])
    if isinstance(value, View) and is_whole(value):
        return value
    circuit, numbers = lowering.circuit, lowering.numbers
    view = lowering.rounded(node.input[0])
    size, step = view.wire.size, 1 << numbers.scale
    # Digits reach a little further than values are said to.
    least, most = -1 << numbers.range_bits, (1 << numbers.range_bits + 1) - 1
    if most >= numbers.divisor or not numbers.scale:
        raise NotHintedError("its whole numbers take more than a digit")
    digits = circuit.hinted(circuit.hints(size))
    # Z is no larger than --range-bits say.
    circuit.check_digits(circuit.subtract(circuit.whole([most]), digits, size), size)
    shifted = circuit.subtract(view.wire.name, circuit.whole([least * step]), size)
    multiple = circuit.multiply(digits, circuit.whole([step]), size)
    rest = circuit.subtract(shifted, multiple, size)
    circuit.check_digits(rest, size)
    circuit.check_digits(circuit.subtract(circuit.whole([step - 1]), rest, size), size)
    tensor = circuit.add(digits, circuit.whole([least]), size)
    name = node.input[0]
    lowering.step(
        do="floor", name=name, wire=tensor, values=view.wire.name, step=step, least=least, most=most
    )
    wire = lowering.wire(tensor, size, least, least + most, 1.0)
    return View(wire=wire, index=view.index)
