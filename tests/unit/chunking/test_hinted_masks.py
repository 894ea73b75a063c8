"""Softmaxes with dropped keys in hinted circuits: against the loops, onnxruntime and ezkl."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.chunking.builders import run as run_float
from tests.unit.chunking.hinted_circuit import HintedChunk, checked, hinted_chunk
from tests.unit.chunking.masks import FORMS, Kept, array, causal, model_of, node
from tests.unit.chunking.test_hinted_functions import accepted
from tests.unit.chunking.test_masks import random_mask, scores
from zkml_ray.chunking.hinted.forms import NotHintedError
from zkml_ray.chunking.hinted.numbers import Arithmetic
from zkml_ray.chunking.masked import DROPPED
from zkml_ray.errors import RangeExceededError

NUMBERS = Arithmetic(scale=7, logrows=10, range_bits=5)
DEEP = Arithmetic(scale=7, logrows=11, range_bits=5)


def chunk_of(
    kept: Kept, shape: Sequence[int], form: str = "-inf added", numbers: Arithmetic = NUMBERS
) -> HintedChunk:
    return hinted_chunk(model_of(FORMS[form](kept, shape), shape), numbers)


def shares(kept: Kept, x: np.ndarray, numbers: Arithmetic = NUMBERS) -> np.ndarray:
    """What a hinted masked softmax gives, as real numbers; checked against the loops."""
    found = checked(chunk_of(kept, x.shape, numbers=numbers), {"s": x.astype(np.float32)})["y"]
    return found / 2**numbers.scale


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_random_masks_give_the_loops_integers_and_onnxruntimes_shares(data: st.DataObject) -> None:
    draw, seed = data.draw, data.draw(st.integers(0, 1 << 20))
    keys = draw(st.integers(1, 70))
    shape = (*draw(st.sampled_from([(1,), (2, 1), (1, 2, 3), (3, 2)])), keys)
    mask_shape = (*tuple(size if draw(st.booleans()) else 1 for size in shape[:-1]), keys)
    scale = draw(st.integers(6, 8))
    numbers = Arithmetic(scale=scale, logrows=scale + 3 + (keys > 64), range_bits=5)
    proto = model_of(
        FORMS[draw(st.sampled_from(sorted(FORMS)))](random_mask(mask_shape, seed), shape), shape
    )
    x = {"s": scores(shape, seed, size=draw(st.sampled_from([0.0, 0.5, 3.0])))}
    chunk = hinted_chunk(proto, numbers, columns=draw(st.integers(1, 3)))
    found = checked(chunk, x)["y"] / 2**scale
    # Table and roundings; scores further down than the table reaches count as exp(-8) each.
    np.testing.assert_allclose(found, run_float(proto, x)["y"], atol=3 / 2**scale + keys * 4e-4)


def test_dropped_keys_have_no_share_however_large_their_scores() -> None:
    x = np.array([[1.0, 2.0, 31.0, -30.0], [31.0, -30.0, -31.0, 30.0]])
    kept = np.array([[True, True, False, False], [False, True, True, False]])
    found = shares(kept, x)
    assert not found[~kept].any()
    np.testing.assert_allclose(found[0, :2], [1 / (1 + math.e), math.e / (1 + math.e)], atol=0.02)
    np.testing.assert_allclose(found[1, 1:3], [math.e / (1 + math.e), 1 / (1 + math.e)], atol=0.02)


def test_a_row_with_one_key_has_all_of_it() -> None:
    x = np.array([[-31.0, 5.0, 9.0], [0.0, 31.0, 1.0], [4.0, 4.0, 4.0]])
    found = shares(np.eye(3, dtype=bool), x)
    np.testing.assert_array_equal(found, np.eye(3))


@pytest.mark.parametrize("tied", [2, 3, 9])
def test_tied_keys_share_alike(tied: int) -> None:
    kept = np.arange(12) < tied
    found = shares(kept[None, :], np.full((1, 12), 3.25))
    np.testing.assert_allclose(found[0, :tied], 1 / tied, atol=1 / 2**7)
    assert not found[0, tied:].any()


def attention(kept: Kept, heads: int, tokens: int, width: int, form: str) -> onnx.ModelProto:
    """softmax(mask(q k)) v, all of one input [1, heads, tokens, width]."""
    written = FORMS[form](kept, [1, heads, tokens, tokens])
    for each in written.nodes:
        for place, name in enumerate(each.input):
            each.input[place] = "scores" if name == "s" else name
    nodes = [
        node("Transpose", "x", to="k", perm=[0, 1, 3, 2]),
        node("MatMul", "x", "k", to="scores"),
        *written.nodes,
        node("Softmax", "m", to="p", axis=-1),
        node("MatMul", "p", "x", to="y"),
    ]
    value = [
        onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, heads, tokens, width])
        for n in "xy"
    ]
    graph = onnx.helper.make_graph(nodes, "attention", value[:1], value[1:], written.constants)
    opset = [onnx.helper.make_opsetid("", 17)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=9)


def heads_of(heads: int, tokens: int, width: int, seed: int = 0) -> dict[str, np.ndarray]:
    x = np.random.default_rng(seed).normal(size=(1, heads, tokens, width)) / math.sqrt(width)
    return {"x": x.astype(np.float32) * 1.5}


@pytest.mark.parametrize("form", ["-inf added", "chosen, -1e4", "reshaped"])
@pytest.mark.parametrize("sizes", [(1, 1, 2), (2, 5, 3), (1, 12, 4), (3, 9, 2)])
def test_attention_of_a_causal_mask_gives_the_loops_integers(
    form: str, sizes: tuple[int, int, int]
) -> None:
    heads, tokens, width = sizes
    proto = attention(causal(tokens, tokens), heads, tokens, width, form)
    arrays = heads_of(*sizes)
    found = checked(hinted_chunk(proto, NUMBERS), arrays)["y"] / 2**NUMBERS.scale
    np.testing.assert_allclose(found, run_float(proto, arrays)["y"], atol=0.02)


def test_padding_and_causal_masks_at_once() -> None:
    kept = causal(6, 6) & (np.arange(6) < 4)
    proto = attention(kept[None, None], 2, 6, 3, "chosen, -inf")
    arrays = heads_of(2, 6, 3)
    found = checked(hinted_chunk(proto, NUMBERS), arrays)["y"] / 2**NUMBERS.scale
    np.testing.assert_allclose(found, run_float(proto, arrays)["y"], atol=0.02)


@pytest.mark.parametrize("columns", [1, 3])
def test_ezkl_accepts_the_honest_witness(columns: int, tmp_path: Path) -> None:
    proto = attention(causal(4, 4), 2, 4, 2, "-inf added")
    chunk = hinted_chunk(proto, NUMBERS, columns=columns)
    assert accepted(chunk, chunk.quantised(heads_of(2, 4, 2)), tmp_path)


def test_ezkl_accepts_shares_that_are_read_by_themselves(tmp_path: Path) -> None:
    kept = random_mask((3, 5), 1)
    chunk = chunk_of(kept, (3, 5))
    assert accepted(chunk, chunk.quantised({"s": scores((3, 5))}), tmp_path)


def test_scores_that_are_dropped_are_held_in_range_too() -> None:
    chunk = chunk_of(np.array([[True, False]]), (1, 2))
    with pytest.raises(RangeExceededError, match="range-bits"):
        chunk.advice({"s": np.array([[0, 33 << NUMBERS.scale]])})


def test_what_reads_masked_scores_besides_a_softmax_has_no_hinted_form() -> None:
    nodes = [
        node("Where", "kept", "x", "low", to="m"),
        node("Softmax", "m", to="p", axis=-1),
        node("Add", "m", "p", to="y"),
    ]
    value = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [2, 3]) for n in "xy"]
    constants = [array("kept", causal(2, 3), np.bool_), array("low", DROPPED)]
    graph = onnx.helper.make_graph(nodes, "read", value[:1], value[1:], constants)
    opset = [onnx.helper.make_opsetid("", 17)]
    proto = onnx.helper.make_model(graph, opset_imports=opset, ir_version=9)
    with pytest.raises(NotHintedError, match="tensor of values"):
        hinted_chunk(proto, NUMBERS)
