"""Where the elements of a tensor come from.

A `View` is a tensor of references into a `Wire`, a flat vector of whole numbers that the circuit
has fixed: so reshaping, transposing, slicing, padding with zeros and gathering windows cost
nothing. -1 refers to zero.
"""

from __future__ import annotations

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
        resolution: Whole numbers per unit: the value v stands for v / resolution.
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


def windows(shape: tuple[int, int], window: Window) -> Ints:
    """Positions that each output of a sliding window reads.

    Args:
        shape: Height and width of the plane.
        window: The window.

    Returns:
        Shape [outputs, kernel elements], row-major positions in the plane; -1 in the padding.
    """
    kernel, strides, dilations, pads = window.kernel, window.strides, window.dilations, window.pads
    taps = []
    for axis in (0, 1):
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        count = (shape[axis] + pads[axis] + pads[axis + 2] - reach) // strides[axis] + 1
        start = np.arange(count)[:, None] * strides[axis] - pads[axis]
        taps.append(start + np.arange(kernel[axis])[None, :] * dilations[axis])
    y, x = taps[0][:, None, :, None], taps[1][None, :, None, :]
    inside = (y >= 0) & (y < shape[0]) & (x >= 0) & (x < shape[1])
    found = np.where(inside, y * shape[1] + x, -1)
    return found.reshape(found.shape[0] * found.shape[1], -1).astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A two-dimensional sliding window, in ONNX's terms (pads: both begins, then both ends)."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilations: tuple[int, int] = (1, 1)
