"""A transformer encoder block: tables of Exp and Erf, rewritten, cut, proved, linked, verified."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks.models.encoder import EncoderSize, build_encoder
from zkml_ray import prove_distributed
from zkml_ray.chunking.load import load_model
from zkml_ray.circuits.derive import rederive_circuits
from zkml_ray.stages.plan import PlanOptions, plan

SIZE = EncoderSize(width=8, heads=2, hidden=16, tokens=4)

# Tables of 16 << scale rows: at this scale they fit circuits of 2^12.
OPTIONS = PlanOptions(scale=8, circuits="native")

HINTED = PlanOptions(scale=8, circuits="hinted")


@pytest.fixture(scope="module")
def block(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("encoder") / "encoder.onnx"
    onnx.save(build_encoder(SIZE), path)
    return path


@pytest.mark.ray
@pytest.mark.slow
def test_encoder_block_is_proved_and_verified_end_to_end(
    block: Path, ray_cluster: None, tmp_path: Path
) -> None:
    run = prove_distributed(
        block, workers=2, store=tmp_path / "store", project="zoo", run_id="e", options=OPTIONS
    )
    assert run.verified
    error = np.abs(run.outputs["hidden"] - run.float_outputs["hidden"]).max()
    assert error < 0.03
    names = [step.name for step in run.plan.rewrites]
    assert names == ["attention", "gelu-ffn", "layer-norm", "layer-norm"]


@pytest.mark.ray
@pytest.mark.slow
def test_hinted_encoder_block_is_proved_and_verified_end_to_end(
    block: Path, ray_cluster: None, tmp_path: Path
) -> None:
    run = prove_distributed(
        block, workers=2, store=tmp_path / "store", project="zoo", run_id="h", options=HINTED
    )
    assert run.verified
    error = np.abs(run.outputs["hidden"] - run.float_outputs["hidden"]).max()
    assert error < 0.03
    assert [chunk.arguments.kind for chunk in run.plan.chunks] == ["hinted", "hinted"]


@pytest.mark.parametrize("options", [OPTIONS, HINTED], ids=["native", "hinted"])
def test_verifier_derives_the_rewritten_circuits_again(block: Path, options: PlanOptions) -> None:
    model = load_model(block)
    circuits = plan(model, options)
    assert rederive_circuits(model, circuits.plan).plan == circuits.plan
