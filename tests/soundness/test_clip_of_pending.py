"""Bounds that no rounded value reaches are bounds all the same of what is not rounded yet.

A planner chooses the range. With a small one the bounds of Clip lie outside; were they left out,
what is clipped could be scaled back into the range behind them, and another class would win.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from zkml_ray import PlanOptions
from zkml_ray.chunking.load import parse_model
from zkml_ray.errors import ZkmlRayError
from zkml_ray.stages.accuracy import measure_accuracy
from zkml_ray.stages.plan import plan


def scaled_back(low: float | None, high: float | None, gain: float) -> onnx.ModelProto:
    """Y = clip(x W) / gain * [1, 1.2], where x W is large."""
    bounds = {"low": low, "high": high}
    constants = [
        numpy_helper.from_array(np.diag([gain, gain]).astype(np.float32), "w"),
        numpy_helper.from_array(np.array([1 / gain, 1.2 / gain], dtype=np.float32), "back"),
    ]
    constants += [
        numpy_helper.from_array(np.array(value, dtype=np.float32), name)
        for name, value in bounds.items()
        if value is not None
    ]
    names = [name if value is not None else "" for name, value in bounds.items()]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["m"], "dense"),
            helper.make_node("Clip", ["m", *names], ["c"], "clip"),
            helper.make_node("Mul", ["c", "back"], ["y"], "scale"),
        ],
        "clip",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize("range_bits", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize(
    ("low", "high"),
    [(-8.0, 8.0), (None, 8.0), (-8.0, None), (6.0, 12.0), (-12.0, -6.0), (-100.0, 3.0)],
)
def test_clip_behind_a_small_range_is_right_or_refused(
    low: float | None, high: float | None, range_bits: int
) -> None:
    loaded = parse_model(scaled_back(low, high, 8.0).SerializeToString(), "model.onnx")
    options = PlanOptions(
        scale=10, circuits="hinted", range_bits=range_bits, layers_per_chunk=1 << 20
    )
    samples = [
        np.array([values], dtype=np.float32) for values in ([1.9, 1.5], [-1.9, 0.2], [0.5, -1.2])
    ]
    try:
        made = plan(loaded, options)
        errors = [measure_accuracy(loaded, made, [{"x": x}]).max_abs_error for x in samples]
    except ZkmlRayError:
        return
    assert max(e for e in errors if e is not None) < 2**-8
