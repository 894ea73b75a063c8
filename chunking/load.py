"""Reading a user's ONNX file: every problem becomes one clear line.

All that defines the model is read here, whatever part of the file it stands in: weights from other
files are put into it (`external`), sparse tensors written out, functions put in place of their
calls. What is not read is refused by name. The model's digest is that of the file's bytes, or,
where it has weights in other files, of the file with them in it: so it stands for every number.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx

from zkml_ray.chunking.dimensions import free_inputs
from zkml_ray.chunking.external import MAX_MODEL_BYTES, embed, is_external
from zkml_ray.chunking.finite import check_attributes, check_tensors
from zkml_ray.chunking.functions import inline_functions
from zkml_ray.chunking.places import nodes, tensors
from zkml_ray.chunking.sparse import write_out_sparse
from zkml_ray.errors import (
    ChunkingError,
    ConfigError,
    ModelFormatError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """An ONNX model as the user gave it.

    Attributes:
        name: The file's name.
        data: Its bytes; where weights lie in other files, those of one file with everything.
        proto: The parsed model: nothing in other files, no sparse tensor, no function.
        tokens_outside: Whether it is to be proved without the look-ups at its beginning
            (`chunking.lookups`): a plan's choice.
    """

    name: str
    data: bytes
    proto: onnx.ModelProto
    tokens_outside: bool = False


def load_model(path: Path) -> LoadedModel:
    """Read and check an ONNX file.

    Args:
        path: The file; weights in other files are looked for in its folder, links followed no
            further than `zkml_ray.chunking.external` says.

    Raises:
        ConfigError: There is no such file.
        ModelFormatError: It is not a valid ONNX model, or has no input or output.
        UnsupportedOperatorError: It uses an operator that cannot be proved.
    """
    if not path.is_file():
        raise ConfigError(f"no such model file: {path}")
    if path.stat().st_size > MAX_MODEL_BYTES:
        raise ModelFormatError(f"{path.name} has more than {MAX_MODEL_BYTES} bytes")
    return parse_model(path.read_bytes(), path.name, path)


def parse_model(data: bytes, name: str, path: Path | None = None) -> LoadedModel:
    """Check an ONNX model's bytes.

    Args:
        data: The file's bytes.
        name: Its name, for messages.
        path: The file, where weights may lie in other files beside it; None: there must be none.

    Raises:
        ModelFormatError: It is not a valid ONNX model, or has no input or output.
        UnsupportedOperatorError: It uses an operator that cannot be proved.
    """
    try:
        proto = onnx.load_model_from_string(data)
    except Exception as error:
        raise ModelFormatError(f"{name} is not a valid ONNX model: {_line(error)}") from None
    try:
        data = _complete(proto, data, path)
        check_tensors(tensors(proto))
        check_attributes(nodes(proto))
    except ChunkingError as error:
        raise type(error)(f"{name}: {error.message}") from None
    try:
        onnx.checker.check_model(proto)
    except Exception as error:
        raise ModelFormatError(f"{name} is not a valid ONNX model: {_line(error)}") from None
    if not proto.graph.node:
        raise ModelFormatError(f"{name} is not an ONNX model, or its graph is empty")
    try:
        write_out_sparse(proto)
        proto = inline_functions(proto)
    except ChunkingError as error:
        raise type(error)(f"{name}: {error.message}") from None
    if not proto.graph.output or not free_inputs(proto):
        raise ModelFormatError(f"{name} needs at least one input and one output tensor")
    return LoadedModel(name=name, data=data, proto=proto)


def _complete(proto: onnx.ModelProto, data: bytes, path: Path | None) -> bytes:
    """Put all that defines the model into its message; the bytes that its digest is of."""
    if proto.training_info:
        raise ModelFormatError(
            "it holds training_info, which is not proved; export the model for inference"
        )
    elsewhere = [place for place in tensors(proto) if is_external(place.tensor)]
    if not elsewhere:
        return data
    embed(elsewhere, path, MAX_MODEL_BYTES - len(data))
    with_all: bytes = proto.SerializeToString(deterministic=True)
    return with_all


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
