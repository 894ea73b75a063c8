"""Convolutions as matrix products: equal reals and integers, fewer cells, refusals."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from tests.unit.chunking.builders import model, random_feeds, run, weight
from tests.unit.chunking.quantised import run_quantised
from zkml_ray.chunking.normalize import normalise
from zkml_ray.chunking.rewrite import Rewrite, apply_rewrites, find_places
from zkml_ray.errors import ChunkingError

BITS = 10


def conv(
    source: tuple[int, ...],
    kernel: tuple[int, ...],
    *,
    out_channels: int = 3,
    bias: bool = True,
    group: int = 1,
    **attributes: list[int],
) -> onnx.ModelProto:
    weights = [weight("w", out_channels, source[1] // group, *kernel)]
    if bias:
        weights.append(weight("b", out_channels))
    node = helper.make_node(
        "Conv", ["x", *[w.name for w in weights]], ["y"], "conv", group=group, **attributes
    )
    bare = model([node], {"x": source}, {"y": [f"d{i}" for i in range(len(source))]}, weights)
    return normalise(bare, {})


def rewritten(proto: onnx.ModelProto, bits: int = BITS) -> onnx.ModelProto:
    return apply_rewrites(proto, [Rewrite(name="conv-im2col", node="conv", parameter=bits)])


def operators(proto: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


@st.composite
def convolutions(draw: st.DrawFn) -> onnx.ModelProto:
    rank = draw(st.integers(1, 3))
    kernel = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    pads = [draw(st.integers(0, 2)) for _ in range(2 * rank)]
    strides = [draw(st.integers(1, 3)) for _ in range(rank)]
    sizes = tuple(draw(st.integers(3, 6)) for _ in range(rank))
    batch, channels, group = (draw(st.integers(1, 3)) for _ in range(3))
    return conv(
        (batch, channels * group, *sizes),
        kernel,
        out_channels=draw(st.integers(1, 3)) * group,
        group=group,
        bias=draw(st.booleans()),
        pads=pads,
        strides=strides,
    )


@given(convolutions())
@settings(max_examples=60, deadline=None)
def test_rewritten_convolution_differs_by_weight_rounding_alone(proto: onnx.ModelProto) -> None:
    shape = [dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim]
    feeds = random_feeds({"x": shape})
    made = rewritten(proto, bits=16)
    assert "Conv" not in operators(made)
    expected, found = run(proto, feeds)["y"], run(made, feeds)["y"]
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("source", "kernel", "attributes"),
    [
        ((1, 1, 8, 8), (3, 3), {}),
        ((1, 3, 6, 6), (3, 3), {"pads": [1, 1, 1, 1]}),
        ((1, 2, 7, 7), (3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
        ((1, 4, 5, 5), (1, 1), {}),
        ((2, 2, 5, 5), (2, 3), {"pads": [1, 0, 0, 1]}),
        ((1, 2, 9), (3,), {"pads": [1, 1], "strides": [2]}),
        ((1, 3, 6, 6), (3, 3), {"pads": [1, 1, 1, 1], "group": 3}),
        ((1, 6, 4, 4), (1, 1), {"group": 3}),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_rewritten_convolution_has_the_native_integers(
    source: tuple[int, ...], kernel: tuple[int, ...], attributes: dict[str, list[int]], bias: bool
) -> None:
    proto = conv(source, kernel, bias=bias, **attributes)
    feeds = random_feeds({"x": source})
    native, made = run_quantised(proto, feeds), run_quantised(rewritten(proto), feeds)
    assert made.scale == native.scale == 10
    # tract makes a product of a pointwise convolution, whose bias ezkl adds after the rebase.
    slack = 1 if set(kernel) == {1} and bias else 0
    assert np.abs(made.integers - native.integers).max() <= slack
    # The appended zero, and without a ReLU after it nothing to save.
    assert made.cells <= native.cells * 1.02 + 10


def test_pointwise_convolution_needs_no_gather() -> None:
    assert "Gather" not in operators(rewritten(conv((1, 4, 5, 5), (1, 1))))
    assert "Gather" in operators(rewritten(conv((1, 4, 5, 5), (1, 1), strides=[2, 2])))


def test_rewrite_gives_the_same_bytes_every_time() -> None:
    proto = conv((1, 2, 6, 6), (3, 3), pads=[1, 1, 1, 1])
    first, second = (rewritten(proto).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_places_are_the_convolutions_with_constant_weights() -> None:
    assert find_places(conv((1, 2, 6, 6), (3, 3)), "conv-im2col") == [
        Rewrite(name="conv-im2col", node="conv", parameter=10)
    ]
    assert find_places(conv((1, 2, 6, 6), (3, 3), dilations=[2, 2]), "conv-im2col") == []


@pytest.mark.parametrize(
    ("proto", "bits", "reason"),
    [
        (conv((1, 2, 6, 6), (3, 3), dilations=[2, 2]), BITS, "dilated"),
        (conv((1, 2, 6, 6), (3, 3)), 24, "expected 4 to 20"),
        (conv((1, 2, 6, 6), (3, 3)), 3, "expected 4 to 20"),
    ],
)
def test_convolution_without_the_precondition_is_refused(
    proto: onnx.ModelProto, bits: int, reason: str
) -> None:
    with pytest.raises(ChunkingError, match=reason):
        rewritten(proto, bits)


def test_another_operator_is_refused() -> None:
    proto = normalise(
        model([helper.make_node("Relu", ["x"], ["y"], "conv")], {"x": [1, 2]}, {"y": [1, 2]}), {}
    )
    with pytest.raises(ChunkingError, match="not a Conv"):
        rewritten(proto)
