"""Reading a user's ONNX file: every problem becomes one clear line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx

from zkml_ray.chunking.dimensions import free_inputs
from zkml_ray.chunking.normal_form.definitions.table import WRITTEN
from zkml_ray.chunking.operators import FOLDABLE, SUPPORTED
from zkml_ray.errors import (
    ConfigError,
    ModelFormatError,
    UnsupportedOperatorError,
)


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


def _uses_other_files(proto: onnx.ModelProto) -> bool:
    return any(
        tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in proto.graph.initializer
    )


def _check_operators(proto: onnx.ModelProto, file_name: str) -> None:
    for position, node in enumerate(proto.graph.node):
        known = node.domain in ("", "ai.onnx") and (
            node.op_type in SUPPORTED | FOLDABLE | WRITTEN | {"Constant", "Dropout"}
        )
        if not known:
            shown = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            raise UnsupportedOperatorError(
                f"{file_name}: operator {shown} (node {node.name or f'number {position}'!r}) "
                f"cannot be proved; supported operators: {', '.join(sorted(SUPPORTED))}"
            )
