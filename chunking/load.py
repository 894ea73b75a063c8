"""Reading a user's ONNX file: every problem becomes one clear line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from zkml_ray.chunking.operators import SUPPORTED
from zkml_ray.errors import (
    ConfigError,
    DynamicShapeError,
    ModelFormatError,
    UnsupportedOperatorError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """An ONNX model as the user gave it.

    Attributes:
        path: The file.
        data: Its bytes.
        proto: The parsed model, external data read in.
    """

    path: Path
    data: bytes
    proto: onnx.ModelProto


def load_model(path: Path) -> LoadedModel:
    """Read and check an ONNX file.

    Args:
        path: The file.

    Raises:
        ConfigError: There is no such file.
        ModelFormatError: It is not a valid ONNX model, or has no input or output.
        UnsupportedOperatorError: It uses an operator that cannot be proved.
    """
    if not path.is_file():
        raise ConfigError(f"no such model file: {path}")
    data = path.read_bytes()
    try:
        proto = onnx.load_model_from_string(data)
        onnx.load_external_data_for_model(proto, str(path.parent))
        onnx.checker.check_model(proto)
    except Exception as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelFormatError(f"{path.name} is not a valid ONNX model: {line}") from None
    if not proto.graph.node:
        raise ModelFormatError(f"{path.name} is not an ONNX model, or its graph is empty")
    _check_operators(proto, path.name)
    if not proto.graph.output or not _free_inputs(proto):
        raise ModelFormatError(f"{path.name} needs at least one input and one output tensor")
    return LoadedModel(path=path, data=data, proto=proto)


def fix_dimensions(proto: onnx.ModelProto, dimensions: Mapping[str, int]) -> onnx.ModelProto:
    """Give every symbolic input dimension its value.

    Args:
        proto: The model (not changed).
        dimensions: Value of each symbolic dimension, by name.

    Returns:
        A copy whose input shapes are all numbers.

    Raises:
        DynamicShapeError: A dimension has neither a number nor a value in `dimensions`.
        ConfigError: A value is below 1, or is for a dimension that no input has.
    """
    symbols = {
        dim.dim_param
        for value_info in _free_inputs(proto)
        for dim in value_info.type.tensor_type.shape.dim
    } - {""}
    for name, value in dimensions.items():
        if value < 1:
            raise ConfigError(f"dimension {name} must be at least 1, not {value}")
        if name not in symbols:
            shown = ", ".join(sorted(symbols)) or "none"
            raise ConfigError(f"no input has a dimension {name!r}; symbolic dimensions: {shown}")
    fixed = onnx.ModelProto()
    fixed.CopyFrom(proto)
    for value_info in _free_inputs(fixed):
        tensor = value_info.type.tensor_type
        if not tensor.HasField("shape"):
            raise DynamicShapeError(f"input {value_info.name} has no shape; export it with one")
        for axis, dim in enumerate(tensor.shape.dim):
            if dim.HasField("dim_value") and dim.dim_value > 0:
                continue
            name = dim.dim_param
            if name not in dimensions:
                how = f"give it with --dim {name}=1, or " if name else ""
                raise DynamicShapeError(
                    f"input {value_info.name} has a dynamic dimension {name or 'without a name'} "
                    f"(axis {axis}); a circuit has one fixed shape: {how}export the model with "
                    "fixed shapes"
                )
            dim.dim_value = dimensions[name]
    return fixed


def _free_inputs(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    initialised = {tensor.name for tensor in proto.graph.initializer}
    return [value for value in proto.graph.input if value.name not in initialised]


def _check_operators(proto: onnx.ModelProto, file_name: str) -> None:
    for position, node in enumerate(proto.graph.node):
        known = node.domain in ("", "ai.onnx") and (
            node.op_type in SUPPORTED or node.op_type in {"Constant", "Dropout"}
        )
        if not known:
            shown = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            raise UnsupportedOperatorError(
                f"{file_name}: operator {shown} (node {node.name or f'number {position}'!r}) "
                f"cannot be proved; supported operators: {', '.join(sorted(SUPPORTED))}"
            )
