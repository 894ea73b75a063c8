"""The chunk model of a hinted circuit.

Shape (the verifier relies on the outputs alone):

- one input, a flat vector: the hints; the values of every incoming boundary; the salts of every
  touched boundary, incoming first; random digits among them all (`blinding`);
- outputs: per touched boundary, in the same order, its packed leaves, one tensor each.

The input is committed to as a polynomial (ezkl's visibility `polycommit`), because ezkl would
decompose every element of a private input into digits, at more cells than the check it needs here.
That commitment is not blinded by halo2: the random digits do it.

Salts are not range-checked, so a leaf's salts fill packed elements of their own: whatever they
are, the elements that hold values are packed injectively.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import onnx
from onnx import TensorProto, helper

from zkml_ray.chunking.extract import CommittedTensor
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.hinted.blinding import Advice
from zkml_ray.chunking.hinted.challenge import LEAF
from zkml_ray.chunking.hinted.circuit import GIVEN, HINTS, Circuit
from zkml_ray.chunking.hinted.grid import Ints
from zkml_ray.chunking.hinted.lower import Lowering
from zkml_ray.chunking.hinted.numbers import Arithmetic
from zkml_ray.chunking.hinted.operators import OPERATORS
from zkml_ray.chunking.hinted.recipe import METADATA_KEY
from zkml_ray.chunking.hinted.refusal import refusing
from zkml_ray.chunking.unique import check_names
from zkml_ray.commitments.challenge import COUNT
from zkml_ray.commitments.graph import commit_nodes
from zkml_ray.errors import ChunkingError

INPUT: Final = "zkml_ray/advice"

_IR_VERSION = 9
_OPSET = 17


def extract_hinted_chunk(
    graph: ModelGraph,
    nodes: Sequence[str],
    incoming: Sequence[CommittedTensor],
    outgoing: Sequence[CommittedTensor],
    numbers: Arithmetic,
    *,
    columns: int = 1,
    challenge: bool = False,
) -> bytes:
    """Build a chunk's hinted ONNX model.

    Args:
        graph: The normalised model.
        nodes: The chunk's nodes, in topological order.
        incoming: Boundaries it reads, in plan order.
        outgoing: Boundaries it produces, in plan order.
        numbers: Digits and ranges of the circuit.
        columns: Its inner columns, over which blinders are spread.
        challenge: Whether products may be checked by a challenge (`challenge`).

    Returns:
        The model's bytes, deterministic in the arguments.

    Raises:
        NotHintedError: An operator has no hinted form.
        ChunkingError: A boundary's packing does not hold the values.
    """
    with refusing():
        lowering = Lowering(
            numbers, graph.initializers, shapes_of(graph, nodes), columns, challenge=challenge
        )
        for index, tensor in enumerate(incoming):
            lowering.receive(tensor.info.name, f"zkml_ray/incoming_{index}")
        lowering.run([graph.nodes[name] for name in nodes], OPERATORS)
        return _emitted(lowering, incoming, outgoing, columns)


def _emitted(
    lowering: Lowering,
    incoming: Sequence[CommittedTensor],
    outgoing: Sequence[CommittedTensor],
    columns: int,
) -> bytes:
    circuit, outputs, touched = lowering.circuit, [], [*incoming, *outgoing]
    inputs: list[tuple[str, int]] = []
    for index, (tensor, source, salt) in enumerate(ended(lowering, incoming, outgoing)):
        commit = commit_nodes(
            prefix=f"zkml_ray/boundary_{index}",
            tensor=source,
            salt=salt,
            layout=tensor.layout,
            shape=[tensor.layout.element_count],
        )
        circuit.nodes += commit.nodes
        circuit.initializers += commit.initializers
        outputs += commit.outputs
    if lowering.identity is not None and lowering.identity.held:
        leaf = helper.make_tensor_value_info(LEAF, TensorProto.FLOAT, [COUNT + 2])
        outputs.append(leaf)
        inputs = lowering.identity.inputs()
    sizes = {
        "hints": circuit.hint_count,
        "given": sum(t.layout.element_count for t in incoming)
        + sum(t.layout.salt_count for t in touched),
        "logrows": lowering.numbers.logrows,
        "columns": columns,
    }
    advice = Advice(**sizes)
    head = _taken_apart(circuit, advice, incoming, touched)
    model = helper.make_model(
        helper.make_graph(
            [*head, *circuit.nodes],
            "chunk",
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, [length])
                for name, length in ((INPUT, advice.length), *inputs)
            ],
            outputs,
            circuit.initializers,
        ),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="zkml_ray",
    )
    helper.set_model_props(model, {METADATA_KEY: lowering.recipe(sizes)})
    check_names(model.graph)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def ended(
    lowering: Lowering, incoming: Sequence[CommittedTensor], outgoing: Sequence[CommittedTensor]
) -> Iterator[tuple[CommittedTensor, str, str | None]]:
    """End a chunk whose nodes are lowered: round what it gives, emit the remaining checks.

    Args:
        lowering: Of its nodes; `zkml_ray/incoming_0` and so on are what it received.
        incoming: Boundaries it reads.
        outgoing: Boundaries it produces.

    Yields:
        Of every boundary, incoming ones first, its tensor and its salts.

    Raises:
        NotHintedError: What it gives cannot be rounded.
        ChunkingError: A boundary's packing does not hold the values.
    """
    circuit, numbers = lowering.circuit, lowering.numbers
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
    if lowering.identity is not None and lowering.identity.held:
        lowering.identity.end(nominal)
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
        circuit.cells += layout.leaf_count * layout.slots * 2
        yield tensor, source, salt


def _taken_apart(
    circuit: Circuit,
    advice: Advice,
    incoming: Sequence[CommittedTensor],
    touched: Sequence[CommittedTensor],
) -> list[onnx.NodeProto]:
    """The nodes that take the input vector apart and look the hints up."""
    parts = [(f"zkml_ray/incoming_{i}", t.layout.element_count) for i, t in enumerate(incoming)]
    parts += [(f"zkml_ray/salts_{i}", t.layout.salt_count) for i, t in enumerate(touched)]
    given, start = advice.given(), 0
    places = {GIVEN: advice.looked_up()}
    for name, count in parts:
        places[name] = given[start : start + count]
        start += count
    nodes = []

    def gather(source: str, index: Ints, name: str) -> None:
        inputs = [source, circuit.indices(index)]
        nodes.append(helper.make_node("Gather", inputs, [name], name=name, axis=0))

    for name, index in places.items():
        if len(index):
            gather(INPUT, index, name)
    zero = circuit.whole([0])
    hints = zero
    if circuit.hint_count:
        digits, hints = GIVEN, "zkml_ray/checked"
        if circuit.checks_hints_alone:
            digits = "zkml_ray/digits"
            nodes.append(helper.make_node("HardSwish", [GIVEN], [digits], name=digits))
        gather(digits, advice.hints.places, hints)
    # Zero is read twice, or ezkl would not put the constant into a cell, and would assign all hints
    # again wherever one of them is taken out.
    nodes.append(helper.make_node("Concat", [zero, hints, zero], [HINTS], axis=0))
    return nodes


def shapes_of(graph: ModelGraph, nodes: Iterable[str]) -> Mapping[str, tuple[int, ...]]:
    """Shape of every tensor that some nodes read or make."""
    names = {
        value for name in nodes for value in (*graph.nodes[name].input, *graph.nodes[name].output)
    }
    shapes = {
        name: graph.tensor(name).shape for name in names if name and name not in graph.initializers
    }
    for name in names & graph.initializers.keys():
        shapes[name] = tuple(graph.initializers[name].dims)
    return shapes
