"""Normalisation: one form for the graph that everything after this module relies on.

Postconditions of `normalise`, each made by a named step:

- every input has a numeric shape, every tensor an inferred one (`fix_dimensions`, shape inference);
- constants are initializers, and initializers are no graph inputs;
- no Dropout, no unused node or initializer, no Identity but where an output would otherwise be an
  input, a constant or another output;
- Conv and pooling nodes carry kernel_shape, strides, dilations, pads (and group) explicitly and
  no auto_pad, because tract refuses some of them when missing;
- nodes are in topological order and have unique, non-empty names, as have values.

The result's bytes are a deterministic function of the model's bytes: their digest is in the plan.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import onnx_ir as ir
from onnx_ir.passes import Sequential
from onnx_ir.passes import common as passes

from zkml_ray.chunking.load import fix_dimensions
from zkml_ray.errors import ChunkingError

_WINDOWED = frozenset({"Conv", "MaxPool", "AveragePool"})


def normalise(proto: onnx.ModelProto, dimensions: Mapping[str, int]) -> onnx.ModelProto:
    """Bring a model into the one form that chunks are cut from.

    Args:
        proto: A checked model (not changed).
        dimensions: Value of each symbolic dimension, by name.

    Raises:
        DynamicShapeError: A dimension has no value.
        ChunkingError: A step found something it cannot bring into this form.
    """
    fixed = fix_dimensions(proto, dimensions)
    try:
        fixed = onnx.shape_inference.infer_shapes(fixed, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        line = str(error).strip().splitlines()[0]
        raise ChunkingError(
            f"shapes cannot be inferred with the given dimensions: {line}"
        ) from None
    model = ir.from_proto(fixed)
    Sequential(
        passes.RemoveInitializersFromInputsPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
    )(model)
    _dropout_to_identity(model)
    _drop_identity(model)
    Sequential(
        passes.RemoveUnusedNodesPass(),
        passes.TopologicalSortPass(),
        passes.NameFixPass(),
        passes.ClearMetadataAndDocStringPass(),
    )(model)
    _explicit_windows(model)
    model.producer_name = None
    model.producer_version = None
    result = ir.to_proto(model)
    return onnx.shape_inference.infer_shapes(result, strict_mode=True, data_prop=True)


def _dropout_to_identity(model: ir.Model) -> None:
    """Pre: any graph. Post: no Dropout. Exact: in inference mode it is the identity."""
    for node in list(model.graph):
        if node.op_type != "Dropout":
            continue
        if len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output()):
            raise ChunkingError(f"node {node.name}: the mask output of Dropout cannot be proved")
        if len(node.inputs) > 2 and not _is_false(node.inputs[2]):
            raise ChunkingError(
                f"node {node.name}: Dropout in training mode is random and cannot be proved; "
                "export the model for inference"
            )
        output = node.outputs[0]
        identity = ir.node("Identity", [node.inputs[0]], name=node.name)
        replacement = identity.outputs[0]
        replacement.shape, replacement.type = output.shape, output.type
        model.graph.insert_after(node, identity)
        ir.convenience.replace_all_uses_with(output, replacement, replace_graph_outputs=True)
        replacement.name, output.name = output.name, None
        model.graph.remove(node, safe=True)


def _is_false(value: ir.Value | None) -> bool:
    constant = None if value is None else ir.convenience.get_const_tensor(value)
    return value is None or (constant is not None and not constant.numpy().any())


def _drop_identity(model: ir.Model) -> None:
    """Pre: any graph. Post: Identity only where an output has no tensor of its own. Exact.

    onnx_ir's own pass gives two outputs one name when an output is the identity of another.
    """
    for node in list(model.graph):
        if node.op_type != "Identity":
            continue
        source, output = node.inputs[0], node.outputs[0]
        if source is None:
            raise ChunkingError(f"node {node.name}: Identity has no input")
        if output.is_graph_output():
            if source.is_graph_input() or source.is_initializer() or source.is_graph_output():
                continue
            source.name, output.name = output.name, None
        if source.shape is None:
            source.shape, source.type = output.shape, output.type
        ir.convenience.replace_all_uses_with(output, source, replace_graph_outputs=True)
        model.graph.remove(node, safe=True)


def _explicit_windows(model: ir.Model) -> None:
    """Pre: shapes known. Post: all window attributes written out, no auto_pad. Exact."""
    for node in model.graph:
        if node.op_type in _WINDOWED:
            _make_window_explicit(node)


def _make_window_explicit(node: ir.Node) -> None:
    data = node.inputs[0]
    if data is None or data.shape is None:
        raise ChunkingError(f"node {node.name}: the input's shape is unknown")
    spatial = _sizes(data.shape)
    rank = len(spatial)
    attributes = node.attributes
    if "kernel_shape" not in attributes:
        weight = node.inputs[1] if len(node.inputs) > 1 else None
        if weight is None or weight.shape is None:
            raise ChunkingError(f"node {node.name}: kernel_shape is missing and cannot be inferred")
        kernel = _sizes(weight.shape)
    else:
        kernel = list(attributes["kernel_shape"].as_ints())
    strides = _ints(attributes, "strides", [1] * rank)
    dilations = _ints(attributes, "dilations", [1] * rank)
    auto_pad = attributes["auto_pad"].as_string() if "auto_pad" in attributes else "NOTSET"
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        before, after = [], []
        for size, k, stride, dilation in zip(spatial, kernel, strides, dilations, strict=True):
            total = max(0, (-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size)
            small, large = total // 2, total - total // 2
            before.append(small if auto_pad == "SAME_UPPER" else large)
            after.append(large if auto_pad == "SAME_UPPER" else small)
        pads = before + after
    elif auto_pad == "VALID":
        pads = [0] * (2 * rank)
    else:
        pads = _ints(attributes, "pads", [0] * (2 * rank))
    attributes.pop("auto_pad", None)
    for name, values in (("kernel_shape", kernel), ("strides", strides), ("pads", pads)):
        attributes[name] = ir.AttrInt64s(name, values)
    if node.op_type != "AveragePool" or any(value != 1 for value in dilations):
        attributes["dilations"] = ir.AttrInt64s("dilations", dilations)
    if node.op_type == "Conv" and "group" not in attributes:
        attributes["group"] = ir.AttrInt64("group", 1)


def _sizes(shape: ir.Shape) -> list[int]:
    """Spatial sizes of an NCHW... shape; dimensions are numbers once they are fixed."""
    return list(shape.numpy()[2:])


def _ints(attributes: Mapping[str, ir.Attr], name: str, default: list[int]) -> list[int]:
    return list(attributes[name].as_ints()) if name in attributes else default
