"""Where the elements of a tensor come from.

A `View` is a tensor of references into a `Wire`, a flat vector of whole numbers that the circuit
has fixed: so reshaping, transposing, slicing, padding with zeros and gathering windows cost
nothing. -1 refers to zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """A flat vector of whole numbers that a circuit has fixed.

    Attributes:
        name: Its name: the tensor in the circuit, and the vector in the recipe.
        size: Elements.
        low: Smallest value in any proof.
        high: Largest value in any proof.
        resolution: Whole numbers per unit: the value v stands for v / resolution. Below zero where
            the tensor is a negative multiple of what was rounded.
        nominal: The scale that ezkl takes it to have; above zero behind a table of a function.
    """

    name: str
    size: int
    low: int
    high: int
    resolution: float
    nominal: int = 0

    @property
    def magnitude(self) -> int:
        """Largest absolute value in any proof."""
        return max(abs(self.low), abs(self.high))


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A tensor whose elements are elements of a wire.

    Attributes:
        wire: The wire.
        index: The tensor's shape; position in the wire of every element, -1 for zero.
    """

    wire: Wire
    index: Ints

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return tuple(self.index.shape)


def windows(shape: Sequence[int], window: Window, counts: Sequence[int] | None = None) -> Ints:
    """Positions that each output of a sliding window reads.

    Args:
        shape: Sizes of the plane, one for each of the window's dimensions.
        window: The window.
        counts: Outputs along each dimension; default: as many as lie in the padded plane.

    Returns:
        Shape [outputs, kernel elements], row-major positions in the plane; -1 in the padding.
    """
    rank = len(shape)
    counts = window.counts(shape) if counts is None else counts
    found, inside = np.zeros(1, dtype=np.int64), np.ones(1, dtype=bool)
    for axis, size in enumerate(shape):
        start = np.arange(counts[axis]) * window.strides[axis] - window.pads[axis]
        taps = start[:, None] + np.arange(window.kernel[axis])[None, :] * window.dilations[axis]
        spread = [1] * (2 * rank)
        spread[axis], spread[rank + axis] = taps.shape
        taps = taps.reshape(spread)
        found, inside = found * size + taps, inside & (taps >= 0) & (taps < size)
    found = np.where(inside, found, -1)
    return found.reshape(math.prod(counts), math.prod(window.kernel)).astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A sliding window of any dimensions, in ONNX's terms (pads: all begins, then all ends)."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]

    def counts(self, shape: Sequence[int]) -> list[int]:
        """How often it fits a padded plane, along each dimension."""
        rank = len(shape)
        return [
            (size + self.pads[a] + self.pads[a + rank] - self.reach(a)) // self.strides[a] + 1
            for a, size in enumerate(shape)
        ]

    def reach(self, axis: int) -> int:
        """Elements from its first to its last, both counted."""
        return self.dilations[axis] * (self.kernel[axis] - 1) + 1
