"""Writing nodes of a native chunk, and constant factors that keep their precision.

ezkl rounds a fractional constant to the circuit's scale S, so a factor of 1/300 becomes 3/1024. A
factor c is therefore written as a whole number m and a power of two,

    c x = m x 2^-e,    m = round(c 2^e)

m has scale 0 and raises no scale; 2^-e is an identity on the integers that tells ezkl what they
mean; and an addition of two halves carries the one rebase, which a fractional factor would have had
too. e is as large as a rebase allows, and no larger than makes c 2^e whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

Reals = npt.NDArray[np.float64]
Attribute = int | float | str | Sequence[int]

MAX_WHOLE_BITS: Final = 40
"""Whole factors stay below 2^40: times a value of the decomposition's range, and summed up, they
are far from where the field (253 bits) or ezkl's integers (127 bits) end."""

KEPT_BITS: Final = 12
"""A factor that would keep fewer bits is applied in two steps: with 26 bits, one below 2^-14."""


@dataclass(slots=True)
class Writer:
    """Collects nodes and constants under names that start with a prefix.

    Attributes:
        prefix: Unique to what is being written.
        scale: The circuit's scale.
        max_bits: log2 of what one rebase can divide by, less one for the halves.
        nodes: What was written, in order.
        constants: Their constants.
    """

    prefix: str
    scale: int
    max_bits: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def node(
        self, op: str, inputs: Sequence[str], *, to: str | None = None, **attributes: Attribute
    ) -> str:
        """Add a node with one output, and give the output's name."""
        name = f"{self.prefix}/{op.lower()}_{len(self.nodes)}"
        output = to if to is not None else f"{name}:out"
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=name, **attributes))
        return output

    def constant(self, values: npt.ArrayLike) -> str:
        """Add a float32 constant of its own: ezkl rescales one for free only if one node reads it.

        Args:
            values: Numbers that are float32 or are rounded to it.
        """
        return self._initializer(np.asarray(values, dtype=np.float32))

    def indices(self, values: npt.ArrayLike) -> str:
        """Add an int64 constant."""
        return self._initializer(np.asarray(values, dtype=np.int64))

    def times(self, data: str, factor: Reals, *, to: str | None = None) -> str:
        """Multiply by constants; the result has been rebased, or needs no rebase.

        Args:
            data: What to multiply, at the circuit's scale.
            factor: Finite constants, broadcast against it.
            to: Name of the result.
        """
        room = self.max_bits
        shift = power_of_two(factor)
        if is_whole(factor) or (shift is not None and shift <= room):
            return self.node("Mul", [data, self.constant(factor)], to=to)
        largest = float(np.abs(factor).max())
        missing = -math.frexp(largest)[1]
        if missing > max(0, room - KEPT_BITS):
            first = min(missing, room)
            data = self.halved(self.shifted(data, first + 1))
            return self.times(data, np.ldexp(factor, first), to=to)
        whole, bits = whole_and_bits(factor, room)
        grown = self.node("Mul", [data, self.constant(whole)])
        return self.halved(self.shifted(grown, bits + 1), to=to)

    def shifted(self, data: str, bits: int) -> str:
        """Multiply by 2^-bits: free, and the next operator rebases by as much more."""
        return self.node("Mul", [data, self.constant(2.0**-bits)])

    def halved(self, half: str, *, to: str | None = None) -> str:
        """Twice a tensor: an addition, which carries the rebase."""
        return self.node("Add", [half, half], to=to)

    def sign(self, data: str) -> str:
        """-1, 0 or 1 at the circuit's scale."""
        plain = self.node("Sign", [data])
        return self.node("Mul", [self.shifted(plain, self.scale), self.constant(2.0**self.scale)])

    def _initializer(self, values: npt.NDArray[np.generic]) -> str:
        name = f"{self.prefix}/constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values.copy(order="C"), name))
        return name


def is_whole(values: Reals) -> bool:
    """Whether all numbers are whole: ezkl gives such a constant scale 0 and rounds nothing."""
    return bool(np.isfinite(values).all() and (values == np.floor(values)).all())


def power_of_two(values: Reals) -> int | None:
    """The k >= 1 of a single number 2^-k; None for anything else."""
    if values.size != 1:
        return None
    mantissa, exponent = math.frexp(float(values.reshape(-1)[0]))
    return 1 - exponent if mantissa == 0.5 and exponent <= 0 else None


def whole_and_bits(values: Reals, most: int) -> tuple[Reals, int]:
    """Whole numbers m and e with values ~ m 2^-e: exact with the fewest bits, if any of them do.

    Args:
        values: Finite numbers.
        most: Largest e.

    Returns:
        (m, e); every m is a float32, because what was rounded is below 2^24 and what was not has a
        float32's digits.
    """
    largest = math.frexp(float(np.abs(values).max(initial=0.0)))[1]
    most = max(0, min(most, MAX_WHOLE_BITS - largest))
    for bits in range(most):
        scaled = np.ldexp(values, bits)
        if (scaled == np.floor(scaled)).all():
            return scaled, bits
    return np.rint(np.ldexp(values, most)), most
