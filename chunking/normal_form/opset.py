"""One operator set for every model.

Version 18: the first in which all reductions take their axes as an input and Split states how many
parts it makes, the one that PyTorch's exporter writes, and, tried operator by operator, accepted by
ezkl 23.0.5 (tract) in every form that a converted model can have. 13 to 23 are accepted alike, so a
later one would gain nothing.
"""

from __future__ import annotations

from typing import Final

import onnx
from onnx import helper, version_converter

from zkml_ray.chunking.places import nodes
from zkml_ray.errors import ChunkingError

OPSET: Final = 18

NEWEST: Final = onnx.defs.onnx_opset_version()
"""The newest version that the installed onnx knows."""


_READ_ANYHOW: Final = frozenset({("AveragePool", "dilations")})
"""Later attributes that a pass writes with others, as it does the like of other operators."""


def opset_of(proto: onnx.ModelProto) -> int:
    """The version of a model's operators.

    Raises:
        ChunkingError: It says none.
    """
    found = sorted({int(e.version) for e in proto.opset_import if e.domain in ("", "ai.onnx")})
    if len(found) > 1:
        raise ChunkingError(
            f"the model names {len(found)} versions of ONNX's operators "
            f"({', '.join(map(str, found))}): which one is meant is not defined; export it again"
        )
    if found:
        return found[0]
    raise ChunkingError("the model does not say which opset it uses; export it again")


def with_opset(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A model that names the version of ONNX's operators once. Exact.

    Converters of classical models name it twice, or not at all where they use none of them: then
    it is `OPSET`.

    Args:
        proto: A model (not changed).

    Returns:
        The model, or the same one if it does so.
    """
    entries = [entry for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
    other = [entry for entry in proto.opset_import if entry.domain not in ("", "ai.onnx")]
    if len(entries) == 1:
        return proto
    if not entries and any(place.node.domain in ("", "ai.onnx") for place in nodes(proto)):
        return proto  # refused where it is asked for
    version = opset_of(proto) if entries else OPSET
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    del result.opset_import[:]
    result.opset_import.extend([helper.make_opsetid("", version), *other])
    return result


def convert_opset(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Convert a model's operators to `OPSET`. Exact.

    A later version is lowered by name: of the operators that can be proved, later ones than
    version 18 admit more types and have more attributes, but compute the same (tried against every
    schema of onnx 1.23, opset 28). What version 18 could not say is refused.

    Args:
        proto: A model (not changed).

    Returns:
        The converted model, or the same one if it has that version.

    Raises:
        ChunkingError: An operator has no form in that version.
    """
    version = opset_of(proto)
    if version == OPSET:
        return proto
    if version > NEWEST:
        raise ChunkingError(
            f"the model's operators are of opset {version}, and the newest one that is known is "
            f"{NEWEST}; export the model with opset {OPSET}"
        )
    if version > OPSET:
        return _lowered(proto, version)
    try:
        return version_converter.convert_version(proto, OPSET)
    except Exception as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ChunkingError(
            f"the model's operators (opset {version}) cannot be converted to opset {OPSET}: "
            f"{line}; export the model with opset {OPSET}"
        ) from None


def _lowered(proto: onnx.ModelProto, version: int) -> onnx.ModelProto:
    lowered = onnx.ModelProto()
    lowered.CopyFrom(proto)
    for node in lowered.graph.node:
        if node.domain in ("", "ai.onnx"):
            _lower(node, version)
    for entry in lowered.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = OPSET
    return lowered


def _lower(node: onnx.NodeProto, version: int) -> None:
    try:
        own = onnx.defs.get_schema(node.op_type, version, node.domain)
        common = onnx.defs.get_schema(node.op_type, OPSET, node.domain)
    except onnx.defs.SchemaError:
        raise ChunkingError(
            f"node {node.name}: operator {node.op_type} (opset {version}) is not known in opset "
            f"{OPSET}; export the model with opset {OPSET}"
        ) from None
    kept = []
    for attribute in node.attribute:
        if attribute.name in common.attributes or (node.op_type, attribute.name) in _READ_ANYHOW:
            kept.append(attribute)
            continue
        default = own.attributes[attribute.name].default_value
        if helper.get_attribute_value(attribute) != helper.get_attribute_value(default):
            raise ChunkingError(
                f"node {node.name}: {node.op_type} with {attribute.name} (opset {version}) cannot "
                f"be proved; export the model with opset {OPSET}"
            )
    del node.attribute[:]
    node.attribute.extend(kept)
