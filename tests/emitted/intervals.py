"""Intervals of whole numbers, and of packed ones: sums of e_i S^i whose e_i have intervals.

Packed numbers are never multiplied with one another. Arrays have the shape [p, *shape]: slot i
holds the intervals of e_i.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.emitted import whole
from tests.emitted.whole import Array


class NotUnderstoodError(Exception):
    """An emitted node that no rule covers: nothing can be said about the circuit."""


@dataclass(frozen=True, slots=True)
class Intervals:
    """Closed intervals.

    Attributes:
        low: Shape [p, *shape].
        high: Likewise.
        bits: log2 of S; 0 where p is 1.
    """

    low: Array
    high: Array
    bits: int = 0

    @classmethod
    def exactly(cls, values: Array) -> Intervals:
        """Numbers that are known."""
        values = whole.fitted(values)[None]
        return cls(values, values)

    @property
    def slots(self) -> int:
        """p."""
        return int(self.low.shape[0])

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return tuple(self.low.shape[1:])

    @property
    def exact(self) -> bool:
        """Whether every number is known."""
        return self.low is self.high or bool((self.low == self.high).all())

    def mapped(self, change: object) -> Intervals:
        """The elements moved, per slot: `change` is applied to low and high."""
        assert callable(change)
        ends = [self.low] if self.low is self.high else [self.low, self.high]
        # An index with an ellipsis gives an array even of one Python integer.
        moved = [np.stack([change(end[i, ...]) for i in range(self.slots)]) for end in ends]
        return Intervals(moved[0], moved[-1], self.bits)

    def widened(self, slots: int, bits: int) -> Intervals:
        """With more slots, which are zero."""
        if self.slots > 1 and self.bits != bits:
            raise NotUnderstoodError(
                f"numbers packed {self.bits} bits apart beside such {bits} bits apart"
            )
        missing = slots - self.slots
        if not missing:
            return self
        zeros = np.zeros((missing, *self.shape), dtype=np.int64)
        low, high = (np.concatenate([a, zeros]) for a in (self.low, self.high))
        return Intervals(low, high, bits)

    def reach(self) -> Array:
        """Per slot the largest magnitude, [p, *shape]."""
        return np.maximum(abs(self.low), abs(self.high))


def alike(left: Intervals, right: Intervals) -> tuple[Intervals, Intervals]:
    """Two with as many slots."""
    slots = max(left.slots, right.slots)
    bits = max(left.bits, right.bits)
    return left.widened(slots, bits), right.widened(slots, bits)


def added(left: Intervals, right: Intervals) -> Intervals:
    """left + right."""
    left, right = alike(_spread(left, right), _spread(right, left))
    low, high = whole.plus(left.low, right.low), whole.plus(left.high, right.high)
    return Intervals(low, high, left.bits)


def subtracted(left: Intervals, right: Intervals) -> Intervals:
    """left - right."""
    left, right = alike(_spread(left, right), _spread(right, left))
    low, high = whole.minus(left.low, right.high), whole.minus(left.high, right.low)
    return Intervals(low, high, left.bits)


def multiplied(left: Intervals, right: Intervals) -> Intervals:
    """left times right; one of them at most is packed."""
    bits = _one_packed(left, right)
    left, right = _spread(left, right), _spread(right, left)
    corners = [whole.times(a, b) for a in _ends(left) for b in _ends(right)]
    low, high = corners[0], corners[0]
    for corner in corners[1:]:
        low, high = np.minimum(low, corner), np.maximum(high, corner)
    return Intervals(low, high, bits)


def squared(one: Intervals) -> Intervals:
    """The square of every number: never negative."""
    if one.slots > 1:
        raise NotUnderstoodError("the square of a packed number")
    low, high = whole.times(one.low, one.low), whole.times(one.high, one.high)
    least = np.where((one.low <= 0) & (one.high >= 0), 0, np.minimum(low, high))
    return Intervals(whole.fitted(least), np.maximum(low, high))


def contracted(left: Intervals, right: Intervals) -> Intervals:
    """Products of matrices [B, M, K] and [B, K, N]; one of them at most is packed."""
    bits = _one_packed(left, right)
    rows = []
    for slot in range(max(left.slots, right.slots)):
        a = tuple(e[slot if left.slots > 1 else 0] for e in (left.low, left.high))
        b = tuple(e[slot if right.slots > 1 else 0] for e in (right.low, right.high))
        rows.append(_contracted(a, b))
    low, high = (_stacked([row[end] for row in rows]) for end in (0, 1))
    return Intervals(low, high, bits)


def _contracted(left: tuple[Array, Array], right: tuple[Array, Array]) -> tuple[Array, Array]:
    if right[0] is right[1] or (right[0] == right[1]).all():
        positive, negative = np.maximum(right[0], 0), np.minimum(right[0], 0)
        ends = []
        for near, far in (left, left[::-1]):
            found = whole.matmul(near, positive)
            if negative.any():
                found = whole.plus(found, whole.matmul(far, negative))
            ends.append(found)
        return ends[0], ends[1]
    if left[0] is left[1] or (left[0] == left[1]).all():
        turned = _contracted(_turned(right), _turned(left))
        return _turned(turned)
    if (left[0] >= 0).all() and (right[0] >= 0).all():
        return whole.matmul(left[0], right[0]), whole.matmul(left[1], right[1])
    # Rows one by one: [B, K, N] of corners.
    lows, highs = [], []
    for m in range(left[0].shape[1]):
        corners = [whole.times(a[:, m, :, None], b) for a in left for b in right]
        lows.append(whole.total(np.minimum.reduce(corners), 1))
        highs.append(whole.total(np.maximum.reduce(corners), 1))
    return _stacked(lows, 1), _stacked(highs, 1)


def _turned(ends: tuple[Array, Array]) -> tuple[Array, Array]:
    return ends[0].transpose(0, 2, 1), ends[1].transpose(0, 2, 1)


def _stacked(parts: list[Array], axis: int = 0) -> Array:
    return np.stack(parts, axis=axis)


def _ends(one: Intervals) -> tuple[Array, ...]:
    return (one.low,) if one.exact else (one.low, one.high)


def _one_packed(left: Intervals, right: Intervals) -> int:
    if left.slots > 1 and right.slots > 1:
        raise NotUnderstoodError("a product of two packed numbers")
    return max(left.bits, right.bits)


def _spread(one: Intervals, other: Intervals) -> Intervals:
    """With axes of length one in front, so that shapes broadcast behind the slots."""
    missing = len(other.shape) - len(one.shape)
    if missing <= 0:
        return one
    shape = (one.slots, *[1] * missing, *one.shape)
    low = one.low.reshape(shape)
    high = low if one.low is one.high else one.high.reshape(shape)
    return Intervals(low, high, one.bits)
