"""Softmaxes with dropped keys in native circuits, as ezkl computes them, beside onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.unit.chunking.builders import run
from tests.unit.chunking.masks import FORMS, Kept, causal, model_of, node
from tests.unit.chunking.test_hinted_masks import attention, heads_of
from tests.unit.chunking.test_masks import random_mask, scores
from tests.zoo.quantised import real_outputs
from zkml_ray.errors import ChunkingError

SCALE = 10


@pytest.mark.parametrize(
    ("form", "shape", "axis"),
    [
        ("-inf added", (1, 2, 4, 4), -1),
        ("chosen, -1e4", (3, 5), -1),
        ("reshaped", (2, 2, 3, 7), -1),
        ("chosen, -inf, negated", (3, 4, 2), 1),
        ("multiplied", (1, 33), -1),
    ],
)
def test_masked_shares_are_near_onnxruntimes(
    form: str, shape: Sequence[int], axis: int, tmp_path: Path
) -> None:
    kept = np.moveaxis(random_mask(np.moveaxis(np.empty(shape), axis, -1).shape, 4), -1, axis)
    proto = model_of(FORMS[form](kept, shape), shape, axis=axis)
    x = {"s": scores(shape, 1, size=1.0)}
    found = real_outputs(proto, x, tmp_path, scale=SCALE)["y"]
    np.testing.assert_allclose(found, run(proto, x)["y"], atol=4 / 2**SCALE)
    assert not found[~np.broadcast_to(kept, shape)].any()


def test_masked_scores_may_be_anything_of_the_range(tmp_path: Path) -> None:
    """A dropped score is not looked up, a kept one lies below the largest kept one."""
    kept = np.array([[True, False, True], [False, True, False]])
    proto = model_of(FORMS["-inf added"](kept, (2, 3)), (2, 3))
    x = {"s": np.array([[-50.0, 40.0, -51.0], [60.0, -60.0, 30.0]], dtype=np.float32)}
    found = real_outputs(proto, x, tmp_path, scale=SCALE)["y"]
    np.testing.assert_allclose(found, run(proto, x)["y"], atol=4 / 2**SCALE)


def test_causal_attention_is_near_onnxruntimes(tmp_path: Path) -> None:
    proto = attention(causal(5, 5), 2, 5, 4, "chosen, -inf")
    arrays = heads_of(2, 5, 4)
    found = real_outputs(proto, arrays, tmp_path, scale=SCALE)["y"]
    np.testing.assert_allclose(found, run(proto, arrays)["y"], atol=8 / 2**SCALE)


def test_masked_scores_that_something_else_reads_are_refused_by_name(tmp_path: Path) -> None:
    kept: Kept = causal(2, 3)
    proto = model_of(FORMS["chosen, -inf"](kept, (2, 3)), (2, 3))
    from zkml_ray.chunking.masked import DROPPED

    for tensor in proto.graph.initializer:
        if tensor.name == "low":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.float32(DROPPED), "low"))
    proto.graph.node[-1].CopyFrom(node("Relu", "m", to="y"))
    with pytest.raises(ChunkingError, match="masked scores are read by Relu"):
        real_outputs(proto, {"s": scores((2, 3))}, tmp_path, scale=SCALE)
