"""Results as a sign and a magnitude that ends somewhere: arguments of functions that saturate.

A rounded number v is given as v = s (C + E), with s = 1 or -1: C is its magnitude as far as a
table reaches, and E what lies beyond. That s is a sign, that C ends at `top` and that E is zero
below it is three checks:

    s = 1 - 2 b,  b >= 0,  1 - b >= 0
    C >= 0,  top - C >= 0
    E >= 0,  sum E (top - C) = 0

So C = min(|v|, top). Of v = 0 either sign will do: what is computed of it must not depend on it.
E has as many digits as the largest v that the sums can make, whatever a prover chooses before: no
input is too large for a function that saturates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zkml_ray.chunking.hinted.circuit import Circuit
from zkml_ray.chunking.hinted.digits import FineDigits
from zkml_ray.chunking.hinted.grid import Ints
from zkml_ray.chunking.hinted.numbers import Arithmetic


@dataclass(frozen=True, slots=True, kw_only=True)
class Clamp:
    """How a number's magnitude is given.

    Attributes:
        top: Largest C; at least 1.
        beyond: Digits of E.
        signed: Whether it may be negative.
    """

    top: int
    beyond: FineDigits
    signed: bool = True

    @classmethod
    def of(cls, numbers: Arithmetic, top: int, most: int, *, signed: bool = True) -> Clamp:
        """For magnitudes up to `most`.

        Raises:
            NotHintedError: They are too large for any digits.
        """
        beyond = FineDigits.reaching(numbers, max(most - top, 1))
        return cls(top=top, beyond=beyond, signed=signed)

    def document(self) -> list[int]:
        """For the recipe."""
        return [self.top, self.beyond.count, self.beyond.step, int(self.signed)]

    def bound(self, numbers: Arithmetic) -> int:
        """Largest magnitude in any proof."""
        return numbers.digit_bound + self.beyond.bound(numbers)

    def split(self, values: Ints, numbers: Arithmetic) -> tuple[Ints, Ints, list[Ints]]:
        """Of numbers: whether they are negative, C, and E's digits, the lowest first."""
        magnitude = np.abs(values)
        within = np.minimum(magnitude, self.top)
        beyond = self.beyond.split_all(magnitude - within, numbers.divisor)
        return (values < 0).astype(np.int64), within, beyond


@dataclass(frozen=True, slots=True, kw_only=True)
class Clamped:
    """Tensors of a flat vector of clamped numbers.

    Attributes:
        value: v.
        sign: s; "" where there is none.
        within: C.
        left: top - C.
    """

    value: str
    sign: str
    within: str
    left: str


def clamped(circuit: Circuit, numbers: Arithmetic, clamp: Clamp, count: int) -> Clamped:
    """Hints of so many numbers, in `Clamp.split`'s order, and what holds them."""
    one, sign = circuit.whole([1]), ""
    if clamp.signed:
        bits = circuit.hinted(circuit.hints(count))
        circuit.check_digits(circuit.subtract(one, bits, count), count)
        sign = circuit.subtract(one, circuit.multiply(bits, circuit.whole([2]), count), count)
    within, beyond, *places = (
        circuit.hinted(circuit.hints(count)) for _ in range(1 + clamp.beyond.count)
    )
    left = circuit.subtract(circuit.whole([clamp.top]), within, count)
    if clamp.signed:
        circuit.check_digits(left, count)
    for place, digits in enumerate(places, start=1):
        weight = circuit.whole([1 << (clamp.beyond.step * place)])
        beyond = circuit.add(beyond, circuit.multiply(digits, weight, count), count)
    total = circuit.product("i,i->", beyond, left, outputs=1, length=count)
    # `left` is looked up: it is no larger than a digit.
    bound = count * clamp.beyond.bound(numbers) * numbers.digit_bound
    circuit.check_zero(circuit.reshape(total, [1]), bound)
    value = circuit.add(within, beyond, count)
    if clamp.signed:
        value = circuit.multiply(sign, value, count)
    return Clamped(value=value, sign=sign, within=within, left=left)
