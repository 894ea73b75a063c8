"""Extraction: the ONNX model of one chunk, commitments included.

Shape of every chunk model (the verifier relies on it):

- inputs: each incoming boundary tensor, then one salt tensor per touched boundary (incoming
  first, then outgoing, in plan order; none when the plan is unsalted);
- outputs: per touched boundary, in the same order, its packed leaves, one tensor each.

Packing is injective only for elements inside the packing's range. Incoming tensors are
range-checked by ezkl as circuit inputs. An outgoing tensor that the analysis of `bounds` cannot
hold within it is passed through `(y + |y|) - |y|`: the absolute value decomposes y into digits,
which constrains it, and the sum is y again (docs/adr/0003).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx
from onnx import helper

from zkml_ray.chunking.bounds import value_bounds
from zkml_ray.chunking.graph import ModelGraph, TensorInfo
from zkml_ray.commitments.graph import commit_nodes
from zkml_ray.commitments.leaves import LeafLayout

OPSET_FALLBACK = 17
_IR_VERSION = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class CommittedTensor:
    """A boundary tensor as a chunk sees it.

    Attributes:
        info: Its name and shape.
        layout: Its cut into leaves.
    """

    info: TensorInfo
    layout: LeafLayout


def extract_chunk(
    graph: ModelGraph,
    nodes: Sequence[str],
    incoming: Sequence[CommittedTensor],
    outgoing: Sequence[CommittedTensor],
) -> bytes:
    """Build a chunk's ONNX model.

    Args:
        graph: The normalised model.
        nodes: The chunk's nodes, in topological order.
        incoming: Boundaries it reads, in plan order.
        outgoing: Boundaries it produces, in plan order.

    Returns:
        The model's bytes, deterministic in the arguments.
    """
    body = [graph.nodes[name] for name in nodes]
    made = [onnx.NodeProto.FromString(node.SerializeToString()) for node in body]
    used = {value for node in body for value in node.input}
    initializers = [graph.initializers[name] for name in sorted(used & graph.initializers.keys())]
    inputs = [
        helper.make_tensor_value_info(t.info.name, onnx.TensorProto.FLOAT, list(t.info.shape))
        for t in incoming
    ]
    outputs: list[onnx.ValueInfoProto] = []
    touched = [*incoming, *outgoing]
    read = {t.info.name: 0 for t in incoming}
    largest = max(t.layout.packing.element_bound for t in touched)
    bounds = value_bounds(body, graph.initializers, read, largest)
    for index, tensor in enumerate(touched):
        prefix = f"zkml_ray/boundary_{index}"
        source = tensor.info.name
        if source not in bounds or bounds[source] > tensor.layout.packing.injective_bound:
            guarded = f"{prefix}/guarded"
            made += _guard(source, guarded, prefix)
            source = guarded
        commit = commit_nodes(
            prefix=prefix,
            tensor=source,
            salt=f"{prefix}/salt" if tensor.layout.salts_per_leaf else None,
            layout=tensor.layout,
            shape=tensor.info.shape,
        )
        made += commit.nodes
        initializers += commit.initializers
        outputs += commit.outputs
        if commit.salt_input is not None:
            inputs.append(commit.salt_input)
    model = helper.make_model(
        helper.make_graph(made, "chunk", inputs, outputs, initializers),
        opset_imports=[helper.make_opsetid("", _opset(graph.proto))],
        ir_version=_IR_VERSION,
        producer_name="zkml_ray",
    )
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _guard(source: str, target: str, prefix: str) -> list[onnx.NodeProto]:
    magnitude, shifted = f"{prefix}/magnitude", f"{prefix}/shifted"
    return [
        helper.make_node("Abs", [source], [magnitude]),
        helper.make_node("Add", [source, magnitude], [shifted]),
        helper.make_node("Sub", [shifted, magnitude], [target]),
    ]


def _opset(proto: onnx.ModelProto) -> int:
    for entry in proto.opset_import:
        if entry.domain in ("", "ai.onnx"):
            return int(entry.version)
    return OPSET_FALLBACK
