"""Passes that take away what computes nothing, and hold equal constants once."""

from __future__ import annotations

import hashlib
from typing import Final

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult, PostconditionError

from zkml_ray.errors import ChunkingError

SHARED_BYTES: Final = 1024
"""Smaller equal constants stay apart: ezkl raises a constant's precision to that of the tensor it
meets only while it has a single use, so sharing biases would quantise them more coarsely."""


class DropDropout(InPlacePass):
    """Pre: constants are initializers. Post: no Dropout. Exact: in inference it is the identity."""

    def call(self, model: ir.Model) -> PassResult:
        """Turn every Dropout into an Identity."""
        found = [node for node in model.graph if node.op_type == "Dropout"]
        for node in found:
            mask = node.outputs[1] if len(node.outputs) > 1 else None
            if mask is not None and (mask.uses() or mask.is_graph_output()):
                raise ChunkingError(f"node {node.name}: the mask of Dropout cannot be proved")
            if len(node.inputs) > 2 and not _is_false(node.inputs[2]):
                raise ChunkingError(
                    f"node {node.name}: Dropout in training mode is random and cannot be proved; "
                    "export the model for inference"
                )
            identity = ir.node("Identity", [node.inputs[0]], name=node.name)
            model.graph.insert_after(node, identity)
            move_output(node.outputs[0], identity.outputs[0])
            model.graph.remove(node, safe=True)
        return PassResult(model, modified=bool(found))

    def ensures(self, model: ir.Model) -> None:
        """No Dropout is left."""
        refuse_operators(model, frozenset({"Dropout"}))


class DropIdentity(InPlacePass):
    """Pre: any graph. Post: Identity only where an output has no tensor of its own. Exact.

    A Cast to the type that its input has is an Identity too. onnx_ir's own pass gives two outputs
    one name when an output is the identity of another.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Remove what hands its input on."""
        modified = False
        for node in list(model.graph):
            if node.op_type != "Identity" and not _casts_to_own_type(node):
                continue
            source, output = node.inputs[0], node.outputs[0]
            if source is None:
                raise ChunkingError(f"node {node.name}: {node.op_type} has no input")
            if output.is_graph_output():
                if source.is_graph_input() or source.is_initializer() or source.is_graph_output():
                    modified |= _only_an_identity(model, node)
                    continue
                source.name, output.name = output.name, None
            if source.shape is None:
                source.shape, source.type = output.shape, output.type
            ir.convenience.replace_all_uses_with(output, source, replace_graph_outputs=True)
            model.graph.remove(node, safe=True)
            modified = True
        return PassResult(model, modified=modified)

    def ensures(self, model: ir.Model) -> None:
        """Every Identity that is left makes an output of the model."""
        for node in model.graph:
            if node.op_type == "Identity" and not node.outputs[0].is_graph_output():
                raise PostconditionError(f"node {node.name} is an Identity within the graph")


class ShareInitializers(InPlacePass):
    """Pre: any graph. Post: no two equal initializers of `SHARED_BYTES` or more. Exact."""

    def call(self, model: ir.Model) -> PassResult:
        """Keep the first of equal initializers."""
        kept: dict[tuple[object, ...], ir.Value] = {}
        modified = False
        for name, value in list(model.graph.initializers.items()):
            key = _content(value)
            if key is None:
                continue
            first = kept.setdefault(key, value)
            if first is not value and not value.is_graph_output():
                ir.convenience.replace_all_uses_with(value, first)
                model.graph.initializers.pop(name)
                modified = True
        return PassResult(model, modified=modified)

    def ensures(self, model: ir.Model) -> None:
        """Contents differ."""
        found = [
            key
            for value in model.graph.initializers.values()
            if not value.is_graph_output() and (key := _content(value)) is not None
        ]
        if len(set(found)) != len(found):
            raise PostconditionError("equal initializers are left")


def move_output(old: ir.Value, new: ir.Value) -> None:
    """Let a new value take the place, the name and the type of another, as an output too.

    Args:
        old: The value to replace; nameless afterwards.
        new: Its replacement.
    """
    new.shape, new.type = old.shape, old.type
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    new.name, old.name = old.name, None


def refuse_operators(model: ir.Model, gone: frozenset[str]) -> None:
    """Check a postcondition: operators are no longer used.

    Raises:
        PostconditionError: One is.
    """
    for node in model.graph:
        if node.op_type in gone:
            raise PostconditionError(f"node {node.name} is still {node.op_type}")


def _is_false(value: ir.Value | None) -> bool:
    constant = None if value is None else ir.convenience.get_const_tensor(value)
    return value is None or (constant is not None and not constant.numpy().any())


def _only_an_identity(model: ir.Model, node: ir.Node) -> bool:
    """Let a Cast to the type that its input has be an Identity; whether it was none."""
    if node.op_type == "Identity":
        return False
    identity = ir.node("Identity", [node.inputs[0]], name=node.name)
    model.graph.insert_after(node, identity)
    move_output(node.outputs[0], identity.outputs[0])
    model.graph.remove(node, safe=True)
    return True


def _casts_to_own_type(node: ir.Node) -> bool:
    if node.op_type != "Cast" or node.inputs[0] is None:
        return False
    return node.inputs[0].dtype == ir.DataType(node.attributes["to"].as_int())


def _content(value: ir.Value) -> tuple[object, ...] | None:
    tensor = value.const_value
    if tensor is None or tensor.nbytes < SHARED_BYTES:
        return None
    return tensor.dtype, tuple(tensor.shape), hashlib.sha256(tensor.tobytes()).digest()
