"""ezkl gives the settings of one circuit in varying order; here they are one file."""

from __future__ import annotations

import json
from pathlib import Path

import ezkl
import onnx
import pytest
from onnx import helper

from tests.unit.chunking.builders import model
from zkml_ray.canonical import canonical_json
from zkml_ray.chunking.load import load_model
from zkml_ray.circuits import backend
from zkml_ray.circuits.derive import DerivedCircuits
from zkml_ray.stages.plan import PlanOptions, plan

REPEATS = 20


@pytest.fixture(scope="module")
def circuits(models: Path) -> DerivedCircuits:
    return plan(load_model(models / "residual.onnx"), PlanOptions(circuits="native"))


def test_settings_derived_many_times_are_the_planned_bytes(
    circuits: DerivedCircuits, tmp_path: Path
) -> None:
    last = circuits.plan.chunks[-1]
    path = tmp_path / "chunk.onnx"
    path.write_bytes(circuits.files[last.id].onnx)
    found = {backend.derive_settings(path, last.arguments).data for _ in range(REPEATS)}
    assert found == {circuits.files[last.id].settings}


def test_settings_of_a_convolution_derived_many_times_are_the_planned_bytes(
    digits: Path, tmp_path: Path
) -> None:
    # On several threads ezkl gives such a model another number of rows almost every time.
    made = plan(load_model(digits / "digits.onnx"), PlanOptions(passes=(), circuits="native"))
    first = made.plan.chunks[0]
    assert "Conv" in first.operators
    path = tmp_path / "chunk.onnx"
    path.write_bytes(made.files[first.id].onnx)
    found = {backend.derive_settings(path, first.arguments).data for _ in range(REPEATS)}
    assert found == {made.files[first.id].settings}


def test_canonical_settings_hold_what_ezkl_gave_but_the_time(
    circuits: DerivedCircuits, tmp_path: Path
) -> None:
    chunk = circuits.plan.chunks[0]
    path, out = tmp_path / "chunk.onnx", tmp_path / "settings.json"
    path.write_bytes(circuits.files[chunk.id].onnx)
    ezkl.gen_settings(str(path), str(out), backend.run_args(chunk.arguments))
    raw = json.loads(out.read_text())
    stored = json.loads(circuits.files[chunk.id].settings)
    assert stored.pop("timestamp") == 0
    raw.pop("timestamp")
    for field in ("required_range_checks", "required_lookups"):
        raw[field] = sorted(raw[field], key=canonical_json)
    assert stored == raw


def test_canonical_settings_are_canonical_json(circuits: DerivedCircuits) -> None:
    for files in circuits.files.values():
        assert canonical_json(json.loads(files.settings)) == files.settings


def test_settings_of_every_chunk_keep_what_soundness_needs(circuits: DerivedCircuits) -> None:
    for files in circuits.files.values():
        run_args = json.loads(files.settings)["run_args"]
        assert run_args["ignore_range_check_inputs_outputs"] is False
        assert run_args["input_visibility"] == "Private"
        assert run_args["param_visibility"] == "Fixed"
        assert run_args["output_visibility"] == {"Hashed": {"hash_is_public": True, "outlets": []}}


@pytest.mark.parametrize("content", [None, b"", b"no model"])
def test_settings_of_what_ezkl_cannot_read_are_a_backend_error_in_its_words(
    circuits: DerivedCircuits, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "chunk-007.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(backend.BackendError, match=r"chunk-007: ezkl failed in plan: ..") as caught:
        backend.derive_settings(path, circuits.plan.chunks[0].arguments)
    assert (caught.value.stage, caught.value.chunk_id) == ("plan", "chunk-007")
    assert "\n" not in caught.value.message


def test_settings_of_an_operator_that_ezkl_lacks_are_a_backend_error_that_names_it(
    circuits: DerivedCircuits, tmp_path: Path
) -> None:
    path = tmp_path / "chunk-003.onnx"
    node = helper.make_node("Det", ["x"], ["y"], "determinant")
    onnx.save(model([node], {"x": [2, 2]}, {"y": []}), path)
    with pytest.raises(backend.BackendError, match="Det") as caught:
        backend.derive_settings(path, circuits.plan.chunks[0].arguments)
    assert caught.value.chunk_id == "chunk-003"
