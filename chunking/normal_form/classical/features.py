"""What prepares features: scaling, norms, replacements, categories, columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from zkml_ray.chunking.normal_form.classical.scores import floats, rows, text
from zkml_ray.chunking.normal_form.definitions import decisions
from zkml_ray.chunking.normal_form.writer import Writer

_MAX_KEYS: Final = 4096


def scaler(write: Writer) -> ir.Value:
    """(x - offset) scale."""
    made = floats(write, write.input(0))
    width = write.shape()[-1]
    for name, op_type, idle in (("offset", "Sub", 0.0), ("scale", "Mul", 1.0)):
        values = np.array(write.attribute(name, ()), dtype=np.float64)
        if values.size not in (0, 1, width):
            raise write.refusal(f"{name} has {values.size} numbers; 1 or {width} were expected")
        if values.size and (values != idle).any():
            made = write.op(op_type, made, write.floats(values))
    return made if made is not write.input(0) else write.op("Identity", made)


def normaliser(write: Writer) -> ir.Value:
    """Each row over its largest element, the sum of magnitudes, or its length."""
    kind, shape = text(write, "norm", "MAX"), write.shape()
    if len(shape) not in (1, 2):
        raise write.refusal(f"its input has {len(shape)} dimensions; 1 or 2 were expected")
    data, (_, width) = rows(write)
    if kind == "L1" and _sums_to_one(data):
        return write.op("Identity", data)
    ones = write.floats(np.ones((width, 1)))
    if kind == "MAX":
        size = write.op("ReduceMax", data, write.integers([1]), keepdims=1)
    elif kind == "L1":
        size = write.op("MatMul", write.op("Abs", data), ones)
    elif kind == "L2":
        size = write.op("Sqrt", write.op("MatMul", write.op("Mul", data, data), ones))
    else:
        raise write.refusal(f"there is no norm {kind}")
    # A row whose norm is 0 stays as it is.
    none = decisions.negated(write, decisions.is_true(write, size))
    made = write.op("Div", data, write.op("Add", size, none))
    return made if len(shape) == 2 else write.reshape(made, shape)


def _sums_to_one(data: ir.Value) -> bool:
    """Whether rows are a Softmax's: their sum is 1, and they are not negative."""
    node = data.producer()
    if node is None or node.op_type != "Softmax" or data.shape is None:
        return False
    axis = node.attributes.get("axis")
    return axis is not None and axis.as_int() in (-1, len(data.shape) - 1)


def imputer(write: Writer) -> ir.Value:
    """Other numbers where the input is a given one; a circuit's inputs are finite."""
    data, width = floats(write, write.input(0)), write.shape()[-1]
    values = np.array(write.attribute("imputed_value_floats", ()), dtype=np.float64)
    replaced = float(write.attribute("replaced_value_float", 0.0))
    if not values.size:
        values = np.array(write.attribute("imputed_value_int64s", ()), dtype=np.float64)
        replaced = float(write.attribute("replaced_value_int64", 0))
    if values.size not in (1, width):
        raise write.refusal(f"it has {values.size} values; 1 or {width} were expected")
    if not math.isfinite(replaced):
        return write.op("Identity", data)
    kept = decisions.is_other(write, data, write.floats(replaced))
    made = decisions.chosen(write, kept, data, write.floats(values))
    return made if data is write.input(0) else write.op("Cast", made, to=int(ir.DataType.INT64))


def binarizer(write: Writer) -> ir.Value:
    """1 where x > threshold, else 0."""
    bound = write.floats(float(write.attribute("threshold", 0.0)))
    return decisions.is_above(write, floats(write, write.input(0)), bound)


def feature_vectorizer(write: Writer) -> ir.Value:
    """Columns beside one another."""
    sides = [rows(write, index)[0] for index in range(len(write.place.inputs))]
    return sides[0] if len(sides) == 1 else write.op("Concat", *sides, axis=1)


def one_hot(write: Writer) -> ir.Value:
    """1 at the place of each category, along a new last axis."""
    categories = [int(value) for value in write.attribute("cats_int64s", ())]
    if not categories or not int(write.attribute("zeros", 1)):
        raise write.refusal("only whole numbers, with zeros for unknown ones, can be proved")
    shape, value = write.shape(), write.input(0)
    if value is None or value.dtype == ir.DataType.STRING:
        raise write.refusal("categories that are text cannot be proved")
    if value.dtype == ir.DataType.FLOAT:
        value = decisions.truncated(write, value)
    else:
        value = write.op("Cast", value, to=int(ir.DataType.FLOAT))
    column = write.reshape(value, [*shape, 1])
    other = decisions.is_other(write, column, write.floats(categories))
    return decisions.negated(write, other)


def label_encoder(write: Writer) -> ir.Value:
    """Numbers for numbers, by a table."""
    keys = _either(write, "keys")
    values = _either(write, "values")
    if len(keys) != len(values) or not keys or len(keys) > _MAX_KEYS:
        raise write.refusal(f"only tables of 1 to {_MAX_KEYS} numbers can be proved")
    whole = bool(len(write.attribute("values_int64s", ())))
    default = write.attribute("default_int64" if whole else "default_float", -1 if whole else -0.0)
    tensor = write.attribute("default_tensor", None)
    if tensor is not None:
        default = tensor.numpy().reshape(-1)[0]
    shape = write.shape()
    column = write.reshape(floats(write, write.input(0)), [*shape, 1])
    same = decisions.negated(write, decisions.is_other(write, column, write.floats(keys)))
    moved = np.array(values, dtype=np.float64).reshape(-1, 1) - float(default)
    found = write.op("Add", write.op("MatMul", same, write.floats(moved)), write.floats(default))
    found = write.reshape(found, shape)
    return write.op("Cast", found, to=int(ir.DataType.INT64)) if whole else found


def _either(write: Writer, name: str) -> Sequence[Any]:
    """Keys or values that are numbers."""
    if len(write.attribute(f"{name}_strings", ())):
        raise write.refusal(f"its {name} are text, which cannot be proved")
    tensor = write.attribute(f"{name}_tensor", None)
    if tensor is not None:
        array = tensor.numpy()
        if array.dtype.kind not in "fiu":
            raise write.refusal(f"its {name} are text, which cannot be proved")
        return list(array.reshape(-1))
    for kind in ("floats", "int64s"):
        found = write.attribute(f"{name}_{kind}", ())
        if len(found):
            return list(found)
    return ()


def array_feature_extractor(write: Writer) -> ir.Value:
    """Columns by their numbers: along the last axis."""
    shape, count = write.shape(), int(np.prod(write.shape(1)))
    places = write.reshape(write.input(1), [count])
    taken = write.op("Gather", write.input(0), places, axis=len(shape) - 1)
    return write.reshape(taken, [*shape[:-1], count] if len(shape) > 1 else [1, count])
