"""Every field of every document that a verifier reads, damaged.

The fields come from the schemas: one that no table here knows fails the suite. A table says with
which code a change of a field is refused when everything else is made to agree with it. `ACCOUNT`
lists the fields that prove nothing, and why; for those the verdict must not change.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import pytest

from zkml_ray import names
from zkml_ray.canonical import canonical_json, sha256_hex
from zkml_ray.chunking.load import LoadedModel
from zkml_ray.commitments.opening import Opening
from zkml_ray.errors import ManifestError, OpeningError
from zkml_ray.schema.manifest import Manifest
from zkml_ray.schema.plan import SealedPlan
from zkml_ray.schema.proof import ChunkProof
from zkml_ray.verifying.openings import check_opening, open_activation
from zkml_ray.verifying.trust import TrustRoot
from zkml_ray.verifying.verifier import Verdict

from .attacker import Attacker, Json
from .fields import Place, changed, look, malformed, places, rearranged, set_at, walk
from .tally import TALLY

pytestmark = pytest.mark.ray

TIMES = "how long it took: nobody can prove a time to another"
TOLD = "the prover's account of the machine and the command"
PEOPLE = "for people"

ACCOUNT: Mapping[str, str] = {
    "created_at": TIMES,
    "model_file": PEOPLE,
    "chunks.[].worker": TOLD,
    "chunks.[].pid": TOLD,
    "chunks.[].node": TOLD,
    "chunks.[].threads": TOLD,
    "chunks.[].attempts": TOLD,
    "chunks.[].keys_made": TOLD,
    "chunks.[].setup.started_s": TIMES,
    "chunks.[].setup.ended_s": TIMES,
    "chunks.[].witness.started_s": TIMES,
    "chunks.[].witness.ended_s": TIMES,
    "chunks.[].prove.started_s": TIMES,
    "chunks.[].prove.ended_s": TIMES,
    "chunks.[].verify_s": TIMES,
    "chunks.[].peak_rss_bytes": TOLD,
    "chunks.[].proof_bytes": "the proof itself is measured, not this",
    "stages.[].stage": TIMES,
    "stages.[].span.started_s": TIMES,
    "stages.[].span.ended_s": TIMES,
    "input_source.kind": "where an input came from; its values are what the statement shows",
    "input_source.seed": "as input_source.kind",
    "accuracy.max_abs_error": "the float model is not part of the statement",
    "accuracy.mean_abs_error": "the float model is not part of the statement",
    "comparison.reference": "the float model is not part of the statement",
    "comparison.note": "the float model is not part of the statement",
    "comparison.outputs.[].output": "the float model is not part of the statement",
    "comparison.outputs.[].max_abs_error": "the float model is not part of the statement",
    "comparison.outputs.[].tolerance": "the float model is not part of the statement",
    "comparison.outputs.[].note": "the float model is not part of the statement",
    "versions.{}": TOLD,
    "command.[]": TOLD,
    "warnings.[]": "the verifier has its own",
}

ACCOUNT_CONTAINERS = {"stages", "versions", "command", "warnings", "comparison.outputs"}

MANIFEST: Mapping[str, str] = {
    "format": "manifest-schema",
    "project": "run-identity",
    "run_id": "run-identity",
    "model_sha256": "manifest-claims",
    "plan_sha256": "statement-plan",
    "srs_trust": "manifest-claims",
    "statement.plan_sha256": "statement-plan",
    "statement.commitments.[].boundary": "statement-commitments",
    "statement.commitments.[].commitment": "statement-commitments",
    "statement.revealed.[].boundary": "statement-revealed",
    "statement.revealed.[].values.[]": "statement-values",
    "statement.revealed.[].salts.[]": "statement-values",
    "boundaries.[].boundary": "manifest-commitments",
    "boundaries.[].commitment": "manifest-commitments",
    "artifacts.{}.key": "artifact-missing",
    "artifacts.{}.sha256": "artifact-pin",
    "artifacts.{}.size_bytes": "artifact-size",
    "chunks.[].chunk": "manifest-claims",
}

ELSEWHERE = {
    "statement.places",
    "statement.places.[].input",
    "statement.places.[].places",
    "statement.places.[].places.[]",
}
"""Fields of runs that look rows up outside of circuits: `test_places` damages them."""

MANIFEST_CONTAINERS: Mapping[str, tuple[str, ...]] = {
    "statement.commitments": ("statement-commitments",),
    "statement.revealed": ("statement-revealed",),
    "statement.revealed.[].values": ("statement-range", "statement-values"),
    "statement.revealed.[].salts": ("statement-range", "statement-values"),
    "boundaries": ("manifest-commitments",),
    "artifacts": ("artifact-missing",),
    "chunks": ("manifest-claims",),
}

LAYOUT = ("plan-layout",)
GRAPH = ("plan-topology",)
REBUILT = ("model-circuits",)

# With the model as trust root: each layer's own reason. With a plan digest all are "plan-digest".
PLAN: Mapping[str, tuple[str, ...]] = {
    "format": ("plan-schema",),
    "plan.format": ("plan-schema",),
    "plan.ezkl_version": ("ezkl-version",),
    "plan.model_sha256": ("model-digest",),
    "plan.normalised_sha256": REBUILT,
    "plan.dimensions.[].[]": ("plan-extent",),
    "plan.rewrites.[].name": REBUILT,
    "plan.rewrites.[].node": REBUILT,
    "plan.rewrites.[].parameter": REBUILT,
    "plan.input_scale": GRAPH,
    "plan.commitment.decomp_base": ("plan-arguments",),
    "plan.commitment.decomp_legs": ("plan-arguments",),
    "plan.commitment.max_slots": LAYOUT,
    "plan.commitment.salted": LAYOUT,
    "plan.commitment.salts_apart": LAYOUT,
    "plan.chunks.[].id": GRAPH,
    "plan.chunks.[].nodes.[]": REBUILT,
    "plan.chunks.[].operators.[]": REBUILT,
    "plan.chunks.[].inputs.[]": GRAPH,
    "plan.chunks.[].outputs.[]": GRAPH,
    "plan.chunks.[].arguments.input_scale": ("plan-precision",),
    "plan.chunks.[].arguments.param_scale": REBUILT,
    "plan.chunks.[].arguments.scale_rebase_multiplier": REBUILT,
    "plan.chunks.[].arguments.decomp_base": ("plan-arguments",),
    "plan.chunks.[].arguments.decomp_legs": ("plan-arguments",),
    "plan.chunks.[].arguments.num_inner_cols": REBUILT,
    "plan.chunks.[].arguments.logrows": ("plan-pins",),
    "plan.chunks.[].arguments.lookup_range.[]": REBUILT,
    "plan.chunks.[].arguments.kind": ("plan-arguments",),
    "plan.chunks.[].arguments.range_bits": ("plan-arguments",),
    "plan.chunks.[].arguments.products": ("plan-arguments",),
    "plan.chunks.[].weights_sha256": ("plan-arguments",),
    "plan.chunks.[].onnx_sha256": REBUILT,
    "plan.chunks.[].settings_sha256": REBUILT,
    "plan.chunks.[].num_rows": REBUILT,
    "plan.chunks.[].poseidon_rows": REBUILT,
    "plan.boundaries.[].name": GRAPH,
    "plan.boundaries.[].shape.[]": LAYOUT,
    "plan.boundaries.[].scale": GRAPH,
    "plan.boundaries.[].producer": GRAPH,
    "plan.boundaries.[].consumers.[]": GRAPH,
    "plan.boundaries.[].layout.element_count": LAYOUT,
    "plan.boundaries.[].layout.leaf_count": LAYOUT,
    "plan.boundaries.[].layout.leaf_size": LAYOUT,
    "plan.boundaries.[].layout.salts_per_leaf": LAYOUT,
    "plan.boundaries.[].layout.slots": LAYOUT,
    "plan.boundaries.[].layout.decomp_base": LAYOUT,
    "plan.boundaries.[].layout.decomp_legs": LAYOUT,
    "plan.boundaries.[].layout.stride_bits": LAYOUT,
    "plan.boundaries.[].layout.inner": LAYOUT,
    "plan.boundaries.[].layout.outer": LAYOUT,
    "plan.model_inputs.[]": GRAPH,
    "plan.model_outputs.[]": GRAPH,
    "plan.lookups.[].input": REBUILT,
    "plan.lookups.[].boundary": GRAPH,
    "plan.lookups.[].rows": REBUILT,
    "plan.lookups.[].table_sha256": REBUILT,
    "srs.[].logrows": ("plan-pins",),
    "srs.[].sha256": ("artifact-digest",),
    "srs.[].verifier_sha256": ("srs-file",),
    "srs.[].trust": ("srs-trust",),
    "verifying_keys.[].chunk": ("plan-pins",),
    "verifying_keys.[].sha256": ("model-keys",),
}


def rewritten(**fields: object) -> tuple[Place, Any]:
    """A plan that claims a rewrite, where the honest one has none."""
    return ("plan", "rewrites"), [{"name": "other", "node": "x", "parameter": 0, **fields}]


def looked_up(**fields: object) -> tuple[Place, Any]:
    """A plan that claims a look-up, where the honest one has none."""
    lookup = {"input": "words", "boundary": "x", "rows": 1, "table_sha256": "0" * 64, **fields}
    return ("plan", "lookups"), [lookup]


# What to write where the honest run has nothing to change, or where one more is not yet wrong.
EDITS: Mapping[str, tuple[Place, Any]] = {
    "plan.dimensions.[].[]": (("plan", "dimensions"), [["n", 1]]),
    "plan.rewrites.[].name": rewritten(name="fold"),
    "plan.rewrites.[].node": rewritten(node="fc0"),
    "plan.rewrites.[].parameter": rewritten(parameter=2),
    "plan.commitment.max_slots": (("plan", "commitment", "max_slots"), 8),
    "plan.lookups.[].input": looked_up(),
    "plan.lookups.[].boundary": looked_up(boundary="y"),
    "plan.lookups.[].rows": looked_up(rows=2),
    "plan.lookups.[].table_sha256": looked_up(table_sha256="1" * 64),
    "plan.boundaries.[].producer": (("plan", "boundaries", 1, "producer"), "chunk-001"),
    "plan.chunks.[].arguments.kind": (("plan", "chunks", 0, "arguments", "kind"), "hinted"),
    "plan.chunks.[].arguments.products": (
        ("plan", "chunks", 0, "arguments", "products"),
        "challenge",
    ),
    "plan.chunks.[].weights_sha256": (("plan", "chunks", 0, "weights_sha256"), "0" * 64),
}

# The same with hinted circuits, where it differs: what they do not use must have one value, the
# table follows from the rows, and so does nearly everything else.
HINTED: Mapping[str, tuple[str, ...]] = {
    "plan.commitment.decomp_base": LAYOUT,
    "plan.commitment.decomp_legs": LAYOUT,
    "plan.chunks.[].arguments.input_scale": ("plan-arguments",),
    "plan.commitment.salted": ("plan-arguments",),
    "plan.input_scale": ("plan-arguments",),
    "plan.commitment.salts_apart": ("plan-arguments", "plan-layout"),
    "plan.chunks.[].arguments.param_scale": ("plan-arguments",),
    "plan.chunks.[].arguments.scale_rebase_multiplier": ("plan-arguments",),
    "plan.chunks.[].arguments.logrows": ("plan-arguments",),
    "plan.chunks.[].arguments.lookup_range.[]": ("plan-arguments",),
    "plan.chunks.[].arguments.range_bits": REBUILT,
    "plan.rewrites.[].name": ("plan-arguments",),
}

HINTED_EDITS: Mapping[str, tuple[Place, Any]] = {
    "plan.chunks.[].arguments.kind": (("plan", "chunks", 0, "arguments", "kind"), "native"),
    "plan.rewrites.[].node": rewritten(name="split-output", node="fc0"),
    "plan.rewrites.[].parameter": rewritten(name="split-output", parameter=2),
}

PLAN_CONTAINERS: Mapping[str, tuple[str, ...]] = {
    "plan.dimensions": ("plan-extent",),
    "plan.dimensions.[]": ("plan-schema",),
    "plan.rewrites": REBUILT,
    "plan.chunks": ("plan-topology",),
    "plan.chunks.[].nodes": ("plan-topology", "model-circuits"),
    "plan.chunks.[].operators": REBUILT,
    "plan.chunks.[].inputs": GRAPH,
    "plan.chunks.[].outputs": GRAPH,
    "plan.chunks.[].arguments.lookup_range": ("plan-schema", "plan-arguments"),
    "plan.boundaries": ("plan-topology", "model-circuits"),
    "plan.boundaries.[].shape": ("plan-layout", "model-circuits"),
    "plan.boundaries.[].consumers": GRAPH,
    "plan.model_inputs": ("plan-schema", "plan-topology"),
    "plan.model_outputs": ("plan-schema", "plan-topology"),
    "plan.lookups": REBUILT,
    "srs": ("plan-pins",),
    "verifying_keys": ("plan-pins",),
}

PROOF: Mapping[str, str] = {
    "format": "proof-schema",
    "instances.[]": "proof-rejected",
    "proof": "proof-rejected",
}


def unlike(verdict: Verdict, other: Verdict) -> dict[str, Any]:
    """Fields in which two verdicts differ, times left out."""
    mine, theirs = dataclasses.asdict(verdict), dataclasses.asdict(other)
    for document in (mine, theirs):
        document["steps"] = [step["name"] for step in document["steps"]]
    return {key: value for key, value in mine.items() if theirs[key] != value}


def parses(sealed: Json) -> bool:
    """Whether a damaged sealed plan is still of its schema."""
    try:
        SealedPlan.parse_canonical(canonical_json(sealed), what="sealed plan")
    except ManifestError:
        return False
    return True


def is_read(name: str) -> bool:
    """Whether a verifier reads the artifact of this logical name."""
    return name == names.SEALED_PLAN or (
        name.startswith(("proofs/", "keys/", "circuits/"))
        and name.endswith((".verifier.srs", "vk.key", "settings.json", ".json"))
        and not name.endswith("index.json")
    )


def is_pinned(name: str) -> bool:
    """Whether the plan pins the digest of the artifact of this logical name."""
    return name.startswith(("models/", "circuits/", "keys/", "plans/")) and not name.endswith(
        ("index.json", "pk.key")
    )


@pytest.mark.parametrize(
    ("schema", "known", "known_containers"),
    [
        (
            Manifest,
            {*MANIFEST, *ACCOUNT} | {path for path in ELSEWHERE if path.endswith((".[]", "input"))},
            {*MANIFEST_CONTAINERS, *ACCOUNT_CONTAINERS}
            | {path for path in ELSEWHERE if path.endswith("places")},
        ),
        (SealedPlan, set(PLAN), set(PLAN_CONTAINERS)),
        (ChunkProof, set(PROOF), {"instances"}),
    ],
)
def test_every_field_of_the_schemas_has_a_case(
    schema: type[Any], known: set[str], known_containers: set[str]
) -> None:
    values, containers = walk(schema)
    assert values == known
    assert containers == known_containers


def test_every_field_of_the_manifest_is_refused_or_changes_no_claim(attacker: Attacker) -> None:
    honest = attacker.verify()
    manifest = attacker.manifest
    for path in sorted(walk(Manifest)[0] - ELSEWHERE):
        found = places(manifest, path)
        assert found or path in ("command.[]", "warnings.[]"), f"{path} does not occur in the run"
        for place in found:
            where = ".".join(map(str, place))
            attacker.manifest = set_at(manifest, place, changed(look(manifest, place)))
            code = MANIFEST.get(path)
            if path.startswith("artifacts.") and code is not None:
                code = _artifact_code(str(place[1]), str(place[2]))
            if code is None:
                assert not unlike(attacker.verify(), honest), where
            else:
                TALLY.refused_with(attacker.verify, code, case=f"changed {where}")
            for damage in malformed(manifest, place):
                attacker.manifest = damage.document
                TALLY.refused_with(attacker.verify, "manifest-schema", case=damage.how)


def test_versions_of_the_manifest_have_their_own_fields(attacker: Attacker) -> None:
    """A manifest of the first version is read, too; neither may have the other's fields."""
    honest = attacker.verify()
    first = {key: value for key, value in attacker.manifest.items() if key != "comparison"}
    assert len(first) == len(attacker.manifest) - 1
    attacker.manifest = {**first, "format": "zkml_ray/manifest/1"}
    assert not unlike(attacker.verify(), honest)
    parsed = Manifest.parse_canonical(canonical_json(attacker.manifest), what="manifest")
    assert json.loads(parsed.to_bytes()) == attacker.manifest
    attacker.reset()
    mixed = [
        ("a first one with a comparison", {**attacker.manifest, "format": "zkml_ray/manifest/1"}),
        ("a second one without", first),
        ("an unknown one", {**attacker.manifest, "format": "zkml_ray/manifest/3"}),
    ]
    for case, document in mixed:
        attacker.manifest = document
        TALLY.refused_with(attacker.verify, "manifest-schema", case=case)
    attacker.reset()


def test_what_the_prover_says_of_accuracy_changes_no_claim(attacker: Attacker) -> None:
    """He may call his outputs exact, or say nothing: a verdict does not repeat it."""
    honest = attacker.verify()
    for comparison in (
        None,
        {"reference": "", "note": "", "outputs": []},
        {
            "reference": "onnxruntime 99",
            "note": "exact",
            "outputs": [{"output": "y", "max_abs_error": 0.0, "tolerance": None, "note": "exact"}],
        },
    ):
        attacker.manifest = {**attacker.manifest, "comparison": comparison, "accuracy": None}
        verdict = attacker.verify()
        assert not unlike(verdict, honest)
        assert "exact" not in verdict.statement
        assert any("float model" in claim for claim in verdict.not_claimed)
    attacker.reset()


def _artifact_code(name: str, field: str) -> str | None:
    if field == "sha256" and is_pinned(name):
        # The plan's own reference is what finds the plan: a wrong one is met first.
        return "artifact-pin"
    if not is_read(name):
        return None
    return {
        "key": "artifact-missing",
        "sha256": "artifact-digest",
        "size_bytes": "artifact-size",
    }[field]


def test_every_array_of_the_manifest_is_refused_rearranged(attacker: Attacker) -> None:
    honest = attacker.verify()
    manifest = attacker.manifest
    for path in sorted(walk(Manifest)[1]):
        for place in places(manifest, path):
            for damage in rearranged(manifest, place):
                attacker.manifest = damage.document
                if path in ACCOUNT_CONTAINERS:
                    assert not unlike(attacker.verify(), honest), damage.how
                elif path == "artifacts":
                    name = damage.how.removeprefix("drop ").removesuffix(" of artifacts")
                    if is_read(name):
                        TALLY.refused_with(attacker.verify, "artifact-missing", case=damage.how)
                    else:
                        assert not unlike(attacker.verify(), honest), damage.how
                elif path == "statement.revealed" and damage.how.startswith("drop"):
                    # Saying less is no lie: the boundary is then reported as not shown.
                    assert set(unlike(attacker.verify(), honest)) == {
                        "statement",
                        "revealed",
                        "hidden",
                    }
                else:
                    TALLY.refused_with(attacker.verify, *MANIFEST_CONTAINERS[path], case=damage.how)


def test_every_field_of_the_sealed_plan_is_refused_by_the_plan_digest(attacker: Attacker) -> None:
    sealed = attacker.document(names.SEALED_PLAN)
    honest_manifest = attacker.manifest
    values, containers = walk(SealedPlan)
    damaged = [
        (f"changed {place}", set_at(sealed, place, changed(look(sealed, place))))
        for path in sorted(values)
        for place in places(sealed, path)
    ]
    damaged += [
        (damage.how, damage.document)
        for path in sorted(values)
        for place in places(sealed, path)
        for damage in malformed(sealed, place)
    ]
    damaged += [
        (damage.how, damage.document)
        for path in sorted(containers)
        for place in places(sealed, path)
        for damage in rearranged(sealed, place)
    ]
    for how, document in damaged:
        # In the store alone: the reference no longer fits.
        data = canonical_json(document)
        attacker.change_bytes(names.SEALED_PLAN, data)
        TALLY.refused_with(attacker.verify, "artifact-digest", "artifact-size", case=how)
        # The reference too: the plan is not the one that the statement names.
        attacker.reset()
        attacker.replace(names.SEALED_PLAN, data)
        TALLY.refused_with(attacker.verify, "artifact-pin", case=how)
        # Everything: the trust root knows better.
        attacker.manifest = json.loads(json.dumps(honest_manifest))
        attacker.replace_plan(document)
        code = "plan-digest" if parses(document) else "plan-schema"
        TALLY.refused_with(attacker.verify, code, case=how)
        attacker.reset()


def test_every_field_of_the_sealed_plan_is_refused_by_the_model(
    native_attacker: Attacker, mlp_model: LoadedModel
) -> None:
    assert native_attacker.verify(TrustRoot(model=mlp_model)).ok
    refused_by_the_model(native_attacker, mlp_model, PLAN, EDITS)


def test_every_field_of_a_sealed_plan_with_hinted_circuits_is_refused_by_the_model(
    attacker: Attacker, mlp_model: LoadedModel
) -> None:
    assert attacker.verify(TrustRoot(model=mlp_model)).ok
    refused_by_the_model(attacker, mlp_model, {**PLAN, **HINTED}, {**EDITS, **HINTED_EDITS})


def refused_by_the_model(
    attacker: Attacker,
    model: LoadedModel,
    plan: Mapping[str, tuple[str, ...]],
    edits: Mapping[str, tuple[Place, Any]],
) -> None:
    """Change each field of the sealed plan, everything else made to agree."""
    sealed = attacker.document(names.SEALED_PLAN)
    trust = TrustRoot(model=model)
    for path, codes in plan.items():
        if path in edits:
            place, value = edits[path]
        else:
            place, *_ = places(sealed, path)
            value = changed(look(sealed, place))
        attacker.replace_plan(set_at(sealed, place, value))
        TALLY.refused_with(lambda: attacker.verify(trust), *codes, case=f"{path} by the model")
        attacker.reset()


def test_every_array_of_the_sealed_plan_is_refused_rearranged_by_the_model(
    attacker: Attacker, mlp_model: LoadedModel
) -> None:
    sealed = attacker.document(names.SEALED_PLAN)
    trust = TrustRoot(model=mlp_model)
    for path, codes in PLAN_CONTAINERS.items():
        for place in places(sealed, path)[:1]:
            for damage in rearranged(sealed, place):
                attacker.replace_plan(damage.document)
                expected = codes if parses(damage.document) else ("plan-schema",)
                TALLY.refused_with(lambda: attacker.verify(trust), *expected, case=damage.how)
                attacker.reset()


def test_every_value_of_every_settings_file_is_refused(attacker: Attacker) -> None:
    for chunk in attacker.run.plan.chunks:
        name = names.settings(chunk.id)
        settings = attacker.document(name)
        for place in _leaves(settings):
            case = f"{name} {'.'.join(map(str, place))}"
            data = canonical_json(set_at(settings, place, changed(look(settings, place))))
            attacker.change_bytes(name, data)
            TALLY.refused_with(attacker.verify, "artifact-digest", "artifact-size", case=case)
            attacker.reset()
            attacker.replace(name, data)
            TALLY.refused_with(attacker.verify, "artifact-pin", case=case)
            attacker.reset()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ignore_range_check_inputs_outputs", True),
        ("input_visibility", "Public"),
        ("output_visibility", "Private"),
        ("param_visibility", "Private"),
        ("rebase_frac_zero_constants", False),
        ("disable_freivalds", None),
        ("decomp_legs", 8),
    ],
)
def test_settings_that_would_weaken_a_circuit_are_refused_by_the_model(
    attacker: Attacker, mlp_model: LoadedModel, field: str, value: object
) -> None:
    """The plan pins the weakened file, and all else agrees: only re-building tells."""
    name = names.settings("chunk-000")
    settings = attacker.document(name)
    settings["run_args"][field] = not settings["run_args"][field] if value is None else value
    sealed = attacker.document(names.SEALED_PLAN)
    sealed["plan"]["chunks"][0]["settings_sha256"] = sha256_hex(canonical_json(settings))
    attacker.replace_plan(sealed)
    attacker.replace(name, canonical_json(settings))
    TALLY.refused_with(
        lambda: attacker.verify(TrustRoot(model=mlp_model)), "model-circuits", case=field
    )


@pytest.mark.parametrize(
    "weaker",
    [
        {"required_lookups": []},
        {"required_lookups": [{"Sigmoid": {"scale": 1}}]},
        {"run_args": {"lookup_range": [0, 1 << 20]}},
        {"run_args": {"lookup_range": [-1, 100]}},
        {"run_args": {"input_visibility": "Private"}},
        {"run_args": {"output_visibility": "Private"}},
        {"run_args": {"ignore_range_check_inputs_outputs": True}},
    ],
)
def test_settings_that_would_weaken_a_hinted_circuit_are_refused_by_the_model(
    attacker: Attacker, mlp_model: LoadedModel, weaker: Json
) -> None:
    name = names.settings("chunk-000")
    attacker.reset()
    settings, honest = attacker.document(name), attacker.document(name)
    settings["run_args"] |= weaker.get("run_args", {})
    settings |= {key: value for key, value in weaker.items() if key != "run_args"}
    assert settings != honest
    sealed = attacker.document(names.SEALED_PLAN)
    sealed["plan"]["chunks"][0]["settings_sha256"] = sha256_hex(canonical_json(settings))
    attacker.replace_plan(sealed)
    attacker.replace(name, canonical_json(settings))
    TALLY.refused_with(
        lambda: attacker.verify(TrustRoot(model=mlp_model)), "model-circuits", case=str(weaker)
    )
    attacker.reset()


def test_every_field_of_every_proof_is_refused(attacker: Attacker) -> None:
    for chunk in attacker.run.plan.chunks:
        name = names.proof(chunk.id)
        proof = attacker.document(name)
        for path, code in PROOF.items():
            for place in places(proof, path):
                attacker.replace_document(name, set_at(proof, place, changed(look(proof, place))))
                TALLY.refused_with(attacker.verify, code, case=f"{name} {place}")
                for damage in malformed(proof, place):
                    attacker.replace_document(name, damage.document)
                    TALLY.refused_with(attacker.verify, "proof-schema", case=damage.how)
        for damage in rearranged(proof, ("instances",)):
            attacker.replace_document(name, damage.document)
            TALLY.refused_with(attacker.verify, "instance-count", "proof-rejected", case=damage.how)
        attacker.reset()


def test_every_field_of_an_opening_is_refused(attacker: Attacker) -> None:
    run = attacker.run
    opening = open_activation(attacker.store, attacker.layout, boundary="h0", index=2)
    document: Json = json.loads(opening.model_dump_json())
    assert check_opening(canonical_json(document), run.manifest).elements
    values, containers = walk(Opening)
    damaged = [
        (str(place), set_at(document, place, changed(look(document, place))))
        for path in sorted(values)
        for place in places(document, path)
    ]
    damaged += [
        (damage.how, damage.document)
        for path in sorted(values)
        for place in places(document, path)
        for damage in malformed(document, place)
    ]
    damaged += [
        (damage.how, damage.document)
        for path in sorted(containers)
        for place in places(document, path)
        for damage in rearranged(document, place)
    ]
    assert {path for path in values if not places(document, path)} <= {"siblings.[]"}
    for how, changed_document in damaged:
        TALLY.refused_with(
            lambda document=changed_document: check_opening(
                json.dumps(document).encode(), run.manifest
            ),
            OpeningError.default_code,
            case=f"opening {how}",
        )


def _leaves(document: Any, place: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    if isinstance(document, dict):
        return [p for key, value in document.items() for p in _leaves(value, (*place, key))]
    if isinstance(document, list):
        return [p for i, value in enumerate(document) for p in _leaves(value, (*place, i))]
    return [place]
