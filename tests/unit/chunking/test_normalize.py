"""Normalisation changes the form of a model, never what it computes: onnxruntime is the judge."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.unit.chunking.builders import integers, model, random_feeds, run, weight
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.normalize import normalise
from zkml_ray.errors import ChunkingError, ConfigError, DynamicShapeError

REMOVED = {"Identity", "Dropout", "Constant"}


def check_same(
    proto: onnx.ModelProto,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    dimensions: Mapping[str, int] | None = None,
    keeps: frozenset[str] = frozenset(),
) -> onnx.ModelProto:
    """Normalise, and check the postconditions and the outputs against the original."""
    before = proto.SerializeToString()
    result = normalise(proto, dimensions or {})
    assert proto.SerializeToString() == before, "the argument was changed"
    onnx.checker.check_model(result, full_check=True)
    graph = ModelGraph(result)
    assert graph.inputs == tuple(shapes)
    assert graph.outputs == tuple(output.name for output in proto.graph.output)
    assert {value.name for value in result.graph.input}.isdisjoint(graph.initializers)
    for node in result.graph.node:
        assert node.op_type not in REMOVED - keeps
        for name in filter(None, node.output):
            assert graph.tensor(name).shape is not None
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type in ("Conv", "MaxPool", "AveragePool"):
            assert "auto_pad" not in attributes
            assert {"kernel_shape", "strides", "pads"} <= attributes.keys()
    feeds = random_feeds(shapes)
    expected, got = run(proto, feeds), run(result, feeds)
    assert got.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(got[name], values, rtol=1e-5, atol=1e-6)
    assert normalise(proto, dimensions or {}).SerializeToString(deterministic=True) == (
        result.SerializeToString(deterministic=True)
    )
    return result


def window(op_type: str, size: int, out: int, **attributes: object) -> onnx.ModelProto:
    """One windowed operator on [1, 2, size, size]."""
    if op_type == "Conv":
        kernel = 3
        weights = [weight("w", 3, 2, kernel, kernel), weight("b", 3)]
        node = helper.make_node("Conv", ["x", "w", "b"], ["y"], "window", **attributes)
        channels = 3
    else:
        weights = []
        node = helper.make_node(op_type, ["x"], ["y"], "window", kernel_shape=[3, 3], **attributes)
        channels = 2
    return model([node], {"x": [1, 2, size, size]}, {"y": [1, channels, out, out]}, weights)


@pytest.mark.parametrize("size", [5, 6])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("op_type", ["Conv", "MaxPool", "AveragePool"])
def test_auto_pad_normalised_computes_the_same(
    op_type: str, auto_pad: str, stride: int, size: int
) -> None:
    out = (size - 3) // stride + 1 if auto_pad == "VALID" else -(-size // stride)
    proto = window(op_type, size, out, auto_pad=auto_pad, strides=[stride, stride])
    check_same(proto, {"x": (1, 2, size, size)})


@pytest.mark.parametrize("op_type", ["Conv", "MaxPool", "AveragePool"])
def test_missing_window_attributes_normalised_are_written_out(op_type: str) -> None:
    result = check_same(window(op_type, 5, 3), {"x": (1, 2, 5, 5)})
    (node,) = result.graph.node
    values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    assert values["strides"] == [1, 1]
    assert values["pads"] == [0, 0, 0, 0]
    assert values["kernel_shape"] == [3, 3]


def test_asymmetric_pads_and_dilations_normalised_compute_the_same() -> None:
    proto = window("Conv", 7, 5, pads=[2, 0, 0, 2], dilations=[2, 2], strides=[1, 1])
    check_same(proto, {"x": (1, 2, 7, 7)})


def test_dilated_same_padding_normalised_computes_what_explicit_pads_do() -> None:
    # Not compared with the original: onnxruntime refuses auto_pad with dilations.
    dilated = {"dilations": [2, 2], "strides": [1, 1]}
    automatic = normalise(window("Conv", 7, 7, auto_pad="SAME_UPPER", **dilated), {})
    explicit = window("Conv", 7, 7, pads=[2, 2, 2, 2], **dilated)
    feeds = random_feeds({"x": (1, 2, 7, 7)})
    np.testing.assert_array_equal(run(automatic, feeds)["y"], run(explicit, feeds)["y"])


def test_grouped_convolution_normalised_keeps_its_groups() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], "conv", group=2)
    proto = model([node], {"x": [1, 4, 5, 5]}, {"y": [1, 4, 3, 3]}, [weight("w", 4, 2, 3, 3)])
    check_same(proto, {"x": (1, 4, 5, 5)})


def dense(*extra: onnx.NodeProto, out: str) -> onnx.ModelProto:
    return model(
        [helper.make_node("MatMul", ["x", "w"], ["a"], "dense"), *extra],
        {"x": [1, 4]},
        {out: [1, 4]},
        [weight("w", 4, 4)],
    )


def test_dropout_between_nodes_is_removed() -> None:
    proto = dense(
        helper.make_node("Dropout", ["a"], ["d"], "dropout"),
        helper.make_node("Relu", ["d"], ["y"], "relu"),
        out="y",
    )
    result = check_same(proto, {"x": (1, 4)})
    assert [node.op_type for node in result.graph.node] == ["MatMul", "Relu"]


def test_dropout_that_feeds_an_output_is_removed_and_the_output_keeps_its_name() -> None:
    result = check_same(
        dense(helper.make_node("Dropout", ["a"], ["y"], "dropout"), out="y"), {"x": (1, 4)}
    )
    assert [node.op_type for node in result.graph.node] == ["MatMul"]


def test_dropout_with_ratio_and_training_inputs_is_removed() -> None:
    ratio = onnx.numpy_helper.from_array(np.array(0.5, dtype=np.float32), "ratio")
    training = onnx.numpy_helper.from_array(np.array(False), "training")
    proto = model(
        [
            helper.make_node("Relu", ["x"], ["a"], "relu"),
            helper.make_node("Dropout", ["a", "ratio", "training"], ["d", "mask"], "dropout"),
            helper.make_node("Neg", ["d"], ["y"], "neg"),
        ],
        {"x": [1, 4]},
        {"y": [1, 4]},
        [ratio, training],
    )
    result = check_same(proto, {"x": (1, 4)})
    assert not result.graph.initializer


def test_dropout_in_training_mode_is_refused() -> None:
    proto = model(
        [
            helper.make_node("Relu", ["x"], ["a"], "relu"),
            helper.make_node("Dropout", ["a", "", "training"], ["y"], "the_dropout"),
        ],
        {"x": [1, 4]},
        {"y": [1, 4]},
        [onnx.numpy_helper.from_array(np.array(True), "training")],
    )
    with pytest.raises(ChunkingError, match="the_dropout"):
        normalise(proto, {})


def test_dropout_whose_mask_is_used_is_refused() -> None:
    mask = helper.make_tensor_value_info("mask", TensorProto.BOOL, [1, 4])
    proto = dense(helper.make_node("Dropout", ["a"], ["y", "mask"], "the_dropout"), out="y")
    proto.graph.output.append(mask)
    with pytest.raises(ChunkingError, match="the_dropout"):
        normalise(proto, {})


def test_identity_chain_between_nodes_is_removed() -> None:
    proto = dense(
        helper.make_node("Identity", ["a"], ["i0"], "id0"),
        helper.make_node("Identity", ["i0"], ["i1"], "id1"),
        helper.make_node("Relu", ["i1"], ["y"], "relu"),
        out="y",
    )
    assert len(check_same(proto, {"x": (1, 4)}).graph.node) == 2


def test_identity_chain_that_feeds_an_output_is_removed_and_the_output_keeps_its_name() -> None:
    proto = dense(
        helper.make_node("Identity", ["a"], ["i0"], "id0"),
        helper.make_node("Identity", ["i0"], ["y"], "id1"),
        out="y",
    )
    assert len(check_same(proto, {"x": (1, 4)}).graph.node) == 1


def test_identity_of_a_tensor_that_is_an_output_too_keeps_both_outputs() -> None:
    proto = model(
        [
            helper.make_node("Relu", ["x"], ["a"], "relu"),
            helper.make_node("Identity", ["a"], ["b"], "id"),
        ],
        {"x": [1, 4]},
        {"a": [1, 4], "b": [1, 4]},
    )
    check_same(proto, {"x": (1, 4)}, keeps=frozenset({"Identity"}))


def test_identity_from_input_to_output_keeps_the_computation() -> None:
    proto = model([helper.make_node("Identity", ["x"], ["y"], "id")], {"x": [1, 4]}, {"y": [1, 4]})
    check_same(proto, {"x": (1, 4)}, keeps=frozenset({"Identity"}))


def test_constant_nodes_become_initializers() -> None:
    value = onnx.numpy_helper.from_array(np.full((1, 4), 0.25, dtype=np.float32), "")
    proto = model(
        [
            helper.make_node("Constant", [], ["c0"], "c0", value=value),
            helper.make_node("Constant", [], ["c1"], "c1", value_float=2.0),
            helper.make_node("Constant", [], ["c2"], "c2", value_floats=[1.0, 2.0, 3.0, 4.0]),
            helper.make_node("Add", ["x", "c0"], ["a"], "add"),
            helper.make_node("Mul", ["a", "c1"], ["b"], "mul"),
            helper.make_node("Add", ["b", "c2"], ["y"], "add2"),
        ],
        {"x": [1, 4]},
        {"y": [1, 4]},
    )
    result = check_same(proto, {"x": (1, 4)})
    assert [node.op_type for node in result.graph.node] == ["Add", "Mul", "Add"]
    assert len(result.graph.initializer) == 3


def test_initializers_among_the_inputs_stop_being_inputs() -> None:
    proto = model(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "dense")],
        {"x": [1, 4]},
        {"y": [1, 4]},
        [weight("w", 4, 4)],
        weights_as_inputs=True,
    )
    check_same(proto, {"x": (1, 4)})


@pytest.mark.parametrize("names", [("n", "n", "n"), ("", "", ""), ("n", "", "n")])
def test_repeated_or_missing_node_names_become_unique(names: tuple[str, str, str]) -> None:
    proto = model(
        [
            helper.make_node("Relu", ["x"], ["a"], names[0]),
            helper.make_node("Neg", ["a"], ["b"], names[1]),
            helper.make_node("Relu", ["b"], ["y"], names[2]),
        ],
        {"x": [1, 4]},
        {"y": [1, 4]},
    )
    result = normalise(proto, {})
    assert len({node.name for node in result.graph.node} - {""}) == 3
    for position, node in enumerate(proto.graph.node):
        node.name = str(position)  # onnxruntime refuses repeated names
    feeds = random_feeds({"x": (1, 4)})
    np.testing.assert_array_equal(run(result, feeds)["y"], run(proto, feeds)["y"])


def test_unused_nodes_and_initializers_are_removed() -> None:
    proto = model(
        [
            helper.make_node("Relu", ["x"], ["y"], "relu"),
            helper.make_node("MatMul", ["x", "w"], ["unused"], "dead"),
        ],
        {"x": [1, 4]},
        {"y": [1, 4]},
        [weight("w", 4, 4), weight("v", 9)],
    )
    result = check_same(proto, {"x": (1, 4)})
    assert [node.op_type for node in result.graph.node] == ["Relu"]
    assert not result.graph.initializer


def test_optional_inputs_left_out_compute_the_same() -> None:
    high = onnx.numpy_helper.from_array(np.array(0.5, dtype=np.float32), "high")
    node = helper.make_node("Clip", ["x", "", "high"], ["y"], "clip")
    check_same(model([node], {"x": [1, 4]}, {"y": [1, 4]}, [high]), {"x": (1, 4)})


def symbolic() -> onnx.ModelProto:
    return model(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"], "dense"),
            helper.make_node("Reshape", ["a", "shape"], ["y"], "flat"),
        ],
        {"x": ["batch", "rows", 4]},
        {"y": ["batch", "columns"]},
        [weight("w", 4, 3), integers("shape", 0, -1)],
    )


def test_symbolic_dimensions_with_values_become_numbers() -> None:
    result = check_same(symbolic(), {"x": (2, 3, 4)}, dimensions={"batch": 2, "rows": 3})
    assert ModelGraph(result).tensor("y").shape == (2, 9)


@pytest.mark.parametrize(("dimensions", "named"), [({}, "batch"), ({"batch": 2}, "rows")])
def test_symbolic_dimension_without_a_value_is_refused_by_name(
    dimensions: dict[str, int], named: str
) -> None:
    with pytest.raises(DynamicShapeError, match=named):
        normalise(symbolic(), dimensions)


def test_value_below_one_for_a_dimension_is_refused() -> None:
    with pytest.raises(ConfigError, match="rows"):
        normalise(symbolic(), {"batch": 1, "rows": 0})


def test_value_for_a_dimension_that_the_model_lacks_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="bach"):
        normalise(symbolic(), {"batch": 1, "rows": 1, "bach": 1})


def test_shapes_that_contradict_each_other_are_refused() -> None:
    proto = model(
        [helper.make_node("Add", ["x", "z"], ["y"], "add")],
        {"x": ["n", 4], "z": ["m", 4]},
        {"y": ["n", 4]},
    )
    with pytest.raises(ChunkingError, match="shapes"):
        normalise(proto, {"n": 2, "m": 3})
