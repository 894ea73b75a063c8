"""Truth values: whether whole numbers are above zero.

For a number v the hint b is 0 or 1, and s = 2 b - 1:

    b >= 0, 1 - b >= 0        s (v - b) >= 0

So b = 1 asks for v >= 1, and b = 0 for v <= 0: there is one b for every v. s (v - b), |v| or one
less, is digits, of which all but the lowest are hints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zkml_ray.chunking.hinted.digits import FineDigits
from zkml_ray.chunking.hinted.grid import Ints, Wire
from zkml_ray.chunking.hinted.numbers import Arithmetic

if TYPE_CHECKING:
    from zkml_ray.chunking.hinted.lower import Lowering


def above_zero(lowering: Lowering, values: Wire) -> Wire:
    """1 where a wire's numbers are above zero, else 0; whole numbers of resolution 1."""
    circuit, numbers, size = lowering.circuit, lowering.numbers, values.size
    digits = FineDigits.reaching(numbers, max(values.high - 1, -values.low, 1))
    one = circuit.whole([1])
    bits = circuit.hinted(circuit.hints(size))
    circuit.check_digits(circuit.subtract(one, bits, size), size)
    sign = circuit.subtract(circuit.multiply(bits, circuit.whole([2]), size), one, size)
    distance = circuit.subtract(values.name, bits, size)
    left = circuit.multiply(sign, distance, size)
    for place in range(1, digits.count):
        digit = circuit.hinted(circuit.hints(size))
        weight = circuit.whole([1 << (digits.step * place)])
        left = circuit.subtract(left, circuit.multiply(digit, weight, size), size)
    circuit.check_digits(left, size)
    lowering.step(do="bit", wire=bits, values=values.name, fine=[digits.count, digits.step])
    return lowering.wire(bits, size, 0, 1, 1.0)


def bits_and_digits(values: Ints, digits: FineDigits, numbers: Arithmetic) -> tuple[Ints, Ints]:
    """The prover's side: the bits, and all hints, one row each."""
    bits = (values > 0).astype(np.int64)
    left = np.where(bits == 1, values - 1, -values)
    return bits, np.stack([bits, *digits.split_all(left, numbers.divisor)[1:]])
