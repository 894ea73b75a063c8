"""ezkl gives the settings of one circuit in varying order; here they are one file."""

from __future__ import annotations

import json
from pathlib import Path

import ezkl
import pytest

from zkml_ray import backend
from zkml_ray.canonical import canonical_json
from zkml_ray.chunking.load import load_model
from zkml_ray.circuits import DerivedCircuits
from zkml_ray.stages.plan import PlanOptions, plan

REPEATS = 20


@pytest.fixture(scope="module")
def circuits(models: Path) -> DerivedCircuits:
    return plan(load_model(models / "residual.onnx"), PlanOptions())


def test_settings_derived_many_times_are_the_planned_bytes(
    circuits: DerivedCircuits, tmp_path: Path
) -> None:
    last = circuits.plan.chunks[-1]
    path = tmp_path / "chunk.onnx"
    path.write_bytes(circuits.files[last.id].onnx)
    found = {backend.derive_settings(path, last.arguments).data for _ in range(REPEATS)}
    assert found == {circuits.files[last.id].settings}


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
