"""Cuts: every node in exactly one part, every tensor that crosses one known with both its ends."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import pytest
from onnx import helper

from examples.simple_distributed import build_mlp
from tests import zoo
from tests.unit.chunking.builders import integers, model, weight
from zkml_ray.chunking.choose import default_rewrites
from zkml_ray.chunking.graph import Crossing, ModelGraph
from zkml_ray.chunking.hinted.functions import TABLE_OF
from zkml_ray.chunking.normalize import normalise
from zkml_ray.chunking.partition import layer_partition, split_by_kind
from zkml_ray.chunking.rewrite import apply_rewrites
from zkml_ray.errors import ChunkingError, ConfigError


def indexed(proto: onnx.ModelProto) -> ModelGraph:
    return ModelGraph(normalise(proto, {}))


def shown(crossings: Sequence[Crossing]) -> list[tuple[str, int | None, tuple[int, ...]]]:
    return [(c.tensor.name, c.producer, c.consumers) for c in crossings]


@pytest.mark.parametrize("layers_per_chunk", [1, 2, 3, 5])
@pytest.mark.parametrize("name", sorted(zoo.MODELS))
def test_layer_partition_has_every_node_once_in_order(name: str, layers_per_chunk: int) -> None:
    graph = indexed(zoo.MODELS[name]())
    parts = layer_partition(graph, layers_per_chunk=layers_per_chunk)
    assert [node for part in parts for node in part] == list(graph.nodes)
    assert all(parts)


@pytest.mark.parametrize(("layers_per_chunk", "chunks"), [(1, 5), (2, 3), (3, 2), (5, 1), (9, 1)])
def test_layer_partition_counts_weighted_operators(layers_per_chunk: int, chunks: int) -> None:
    graph = indexed(build_mlp(5, width=4, outputs=3))
    assert len(layer_partition(graph, layers_per_chunk=layers_per_chunk)) == chunks


def test_layer_partition_product_of_two_activations_starts_no_layer() -> None:
    proto = model(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"], "weighted"),
            helper.make_node("Relu", ["a"], ["b"], "relu"),
            helper.make_node("MatMul", ["a", "b"], ["y"], "unweighted"),
        ],
        {"x": [4, 4]},
        {"y": [4, 4]},
        [weight("w", 4, 4)],
    )
    assert layer_partition(indexed(proto)) == (("weighted", "relu", "unweighted"),)


def gated(*operators: str) -> ModelGraph:
    """A layer, and functions one behind the other with sums between them."""
    nodes, value = [helper.make_node("MatMul", ["x", "w"], ["m"], "fc")], "m"
    for index, operator in enumerate(operators):
        nodes.append(helper.make_node(operator, [value], [f"f{index}"], f"f{index}"))
        value = f"s{index}" if index + 1 < len(operators) else "y"
        nodes.append(helper.make_node("Add", [f"f{index}", "b"], [value], f"add{index}"))
    proto = model(nodes, {"x": [2, 4]}, {"y": [2, 4]}, [weight("w", 4, 4), weight("b", 4)])
    return indexed(proto)


@pytest.mark.parametrize(
    ("operators", "sizes"),
    [
        (("Sigmoid", "Tanh", "Sigmoid"), [7]),
        (("Sigmoid", "Softmax"), [3, 2]),
        (("Erf", "Tanh", "Exp", "Softmax"), [3, 2, 4]),
        (("Relu", "Neg"), [5]),
    ],
)
def test_parts_that_need_two_tables_are_cut_between_them(
    operators: tuple[str, ...], sizes: list[int]
) -> None:
    graph = gated(*operators)
    parts = split_by_kind(graph, layer_partition(graph), TABLE_OF)
    assert [len(part) for part in parts] == sizes
    assert [name for part in parts for name in part] == list(graph.nodes)


def test_layer_partition_below_one_layer_is_refused() -> None:
    with pytest.raises(ConfigError, match="layers per chunk"):
        layer_partition(indexed(zoo.mlp()), layers_per_chunk=0)


def test_crossings_of_a_chain_are_its_cuts_and_ends() -> None:
    graph = indexed(build_mlp(3, width=4, outputs=3))
    assert shown(graph.crossings(layer_partition(graph))) == [
        ("x", None, (0,)),
        ("h0", 0, (1,)),
        ("h1", 1, (2,)),
        ("y", 2, ()),
    ]


def test_crossings_of_a_skip_connection_name_every_reader() -> None:
    graph = indexed(zoo.residual())
    found = {c.tensor.name: c for c in graph.crossings(layer_partition(graph))}
    assert (found["h"].producer, found["h"].consumers) == (0, (1, 2, 3))
    assert found["b"].consumers == (2,)
    assert (found["y"].producer, found["y"].consumers) == (3, ())


def branches() -> ModelGraph:
    """Two inputs, two outputs; x is read twice, `a` is an output that is read later too."""
    return indexed(
        model(
            [
                helper.make_node("MatMul", ["x", "w"], ["a"], "first"),
                helper.make_node("Add", ["z", "x"], ["s"], "second"),
                helper.make_node("Split", ["s", "sizes"], ["left", "right"], "split", axis=1),
                helper.make_node("Concat", ["right", "left"], ["c"], "concat", axis=1),
                helper.make_node("Mul", ["a", "c"], ["y"], "last"),
            ],
            {"x": [1, 4], "z": [1, 4]},
            {"y": [1, 4], "a": [1, 4]},
            [weight("w", 4, 4), integers("sizes", 2, 2)],
        )
    )


def test_crossings_with_two_inputs_and_outputs_keep_their_ends() -> None:
    parts = [["first"], ["second", "split"], ["concat", "last"]]
    assert shown(branches().crossings(parts)) == [
        ("x", None, (0, 1)),
        ("z", None, (1,)),
        ("a", 0, (2,)),
        ("left", 1, (2,)),
        ("right", 1, (2,)),
        ("y", 2, ()),
    ]


def test_crossings_tensor_read_in_its_own_part_and_given_out_crosses_as_output() -> None:
    assert shown(branches().crossings([["second", "split", "concat"], ["first", "last"]])) == [
        ("x", None, (0, 1)),
        ("z", None, (0,)),
        ("a", 1, ()),
        ("c", 0, (1,)),
        ("y", 1, ()),
    ]


def test_crossings_one_output_of_a_node_read_and_the_other_not_crosses_alone() -> None:
    graph = indexed(
        model(
            [
                helper.make_node("Split", ["x", "sizes"], ["left", "right"], "split", axis=1),
                helper.make_node("Relu", ["right"], ["y"], "relu"),
            ],
            {"x": [1, 4]},
            {"y": [1, 2]},
            [integers("sizes", 2, 2)],
        )
    )
    assert [c.tensor.name for c in graph.crossings([["split"], ["relu"]])] == ["x", "right", "y"]


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ([["split", "concat", "last"], ["first", "second"]], "not topological"),
        ([["first", "last"], ["second", "split", "concat"]], "not topological"),
        ([["first", "second", "split", "concat"]], "lacks node last"),
        ([["first", "second"], ["split", "concat", "last", "first"]], "node first twice"),
        ([["first", "second", "split"], [], ["concat", "last"]], "part 1 .* no node"),
        ([["first", "second", "split", "concat", "last", "other"]], "other"),
        ([], "lacks node"),
    ],
)
def test_crossings_of_what_is_no_partition_are_refused(parts: list[list[str]], why: str) -> None:
    with pytest.raises(ChunkingError, match=why):
        branches().crossings(parts)


def test_crossings_tensor_of_integers_across_a_cut_is_refused() -> None:
    proto = model(
        [
            helper.make_node("Cast", ["x"], ["i"], "cast", to=onnx.TensorProto.INT64),
            helper.make_node("Cast", ["i"], ["y"], "back", to=onnx.TensorProto.FLOAT),
        ],
        {"x": [1, 4]},
        {"y": [1, 4]},
    )
    with pytest.raises(ChunkingError, match="float32"):
        graph = ModelGraph(onnx.shape_inference.infer_shapes(proto))
        graph.crossings([["cast"], ["back"]])


def test_input_that_no_node_reads_crosses_nothing() -> None:
    proto = model(
        [helper.make_node("Relu", ["x"], ["y"], "relu")],
        {"x": [1, 4], "unread": [1, 4]},
        {"y": [1, 4]},
    )
    crossings = indexed(proto).crossings([["relu"]])
    assert [crossing.tensor.name for crossing in crossings] == ["x", "y"]


def test_output_that_is_a_constant_crosses_nothing() -> None:
    proto = model(
        [helper.make_node("Relu", ["x"], ["y"], "relu")],
        {"x": [1, 4]},
        {"y": [1, 4], "c": [1, 4]},
        [weight("c", 1, 4)],
    )
    crossings = indexed(proto).crossings([["relu"]])
    assert [crossing.tensor.name for crossing in crossings] == ["x", "y"]


def test_graph_of_a_model_that_is_not_normalised_is_refused() -> None:
    unnamed = model([helper.make_node("Relu", ["x"], ["y"])], {"x": [1]}, {"y": [1]})
    with pytest.raises(ChunkingError, match="not normalised"):
        ModelGraph(unnamed)


def test_tensor_without_a_shape_is_refused_by_name() -> None:
    proto = model(
        [helper.make_node("Relu", ["x"], ["a"], "r"), helper.make_node("Neg", ["a"], ["y"], "n")],
        {"x": [1, 4]},
        {"y": [1, 4]},
    )
    with pytest.raises(ChunkingError, match="tensor a"):
        ModelGraph(proto).tensor("a")


def test_columns_of_a_rewritten_convolution_stay_with_their_product() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "v"], ["a"], "conv0", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Conv", ["b", "w"], ["y"], "conv1", pads=[1, 1, 1, 1]),
    ]
    weights = [weight("v", 2, 1, 3, 3), weight("w", 2, 2, 3, 3)]
    proto = normalise(model(nodes, {"x": [1, 1, 6, 6]}, {"y": [1, 2, 6, 6]}, weights), {})
    graph = ModelGraph(apply_rewrites(proto, default_rewrites(proto, weight_bits=10)))
    parts = layer_partition(graph)
    assert len(parts) == 2
    assert shown(graph.crossings(parts)) == [("x", None, (0,)), ("b", 0, (1,)), ("y", 1, ())]
