"""Sums and multiples of whole numbers, cell by cell, never rounded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from zkml_ray.chunking.hinted.grid import Ints, View, Wire
from zkml_ray.chunking.hinted.operators.reading import broadcast
from zkml_ray.chunking.hinted.whole import in_range

if TYPE_CHECKING:
    from zkml_ray.chunking.hinted.lower import Lowering


def exact_sum(
    lowering: Lowering,
    parts: Sequence[tuple[View, int]],
    constant: Ints,
    shape: tuple[int, ...],
    resolution: float,
) -> View:
    """The sum of tensors times 1 or -1 and constants, element by element.

    Args:
        lowering: Where to.
        parts: Tensors of one resolution, which are broadcast.
        constant: Whole numbers, which are broadcast.
        shape: The result's.
        resolution: Of all of them.

    Raises:
        NotHintedError: A constant lies outside --range-bits.
    """
    circuit, size = lowering.circuit, int(np.prod(shape, dtype=np.int64))
    spread: Ints = np.ascontiguousarray(np.broadcast_to(constant, shape)).ravel()
    in_range(lowering.numbers, math.ceil(np.abs(spread).max(initial=0) / resolution))
    held = total = circuit.whole(spread[:1] if (spread == spread[:1]).all() else spread)
    nothing = not spread.any()
    low, high, steps = int(spread.min(initial=0)), int(spread.max(initial=0)), []
    for view, factor in sorted(parts, key=lambda part: -part[1]):
        index = broadcast(view.index, shape).ravel()
        tensor = circuit.gather(view.wire.name, index, size=view.wire.size)
        if nothing and factor > 0:
            total, nothing = tensor, False
        elif factor > 0:
            total = circuit.add(total, tensor, size)
        else:
            total, nothing = circuit.subtract(total, tensor, size), False
        ends = sorted((factor * view.wire.low, factor * view.wire.high))
        low, high = low + ends[0], high + ends[1]
        steps.append([view.wire.name, circuit.indices(index), factor])
    wire = lowering.wire(total, size, low, high, resolution)
    lowering.step(do="total", wire=total, parts=steps, constant=held)
    return View(wire=wire, index=np.arange(size, dtype=np.int64).reshape(shape))


def exact_multiple(lowering: Lowering, view: View, factors: Ints, shape: tuple[int, ...]) -> View:
    """A tensor times whole constants, element by element, broadcast.

    Raises:
        NotHintedError: A constant lies outside --range-bits.
    """
    circuit, size = lowering.circuit, int(np.prod(shape, dtype=np.int64))
    index = broadcast(view.index, shape).ravel()
    spread: Ints = np.ascontiguousarray(np.broadcast_to(factors, shape)).ravel()
    in_range(lowering.numbers, int(np.abs(spread).max(initial=0)))
    constant = circuit.whole(spread[:1] if (spread == spread[:1]).all() else spread)
    source = circuit.gather(view.wire.name, index, size=view.wire.size)
    tensor = circuit.multiply(source, constant, size)
    ends = [f * end for f in (int(spread.min()), int(spread.max())) for end in _ends(view.wire)]
    wire = lowering.wire(tensor, size, min(ends), max(ends), view.wire.resolution)
    indices = circuit.indices(index)
    lowering.step(do="scale", wire=tensor, values=view.wire.name, index=indices, factors=constant)
    return View(wire=wire, index=np.arange(size, dtype=np.int64).reshape(shape))


def exact_rows(lowering: Lowering, view: View, taps: Ints, shape: tuple[int, ...]) -> View:
    """Sums of some elements each: of rows of positions among the flat elements, -1 for none."""
    index: Ints = np.where(taps < 0, -1, view.index.ravel()[taps])
    wire = row_sums(lowering, view.wire, index)
    return View(wire=wire, index=np.arange(len(taps), dtype=np.int64).reshape(shape))


def row_sums(lowering: Lowering, source: Wire, index: Ints) -> Wire:
    """Sums of a wire's elements: of rows of their positions, -1 for none."""
    circuit, (rows, length) = lowering.circuit, index.shape
    picked = circuit.gather(source.name, index, size=source.size)
    tensor = circuit.sum_rows(picked, rows, length)
    low, high = length * min(source.low, 0), length * max(source.high, 0)
    lowering.step(do="rows", wire=tensor, values=source.name, index=circuit.indices(index))
    return lowering.wire(tensor, rows, low, high, source.resolution)


def _ends(wire: Wire) -> tuple[int, int]:
    return wire.low, wire.high
