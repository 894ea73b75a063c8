"""The verifier: from a store and a trust root to a verdict, trusting nothing else.

What is checked is listed, step by step, in `verify_manifest`. What remains the caller's duty:

- that the trust root is theirs: the model file, or a plan digest of someone who re-built the plan;
- that the revealed input is the one they care about, and what the output means to them;
- that the SRS ceremony was honest, and that ezkl 23.0.5's circuits are sound (docs/security.md).

A worker's, coordinator's or store's word is never taken: every object is re-hashed, every key and
settings file is pinned by the plan, the plan by the trust root. The order of the steps is part of
that: cheap checks come before dear ones, and ezkl is handed nothing but what the trust root pins,
besides a proof's instances and bytes in a file written here.

Only `VerificationError` leaves these functions for a bad run; `ConfigError` means that they were
called wrongly and `StoreError` that the store could not be read. Neither Ray nor any proving stage
is imported here, and onnx only where the trust root is a model.

`python -m zkml_ray.verifier` is this as a program: the command `verify`, alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from zkml_ray import names
from zkml_ray.canonical import sha256_hex
from zkml_ray.circuits import backend, challenge
from zkml_ray.commitments.field import encode
from zkml_ray.commitments.leaves import hash_leaves, pack_leaves
from zkml_ray.errors import (
    ConfigError,
    FieldRangeError,
    InsecureSrsError,
    ObjectTooLargeError,
    ProofRejectedError,
    StatementError,
    VerificationError,
)
from zkml_ray.schema.manifest import Manifest, RevealedBoundary
from zkml_ray.schema.plan import BoundaryPlan, Plan, SealedPlan
from zkml_ray.schema.proof import ChunkProof
from zkml_ray.scratch import scratch_folder
from zkml_ray.stores.base import ArtifactStore
from zkml_ray.stores.layout import RunLayout
from zkml_ray.verifying.extent import check_extent, check_structure
from zkml_ray.verifying.link import boundary_leaves, check_instance_layout, commitments
from zkml_ray.verifying.places import check_lookups, check_places
from zkml_ray.verifying.policy import VerifierPolicy, check_policy, check_weights
from zkml_ray.verifying.reader import (
    MAX_MANIFEST_BYTES,
    MAX_PROOF_DOCUMENT_BYTES,
    MAX_SETTINGS_BYTES,
    MAX_WEIGHTS_BYTES,
    PinnedReader,
    malformed_as,
    manifest_bytes,
)
from zkml_ray.verifying.trust import (
    TrustRoot,
    check_arguments,
    check_named,
    check_pins,
    check_rebuilt,
    check_topology,
)
from zkml_ray.verifying.verdict import Clock, Measured, Step, Verdict, describe
from zkml_ray.words import counted

if TYPE_CHECKING:
    from zkml_ray.chunking.load import LoadedModel
    from zkml_ray.circuits.derive import DerivedCircuits

__all__ = ["Measure", "Step", "TrustRoot", "Verdict", "verify_manifest", "verify_run"]

Measure: TypeAlias = "Callable[[LoadedModel, DerivedCircuits], Measured]"
"""(the verifier's model, the plan's circuits derived from it) -> how far apart they are. What runs
the quantised model and onnxruntime is a proving stage's, so it is handed in
(`zkml_ray.stages.samples`)."""


def verify_run(
    store: ArtifactStore,
    layout: RunLayout,
    trust: TrustRoot,
    *,
    allow_insecure_srs: bool = False,
    policy: VerifierPolicy | None = None,
    measure: Measure | None = None,
) -> Verdict:
    """Verify a stored run.

    Args:
        store: Where it lies.
        layout: Its project and id.
        trust: What the caller trusts.
        allow_insecure_srs: Accept an SRS that its maker can forge with.
        policy: Floors of the plan; None: the default ones where the trust root is the model, so
            that the prover chose the plan, and none where it is the digest of somebody's plan.
        measure: Compares the plan's quantised model with the float model, on data that the
            verifier has; may refuse. Needs the model as trust root.

    Raises:
        ConfigError: There is no such run.
        VerificationError: The run is not what it claims to be.
        StoreError: The store cannot be read.
    """
    _check_call(trust, measure)
    try:
        data = manifest_bytes(store, layout)
    except ObjectTooLargeError as error:
        raise VerificationError(str(error), code="manifest-schema") from None
    with malformed_as("manifest-schema"):
        manifest = Manifest.parse_canonical(data, what="manifest", max_bytes=MAX_MANIFEST_BYTES)
    if (manifest.project, manifest.run_id) != (layout.project, layout.run_id):
        raise VerificationError(
            "the manifest is that of another run",
            expected=f"{layout.project}/{layout.run_id}",
            got=f"{manifest.project}/{manifest.run_id}",
            code="run-identity",
        )
    return verify_manifest(
        manifest,
        store,
        trust,
        allow_insecure_srs=allow_insecure_srs,
        policy=policy,
        measure=measure,
    )


def verify_manifest(
    manifest: Manifest,
    store: ArtifactStore,
    trust: TrustRoot,
    *,
    allow_insecure_srs: bool = False,
    policy: VerifierPolicy | None = None,
    measure: Measure | None = None,
) -> Verdict:
    """Verify the run that a manifest describes; see the module's docstring.

    The arguments are those of `verify_run`.

    Raises:
        VerificationError: The run is not what it claims to be; its `code` says in what.
        StoreError: The store cannot be read.
    """
    _check_call(trust, measure)
    clock = Clock()
    measured = None
    if policy is None and trust.model is not None:
        policy = VerifierPolicy()
    with scratch_folder() as folder, malformed_as("malformed"):
        reader = PinnedReader(manifest, store, folder)
        # 1. The sealed plan is the one that manifest and statement name, and the plan, or the
        #    model it is for, is the trust root's.
        _check_one_plan(manifest)
        sealed = reader.sealed_plan(manifest.plan_sha256)
        plan = sealed.plan
        check_named(trust, sealed, manifest.plan_sha256)
        trust = trust.for_plan(plan)
        normalised = None if trust.model is None else check_extent(trust.model, plan)
        clock.step(f"trust root: the {trust.name} is the trusted one")
        # 2. The plan uses only arguments known to be sound, and none coarser than the verifier's
        #    floors; its graph is complete, and it pins one key per chunk and one SRS per size.
        check_arguments(plan)
        if policy is not None:
            check_policy(plan, policy)
        check_topology(plan)
        check_lookups(plan)
        check_pins(sealed)
        # With the model as trust root a stranger chose the plan: its graph is compared with the
        # model's before anything is made of it.
        graph = None if normalised is None else check_structure(normalised, plan)
        if normalised is not None and policy is not None:
            check_weights(plan, normalised, policy)
        clock.step("every argument, chunk, edge and pin of the plan is accounted for")
        # 3. The manifest says nothing else than the plan, where the plan says it.
        _check_manifest(manifest, sealed)
        reader.check_pins(_pinned(sealed))
        clock.step("the manifest agrees with the plan")
        # 4. A generated SRS counts only if allowed; every SRS is the pinned one. With the model as
        #    trust root, all that the plan pins is made again and compared.
        _check_srs_trust(sealed, allow_insecure_srs=allow_insecure_srs)
        made_keys: dict[str, bytes] = {}
        if trust.model is not None and graph is not None:
            whole = {pin.logrows: reader.whole_srs(pin) for pin in sealed.srs}
            circuits, made_keys = check_rebuilt(trust.model, graph, sealed, whole)
            clock.step("chunks, settings and verifying keys re-built from the model agree")
            if measure is not None:
                measured = measure(trust.model, circuits)
                clock.step("the quantised model is as accurate on sample inputs as was demanded")
        srs_paths = {pin.logrows: reader.srs(pin) for pin in sealed.srs}
        clock.step(f"SRS files are the pinned ones ({sealed.srs_trust()})")
        # 5. Every chunk has a proof in canonical form, with an instance for every leaf it touches.
        proofs = {chunk.id: _read_proof(chunk.id, reader) for chunk in plan.chunks}
        instances = {chunk_id: _instances(chunk_id, proof) for chunk_id, proof in proofs.items()}
        check_instance_layout(plan, instances)
        clock.step(f"{counted(len(proofs), 'proof')} in canonical form and complete")
        # 6. Every proof verifies under its pinned key, settings and SRS, and ends where it should.
        _verify_proofs(sealed, proofs, reader, srs_paths, made_keys)
        clock.step(f"{counted(len(proofs), 'proof')} verified under pinned keys")
        # 7. Producer and consumers of every boundary show the same leaves.
        leaves = boundary_leaves(plan, instances)
        clock.step(
            f"{counted(len(leaves), 'boundary', 'boundaries')}: producer and consumers agree leaf "
            "by leaf"
        )
        # 8. The commitments recomputed from those leaves are those that are stated.
        computed = commitments(plan, leaves)
        _check_commitments(manifest, plan, computed)
        clock.step("boundary commitments recomputed from the proofs' leaves")
        # 9. The revealed values are in range and open their commitments; real values come from the
        #    plan's scales. No salt serves twice.
        revealed = _check_statement(manifest, plan, computed, leaves)
        revealed |= check_places(manifest, plan, reader)
        _check_salts(manifest, plan, leaves)
        clock.step("revealed values open their commitments")
    return describe(manifest, sealed, trust.name, policy, measured, revealed, tuple(clock.steps))


def _check_call(trust: TrustRoot, measure: Measure | None) -> None:
    if measure is not None and trust.model is None:
        raise ConfigError(
            "sample inputs are measured with the model: name it as the trust root (--model)"
        )


def _check_one_plan(manifest: Manifest) -> None:
    if manifest.statement.plan_sha256 != manifest.plan_sha256:
        raise VerificationError(
            "the statement names another plan than the manifest",
            expected=manifest.plan_sha256,
            got=manifest.statement.plan_sha256,
            code="statement-plan",
        )


def _check_manifest(manifest: Manifest, sealed: SealedPlan) -> None:
    ids = [chunk.id for chunk in sealed.plan.chunks]
    known = {names.proof(chunk_id) for chunk_id in ids}
    stray = sorted(n for n in manifest.artifacts if n.startswith("proofs/") and n not in known)
    for what, expected, got in (
        ("model digest", sealed.plan.model_sha256, manifest.model_sha256),
        ("SRS trust", sealed.srs_trust(), manifest.srs_trust),
        ("chunk records", ", ".join(ids), ", ".join(r.chunk for r in manifest.chunks)),
        ("proofs of no chunk", "", ", ".join(stray)),
    ):
        if expected != got:
            raise VerificationError(
                f"the manifest's {what} are not the plan's",
                expected=expected,
                got=got,
                subject=what,
                code="manifest-claims",
            )


def _pinned(sealed: SealedPlan) -> dict[str, str]:
    plan = sealed.plan
    pins = {names.MODEL: plan.model_sha256, names.NORMALISED: plan.normalised_sha256}
    pins |= {names.srs(pin.logrows): pin.sha256 for pin in sealed.srs}
    pins |= {names.verifier_srs(pin.logrows): pin.verifier_sha256 for pin in sealed.srs}
    pins |= {names.verifying_key(pin.chunk): pin.sha256 for pin in sealed.verifying_keys}
    pins |= {names.table(i): lookup.table_sha256 for i, lookup in enumerate(plan.lookups)}
    for chunk in plan.chunks:
        pins[names.chunk_model(chunk.id)] = chunk.onnx_sha256
        pins[names.settings(chunk.id)] = chunk.settings_sha256
        if chunk.weights_sha256 is not None:
            pins[names.weights(chunk.id)] = chunk.weights_sha256
    return pins


def _check_srs_trust(sealed: SealedPlan, *, allow_insecure_srs: bool) -> None:
    if sealed.srs_trust() == "insecure" and not allow_insecure_srs:
        raise InsecureSrsError(
            "the run uses a generated SRS: whoever generated it can forge proofs. For a test, "
            "accept it with --allow-insecure-srs (allow_insecure_srs=True)",
            expected="ceremony",
            got="insecure",
        )


def _read_proof(chunk_id: str, reader: PinnedReader) -> ChunkProof:
    data = reader.read(names.proof(chunk_id), max_bytes=MAX_PROOF_DOCUMENT_BYTES)
    with malformed_as("proof-schema"):
        return ChunkProof.parse_canonical(
            data, what=f"proof of {chunk_id}", max_bytes=MAX_PROOF_DOCUMENT_BYTES
        )


def _instances(chunk_id: str, proof: ChunkProof) -> list[int]:
    with malformed_as("instance-range"):
        return proof.elements()


def _verify_proofs(
    sealed: SealedPlan,
    proofs: Mapping[str, ChunkProof],
    reader: PinnedReader,
    srs_paths: Mapping[int, Path],
    made_keys: Mapping[str, bytes],
) -> None:
    for chunk, pin in zip(sealed.plan.chunks, sealed.verifying_keys, strict=True):
        settings = reader.file(
            names.settings(chunk.id), max_bytes=MAX_SETTINGS_BYTES, pinned=chunk.settings_sha256
        )
        vk = reader.verifying_key(chunk.id, pin.sha256, made_keys.get(chunk.id))
        proof, srs = proofs[chunk.id], srs_paths[chunk.arguments.logrows]
        if not backend.verify_proof(proof, settings, vk, srs):
            raise ProofRejectedError(
                f"{chunk.id}: its proof does not verify under the key that the plan pins",
                expected=f"verifying key {pin.sha256}",
                got=f"proof {sha256_hex(proof.to_bytes())}",
                subject=chunk.id,
            )
        if chunk.weights_sha256 is not None:
            weights = reader.read(
                names.weights(chunk.id), max_bytes=MAX_WEIGHTS_BYTES, pinned=chunk.weights_sha256
            )
            challenge.check(
                chunk, proof, weights=weights, vk_sha256=pin.sha256, settings=settings.read_bytes()
            )
        # ezkl reads a proof as far as it needs and ignores the rest. A proof without such a rest
        # is too short without its last byte.
        shorter = proof.model_copy(update={"proof": proof.proof[:-2]})
        if backend.verify_proof(shorter, settings, vk, srs):
            raise ProofRejectedError(
                f"{chunk.id}: bytes follow its proof", subject=chunk.id, code="proof-trailing"
            )


def _check_commitments(manifest: Manifest, plan: Plan, computed: Mapping[str, int]) -> None:
    stated = [(entry.boundary, entry.commitment) for entry in manifest.boundaries]
    if stated != [(name, encode(value)) for name, value in computed.items()]:
        raise VerificationError(
            "the manifest's boundary commitments are not the proofs'", code="manifest-commitments"
        )
    ends = {*plan.model_inputs, *plan.model_outputs}
    claimed = [(entry.boundary, entry.commitment) for entry in manifest.statement.commitments]
    if claimed != [(name, encode(value)) for name, value in computed.items() if name in ends]:
        raise StatementError(
            "the statement's commitments are not those of the inputs and outputs",
            code="statement-commitments",
        )


def _check_statement(
    manifest: Manifest,
    plan: Plan,
    computed: Mapping[str, int],
    leaves: Mapping[str, Sequence[int]],
) -> dict[str, tuple[float, ...]]:
    boundaries = {boundary.name: boundary for boundary in plan.boundaries}
    shown_names = [shown.boundary for shown in manifest.statement.revealed]
    known = set(shown_names)
    if shown_names != [name for name in boundaries if name in known]:
        raise StatementError(
            "the statement reveals an unknown boundary, one twice, or not in the plan's order",
            expected=", ".join(name for name in boundaries if name in known),
            got=", ".join(shown_names),
            code="statement-revealed",
        )
    revealed: dict[str, tuple[float, ...]] = {}
    for shown in manifest.statement.revealed:
        boundary = boundaries[shown.boundary]
        if _leaf_hashes(shown, boundary) != list(leaves[shown.boundary]):
            raise StatementError(
                f"the revealed values of {shown.boundary} do not open its commitment",
                expected=encode(computed[shown.boundary]),
                subject=shown.boundary,
            )
        revealed[shown.boundary] = tuple(math.ldexp(v, -boundary.scale) for v in shown.values)
    return revealed


def _leaf_hashes(shown: RevealedBoundary, boundary: BoundaryPlan) -> list[int]:
    try:
        return hash_leaves(pack_leaves(shown.values, shown.salts, boundary.layout.layout()))
    except FieldRangeError as error:
        raise StatementError(
            f"the revealed values of {shown.boundary} are out of range or not as many as its "
            f"shape has: {error}",
            subject=shown.boundary,
            code="statement-range",
        ) from None


def _check_salts(manifest: Manifest, plan: Plan, leaves: Mapping[str, Sequence[int]]) -> None:
    """Salts of an honest prover are fresh, so neither they nor salted leaf hashes ever repeat.

    A repeated one means that equal hidden values show as equal. It is no forgery, but no run of
    this prover either.
    """
    if not plan.commitment.salted:
        return
    hashes = [leaf for shown in leaves.values() for leaf in shown]
    salts = []
    widths = {boundary.name: boundary.layout.salts_per_leaf for boundary in plan.boundaries}
    for shown in manifest.statement.revealed:
        width = widths[shown.boundary]
        salts += [shown.salts[i : i + width] for i in range(0, len(shown.salts), width)]
    if len(set(hashes)) != len(hashes) or len(set(salts)) != len(salts):
        raise StatementError("the salts of one leaf serve another one too", code="salt-reuse")
