"""Accuracy of a plan on calibration data, the choice of a scale by it, and refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from tests import zoo
from tests.integration.command import run_here
from tests.unit.chunking.builders import model as build
from tests.unit.chunking.builders import run as run_float
from tests.zoo.quantised import chained
from zkml_ray import PlanOptions
from zkml_ray.chunking.load import LoadedModel, parse_model
from zkml_ray.circuits.derive import DerivedCircuits, normalised_graph
from zkml_ray.errors import AccuracyError, ConfigError, InputError, RangeExceededError
from zkml_ray.stages.accuracy import (
    AUTO_SCALES,
    calibrated,
    measure_accuracy,
    read_samples,
    require_accuracy,
)
from zkml_ray.stages.accuracy_report import AccuracyReport
from zkml_ray.stages.plan import CircuitKind, plan

BY_LAYER = ["--layers-per-chunk", "1"]


def loaded(proto: onnx.ModelProto) -> LoadedModel:
    return parse_model(proto.SerializeToString(), "model.onnx")


@pytest.fixture(scope="module")
def mlp() -> LoadedModel:
    return loaded(zoo.MODELS["mlp"]())


def at(model: LoadedModel, scale: int, circuits: CircuitKind = "auto") -> DerivedCircuits:
    return plan(model, PlanOptions(scale=scale, layers_per_chunk=1, circuits=circuits))


@pytest.fixture(scope="module")
def report(mlp: LoadedModel) -> AccuracyReport:
    samples = read_samples(normalised_graph(mlp, {}), [], seed=3)
    return measure_accuracy(mlp, at(mlp, 8), samples, random=True)


def test_report_names_every_boundary_and_what_was_measured(
    mlp: LoadedModel, report: AccuracyReport
) -> None:
    assert [entry.name for entry in report.boundaries] == ["x", "h0", "h1", "y"]
    assert (report.input_scale, report.samples, report.random) == (8, 4, True)
    assert report.outputs == ("y",)
    assert report.top1_agreement == 1.0
    assert report.boundaries[0].max_abs_error <= 2.0**-9, "an input is rounded to the nearest"
    for entry in report.boundaries:
        assert 0 < entry.mean_abs_error <= entry.max_abs_error < entry.max_abs_value
    assert report.max_abs_error == report.boundaries[-1].max_abs_error


def test_reported_errors_are_those_of_the_original_file(mlp: LoadedModel, tmp_path: Path) -> None:
    circuits = at(mlp, 8)
    samples = read_samples(normalised_graph(mlp, {}), [], seed=3)
    measured = measure_accuracy(mlp, circuits, samples)
    errors = []
    for index, arrays in enumerate(samples):
        folder = tmp_path / str(index)
        folder.mkdir()
        got = chained(circuits, arrays, folder)["y"]
        exact = run_float(mlp.proto, arrays)["y"].ravel()
        errors.append(np.abs(np.array(got.values) / 2.0**got.scale - exact))
    assert measured.max_abs_error == pytest.approx(np.max(errors), rel=1e-6)
    assert measured.boundaries[-1].mean_abs_error == pytest.approx(np.mean(errors), rel=1e-6)


def test_a_finer_scale_is_more_accurate(mlp: LoadedModel, report: AccuracyReport) -> None:
    samples = read_samples(normalised_graph(mlp, {}), [], seed=3)
    finer = measure_accuracy(mlp, at(mlp, 12), samples)
    assert finer.max_abs_error < report.max_abs_error / 4


def test_top1_is_reported_for_one_vector_alone() -> None:
    model = loaded(zoo.MODELS["two_outputs"]())
    samples = read_samples(normalised_graph(model, {}), [], seed=0)[:1]
    assert measure_accuracy(model, at(model, 8), samples).top1_agreement is None


def test_top1_counts_disagreements() -> None:
    """Two classes 2^-12 apart are one at scale 6, and the first is then taken."""
    weights = np.array([[1.0, 1.0 + 2.0**-12]], dtype=np.float32)
    proto = build(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "fc")],
        {"x": [1, 1]},
        {"y": [1, 2]},
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    model = loaded(proto)
    samples = [{"x": np.array([[value]], dtype=np.float32)} for value in (0.5, -0.5)]
    assert measure_accuracy(model, at(model, 6), samples).top1_agreement == 0.5


def test_smallest_scale_that_meets_the_aim_is_taken(mlp: LoadedModel) -> None:
    samples = read_samples(normalised_graph(mlp, {}), [], seed=3)
    errors = {}

    def planned(scale: int) -> DerivedCircuits:
        return at(mlp, scale)

    for scale in (6, 8, 10):
        errors[scale] = measure_accuracy(mlp, planned(scale), samples).max_abs_error
    assert errors[6] > errors[8] > errors[10]
    circuits, found = calibrated(mlp, planned, (6, 8, 10), samples, max_error=errors[8])
    assert circuits.plan.input_scale == found.input_scale == 8
    assert calibrated(mlp, planned, (6, 8, 10), samples)[1].input_scale == 10
    with pytest.raises(AccuracyError, match="at scale 10, more than --max-error"):
        calibrated(mlp, planned, (6, 8, 10), samples, max_error=errors[10] / 100)


def test_scales_that_leave_the_range_are_passed_over() -> None:
    """200 * 200 needs 16 bits before and 2 * scale behind the point: 28 bits do to scale 6."""
    proto = build(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"], "fc"),
            helper.make_node("Relu", ["a"], ["y"], "relu"),
        ],
        {"x": [1, 1]},
        {"y": [1, 2]},
        [onnx.numpy_helper.from_array(np.full((1, 2), 200, dtype=np.float32), "w")],
    )
    model = loaded(proto)
    samples = [{"x": np.array([[200.0]], dtype=np.float32)}]

    def planned(scale: int) -> DerivedCircuits:
        return at(model, scale, "native")

    with pytest.raises(RangeExceededError):
        measure_accuracy(model, planned(14), samples)
    circuits, _ = calibrated(model, planned, (8, 14), samples)
    assert circuits.plan.input_scale == 8
    with pytest.raises(RangeExceededError):
        calibrated(model, planned, (14,), samples)


def test_no_sample_is_refused(mlp: LoadedModel) -> None:
    with pytest.raises(ConfigError, match="sample"):
        measure_accuracy(mlp, at(mlp, 8), [])


def test_require_accuracy_admits_the_error_itself(report: AccuracyReport) -> None:
    require_accuracy(report, report.max_abs_error)
    with pytest.raises(AccuracyError, match="float model") as caught:
        require_accuracy(report, report.max_abs_error * 0.99)
    assert "\n" not in str(caught.value)


def test_files_hold_one_sample_or_several(mlp: LoadedModel, tmp_path: Path) -> None:
    graph = normalised_graph(mlp, {})
    several = np.random.default_rng(0).random((3, 1, 8), dtype=np.float32)
    np.save(tmp_path / "several.npy", several)
    np.save(tmp_path / "one.npy", several[0])
    np.savez(tmp_path / "named.npz", x=several[:2])
    (tmp_path / "one.json").write_text(f'{{"input_data": [{several[0].ravel().tolist()}]}}')
    names = ["several.npy", "one.npy", "named.npz", "one.json"]
    samples = read_samples(graph, [tmp_path / name for name in names], seed=0)
    assert [sample["x"].shape for sample in samples] == [(1, 8)] * 7
    np.testing.assert_array_equal(samples[3]["x"], several[0])


def test_samples_of_two_inputs_must_be_as_many(tmp_path: Path) -> None:
    graph = normalised_graph(loaded(zoo.MODELS["two_inputs"]()), {})
    np.savez(
        tmp_path / "uneven.npz",
        a=np.zeros((2, 1, 6), dtype=np.float32),
        b=np.zeros((3, 1, 4), dtype=np.float32),
    )
    with pytest.raises(InputError, match="different numbers of samples"):
        read_samples(graph, [tmp_path / "uneven.npz"], seed=0)


def test_a_wrong_input_is_named_by_its_file_and_place(mlp: LoadedModel, tmp_path: Path) -> None:
    graph = normalised_graph(mlp, {})
    values = np.zeros((3, 1, 8), dtype=np.float32)
    np.savez(tmp_path / "name.npz", z=values)
    np.savez(tmp_path / "shape.npz", x=values[:, :, :5])
    np.savez(tmp_path / "dtype.npz", x=values.astype("U8"))
    np.savez(tmp_path / "none.npz", x=values[:0])
    np.savez(tmp_path / "scalar.npz", x=np.float32(1))
    values[1, 0, 2] = np.nan
    np.save(tmp_path / "nan.npy", values)
    (tmp_path / "torn.npz").write_bytes((tmp_path / "name.npz").read_bytes()[:90])
    for name, said in {
        "name.npz": "name.npz: the model's inputs are x; missing: x, unknown: z",
        "shape.npz": "shape.npz: input x has shape",
        "dtype.npz": "dtype.npz, input 0: input x has dtype",
        "none.npz": "none.npz holds no input",
        "scalar.npz": "scalar.npz: input x has shape",
        "nan.npy": "nan.npy, input 1: input x: element 2 is NaN",
        "torn.npz": "torn.npz cannot be read",
    }.items():
        with pytest.raises(InputError) as caught:
            read_samples(graph, [tmp_path / name], seed=0)
        assert caught.value.message.startswith(said)


def test_random_samples_are_the_same_every_time(mlp: LoadedModel) -> None:
    graph = normalised_graph(mlp, {})
    first, second = (read_samples(graph, [], seed=1) for _ in range(2))
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one["x"], two["x"])


def test_plan_command_reports_refuses_and_chooses(models: Path) -> None:
    path = models / "mlp.onnx"
    found = run_here(
        "plan", path, *BY_LAYER, "--scale", "auto", "--max-error", "0.01", "--json"
    ).json
    assert found["accuracy"]["max_abs_error"] <= 0.01
    assert found["plan"]["input_scale"] == found["accuracy"]["input_scale"]
    assert found["plan"]["input_scale"] in AUTO_SCALES
    measured = [entry["name"] for entry in found["accuracy"]["boundaries"]]
    assert measured == [boundary["name"] for boundary in found["plan"]["boundaries"]]
    refused = run_here("plan", path, "--max-error", "1e-9")
    assert refused.code == 5
    assert len(refused.errors) == 1
    assert "--max-error" in refused.errors[0]
    by_itself = run_here("plan", path, "--json").json["accuracy"]
    assert (by_itself["samples"], by_itself["random"], by_itself["warning"]) == (1, True, None)
    assert "accuracy" not in run_here("plan", path, "--no-measure", "--json").json


def coarse(folder: Path) -> Path:
    """A factor of 1/64, then one of 64: at scale 5 there is nothing in between."""
    nodes, weights = [], []
    for name, factor, source, target in (("a", 1 / 64, "x", "m"), ("b", 64, "m", "y")):
        weights.append(onnx.numpy_helper.from_array(np.full((1, 1), factor, np.float32), name))
        nodes.append(helper.make_node("MatMul", [source, name], [target], f"by_{name}"))
    path = folder / "coarse.onnx"
    onnx.save(build(nodes, {"x": [1, 1]}, {"y": [1, 1]}, weights), path)
    return path


def test_plan_command_warns_where_prove_would_stop(tmp_path: Path) -> None:
    path = coarse(tmp_path)
    given = [path, "--scale", "5", "--circuits", "native", "--passes", "none"]
    found = run_here("plan", *given)
    assert found.code == 0
    (loud,) = [line for line in found.stdout.splitlines() if line.startswith("WARNING:")]
    assert "output y differs from onnxruntime's by up to" in loud
    assert "larger --scale than 5" in loud
    assert "WARNING" not in run_here("plan", *given, "--max-error", "none").stdout
    assert "WARNING" not in run_here("plan", path, "--scale", "12").stdout
    assert run_here("plan", *given, "--max-error", "0.4").code == 5
    assert run_here("plan", *given, "--max-error", "3").code == 0


def test_plan_command_says_why_accuracy_is_not_measured(tmp_path: Path) -> None:
    """The random input leaves the range that hinted circuits hold: no reason not to plan."""
    proto = build(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "fc")],
        {"x": [1, 4]},
        {"y": [1, 4]},
        [onnx.numpy_helper.from_array(np.full((4, 4), 64, dtype=np.float32), "w")],
    )
    path = tmp_path / "large.onnx"
    onnx.save(proto, path)
    found = run_here("plan", path, "--circuits", "hinted")
    assert found.code == 0
    (note,) = [line for line in found.stdout.splitlines() if "accuracy is not measured" in line]
    assert "range" in note
    notices = run_here("plan", path, "--circuits", "hinted", "--json").json["notices"]
    assert any("accuracy is not measured" in notice for notice in notices)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--scale", "fine"], "fine"),
        (["--max-error", "0"], "--max-error"),
        (["--max-error", "little"], "little"),
        (["--calibrate", "missing.npy"], "missing.npy"),
    ],
)
def test_plan_command_with_a_wrong_argument_says_so(
    models: Path, arguments: list[str], named: str
) -> None:
    found = run_here("plan", models / "mlp.onnx", *arguments)
    assert found.code == 2
    assert named in found.errors[0]
