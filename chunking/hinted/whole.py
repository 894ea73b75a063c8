"""Whole numbers that stay whole: truth values, places, and what is computed of them.

Their wires have resolution 1. Sums and products of them, times whole constants, are cells of the
circuit, never rounded (`operators.exact`); a product with any other tensor has that tensor's
resolution. Where real constants weight them they are counted in the circuit's own steps
(`Lowering.weighable`).
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from zkml_ray.chunking.hinted.forms import Floats, NotHintedError
from zkml_ray.chunking.hinted.grid import View
from zkml_ray.chunking.hinted.numbers import Arithmetic

MAX_WHOLE_BITS: Final = 24
"""Larger numbers are none that a float32 counts."""


def is_whole(view: View) -> bool:
    """Whether a tensor's elements are whole numbers as they stand."""
    return view.wire.resolution == 1.0 and not view.wire.nominal


def are_whole(numbers: Floats) -> bool:
    """Whether constants are whole numbers, and not too large."""
    small = np.abs(numbers).max(initial=0) < 1 << MAX_WHOLE_BITS
    return bool(small and (np.rint(numbers) == numbers).all())


def in_range(numbers: Arithmetic, constant: int) -> None:
    """See that a whole constant is no larger than values may be.

    Raises:
        NotHintedError: It lies outside --range-bits.
    """
    if constant > 1 << numbers.range_bits:
        bits = bits_of(constant)
        raise NotHintedError(
            f"its constant {constant} lies outside --range-bits {numbers.range_bits}: "
            f"--range-bits {bits} holds it",
            range_bits=bits,
        )


def bits_of(number: float) -> int:
    """log2 of the range that holds a number, rounded up; as many as there are of any beyond."""
    return (math.ceil(min(number, 2.0**MAX_WHOLE_BITS)) - 1).bit_length()
