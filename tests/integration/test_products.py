"""A run whose products are checked by a challenge: proved, verified anywhere, and tampered with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from zkml_ray import Run, names, prove_distributed, verify
from zkml_ray.commitments.challenge import read_weights, write_weights
from zkml_ray.errors import VerificationError
from zkml_ray.stages.plan import PlanOptions
from zkml_ray.stores.layout import RunLayout
from zkml_ray.stores.local import LocalStore
from zkml_ray.verifying.bundle import write_bundle

pytestmark = pytest.mark.ray

ROWS, WIDTH = 3, 48


def weights(name: str, seed: int) -> onnx.TensorProto:
    """A square matrix."""
    draw = np.random.default_rng(seed).normal(size=(WIDTH, WIDTH)) / np.sqrt(WIDTH)
    return numpy_helper.from_array(draw.astype(np.float32), name)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two dense layers."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["h"], "relu"),
        helper.make_node("MatMul", ["h", "v"], ["y"], "last"),
    ]
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [ROWS, WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [ROWS, WIDTH])],
        [weights("w", 1), weights("v", 2)],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = tmp_path_factory.mktemp("dense") / "dense.onnx"
    onnx.save(proto, path)
    return path


@pytest.fixture(scope="module")
def run(ray_cluster: None, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Proved as two chunks."""
    del ray_cluster
    options = PlanOptions(products="challenge", layers_per_chunk=1, scale=8)
    store = tmp_path_factory.mktemp("store")
    return prove_distributed(
        model, workers=2, threads=1, store=store, run_id="challenged", options=options
    )


def folder_of(run: Run) -> Path:
    """The store's folder."""
    return Path(run.store.removeprefix("file://"))


def test_run_is_verified_by_either_trust_root(run: Run, model: Path) -> None:
    assert run.verified
    chunks = run.plan.chunks
    assert len(chunks) == 2
    assert all(chunk.arguments.products == "challenge" for chunk in chunks)
    assert all(chunk.weights_sha256 for chunk in chunks)
    store = folder_of(run)
    for trust in ({"plan_digest": run.plan_digest}, {"model": model}):
        assert verify("challenged", store=store, allow_insecure_srs=True, **trust).ok


def test_bundle_has_all_that_a_verifier_needs(run: Run, model: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "run.zip"
    write_bundle(LocalStore(folder_of(run)), RunLayout("default", "challenged"), bundle)
    assert verify(str(bundle), plan_digest=run.plan_digest, allow_insecure_srs=True).ok


def test_weights_that_the_plan_does_not_pin_are_refused(run: Run, model: Path) -> None:
    manifest = json.loads(
        (folder_of(run) / "projects/default/runs/challenged/manifest.json").read_text()
    )
    ref = manifest["artifacts"][names.weights("chunk-001")]
    path = folder_of(run) / ref["key"]
    honest = path.read_bytes()
    changed = read_weights(honest)
    changed[0][3, 4] += 1
    try:
        path.write_bytes(write_weights(changed))
        for trust in ({"plan_digest": run.plan_digest}, {"model": model}):
            with pytest.raises(VerificationError) as caught:
                verify("challenged", store=folder_of(run), allow_insecure_srs=True, **trust)
            assert caught.value.code == "artifact-digest"
        path.unlink()
        with pytest.raises(VerificationError) as caught:
            verify(
                "challenged",
                store=folder_of(run),
                plan_digest=run.plan_digest,
                allow_insecure_srs=True,
            )
        assert caught.value.code == "artifact-missing"
    finally:
        path.write_bytes(honest)
