"""Reading a user's ONNX file: every problem becomes one clear line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from zkml_ray.chunking.operators import EXPANDED, FOLDABLE, SUPPORTED
from zkml_ray.errors import (
    ConfigError,
    DynamicShapeError,
    ModelFormatError,
    UnsupportedOperatorError,
)

MAX_DIMENSION = 1 << 31


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """An ONNX model as the user gave it.

    Attributes:
        name: The file's name.
        data: Its bytes; where weights lie in other files, those of one file with everything.
        proto: The parsed model, external data read in.
    """

    name: str
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
    return parse_model(path.read_bytes(), path.name, path.parent)


def parse_model(data: bytes, name: str, folder: Path | None = None) -> LoadedModel:
    """Check an ONNX model's bytes.

    Args:
        data: The file's bytes.
        name: Its name, for messages.
        folder: Where weights in other files are looked for; None: there must be none.

    Raises:
        ModelFormatError: It is not a valid ONNX model, or has no input or output.
        UnsupportedOperatorError: It uses an operator that cannot be proved.
    """
    try:
        proto = onnx.load_model_from_string(data)
        if folder is not None and _uses_other_files(proto):
            onnx.load_external_data_for_model(proto, str(folder))
            data = proto.SerializeToString(deterministic=True)
        onnx.checker.check_model(proto)
    except Exception as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelFormatError(f"{name} is not a valid ONNX model: {line}") from None
    if not proto.graph.node:
        raise ModelFormatError(f"{name} is not an ONNX model, or its graph is empty")
    _check_operators(proto, name)
    if not proto.graph.output or not free_inputs(proto):
        raise ModelFormatError(f"{name} needs at least one input and one output tensor")
    return LoadedModel(name=name, data=data, proto=proto)


def fix_dimensions(proto: onnx.ModelProto, dimensions: Mapping[str, int]) -> onnx.ModelProto:
    """Give every symbolic input dimension its value.

    Args:
        proto: The model (not changed).
        dimensions: Value of each symbolic dimension, by name.

    Returns:
        A copy whose input shapes are all numbers.

    Raises:
        DynamicShapeError: A dimension has neither a number nor a value in `dimensions`.
        ConfigError: A value is not in 1..MAX_DIMENSION, or is for a dimension that no input has.
    """
    symbols = symbolic_dimensions(proto)
    for name, value in dimensions.items():
        if not 1 <= value <= MAX_DIMENSION:
            raise ConfigError(f"dimension {name} must lie in 1..{MAX_DIMENSION}, not {value}")
        if name not in symbols:
            shown = ", ".join(sorted(symbols)) or "none"
            raise ConfigError(f"no input has a dimension {name!r}; symbolic dimensions: {shown}")
    fixed = onnx.ModelProto()
    fixed.CopyFrom(proto)
    for value_info in free_inputs(fixed):
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


def _uses_other_files(proto: onnx.ModelProto) -> bool:
    return any(
        tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in proto.graph.initializer
    )


def symbolic_dimensions(proto: onnx.ModelProto) -> set[str]:
    """Names of the dimensions that a model's inputs leave open."""
    return {
        dim.dim_param
        for value_info in free_inputs(proto)
        for dim in value_info.type.tensor_type.shape.dim
    } - {""}


def free_inputs(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """A model's inputs, without those that initializers are a default for."""
    initialised = {tensor.name for tensor in proto.graph.initializer}
    return [value for value in proto.graph.input if value.name not in initialised]


def _check_operators(proto: onnx.ModelProto, file_name: str) -> None:
    for position, node in enumerate(proto.graph.node):
        known = node.domain in ("", "ai.onnx") and (
            node.op_type in SUPPORTED | FOLDABLE | EXPANDED | {"Constant", "Dropout"}
        )
        if not known:
            shown = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            raise UnsupportedOperatorError(
                f"{file_name}: operator {shown} (node {node.name or f'number {position}'!r}) "
                f"cannot be proved; supported operators: {', '.join(sorted(SUPPORTED))}"
            )
