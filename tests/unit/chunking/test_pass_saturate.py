"""Pass saturate: Sigmoid, Tanh and Exp of any argument are within what the pass states."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.unit.chunking.builders import model, run
from zkml_ray import PlanOptions
from zkml_ray.chunking.load import parse_model
from zkml_ray.chunking.normalize import normalise
from zkml_ray.chunking.rewrite import Rewrite, apply_rewrites, find_places
from zkml_ray.errors import ChunkingError, RangeExceededError
from zkml_ray.stages.accuracy import measure_accuracy
from zkml_ray.stages.plan import plan

VALUES = np.array([[-300, -30, -8.5, -8, -7.75, -1, -0.01, 0, 0.5, 7.7, 7.9, 8, 9, 200]])
SIZE = VALUES.shape[1]


def function(op_type: str) -> onnx.ModelProto:
    nodes = [helper.make_node("Relu", ["x"], ["r"], "relu"), helper.make_node("Neg", ["x"], ["n"])]
    nodes += [helper.make_node("Relu", ["n"], ["m"]), helper.make_node("Sub", ["r", "m"], ["s"])]
    nodes.append(helper.make_node(op_type, ["s"], ["y"], "function"))
    return model(nodes, {"x": [1, SIZE]}, {"y": [1, SIZE]})


def feeds_of(op_type: str) -> dict[str, np.ndarray]:
    """e^x has no bound above: it is read up to 2."""
    values = VALUES.clip(max=2) if op_type == "Exp" else VALUES
    return {"x": values.astype(np.float32)}


@pytest.mark.parametrize(
    ("op_type", "bound"), [("Sigmoid", 4.4e-4), ("Tanh", 4e-7), ("Exp", 4.4e-4)]
)
def test_rewritten_function_differs_by_no_more_than_is_stated(op_type: str, bound: float) -> None:
    proto = normalise(function(op_type), {})
    rewritten = apply_rewrites(proto, find_places(proto, "saturate"))
    feeds = feeds_of(op_type)
    difference = np.abs(run(rewritten, feeds)["y"] - run(proto, feeds)["y"])
    assert 0 < difference.max() < bound


@pytest.mark.parametrize("op_type", ["Exp", "Sigmoid", "Softmax", "Tanh"])
@pytest.mark.parametrize("scale", [6, 10])
def test_argument_beyond_the_table_has_a_witness(op_type: str, scale: int) -> None:
    loaded = parse_model(function(op_type).SerializeToString(), "model.onnx")
    feeds = feeds_of(op_type)
    options = PlanOptions(scale=scale, circuits="native", layers_per_chunk=1)
    report = measure_accuracy(loaded, plan(loaded, options), [feeds])
    step = 2.0**-scale
    # A rounded argument moves e^x by half a step of it times e^x.
    assert report.max_abs_error < (3 * step if op_type != "Exp" else 8 * step)
    without = PlanOptions(scale=scale, circuits="native", layers_per_chunk=1, passes=())
    with pytest.raises(RangeExceededError, match=r"reached -\d+, beyond its table.*normalise"):
        measure_accuracy(loaded, plan(loaded, without), [feeds])


@pytest.mark.parametrize(
    ("op_type", "low", "high", "places"),
    [
        ("Tanh", -7, 7, 0),
        ("Tanh", -7, 9, 1),
        ("Tanh", -9, 7, 1),
        ("Exp", -7, 9, 0),
        ("Exp", -9, 1, 1),
    ],
)
def test_an_argument_that_is_clipped_too_far_out_is_clipped_again(
    op_type: str, low: float, high: float, places: int
) -> None:
    bounds = [numpy_helper.from_array(np.float32(v), n) for v, n in ((low, "low"), (high, "high"))]
    nodes = [
        helper.make_node("Clip", ["x", "low", "high"], ["c"], "clip"),
        helper.make_node(op_type, ["c"], ["y"], "function"),
    ]
    proto = normalise(model(nodes, {"x": [1, 2]}, {"y": [1, 2]}, bounds), {})
    assert len(find_places(proto, "saturate")) == places


def test_a_clipped_argument_is_left_and_another_operator_refused() -> None:
    low, high = (numpy_helper.from_array(np.float32(v), n) for v, n in ((-1, "low"), (1, "high")))
    nodes = [
        helper.make_node("Clip", ["x", "low", "high"], ["c"], "clip"),
        helper.make_node("Tanh", ["c"], ["y"], "function"),
    ]
    proto = normalise(model(nodes, {"x": [1, 2]}, {"y": [1, 2]}, [low, high]), {})
    assert find_places(proto, "saturate") == []
    for node, reason in (("function", "clipped already"), ("clip", "it is a Clip")):
        with pytest.raises(ChunkingError, match=reason):
            apply_rewrites(proto, [Rewrite(name="saturate", node=node)])
