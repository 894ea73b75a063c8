"""Reductions over axes, and means of several tensors."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import onnx_ir as ir

from zkml_ray.chunking.normal_form.definitions.pointwise import FLOOR
from zkml_ray.chunking.normal_form.writer import Writer

LARGEST_LOG: Final = 7.5
"""Largest argument at which ln is read: ezkl's tables end at about 8."""

HARDMAX_ALONG_AN_AXIS: Final = 13
"""Version from which Hardmax is along one axis."""

MAX_FACTORS: Final = 64
"""Numbers that one product may have: each step of pairs is rounded."""

MAX_SUMMED: Final = 1024


def reduce_prod(write: Writer) -> ir.Value:
    """The product, pair by pair."""
    shape, given = write.shape(), write.constant(1)
    if write.input(1) is not None and given is None:
        raise write.refusal("its axes must be constant")
    chosen = [] if given is None else [int(axis) % len(shape) for axis in given.reshape(-1)]
    if not chosen and write.attribute("noop_with_empty_axes", 0):
        return write.op("Identity", write.input(0))
    axes = sorted(set(chosen)) or list(range(len(shape)))
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    count = math.prod(shape[axis] for axis in axes)
    if not 0 < count <= MAX_FACTORS:
        raise write.refusal(f"a product of {count} numbers cannot be proved; 1 to {MAX_FACTORS}")
    rows = math.prod(shape[axis] for axis in kept)
    table = write.op("Transpose", write.input(0), perm=[*axes, *kept])
    table = write.reshape(table, [count, rows])
    while count > 1:
        half = count // 2
        left, right = (
            write.op("Gather", table, write.integers(list(range(start, start + half))), axis=0)
            for start in (0, half)
        )
        made = write.op("Mul", left, right)
        if count % 2:
            last = write.op("Gather", table, write.integers([count - 1]), axis=0)
            made = write.op("Concat", made, last, axis=0)
        table, count = made, half + count % 2
    return write.reshape(table, write.output_shape())


def cum_sum(write: Writer) -> ir.Value:
    """A product with a triangle of ones."""
    shape, given = write.shape(), write.constant(1)
    if given is None:
        raise write.refusal("its axis must be constant")
    axis, rank = int(given.reshape(-1)[0]) % len(shape), len(shape)
    size = shape[axis]
    if size > MAX_SUMMED:
        raise write.refusal(f"{size} numbers to sum up are more than {MAX_SUMMED}")
    ones = np.triu(np.ones((size, size)), int(write.attribute("exclusive", 0)))
    if write.attribute("reverse", 0):
        ones = ones.T
    order = [*(other for other in range(rank) if other != axis), axis]
    back = [order.index(index) for index in range(rank)]
    rows = write.op("Transpose", write.input(0), perm=order)
    made = write.op("MatMul", rows, write.floats(ones))
    return write.op("Transpose", made, perm=back)


def reduce_min(write: Writer) -> ir.Value:
    """-max(-x)."""
    return write.op("Neg", _over(write, "ReduceMax", write.op("Neg", write.input(0))))


def reduce_l1(write: Writer) -> ir.Value:
    """Sum |x|."""
    return _over(write, "ReduceSum", write.op("Abs", write.input(0)))


def reduce_sum_square(write: Writer) -> ir.Value:
    """Sum x^2."""
    return _over(write, "ReduceSum", write.op("Mul", write.input(0), write.input(0)))


def reduce_l2(write: Writer) -> ir.Value:
    """The root of sum x^2."""
    return write.op("Sqrt", reduce_sum_square(write))


def reduce_log_sum(write: Writer) -> ir.Value:
    """Ln sum x."""
    return write.op("Log", _over(write, "ReduceSum", write.input(0)))


def reduce_log_sum_exp(write: Writer) -> ir.Value:
    """M + ln sum e^(x - m), m the largest x: ln is read at 1 and above, exp at 0 and below."""
    x = write.input(0)
    axes, given = write.input(1), write.constant(1)
    if axes is not None and given is None:
        raise write.refusal("its axes must be constant to be proved")
    places = [] if given is None else [int(axis) for axis in given.reshape(-1)]
    if not places and write.attribute("noop_with_empty_axes", 0):
        return write.op("Identity", x)
    shape = write.shape()
    count = math.prod(shape[axis] for axis in places or range(len(shape)))
    total, largest = _shifted(write, x, axes)
    result = write.op("Add", _log(write, total, count), largest)
    if write.attribute("keepdims", 1):
        return result
    return write.op("Squeeze", result, write.input(1))


def log_softmax(write: Writer) -> ir.Value:
    """X - m - ln sum e^(x - m)."""
    x = write.input(0)
    axis = write.axis(-1)
    total, largest = _shifted(write, x, write.integers([axis]))
    log = _log(write, total, write.shape()[axis])
    return write.op("Sub", write.op("Sub", x, largest), log)


def global_max_pool(write: Writer) -> ir.Value:
    """The maximum over all but the first two axes."""
    axes = write.integers(list(range(2, len(write.shape()))))
    return write.op("ReduceMax", write.input(0), axes, keepdims=1)


def mean(write: Writer) -> ir.Value:
    """The sum of the inputs over their number."""
    count = len(write.place.inputs)
    total = write.op("Sum", *write.place.inputs)
    return total if count == 1 else write.op("Mul", total, write.floats(1 / count))


def _over(write: Writer, op_type: str, x: ir.Value | None) -> ir.Value:
    """The same axes reduced by another operator."""
    attributes = {
        name: write.attribute(name, default)
        for name, default in (("keepdims", 1), ("noop_with_empty_axes", 0))
    }
    axes = [] if write.input(1) is None else [write.input(1)]
    return write.op(op_type, x, *axes, **attributes)


def _log(write: Writer, total: ir.Value, most: float) -> ir.Value:
    """Ln of a number from 1 to `most`: 2 ln of its root, as often as ln's table asks for."""
    factor = 1
    while most > LARGEST_LOG:
        total, most, factor = write.op("Sqrt", total), math.sqrt(most), 2 * factor
    log = write.op("Log", total)
    return log if factor == 1 else write.op("Mul", log, write.floats(float(factor)))


def _shifted(write: Writer, x: ir.Value | None, axes: ir.Value | None) -> tuple[ir.Value, ir.Value]:
    """Sum e^(x - m) and m, the largest x; exp is read at `FLOOR` and above, as elsewhere."""
    reads = [] if axes is None else [axes]
    largest = write.op("ReduceMax", x, *reads, keepdims=1)
    below = write.op("Clip", write.op("Sub", x, largest), write.floats(FLOOR), write.floats(0.0))
    return write.op("ReduceSum", write.op("Exp", below), *reads, keepdims=1), largest


def hardmax(write: Writer) -> ir.Value:
    """1 at the first of the largest, else 0; below opset 13 of all axes from `axis` on."""
    shape = write.shape()
    old = write.opset < HARDMAX_ALONG_AN_AXIS
    axis = write.axis(1 if old else -1)
    size = math.prod(shape[axis:]) if old else shape[axis]
    rows = write.input(0)
    if old:
        rows = write.reshape(rows, [-1, size])
    along = 1 if old else axis
    place = write.op("ArgMax", rows, axis=along, keepdims=0)
    depth, values = write.integers(size), write.floats([0.0, 1.0])
    made = write.op("OneHot", place, depth, values, axis=along)
    return write.reshape(made, list(shape)) if old else made
