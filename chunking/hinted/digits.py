"""Numbers at or above zero of several overlapping digits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from zkml_ray.chunking.hinted.grid import Ints
from zkml_ray.chunking.hinted.numbers import Arithmetic
from zkml_ray.chunking.hinted.refusal import NotHintedError

MAX_DIGITS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class FineDigits:
    """Digits of numbers at or above zero.

    Attributes:
        count: How many.
        step: Digit i weighs 2^(step i).
    """

    count: int
    step: int

    @classmethod
    def reaching(cls, numbers: Arithmetic, most: int) -> FineDigits:
        """The fewest digits, and the nearest to each other, that give every number up to `most`.

        Raises:
            NotHintedError: There are none.
        """
        for count in range(1, MAX_DIGITS + 1):
            # The next digit's weight may not exceed the first one's range.
            for step in range(numbers.divisor.bit_length() if count > 1 else 1):
                if (numbers.divisor - 1) * sum_of_weights(count, step) >= most:
                    return cls(count=count, step=step)
        raise NotHintedError("its numbers are too large for their digits")

    def bound(self, numbers: Arithmetic) -> int:
        """Largest number that the digits can hold in any proof."""
        return numbers.digit_bound * sum_of_weights(self.count, self.step)

    def split(self, number: int, divisor: int) -> list[int]:
        """Digits in [0, divisor) of a number that they reach, the lowest first."""
        digits = []
        for place in reversed(range(1, self.count)):
            below = (divisor - 1) * sum_of_weights(place, self.step)
            digit = max(0, -(-(number - below) >> (self.step * place)))
            digits.append(digit)
            number -= digit << (self.step * place)
        return [number, *reversed(digits)]

    def split_all(self, values: Ints, divisor: int) -> list[Ints]:
        """The same digits of every number of a vector."""
        digits: list[Ints] = []
        for place in reversed(range(1, self.count)):
            below = (divisor - 1) * sum_of_weights(place, self.step)
            digit = np.maximum(0, -(-(values - below) >> (self.step * place)))
            digits.append(digit)
            values = values - (digit << (self.step * place))
        return [values, *reversed(digits)]


def sum_of_weights(count: int, step: int) -> int:
    """Of so many digits."""
    return sum(1 << (step * place) for place in range(count))
