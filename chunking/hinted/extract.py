"""The chunk model of a hinted circuit.

Shape (the verifier relies on the outputs alone):

- one input, a flat vector: the hints; the values of every incoming boundary; the salts of every
  touched boundary, incoming first; `BLINDERS` random numbers of `BLINDER_BITS` bits;
- outputs: per touched boundary, in the same order, its packed leaves, one tensor each.

The input is committed to as a polynomial (ezkl's visibility `polycommit`), because ezkl would
decompose every element of a private input into digits, at more cells than the check it needs here.
That commitment is not blinded by halo2: the blinders do it. They stand in no constraint.

Salts are not range-checked, so a leaf's salts fill packed elements of their own: whatever they
are, the elements that hold values are packed injectively.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper

from zkml_ray.chunking.extract import CommittedTensor
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.hinted.circuit import GIVEN, Circuit
from zkml_ray.chunking.hinted.lower import Lowering
from zkml_ray.chunking.hinted.numbers import Arithmetic
from zkml_ray.chunking.hinted.recipe import METADATA_KEY
from zkml_ray.commitments.graph import commit_nodes
from zkml_ray.errors import ChunkingError

BLINDER_BITS: Final = 14
"""ezkl's forward pass decomposes every input, so none may exceed the decomposition's range."""

BLINDERS: Final = 128
"""Random numbers beside the values. A proof shows two field elements' worth of the column they are
in, its commitment and its evaluation at one point: 508 bits, hidden by 1,792 random ones."""

INPUT: Final = "zkml_ray/advice"

_IR_VERSION = 9
_OPSET = 17


def extract_hinted_chunk(
    graph: ModelGraph,
    nodes: Sequence[str],
    incoming: Sequence[CommittedTensor],
    outgoing: Sequence[CommittedTensor],
    numbers: Arithmetic,
) -> bytes:
    """Build a chunk's hinted ONNX model.

    Args:
        graph: The normalised model.
        nodes: The chunk's nodes, in topological order.
        incoming: Boundaries it reads, in plan order.
        outgoing: Boundaries it produces, in plan order.
        numbers: Digits and ranges of the circuit.

    Returns:
        The model's bytes, deterministic in the arguments.

    Raises:
        NotHintedError: An operator has no hinted form.
        ChunkingError: A boundary's packing does not hold the values.
    """
    return _built(graph, nodes, incoming, outgoing, numbers)[0]


def hinted_size(
    graph: ModelGraph,
    nodes: Sequence[str],
    incoming: Sequence[CommittedTensor],
    outgoing: Sequence[CommittedTensor],
    numbers: Arithmetic,
) -> Circuit:
    """A chunk's circuit, for its size (`Circuit.cells_at`); arguments as `extract_hinted_chunk`."""
    return _built(graph, nodes, incoming, outgoing, numbers)[1]


def _built(
    graph: ModelGraph,
    nodes: Sequence[str],
    incoming: Sequence[CommittedTensor],
    outgoing: Sequence[CommittedTensor],
    numbers: Arithmetic,
) -> tuple[bytes, Circuit]:
    shapes = _shapes(graph, nodes)
    lowering = Lowering(numbers, graph.initializers, shapes)
    circuit = lowering.circuit
    for index, tensor in enumerate(incoming):
        lowering.receive(tensor.info.name, f"zkml_ray/incoming_{index}")
    lowering.run([graph.nodes[name] for name in nodes])
    tensors = [f"zkml_ray/incoming_{index}" for index in range(len(incoming))]
    for tensor in outgoing:
        source, magnitude = lowering.outgoing(tensor.info.name)
        if magnitude > tensor.layout.packing.injective_bound:
            raise ChunkingError(
                f"boundary {tensor.info.name} reaches {magnitude}, more than its packing holds"
            )
        tensors.append(source)
    for tensor in incoming:
        if numbers.value_bound > tensor.layout.packing.injective_bound:
            raise ChunkingError(
                f"boundary {tensor.info.name} reaches {numbers.value_bound}, more than its "
                "packing holds"
            )
    zero, nominal = circuit.finish()
    outputs = []
    touched = [*incoming, *outgoing]
    salts = [f"zkml_ray/salts_{index}" for index in range(len(touched))]
    for index, (tensor, source) in enumerate(zip(touched, tensors, strict=True)):
        layout = tensor.layout
        salted = layout.salts_per_leaf > 0
        if salted and layout.salts_per_leaf != layout.packing.pack:
            raise ChunkingError(
                f"boundary {tensor.info.name}: salts share packed elements with values, which a "
                "hinted circuit does not hold apart"
            )
        if index == len(touched) - 1:
            # What is looked up must lead to an output.
            count = layout.salt_count if salted else layout.element_count
            source = circuit.raised(source, 0, nominal)
            kept = salts[index] if salted else source
            kept = circuit.add(circuit.raised(kept, 0, nominal if salted else 0), zero, count)
            source, salts[index] = (source, kept) if salted else (kept, salts[index])
        salt = None
        if salted:
            shape = [layout.leaf_count, layout.salts_per_leaf]
            salt = circuit.reshape(salts[index], shape)
        commit = commit_nodes(
            prefix=f"zkml_ray/boundary_{index}",
            tensor=source,
            salt=salt,
            layout=layout,
            shape=[layout.element_count],
        )
        circuit.nodes += commit.nodes
        circuit.initializers += commit.initializers
        circuit.cells += layout.leaf_count * layout.slots * 2
        outputs += commit.outputs
    head, length = _taken_apart(circuit, incoming, touched)
    model = helper.make_model(
        helper.make_graph(
            [*head, *circuit.nodes],
            "chunk",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [length])],
            outputs,
            circuit.initializers,
        ),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="zkml_ray",
    )
    helper.set_model_props(model, {METADATA_KEY: lowering.recipe()})
    data: bytes = model.SerializeToString(deterministic=True)
    return data, circuit


def _taken_apart(
    circuit: Circuit, incoming: Sequence[CommittedTensor], touched: Sequence[CommittedTensor]
) -> tuple[list[onnx.NodeProto], int]:
    """The nodes that take the input vector apart, and its length."""
    parts = [(GIVEN, circuit.hint_count)]
    parts += [(f"zkml_ray/incoming_{i}", t.layout.element_count) for i, t in enumerate(incoming)]
    parts += [(f"zkml_ray/salts_{i}", t.layout.salt_count) for i, t in enumerate(touched)]
    nodes, start = [], 0
    for name, count in parts:
        if count:
            index = circuit.indices(np.arange(start, start + count))
            nodes.append(helper.make_node("Gather", [INPUT, index], [name], name=name, axis=0))
        start += count
    zero = circuit.whole([0])
    hints = GIVEN if circuit.hint_count else zero
    if circuit.hint_count and circuit.checks_hints_alone:
        hints = "zkml_ray/checked"
        nodes.append(helper.make_node("HardSwish", [GIVEN], [hints]))
    nodes.append(helper.make_node("Concat", [zero, hints], ["zkml_ray/hints"], axis=0))
    return nodes, start + BLINDERS


def _shapes(graph: ModelGraph, nodes: Sequence[str]) -> Mapping[str, tuple[int, ...]]:
    names = {
        value for name in nodes for value in (*graph.nodes[name].input, *graph.nodes[name].output)
    }
    shapes = {
        name: graph.tensor(name).shape for name in names if name and name not in graph.initializers
    }
    for name in names & graph.initializers.keys():
        shapes[name] = tuple(graph.initializers[name].dims)
    return shapes
