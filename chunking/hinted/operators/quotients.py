"""Quotients of two tensors, and square roots: the result is a hint, and pinned by what is left.

A quotient z of whole numbers a and b of one resolution 2^s, to the nearest, with t = 1 or -1:

    2 2^s t a + t b = 2 t b z + R        R >= 0, 2 t b - 1 - R >= 0

So t b > 0, and z = floor(2^s a / b + 1/2): there is one t and one z for every a and b but b = 0, of
which there is no proof. A root r of n, counted in quarters of a step, is r^2 <= n <= r^2 + 2 r: one
r for every n that is not negative.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import onnx

from zkml_ray.chunking.hinted.digits import FineDigits
from zkml_ray.chunking.hinted.fine import STEP_BITS, check_not_negative, fine_hints, places
from zkml_ray.chunking.hinted.forms import Floats, NotHintedError, Pending
from zkml_ray.chunking.hinted.grid import View
from zkml_ray.chunking.hinted.operators.exact import row_sums
from zkml_ray.chunking.hinted.operators.reading import broadcast
from zkml_ray.chunking.hinted.values import Value

if TYPE_CHECKING:
    from zkml_ray.chunking.hinted.lower import Lowering


def quotient(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """Div by a tensor that is no constant."""
    circuit, numbers = lowering.circuit, lowering.numbers
    shape = lowering.shape(node.output[0])
    size = math.prod(shape)
    first, second = node.input
    unit = 2 << numbers.scale
    value = lowering.value(first)
    if isinstance(value, np.ndarray):
        constant = _held(np.broadcast_to(lowering.finite(value), shape), unit << numbers.scale)
        numerator = circuit.whole(constant.ravel())
        reach, read = int(np.abs(constant).max(initial=0)), ["", numerator]
    else:
        above = lowering.rounded(first)
        index = broadcast(above.index, shape).ravel()
        flat = circuit.gather(above.wire.name, index)
        numerator = circuit.multiply(flat, circuit.whole([unit]), size)
        reach, read = unit * above.wire.magnitude, [above.wire.name, circuit.indices(index)]
    below = lowering.rounded(second)
    divisor_index = broadcast(below.index, shape).ravel()
    divisor = circuit.gather(below.wire.name, divisor_index)
    one, two = circuit.whole([1]), circuit.whole([2])
    bits = circuit.hinted(circuit.hints(size))
    circuit.check_digits(circuit.subtract(one, bits, size), size)
    sign = circuit.subtract(one, circuit.multiply(bits, two, size), size)
    result = circuit.hinted(circuit.hints(size))
    for place in range(1, numbers.digits):
        weight = circuit.whole([1 << (numbers.overlap_bits * place)])
        high = circuit.multiply(circuit.hinted(circuit.hints(size)), weight, size)
        result = circuit.add(result, high, size)
    result = circuit.subtract(result, circuit.whole([numbers.offset]), size)
    size_of = circuit.multiply(sign, divisor, size)
    twice = circuit.multiply(size_of, two, size)
    dividend = circuit.add(circuit.multiply(sign, numerator, size), size_of, size)
    rest = circuit.subtract(dividend, circuit.multiply(twice, result, size), size)
    left = circuit.subtract(circuit.subtract(twice, one, size), rest, size)
    wire = lowering.wire(result, size, -numbers.offset, numbers.value_bound - numbers.offset)
    most = reach + below.wire.magnitude * (1 + 2 * wire.magnitude)
    honest = 2 * below.wire.magnitude
    check_not_negative(lowering, rest, size, most=most, honest=honest)
    check_not_negative(lowering, left, size, most=most + honest + 1, honest=honest)
    lowering.step(
        do="quotient",
        wire=result,
        numerator=read,
        unit=unit,
        divisor=below.wire.name,
        index=circuit.indices(divisor_index),
        places=places(numbers, honest),
        names=[second, node.output[0]],
    )
    return View(wire=wire, index=np.arange(size, dtype=np.int64).reshape(shape))


def root(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """Sqrt: of numbers that are not negative, in quarters of a step."""
    circuit, numbers = lowering.circuit, lowering.numbers
    view = _radicand(lowering, node.input[0])
    fine = round(lowering.resolution**2 / view.wire.resolution)
    size, factor = view.wire.size, fine << 2 * STEP_BITS
    largest = math.isqrt(factor * view.wire.high)
    digits = FineDigits.reaching(numbers, largest)
    found = fine_hints(lowering, digits, size)
    square = circuit.multiply(found, found, size)
    rest = circuit.subtract(
        circuit.multiply(view.wire.name, circuit.whole([factor]), size), square, size
    )
    twice = circuit.multiply(found, circuit.whole([2]), size)
    left = circuit.subtract(twice, rest, size)
    bound = digits.bound(numbers)
    most = factor * view.wire.magnitude + bound**2
    honest = 2 * largest
    check_not_negative(lowering, rest, size, most=most, honest=honest)
    check_not_negative(lowering, left, size, most=most + 2 * bound, honest=honest)
    lowering.step(
        do="root",
        wire=found,
        values=view.wire.name,
        factor=factor,
        fine=[digits.count, digits.step],
        places=places(numbers, honest),
        name=node.input[0],
    )
    wire = lowering.wire(found, size, 0, bound, float(1 << numbers.scale + STEP_BITS))
    return View(wire=wire, index=view.index)


def _radicand(lowering: Lowering, name: str) -> View:
    """What a root is of: sums of products as they are, for a rounding would count as its root."""
    value = lowering.value(name)
    if isinstance(value, Pending) and value.is_linear:
        form = value.form
        plain = len(form.local) == 1 and not (form.dense or form.pairs or form.bias.any())
        if plain and (form.local[0].weights == 1.0).all():
            (term,) = form.local
            exact = term.wire.resolution == lowering.resolution**2 and not term.wire.nominal
            if exact:
                rows = term.index.reshape(-1, term.index.shape[-1])
                return View(wire=row_sums(lowering, term.wire, rows), index=value.sites)
    return lowering.rounded(name)


def _held(numbers: Floats, unit: int) -> Floats:
    """Constants times a whole number, as float32 holds them: whole, or 2^-24 of them off."""
    held: Floats = np.rint(numbers * float(unit)).astype(np.float32).astype(np.float64)
    if not np.isfinite(held).all():
        raise NotHintedError("a constant is too large to be divided")
    return held
