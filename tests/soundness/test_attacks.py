"""Attacks by name. Every one is consistent with itself: references are re-hashed."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.layers import prove_layers
from zkml_ray import names
from zkml_ray.api import Run
from zkml_ray.chunking.load import load_model
from zkml_ray.commitments.field import MODULUS
from zkml_ray.errors import (
    BoundaryMismatchError,
    InsecureSrsError,
    ProofRejectedError,
    StatementError,
    TrustRootError,
    VerificationError,
)
from zkml_ray.trust import TrustRoot

from .attacker import Attacker

pytestmark = pytest.mark.ray


@pytest.fixture
def attacker(mlp_run: Run, tmp_path: Path) -> Attacker:
    return Attacker(mlp_run, tmp_path / "store")


@pytest.fixture(scope="session")
def other_run(ray_cluster: None, models: Path, shared_store: Path) -> Run:
    """The same model, another input."""
    inputs = np.full((1, 8), 0.25, dtype=np.float32)
    return prove_layers(
        models / "mlp.onnx",
        workers=2,
        inputs=inputs,
        store=shared_store,
        project="shared",
        run_id="mlp-other",
    )


@pytest.fixture(scope="session")
def forged_run(
    ray_cluster: None, models: Path, shared_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """A run of a model of the same shapes, one weight changed by one quantum."""
    model = onnx.load(models / "mlp.onnx")
    tensor = model.graph.initializer[0]
    weights = numpy_helper.to_array(tensor).copy()
    weights[0, 0] += 1 / 1024
    tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))
    path = tmp_path_factory.mktemp("forged") / "mlp.onnx"
    onnx.save(model, path)
    return prove_layers(path, workers=2, store=shared_store, project="shared", run_id="mlp-forged")


def proof_of(attacker: Attacker, chunk: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(attacker.read(names.proof(chunk)))
    return document


def sealed_plan(attacker: Attacker) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(attacker.read(names.SEALED_PLAN))
    return document


def test_honest_run_verifies_through_the_attacker(attacker: Attacker) -> None:
    assert attacker.verify().ok


def test_swapped_chunks_are_refused(attacker: Attacker) -> None:
    first, second = attacker.read(names.proof("chunk-000")), attacker.read(names.proof("chunk-001"))
    attacker.replace(names.proof("chunk-000"), second)
    attacker.replace(names.proof("chunk-001"), first)
    with pytest.raises(ProofRejectedError, match="chunk-000"):
        attacker.verify()


@pytest.mark.parametrize("chunk", ["chunk-000", "chunk-001", "chunk-002"])
def test_replayed_proof_of_another_run_is_refused(
    attacker: Attacker, other_run: Run, chunk: str
) -> None:
    reference = other_run.manifest.artifacts[names.proof(chunk)]
    attacker.replace(names.proof(chunk), attacker.store.read_verified(reference))
    with pytest.raises(BoundaryMismatchError):
        attacker.verify()


def test_runs_mixed_at_a_cut_are_refused(attacker: Attacker, other_run: Run) -> None:
    for chunk in ("chunk-001", "chunk-002"):
        reference = other_run.manifest.artifacts[names.proof(chunk)]
        attacker.replace(names.proof(chunk), attacker.store.read_verified(reference))
    with pytest.raises(BoundaryMismatchError):
        attacker.verify()


def test_replayed_run_under_this_run_s_statement_is_refused(
    attacker: Attacker, other_run: Run
) -> None:
    for chunk in attacker.run.plan.chunks:
        reference = other_run.manifest.artifacts[names.proof(chunk.id)]
        attacker.replace(names.proof(chunk.id), attacker.store.read_verified(reference))
    with pytest.raises(VerificationError, match="commitments"):
        attacker.verify()
    attacker.manifest["boundaries"] = other_run.manifest.model_dump(mode="json")["boundaries"]
    with pytest.raises(StatementError):
        attacker.verify()


def test_dropped_chunk_is_refused(attacker: Attacker) -> None:
    del attacker.manifest["artifacts"][names.proof("chunk-001")]
    with pytest.raises(VerificationError, match="chunk-001"):
        attacker.verify()


def test_chunk_dropped_from_the_plan_too_is_refused_by_both_trust_roots(
    attacker: Attacker, models: Path
) -> None:
    sealed = sealed_plan(attacker)
    sealed["plan"]["chunks"].pop()
    sealed["verifying_keys"].pop()
    digest = attacker.replace_plan(sealed)
    with pytest.raises(TrustRootError):
        attacker.verify()
    with pytest.raises(VerificationError):
        attacker.verify(TrustRoot(model=load_model(models / "mlp.onnx")))
    with pytest.raises(VerificationError):
        attacker.verify(TrustRoot(plan_digest=digest))


def test_duplicated_chunk_is_refused(attacker: Attacker) -> None:
    sealed = sealed_plan(attacker)
    sealed["plan"]["chunks"].append(copy.deepcopy(sealed["plan"]["chunks"][-1]))
    digest = attacker.replace_plan(sealed)
    with pytest.raises(VerificationError):
        attacker.verify(TrustRoot(plan_digest=digest))


def test_reordered_edges_are_refused(attacker: Attacker) -> None:
    sealed = sealed_plan(attacker)
    first, second = sealed["plan"]["chunks"][0], sealed["plan"]["chunks"][1]
    first["inputs"], second["inputs"] = second["inputs"], first["inputs"]
    digest = attacker.replace_plan(sealed)
    with pytest.raises(VerificationError):
        attacker.verify(TrustRoot(plan_digest=digest))


def test_changed_output_value_is_refused(attacker: Attacker) -> None:
    shown = attacker.manifest["statement"]["revealed"][-1]
    assert shown["boundary"] == "y"
    shown["values"][0] += 1
    with pytest.raises(StatementError, match="y"):
        attacker.verify()


def test_changed_salt_is_refused(attacker: Attacker) -> None:
    attacker.manifest["statement"]["revealed"][-1]["salts"][0] ^= 1
    with pytest.raises(StatementError):
        attacker.verify()


@pytest.mark.parametrize("field", ["scale", "shape", "name"])
def test_changed_meaning_of_a_boundary_is_refused_by_every_trust_root(
    attacker: Attacker, models: Path, field: str
) -> None:
    sealed = sealed_plan(attacker)
    boundary = next(b for b in sealed["plan"]["boundaries"] if b["name"] == "y")
    boundary[field] = {"scale": boundary["scale"] + 1, "shape": [4, 1], "name": "z"}[field]
    digest = attacker.replace_plan(sealed)
    with pytest.raises(TrustRootError):
        attacker.verify()
    with pytest.raises(VerificationError):
        attacker.verify(TrustRoot(model=load_model(models / "mlp.onnx")))
    with pytest.raises(VerificationError):
        attacker.verify(TrustRoot(plan_digest=digest))


def test_weights_changed_by_one_quantum_are_refused(
    attacker: Attacker, forged_run: Run, models: Path
) -> None:
    """A self-consistent bundle, own keys and all, for a model of the same shapes."""
    forger = Attacker(forged_run, attacker.store._root.with_name("forged"))
    assert forger.verify(TrustRoot(plan_digest=forged_run.plan_digest)).ok
    with pytest.raises(TrustRootError):
        forger.verify(TrustRoot(plan_digest=attacker.run.plan_digest))
    with pytest.raises(TrustRootError):
        forger.verify(TrustRoot(model=load_model(models / "mlp.onnx")))
    sealed = sealed_plan(forger)
    sealed["plan"]["model_sha256"] = attacker.run.plan.model_sha256
    forger.replace_plan(sealed)
    with pytest.raises(TrustRootError):
        forger.verify(TrustRoot(model=load_model(models / "mlp.onnx")))


def test_proof_under_another_model_s_key_is_refused(attacker: Attacker, forged_run: Run) -> None:
    artifacts = forged_run.manifest.artifacts
    for name in (names.proof("chunk-000"), names.verifying_key("chunk-000")):
        attacker.replace(name, attacker.store.read_verified(artifacts[name]))
    with pytest.raises(VerificationError, match="plan pins"):
        attacker.verify()


def test_insecure_srs_is_refused_unless_allowed_and_cannot_pass_as_ceremony(
    attacker: Attacker,
) -> None:
    with pytest.raises(InsecureSrsError):
        attacker.verify(allow_insecure_srs=False)
    sealed = sealed_plan(attacker)
    for pin in sealed["srs"]:
        pin["trust"] = "ceremony"
    digest = attacker.replace_plan(sealed)
    with pytest.raises(VerificationError, match="called ceremony"):
        attacker.verify(TrustRoot(plan_digest=digest), allow_insecure_srs=False)


def test_instance_not_below_the_modulus_is_refused(attacker: Attacker) -> None:
    document = proof_of(attacker, "chunk-000")
    value = int.from_bytes(bytes.fromhex(document["instances"][0]), "little") + MODULUS
    document["instances"][0] = (value % (1 << 256)).to_bytes(32, "little").hex()
    attacker.replace(names.proof("chunk-000"), json.dumps(document).encode())
    with pytest.raises(VerificationError, match="field element"):
        attacker.verify()


@pytest.mark.parametrize("change", ["drop", "repeat", "swap"])
def test_changed_number_or_order_of_instances_is_refused(attacker: Attacker, change: str) -> None:
    document = proof_of(attacker, "chunk-000")
    shown = document["instances"]
    document["instances"] = {
        "drop": shown[:-1],
        "repeat": [*shown, shown[-1]],
        "swap": shown[::-1],
    }[change]
    attacker.replace(names.proof("chunk-000"), json.dumps(document).encode())
    with pytest.raises(VerificationError):
        attacker.verify()


def test_every_25th_byte_of_every_proof_flipped_is_refused(
    attacker: Attacker, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = refused = 0
    for chunk in attacker.run.plan.chunks:
        honest = attacker.manifest["artifacts"][names.proof(chunk.id)]
        document = proof_of(attacker, chunk.id)
        body = bytes.fromhex(document["proof"])
        for position in range(0, len(body), len(body) // 25):
            flipped = bytearray(body)
            flipped[position] ^= 1 << (position % 8)
            changed = {**document, "proof": flipped.hex()}
            attacker.replace(names.proof(chunk.id), json.dumps(changed).encode())
            tried += 1
            with pytest.raises(ProofRejectedError, match=chunk.id):
                attacker.verify()
            refused += 1
        attacker.manifest["artifacts"][names.proof(chunk.id)] = honest
    with capsys.disabled():
        print(f"\nflipped proof bytes: {tried} tried, {refused} refused")


def test_bytes_changed_in_the_store_are_refused(attacker: Attacker) -> None:
    wanted = [
        names.SEALED_PLAN,
        names.settings("chunk-001"),
        names.verifying_key("chunk-001"),
        names.proof("chunk-001"),
        names.srs(attacker.run.plan.chunks[0].arguments.logrows),
    ]
    for name in wanted:
        key = attacker.manifest["artifacts"][name]["key"]
        honest = attacker.store.get(key, max_bytes=1 << 30)
        changed = bytearray(honest)
        changed[len(changed) // 2] ^= 1
        attacker.store.put(key, bytes(changed))
        with pytest.raises(VerificationError, match="changed"):
            attacker.verify()
        attacker.store.put(key, honest)
    assert attacker.verify().ok


def test_manifest_of_another_run_in_this_run_s_place_is_refused(
    attacker: Attacker, other_run: Run
) -> None:
    attacker.manifest = other_run.manifest.model_dump(mode="json")
    with pytest.raises(VerificationError, match="another run"):
        attacker.verify()


def test_trust_root_is_required_and_single(models: Path) -> None:
    from zkml_ray.errors import ConfigError

    for arguments in ({}, {"model": load_model(models / "mlp.onnx"), "plan_digest": "0" * 64}):
        with pytest.raises(ConfigError, match="exactly one trust root"):
            TrustRoot(**arguments)
