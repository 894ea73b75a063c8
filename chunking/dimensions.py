"""Dimensions that a model leaves open: every one gets a number before anything is planned.

A circuit has one fixed shape. An open dimension is addressed by its name, or, where it has none, by
its input and axis, `x:0`. The first axis of an input is a batch to nearly all exporters, so an open
one counts as 1 unless a value is given or its name says that it is a length; every other dimension
needs a value. What was taken so is told to whoever plans, and the plan records every value: a
verifier fills in nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import onnx

from zkml_ray.chunking.normal_form.pruned import needed_names
from zkml_ray.errors import ConfigError, DynamicShapeError

MAX_DIMENSION: Final = 1 << 31

_LENGTHS: Final = re.compile(r"seq|time|step|len|token|frame|height|width|rows?$", re.IGNORECASE)
"""Names of a first axis that is no batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """Values of all open dimensions that have one.

    Attributes:
        values: Per name or `INPUT:AXIS`, its value: those that were given, and batches of 1.
        notices: What was taken that nobody gave, a sentence each.
    """

    values: dict[str, int]
    notices: tuple[str, ...]


def complete_dimensions(proto: onnx.ModelProto, given: Mapping[str, int]) -> Completed:
    """Add a batch of 1 for every first axis that is open and has no value.

    Args:
        proto: The model.
        given: Values by name or `INPUT:AXIS`.
    """
    values, notices = dict(given), []
    for value_info, axis, key in _open_axes(proto):
        if axis != 0 or key in values or _LENGTHS.search(_name(value_info, axis)):
            continue
        values[key] = 1
        notices.append(
            f"dimension {key} of input {value_info.name} is taken as 1; for another: "
            f"--dim {key}=NUMBER"
        )
    return Completed(values=values, notices=tuple(notices))


def fix_dimensions(proto: onnx.ModelProto, dimensions: Mapping[str, int]) -> onnx.ModelProto:
    """Give every open input dimension its value.

    Args:
        proto: The model (not changed).
        dimensions: Value of each, by name or `INPUT:AXIS`.

    Returns:
        A copy whose input shapes are all numbers.

    Raises:
        DynamicShapeError: A dimension has neither a number nor a value in `dimensions`; all such
            are named.
        ConfigError: A value is not in 1..MAX_DIMENSION, or is for a dimension that no input has.
    """
    for value_info in _read_inputs(proto):
        if not value_info.type.tensor_type.HasField("shape"):
            raise DynamicShapeError(f"input {value_info.name} has no shape; export it with one")
    axes = open_dimensions(proto)
    for name, value in dimensions.items():
        if not 1 <= value <= MAX_DIMENSION:
            raise ConfigError(f"dimension {name} must lie in 1..{MAX_DIMENSION}, not {value}")
        if name not in axes:
            shown = ", ".join(sorted(axes)) or "none"
            raise ConfigError(f"no input has an open dimension {name!r}; open dimensions: {shown}")
    missing = {
        key: f"{key} (axis {axis} of input {value_info.name})"
        for value_info, axis, key in _open_axes(proto)
        if key not in dimensions
    }
    if missing:
        how = " ".join(f"--dim {key}=NUMBER" for key in missing)
        raise DynamicShapeError(
            f"a circuit has one fixed shape, and these dimensions have no value: "
            f"{', '.join(missing.values())}; give them: {how}"
        )
    fixed = onnx.ModelProto()
    fixed.CopyFrom(proto)
    for value_info, axis, key in _open_axes(fixed):
        value_info.type.tensor_type.shape.dim[axis].dim_value = dimensions[key]
    return fixed


def open_dimensions(proto: onnx.ModelProto) -> set[str]:
    """What the dimensions that a model leaves open are addressed by."""
    return {key for _, _, key in _open_axes(proto)}


def free_inputs(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """A model's inputs, without those that an initializer gives a value."""
    initialised = {tensor.name for tensor in proto.graph.initializer}
    return [value for value in proto.graph.input if value.name not in initialised]


def _read_inputs(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Those that an output depends on: others need no shape."""
    needed = needed_names(proto.graph)
    return [value for value in free_inputs(proto) if value.name in needed]


def _open_axes(proto: onnx.ModelProto) -> Iterator[tuple[onnx.ValueInfoProto, int, str]]:
    """Every open axis: its input, its number, and what it is addressed by."""
    for value_info in _read_inputs(proto):
        for axis, dim in enumerate(value_info.type.tensor_type.shape.dim):
            if not (dim.HasField("dim_value") and dim.dim_value > 0):
                name = _name(value_info, axis)
                yield value_info, axis, name or f"{value_info.name}:{axis}"


def _name(value_info: onnx.ValueInfoProto, axis: int) -> str:
    name: str = value_info.type.tensor_type.shape.dim[axis].dim_param
    return name
