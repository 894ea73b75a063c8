"""Chunk models: what goes in, what comes out, and which tensors are guarded."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from tests import zoo
from tests.unit.chunking.builders import integers, model, random_feeds, run, weight
from zkml_ray.chunking.extract import CommittedTensor, extract_chunk
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.normalize import normalise
from zkml_ray.chunking.partition import layer_partition
from zkml_ray.commitments.leaves import LeafLayout
from zkml_ray.commitments.packing import PackingSpec

SPEC = PackingSpec.for_decomposition(128, 4)

SCALE = 10


def chunks(proto: onnx.ModelProto, parts: list[list[str]] | None = None) -> list[onnx.ModelProto]:
    graph = ModelGraph(normalise(proto, {}))
    cuts = parts or layer_partition(graph)
    crossings = graph.crossings(cuts)
    committed = {
        c.tensor.name: CommittedTensor(
            info=c.tensor, layout=LeafLayout.plan(int(np.prod(c.tensor.shape)), SPEC, max_slots=128)
        )
        for c in crossings
    }
    made = []
    for index, nodes in enumerate(cuts):
        incoming = [committed[c.tensor.name] for c in crossings if index in c.consumers]
        outgoing = [committed[c.tensor.name] for c in crossings if c.producer == index]
        data = extract_chunk(graph, nodes, incoming, outgoing, SCALE)
        assert data == extract_chunk(graph, nodes, incoming, outgoing, SCALE)
        made.append(onnx.ModelProto.FromString(data))
    return made


def guarded(chunk: onnx.ModelProto) -> set[str]:
    """Boundary tensors that the chunk passes through a guard."""
    return {
        node.input[0]
        for node in chunk.graph.node
        if node.op_type == "Abs" and node.output[0].endswith("/magnitude")
    }


def committed_sources(chunk: onnx.ModelProto, tensor: str) -> set[str]:
    """First nodes of the commit sub-graph that read a tensor directly."""
    return {
        node.output[0]
        for node in chunk.graph.node
        if tensor in node.input and node.output[0].startswith("zkml_ray/")
    }


@pytest.mark.parametrize("name", sorted(zoo.MODELS))
def test_chunks_of_a_model_are_valid_and_the_same_every_time(name: str) -> None:
    first, second = chunks(zoo.MODELS[name]()), chunks(zoo.MODELS[name]())
    for chunk, again in zip(first, second, strict=True):
        onnx.checker.check_model(chunk, full_check=True)
        assert chunk.SerializeToString(deterministic=True) == again.SerializeToString(
            deterministic=True
        )


def test_chunk_inputs_are_its_tensors_then_one_salt_a_boundary() -> None:
    third = chunks(zoo.residual())[2]
    assert [value.name for value in third.graph.input] == [
        "h",
        "b",
        "zkml_ray/boundary_0/salt",
        "zkml_ray/boundary_1/salt",
        "zkml_ray/boundary_2/salt",
    ]


def test_chunk_outputs_are_leaves_alone() -> None:
    for chunk in chunks(zoo.residual()):
        assert all("/leaf_" in value.name for value in chunk.graph.output)


def others(name: str) -> set[str]:
    """The names of all other weights."""
    return {tensor.name for tensor in zoo.residual().graph.initializer} - {name}


def test_chunk_holds_the_weights_of_its_own_nodes_alone() -> None:
    for index, chunk in enumerate(chunks(zoo.residual())):
        held = [tuple(t.dims) for t in chunk.graph.initializer if len(t.dims) == 2]
        weights = next(t for t in zoo.residual().graph.initializer if t.name == f"w{index}")
        assert held.count(tuple(weights.dims)) == 1
        assert not {t.name for t in chunk.graph.initializer} & others(f"w{index}")


def test_guard_stands_before_a_raw_accumulation_and_not_before_relu_or_an_input() -> None:
    first, second, third, last = chunks(zoo.residual())
    assert guarded(first) == guarded(second) == guarded(third) == set()
    assert guarded(last) == {"y"}
    assert committed_sources(first, "h")
    assert committed_sources(last, "y") <= {
        "zkml_ray/boundary_2/magnitude",
        "zkml_ray/boundary_2/shifted",
    }


def test_guard_leaves_the_value_as_it_is() -> None:
    guarded_chunk = chunks(zoo.mlp())[-1]
    bare = [node for node in guarded_chunk.graph.node if not node.name.startswith("zkml_ray/")]
    assert bare
    end = next(v for n in guarded_chunk.graph.node for v in n.output if v.endswith("/guarded"))
    guarded_chunk.graph.output.append(
        helper.make_tensor_value_info(end, onnx.TensorProto.FLOAT, [1, 4])
    )
    guarded_chunk.graph.output.append(
        helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 4])
    )
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in guarded_chunk.graph.input
    }
    found = run(guarded_chunk, random_feeds(shapes))
    np.testing.assert_allclose(found[end], found["y"], rtol=1e-5, atol=1e-6)


SELECT_CASES = {
    "Flatten": helper.make_node("Flatten", ["t"], ["y"], "pick"),
    "Identity": helper.make_node("Identity", ["t"], ["y"], "pick"),
    "Transpose": helper.make_node("Transpose", ["t"], ["y"], "pick", perm=[1, 0]),
    "Concat": helper.make_node("Concat", ["t", "t"], ["y"], "pick", axis=0),
    "Reshape": helper.make_node("Reshape", ["t", "shape"], ["y"], "pick"),
}


@pytest.mark.parametrize("maker", ["Relu", "MatMul"])
@pytest.mark.parametrize("selecting", sorted(SELECT_CASES))
def test_selecting_operator_needs_a_guard_exactly_when_its_input_does(
    selecting: str, maker: str
) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["t"], "make")
        if maker == "Relu"
        else helper.make_node("MatMul", ["x", "w"], ["t"], "make"),
        SELECT_CASES[selecting],
        helper.make_node("Relu", ["y"], ["end"], "end"),
    ]
    shape = {"Transpose": [4, 1], "Concat": [2, 4], "Reshape": [2, 2]}.get(selecting, [1, 4])
    proto = model(
        nodes, {"x": [1, 4]}, {"end": shape}, [weight("w", 4, 4), integers("shape", 2, 2)]
    )
    if selecting == "Identity":  # normalisation would remove it
        proto = onnx.shape_inference.infer_shapes(proto)
        graph = ModelGraph(proto)
        info = graph.tensor("y")
        tensor = CommittedTensor(info=info, layout=LeafLayout.plan(4, SPEC, max_slots=128))
        source = CommittedTensor(info=graph.tensor("x"), layout=tensor.layout)
        data = extract_chunk(graph, ["make", "pick"], [source], [tensor], SCALE)
        first = onnx.ModelProto.FromString(data)
    else:
        first = chunks(proto, [["make", "pick"], ["end"]])[0]
    assert guarded(first) == (set() if maker == "Relu" else {"y"})
