"""Proved outputs against the float model's: the rule, the words, and what is recorded."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests import zoo
from tests.unit.chunking.builders import model as build
from zkml_ray import PlanOptions
from zkml_ray.chunking.load import LoadedModel, parse_model
from zkml_ray.circuits.derive import normalised_graph
from zkml_ray.errors import AccuracyError, ConfigError, ExitCode
from zkml_ray.schema.plan import Plan
from zkml_ray.stages import comparison
from zkml_ray.stages.accuracy import measure_accuracy
from zkml_ray.stages.comparison import (
    MaxError,
    checked_max_error,
    compared,
    default_tolerance,
    difference,
    recorded,
    require,
    summary,
    warning,
)
from zkml_ray.stages.plan import CircuitKind, plan
from zkml_ray.stages.reference import Reference, float_outputs, reference_outputs

REAL = st.floats(min_value=1e-6, max_value=1e6, allow_nan=False)
SCALE = st.integers(min_value=1, max_value=20)


@given(largest=REAL, scale=SCALE)
def test_default_tolerance_is_never_the_size_of_values_that_are_more_than_roundings(
    largest: float, scale: int
) -> None:
    quantum = 2.0**-scale
    tolerance = default_tolerance(largest, scale)
    assert tolerance >= 4 * quantum, "roundings of a few quanta are no fault"
    assert tolerance <= max(largest / 2, 4 * quantum)
    assert tolerance <= (largest / 20 + 16 * quantum) * (1 + 1e-12)


@pytest.mark.parametrize("factor", [0.0, 0.5, 0.88, 1.12, 2.0, -1.0])
@given(scale=st.integers(min_value=7, max_value=15), seed=st.integers(0, 1000))
def test_outputs_off_by_a_factor_are_told_from_roundings(
    factor: float, scale: int, seed: int
) -> None:
    """Factors of faults that were met: zeros, 12 % off, a wrong sign; at outputs of 3 and more."""
    wanted = np.random.default_rng(seed).uniform(-1, 1, size=20)
    wanted[0] = 3.0
    noise = np.random.default_rng(seed + 1).uniform(-6, 6, size=20) * 2.0**-scale
    assert not difference("y", wanted + noise, wanted, scale).exceeds("default")
    assert difference("y", factor * wanted + noise, wanted, scale).exceeds("default")


@pytest.mark.parametrize(
    ("given_value", "expected"),
    [("default", "default"), ("none", "none"), ("0.5", 0.5), (2, 2.0), (1e-9, 1e-9)],
)
def test_tolerances_are_numbers_or_words(given_value: object, expected: MaxError) -> None:
    assert checked_max_error(given_value) == expected


@pytest.mark.parametrize(
    "value", ["0", "-1", "nan", "inf", "", "some", 0, -0.5, math.nan, math.inf, None, True, [1]]
)
def test_what_is_no_tolerance_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="--max-error"):
        checked_max_error(value)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("max_error", ["default", 1e9])
def test_a_reference_that_is_not_finite_is_a_difference(number: float, max_error: MaxError) -> None:
    wanted = np.array([1.0, number, 2.0], dtype=np.float32)
    found = difference("y", np.zeros(3), wanted, 10)
    assert found.exceeds(max_error)
    assert not found.exceeds("none")
    assert f"output y is {number:g} in onnxruntime (1 of 3 elements)" == found.described()


@pytest.mark.parametrize("shape", [(1, 3), (3, 1), (4,), ()])
def test_another_shape_is_a_difference(shape: tuple[int, ...]) -> None:
    """Shapes that numpy would broadcast are no exception."""
    found = difference("y", np.zeros(3), np.zeros(shape, dtype=np.float32), 10)
    assert found.exceeds("default")
    assert found.described() == f"output y has shape [3], onnxruntime's has {list(shape)}"


def test_what_cannot_be_compared_is_no_difference() -> None:
    found = difference("y", np.zeros(3), None, 10)
    assert not found.exceeds("default")
    assert "was not compared" in found.described()


def zoo_model(name: str) -> LoadedModel:
    return parse_model(zoo.MODELS[name]().SerializeToString(), f"{name}.onnx")


@pytest.fixture(scope="module")
def mlp_plans() -> dict[str, Plan]:
    model = zoo_model("mlp")
    return {
        kind: plan(model, PlanOptions(scale=7, circuits=kind)).plan for kind in ("hinted", "native")
    }


def reference(values: Any) -> Reference:
    return Reference(values={"y": np.array(values, dtype=np.float32)}, source="onnxruntime")


@pytest.mark.parametrize("kind", ["hinted", "native"])
def test_a_run_that_is_stopped_is_told_why_and_how_to_go_on(
    kind: str, mlp_plans: dict[str, Plan]
) -> None:
    found = compared(mlp_plans[kind], {"y": np.zeros((1, 3))}, reference([[0.5, -2.0, 1.0]]))
    with pytest.raises(AccuracyError) as caught:
        require(found, "default", mlp_plans[kind], "my-run")
    error = caught.value
    assert error.exit_code is ExitCode.INACCURATE == 5
    assert (error.output, error.max_abs_error) == ("y", 2.0)
    assert error.tolerance == pytest.approx(2 / 20 + 16 / 128)
    for words in (
        "output y differs from onnxruntime's by up to 2 (its largest value is 2)",
        "more than 0.225",
        "larger --scale than 7",
        "zkml-ray resume my-run --max-error none",
    ):
        assert words in error.message
    require(found, "none", mlp_plans[kind], "my-run")
    require(found, 2.0, mlp_plans[kind], "my-run")
    with pytest.raises(AccuracyError):
        require(found, 1.99, mlp_plans[kind], "my-run")


def test_any_difference_accepted_one_beyond_the_default_is_still_told(
    mlp_plans: dict[str, Plan],
) -> None:
    found = compared(mlp_plans["native"], {"y": np.zeros((1, 3))}, reference([[0.5, -2.0, 1.0]]))
    assert "is not what the model computes" in (warning(found) or "")
    same = compared(mlp_plans["native"], {"y": np.full((1, 3), 0.5)}, reference([[0.5, 0.5, 0.5]]))
    assert warning(same) is None


def test_what_is_recorded_is_what_was_compared(mlp_plans: dict[str, Plan]) -> None:
    exact = reference([[0.5, -2.0, 1.0]])
    found = compared(mlp_plans["native"], {"y": np.array([[0.5, -1.75, 1.0]])}, exact)
    document = recorded(found, exact, "default")
    assert document.reference == "onnxruntime"
    (entry,) = document.outputs
    assert (entry.output, entry.max_abs_error, entry.note) == ("y", 0.25, "")
    assert entry.tolerance == pytest.approx(0.225)
    assert recorded(found, exact, "none").outputs[0].tolerance is None
    assert recorded(found, exact, 0.125).outputs[0].tolerance == 0.125
    whole = summary(found)
    assert whole is not None
    assert (whole.max_abs_error, whole.mean_abs_error) == (0.25, pytest.approx(0.25 / 3))
    bad = reference([[0.5, np.inf, 1.0]])
    unknown = compared(mlp_plans["native"], {"y": np.zeros((1, 3))}, bad)
    assert summary(unknown) is None
    assert "inf in onnxruntime" in recorded(unknown, bad, "none").outputs[0].note


def test_the_reference_is_the_users_own_file() -> None:
    """A fault of normalisation must show: here it doubles every weight."""
    model = zoo_model("mlp")
    graph = normalised_graph(model, {})
    arrays = {"x": np.full((1, 8), 0.5, dtype=np.float32)}
    honest = reference_outputs(model, graph, arrays)
    assert honest.source.endswith("the model file")
    assert honest.note == ""
    for tensor in graph.proto.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(tensor), tensor.name))
    again = reference_outputs(model, graph, arrays)
    assert np.abs(float_outputs(graph, arrays)["y"] - again.values["y"]).max() > 0.1
    np.testing.assert_array_equal(honest.values["y"], again.values["y"])


def strange(op_type: str, kind: int) -> LoadedModel:
    """A model that onnxruntime does not run, or only with other types."""
    graph = helper.make_graph(
        [helper.make_node(op_type, ["x"], ["y"], "node")],
        "test",
        [helper.make_tensor_value_info("x", kind, [1, 4])],
        [helper.make_tensor_value_info("y", kind, [1, 4])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return parse_model(proto.SerializeToString(), "strange.onnx")


def test_a_file_that_onnxruntime_does_not_run_is_replaced_by_its_normal_form() -> None:
    model = strange("Relu", TensorProto.FLOAT)
    newer = onnx.ModelProto.FromString(model.data)
    newer.ir_version = 99
    loaded = LoadedModel(name="new.onnx", data=newer.SerializeToString(), proto=model.proto)
    arrays = {"x": np.array([[-1, 0, 1, 2]], dtype=np.float32)}
    found = reference_outputs(loaded, normalised_graph(model, {}), arrays)
    np.testing.assert_array_equal(found.values["y"], [[0, 0, 1, 2]])
    assert found.source.endswith("the normalised model")
    assert found.note.startswith("onnxruntime does not run the model file: ")
    assert "\n" not in found.note


def test_a_model_that_onnxruntime_does_not_run_at_all_is_not_compared() -> None:
    model = strange("Relu", TensorProto.FLOAT)
    graph = normalised_graph(model, {})
    newer = onnx.ModelProto.FromString(model.data)
    newer.ir_version = graph.proto.ir_version = 99
    loaded = LoadedModel(name="new.onnx", data=newer.SerializeToString(), proto=model.proto)
    found = reference_outputs(loaded, graph, {"x": np.zeros((1, 4), dtype=np.float32)})
    assert found.values == {}
    assert found.source == ""
    assert found.note.startswith("onnxruntime does not run the model file: ")
    made = plan(model, PlanOptions(scale=7)).plan
    differences = compared(made, {"y": np.ones((1, 4))}, found)
    require(differences, "default", made, "my-run")
    assert summary(differences) is None
    assert recorded(differences, found, "default").note == found.note


def deep(scale: int, kind: CircuitKind) -> tuple[LoadedModel, PlanOptions]:
    """Values that quantise to nothing at a small scale: y = 64 (x / 64)."""
    size = 4
    nodes, weights = [], []
    for index, factor in enumerate((1 / 64, 64)):
        weights.append(
            numpy_helper.from_array((np.eye(size) * factor).astype(np.float32), f"w{index}")
        )
        source, target = ("x", "m") if index == 0 else ("m", "y")
        nodes.append(helper.make_node("MatMul", [source, f"w{index}"], [target], f"fc{index}"))
    proto = build(nodes, {"x": [1, size]}, {"y": [1, size]}, weights)
    return (
        parse_model(proto.SerializeToString(), "deep.onnx"),
        PlanOptions(scale=scale, circuits=kind, layers_per_chunk=1, passes=()),
    )


@pytest.mark.parametrize("kind", ["hinted", "native"])
def test_advice_to_raise_the_scale_helps(kind: CircuitKind) -> None:
    """At scale 5 a factor of 1/64 is rounded to nothing, or what it makes is."""
    arrays = {"x": np.array([[0.25, 0.5, 0.75, 1.0]], dtype=np.float32)}
    model, options = deep(5, kind)
    coarse = measure_accuracy(model, plan(model, options), [arrays])
    assert coarse.warning is not None
    assert "larger --scale than 5" in coarse.warning
    begins = [entry.name for entry in coarse.boundaries if entry.max_abs_error > 0.01]
    assert begins == ["m", "y"], "the report shows where it begins"
    model, options = deep(12, kind)
    assert measure_accuracy(model, plan(model, options), [arrays]).warning is None


def test_constants_of_the_rule_are_in_order() -> None:
    assert comparison.RELATIVE < comparison.HALF < 1
    assert 0.5 < comparison.FEW_QUANTA < comparison.QUANTA
