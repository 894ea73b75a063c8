"""Splitting wide operators: the same numbers, made in parts."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.unit.chunking.builders import model, random_feeds, run, weight
from zkml_ray.chunking.normalize import normalise
from zkml_ray.chunking.passes.split_output import SplitOutput, splittable
from zkml_ray.chunking.rewrite import Rewrite, apply_rewrites, find_places
from zkml_ray.errors import ChunkingError


def gemm(transposed: int = 0) -> onnx.ModelProto:
    shape = (7, 6) if transposed else (6, 7)
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["a"], "wide", transB=transposed, alpha=0.5),
        helper.make_node("Relu", ["a"], ["r"], "relu"),
        helper.make_node("Mul", ["r", "m"], ["y"], "scale"),
    ]
    weights = [weight("w", *shape), weight("b", 7), weight("m", 1, 7)]
    return model(nodes, {"x": [2, 6]}, {"y": [2, 7]}, weights)


def matmul() -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "wide"),
        helper.make_node("Add", ["a", "x2"], ["y"], "residual"),
    ]
    inputs = {"x": [2, 3, 6], "x2": [2, 3, 8]}
    return model(nodes, inputs, {"y": [2, 3, 8]}, [weight("w", 6, 8)])


def constant_first() -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", ["w", "x"], ["y"], "wide")]
    return model(nodes, {"x": [6, 5]}, {"y": [8, 5]}, [weight("w", 8, 6)])


def conv() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["a"], "wide", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["y"], "relu"),
        helper.make_node("MaxPool", ["y"], ["z"], "pool", kernel_shape=[2, 2]),
    ]
    weights = [weight("w", 5, 3, 3, 3), weight("b", 5)]
    return model(nodes, {"x": [1, 3, 6, 6]}, {"z": [1, 5, 5, 5], "y": [1, 5, 6, 6]}, weights)


MODELS = {
    "gemm": gemm(),
    "gemm transposed": gemm(1),
    "matmul": matmul(),
    "constant first": constant_first(),
    "conv": conv(),
}


@pytest.mark.parametrize("parts", [2, 3, 5])
@pytest.mark.parametrize("name", sorted(MODELS))
def test_split_model_gives_the_same_numbers(name: str, parts: int) -> None:
    proto = normalise(MODELS[name], {})
    rewrites = [Rewrite(name="split-output", node="wide", parameter=parts)]
    split = apply_rewrites(proto, rewrites)
    operators = [node.op_type for node in split.graph.node]
    assert operators.count(proto.graph.node[0].op_type) == parts
    feeds = random_feeds(
        {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in proto.graph.input}
    )
    before, after = run(proto, feeds), run(split, feeds)
    assert before.keys() == after.keys()
    for tensor, values in before.items():
        np.testing.assert_allclose(after[tensor], values, rtol=1e-6, atol=1e-6)


def test_split_takes_what_follows_element_by_element_along() -> None:
    rewrites = [Rewrite(name="split-output", node="wide", parameter=2)]
    split = apply_rewrites(normalise(gemm(), {}), rewrites)
    assert [node.op_type for node in split.graph.node] == [
        *("Gemm", "Relu", "Mul"),
        *("Gemm", "Relu", "Mul"),
        "Concat",
    ]


def test_split_is_the_same_every_time() -> None:
    rewrites = [Rewrite(name="split-output", node="wide", parameter=3)]
    proto = normalise(conv(), {})
    first, second = (apply_rewrites(proto, rewrites) for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(
        deterministic=True
    )


def test_splittable_names_what_can_be_split_and_how_far() -> None:
    assert splittable(normalise(conv(), {})) == {"wide": 5}
    assert splittable(normalise(constant_first(), {})) == {"wide": 8}


def test_split_is_never_chosen_by_trying_every_pass() -> None:
    assert find_places(normalise(gemm(), {}), SplitOutput.name) == []


def grouped() -> onnx.ModelProto:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], "wide", group=4, kernel_shape=[3, 3])]
    return model(nodes, {"x": [1, 4, 5, 5]}, {"y": [1, 4, 3, 3]}, [weight("w", 4, 1, 3, 3)])


def products() -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", ["x", "x"], ["y"], "wide")]
    return model(nodes, {"x": [4, 4]}, {"y": [4, 4]})


@pytest.mark.parametrize(
    ("proto", "parts", "why"),
    [
        (grouped(), 2, "groups"),
        (products(), 2, "no constant weights"),
        (gemm(), 1, "expected 2 to 256"),
        (gemm(), 8, "expected 2 to 7"),
    ],
)
def test_split_that_cannot_be_made_is_refused(proto: onnx.ModelProto, parts: int, why: str) -> None:
    with pytest.raises(ChunkingError, match=why):
        apply_rewrites(
            normalise(proto, {}), [Rewrite(name="split-output", node="wide", parameter=parts)]
        )
