"""Exp and Log, by the one table of the exponential.

Exp is read so far up in the table that what its beginning cuts off is less than half a step of the
largest argument there may be: 0, or the logarithm of what values may reach. Log is Exp's
inverse: of y the last entry T(a) <= y, scaled so that the largest y stands at the table's end:

    2^k T(a) <= K y < 2^k T(a + 1)

with half a step in K, so that a is the nearest. There is one a for every y above zero, since the
table rises; of others there is no proof.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx

from zkml_ray.chunking.hinted.extent import extent
from zkml_ray.chunking.hinted.fine import check_not_negative, places
from zkml_ray.chunking.hinted.forms import NotHintedError, Pending, identity
from zkml_ray.chunking.hinted.functions import REACH_BITS, entries
from zkml_ray.chunking.hinted.grid import View
from zkml_ray.chunking.hinted.numbers import TABLE_RESERVE, Arithmetic
from zkml_ray.chunking.hinted.operators.linear import powered, rescaled, shifted_by
from zkml_ray.chunking.hinted.settle import Rounding
from zkml_ray.chunking.hinted.values import Value

if TYPE_CHECKING:
    from zkml_ray.chunking.hinted.lower import Lowering

FACTOR_BITS: Final = 24
"""Of K, as float32 has them."""

_NEAR: Final = 2.0**-10
"""Bounds this near to a power of two are that: tables round."""


def exponential(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """Exp."""
    return _exponential(lowering, lowering.linear(node.input[0]), node.output[0])


def power(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """Pow: of one constant above zero, c^x = e^(x ln c); or with a constant exponent."""
    base, exponent = (lowering.value(name) for name in node.input)
    if not isinstance(base, np.ndarray) or isinstance(exponent, np.ndarray):
        return powered(lowering, node)
    same = lowering.shape(node.input[1]) == lowering.shape(node.output[0])
    if base.size != 1 or not same or not 0 < float(base.ravel()[0]) < math.inf:
        raise NotHintedError("its base is not one constant above zero")
    argument = rescaled(lowering.linear(node.input[1]), math.log(float(base.ravel()[0])))
    return _exponential(lowering, argument, node.output[0])


def _exponential(lowering: Lowering, argument: Pending, name: str) -> View:
    numbers, circuit = lowering.numbers, lowering.circuit
    one = 1 << numbers.scale
    largest = 0 if extent(argument)[1] <= 0 else math.ceil(numbers.range_bits * math.log(2) * one)
    # Further from the table's beginning nothing is gained.
    top = largest + math.ceil((numbers.scale + 1) * math.log(2) * one)
    _check_reach(top, numbers)
    below = shifted_by(rescaled(argument, -1.0), largest / one)
    rounding = Rounding(
        resolution=lowering.resolution,
        offset=0,
        result_digits=0,
        below_digits=0,
        clamp_top=top,
        clamp_signed=False,
    )
    settled = lowering.settle(below, rounding, name)
    size = settled.wire.size
    tensor = circuit.function("Exp", settled.wire.name, size, numbers.scale)
    lowering.step(do="lookup", op="Exp", wire=tensor, digits=settled.wire.name, one=one)
    resolution = one * math.exp((top - largest) / one)
    wire = lowering.wire(tensor, size, 0, _entry(top, one), resolution, numbers.scale)
    # Rounded at once: it is far finer than what it is added to.
    results = Rounding(
        resolution=lowering.resolution,
        offset=0,
        result_digits=numbers.digits if largest else 1,
        below_digits=0,
    )
    view = View(wire=wire, index=settled.index)
    return lowering.settle(identity(view), results, name).view()


def logarithm(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """Log."""
    numbers, circuit = lowering.numbers, lowering.circuit
    (name,) = node.input
    one, top = 1 << numbers.scale, numbers.divisor - 1
    low, high = extent(lowering.linear(name))
    most = min(math.ceil(math.log2(max(high, 1.0)) - _NEAR), numbers.range_bits + 1)
    least = max(low, 0.75 / one)
    last = top - 1 - math.ceil(most * math.log(2) * one)
    _check_reach(top - last - math.floor(math.log(least) * one), numbers)
    view = lowering.rounded(name)
    size, nominal = view.wire.size, numbers.scale
    bits = FACTOR_BITS - 1 - math.floor((last + 0.5) / one / math.log(2))
    if bits < 0:
        raise NotHintedError("its table reaches too far")
    factor = int(np.float32(math.exp((last + 0.5) / one) * 2.0**bits))
    digits = circuit.hinted(circuit.hints(size))
    found = circuit.function("Exp", digits, size, nominal)
    following = circuit.add(digits, circuit.whole([1]), size)
    next_ = circuit.function("Exp", following, size, nominal)
    unit = circuit.whole([1 << bits])
    scaled = circuit.multiply(view.wire.name, circuit.whole([factor]), size)
    raised = circuit.raised(scaled, 0, nominal)
    rest = circuit.subtract(raised, circuit.multiply(found, unit, size), size)
    strict = circuit.raised(circuit.add(scaled, circuit.whole([1]), size), 0, nominal)
    left = circuit.subtract(circuit.multiply(next_, unit, size), strict, size)
    largest = _entry(numbers.digit_bound, one) << bits
    reach = largest + factor * view.wire.magnitude + 1
    honest = (_entry(top, one) - int(entries("Exp", np.asarray([top - 1]), one)[0]) + 1) << bits
    for tensor in (rest, left):
        check_not_negative(lowering, tensor, size, most=reach, honest=honest, nominal=nominal)
    result = circuit.subtract(digits, circuit.whole([last]), size)
    lowering.step(
        do="logarithm",
        wire=result,
        values=view.wire.name,
        factor=factor,
        bits=bits,
        top=top,
        one=one,
        shift=last,
        places=places(numbers, honest),
        name=name,
    )
    wire = lowering.wire(result, size, -last, numbers.digit_bound - last)
    return View(wire=wire, index=view.index)


def _entry(digit: int, one: int) -> int:
    """At least what the table holds for a digit."""
    return math.ceil(math.exp(digit / one) * one * (1 + 1e-6)) + 1


def _check_reach(needed: int, numbers: Arithmetic) -> None:
    """See that the table reaches so many steps, and no further than ezkl computes it.

    Raises:
        NotHintedError: The circuit has other rows.
    """
    if needed >= numbers.divisor or numbers.logrows > numbers.scale + REACH_BITS + 1:
        bits = (needed + TABLE_RESERVE).bit_length()
        raise NotHintedError(
            f"its table needs 2^{bits} rows or more at scale {numbers.scale}, and 2^"
            f"{numbers.scale + REACH_BITS + 1} or fewer"
        )
