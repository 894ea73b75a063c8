"""Folding, BatchNormalization, operator versions, shared constants: simpler, and the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.unit.chunking.builders import integers, model, random_feeds, run, weight
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.load import parse_model
from zkml_ray.chunking.normal_form.constants import MAX_FOLDED_ELEMENTS, MAX_SUMMED
from zkml_ray.chunking.normal_form.opset import OPSET
from zkml_ray.chunking.normalize import normalise
from zkml_ray.errors import ChunkingError, ModelFormatError, UnsupportedOperatorError


def check_same(
    proto: onnx.ModelProto, shapes: Mapping[str, Sequence[int]], operators: Sequence[str]
) -> onnx.ModelProto:
    """Normalise; the outputs stay, the operators are these."""
    loaded = parse_model(proto.SerializeToString(), "model.onnx").proto
    result = normalise(loaded, {})
    onnx.checker.check_model(result, full_check=True)
    assert [(e.domain, e.version) for e in result.opset_import] == [("", OPSET)]
    assert [node.op_type for node in result.graph.node] == list(operators)
    feeds = random_feeds(shapes)
    expected, got = run(proto, feeds), run(result, feeds)
    assert got.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(got[name], values, rtol=1e-4, atol=1e-5)
    again = normalise(loaded, {})
    assert again.SerializeToString(deterministic=True) == result.SerializeToString(
        deterministic=True
    )
    return result


def stamped(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    proto.opset_import[0].version = opset
    onnx.checker.check_model(proto)
    return proto


def floats(name: str, *values: float) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, dtype=np.float32), name)


def norm(source: str, target: str, channels: int) -> tuple[onnx.NodeProto, list[onnx.TensorProto]]:
    """A BatchNormalization with uneven statistics, one of its factors negative."""
    generator = np.random.default_rng(channels)
    names = [f"{target}_{part}" for part in ("scale", "bias", "mean", "variance")]
    values = [generator.normal(size=channels) for _ in range(3)]
    values.append(generator.uniform(0.01, 3, size=channels))
    node = helper.make_node(
        "BatchNormalization", [source, *names], [target], f"{target}_norm", epsilon=1e-3
    )
    return node, [floats(n, *v) for n, v in zip(names, values, strict=True)]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("group", [1, 2])
def test_batch_norm_behind_a_convolution_goes_into_its_weights(group: int, bias: bool) -> None:
    weights = [weight("w", 4, 4 // group, 3, 3), *([weight("b", 4)] if bias else [])]
    conv = helper.make_node(
        "Conv", ["x", *(w.name for w in weights)], ["c"], "conv", group=group, pads=[1, 1, 1, 1]
    )
    node, parameters = norm("c", "y", 4)
    proto = model([conv, node], {"x": [1, 4, 5, 5]}, {"y": [1, 4, 5, 5]}, [*weights, *parameters])
    check_same(proto, {"x": (1, 4, 5, 5)}, ["Conv"])


@pytest.mark.parametrize("transposed", [0, 1])
def test_batch_norm_behind_a_gemm_goes_into_its_weights(transposed: int) -> None:
    gemm = helper.make_node("Gemm", ["x", "w", "b"], ["g"], "gemm", transB=transposed, alpha=0.5)
    node, parameters = norm("g", "y", 3)
    shape = (3, 4) if transposed else (4, 3)
    proto = model(
        [gemm, node],
        {"x": [2, 4]},
        {"y": [2, 3]},
        [weight("w", *shape), weight("b", 3), *parameters],
    )
    check_same(proto, {"x": (2, 4)}, ["Gemm"])


def test_batch_norm_behind_a_gemm_whose_addend_is_a_column_stays_apart() -> None:
    """As many rows as columns: its size alone does not tell which it is."""
    gemm = helper.make_node("Gemm", ["x", "w", "b"], ["g"], "gemm")
    node, parameters = norm("g", "y", 3)
    weights = [weight("w", 4, 3), weight("b", 3, 1), *parameters]
    proto = model([gemm, node], {"x": [3, 4]}, {"y": [3, 3]}, weights)
    check_same(proto, {"x": (3, 4)}, ["Gemm", "Mul", "Add"])


@pytest.mark.parametrize("bias", [None, 1, 3])
def test_batch_norm_behind_a_matrix_product_becomes_its_bias(bias: int | None) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"], "product")]
    weights = [weight("w", 4, 3)]
    if bias:
        nodes.append(helper.make_node("Add", ["b", "p"], ["s"], "bias"))
        weights.append(weight("b", bias))
    node, parameters = norm("s" if bias else "p", "y", 3)
    proto = model([*nodes, node], {"x": [2, 4]}, {"y": [2, 3]}, [*weights, *parameters])
    check_same(proto, {"x": (2, 4)}, ["MatMul", "Add"])


def test_batch_norm_whose_input_has_another_reader_becomes_mul_and_add() -> None:
    conv = helper.make_node("Conv", ["x", "w"], ["c"], "conv")
    node, parameters = norm("c", "n", 2)
    end = helper.make_node("Add", ["c", "n"], ["y"], "join")
    proto = model(
        [conv, node, end],
        {"x": [1, 2, 3, 3]},
        {"y": [1, 2, 3, 3]},
        [weight("w", 2, 2, 1, 1), *parameters],
    )
    check_same(proto, {"x": (1, 2, 3, 3)}, ["Conv", "Mul", "Add", "Add"])


@pytest.mark.parametrize("shape", [(2, 3), (1, 3, 4), (1, 3, 4, 4)])
def test_batch_norm_of_an_input_becomes_mul_and_add(shape: tuple[int, ...]) -> None:
    node, parameters = norm("x", "y", 3)
    check_same(
        model([node], {"x": list(shape)}, {"y": list(shape)}, parameters),
        {"x": shape},
        ["Mul", "Add"],
    )


def test_batch_norm_on_axis_1_of_a_sequence_is_not_taken_for_the_columns() -> None:
    product = helper.make_node("MatMul", ["x", "w"], ["p"], "product")
    node, parameters = norm("p", "y", 3)
    proto = model(
        [product, node], {"x": [1, 3, 4]}, {"y": [1, 3, 3]}, [weight("w", 4, 3), *parameters]
    )
    check_same(proto, {"x": (1, 3, 4)}, ["MatMul", "Mul", "Add"])


def test_batch_norm_whose_weights_are_shared_changes_one_use_alone() -> None:
    first = helper.make_node("MatMul", ["x", "w"], ["p"], "first")
    node, parameters = norm("p", "n", 4)
    second = helper.make_node("MatMul", ["n", "w"], ["y"], "second")
    proto = model(
        [first, node, second], {"x": [2, 4]}, {"y": [2, 4]}, [weight("w", 4, 4), *parameters]
    )
    check_same(proto, {"x": (2, 4)}, ["MatMul", "Add", "MatMul"])


def test_batch_norm_in_training_mode_is_refused() -> None:
    node, parameters = norm("x", "y", 3)
    node.attribute.append(helper.make_attribute("training_mode", 1))
    node.output.extend(["running_mean", "running_variance"])
    with pytest.raises(ChunkingError, match=r"y_norm.*training"):
        normalise(model([node], {"x": [1, 3, 4, 4]}, {"y": [1, 3, 4, 4]}, parameters), {})


def exported_flatten() -> onnx.ModelProto:
    """x.view(x.size(0), -1) as torch exports it, with a scalar computed from constants besides."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], "shape"),
        helper.make_node("Gather", ["shape", "zero"], ["batch"], "gather", axis=0),
        helper.make_node("Unsqueeze", ["batch", "axes"], ["batch_1d"], "unsqueeze"),
        helper.make_node("Constant", [], ["rest"], "rest", value=integers("", -1)),
        helper.make_node("Concat", ["batch_1d", "rest"], ["target"], "concat", axis=0),
        helper.make_node("Reshape", ["x", "target"], ["flat"], "reshape"),
        helper.make_node("Cast", ["batch"], ["real"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Sqrt", ["real"], ["root"], "sqrt"),
        helper.make_node("Div", ["flat", "root"], ["y"], "div"),
    ]
    zero = numpy_helper.from_array(np.array(0, dtype=np.int64), "zero")
    return model(nodes, {"x": [4, 2, 3]}, {"y": [4, 6]}, [zero, integers("axes", 0)])


def test_shape_arithmetic_of_an_exporter_is_folded_away() -> None:
    result = check_same(exported_flatten(), {"x": (4, 2, 3)}, ["Reshape", "Div"])
    constants = {t.name: numpy_helper.to_array(t) for t in result.graph.initializer}
    assert constants["target"].tolist() == [4, -1]
    assert constants["root"] == 2.0


def test_shape_arithmetic_with_symbolic_batch_is_folded_for_its_value() -> None:
    proto = exported_flatten()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    proto.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    result = normalise(proto, {"batch": 4})
    assert [node.op_type for node in result.graph.node] == ["Reshape", "Div"]


def test_expand_of_computed_shape_is_folded() -> None:
    """torch's x.expand(-1, ...): ConstantOfShape, Mul, Equal, Where around the target shape."""
    nodes = [
        helper.make_node("ConstantOfShape", ["rank"], ["ones"], "ones", value=integers("", 1)),
        helper.make_node("Mul", ["ones", "minus"], ["negative"], "mul"),
        helper.make_node("Equal", ["wanted", "negative"], ["same"], "equal"),
        helper.make_node("Where", ["same", "ones", "wanted"], ["target"], "where"),
        helper.make_node("Expand", ["x", "target"], ["y"], "expand"),
    ]
    proto = model(
        nodes,
        {"x": [1, 1, 3]},
        {"y": [1, 4, 3]},
        [integers("rank", 3), integers("minus", -1), integers("wanted", -1, 4, -1)],
    )
    check_same(proto, {"x": (1, 1, 3)}, ["Expand"])


def test_transposed_weights_are_folded_and_shared_once() -> None:
    nodes = [
        helper.make_node("Transpose", ["w"], ["wt"], "transpose", perm=[1, 0]),
        helper.make_node("Transpose", ["v"], ["vt"], "transpose2", perm=[1, 0]),
        helper.make_node("MatMul", ["x", "wt"], ["a"], "first"),
        helper.make_node("MatMul", ["a", "vt"], ["y"], "second"),
    ]
    same = weight("w", 20, 20)
    other = onnx.TensorProto.FromString(same.SerializeToString())
    other.name = "v"
    proto = model(nodes, {"x": [1, 20]}, {"y": [1, 20]}, [same, other])
    result = check_same(proto, {"x": (1, 20)}, ["MatMul", "MatMul"])
    assert len(result.graph.initializer) == 1


def test_small_equal_constants_are_left_apart() -> None:
    nodes = [
        helper.make_node("Add", ["x", "a"], ["s"], "first"),
        helper.make_node("Add", ["s", "b"], ["y"], "second"),
    ]
    proto = model(nodes, {"x": [1, 2]}, {"y": [1, 2]}, [floats("a", 1, 2), floats("b", 1, 2)])
    assert len(check_same(proto, {"x": (1, 2)}, ["Add", "Add"]).graph.initializer) == 2


def test_a_constant_that_would_grow_huge_is_not_folded() -> None:
    nodes = [
        helper.make_node("Expand", ["c", "huge"], ["big"], "expand"),
        helper.make_node("Add", ["x", "big"], ["y"], "add"),
    ]
    rows = MAX_FOLDED_ELEMENTS + 1
    proto = model(
        nodes, {"x": [1, 1]}, {"y": [rows, 1]}, [floats("c", 1), integers("huge", rows, 1)]
    )
    assert [node.op_type for node in normalise(proto, {}).graph.node] == [
        "Reshape",
        "Expand",
        "Add",
    ]


@pytest.mark.parametrize(
    ("left", "right", "made"),
    [
        ((2, 3), (3, 4), (2, 4)),
        ((3,), (3, 4), (4,)),
        ((2, 3), (3,), (2,)),
        ((5, 2, 3), (3, 4), (5, 2, 4)),
        ((2, 1, 2, 3), (5, 3, 1), (2, 5, 2, 1)),
    ],
)
def test_small_products_of_constants_are_folded(
    left: tuple[int, ...], right: tuple[int, ...], made: tuple[int, ...]
) -> None:
    nodes = [
        helper.make_node("MatMul", ["a", "b"], ["c"], "product"),
        helper.make_node("Add", ["x", "c"], ["y"], "add"),
    ]
    proto = model(nodes, {"x": made}, {"y": made}, [weight("a", *left), weight("b", *right)])
    check_same(proto, {"x": made}, ["Add"])


def test_folded_products_are_summed_exactly_and_large_ones_left_alone() -> None:
    """An order of summation that a processor chooses would change the plan."""
    nodes = [
        helper.make_node("MatMul", ["a", "b"], ["c"], "product"),
        helper.make_node("Add", ["x", "c"], ["y"], "add"),
    ]
    rows = numpy_helper.from_array(np.float32([[1e8, 1, -1e8, 3e-8]]), "a")
    ones = numpy_helper.from_array(np.ones((4, 1), dtype=np.float32), "b")
    folded = normalise(model(nodes, {"x": [1, 1]}, {"y": [1, 1]}, [rows, ones]), {})
    (constant,) = folded.graph.initializer
    assert numpy_helper.to_array(constant).item() == np.float32(1 + 3e-8)
    large = [weight("a", 1, MAX_SUMMED + 1), weight("b", MAX_SUMMED + 1, 1)]
    kept = normalise(model(nodes, {"x": [1, 1]}, {"y": [1, 1]}, large), {})
    assert [node.op_type for node in kept.graph.node] == ["MatMul", "Add"]


def test_inexact_operators_of_constants_are_left_alone() -> None:
    """A folded Exp could differ in its last bit from machine to machine, and the plan with it."""
    nodes = [
        helper.make_node("Exp", ["c"], ["e"], "exp"),
        helper.make_node("Add", ["x", "e"], ["y"], "add"),
    ]
    check_same(
        model(nodes, {"x": [1, 2]}, {"y": [1, 2]}, [floats("c", 1, 2)]),
        {"x": (1, 2)},
        ["Exp", "Add"],
    )


def test_a_foldable_operator_on_an_activation_is_refused_by_name() -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["f"], "the_places"),
        helper.make_node("Cast", ["f"], ["y"], "cast", to=TensorProto.FLOAT),
    ]
    with pytest.raises(ChunkingError, match=r"the_places.*reads x|cast.*computed in a way"):
        normalise(model(nodes, {"x": [1, 2]}, {"y": [2, "n"]}), {})


def test_unknown_operator_is_refused_by_name() -> None:
    proto = model([helper.make_node("Bernoulli", ["x"], ["y"], "gate")], {"x": [1]}, {"y": [1]})
    with pytest.raises(UnsupportedOperatorError, match=r"Bernoulli.*gate.*supported operators"):
        normalise(parse_model(proto.SerializeToString(), "model.onnx").proto, {})


def test_constants_that_cannot_be_computed_are_refused_in_one_line() -> None:
    nodes = [
        helper.make_node("Gather", ["c", "i"], ["g"], "the_gather", axis=0),
        helper.make_node("Add", ["x", "g"], ["y"], "add"),
    ]
    proto = model(nodes, {"x": [1]}, {"y": [1]}, [floats("c", 1, 2), integers("i", 7)])
    with pytest.raises(ChunkingError, match="the_gather") as caught:
        normalise(proto, {})
    assert "\n" not in str(caught.value)


def test_axes_as_attributes_become_inputs() -> None:
    node = helper.make_node("ReduceMean", ["x"], ["y"], "mean", axes=[-1], keepdims=0)
    proto = stamped(model([node], {"x": [2, 4]}, {"y": [2]}), 13)
    (reduced,) = check_same(proto, {"x": (2, 4)}, ["ReduceMean"]).graph.node
    assert len(reduced.input) == 2


def test_squeeze_and_split_of_an_old_version_compute_the_same() -> None:
    nodes = [
        helper.make_node("Squeeze", ["x"], ["s"], "squeeze", axes=[0]),
        helper.make_node("Split", ["s"], ["a", "b"], "split", axis=1, split=[1, 3]),
        helper.make_node("Concat", ["b", "a"], ["y"], "concat", axis=1),
    ]
    proto = model([helper.make_node("Relu", ["x"], ["y"])], {"x": [1, 2, 4]}, {"y": [2, 4]})
    proto.graph.ClearField("node")
    proto.graph.node.extend(nodes)
    check_same(stamped(proto, 11), {"x": (1, 2, 4)}, ["Squeeze", "Split", "Concat"])


@pytest.mark.parametrize("opset", [13, 17, 18, 21, 23])
def test_models_of_every_version_come_out_as_one(opset: int) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv"),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("AveragePool", ["r"], ["p"], "pool", kernel_shape=[2, 2]),
        helper.make_node("Softmax", ["p"], ["y"], "softmax", axis=1),
    ]
    proto = model(nodes, {"x": [1, 2, 5, 5]}, {"y": [1, 3, 2, 2]}, [weight("w", 3, 2, 3, 3)])
    proto.ir_version = 10
    check_same(
        stamped(proto, opset), {"x": (1, 2, 5, 5)}, ["Conv", "Relu", "AveragePool", "Softmax"]
    )


def test_an_operator_without_a_form_in_the_version_is_refused_in_one_line() -> None:
    proto = model([helper.make_node("Relu", ["x"], ["y"], "relu")], {"x": [1]}, {"y": [1]})
    proto.opset_import[0].version = 99
    with pytest.raises(ChunkingError, match=r"opset 99.*opset 18") as caught:
        normalise(proto, {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "operators"),
    [
        (None, ["Mul", "Erf", "Add", "Mul", "Mul"]),
        ("none", ["Mul", "Erf", "Add", "Mul", "Mul"]),
        ("tanh", ["Mul", "Mul", "Mul", "Add", "Mul", "Tanh", "Add", "Mul", "Mul"]),
    ],
)
def test_gelu_is_written_by_its_definition(kind: str | None, operators: list[str]) -> None:
    attributes = {} if kind is None else {"approximate": kind}
    proto = model([helper.make_node("Relu", ["x"], ["y"], "r")], {"x": [2, 4]}, {"y": [2, 4]})
    proto.graph.node[0].CopyFrom(helper.make_node("Gelu", ["x"], ["y"], "gelu", **attributes))
    check_same(stamped(proto, 20), {"x": (2, 4)}, operators)


def test_two_gelus_without_names_are_kept_apart() -> None:
    proto = model([helper.make_node("Relu", ["x"], ["y"])], {"x": [2, 4]}, {"y": [2, 4]})
    proto.graph.ClearField("node")
    proto.graph.node.append(helper.make_node("Gelu", ["x"], ["h"]))
    proto.graph.node.append(helper.make_node("Gelu", ["h"], ["y"]))
    check_same(stamped(proto, 20), {"x": (2, 4)}, ["Mul", "Erf", "Add", "Mul", "Mul"] * 2)


def test_what_no_output_depends_on_is_no_obstacle() -> None:
    nodes = [
        helper.make_node("Sinh", ["x"], ["s"], "unread"),
        helper.make_node("Own", ["s"], ["t"], "unread_too", domain="com.example"),
        helper.make_node("Relu", ["x"], ["y"], "relu"),
    ]
    proto = model(nodes[2:], {"x": [1, 2]}, {"y": [1, 2]})
    proto.graph.node.extend(nodes[:2])
    assert [node.op_type for node in normalise(proto, {}).graph.node] == ["Relu"]


def test_every_operator_that_cannot_be_proved_is_named_at_once() -> None:
    nodes = [
        helper.make_node("Bernoulli", ["x"], ["s"], "first"),
        helper.make_node("Own", ["s"], ["t"], "second", domain="com.example"),
        helper.make_node("Det", ["t"], ["y"], "third"),
    ]
    proto = model(nodes[:1], {"x": [1, 2]}, {"s": [1, 2]})
    proto.graph.node.extend(nodes[1:])
    proto.graph.output[0].name = "y"
    with pytest.raises(UnsupportedOperatorError) as caught:
        normalise(proto, {})
    for named in (
        "Bernoulli of node 'first'",
        "com.example.Own of node 'second'",
        "Det of node 'third'",
    ):
        assert named in caught.value.message


def test_stale_shapes_of_a_file_are_not_believed() -> None:
    proto = model([helper.make_node("Relu", ["x"], ["y"], "relu")], {"x": ["n", 2]}, {"y": [7, 2]})
    proto.graph.value_info.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [9, 2]))
    result = normalise(proto, {"n": 3})
    assert ModelGraph(result).tensor("y").shape == (3, 2)


@pytest.mark.parametrize("kind", [TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_other_floats_become_float32(kind: int) -> None:
    weights = helper.make_tensor("w", kind, [2], [0.5, -1.5])
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["x", "w"], ["m"], "mul"),
            helper.make_node("Cast", ["m"], ["c"], "cast", to=kind),
            helper.make_node("Relu", ["c"], ["y"], "relu"),
        ],
        "typed",
        [helper.make_tensor_value_info("x", kind, [1, 2])],
        [helper.make_tensor_value_info("y", kind, [1, 2])],
        [weights],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    result = normalise(proto, {})
    assert [node.op_type for node in result.graph.node] == ["Mul", "Relu"]
    assert ModelGraph(result).tensor("y").is_float
    feeds = {"x": np.array([[1, -1]], dtype=np.float32)}
    np.testing.assert_array_equal(run(result, feeds)["y"], [[0.5, 1.5]])


def test_a_number_that_float32_does_not_hold_is_refused_by_name() -> None:
    proto = model(
        [helper.make_node("Mul", ["x", "w"], ["y"], "m")], {"x": [1]}, {"y": [1]}, [floats("w", 1)]
    )
    proto.graph.initializer[0].CopyFrom(helper.make_tensor("w", TensorProto.DOUBLE, [1], [1e300]))
    with pytest.raises(ModelFormatError, match=r"'w'.*float32"):
        normalise(proto, {})


@pytest.mark.parametrize("answer", [True, False])
def test_a_branch_that_constants_choose_is_taken(answer: bool) -> None:
    def branch(op_type: str) -> onnx.GraphProto:
        inner = [
            helper.make_node(op_type, ["x"], ["inner"], "named"),
            helper.make_node("Add", ["inner", "w"], ["out"], "add"),
        ]
        out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 2])
        return helper.make_graph(inner, op_type, [], [out], [floats("w", 1, 2)])

    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], "shape"),
        helper.make_node("Gather", ["shape", "one"], ["width"], "width"),
        helper.make_node("Equal", ["width", "two" if answer else "one"], ["on"], "equal"),
        helper.make_node(
            "If", ["on"], ["z"], "if", then_branch=branch("Relu"), else_branch=branch("Neg")
        ),
        helper.make_node("Add", ["z", "x"], ["y"], "last"),
    ]
    one, two = (
        numpy_helper.from_array(np.array(n, dtype=np.int64), k) for n, k in ((1, "one"), (2, "two"))
    )
    proto = model(nodes, {"x": [1, 2]}, {"y": [1, 2]}, [one, two])
    result = normalise(proto, {})
    assert [n.op_type for n in result.graph.node] == ["Relu" if answer else "Neg", "Add", "Add"]
    feeds = random_feeds({"x": (1, 2)})
    np.testing.assert_array_equal(run(result, feeds)["y"], run(proto, feeds)["y"])


OLD = {
    "softmax of what is flattened": (helper.make_node("Softmax", ["x"], ["y"]), 7, 12),
    "softmax over the first axis": (helper.make_node("Softmax", ["x"], ["y"], axis=0), 7, 12),
    "axes as attribute, squeezed": (helper.make_node("Squeeze", ["x"], ["y"], axes=[2]), 7, 12),
    "axes as an attribute, added": (
        helper.make_node("Unsqueeze", ["x"], ["y"], axes=[0, 4]),
        7,
        12,
    ),
    "axes as an attribute, summed": (
        helper.make_node("ReduceSum", ["x"], ["y"], axes=[1], keepdims=0),
        7,
        12,
    ),
    "axes as an attribute, averaged": (
        helper.make_node("ReduceMean", ["x"], ["y"], axes=[0, 1]),
        7,
        17,
    ),
    "largest of all": (helper.make_node("ReduceMax", ["x"], ["y"], keepdims=0), 7, 17),
    "bounds as attributes": (helper.make_node("Clip", ["x"], ["y"], min=-0.5, max=0.3), 7, 10),
    "pads as attributes": (
        helper.make_node("Pad", ["x"], ["y"], pads=[0, 1, 0, 0, 0, 2], value=1.5),
        7,
        10,
    ),
    "slice by attributes": (
        helper.make_node("Slice", ["x"], ["y"], axes=[1, 2], starts=[-2, 0], ends=[9, -1]),
        7,
        9,
    ),
    "flattened": (helper.make_node("Flatten", ["x"], ["y"], axis=2), 7, 12),
}
"""Operators whose attributes or meaning have changed, and the versions that they are tried in."""


@pytest.mark.parametrize("name", sorted(OLD))
def test_an_older_operator_keeps_its_meaning(name: str) -> None:
    node, first, last = OLD[name]
    for version in range(first, last + 1):
        graph = helper.make_graph(
            [node],
            "old",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 3, 1])],
            [onnx.ValueInfoProto(name="y")],
        )
        opset = [helper.make_opsetid("", version)]
        proto = onnx.shape_inference.infer_shapes(
            helper.make_model(graph, opset_imports=opset, ir_version=4)
        )
        feeds = random_feeds({"x": [2, 3, 1]})
        want, got = run(proto, feeds)["y"], run(normalise(proto, {}), feeds)["y"]
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_an_attribute_that_says_what_holds_without_it_is_left_out() -> None:
    node = helper.make_node(
        "MaxPool", ["x"], ["y"], "pool", kernel_shape=[2, 2], ceil_mode=0, auto_pad="NOTSET"
    )
    result = normalise(model([node], {"x": [1, 1, 4, 4]}, {"y": [1, 1, 3, 3]}), {})
    assert "ceil_mode" not in {a.name for each in result.graph.node for a in each.attribute}


@pytest.mark.parametrize("negated", [True, False])
@pytest.mark.parametrize("swapped", [True, False])
def test_a_logistic_function_that_is_written_out_is_a_sigmoid(negated: bool, swapped: bool) -> None:
    sides = ["one", "e"] if swapped else ["e", "one"]
    nodes = [
        *([helper.make_node("Neg", ["x"], ["z"], "neg")] if negated else []),
        helper.make_node("Exp", ["z" if negated else "x"], ["e"], "exp"),
        helper.make_node("Add", sides, ["s"], "add"),
        helper.make_node("Reciprocal", ["s"], ["y"], "reciprocal"),
    ]
    one = numpy_helper.from_array(np.float32([1.0]), "one")
    proto = model(nodes, {"x": [2, 3]}, {"y": [2, 3]}, [one])
    normal = normalise(proto, {})
    assert [n.op_type for n in normal.graph.node] == ["Neg"] * (not negated) + ["Sigmoid"]
    feeds = random_feeds({"x": (2, 3)})
    np.testing.assert_allclose(run(normal, feeds)["y"], run(proto, feeds)["y"], atol=1e-6)


def test_what_is_no_logistic_function_stays() -> None:
    one = numpy_helper.from_array(np.float32([1.0]), "one")
    two = numpy_helper.from_array(np.float32([2.0]), "two")
    for bottom, top in (("two", "one"), ("one", "two")):
        nodes = [
            helper.make_node("Exp", ["x"], ["e"], "exp"),
            helper.make_node("Add", [bottom, "e"], ["s"], "add"),
            helper.make_node("Div", [top, "s"], ["y"], "div"),
        ]
        proto = model(nodes, {"x": [2, 3]}, {"y": [2, 3]}, [one, two])
        assert "Sigmoid" not in [n.op_type for n in normalise(proto, {}).graph.node]


@pytest.mark.parametrize("kind", [np.float32, np.int32, np.int64])
def test_whole_powers_of_whole_constants_are_folded(kind: type) -> None:
    base = numpy_helper.from_array(np.array([2, -3, 10], dtype=kind), "base")
    power = numpy_helper.from_array(np.array([4, 3, 0], dtype=np.float32), "power")
    nodes = [
        helper.make_node("Pow", ["base", "power"], ["p"], "pow"),
        helper.make_node("Cast", ["p"], ["f"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["x", "f"], ["y"], "mul"),
    ]
    proto = model(nodes, {"x": [3]}, {"y": [3]}, [base, power])
    normal = normalise(proto, {})
    assert [n.op_type for n in normal.graph.node] == ["Mul"]
    feeds = random_feeds({"x": (3,)})
    np.testing.assert_array_equal(run(normal, feeds)["y"], feeds["x"] * np.float32([16, -27, 1]))
