"""Attacks by name. Every one is consistent with itself: references are re-hashed."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.layers import BY_LAYER
from zkml_ray import names
from zkml_ray.api import Run
from zkml_ray.canonical import canonical_json, sha256_hex
from zkml_ray.chunking.load import LoadedModel, load_model
from zkml_ray.circuits.derive import rederive_circuits
from zkml_ray.circuits.srs import ensure_srs
from zkml_ray.commitments.field import MODULUS, encode
from zkml_ray.commitments.leaves import draw_salts, hash_leaves, pack_leaves
from zkml_ray.commitments.merkle import MerkleTree, boundary_commitment
from zkml_ray.errors import ConfigError, VerificationError
from zkml_ray.schema.plan import Plan
from zkml_ray.stages.plan import plan as make_plan
from zkml_ray.verifying.trust import TrustRoot

from .attacker import Attacker
from .tally import TALLY

pytestmark = pytest.mark.ray


@pytest.fixture(scope="session")
def other(other_run: Run) -> Attacker:
    return Attacker(other_run)


@pytest.fixture(scope="session")
def forger(forged_run: Run) -> Attacker:
    return Attacker(forged_run)


@pytest.fixture(scope="session")
def residual(residual_run: Run) -> Attacker:
    return Attacker(residual_run)


def refused(attacker: Attacker, *codes: str, trust: TrustRoot | None = None) -> None:
    TALLY.refused_with(lambda: attacker.verify(trust), *codes, case="attack")


def restate(attacker: Attacker, boundary: str, values: list[int]) -> None:
    """State other values of a boundary, and the commitment that they would have."""
    entry = next(r for r in attacker.manifest["statement"]["revealed"] if r["boundary"] == boundary)
    entry["values"] = values
    planned = attacker.run.plan.boundary(boundary)
    leaves = hash_leaves(pack_leaves(values, entry["salts"], planned.layout.layout()))
    commitment = encode(boundary_commitment(MerkleTree(leaves).root, planned.metadata()))
    for stated in (
        *attacker.manifest["boundaries"],
        *attacker.manifest["statement"]["commitments"],
    ):
        if stated["boundary"] == boundary:
            stated["commitment"] = commitment


def test_honest_run_verifies_through_the_attacker(
    attacker: Attacker, mlp_model: LoadedModel
) -> None:
    by_digest = attacker.verify()
    by_model = attacker.verify(TrustRoot(model=mlp_model))
    assert by_digest.ok
    assert by_model.ok
    assert by_digest.revealed == by_model.revealed
    # What was done to the model is part of what was proved, so the verdict names it.
    assert all(step.name in by_digest.quantisation for step in attacker.run.plan.rewrites)


def test_swapped_chunks_are_refused(attacker: Attacker) -> None:
    first, second = attacker.read(names.proof("chunk-000")), attacker.read(names.proof("chunk-001"))
    attacker.replace(names.proof("chunk-000"), second)
    attacker.replace(names.proof("chunk-001"), first)
    refused(attacker, "proof-rejected")


def test_swapped_chunks_with_their_keys_are_refused(attacker: Attacker) -> None:
    for name in (names.proof, names.verifying_key, names.settings):
        first, second = attacker.read(name("chunk-000")), attacker.read(name("chunk-001"))
        attacker.replace(name("chunk-000"), second)
        attacker.replace(name("chunk-001"), first)
    refused(attacker, "artifact-pin")


def test_swapped_boundary_instances_are_refused(attacker: Attacker) -> None:
    """x and h0 have the same shape: chunk 0 claims that its output was its input."""
    document = attacker.document(names.proof("chunk-000"))
    document["instances"].reverse()
    attacker.replace_document(names.proof("chunk-000"), document)
    refused(attacker, "proof-rejected")


def test_swapped_boundary_commitments_are_refused(attacker: Attacker) -> None:
    stated = attacker.manifest["boundaries"]
    stated[1]["commitment"], stated[2]["commitment"] = (
        stated[2]["commitment"],
        stated[1]["commitment"],
    )
    refused(attacker, "manifest-commitments")


@pytest.mark.parametrize("chunk", ["chunk-000", "chunk-001", "chunk-002"])
def test_replayed_proof_of_another_run_is_refused(
    attacker: Attacker, other: Attacker, chunk: str
) -> None:
    attacker.replace(names.proof(chunk), other.read(names.proof(chunk)))
    refused(attacker, "boundary-mismatch")


@pytest.mark.parametrize("first", [1, 2])
def test_runs_mixed_at_a_cut_are_refused(attacker: Attacker, other: Attacker, first: int) -> None:
    for chunk in attacker.run.plan.chunks[first:]:
        attacker.replace(names.proof(chunk.id), other.read(names.proof(chunk.id)))
    refused(attacker, "boundary-mismatch")


def test_replayed_run_under_this_run_s_statement_is_refused(
    attacker: Attacker, other: Attacker
) -> None:
    for chunk in attacker.run.plan.chunks:
        attacker.replace(names.proof(chunk.id), other.read(names.proof(chunk.id)))
    refused(attacker, "manifest-commitments")
    attacker.manifest["boundaries"] = other.manifest["boundaries"]
    refused(attacker, "statement-commitments")
    attacker.manifest["statement"]["commitments"] = other.manifest["statement"]["commitments"]
    refused(attacker, "statement-values")


def test_replayed_run_is_that_run_whatever_it_is_called(
    attacker: Attacker, other: Attacker
) -> None:
    """Renaming a run is no lie about the model: a run's id is not part of the statement."""
    attacker.take_over(other)
    assert attacker.verify().revealed == other.run.verdict.revealed


def test_dropped_chunk_is_refused(attacker: Attacker) -> None:
    del attacker.manifest["artifacts"][names.proof("chunk-001")]
    refused(attacker, "artifact-missing")


def test_chunk_dropped_from_the_plan_too_is_refused_by_every_trust_root(
    attacker: Attacker, mlp_model: LoadedModel
) -> None:
    sealed = attacker.document(names.SEALED_PLAN)
    sealed["plan"]["chunks"].pop()
    sealed["verifying_keys"].pop()
    digest = attacker.replace_plan(sealed)
    refused(attacker, "plan-digest")
    refused(attacker, "plan-topology", trust=TrustRoot(model=mlp_model))
    refused(attacker, "plan-topology", trust=TrustRoot(plan_digest=digest))


def test_chunk_dropped_with_its_boundary_is_refused_by_the_model(
    attacker: Attacker, mlp_model: LoadedModel
) -> None:
    """The graph is complete again: only the model knows that a layer is missing."""
    sealed = attacker.document(names.SEALED_PLAN)
    plan = sealed["plan"]
    plan["chunks"].pop()
    sealed["verifying_keys"].pop()
    plan["boundaries"].pop()
    plan["boundaries"][-1]["consumers"] = []
    plan["model_outputs"] = [plan["boundaries"][-1]["name"]]
    attacker.replace_plan(sealed)
    refused(attacker, "model-circuits", "manifest-claims", trust=TrustRoot(model=mlp_model))


def test_duplicated_chunk_is_refused(attacker: Attacker, mlp_model: LoadedModel) -> None:
    sealed = attacker.document(names.SEALED_PLAN)
    sealed["plan"]["chunks"].append(copy.deepcopy(sealed["plan"]["chunks"][-1]))
    sealed["verifying_keys"].append(copy.deepcopy(sealed["verifying_keys"][-1]))
    digest = attacker.replace_plan(sealed)
    refused(attacker, "plan-topology", trust=TrustRoot(plan_digest=digest))
    refused(attacker, "plan-topology", trust=TrustRoot(model=mlp_model))


def test_proof_of_no_chunk_is_refused(attacker: Attacker) -> None:
    artifacts = attacker.manifest["artifacts"]
    artifacts[names.proof("chunk-003")] = artifacts[names.proof("chunk-002")]
    refused(attacker, "manifest-claims")


def test_reordered_edges_are_refused(attacker: Attacker, mlp_model: LoadedModel) -> None:
    sealed = attacker.document(names.SEALED_PLAN)
    first, second = sealed["plan"]["chunks"][0], sealed["plan"]["chunks"][1]
    first["inputs"], second["inputs"] = second["inputs"], first["inputs"]
    digest = attacker.replace_plan(sealed)
    for trust in (TrustRoot(plan_digest=digest), TrustRoot(model=mlp_model)):
        refused(attacker, "plan-topology", trust=trust)


def test_reordered_edges_of_a_residual_model_are_refused(residual: Attacker, models: Path) -> None:
    """Two boundaries of one shape enter one chunk: their order is part of the circuit."""
    residual.reset()
    sealed = residual.document(names.SEALED_PLAN)
    chunk = next(c for c in sealed["plan"]["chunks"] if len(c["inputs"]) == 2)
    chunk["inputs"].reverse()
    digest = residual.replace_plan(sealed)
    model = load_model(models / "residual.onnx")
    refused(residual, "model-circuits", trust=TrustRoot(model=model))
    refused(residual, "boundary-mismatch", trust=TrustRoot(plan_digest=digest))


def test_residual_edge_cut_from_one_consumer_is_refused(residual: Attacker) -> None:
    residual.reset()
    sealed = residual.document(names.SEALED_PLAN)
    fan_out = next(b for b in sealed["plan"]["boundaries"] if len(b["consumers"]) > 1)
    fan_out["consumers"].pop()
    digest = residual.replace_plan(sealed)
    refused(residual, "plan-topology", trust=TrustRoot(plan_digest=digest))


def test_changed_output_value_is_refused(attacker: Attacker) -> None:
    attacker.manifest["statement"]["revealed"][-1]["values"][0] += 1
    refused(attacker, "statement-values")


def test_changed_output_value_with_its_own_commitment_is_refused(attacker: Attacker) -> None:
    shown = attacker.manifest["statement"]["revealed"][-1]
    restate(attacker, shown["boundary"], [shown["values"][0] + 1, *shown["values"][1:]])
    refused(attacker, "manifest-commitments")


def test_output_value_that_packs_alike_but_is_out_of_range_is_refused(attacker: Attacker) -> None:
    """(a + 2^30, b - 1) packs to the same field element as (a, b)."""
    values = attacker.manifest["statement"]["revealed"][-1]["values"]
    values[0] += 1 << 30
    values[1] -= 1
    refused(attacker, "statement-range")


def test_changed_salt_is_refused(attacker: Attacker) -> None:
    attacker.manifest["statement"]["revealed"][-1]["salts"][0] ^= 1
    refused(attacker, "statement-values")


@pytest.mark.parametrize(
    ("field", "by_model", "by_own_digest"),
    [
        ("scale", "model-circuits", "manifest-commitments"),
        ("shape", "model-circuits", "manifest-commitments"),
        ("name", "plan-topology", "plan-topology"),
    ],
)
def test_changed_meaning_of_a_boundary_is_refused_by_every_trust_root(
    attacker: Attacker, mlp_model: LoadedModel, field: str, by_model: str, by_own_digest: str
) -> None:
    sealed = attacker.document(names.SEALED_PLAN)
    boundary = next(b for b in sealed["plan"]["boundaries"] if b["name"] == "y")
    boundary[field] = {"scale": boundary["scale"] + 1, "shape": [4, 1], "name": "z"}[field]
    digest = attacker.replace_plan(sealed)
    refused(attacker, "plan-digest")
    refused(attacker, by_model, trust=TrustRoot(model=mlp_model))
    refused(attacker, by_own_digest, trust=TrustRoot(plan_digest=digest))


def test_changed_scale_with_its_own_commitments_is_refused_by_the_model(
    attacker: Attacker, mlp_model: LoadedModel
) -> None:
    """Outputs half as large: every commitment is made anew, no proof changes."""
    sealed = attacker.document(names.SEALED_PLAN)
    next(b for b in sealed["plan"]["boundaries"] if b["name"] == "y")["scale"] += 1
    digest = attacker.replace_plan(sealed)
    plan = Plan.model_validate_json(json.dumps(sealed["plan"]))
    leaf = attacker.document(names.proof("chunk-002"))["instances"][1]
    element = int.from_bytes(bytes.fromhex(leaf), "little")
    forged = encode(boundary_commitment(element, plan.boundary("y").metadata()))
    attacker.manifest["boundaries"][-1]["commitment"] = forged
    attacker.manifest["statement"]["commitments"][-1]["commitment"] = forged
    # Whoever trusts a digest without having re-built its plan is deceived; nobody else is.
    assert attacker.verify(TrustRoot(plan_digest=digest)).ok
    refused(attacker, "plan-digest")
    refused(attacker, "model-circuits", trust=TrustRoot(model=mlp_model))


def test_wrong_model_with_the_same_shapes_is_refused_by_both_trust_roots(
    attacker: Attacker, forger: Attacker, mlp_model: LoadedModel
) -> None:
    """A self-consistent bundle, own keys and all; one weight differs by one quantum."""
    forger.reset()
    assert forger.verify(TrustRoot(plan_digest=forger.run.plan_digest)).ok
    refused(forger, "plan-digest", trust=TrustRoot(plan_digest=attacker.run.plan_digest))
    refused(forger, "model-digest", trust=TrustRoot(model=mlp_model))
    sealed = forger.document(names.SEALED_PLAN)
    sealed["plan"]["model_sha256"] = attacker.run.plan.model_sha256
    forger.replace_plan(sealed)
    refused(forger, "model-circuits", trust=TrustRoot(model=mlp_model))


def test_forged_keys_behind_an_honest_plan_are_refused_by_both_trust_roots(
    attacker: Attacker, forger: Attacker, mlp_model: LoadedModel
) -> None:
    """The plan is the model's in everything but one key, which belongs to the forged weights."""
    forger.reset()
    attacker.store.objects |= forger.store.objects
    for name in (names.proof("chunk-000"), names.verifying_key("chunk-000")):
        attacker.manifest["artifacts"][name] = forger.manifest["artifacts"][name]
    refused(attacker, "artifact-pin")
    sealed = attacker.document(names.SEALED_PLAN)
    key = forger.manifest["artifacts"][names.verifying_key("chunk-000")]["sha256"]
    sealed["verifying_keys"][0]["sha256"] = key
    attacker.replace_plan(sealed)
    refused(attacker, "plan-digest")
    refused(attacker, "model-keys", trust=TrustRoot(model=mlp_model))


@pytest.mark.parametrize(("logrows", "code"), [(6, "plan-extent"), (7, "model-keys")])
def test_circuit_too_short_for_its_chunk_is_refused_by_the_model(
    attacker: Attacker, mlp_model: LoadedModel, logrows: int, code: str
) -> None:
    """The plan agrees with itself and with the model, but no key of its size can be made.

    Of 2^6 rows that is seen before anything is made.
    """
    sealed = attacker.document(names.SEALED_PLAN)
    # A native circuit's: the model of a hinted one depends on its rows.
    document = json.loads(
        make_plan(mlp_model, replace(BY_LAYER, circuits="native")).plan.to_bytes()
    )
    for chunk in document["chunks"]:
        chunk["arguments"]["logrows"] = logrows
    claimed = Plan.model_validate_json(json.dumps(document))
    sealed["plan"] = json.loads(rederive_circuits(mlp_model, claimed).plan.to_bytes())
    srs = ensure_srs(logrows)
    sealed["srs"] = [srs.pin().model_dump(mode="json")]
    attacker.replace_plan(sealed)
    attacker.replace(names.srs(logrows), srs.path.read_bytes())
    refused(attacker, "plan-digest")
    refused(attacker, code, trust=TrustRoot(model=mlp_model))


def test_proof_under_another_model_s_key_is_refused(attacker: Attacker, forger: Attacker) -> None:
    forger.reset()
    attacker.replace(names.proof("chunk-000"), forger.read(names.proof("chunk-000")))
    refused(attacker, "proof-rejected")


def test_insecure_srs_is_refused_unless_allowed(attacker: Attacker) -> None:
    TALLY.refused_with(
        lambda: attacker.verify(allow_insecure_srs=False), "srs-insecure", case="insecure SRS"
    )


def test_insecure_srs_passed_off_as_ceremony_is_refused(
    attacker: Attacker, mlp_model: LoadedModel
) -> None:
    sealed = attacker.document(names.SEALED_PLAN)
    for pin in sealed["srs"]:
        pin["trust"] = "ceremony"
    digest = attacker.replace_plan(sealed)
    for trust in (TrustRoot(plan_digest=digest), TrustRoot(model=mlp_model)):
        TALLY.refused_with(
            lambda trust=trust: attacker.verify(trust, allow_insecure_srs=False),
            "srs-trust",
            case="named ceremony",
        )


def test_srs_of_another_secret_is_refused(attacker: Attacker, mlp_model: LoadedModel) -> None:
    """Who knows the secret of the part that proofs are checked with can forge every proof."""
    sealed = attacker.document(names.SEALED_PLAN)
    pin = sealed["srs"][0]
    name = names.verifier_srs(pin["logrows"])
    own = bytearray(attacker.read(name))
    own[-1] ^= 1
    attacker.change_bytes(name, bytes(own))
    refused(attacker, "artifact-digest")
    attacker.replace(name, bytes(own))
    refused(attacker, "artifact-pin")
    pin["verifier_sha256"] = sha256_hex(bytes(own))
    attacker.replace_plan(sealed)
    refused(attacker, "plan-digest")
    refused(attacker, "srs-file", trust=TrustRoot(model=mlp_model))


def test_instance_not_below_the_modulus_is_refused(attacker: Attacker) -> None:
    document = attacker.document(names.proof("chunk-000"))
    value = int.from_bytes(bytes.fromhex(document["instances"][0]), "little") + MODULUS
    document["instances"][0] = (value % (1 << 256)).to_bytes(32, "little").hex()
    attacker.replace_document(names.proof("chunk-000"), document)
    refused(attacker, "instance-range")


@pytest.mark.parametrize("count", [1, 32, 64, 4096])
@pytest.mark.parametrize("chunk", ["chunk-000", "chunk-002"])
def test_trailing_bytes_after_the_proof_are_refused(
    attacker: Attacker, chunk: str, count: int
) -> None:
    document = attacker.document(names.proof(chunk))
    document["proof"] += "00" * count
    attacker.replace_document(names.proof(chunk), document)
    refused(attacker, "proof-trailing")


@pytest.mark.parametrize("count", [1, 32, 64])
def test_truncated_proof_is_refused(attacker: Attacker, count: int) -> None:
    document = attacker.document(names.proof("chunk-001"))
    document["proof"] = document["proof"][: -2 * count]
    attacker.replace_document(names.proof("chunk-001"), document)
    refused(attacker, "proof-rejected")


def test_salt_reuse_is_refused(attacker: Attacker) -> None:
    """A prover who salts two leaves alike; his proofs verify."""
    plan = attacker.run.plan
    layouts = {b.name: b.layout.layout() for b in plan.boundaries}
    fresh = {name: draw_salts(layout, label=name) for name, layout in layouts.items()}
    attacker.prove_again(fresh)
    assert attacker.verify().ok
    attacker.prove_again({**fresh, "y": fresh["x"]})
    refused(attacker, "salt-reuse")


def test_old_manifest_format_is_refused(attacker: Attacker) -> None:
    attacker.manifest["format"] = "zkml_ray/manifest/0"
    refused(attacker, "manifest-schema")
    del attacker.manifest["format"]
    refused(attacker, "manifest-schema")


def test_old_manifest_of_an_older_plan_is_refused(attacker: Attacker, forger: Attacker) -> None:
    """A roll-back: yesterday's run of yesterday's model in this run's place."""
    forger.reset()
    attacker.take_over(forger)
    refused(attacker, "plan-digest")


def test_manifest_of_another_run_in_this_run_s_place_is_refused(
    attacker: Attacker, other: Attacker
) -> None:
    attacker.manifest = copy.deepcopy(other.manifest)
    refused(attacker, "run-identity")


@pytest.mark.parametrize("how", ["space", "repeated key", "key order", "number"])
def test_other_spelling_of_a_document_is_refused(attacker: Attacker, how: str) -> None:
    for name in (names.proof("chunk-000"), names.SEALED_PLAN, "manifest"):
        document = attacker.manifest if name == "manifest" else attacker.document(name)
        data = canonical_json(document)
        spelled = {
            "space": data.replace(b":", b": ", 1),
            "repeated key": data[:-1] + b"," + data[1:],
            "key order": json.dumps(
                dict(reversed(document.items())), separators=(",", ":")
            ).encode(),
            "number": data.replace(b":10,", b":10.0,", 1).replace(b"[10,", b"[1e1,"),
        }[how]
        if spelled == data:
            continue
        if name == "manifest":
            attacker.store.put(attacker.layout.manifest, spelled)
        else:
            attacker.replace(name, spelled)
            if name == names.SEALED_PLAN:
                attacker.manifest["plan_sha256"] = sha256_hex(spelled)
                attacker.manifest["statement"]["plan_sha256"] = sha256_hex(spelled)
            attacker.publish()
        TALLY.refused_with(
            attacker.verify_stored,
            "proof-schema",
            "plan-schema",
            "manifest-schema",
            case=f"{how} in {name}",
        )
        attacker.reset()


def test_missing_objects_are_refused(attacker: Attacker) -> None:
    for name in (
        names.SEALED_PLAN,
        names.settings("chunk-001"),
        names.verifying_key("chunk-001"),
        names.proof("chunk-001"),
        names.verifier_srs(attacker.run.plan.chunks[0].arguments.logrows),
    ):
        attacker.store.delete(attacker.key(name))
        refused(attacker, "artifact-missing")
        attacker.reset()


def test_run_that_is_not_there_is_a_wrong_call(attacker: Attacker) -> None:
    attacker.store.delete(attacker.layout.manifest)
    with pytest.raises(ConfigError, match="no run"):
        attacker.verify_stored()


def test_trust_root_is_required_and_single(mlp_model: LoadedModel) -> None:
    with pytest.raises(ConfigError, match="exactly one trust root"):
        TrustRoot()
    with pytest.raises(ConfigError, match="exactly one trust root"):
        TrustRoot(model=mlp_model, plan_digest="0" * 64)


def test_refusal_says_what_was_expected(attacker: Attacker) -> None:
    attacker.manifest["model_sha256"] = "0" * 64
    with pytest.raises(VerificationError) as caught:
        attacker.verify()
    assert caught.value.code == "manifest-claims"
    assert caught.value.expected == attacker.run.plan.model_sha256
