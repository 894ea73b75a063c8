"""Comparisons, choices and places that depend on a model's input, as arithmetic on 0 and 1.

All of them are written with Sign: on fixed-point numbers it is exact, and a circuit ties it to what
it is of (ezkl's decomposition, zero included). A truth value is the float 0 or 1, an integer a
whole float; both are exact in float32 below 2^24, and in a circuit within its range.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import onnx_ir as ir

from zkml_ray.chunking.normal_form.writer import Writer

FEW_PLACES: Final = 16
"""Among more than these, a place is found by row and column: 2 sqrt(n) comparisons for n."""

MAX_RANKED: Final = 256
"""Where TopK compares every two of its elements, more than these are refused."""

MAX_SEARCHED: Final = 4096
"""Where TopK takes the largest element k times, more than these are refused."""

ROUND_PAIRS: Final = 4
"""A round of it costs as much as so many comparisons an element."""


def is_above(write: Writer, left: ir.Value, right: ir.Value) -> ir.Value:
    """1 where left > right, else 0."""
    return write.op("Relu", write.op("Sign", write.op("Sub", left, right)))


def negated(write: Writer, truth: ir.Value) -> ir.Value:
    """1 - truth."""
    return write.op("Sub", write.floats(1.0), truth)


def is_other(write: Writer, left: ir.Value, right: ir.Value) -> ir.Value:
    """1 where left and right differ, else 0."""
    return is_true(write, write.op("Sub", left, right))


def is_true(write: Writer, value: ir.Value) -> ir.Value:
    """1 where a value is not 0, else 0."""
    return write.op("Abs", write.op("Sign", value))


def either(write: Writer, left: ir.Value, right: ir.Value) -> ir.Value:
    """Left + right - left right."""
    return write.op("Sub", write.op("Add", left, right), write.op("Mul", left, right))


def differ(write: Writer, left: ir.Value, right: ir.Value) -> ir.Value:
    """|left - right|, of truth values."""
    return write.op("Abs", write.op("Sub", left, right))


BINARY: Final[Mapping[str, Callable[[Writer, ir.Value, ir.Value], ir.Value]]] = {
    "And": lambda write, left, right: write.op("Mul", left, right),
    "Equal": lambda write, left, right: negated(write, is_other(write, left, right)),
    "Greater": is_above,
    "GreaterOrEqual": lambda write, left, right: negated(write, is_above(write, right, left)),
    "Less": lambda write, left, right: is_above(write, right, left),
    "LessOrEqual": lambda write, left, right: negated(write, is_above(write, left, right)),
    "Or": either,
    "Xor": differ,
}
"""Operator -> its truth values."""


def chosen(write: Writer, condition: ir.Value, then: ir.Value, other: ir.Value) -> ir.Value:
    """Condition then + (1 - condition) other: no difference of the two, which would be rounded."""
    kept = write.op("Mul", condition, then)
    return write.op("Add", kept, write.op("Mul", negated(write, condition), other))


def truncated(write: Writer, value: ir.Value) -> ir.Value:
    """A number's whole part."""
    whole = write.op("Floor", write.op("Abs", value))
    return write.op("Mul", write.op("Sign", value), whole)


def largest_place(write: Writer, data: ir.Value) -> ir.Value:
    """ArgMax, or ArgMin: of the places that are not below the largest value, the first or last."""
    shape = write.shape()
    axis = write.axis(0)
    if write.place.op_type == "ArgMin":
        data = write.op("Neg", data)
    axes, size = write.integers([axis]), shape[axis]
    largest = write.op("ReduceMax", data, axes, keepdims=1)
    behind = write.op("Mul", is_above(write, largest, data), write.floats(size))
    places = np.arange(size).reshape([-1] + [1] * (len(shape) - axis - 1))
    if write.attribute("select_last_index", 0):
        place = write.op("ReduceMax", write.op("Sub", write.floats(places), behind), axes)
    else:
        late = write.op("ReduceMax", write.op("Sub", write.floats(-places), behind), axes)
        place = write.op("Neg", late)
    return write.reshape(place, write.output_shape())


def top_k(write: Writer, data: ir.Value) -> list[ir.Value]:
    """The k largest (or smallest) in order, and their places.

    Of few elements, an element's rank is how many precede it: those beyond it, and the equal ones
    before it. For few out of many, the largest one is found and put below all others, k times.
    """
    shape, k = write.shape(), write.constant(1)
    axis = write.axis(-1)
    size = shape[axis]
    if k is None or not write.attribute("sorted", 1):
        raise write.refusal("its number must be a constant, and its result sorted, to be proved")
    wanted = int(k.reshape(-1)[0])
    if 0 < wanted * ROUND_PAIRS < size <= MAX_SEARCHED:
        return _largest_in_turn(write, data, axis, wanted)
    if size > MAX_RANKED:
        raise write.refusal(
            f"more than {MAX_RANKED} elements to order cannot be proved, but for a "
            f"{ROUND_PAIRS}th or less of up to {MAX_SEARCHED}"
        )
    rows = [math.prod(shape[:axis]), math.prod(shape[axis + 1 :])]
    column = write.reshape(data, [rows[0], size, 1, rows[1]])
    row = write.reshape(data, [rows[0], 1, size, rows[1]])
    pair = (row, column) if write.attribute("largest", 1) else (column, row)
    sign = write.op("Sign", write.op("Sub", *pair))
    before = np.tri(size, k=-1).reshape(size, size, 1)
    tied = write.op("Mul", negated(write, write.op("Abs", sign)), write.floats(before))
    precede = write.op("Add", write.op("Relu", sign), tied)
    rank = write.op("ReduceSum", precede, write.integers([2]), keepdims=1)
    slots = np.arange(wanted).reshape(-1, 1)
    takes = negated(write, is_other(write, rank, write.floats(slots)))
    found = []
    for source in (column, write.floats(np.arange(size).reshape(size, 1, 1))):
        taken = write.op("ReduceSum", write.op("Mul", takes, source), write.integers([1]))
        found.append(write.reshape(taken, write.output_shape()))
    return found


def _largest_in_turn(write: Writer, data: ir.Value, axis: int, wanted: int) -> list[ir.Value]:
    """TopK by rounds."""
    shape, sign = write.shape(), write.attribute("largest", 1)
    size = shape[axis]
    table = [math.prod(shape[:axis]), size, math.prod(shape[axis + 1 :])]
    axes, places = write.integers([1]), np.arange(size).reshape(size, 1)
    left = write.reshape(data if sign else write.op("Neg", data), table)
    turned = write.op("ReduceMax", write.op("Neg", left), axes, keepdims=1)
    largest = write.op("ReduceMax", left, axes, keepdims=1)
    # More than any two of them are apart.
    apart = write.op("Add", write.op("Add", largest, turned), write.floats(1.0))
    values, found = [], []
    for turn in range(wanted):
        if turn:
            largest = write.op("ReduceMax", left, axes, keepdims=1)
        behind = write.op("Mul", is_above(write, largest, left), write.floats(size))
        late = write.op("Sub", write.floats(-places), behind)
        place = write.op("Neg", write.op("ReduceMax", late, axes, keepdims=1))
        values.append(largest if sign else write.op("Neg", largest))
        found.append(place)
        if turn + 1 < wanted:
            taken = negated(write, is_other(write, place, write.floats(places)))
            left = write.op("Sub", left, write.op("Mul", taken, apart))
    return [
        write.reshape(each[0] if wanted == 1 else write.op("Concat", *each, axis=1), made)
        for each, made in ((values, write.output_shape()), (found, write.output_shape()))
    ]


def divided(write: Writer, whole: ir.Value, divisor: int) -> tuple[ir.Value, ir.Value]:
    """Quotient and remainder of whole numbers by a whole constant, exact.

    The product with 1 / divisor may be rounded to either side of a whole number, so the quotient
    may be off by one: the remainder tells.
    """
    size = write.floats(divisor)
    near = write.op("Floor", write.op("Mul", whole, write.floats(1.0 / divisor)))
    rest = write.op("Sub", whole, write.op("Mul", near, size))
    low = is_above(write, write.floats(0.0), rest)
    high = is_above(write, rest, write.floats(divisor - 1))
    moved = write.op("Sub", high, low)
    quotient = write.op("Add", near, moved)
    return quotient, write.op("Sub", rest, write.op("Mul", moved, size))


def hot(write: Writer, places: ir.Value, size: int, after: int) -> ir.Value:
    """1 at each place along a new axis, else 0.

    Args:
        write: At the node.
        places: Whole numbers, with an axis of 1 element for the new one.
        size: The new axis's.
        after: How many axes follow the new one.
    """
    numbers = np.arange(size).reshape([-1] + [1] * after)
    return negated(write, is_other(write, places, write.floats(numbers)))


def from_start(write: Writer, places: ir.Value, size: int, *, natural: bool) -> ir.Value:
    """Places below 0, which count from the end, counted from the start."""
    if natural:
        return places
    below = is_above(write, write.floats(0.0), places)
    return write.op("Add", places, write.op("Mul", below, write.floats(size)))


def one_hot(write: Writer, places: ir.Value, *, natural: bool) -> ir.Value:
    """OneHot of a known depth."""
    shape, depth, values = write.shape(), write.constant(1), write.constant(2)
    if depth is None or values is None:
        raise write.refusal("its depth and its values must be constants to be proved")
    axis = int(write.attribute("axis", -1)) % (len(shape) + 1)
    size = int(depth.reshape(-1)[0])
    places = write.reshape(places, [*shape[:axis], 1, *shape[axis:]])
    places = from_start(write, places, size, natural=natural)
    found = hot(write, places, size, len(shape) - axis)
    off, on = (float(value) for value in values)
    if (off, on) == (0.0, 1.0):
        return found
    return write.op("Add", write.op("Mul", found, write.floats(on - off)), write.floats(off))


def gather(write: Writer, data: ir.Value, places: ir.Value, *, natural: bool) -> ir.Value:
    """Gather by computed places: a product of one row of 0 and 1 a place with the data."""
    shape, given = write.shape(), write.shape(1)
    axis = write.axis(0)
    count, size = math.prod(given), shape[axis]
    rest = [*shape[:axis], *shape[axis + 1 :]]
    order = [axis, *(index for index in range(len(shape)) if index != axis)]
    table = data if axis == 0 else write.op("Transpose", data, perm=order)
    table = write.reshape(table, [size, math.prod(rest)])
    places = from_start(write, write.reshape(places, [count, 1]), size, natural=natural)
    taken = rows_at(write, table, places, size, math.prod(rest), count)
    taken = write.reshape(taken, [*given, *rest])
    if axis == 0:
        return taken
    ends = len(given) + axis
    back = [*range(len(given), ends), *range(len(given)), *range(ends, len(given) + len(rest))]
    return write.op("Transpose", taken, perm=back)


def rows_at(
    write: Writer, table: ir.Value, places: ir.Value, size: int, wide: int, count: int
) -> ir.Value:
    """Rows of a table [size, wide] at places [count, 1], counted from the start."""
    if size <= FEW_PLACES:
        return write.op("MatMul", hot(write, places, size, 0), table)
    rows, width = _split(size)
    table = _filled(write, table, [rows * width - size, wide], 0)
    table = write.reshape(table, [rows, width * wide])
    row, column = divided(write, places, width)
    part = write.op("MatMul", hot(write, row, rows, 0), table)
    part = write.reshape(part, [count, width, wide])
    one = write.reshape(hot(write, column, width, 0), [count, 1, width])
    return write.op("MatMul", one, part)


def gather_elements(write: Writer, data: ir.Value, places: ir.Value, *, natural: bool) -> ir.Value:
    """GatherElements by computed places: a sum over the axis of data times 0 or 1."""
    shape, given = write.shape(), write.shape(1)
    axis = write.axis(0)
    size = shape[axis]
    others = [index for index in range(len(shape)) if index != axis and given[index] < shape[index]]
    if others:
        ends = write.integers([given[index] for index in others])
        starts = write.integers([0] * len(others))
        data = write.op("Slice", data, starts, ends, write.integers(others))
    before, after = math.prod(given[:axis]), math.prod(given[axis + 1 :])
    places = write.reshape(places, [before, given[axis], 1, after])
    places = from_start(write, places, size, natural=natural)

    def summed(takes: ir.Value, source: ir.Value) -> ir.Value:
        product = write.op("Mul", takes, source)
        return write.op("ReduceSum", product, write.integers([2]), keepdims=0)

    if size <= FEW_PLACES:
        source = write.reshape(data, [before, 1, size, after])
        taken = summed(hot(write, places, size, 1), source)
    else:
        rows, width = _split(size)
        source = write.reshape(data, [before, size, after])
        source = _filled(write, source, [before, rows * width - size, after], 1)
        source = write.reshape(source, [before, 1, rows, width, after])
        row, column = divided(write, places, width)
        row = write.reshape(hot(write, row, rows, 1), [before, given[axis], rows, 1, after])
        taken = summed(hot(write, column, width, 1), summed(row, source))
    return write.reshape(taken, given)


def _split(size: int) -> tuple[int, int]:
    """Rows and width of a table of places, both about the root of their number."""
    width = 1 << max(1, round(math.log2(size) / 2))
    return -(-size // width), width


def _filled(write: Writer, data: ir.Value, shape: Sequence[int], axis: int) -> ir.Value:
    """Data with as many zeros behind it."""
    if not shape[axis]:
        return data
    return write.op("Concat", data, write.floats(np.zeros(shape)), axis=axis)
