"""The verifier: from a store and a trust root to a verdict, trusting nothing else.

What is checked is listed, step by step, in `verify_manifest`. What remains the caller's duty:

- that the trust root is theirs: the model file, or a plan digest of someone who re-built the plan;
- that the revealed input is the one they care about, and what the output means to them;
- that the SRS ceremony was honest, and that ezkl 23.0.5's circuits are sound (docs/security.md).

A worker's, coordinator's or store's word is never taken: every object is re-hashed, every key and
settings file is pinned by the plan, the plan by the trust root. Only `VerificationError` leaves
these functions for a bad run; `ConfigError` means that they were called wrongly and `StoreError`
that the store could not be read. Neither Ray nor any proving stage is imported here.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from zkml_ray import backend, names
from zkml_ray.canonical import sha256_hex
from zkml_ray.commitments.field import decode, encode
from zkml_ray.commitments.leaves import hash_leaves, pack_leaves
from zkml_ray.errors import (
    ArtifactNotFoundError,
    ConfigError,
    DigestMismatchError,
    FieldRangeError,
    InsecureSrsError,
    ManifestError,
    ProofRejectedError,
    StatementError,
    VerificationError,
)
from zkml_ray.link import boundary_leaves, commitments
from zkml_ray.schema.artifact import ArtifactRef
from zkml_ray.schema.manifest import Manifest, RevealedBoundary
from zkml_ray.schema.plan import Plan, SealedPlan
from zkml_ray.schema.proof import MAX_PROOF_BYTES, ChunkProof
from zkml_ray.srs import verifier_srs
from zkml_ray.stores.base import ArtifactStore
from zkml_ray.stores.layout import RunLayout
from zkml_ray.trust import (
    TrustRoot,
    check_arguments,
    check_named,
    check_pins,
    check_rebuilt,
    check_topology,
)

MAX_MANIFEST_BYTES = 64 << 20
MAX_SETTINGS_BYTES = 16 << 20
MAX_KEY_BYTES = 1 << 30
MAX_SRS_BYTES = 8 << 30

NOT_CLAIMED = (
    "the float model's exact output: what is proved is the quantised model, each rounding to one "
    "of the two neighbouring integers",
    "that the model is accurate or fit for a purpose",
    "when, where or by whom the run was made",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step of the verification that held.

    Attributes:
        name: What was checked.
        seconds: How long it took.
    """

    name: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The result of a verification that held (a failed one raises).

    Attributes:
        ok: True.
        run_id: The run.
        project: Its project.
        plan_digest: Digest of the sealed plan, usable as a trust root from now on.
        statement: What was proved, in one sentence.
        revealed: Per revealed boundary, its real values, flat, row-major.
        srs_trust: "ceremony", or "insecure": whoever generated the SRS can forge.
        not_claimed: What the proof does not say.
        steps: What was checked.
    """

    ok: bool
    run_id: str
    project: str
    plan_digest: str
    statement: str
    revealed: Mapping[str, tuple[float, ...]]
    srs_trust: str
    not_claimed: tuple[str, ...]
    steps: tuple[Step, ...]


def verify_run(
    store: ArtifactStore,
    layout: RunLayout,
    trust: TrustRoot,
    *,
    allow_insecure_srs: bool = False,
) -> Verdict:
    """Verify a stored run.

    Args:
        store: Where it lies.
        layout: Its project and id.
        trust: What the caller trusts.
        allow_insecure_srs: Accept an SRS that its maker can forge with.

    Raises:
        ConfigError: There is no such run.
        VerificationError: The run is not what it claims to be.
        StoreError: The store cannot be read.
    """
    try:
        data = store.get(layout.manifest, max_bytes=MAX_MANIFEST_BYTES)
    except ArtifactNotFoundError:
        raise ConfigError(
            f"no run {layout.run_id} in project {layout.project} of {store.url}; "
            "list them with: zkml-ray runs"
        ) from None
    with _as_verification_error():
        manifest = Manifest.parse(data, what="manifest", max_bytes=MAX_MANIFEST_BYTES)
        if (manifest.project, manifest.run_id) != (layout.project, layout.run_id):
            raise VerificationError(
                "the manifest is that of another run",
                expected=f"{layout.project}/{layout.run_id}",
                got=f"{manifest.project}/{manifest.run_id}",
            )
    return verify_manifest(manifest, store, trust, allow_insecure_srs=allow_insecure_srs)


def verify_manifest(
    manifest: Manifest,
    store: ArtifactStore,
    trust: TrustRoot,
    *,
    allow_insecure_srs: bool = False,
) -> Verdict:
    """Verify the run that a manifest describes; see the module's docstring.

    Raises:
        VerificationError: The run is not what it claims to be.
        StoreError: The store cannot be read.
    """
    clock = _Clock()
    with _as_verification_error(), tempfile.TemporaryDirectory(prefix="zkml-ray-") as folder:
        reader = _Reader(manifest, store, Path(folder))
        # 1. The sealed plan is the one whose digest the manifest and the statement name.
        sealed = _sealed_plan(manifest, reader)
        plan = sealed.plan
        clock.step("sealed plan has the digest that the statement names")
        # 2. The plan, or the model it is for, is the trust root's.
        check_named(trust, sealed, manifest.plan_sha256)
        clock.step(f"trust root: the {trust.name} is the trusted one")
        # 3. The plan uses only arguments known to be sound, its graph is complete, and it pins one
        #    key per chunk and one SRS per size.
        check_arguments(plan)
        check_topology(plan)
        check_pins(sealed)
        clock.step("every argument, chunk, edge and pin of the plan is accounted for")
        # 4. The SRS of every size is the pinned one; a generated one counts only if allowed. With
        #    the model as trust root, all that the plan pins is made again and compared.
        srs_paths = _srs_files(sealed, reader, allow_insecure_srs=allow_insecure_srs)
        clock.step(f"SRS files are the pinned ones ({sealed.srs_trust()})")
        if trust.model is not None:
            check_rebuilt(trust.model, sealed, srs_paths)
            clock.step("chunks, settings and verifying keys re-built from the model agree")
        # 5. Every chunk's proof verifies under its pinned key, settings and SRS.
        instances = _verify_proofs(sealed, reader, srs_paths)
        clock.step(f"{len(instances)} proofs verify under their pinned keys")
        # 6. Producer and consumers of every boundary show the same leaves.
        leaves = boundary_leaves(plan, instances)
        clock.step(f"{len(leaves)} boundaries: producer and consumers agree leaf by leaf")
        # 7. The commitments recomputed from those leaves are those that the manifest states.
        computed = commitments(plan, leaves)
        _check_commitments(manifest, plan, computed)
        clock.step("boundary commitments recomputed from the proofs' leaves")
        # 8. The revealed values open their commitments; real values come from the plan's scales.
        revealed = _check_statement(manifest, plan, computed, leaves)
        clock.step("revealed values open their commitments")
    return Verdict(
        ok=True,
        run_id=manifest.run_id,
        project=manifest.project,
        plan_digest=manifest.plan_sha256,
        statement=_sentence(manifest, plan, revealed),
        revealed=revealed,
        srs_trust=sealed.srs_trust(),
        not_claimed=NOT_CLAIMED,
        steps=tuple(clock.steps),
    )


class _Clock:
    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._last = time.monotonic()

    def step(self, name: str) -> None:
        now = time.monotonic()
        self.steps.append(Step(name=name, seconds=now - self._last))
        self._last = now


class _Reader:
    """Reads a run's artifacts by logical name, checking each against a pinned digest."""

    def __init__(self, manifest: Manifest, store: ArtifactStore, folder: Path) -> None:
        self._artifacts = manifest.artifacts
        self._store = store
        self._folder = folder

    def read(self, name: str, *, max_bytes: int, pinned: str | None = None) -> bytes:
        ref = self._ref(name, max_bytes, pinned)
        return self._store.read_verified(ref, max_bytes=max_bytes)

    def file(self, name: str, *, max_bytes: int, pinned: str) -> Path:
        ref = self._ref(name, max_bytes, pinned)
        if self._store.size(ref.key) != ref.size_bytes:
            raise VerificationError(f"{name} is missing or has another size than recorded")
        path = self._folder / name.replace("/", "-")
        self._store.fetch_verified(ref, path)
        return path

    def _ref(self, name: str, max_bytes: int, pinned: str | None) -> ArtifactRef:
        ref = self._artifacts.get(name)
        if ref is None:
            raise VerificationError(f"the manifest lists no {name}", subject=name)
        if ref.size_bytes > max_bytes:
            raise VerificationError(
                f"{name} has {ref.size_bytes} bytes; at most {max_bytes} are read", subject=name
            )
        if pinned is not None and ref.sha256 != pinned:
            raise VerificationError(
                f"{name} is not the one that the plan pins",
                expected=pinned,
                got=ref.sha256,
                subject=name,
            )
        return ref


@contextmanager
def _as_verification_error() -> Iterator[None]:
    try:
        yield
    except (ManifestError, FieldRangeError, ConfigError) as error:
        raise VerificationError(str(error)) from None
    except DigestMismatchError as error:
        raise VerificationError(str(error), expected=error.expected, got=error.got) from None
    except ArtifactNotFoundError as error:
        raise VerificationError(f"an artifact of the run is missing: {error}") from None


def _sealed_plan(manifest: Manifest, reader: _Reader) -> SealedPlan:
    if manifest.statement.plan_sha256 != manifest.plan_sha256:
        raise VerificationError(
            "the statement names another plan than the manifest",
            expected=manifest.plan_sha256,
            got=manifest.statement.plan_sha256,
        )
    data = reader.read(names.SEALED_PLAN, max_bytes=MAX_MANIFEST_BYTES, pinned=manifest.plan_sha256)
    sealed = SealedPlan.parse(data, what="sealed plan")
    if sealed.digest() != manifest.plan_sha256:
        raise VerificationError("the sealed plan is not in canonical form")
    if sealed.plan.ezkl_version != backend.EZKL_VERSION:
        raise VerificationError(
            "the plan is for another ezkl",
            expected=backend.EZKL_VERSION,
            got=sealed.plan.ezkl_version,
        )
    return sealed


def _srs_files(sealed: SealedPlan, reader: _Reader, *, allow_insecure_srs: bool) -> dict[int, Path]:
    paths: dict[int, Path] = {}
    for pin in sealed.srs:
        if pin.trust == "insecure" and not allow_insecure_srs:
            raise InsecureSrsError(
                "the run uses a generated SRS: whoever generated it can forge proofs. For a test, "
                "accept it with --allow-insecure-srs (allow_insecure_srs=True)",
                expected="ceremony",
                got="insecure",
            )
        path = reader.file(names.srs(pin.logrows), max_bytes=MAX_SRS_BYTES, pinned=pin.sha256)
        if sha256_hex(verifier_srs(path, pin.logrows)) != pin.verifier_sha256:
            raise VerificationError(
                f"the SRS of logrows {pin.logrows}: the part that a verifier needs is not the one "
                "that the plan pins",
                subject=names.srs(pin.logrows),
            )
        paths[pin.logrows] = path
    return paths


def _verify_proofs(
    sealed: SealedPlan, reader: _Reader, srs_paths: Mapping[int, Path]
) -> dict[str, list[int]]:
    vks = {pin.chunk: pin.sha256 for pin in sealed.verifying_keys}
    instances: dict[str, list[int]] = {}
    for chunk in sealed.plan.chunks:
        settings = reader.file(
            names.settings(chunk.id), max_bytes=MAX_SETTINGS_BYTES, pinned=chunk.settings_sha256
        )
        vk = reader.file(
            names.verifying_key(chunk.id), max_bytes=MAX_KEY_BYTES, pinned=vks[chunk.id]
        )
        data = reader.read(names.proof(chunk.id), max_bytes=2 * MAX_PROOF_BYTES)
        proof = ChunkProof.parse(data, what=f"proof of {chunk.id}")
        instances[chunk.id] = proof.elements()
        if not backend.verify_proof(proof, settings, vk, srs_paths[chunk.arguments.logrows]):
            raise ProofRejectedError(
                f"{chunk.id}: its proof does not verify under the key that the plan pins",
                expected=f"verifying key {vks[chunk.id]}",
                got=f"proof {sha256_hex(data)}",
                subject=chunk.id,
            )
    return instances


def _check_commitments(manifest: Manifest, plan: Plan, computed: Mapping[str, int]) -> None:
    stated = [(entry.boundary, entry.commitment) for entry in manifest.boundaries]
    if stated != [(name, encode(value)) for name, value in computed.items()]:
        raise VerificationError("the manifest's boundary commitments are not the proofs'")
    ends = [
        boundary.name
        for boundary in plan.boundaries
        if boundary.name in plan.model_inputs or boundary.name in plan.model_outputs
    ]
    claimed = [
        (entry.boundary, decode(entry.commitment)) for entry in manifest.statement.commitments
    ]
    if claimed != [(name, computed[name]) for name in ends]:
        raise StatementError("the statement's commitments are not those of the inputs and outputs")


def _check_statement(
    manifest: Manifest,
    plan: Plan,
    computed: Mapping[str, int],
    leaves: Mapping[str, Sequence[int]],
) -> dict[str, tuple[float, ...]]:
    revealed: dict[str, tuple[float, ...]] = {}
    for shown in manifest.statement.revealed:
        if shown.boundary not in computed or shown.boundary in revealed:
            raise StatementError(
                f"the statement reveals {shown.boundary}, which is unknown or revealed twice",
                subject=shown.boundary,
            )
        boundary = plan.boundary(shown.boundary)
        if _leaf_hashes(shown, plan) != list(leaves[shown.boundary]):
            raise StatementError(
                f"the revealed values of {shown.boundary} do not open its commitment",
                expected=encode(computed[shown.boundary]),
                subject=shown.boundary,
            )
        revealed[shown.boundary] = tuple(v / (1 << boundary.scale) for v in shown.values)
    return revealed


def _leaf_hashes(shown: RevealedBoundary, plan: Plan) -> list[int]:
    layout = plan.boundary(shown.boundary).layout.layout()
    return hash_leaves(pack_leaves(shown.values, shown.salts, layout))


def _sentence(manifest: Manifest, plan: Plan, revealed: Mapping[str, Sequence[float]]) -> str:
    def end(names_: Sequence[str]) -> str:
        hidden = [name for name in names_ if name not in revealed]
        return f"{', '.join(names_)} ({'committed, not shown' if hidden else 'revealed'})"

    return (
        f"The model with SHA-256 {plan.model_sha256[:16]}..., quantised as plan "
        f"{manifest.plan_sha256[:16]}... says, maps {end(plan.model_inputs)} to "
        f"{end(plan.model_outputs)}."
    )
