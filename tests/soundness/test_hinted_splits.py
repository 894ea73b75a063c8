"""Attacks on what a split at zero gives, and on maxima of windows that overlap.

Abs and LeakyRelu read both parts of x = p - n; a maximum may read an element in several windows.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from zkml_ray.chunking.hinted.numbers import Arithmetic

from .hinted import HintedChunk

NUMBERS = Arithmetic(scale=4, logrows=11, range_bits=2)


def model(nodes: list[onnx.NodeProto], x: list[int], y: list[int]) -> onnx.ModelProto:
    draw = np.random.default_rng(4)
    weight = (draw.normal(size=(6, 4)) * 0.5).astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "chunk",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, y)],
        [
            numpy_helper.from_array(weight, "w"),
            numpy_helper.from_array(np.float32(-0.5), "low"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def behind_a_layer(operator: onnx.NodeProto) -> onnx.ModelProto:
    return model([helper.make_node("MatMul", ["x", "w"], ["a"], "fc"), operator], [1, 6], [1, 4])


MODELS = {
    "magnitude": behind_a_layer(helper.make_node("Abs", ["a"], ["y"], "abs")),
    "clipped from below": behind_a_layer(helper.make_node("Clip", ["a", "low"], ["y"], "clip")),
    "overlapping maxima": model(
        [helper.make_node("MaxPool", ["x"], ["y"], "pool", kernel_shape=[2], strides=[1])],
        [1, 1, 6],
        [1, 1, 5],
    ),
}


@pytest.fixture(scope="module", params=sorted(MODELS))
def chunk(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> HintedChunk:
    """A split, or maxima, of one digit each."""
    folder: Path = tmp_path_factory.mktemp("split")
    values = np.random.default_rng(2).integers(-24, 24, size=6).tolist()
    return HintedChunk(folder, MODELS[request.param], NUMBERS, values)


def sites(chunk: HintedChunk) -> list[tuple[int, list[int]]]:
    """Per result, its position and its distances'."""
    (results,), (distances,) = chunk.roles.results, chunk.roles.distances
    return [
        (int(results[tuple(s)]), [int(d) for d in distances[(slice(None), *s)]])
        for s in np.argwhere(results >= 0)
    ]


def test_honest_hints_are_accepted(chunk: HintedChunk) -> None:
    assert chunk.accepts(chunk.input())


@pytest.mark.parametrize("amount", [1, 2, 100])
def test_parts_that_are_both_larger_are_refused(chunk: HintedChunk, amount: int) -> None:
    """p + a and n + a: their difference is the same, so every sum holds; their product is not 0."""
    for result, distances in sites(chunk):
        hints = list(chunk.hints)
        for place in (result, *distances):
            hints[place] += amount
        assert not chunk.accepts(chunk.input(hints=hints))


def test_parts_that_are_swapped_or_smaller_are_refused(chunk: HintedChunk) -> None:
    for result, distances in sites(chunk):
        swapped, smaller = list(chunk.hints), list(chunk.hints)
        swapped[result], swapped[distances[0]] = swapped[distances[0]], swapped[result]
        if swapped != list(chunk.hints):
            assert not chunk.accepts(chunk.input(hints=swapped))
        for place in (result, *distances):
            smaller[place] -= 1
        assert not chunk.accepts(chunk.input(hints=smaller))
