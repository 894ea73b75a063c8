"""What follows from proved values is cut off a model's end, and said."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.unit.chunking.builders import random_feeds, run
from zkml_ray import PlanOptions
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.load import parse_model
from zkml_ray.chunking.normal_form.tails import tail_notices
from zkml_ray.chunking.normalize import normalise
from zkml_ray.stages.accuracy import measure_accuracy
from zkml_ray.stages.plan import plan
from zkml_ray.stages.reference import reference_outputs

ZERO = numpy_helper.from_array(np.array(0.25, dtype=np.float32), "zero")
ONE = numpy_helper.from_array(np.array([1], dtype=np.int64), "one")


def node(op_type: str, *names: str, **attributes: object) -> onnx.NodeProto:
    *reads, made = names
    return helper.make_node(op_type, reads, [made], f"n_{made}", **attributes)


def model(tail: Sequence[onnx.NodeProto], outputs: dict[str, int]) -> onnx.ModelProto:
    """Logits = relu(x), then a tail."""
    used = {name for each in tail for name in each.input}
    graph = helper.make_graph(
        [node("Relu", "x", "logits"), *tail],
        "tail",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
        [constant for constant in (ZERO, ONE) if constant.name in used],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    made = onnx.shape_inference.infer_shapes(made, data_prop=True)
    onnx.checker.check_model(made)
    return made


INTEGER, BOOL, FLOAT = TensorProto.INT64, TensorProto.BOOL, TensorProto.FLOAT
TAILS = {
    "class": [node("ArgMax", "logits", "y", axis=1)],
    "class, without its axis": [
        node("ArgMax", "logits", "a", axis=1, keepdims=1),
        node("Squeeze", "a", "one", "y"),
    ],
    "class as a float": [node("ArgMax", "logits", "a", axis=1), node("Cast", "a", "y", to=FLOAT)],
    "reshaped logits' class": [
        node("Flatten", "logits", "f"),
        node("ArgMin", "f", "y", axis=1),
    ],
    "threshold": [node("Greater", "logits", "zero", "y")],
    "threshold as a number": [
        node("Less", "logits", "zero", "a"),
        node("Not", "a", "b"),
        node("Cast", "b", "y", to=INTEGER),
    ],
    "whole numbers": [node("Cast", "logits", "y", to=INTEGER)],
    "one-hot class": [node("Hardmax", "logits", "y", axis=1)],
}
STARTS = {"reshaped logits' class": "f"}


def kind_of(tail: Sequence[onnx.NodeProto]) -> int:
    last = tail[-1]
    if last.op_type == "Cast":
        return int(last.attribute[0].i)
    return {"Greater": BOOL, "Hardmax": FLOAT}.get(last.op_type, INTEGER)


@pytest.mark.parametrize("name", TAILS)
def test_tail_is_cut_off_and_said(name: str) -> None:
    tail = TAILS[name]
    proto = model(tail, {"y": kind_of(tail)})
    result = normalise(proto, {})
    start = STARTS.get(name, "logits")
    assert ModelGraph(result).outputs == (start,)
    (notice,) = tail_notices(proto)
    assert notice == f"output y follows from {start}, which is proved in its place"
    feeds = random_feeds({"x": (1, 4)})
    np.testing.assert_array_equal(run(result, feeds)[start], np.maximum(feeds["x"], 0))


def test_logits_that_are_an_output_too_stand_once() -> None:
    proto = model(TAILS["class"], {"y": INTEGER, "logits": FLOAT})
    assert ModelGraph(normalise(proto, {})).outputs == ("logits",)


@pytest.mark.parametrize("tail", [[node("Neg", "logits", "y")], [node("Flatten", "logits", "y")]])
def test_what_computes_is_no_tail(tail: list[onnx.NodeProto]) -> None:
    proto = model(tail, {"y": FLOAT})
    assert ModelGraph(normalise(proto, {})).outputs == ("y",)
    assert tail_notices(proto) == ()


def test_class_of_two_tensors_compared_is_no_tail() -> None:
    two = [node("Neg", "x", "n"), node("Less", "logits", "n", "y")]
    assert tail_notices(model(two, {"y": BOOL})) == ()


def test_what_is_proved_in_a_class_place_is_compared_with_onnxruntime() -> None:
    proto = model(TAILS["class"], {"y": INTEGER})
    loaded = parse_model(proto.SerializeToString(), "model.onnx")
    made = plan(loaded, PlanOptions(layers_per_chunk=1))
    assert made.plan.model_outputs == ("logits",)
    assert any("follows from logits" in notice for notice in made.notices)
    feeds = random_feeds({"x": (1, 4)})
    assert measure_accuracy(loaded, made, [feeds]).max_abs_error < 2**-9
    found = reference_outputs(loaded, ModelGraph(normalise(proto, {})), feeds)
    assert found.source.endswith("the model file")
    np.testing.assert_array_equal(found.values["logits"], np.maximum(feeds["x"], 0))
