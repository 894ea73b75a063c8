"""Every place of an ONNX file where numbers stand, with a name that its author knows.

A model's numbers stand in more places than its initializers: in attributes of nodes, in the graphs
that nodes carry, in functions, in sparse tensors. They are found by walking the message itself,
field by field, so that none is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import onnx


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorPlace:
    """A tensor of a file.

    Attributes:
        where: What to call it in a message.
        tensor: The tensor; part of the file, so that a change is one of the file.
    """

    where: str
    tensor: onnx.TensorProto


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlace:
    """A node of a file.

    Attributes:
        where: What to call it in a message.
        node: The node.
    """

    where: str
    node: onnx.NodeProto


def tensors(proto: onnx.ModelProto) -> Iterator[TensorPlace]:
    """Every tensor of a file, in the order of its fields."""
    for where, message in _walk(proto, "", ""):
        if isinstance(message, onnx.TensorProto):
            yield TensorPlace(where=where, tensor=message)


def nodes(proto: onnx.ModelProto) -> Iterator[NodePlace]:
    """Every node of a file, those of functions and of other nodes' graphs too."""
    for where, message in _walk(proto, "", ""):
        if isinstance(message, onnx.NodeProto):
            yield NodePlace(where=where, node=message)


def node_label(node: onnx.NodeProto) -> str:
    """What to call a node: by its name, or by its results where it has none."""
    if node.name:
        return f"node {node.name!r} ({node.op_type})"
    made = ", ".join(name for name in node.output if name) or "nothing"
    return f"the node ({node.op_type}) that makes {made}"


def _walk(message: Any, where: str, inside: str) -> Iterator[tuple[str, Any]]:
    """A message and all in it; a tensor's own fields are left out.

    Args:
        message: The message.
        where: What to call it.
        inside: What it stands in, to be put behind the names of what it holds.
    """
    yield where, message
    if isinstance(message, onnx.TensorProto):
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for part in (value,) if hasattr(value, "ListFields") else value:
            name, around = _named(message, field.name, part, where, inside)
            yield from _walk(part, name, around)


def _named(parent: Any, field: str, part: Any, where: str, inside: str) -> tuple[str, str]:
    """What to call a part of a message, and what its own parts stand in."""
    if isinstance(part, onnx.NodeProto):
        name = f"{node_label(part)}{inside}"
        return name, f" of {name}"
    if isinstance(part, onnx.FunctionProto):
        name = f"function {part.domain}.{part.name}"
        return name, f" of {name}"
    if isinstance(part, onnx.AttributeProto):
        return f"attribute {part.name}{inside}", inside
    if isinstance(part, onnx.GraphProto):
        if isinstance(parent, onnx.AttributeProto):
            return f"{parent.name}{inside}", f" in {parent.name}{inside}"
        return where, inside if isinstance(parent, onnx.ModelProto) else f" in {field}{inside}"
    if isinstance(part, onnx.SparseTensorProto):
        if isinstance(parent, onnx.GraphProto):
            return f"sparse initializer {part.values.name!r}{inside}", inside
        return where, inside
    if isinstance(part, onnx.TensorProto):
        if isinstance(parent, onnx.SparseTensorProto):
            return f"{field} of {where}", inside
        if isinstance(parent, onnx.GraphProto):
            return f"initializer {part.name!r}{inside}", inside
    return where, inside
