"""Extraction: the ONNX model of one chunk, commitments included.

Shape of every chunk model (the verifier relies on it):

- inputs: each incoming boundary tensor, then one salt tensor per touched boundary (incoming
  first, then outgoing, in plan order; none when the plan is unsalted);
- outputs: per touched boundary, in the same order, its packed leaves, one tensor each.

Packing is injective only for elements inside the packing's range. Incoming tensors are
range-checked by ezkl as circuit inputs. An outgoing tensor that the analysis of `bounds` cannot
hold within it is passed through `(y + |y|) - |y|`: the absolute value decomposes y into digits,
which constrains it, and the sum is y again (docs/adr/0003).

The chunk's nodes are lowered first (`native.lower`), so that small factors keep their precision.

Scales: ezkl gives every input of a circuit one nominal scale, the plan's input scale. A boundary
of a larger scale is brought to its own by a product with 2^-k, which ezkl turns into a change of
the nominal scale alone: for an incoming tensor behind its commitment, where the chunk's nodes
read it; for an outgoing one at its salts (docs/adr/0012).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from zkml_ray.chunking.bounds import value_bounds
from zkml_ray.chunking.graph import ModelGraph, TensorInfo
from zkml_ray.chunking.native.lower import lower_nodes
from zkml_ray.chunking.unique import check_names
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
        scale_shift: Its scale less the plan's input scale; never below 0.
    """

    info: TensorInfo
    layout: LeafLayout
    scale_shift: int = 0


def extract_chunk(
    graph: ModelGraph,
    nodes: Sequence[str],
    incoming: Sequence[CommittedTensor],
    outgoing: Sequence[CommittedTensor],
    scale: int,
) -> bytes:
    """Build a chunk's ONNX model.

    Args:
        graph: The normalised model.
        nodes: The chunk's nodes, in topological order.
        incoming: Boundaries it reads, in plan order.
        outgoing: Boundaries it produces, in plan order.
        scale: The plan's input scale, for which small factors are written.

    Returns:
        The model's bytes, deterministic in the arguments.
    """
    touched = [*incoming, *outgoing]
    read = {t.info.name: t.scale_shift for t in incoming}
    largest = max(t.layout.packing.element_bound for t in touched)
    lowered = lower_nodes(graph, nodes, read, scale=scale, range_bits=largest.bit_length())
    made, initializers = _brought_to_scale(lowered.nodes, incoming)
    initializers += list(lowered.constants.values())
    inputs = [
        helper.make_tensor_value_info(t.info.name, onnx.TensorProto.FLOAT, list(t.info.shape))
        for t in incoming
    ]
    outputs: list[onnx.ValueInfoProto] = []
    bounds = value_bounds(lowered.nodes, lowered.constants, read, largest)
    for index, tensor in enumerate(touched):
        prefix = f"zkml_ray/boundary_{index}"
        source = tensor.info.name
        if source not in bounds or bounds[source] > tensor.layout.packing.injective_bound:
            guarded = f"{prefix}/guarded"
            made += _guard(source, guarded, prefix)
            source = guarded
        salt = f"{prefix}/salt" if tensor.layout.salts_per_leaf else None
        commit = commit_nodes(
            prefix=prefix,
            tensor=source,
            salt=salt,
            layout=tensor.layout,
            shape=tensor.info.shape,
        )
        if salt and tensor.scale_shift and index >= len(incoming):
            nodes, factor = _nominal(salt, tensor.scale_shift)
            made += nodes
            initializers.append(factor)
            _rename_inputs(commit.nodes, {salt: nodes[0].output[0]})
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
    check_names(model.graph)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _brought_to_scale(
    body: Sequence[onnx.NodeProto], incoming: Sequence[CommittedTensor]
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Copies of a chunk's nodes that read every incoming tensor at its own scale."""
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in body]
    shifts: list[onnx.NodeProto] = []
    factors: list[onnx.TensorProto] = []
    renamed: dict[str, str] = {}
    for tensor in incoming:
        if tensor.scale_shift:
            nodes, factor = _nominal(tensor.info.name, tensor.scale_shift)
            shifts += nodes
            factors.append(factor)
            renamed[tensor.info.name] = nodes[0].output[0]
    _rename_inputs(copies, renamed)
    return shifts + copies, factors


def _nominal(name: str, shift: int) -> tuple[list[onnx.NodeProto], onnx.TensorProto]:
    """A product with 2^-shift: the same field elements at a nominal scale larger by `shift`."""
    value = np.asarray([2.0**-shift], dtype=np.float32)
    factor = numpy_helper.from_array(value, f"zkml_ray/{name}/factor")
    target = f"zkml_ray/{name}/scaled"
    return [helper.make_node("Mul", [name, factor.name], [target], name=target)], factor


def _rename_inputs(nodes: Sequence[onnx.NodeProto], renamed: Mapping[str, str]) -> None:
    for node in nodes:
        for position, name in enumerate(node.input):
            node.input[position] = renamed.get(name, name)


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
