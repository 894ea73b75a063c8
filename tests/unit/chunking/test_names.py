"""One name, one tensor: a model's names cannot stand in for what is written beside them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.unit.chunking.builders import integers, model, random_feeds, run, weight
from zkml_ray.chunking.load import parse_model
from zkml_ray.chunking.normalize import normalise
from zkml_ray.chunking.rewrite import Rewrite, apply_rewrites
from zkml_ray.chunking.unique import check_names
from zkml_ray.errors import ChunkingError, ModelFormatError, UnsupportedOperatorError


@pytest.mark.parametrize(
    "name", ["zkml_ray/boundary_1/inner_powers", "zkml_ray/incoming_0", "zkml_ray"]
)
@pytest.mark.parametrize("place", ["input", "constant", "result", "node"])
def test_names_of_a_circuits_own_tensors_are_refused(name: str, place: str) -> None:
    """The attack: powers of the commitment's packing, computed as zeros by the model."""
    names = {"input": "x", "constant": "w", "result": "m", "node": "mul"} | {place: name}
    nodes = [
        helper.make_node(
            "Mul", [names["input"], names["constant"]], [names["result"]], names["node"]
        ),
        helper.make_node("Relu", [names["result"]], ["y"], "relu"),
    ]
    proto = model(nodes, {names["input"]: [1, 3]}, {"y": [1, 3]}, [weight(names["constant"], 3)])
    with pytest.raises(ModelFormatError, match=rf"'{name}' begins with zkml_ray"):
        normalise(proto, {})


def first_names(proto: onnx.ModelProto) -> list[str]:
    """What normalisation names the tensors that it makes."""
    result = normalise(proto, {}).graph
    own = {n for node in proto.graph.node for n in node.output} | {"x"}
    made = [n for node in result.node for n in node.output if n not in own]
    return made + [tensor.name for tensor in result.initializer if tensor.name not in own]


WRITTEN = {
    "Gelu": (helper.make_node("Gelu", ["x"], ["r"], "n"), [], 20, (1, 4)),
    "Elu": (helper.make_node("Elu", ["x"], ["r"], "n"), [], 18, (1, 4)),
    "Tile": (helper.make_node("Tile", ["x", "k"], ["r"], "n"), [integers("k", 1, 2)], 18, (1, 4)),
    "Pad": (
        helper.make_node("Pad", ["x", "k"], ["r"], "n", mode="reflect"),
        [integers("k", 0, 1, 0, 1)],
        18,
        (1, 4),
    ),
    "AveragePool": (
        helper.make_node("AveragePool", ["x"], ["r"], "n", kernel_shape=[3], pads=[1, 1]),
        [],
        18,
        (1, 1, 5),
    ),
}


@pytest.mark.parametrize("kind", ["input", "result", "constant"])
@pytest.mark.parametrize("operator", sorted(WRITTEN))
def test_a_tensor_of_a_made_name_is_itself_or_refused(operator: str, kind: str) -> None:
    """Every name that a rewrite makes, given to a tensor of the model: right, or refused."""
    node, constants, opset, shape = WRITTEN[operator]

    def with_other(name: str) -> onnx.ModelProto:
        nodes, inputs, used = [node], [("x", shape)], list(constants)
        if kind == "input":
            inputs.append((name, (1,)))
        elif kind == "constant":
            used.append(numpy_helper.from_array(np.array([3.5], dtype=np.float32), name))
        else:
            nodes = [
                helper.make_node("ReduceSum", ["x"], ["sum"], "sum_up", keepdims=0),
                helper.make_node("Relu", ["sum"], [name], "other"),
                node,
            ]
        nodes.append(helper.make_node("Mul", ["r", name], ["y"], "last"))
        graph = helper.make_graph(
            nodes,
            "names",
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs],
            [onnx.ValueInfoProto(name="y")],
            used,
        )
        graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
        opsets = [helper.make_opsetid("", opset)]
        return onnx.shape_inference.infer_shapes(
            helper.make_model(graph, opset_imports=opsets, ir_version=9), data_prop=True
        )

    names = first_names(with_other("plain"))
    assert names, "nothing was written"
    for name in names:
        proto = with_other(name)
        try:
            result = normalise(proto, {})
        except ChunkingError:
            continue
        feeds = random_feeds(
            {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in proto.graph.input}
        )
        np.testing.assert_allclose(
            run(result, feeds)["y"], run(proto, feeds)["y"], rtol=1e-5, atol=1e-6
        )


def test_a_rewrite_makes_other_names_than_the_model_has() -> None:
    def clipped(name: str) -> onnx.ModelProto:
        nodes = [
            helper.make_node("Abs", ["x"], [name], "first"),
            helper.make_node("Tanh", ["x"], ["t"], "tanh"),
            helper.make_node("Add", ["t", name], ["y"], "add"),
        ]
        return normalise(model(nodes, {"x": [1, 2]}, {"y": [1, 2]}), {})

    saturate = [Rewrite(name="saturate", node="tanh")]
    plain = clipped("plain")
    own = {name for node in plain.graph.node for name in node.output} | {
        tensor.name for tensor in plain.graph.initializer
    }
    rewritten = apply_rewrites(plain, saturate).graph
    names = {n for node in rewritten.node for n in node.output} | {
        tensor.name for tensor in rewritten.initializer
    }
    assert names - own
    feeds = random_feeds({"x": (1, 2)})
    expected = run(plain, feeds)["y"]
    for name in sorted(names - own):
        try:
            result = apply_rewrites(clipped(name), saturate)
        except ChunkingError:
            continue
        np.testing.assert_allclose(run(result, feeds)["y"], expected, rtol=1e-6)


def test_two_tensors_of_one_name_are_refused() -> None:
    proto = model([helper.make_node("Relu", ["x"], ["y"])], {"x": [1]}, {"y": [1]})
    check_names(proto.graph)
    for other in ("x", "y"):
        twice = onnx.ModelProto.FromString(proto.SerializeToString())
        twice.graph.initializer.append(weight(other, 1))
        with pytest.raises(ChunkingError, match=f"the name '{other}'"):
            check_names(twice.graph)


@pytest.mark.parametrize(
    "domain", ["com.microsoft", "com.microsoft.nchwc", "ai.onnx.ml", "ai.onnx"]
)
def test_functions_in_domains_that_runtimes_know_are_refused(domain: str) -> None:
    function = helper.make_function(
        domain,
        "Gelu",
        ["x"],
        ["y"],
        [helper.make_node("Neg", ["x"], ["y"])],
        [helper.make_opsetid("", 18)],
    )
    graph = helper.make_graph(
        [helper.make_node("Gelu", ["x"], ["y"], "call", domain=domain)],
        "functions",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(domain, 1)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=[function])
    with pytest.raises((UnsupportedOperatorError, ModelFormatError)):
        parse_model(proto.SerializeToString(), "model.onnx")


def test_two_versions_of_the_operator_set_are_refused() -> None:
    proto = model([helper.make_node("Softmax", ["x"], ["y"], axis=1)], {"x": [2, 3]}, {"y": [2, 3]})
    del proto.opset_import[:]
    proto.opset_import.extend([helper.make_opsetid("", 11), helper.make_opsetid("ai.onnx", 18)])
    with pytest.raises(ChunkingError, match=r"2 versions.*11, 18"):
        normalise(proto, {})


def test_a_column_before_batch_normalisation_stays_a_column() -> None:
    factors = [weight(n, 4) for n in ("scale", "bias", "mean")]
    variance = numpy_helper.from_array(np.full(4, 1.5, dtype=np.float32), "var")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], "mul"),
        helper.make_node("Add", ["m", "b"], ["a"], "add"),
        helper.make_node("BatchNormalization", ["a", "scale", "bias", "mean", "var"], ["y"], "bn"),
    ]
    constants = [weight("w", 3, 4), weight("b", 4, 1), *factors, variance]
    proto = model(nodes, {"x": [4, 3]}, {"y": [4, 4]}, constants)
    feeds = random_feeds({"x": (4, 3)})
    np.testing.assert_allclose(
        run(normalise(proto, {}), feeds)["y"], run(proto, feeds)["y"], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("op_type", ["Add", "Sub", "Mul"])
@pytest.mark.parametrize("kind", [TensorProto.UINT8, TensorProto.INT8, TensorProto.UINT64])
def test_integers_that_wrap_are_refused(op_type: str, kind: int) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], "cast", to=kind),
        helper.make_node(op_type, ["i", "i"], ["j"], "the_node"),
        helper.make_node("Cast", ["j"], ["y"], "back", to=TensorProto.FLOAT),
    ]
    with pytest.raises(ChunkingError, match=r"the_node|cast"):
        normalise(model(nodes, {"x": [1, 2]}, {"y": [1, 2]}), {})
