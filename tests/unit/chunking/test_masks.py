"""Masks in one form: what drops keys is recognised by what it does, and nothing else is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from tests.unit.chunking.builders import run
from tests.unit.chunking.masks import (
    CAUSAL_FORMS,
    FORMS,
    LOWEST,
    Kept,
    Written,
    added,
    array,
    causal,
    filled,
    guard,
    model_of,
    node,
)
from zkml_ray.chunking.masked import is_masked
from zkml_ray.chunking.normalize import normalise
from zkml_ray.errors import UnsupportedOperatorError

CLOSE = 1e-6


def masked_nodes(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    return [each for each in proto.graph.node if is_masked(each, constants)]


def kept_of(proto: onnx.ModelProto) -> Kept:
    (found,) = masked_nodes(proto)
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    return numpy_helper.to_array(constants[found.input[0]])


def scores(shape: Sequence[int], seed: int = 0, size: float = 4.0) -> np.ndarray:
    made: np.ndarray = np.random.default_rng(seed).normal(size=tuple(shape)) * size
    return made.astype(np.float32)


def random_mask(shape: Sequence[int], seed: int) -> Kept:
    """Any mask that leaves a key in every row."""
    generator = np.random.default_rng(seed)
    kept = generator.random(tuple(shape)) < generator.random()
    keys = shape[-1]
    flat = kept.reshape(-1, keys)
    flat[np.arange(len(flat)), generator.integers(keys, size=len(flat))] = True
    return flat.reshape(tuple(shape))


@st.composite
def shapes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of scores, and of a mask that broadcasts to it and has the keys."""
    rank = draw(st.integers(2, 4))
    whole = (*(draw(st.integers(1, 5)) for _ in range(rank - 1)), draw(st.integers(1, 40)))
    rows = tuple(size if draw(st.booleans()) else 1 for size in whole[:-1])
    mask = (*rows, whole[-1])
    return whole, mask[draw(st.integers(0, rank - 1)) :]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(FORMS)), shapes(), st.integers(0, 1 << 20))
def test_masks_of_every_form_are_found(
    form: str, sizes: tuple[tuple[int, ...], tuple[int, ...]], seed: int
) -> None:
    shape, mask_shape = sizes
    kept = random_mask(mask_shape, seed)
    proto = model_of(FORMS[form](kept, shape), shape)
    made = normalise(proto, {})
    x = {"s": scores(shape, seed)}
    np.testing.assert_allclose(run(made, x)["y"], run(proto, x)["y"], atol=CLOSE)
    if kept.all():
        assert not masked_nodes(made)
    else:
        found = np.broadcast_to(kept_of(made), shape)
        np.testing.assert_array_equal(found, np.broadcast_to(kept, shape))
        assert {each.op_type for each in made.graph.node} <= {"Where", "Softmax", "Mul", "Reshape"}


@pytest.mark.parametrize("form", CAUSAL_FORMS)
@pytest.mark.parametrize("sizes", [(1, 1), (3, 3), (8, 8), (5, 9), (64, 64)])
def test_causal_masks_of_positions_and_buffers_are_found(form: str, sizes: tuple[int, int]) -> None:
    shape = (1, 2, *sizes)
    kept = np.tri(*sizes, dtype=bool)
    proto = model_of(CAUSAL_FORMS[form](kept, shape), shape)
    made = normalise(proto, {})
    x = {"s": scores(shape)}
    np.testing.assert_allclose(run(made, x)["y"], run(proto, x)["y"], atol=CLOSE)
    if sizes != (1, 1):
        np.testing.assert_array_equal(np.broadcast_to(kept_of(made), (1, 1, *sizes))[0, 0], kept)


@pytest.mark.parametrize("low", [-3.0, -20.0, -79.0])
def test_a_bias_stays_a_bias(low: float) -> None:
    shape = (1, 4, 6)
    proto = model_of(added(low)(causal(4, 6), shape), shape)
    made = normalise(proto, {})
    assert not masked_nodes(made)
    assert [each.op_type for each in made.graph.node] == ["Add", "Softmax"]


def test_a_bias_within_a_mask_is_added_where_keys_are_kept() -> None:
    """As linear biases of position are exported: slopes and -inf in one constant."""
    shape = (1, 3, 6, 6)
    kept = causal(6, 6)
    distance = np.arange(6)[:, None] - np.arange(6)
    bias = -distance * np.array([0.5, 0.25, 3.0])[:, None, None]
    constant = np.where(kept, bias, -np.inf)
    proto = model_of(Written([node("Add", "s", "mask", to="m")], [array("mask", constant)]), shape)
    made = normalise(proto, {})
    assert sorted(each.op_type for each in made.graph.node) == ["Add", "Softmax", "Where"]
    x = {"s": scores(shape)}
    np.testing.assert_allclose(run(made, x)["y"], run(proto, x)["y"], atol=CLOSE)


@pytest.mark.parametrize("axis", [0, 1, 2, -2])
def test_rows_lie_along_the_axis_of_the_softmax(axis: int) -> None:
    shape = (4, 5, 6)
    kept = random_mask(shape, 3)
    kept = np.moveaxis(kept, axis, -1)
    kept[..., 0] = True
    kept = np.moveaxis(kept, -1, axis)
    proto = model_of(added(-np.inf)(kept, shape), shape, axis=axis)
    made = normalise(proto, {})
    np.testing.assert_array_equal(kept_of(made), kept)
    x = {"s": scores(shape)}
    np.testing.assert_allclose(run(made, x)["y"], run(proto, x)["y"], atol=CLOSE)


@pytest.mark.parametrize("low", [-100.0, -1e4, -1e9, LOWEST])
@pytest.mark.parametrize("by", [added, filled])
def test_a_row_whose_keys_are_all_dropped_by_a_number_is_what_onnxruntime_gives(
    low: float, by: object
) -> None:
    """Added to all of a row a number changes nothing, or all is lost beside it; chosen, rows are
    even."""
    shape = (2, 3, 5)
    kept = random_mask(shape, 1)
    kept[0, 1] = kept[1, 2] = False
    proto = model_of(by(low)(kept, shape), shape)  # type: ignore[operator]
    made = normalise(proto, {})
    x = {"s": scores(shape)}
    expected, found = (run(each, x)["y"] for each in (proto, made))
    # Beside -1e4 float32 rounds scores to 2^-10.
    np.testing.assert_allclose(found, expected, atol=3e-4)


def test_a_number_that_blurs_all_scores_of_a_row_is_refused() -> None:
    kept = causal(3, 3)
    kept[1] = False
    proto = model_of(added(-1e6)(kept, (3, 3)), (3, 3))
    with pytest.raises(UnsupportedOperatorError, match="beside which float32 holds little"):
        normalise(proto, {})


def test_a_row_without_keys_is_refused_by_name() -> None:
    kept = causal(4, 4)
    kept[2] = False
    proto = model_of(added(-np.inf)(kept, (1, 4, 4)), (1, 4, 4))
    with pytest.raises(UnsupportedOperatorError, match=r"n_y \(Softmax\).*1 of 4 rows at -inf"):
        normalise(proto, {})


def test_a_guarded_row_without_keys_is_what_the_guard_gives() -> None:
    shape = (2, 4, 4)
    kept = random_mask(shape, 2)
    kept[1, 2] = False
    nodes, constants = guard(shape)
    written = added(-np.inf)(kept, shape)
    written.constants += constants
    proto = model_of(written, shape, nodes)
    made = normalise(proto, {})
    x = {"s": scores(shape)}
    expected = run(proto, x)["y"]
    assert not expected[1, 2].any()
    np.testing.assert_allclose(run(made, x)["y"], expected, atol=CLOSE)


def test_a_guard_of_rows_that_have_keys_goes() -> None:
    shape = (2, 4, 4)
    nodes, constants = guard(shape)
    written = filled(-np.inf)(causal(4, 4), shape)
    written.constants += constants
    made = normalise(model_of(written, shape, nodes), {})
    assert [each.op_type for each in made.graph.node] == ["Where", "Softmax"]


def test_a_guard_that_asks_the_scores_goes() -> None:
    """As torch's newer exporter decomposes it: rows all of whose scores are -inf become zero."""
    shape = (2, 4, 4)
    kept = random_mask(shape, 5)
    kept[0, 3] = False
    written = added(-np.inf)(kept, shape)
    tail = [
        node("Equal", "m", "low", to="is_low"),
        node("Not", "is_low", to="is_there"),
        node("Where", "is_there", "one", "zero_int", to="there"),
        node("ReduceMax", "there", to="any", axes=[-1], keepdims=1),
        node("Equal", "any", "zero_int", to="none_left"),
        node("Where", "none_left", "zero", "p", to="y"),
    ]
    written.constants += [
        array("low", -np.inf),
        array("one", 1, np.int64),
        array("zero_int", 0, np.int64),
        array("zero", 0.0),
    ]
    proto = model_of(written, shape, tail)
    made = normalise(proto, {})
    x = {"s": scores(shape)}
    np.testing.assert_allclose(run(made, x)["y"], run(proto, x)["y"], atol=CLOSE)
