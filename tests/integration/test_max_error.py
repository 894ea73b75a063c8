"""A run that is too far from the float model is stopped before it is proved, and can go on.

The model's first weights are 1/64: at scale 5 there is next to nothing behind them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from typer.testing import CliRunner

from tests.integration.command import run_here
from tests.unit.chunking.builders import model as build
from zkml_ray import prove_distributed, resume, verify
from zkml_ray.api import advance, prepare
from zkml_ray.circuits import derive
from zkml_ray.command_line import o3_runner
from zkml_ray.errors import AccuracyError, VerificationError
from zkml_ray.events import Event, Warned
from zkml_ray.run.housekeeping import describe_run
from zkml_ray.stages.plan import PlanOptions
from zkml_ray.stores import LocalStore
from zkml_ray.stores.layout import RunLayout
from zkml_ray.verifying.policy import VerifierPolicy

pytestmark = pytest.mark.ray

COARSE = PlanOptions(scale=5, circuits="native", layers_per_chunk=1, passes=())
INPUT = [0.25, 0.5, 0.75, 1.0]
SIZE = len(INPUT)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = [
        numpy_helper.from_array((np.eye(SIZE) * factor).astype(np.float32), name)
        for name, factor in (("small", 1 / 64), ("large", 64))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "small"], ["m"], "first"),
        helper.make_node("MatMul", ["m", "large"], ["y"], "second"),
    ]
    path = tmp_path_factory.mktemp("model") / "coarse.onnx"
    onnx.save(build(nodes, {"x": [1, SIZE]}, {"y": [1, SIZE]}, weights), path)
    return path


def proofs(store: Path, run_id: str) -> tuple[str, int]:
    """A run's state, and how many of its chunks are proved."""
    found = describe_run(LocalStore(store), RunLayout("default", run_id))
    return found.state, found.proofs


def test_a_run_too_far_from_the_float_model_is_stopped_and_resumed_all_the_same(
    model: Path, tmp_path: Path, ray_cluster: None
) -> None:
    with pytest.raises(AccuracyError, match=r"resume far --max-error none") as caught:
        prove_distributed(
            model, inputs=[INPUT], store=tmp_path, run_id="far", options=COARSE, workers=1
        )
    assert caught.value.output == "y"
    off = caught.value.max_abs_error
    assert off is not None
    assert 0.5 < off < 3, "about as much as the values"
    state, proved = proofs(tmp_path, "far")
    assert state == "under way"
    assert proved < 2, "the last chunk must not be proved"
    with pytest.raises(AccuracyError):
        resume("far", store=tmp_path, workers=1)
    with pytest.raises(AccuracyError, match=r"more than 0\.4"):
        resume("far", store=tmp_path, workers=1, max_error=0.4)
    events: list[Event] = []
    run = resume("far", store=tmp_path, workers=1, max_error="none", listener=events.append)
    assert run.verified
    (entry,) = run.comparison.outputs
    assert (entry.output, entry.max_abs_error, entry.tolerance) == ("y", off, None)
    assert run.manifest.comparison == run.comparison
    severe = [event.message for event in events if isinstance(event, Warned) and event.severe]
    assert len(severe) == 1
    assert severe[0] in run.manifest.warnings
    # What a prover was content with, a verifier of default policy is not.
    with pytest.raises(VerificationError, match="coarser"):
        verify("far", store=tmp_path, model=model, allow_insecure_srs=True)
    coarse = VerifierPolicy(min_scale=5, min_weight_bits=5, max_weight_loss=1.0)
    assert verify("far", store=tmp_path, model=model, allow_insecure_srs=True, policy=coarse).ok


def test_commands_stop_with_a_code_of_their_own_and_go_on(
    model: Path, tmp_path: Path, ray_cluster: None
) -> None:
    store = ["--store", tmp_path / "store"]
    values = tmp_path / "input.json"
    values.write_text(f'{{"input_data": [{INPUT}]}}')
    coarse = ["--scale", "5", "--circuits", "native"]
    given = [model, *coarse, "--passes", "none", "--layers-per-chunk", "1", "--input", values]
    found = run_here("prove", *given, *store, "--run", "stopped", "-w", "1")
    assert found.code == 5
    (line,) = found.errors
    for words in ("output y", "larger --scale than 5", "resume stopped --max-error"):
        assert words in line
    assert found.stdout == ""
    found = run_here("resume", "stopped", *store, "-w", "1", "--max-error", "none", "--json")
    assert found.code == 0, found.stderr
    assert "WARNING: output y differs" in found.stderr
    (entry,) = found.json["manifest"]["comparison"]["outputs"]
    assert entry["max_abs_error"] > 0.5
    assert entry["tolerance"] is None
    assert any("output y differs" in line for line in found.json["manifest"]["warnings"])
    assert run_here("prove", *given, *store, "--max-error", "much").code == 2


def test_stages_of_the_runner_stop_and_go_on(model: Path, tmp_path: Path) -> None:
    def stage(*arguments: object) -> Any:
        given = [*map(str, arguments), "--store", str(tmp_path)]
        return CliRunner().invoke(o3_runner.app, given, catch_exceptions=True)

    coarse = ["--scale", "5", "--circuits", "native", "--run", "staged"]
    values = tmp_path / "input.json"
    values.write_text(f'{{"input_data": [{INPUT}]}}')
    assert stage("prepare", model, *coarse, "--input", values).exit_code == 0
    stopped = stage("witness", "--run", "staged").exception
    assert isinstance(stopped, AccuracyError)
    assert stage("witness", "--run", "staged", "--max-error", "none").exit_code == 0
    assert stage("witness", "--run", "staged").exit_code == 0
    stopped = stage("witness", "--run", "staged", "--max-error", "0.4").exception
    assert isinstance(stopped, AccuracyError)
    assert stage("witness", "--run", "staged", "--max-error", "3").exit_code == 0
    kept = ["--run", "kept", *coarse[:-2], "--max-error", "3", "--input", values]
    assert stage("prepare", model, *kept).exit_code == 0
    assert stage("witness", "--run", "kept").exit_code == 0


def test_advice_of_the_refusal_helps(model: Path, tmp_path: Path, ray_cluster: None) -> None:
    finer = PlanOptions(scale=12, circuits="native", layers_per_chunk=1, passes=())
    run = prove_distributed(model, inputs=[INPUT], store=tmp_path, options=finer, workers=1)
    (entry,) = run.comparison.outputs
    assert entry.max_abs_error is not None
    assert entry.tolerance is not None
    assert entry.max_abs_error < entry.tolerance < 0.1


def test_a_tolerance_is_part_of_what_was_asked(model: Path, tmp_path: Path) -> None:
    """Stages on other machines know it, and may be given another; no worker is needed."""
    prepare(model, [INPUT], store=tmp_path, run_id="staged", options=COARSE, max_error=3)
    advance("staged", "witness", store=tmp_path)
    with pytest.raises(AccuracyError, match=r"more than 0\.4"):
        advance("staged", "witness", store=tmp_path, max_error=0.4)
    prepare(model, [INPUT], store=tmp_path, run_id="strict", options=COARSE, max_error=0.4)
    with pytest.raises(AccuracyError, match=r"more than 0\.4"):
        advance("strict", "witness", store=tmp_path)
    advance("strict", "witness", store=tmp_path, max_error="none")
    advance("strict", "witness", store=tmp_path)


def test_a_fault_of_normalisation_is_caught(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault is planted: all weights are doubled behind the reader's back."""
    honest = derive.normalise

    def doubling(
        proto: onnx.ModelProto, dimensions: dict[str, int], **options: bool
    ) -> onnx.ModelProto:
        made = honest(proto, dimensions, **options)
        for tensor in made.graph.initializer:
            values = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(2 * values, tensor.name))
        return made

    options = PlanOptions(scale=9, layers_per_chunk=1)
    path = models / "mlp.onnx"
    prepare(path, store=tmp_path, run_id="honest", options=options)
    advance("honest", "witness", store=tmp_path)
    monkeypatch.setenv("ZKML_RAY_CACHE", str(tmp_path / "cache"))  # wrong plans must not be kept
    monkeypatch.setattr(derive, "normalise", doubling)
    prepare(path, store=tmp_path, run_id="doubled", options=options)
    with pytest.raises(AccuracyError):
        advance("doubled", "witness", store=tmp_path)
