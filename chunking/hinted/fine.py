"""Hinted numbers of more digits than values have: reciprocals and roots, one a row.

How many digits follows from the largest number that an honest prover may need; how far apart they
stand is the least that reaches it, so that what digits can hold in any proof is little more.

Numbers that have to be at zero or above are shown to be sums of digits. Those need to reach no more
than what honest numbers need: a larger one has no proof. What must not wrap is the number itself
and the sum, whatever the digits are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from zkml_ray.chunking.hinted.digits import FineDigits as FineDigits
from zkml_ray.chunking.hinted.digits import sum_of_weights
from zkml_ray.chunking.hinted.forms import NotHintedError
from zkml_ray.chunking.hinted.numbers import PACKED_BITS, Arithmetic

if TYPE_CHECKING:
    from zkml_ray.chunking.hinted.lower import Lowering

CONSTANT_BITS: Final = 126
"""float32 ends there, and with it what a constant can be."""


SHORT_BITS: Final = 16
"""Bits of a short number, of the 24 that float32 has."""

STEP_BITS: Final = 2
"""One step of a reciprocal sum or root changes it by about 2^-(scale + STEP_BITS) at most: what is
multiplied by it moves by a quarter of a quantum for every unit that it is large."""


def fine_hints(lowering: Lowering, digits: FineDigits, count: int) -> str:
    """So many new hints; their tensor."""
    circuit = lowering.circuit
    total = circuit.hinted(circuit.hints(count))
    for place in range(1, digits.count):
        high = circuit.hinted(circuit.hints(count))
        weight = circuit.whole([1 << (digits.step * place)])
        total = circuit.add(total, circuit.multiply(high, weight, count), count)
    return total


def check_not_negative(
    lowering: Lowering, tensor: str, count: int, *, most: int, honest: int, nominal: int = 0
) -> None:
    """Hold a flat tensor's elements at zero or above.

    They are put together of digits of `logrows - 1` bits, as many as an honest number needs.

    Args:
        lowering: Where to.
        tensor: Flat.
        count: Its elements.
        most: Largest magnitude of an element in any proof.
        honest: Largest element of an honest proof.
        nominal: The tensor's nominal scale.

    Raises:
        NotHintedError: A number could wrap.
    """
    circuit, numbers = lowering.circuit, lowering.numbers
    step, count_of_places = numbers.logrows - 1, places(numbers, honest)
    highest = step * (count_of_places - 1)
    reach = numbers.digit_bound * sum_of_weights(count_of_places, step)
    if (most + reach).bit_length() > PACKED_BITS or highest > CONSTANT_BITS:
        raise NotHintedError("a normalisation's numbers are too large")
    total = ""
    for place in range(1, count_of_places):
        digit = circuit.hinted(circuit.hints(count))
        part = circuit.multiply(digit, circuit.whole([1 << (step * place)]), count)
        total = circuit.add(total, part, count) if total else part
    if total:
        tensor = circuit.subtract(tensor, circuit.raised(total, 0, nominal), count)
    circuit.check_digits(tensor, count, nominal)


def places(numbers: Arithmetic, honest: int) -> int:
    """Digits of a number that is held at zero or above."""
    return max(1, -(-honest.bit_length() // (numbers.logrows - 1)))


def near_float32(number: int) -> int:
    """The nearest number that float32, and so a constant, holds."""
    return int(np.float32(number))


def short(number: int) -> int:
    """A number near another that small multiples are constants of as well."""
    spare = max(0, number.bit_length() - SHORT_BITS)
    return number >> spare << spare
