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
from zkml_ray.chunking.load import LoadedModel
from zkml_ray.circuits import rederive_circuits
from zkml_ray.commitments.field import decode, encode
from zkml_ray.commitments.leaves import hash_leaves, pack_leaves
from zkml_ray.errors import (
    ArtifactNotFoundError,
    ChunkingError,
    ConfigError,
    DigestMismatchError,
    FieldRangeError,
    InsecureSrsError,
    ManifestError,
    ProofRejectedError,
    StatementError,
    TrustRootError,
    VerificationError,
)
from zkml_ray.keycache import KeyCache
from zkml_ray.link import boundary_leaves, commitments
from zkml_ray.schema.artifact import ArtifactRef
from zkml_ray.schema.manifest import Manifest, RevealedBoundary
from zkml_ray.schema.plan import Plan, SealedPlan
from zkml_ray.schema.proof import MAX_PROOF_BYTES, ChunkProof
from zkml_ray.srs import trust_of
from zkml_ray.stores.base import ArtifactStore
from zkml_ray.stores.layout import RunLayout

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
class TrustRoot:
    """What the verifier trusts. Exactly one of the two is given.

    Attributes:
        model: The verifier's own copy of the ONNX model; everything is re-built from it.
        plan_digest: Digest of a sealed plan that someone trusted re-built.
    """

    model: LoadedModel | None = None
    plan_digest: str | None = None

    def __post_init__(self) -> None:
        if (self.model is None) == (self.plan_digest is None):
            raise ConfigError(
                "verify needs exactly one trust root: the model file (--model) or the digest of a "
                "plan re-built from it (--plan-digest); a run cannot vouch for itself"
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
        # 2. The SRS of every size is the pinned one; a generated one counts only if allowed.
        srs_paths = _srs_files(sealed, reader, allow_insecure_srs=allow_insecure_srs)
        clock.step(f"SRS files are the pinned ones ({sealed.srs_trust()})")
        # 3. The plan is the trust root's.
        if trust.model is not None:
            _check_model(trust.model, sealed, srs_paths)
            clock.step("chunks, settings and verifying keys re-built from the model agree")
        else:
            _check_plan_digest(manifest, trust.plan_digest or "")
            clock.step("plan digest is the trusted one")
        # 4. The topology is complete: every edge has its producer and its consumers.
        _check_topology(plan, sealed)
        clock.step("every chunk and every edge of the plan is accounted for")
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
    except (ManifestError, FieldRangeError) as error:
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
        if pin.trust != trust_of(pin.logrows, pin.sha256):
            raise VerificationError(
                f"the SRS of logrows {pin.logrows} is called {pin.trust} but its digest is not",
                subject=names.srs(pin.logrows),
            )
        if pin.trust == "insecure" and not allow_insecure_srs:
            raise InsecureSrsError(
                "the run uses a generated SRS: whoever generated it can forge proofs. For a test, "
                "accept it with --allow-insecure-srs (allow_insecure_srs=True)",
                expected="ceremony",
                got="insecure",
            )
        if pin.logrows in paths:
            raise VerificationError(f"the plan pins two SRS files of logrows {pin.logrows}")
        paths[pin.logrows] = reader.file(
            names.srs(pin.logrows), max_bytes=MAX_SRS_BYTES, pinned=pin.sha256
        )
    return paths


def _check_plan_digest(manifest: Manifest, trusted: str) -> None:
    if manifest.plan_sha256 != trusted.lower():
        raise TrustRootError(
            "the run's plan is not the trusted one", expected=trusted, got=manifest.plan_sha256
        )


def _check_model(model: LoadedModel, sealed: SealedPlan, srs_paths: Mapping[int, Path]) -> None:
    plan = sealed.plan
    if sha256_hex(model.data) != plan.model_sha256:
        raise TrustRootError(
            f"the run was made with another model than {model.name}",
            expected=sha256_hex(model.data),
            got=plan.model_sha256,
        )
    try:
        rebuilt = rederive_circuits(model, plan)
    except (ChunkingError, KeyError) as error:
        raise TrustRootError(f"the plan does not fit the model: {error}") from None
    if rebuilt.plan != plan:
        raise TrustRootError(
            "the plan is not what the model gives with the plan's own arguments",
            expected=rebuilt.plan.digest(),
            got=plan.digest(),
        )
    keys, pins = KeyCache(), {pin.chunk: pin.sha256 for pin in sealed.verifying_keys}
    srs_pins = {pin.logrows: pin.sha256 for pin in sealed.srs}
    for chunk in plan.chunks:
        logrows = chunk.arguments.logrows
        if logrows not in srs_paths:
            raise VerificationError(f"{chunk.id}: the plan pins no SRS of logrows {logrows}")
        files = rebuilt.files[chunk.id]
        circuit = keys.circuit(files.onnx, files.settings)
        made = keys.keys(circuit, srs_paths[logrows], srs_pins[logrows])
        if made.vk_sha256 != pins.get(chunk.id):
            raise TrustRootError(
                f"{chunk.id}: its verifying key is not the one that the model gives",
                expected=made.vk_sha256,
                got=pins.get(chunk.id, "none"),
                subject=chunk.id,
            )


def _check_topology(plan: Plan, sealed: SealedPlan) -> None:
    ids = [chunk.id for chunk in plan.chunks]
    boundary_names = [boundary.name for boundary in plan.boundaries]
    pinned = [pin.chunk for pin in sealed.verifying_keys]
    if len(set(ids)) != len(ids) or len(set(boundary_names)) != len(boundary_names):
        raise VerificationError("the plan names a chunk or a boundary twice")
    if sorted(pinned) != sorted(ids):
        raise VerificationError("the plan does not pin exactly one verifying key per chunk")
    for boundary in plan.boundaries:
        producers = [chunk.id for chunk in plan.chunks if boundary.name in chunk.outputs]
        consumers = tuple(chunk.id for chunk in plan.chunks if boundary.name in chunk.inputs)
        expected = [] if boundary.producer is None else [boundary.producer]
        if producers != expected or consumers != boundary.consumers:
            raise VerificationError(
                f"boundary {boundary.name}: its producer and consumers are not those of the chunks",
                subject=boundary.name,
            )
        is_input = boundary.name in plan.model_inputs
        if is_input != (boundary.producer is None):
            raise VerificationError(
                f"boundary {boundary.name} must have a producer or be an input of the model",
                subject=boundary.name,
            )
        if not consumers and boundary.name not in plan.model_outputs:
            raise VerificationError(
                f"boundary {boundary.name} leads nowhere", subject=boundary.name
            )
    known = set(boundary_names)
    for chunk in plan.chunks:
        if not set(chunk.touched()) <= known:
            raise VerificationError(f"{chunk.id} touches an unknown boundary", subject=chunk.id)
    if not {*plan.model_inputs, *plan.model_outputs} <= known:
        raise VerificationError("an input or output of the model is no boundary of the plan")


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
        if chunk.arguments.logrows not in srs_paths:
            raise VerificationError(
                f"{chunk.id}: the plan pins no SRS of logrows {chunk.arguments.logrows}"
            )
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
