"""Digits and ranges of hinted circuits.

A circuit of 2^k rows has one lookup table, over [0, T) with T a little below 2^k: every hint is
looked up, so every hint is a *digit* in [0, 2^k). A value of a larger range is two digits,
d0 + 2^h d1; the two overlap, so that the range is just the one wanted and not 2^2k (what else has
to fit beside it in a field element depends on the range). A value may have several such
representations, which is harmless: the circuit uses the value.

Weights are whole numbers at scale q, not a power of two but the largest divisor whose remainders
fill the table: the remainder of a division is then one digit, checked exactly but for the few
values in [q, T), for which the quotient below passes as well. Other divisors (`rounding.Divisor`)
leave more such values, and never more than that one quotient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from zkml_ray.errors import ChunkingError

TABLE_RESERVE: Final = 32
"""Rows at the end of a table's column that halo2 and ezkl keep for themselves, rounded up."""

PACKED_BITS: Final = 252
"""Sums below 2^252 in magnitude are the same in the field as in the integers."""

FLOAT_BITS: Final = 24
"""Whole numbers that float32, and so an ONNX file, holds exactly."""

MAX_OVERLAP_BITS: Final = 8

PRECISION_BITS: Final = 2
"""Weights get at least so many bits more than rounded values: their errors add up over a sum. One
bit fewer costs no cells, and half the rows hold a scale twice as fine (docs/adr/0017). A verifier
takes no plan with fewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    """The numbers of one hinted circuit.

    Attributes:
        scale: log2 of the fixed-point denominator of every rounded value.
        logrows: log2 of the circuit's rows.
        range_bits: Rounded values may reach 2^range_bits, as real numbers.
    """

    scale: int
    logrows: int
    range_bits: int

    def __post_init__(self) -> None:
        # The second digit's weight may not exceed the first digit's range, or values are left out.
        if self.overlap_bits > MAX_OVERLAP_BITS or 1 << self.overlap_bits > self.divisor:
            raise ChunkingError(
                f"scale {self.scale} with values up to 2^{self.range_bits} needs more than "
                f"2^{self.logrows} rows"
            )

    @property
    def divisor(self) -> int:
        """q: scale of the weights, and the number of honest digits."""
        return (1 << self.logrows) - TABLE_RESERVE

    @property
    def digit_bound(self) -> int:
        """Largest digit that any proof can hold."""
        return (1 << self.logrows) - 1

    @property
    def overlap_bits(self) -> int:
        """h: log2 of the weight of a value's second digit; 0 where one digit is enough."""
        return max(0, self.scale + self.range_bits + 1 - self.logrows)

    @property
    def digits(self) -> int:
        """Digits of a rounded value."""
        return 2 if self.overlap_bits else 1

    @property
    def value_bound(self) -> int:
        """Largest value that digits can hold in any proof."""
        return self.bound_of(self.digits)

    def bound_of(self, digits: int) -> int:
        """Largest value of so many digits in any proof; 0 for none."""
        return sum(self.digit_bound << (self.overlap_bits * place) for place in range(digits))

    @property
    def offset(self) -> int:
        """Added to a signed value to make it a number of digits."""
        return 1 << (self.scale + self.range_bits)


def stride_bits(magnitude: int) -> int:
    """Bits between packed elements for sums of elements up to a magnitude to be zero each.

    With S = 2^stride > magnitude, sum e_i S^i = 0 makes e_0 a multiple of S, so zero, and so on.
    """
    return magnitude.bit_length()


def packable(magnitude: int) -> int:
    """How many elements of a magnitude fit a field element without wrapping."""
    return PACKED_BITS // stride_bits(magnitude)
