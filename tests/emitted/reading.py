"""What every reader of an emitted circuit shares: constants, tables, vectors of powers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.emitted.whole import Array

RANGE_TABLE: Final = "HardSwish"
"""The identity on whole numbers from 0 on."""

TABLES: Final[Mapping[str, Callable[[int, int], int]]] = {
    "Erf": lambda value, one: math.floor(one * math.erf(value / one) + 0.5),
    "Exp": lambda value, one: math.floor(one * float(np.float32(np.e)) ** (value / one) + 0.5),
    "Tanh": lambda value, one: math.floor(one * math.tanh(value / one) + 0.5),
}
"""What ezkl's table of a function holds for a digit, at the scale of `one`. They do not fall."""


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def constant(tensor: onnx.TensorProto) -> Array | float:
    """Whole numbers, or the one power of two below 1 that only changes a number's nominal scale."""
    array = numpy_helper.to_array(tensor)
    if array.dtype.kind == "i":
        return np.asarray(array, dtype=np.int64)
    if array.size == 1 and 0 < float(array.ravel()[0]) < 1:
        value = float(array.ravel()[0])
        if math.frexp(value)[0] != 0.5:
            raise ValueError(f"{tensor.name} is no power of two")
        return value
    numbers = [int(v) for v in array.astype(np.float64).ravel()]
    if not np.array_equal(np.array(numbers, dtype=np.float64), array.ravel().astype(np.float64)):
        raise ValueError(f"{tensor.name} is not whole")
    found = np.array(numbers, dtype=object).reshape(array.shape)
    small = all(abs(v) < 1 << 62 for v in numbers)
    return found.astype(np.int64) if small else found


def stride_of(vector: Array, least: int) -> int:
    """b where a vector is (1, S, S^2, ...) with S = 2^b above `least`; else 0."""
    numbers = [int(v) for v in vector.ravel()]
    if len(numbers) < 2 or numbers[0] != 1 or numbers[1] <= least:
        return 0
    bits = numbers[1].bit_length() - 1
    return bits if numbers == [1 << (bits * i) for i in range(len(numbers))] else 0


def letters(equation: str) -> tuple[str, str, str]:
    """The indices of an einsum of two operands, and those of its result."""
    terms, result = equation.split("->")
    left, right = terms.split(",")
    return left, right, result
