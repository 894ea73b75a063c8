"""Arrays of whole numbers of any size: 64 bits while they fit, Python's integers beyond."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
"""Elements are int64, or Python integers."""

_SAFE_BITS: Final = 62
_FLOAT_BITS: Final = 53


def largest(array: Array) -> int:
    """The largest magnitude."""
    if not array.size:
        return 0
    return max(abs(int(array.max())), abs(int(array.min())))


def fitted(array: Array) -> Array:
    """The same numbers in 64 bits, if they fit."""
    if array.dtype != object or largest(array).bit_length() > _SAFE_BITS:
        return array
    return array.astype(np.int64)


def roomy(*arrays: Array, bound: int) -> tuple[Array, ...]:
    """Arrays for an operation whose results stay within a bound."""
    if bound.bit_length() > _SAFE_BITS:
        return tuple(a.astype(object) for a in arrays)
    return arrays


def plus(left: Array, right: Array) -> Array:
    """Elementwise, broadcast."""
    left, right = roomy(left, right, bound=largest(left) + largest(right))
    return fitted(np.asarray(left + right))


def minus(left: Array, right: Array) -> Array:
    """Elementwise, broadcast."""
    left, right = roomy(left, right, bound=largest(left) + largest(right))
    return fitted(np.asarray(left - right))


def times(left: Array, right: Array) -> Array:
    """Elementwise, broadcast."""
    left, right = roomy(left, right, bound=largest(left) * largest(right))
    return fitted(np.asarray(left * right))


def matmul(left: Array, right: Array) -> Array:
    """A product of matrices [B, M, K] and [B, K, N]."""
    bound = largest(left) * largest(right) * left.shape[-1]
    if bound.bit_length() <= _FLOAT_BITS:
        exact = np.matmul(left.astype(np.float64), right.astype(np.float64))
        return np.asarray(exact).astype(np.int64)
    left, right = roomy(left, right, bound=bound)
    return fitted(np.asarray(np.matmul(left, right)))


def total(array: Array, axis: int, *, keepdims: bool = False) -> Array:
    """Sums over an axis."""
    (array,) = roomy(array, bound=largest(array) * max(array.shape[axis], 1))
    return fitted(np.asarray(array.sum(axis=axis, keepdims=keepdims)))
