"""Operators that ONNX itself defines by others: their definitions, put in their place.

The definitions come with the installed `onnx`, as its conversions between versions do; each is
taken for the operator's own version, types and attributes, whose defaults are written out first:
onnx's inliner (1.23) does not know them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import onnx
from onnx import helper, inliner

from zkml_ray.chunking.normal_form.opset import opset_of
from zkml_ray.chunking.places import node_label
from zkml_ray.errors import ChunkingError

EXPANDED: Final = frozenset(
    {
        *("Attention", "CastLike", "CausalConvWithState", "MeanVarianceNormalization"),
        *(
            "NegativeLogLikelihoodLoss",
            "RotaryEmbedding",
            "SoftmaxCrossEntropyLoss",
            "SwiGLU",
        ),
        "ThresholdedRelu",
    }
)
"""Windows (HannWindow ...) are not among them: cosines of constants are not the same everywhere."""

_ROUNDS: Final = 4
"""Definitions read operators that have definitions."""


def expand_defined(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Write operators as ONNX defines them. Exact.

    Args:
        proto: A model (not changed).

    Returns:
        The model without `EXPANDED` operators, or the same one if it has none.

    Raises:
        ChunkingError: A definition needs a type or an input that the model does not give.
    """
    for _ in range(_ROUNDS):
        if not any(_is_expanded(node) for node in proto.graph.node):
            break
        proto = _expanded_once(proto)
    return proto


def _is_expanded(node: onnx.NodeProto) -> bool:
    return node.op_type in EXPANDED and node.domain in ("", "ai.onnx")


def _expanded_once(proto: onnx.ModelProto) -> onnx.ModelProto:
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    known = _types(inferred.graph)
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    del result.graph.node[:]
    opset = opset_of(proto)
    for index, node in enumerate(proto.graph.node):
        if _is_expanded(node):
            result.graph.node.extend(_body(node, known, opset, f"{node.op_type}_{index}"))
        else:
            result.graph.node.append(node)
    return result


def _types(graph: onnx.GraphProto) -> dict[str, onnx.ValueInfoProto]:
    known = {v.name: v for v in (*graph.value_info, *graph.output, *graph.input)}
    for tensor in graph.initializer:
        shape = list(tensor.dims)
        known[tensor.name] = helper.make_tensor_value_info(tensor.name, tensor.data_type, shape)
    return known


def _body(
    node: onnx.NodeProto, known: Mapping[str, onnx.ValueInfoProto], opset: int, base: str
) -> list[onnx.NodeProto]:
    """The nodes that stand for one; what they make between is named after it."""
    own = node.name or base
    read = list(dict.fromkeys(name for name in node.input if name))
    if missing := [name for name in read if name not in known]:
        raise ChunkingError(f"{node_label(node)}: the type of {missing[0]} is not known")
    made = [name for name in node.output if name]
    graph = helper.make_graph(
        [_with_defaults(node, opset)],
        "one",
        [known[name] for name in read],
        [known.get(name, onnx.ValueInfoProto(name=name)) for name in made],
    )
    alone = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    try:
        inlined = inliner.inline_selected_functions(
            alone, [("", node.op_type)], exclude=False, inline_schema_functions=True
        )
    except Exception:
        raise ChunkingError(
            f"{node_label(node)}: ONNX's definition of it does not cover the inputs that it leaves "
            "out; give all of them, or export the model with an older opset"
        ) from None
    body = list(inlined.graph.node)
    if any(each.op_type == node.op_type for each in body):
        raise ChunkingError(
            f"{node_label(node)}: ONNX does not define it by others in opset {opset}; export the "
            "model with another opset"
        )
    kept = {*read, *made, ""}
    for count, each in enumerate(body):
        each.name = f"{own}/{each.op_type}_{count}"
        each.input[:] = [name if name in kept else f"{own}/{name}" for name in each.input]
        each.output[:] = [name if name in kept else f"{own}/{name}" for name in each.output]
    return body


def _with_defaults(node: onnx.NodeProto, opset: int) -> onnx.NodeProto:
    written = onnx.NodeProto()
    written.CopyFrom(node)
    written.domain = ""
    given = {attribute.name for attribute in node.attribute}
    for name, known in onnx.defs.get_schema(node.op_type, opset).attributes.items():
        if name not in given and known.default_value.name:
            written.attribute.append(known.default_value)
    return written
