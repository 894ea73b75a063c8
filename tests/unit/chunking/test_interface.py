"""Inputs that nothing reads, outputs that nothing decides, and tensors without elements."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.unit.chunking.builders import integers, run
from zkml_ray import PlanOptions
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.load import parse_model
from zkml_ray.chunking.normalize import normalise
from zkml_ray.errors import ChunkingError, InputError
from zkml_ray.stages.accuracy import measure_accuracy, read_samples
from zkml_ray.stages.inputs import read_inputs
from zkml_ray.stages.plan import plan

FLOAT, INT64, TEXT = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
TWO = numpy_helper.from_array(np.array([2.0, 3.0], dtype=np.float32), "two")


def node(op_type: str, *names: str, **attributes: object) -> onnx.NodeProto:
    *reads, made = names
    return helper.make_node(op_type, reads, [made], f"n_{made}", **attributes)


def model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, list[int | str]]],
    outputs: dict[str, int],
    constants: tuple[onnx.TensorProto, ...] = (),
) -> onnx.ModelProto:
    known = {name: shape for name, (_, shape) in inputs.items()}
    known |= {tensor.name: list(tensor.dims) for tensor in constants}
    graph = helper.make_graph(
        nodes,
        "interface",
        [helper.make_tensor_value_info(name, *given) for name, given in inputs.items()],
        [
            helper.make_tensor_value_info(name, kind, known.get(name))
            for name, kind in outputs.items()
        ],
        list(constants),
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return onnx.shape_inference.infer_shapes(made, data_prop=True)


UNREAD = model(
    [node("Relu", "x", "y"), node("Shape", "shaped", "s"), node("Reshape", "y", "s", "z")],
    {
        "before": (INT64, ["n", 3]),
        "x": (FLOAT, [1, 4]),
        "words": (TEXT, [2]),
        "shaped": (FLOAT, [2, 2]),
    },
    {"z": FLOAT},
)
X = np.array([[1, -2, 3, -4]], dtype=np.float32)


def test_inputs_that_nothing_reads_are_left_out_and_said() -> None:
    made = plan(parse_model(UNREAD.SerializeToString(), "m.onnx"), PlanOptions(layers_per_chunk=1))
    assert made.plan.model_inputs == ("x",)
    said = [notice for notice in made.notices if "not committed to" in notice]
    assert [notice.split()[5].rstrip(":") for notice in said] == ["before", "words", "shaped"]


@pytest.mark.parametrize(
    "given",
    [
        X,
        [X],
        {"x": X},
        {"x": X, "before": np.zeros((1, 3), dtype=np.int64)},
        {"x": X, "shaped": np.ones((2, 2)), "words": ["a", "b"]},
        [np.zeros((1, 3)), X, ["a", "b"], np.ones((2, 2))],
        [1.0, -2.0, 3.0, -4.0],
    ],
    ids=["array", "list of one", "by name", "with one more", "with others", "all", "numbers"],
)
def test_inputs_that_nothing_reads_may_be_given(given: object) -> None:
    graph = ModelGraph(normalise(UNREAD, {}))
    found = read_inputs(graph, given)  # type: ignore[arg-type]
    assert list(found.arrays) == ["x"]
    np.testing.assert_array_equal(found.arrays["x"], X)


def test_input_that_no_model_has_is_refused_beside_those_that_nothing_reads() -> None:
    graph = ModelGraph(normalise(UNREAD, {}))
    with pytest.raises(InputError, match="unknown: other"):
        read_inputs(graph, {"x": X, "other": X})
    with pytest.raises(InputError, match="missing: x"):
        read_inputs(graph, {"before": X})


def test_samples_may_hold_inputs_that_nothing_reads(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    np.savez(path, x=np.stack([X, 2 * X]), before=np.zeros((2, 1, 3)))
    samples = read_samples(ModelGraph(normalise(UNREAD, {})), [path], seed=0)
    np.testing.assert_array_equal([s["x"] for s in samples], [X, 2 * X])


def test_outputs_are_compared_although_inputs_are_left_out() -> None:
    numeric = model(
        [node("Relu", "x", "y")],
        {"x": (FLOAT, [1, 4]), "before": (INT64, ["n", 3])},
        {"y": FLOAT},
    )
    loaded = parse_model(numeric.SerializeToString(), "m.onnx")
    made = plan(loaded, PlanOptions(layers_per_chunk=1))
    report = measure_accuracy(loaded, made, [{"x": X}])
    assert report.note == ""
    assert report.max_abs_error < 0.01


IDLE = {
    "a constant": ([], "two"),
    "computed from constants": ([node("Exp", "two", "c")], "c"),
    "a shape": ([node("Shape", "x", "c")], "c"),
    "a shape as floats": ([node("Shape", "x", "s"), node("Cast", "s", "c", to=FLOAT)], "c"),
    "an input": ([], "x"),
}


@pytest.mark.parametrize("name", IDLE)
def test_output_that_no_input_decides_is_left_out_and_said(name: str) -> None:
    nodes, idle = IDLE[name]
    kind = INT64 if name == "a shape" else FLOAT
    proto = model(
        [node("Relu", "x", "y"), *nodes], {"x": (FLOAT, [1, 4])}, {idle: kind, "y": FLOAT}, (TWO,)
    )
    made = plan(parse_model(proto.SerializeToString(), "m.onnx"), PlanOptions(layers_per_chunk=1))
    assert made.plan.model_outputs == ("y",)
    assert any(notice.startswith(f"output {idle} depends on no input") for notice in made.notices)


@pytest.mark.parametrize("name", IDLE)
def test_model_without_another_output_is_refused(name: str) -> None:
    nodes, idle = IDLE[name]
    proto = model([node("Relu", "x", "y"), *nodes], {"x": (FLOAT, [1, 4])}, {idle: FLOAT}, (TWO,))
    with pytest.raises(ChunkingError, match=f"nothing is computed.*output {idle}"):
        normalise(proto, {})


def test_output_that_an_identity_makes_of_an_input_is_proved() -> None:
    proto = model([node("Identity", "x", "y")], {"x": (FLOAT, [1, 4])}, {"y": FLOAT})
    assert ModelGraph(normalise(proto, {})).outputs == ("y",)


@pytest.mark.parametrize("pieces", [1, 2, 3])
@pytest.mark.parametrize("empty", [1, 2])
def test_concat_passes_over_what_has_no_element(pieces: int, empty: int) -> None:
    nothing = numpy_helper.from_array(np.zeros((1, 0), dtype=np.float32), "nothing")
    cut = node("Slice", "x", "none", "none", "one", "cut")
    reads = ["nothing", "cut"][:empty] + ["x"] * pieces
    nodes = [node("Relu", "x", "r"), cut, node("Concat", *reads, "c", axis=1)]
    nodes.append(node("Add", "c", "c", "y"))
    proto = model(
        nodes,
        {"x": (FLOAT, [1, 4])},
        {"y": FLOAT, "r": FLOAT},
        (nothing, integers("none", 0), integers("one", 1)),
    )
    normal = normalise(proto, {})
    joins = [each for each in normal.graph.node if each.op_type == "Concat"]
    assert [len(each.input) for each in joins] == ([pieces] if pieces > 1 else [])
    np.testing.assert_array_equal(run(proto, {"x": X})["y"], run(normal, {"x": X})["y"])
