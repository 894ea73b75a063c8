"""Operators that ONNX defines by others: normalised as defined, beside ONNX's own node tests."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.conformance.onnx_nodes import NodeCase, node_cases
from tests.unit.chunking.builders import random_feeds, run
from zkml_ray.chunking.dimensions import complete_dimensions
from zkml_ray.chunking.load import parse_model
from zkml_ray.chunking.normal_form.expanded import EXPANDED
from zkml_ray.chunking.normalize import normalise
from zkml_ray.chunking.operators import SUPPORTED
from zkml_ray.errors import ChunkingError

FEWER = {"Attention": 4, "SoftmaxCrossEntropyLoss": 4, "NegativeLogLikelihoodLoss": 4}
"""Of these one test in so many is taken."""

TESTED_BELOW = {"CastLike"}


@pytest.fixture(scope="module")
def cases() -> list[NodeCase]:
    seen: Counter[str] = Counter()
    taken = []
    for case in node_cases():
        if case.operator in EXPANDED:
            seen[case.operator] += 1
            if seen[case.operator] % FEWER.get(case.operator, 1) == 0:
                taken.append(case)
    return taken


def test_definitions_compute_what_onnx_expects_or_are_refused_in_a_line(
    cases: list[NodeCase],
) -> None:
    right: Counter[str] = Counter()
    for case in cases:
        model = parse_model(case.model.SerializeToString(), case.name)
        try:
            made = normalise(model.proto, complete_dimensions(model.proto, {}).values)
        except ChunkingError as error:
            assert "\n" not in error.message
            continue
        assert {node.op_type for node in made.graph.node} <= SUPPORTED
        names = [value.name for value in made.graph.input]
        feeds = {name: np.asarray(case.feeds[name], dtype=np.float32) for name in names}
        for name, value in run(made, feeds).items():
            want = np.asarray(case.expected[name], dtype=np.float32)
            np.testing.assert_allclose(value, want, rtol=1e-3, atol=2e-3, err_msg=case.name)
        right[case.operator] += 1
    assert set(right) == EXPANDED - TESTED_BELOW
    assert (
        right["Attention"] >= 25
    )  # of 41: masks beside others, past keys with no mask are refused


def attention(name: str, **attributes: object) -> onnx.ModelProto:
    shape = [1, 2, 3, 4]
    graph = helper.make_graph(
        [helper.make_node("Attention", ["x", "k", "x"], ["y"], name, **attributes)],
        "test",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("x", "k")],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)


@pytest.mark.parametrize("name", ["heads", ""])
def test_what_a_definition_makes_is_named_after_its_node(name: str) -> None:
    proto = attention(name, is_causal=1)
    made = normalise(proto, {})
    own = f"{name or 'Attention_0'}/"
    assert all(node.name.startswith(own) for node in made.graph.node)
    feeds = random_feeds({"x": [1, 2, 3, 4], "k": [1, 2, 3, 4]}, 0)
    np.testing.assert_allclose(run(made, feeds)["y"], run(proto, feeds)["y"], atol=1e-5)


def test_a_cast_like_another_tensor_is_nothing() -> None:
    nodes = [
        helper.make_node("CastLike", ["n", "x"], ["like"]),
        helper.make_node("Mul", ["x", "like"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 8])],
        [helper.make_tensor("n", TensorProto.INT64, [8], range(8))],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    made = normalise(proto, {})
    assert [node.op_type for node in made.graph.node] == ["Mul"]
    feeds = random_feeds({"x": [2, 8]}, 0)
    np.testing.assert_allclose(run(made, feeds)["y"], run(proto, feeds)["y"], atol=1e-6)
