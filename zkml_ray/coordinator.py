"""The coordinator: the only module that knows the order of the stages.

    plan -> setup -> witness -> prove -> link -> store -> verify

Witnesses are made here, one chunk after the other; as soon as a chunk's is made, the chunk goes to
a worker, which sets it up and proves it while the next witness is made. The coordinator does not
trust workers: a proof must show the public instances that its own witness gave, and verify. The
run is verified from the stored bytes by the same verifier that outsiders use; only then is the
manifest written, once, as the last object.

A worker's verifying key is taken as it comes: checking it means making it again. A key of another
circuit is caught by every verifier whose trust root is the model.
"""

from __future__ import annotations

import platform
import secrets
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zkml_ray import backend, names
from zkml_ray.canonical import sha256_hex
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.load import LoadedModel
from zkml_ray.circuits import DerivedCircuits
from zkml_ray.cluster.pool import Assigned, Completed, WorkerPool
from zkml_ray.commitments.field import encode
from zkml_ray.commitments.leaves import draw_salts
from zkml_ray.cost import predicted_makespan_s
from zkml_ray.errors import ConfigError, RunExistsError, StageError
from zkml_ray.events import ChunkMoved, Listener, PlanReady, StageStarted, Warned
from zkml_ray.keycache import KeyCache
from zkml_ray.link import boundary_leaves, commitments
from zkml_ray.reference import float_outputs
from zkml_ray.schema.artifact import ArtifactRef
from zkml_ray.schema.checkpoint import BoundaryCheckpoint
from zkml_ray.schema.manifest import (
    Accuracy,
    BoundaryCommitment,
    ChunkRecord,
    Manifest,
    RevealedBoundary,
    Span,
    StageRecord,
    Statement,
)
from zkml_ray.schema.plan import Plan, SealedPlan, VerifyingKeyPin
from zkml_ray.srs import SrsFile, ensure_srs
from zkml_ray.stages.inputs import ModelInput, quantise
from zkml_ray.stages.plan import PlanOptions, plan
from zkml_ray.stages.prove import ChunkResult, ProveJob
from zkml_ray.stages.witness import BoundaryValues, forward
from zkml_ray.stores.base import ArtifactStore
from zkml_ray.stores.layout import RunLayout
from zkml_ray.verifier import TrustRoot, Verdict, verify_manifest

UNSALTED_WARNING = (
    "boundaries carry no salts: hidden activations can be found by trial from their commitments"
)
INSECURE_SRS_WARNING = (
    "the SRS was generated on a single machine: whoever kept its secret can forge proofs"
)
SEEDED_SALT_WARNING = (
    "salts come from a given seed: whoever knows it can test guesses of hidden activations"
)
RANDOM_INPUT_WARNING = "no input was given: the input is random, from a seed"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What a user may choose about a run.

    Attributes:
        project: Project in the store.
        run_id: Id of the run.
        threads: Prover threads of each worker.
        plan: Choices about the plan.
        reveal: Boundaries that the statement opens; None: the model's inputs and outputs.
        private_input: Do not reveal the inputs.
        salt_seed: Draw salts from this seed instead of the operating system.
        keep_checkpoints: Keep boundary values and salts in the store (private; needed to open
            activations later).
        command: The command that makes the run, for the manifest.
    """

    project: str
    run_id: str
    threads: int
    plan: PlanOptions = field(default_factory=PlanOptions)
    reveal: tuple[str, ...] | None = None
    private_input: bool = False
    salt_seed: bytes | None = None
    keep_checkpoints: bool = True
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """A finished, verified and stored run.

    Attributes:
        manifest: Its manifest.
        plan: Its plan.
        verdict: The verifier's verdict, with the plan's digest as trust root.
        outputs: Per model output, its real values in the model's shape.
        float_outputs: The float model's outputs on the same input.
    """

    manifest: Manifest
    plan: Plan
    verdict: Verdict
    outputs: Mapping[str, npt.NDArray[np.float64]]
    float_outputs: Mapping[str, npt.NDArray[np.float32]]


def new_run_id() -> str:
    """A run id that sorts by time and does not repeat."""
    return f"run-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def check_run_is_new(store: ArtifactStore, layout: RunLayout) -> None:
    """Refuse an id that is taken, and a store that cannot be written to.

    Raises:
        RunExistsError: The run exists.
        StoreError: The store cannot be written to.
    """
    if store.size(layout.manifest) is not None:
        raise RunExistsError(
            f"run {layout.run_id} exists already in project {layout.project} of {store.url}; "
            "choose another --run, or leave it out"
        )
    probe = layout.run_key("probe")
    store.put(probe, b"")
    store.delete(probe)


class Coordinator:
    """One run, from a checked model and input to a stored manifest."""

    def __init__(
        self,
        *,
        model: LoadedModel,
        graph: ModelGraph,
        model_input: ModelInput,
        store: ArtifactStore,
        pool: WorkerPool,
        workers: int,
        options: RunOptions,
        listener: Listener,
    ) -> None:
        self._model = model
        self._graph = graph
        self._input = model_input
        self._store = store
        self._pool = pool
        self._workers = workers
        self._options = options
        self._listener = listener
        self._layout = RunLayout(options.project, options.run_id)
        self._artifacts: dict[str, ArtifactRef] = {}
        self._stages: list[StageRecord] = []
        self._warnings: list[str] = []
        self._values: dict[str, BoundaryValues] = {}
        self._expected: dict[str, list[int]] = {}
        self._records: dict[str, ChunkRecord] = {}
        self._instances: dict[str, Sequence[int]] = {}
        self._vks: dict[str, str] = {}

    def run(self) -> RunOutcome:
        """Run every stage.

        Raises:
            ZkmlRayError: A stage failed; the store has no manifest of this run.
        """
        with self._stage("plan", "cutting the model and sizing its circuits"):
            circuits = plan(self._model, self._options.plan)
            self._warn_about_plan()
            self._store_circuits(circuits)
            reveal = self._revealed_names(circuits.plan)
        self._listener(
            PlanReady(
                chunks=tuple(
                    (chunk.id, " ".join(chunk.operators)) for chunk in circuits.plan.chunks
                ),
                predicted_s=predicted_makespan_s(
                    circuits.plan, self._workers, self._options.threads
                ),
            )
        )
        with self._stage("setup", "fetching or generating the SRS"):
            srs = self._store_srs(circuits.plan)
        with self._stage("prove", "witnesses here, proofs on the workers"):
            with self._stage("witness", ""):
                self._witness_all(circuits, srs)
            while self._pool.busy:
                self._handle(self._pool.poll(1.0), circuits, srs)
        with self._stage("link", "comparing commitments across every boundary"):
            manifest = self._linked_manifest(circuits.plan, srs, reveal)
        with self._stage("verify", "verifying the stored run as an outsider would"):
            verdict = verify_manifest(
                manifest,
                self._store,
                TrustRoot(plan_digest=manifest.plan_sha256),
                allow_insecure_srs=True,
            )
        if not self._options.keep_checkpoints:
            for name in [name for name in self._artifacts if name.startswith("private/")]:
                self._store.delete(self._artifacts.pop(name).key)
        with self._stage("store", "writing the manifest"):
            pass
        manifest = manifest.model_copy(
            update={"stages": tuple(self._stages), "artifacts": dict(self._artifacts)}
        )
        self._store.put(self._layout.manifest, manifest.to_bytes())
        return RunOutcome(
            manifest=manifest,
            plan=circuits.plan,
            verdict=verdict,
            outputs=self._real_outputs(circuits.plan),
            float_outputs=float_outputs(self._graph, self._input.arrays),
        )

    @contextmanager
    def _stage(self, stage: str, detail: str) -> Iterator[None]:
        self._listener(StageStarted(stage=stage, detail=detail))
        started = time.time()
        yield
        span = Span(started_s=started, ended_s=time.time())
        self._stages.append(StageRecord(stage=stage, span=span))

    def _warn(self, message: str) -> None:
        self._warnings.append(message)
        self._listener(Warned(message=message))

    def _warn_about_plan(self) -> None:
        if not self._options.plan.salted:
            self._warn(UNSALTED_WARNING)
        elif self._options.salt_seed is not None:
            self._warn(SEEDED_SALT_WARNING)
        if self._input.source.kind == "random":
            self._warn(f"{RANDOM_INPUT_WARNING} ({self._input.source.seed})")

    def _revealed_names(self, plan_: Plan) -> tuple[str, ...]:
        known = [boundary.name for boundary in plan_.boundaries]
        if self._options.reveal is None:
            wanted = {*plan_.model_inputs, *plan_.model_outputs}
        else:
            wanted = set(self._options.reveal)
            if unknown := sorted(wanted - set(known)):
                raise ConfigError(
                    f"cannot reveal {', '.join(unknown)}: the plan's boundaries are "
                    f"{', '.join(known)}"
                )
        if self._options.private_input:
            wanted -= set(plan_.model_inputs)
        return tuple(name for name in known if name in wanted)

    def _store_circuits(self, circuits: DerivedCircuits) -> None:
        self._share(names.MODEL, "models", self._model.data)
        self._share(names.NORMALISED, "models", circuits.normalised)
        for chunk_id, files in circuits.files.items():
            self._share(names.chunk_model(chunk_id), "circuits", files.onnx)
            self._share(names.settings(chunk_id), "circuits", files.settings)

    def _share(self, name: str, kind: str, data: bytes) -> ArtifactRef:
        key = self._layout.artifact_key(kind, sha256_hex(data))
        self._artifacts[name] = self._store.store_shared(key, data)
        return self._artifacts[name]

    def _store_srs(self, plan_: Plan) -> dict[int, SrsFile]:
        sizes = sorted({chunk.arguments.logrows for chunk in plan_.chunks})
        files = {logrows: ensure_srs(logrows) for logrows in sizes}
        for logrows, file in files.items():
            key = self._layout.artifact_key("srs", file.sha256)
            self._artifacts[names.srs(logrows)] = self._store.store_shared_file(
                key, file.path, file.sha256
            )
        if any(file.trust == "insecure" for file in files.values()):
            self._warn(INSECURE_SRS_WARNING)
        return files

    def _witness_all(self, circuits: DerivedCircuits, srs: Mapping[int, SrsFile]) -> None:
        plan_ = circuits.plan
        boundaries = {boundary.name: boundary for boundary in plan_.boundaries}
        salts = {
            name: draw_salts(
                boundary.layout.layout(), seed=self._options.salt_seed, label=boundary.name
            )
            for name, boundary in boundaries.items()
        }
        for name in plan_.model_inputs:
            values = quantise(
                name,
                self._input.arrays[name],
                boundaries[name].scale,
                boundaries[name].layout.layout().packing,
            )
            self._checkpoint(plan_, name, BoundaryValues(values=values, salts=salts[name]))
        cache = KeyCache()
        for chunk in plan_.chunks:
            files = circuits.files[chunk.id]
            started = time.time()
            circuit = cache.circuit(files.onnx, files.settings)
            with tempfile.TemporaryDirectory(prefix="zkml-ray-") as folder:
                made = forward(
                    chunk,
                    boundaries,
                    circuit,
                    {name: self._values[name] for name in chunk.inputs},
                    {name: salts[name] for name in chunk.outputs},
                    Path(folder) / "witness.json",
                )
            self._expected[chunk.id] = made.instances()
            for name, result in made.outgoing.items():
                self._checkpoint(plan_, name, result)
            self._listener(
                ChunkMoved(chunk_id=chunk.id, state="witnessed", seconds=time.time() - started)
            )
            job = ProveJob(
                run_id=self._options.run_id,
                chunk=chunk,
                boundaries=tuple(boundaries[name] for name in chunk.touched()),
                onnx=self._artifacts[names.chunk_model(chunk.id)],
                settings=self._artifacts[names.settings(chunk.id)],
                srs=self._artifacts[names.srs(chunk.arguments.logrows)],
                checkpoints={
                    name: self._artifacts[names.checkpoint(_position(plan_, name))]
                    for name in chunk.touched()
                },
            )
            self._handle(self._pool.submit(job), circuits, srs)
            self._handle(self._pool.poll(0), circuits, srs)

    def _checkpoint(self, plan_: Plan, name: str, made: BoundaryValues) -> None:
        self._values[name] = made
        logical = names.checkpoint(_position(plan_, name))
        document = BoundaryCheckpoint(
            run_id=self._options.run_id,
            boundary=name,
            values=tuple(made.values),
            salts=tuple(made.salts),
        )
        self._artifacts[logical] = self._store.store(
            self._layout.run_key(logical), document.to_bytes()
        )

    def _handle(
        self,
        events: Sequence[Assigned | Completed],
        circuits: DerivedCircuits,
        srs: Mapping[int, SrsFile],
    ) -> None:
        for event in events:
            if isinstance(event, Assigned):
                self._listener(
                    ChunkMoved(chunk_id=event.chunk_id, state="proving", worker=event.worker)
                )
            else:
                self._accept(event, circuits, srs)

    def _accept(
        self, event: Completed, circuits: DerivedCircuits, srs: Mapping[int, SrsFile]
    ) -> None:
        result = event.result
        chunk = circuits.plan.chunk(result.chunk_id)
        started = time.time()
        problem = self._problem(result, circuits, srs[chunk.arguments.logrows])
        verify_s = time.time() - started
        if problem:
            message = f"{event.worker} returned a bad proof of {chunk.id}: {problem}"
            self._warn(message)
            self._pool.reject(event, message)
            return
        self._listener(
            ChunkMoved(
                chunk_id=chunk.id,
                state="verified",
                worker=event.worker,
                seconds=result.prove.seconds,
            )
        )
        data = result.proof.to_bytes()
        proof_name = names.proof(chunk.id)
        self._artifacts[proof_name] = self._store.store(self._layout.run_key(proof_name), data)
        self._vks[chunk.id] = self._share(names.verifying_key(chunk.id), "keys", result.vk).sha256
        self._instances[chunk.id] = result.proof.elements()
        self._records[chunk.id] = ChunkRecord(
            chunk=chunk.id,
            worker=event.worker,
            pid=result.pid,
            node=result.node,
            threads=result.threads,
            attempts=event.attempt,
            keys_made=result.keys_made,
            setup=result.setup,
            witness=result.witness,
            prove=result.prove,
            verify_s=verify_s,
            peak_rss_bytes=result.peak_rss_bytes,
            proof_bytes=len(result.proof.proof) // 2,
        )

    def _problem(self, result: ChunkResult, circuits: DerivedCircuits, srs: SrsFile) -> str:
        if result.proof.elements() != self._expected[result.chunk_id]:
            return "its public instances are not those of the witness"
        with tempfile.TemporaryDirectory(prefix="zkml-ray-") as folder:
            vk, settings = Path(folder) / "vk.key", Path(folder) / "settings.json"
            vk.write_bytes(result.vk)
            settings.write_bytes(circuits.files[result.chunk_id].settings)
            if not backend.verify_proof(result.proof, settings, vk, srs.path):
                return "it does not verify"
        return ""

    def _linked_manifest(
        self, plan_: Plan, srs: Mapping[int, SrsFile], reveal: Sequence[str]
    ) -> Manifest:
        computed = commitments(plan_, boundary_leaves(plan_, self._instances))
        sealed = SealedPlan(
            plan=plan_,
            srs=tuple(file.pin() for file in srs.values()),
            verifying_keys=tuple(
                VerifyingKeyPin(chunk=chunk.id, sha256=self._vks[chunk.id])
                for chunk in plan_.chunks
            ),
        )
        plan_sha256 = self._share(names.SEALED_PLAN, "plans", sealed.to_bytes()).sha256
        ends = {*plan_.model_inputs, *plan_.model_outputs}
        stated = tuple(
            BoundaryCommitment(boundary=name, commitment=encode(value))
            for name, value in computed.items()
        )
        return Manifest(
            project=self._options.project,
            run_id=self._options.run_id,
            created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            model_file=self._model.path.name,
            model_sha256=plan_.model_sha256,
            plan_sha256=plan_sha256,
            srs_trust=sealed.srs_trust(),
            statement=Statement(
                plan_sha256=plan_sha256,
                commitments=tuple(entry for entry in stated if entry.boundary in ends),
                revealed=tuple(
                    RevealedBoundary(
                        boundary=name,
                        values=tuple(self._values[name].values),
                        salts=tuple(self._values[name].salts),
                    )
                    for name in reveal
                ),
            ),
            boundaries=stated,
            artifacts=dict(self._artifacts),
            chunks=tuple(self._records[chunk.id] for chunk in plan_.chunks),
            stages=tuple(self._stages),
            input_source=self._input.source,
            accuracy=self._accuracy(plan_),
            versions=_versions(),
            command=self._options.command,
            warnings=tuple(self._warnings),
        )

    def _accuracy(self, plan_: Plan) -> Accuracy:
        reference = float_outputs(self._graph, self._input.arrays)
        proved = self._real_outputs(plan_)
        errors = np.concatenate(
            [np.abs(proved[name] - reference[name]).ravel() for name in plan_.model_outputs]
        )
        return Accuracy(max_abs_error=float(errors.max()), mean_abs_error=float(errors.mean()))

    def _real_outputs(self, plan_: Plan) -> dict[str, npt.NDArray[np.float64]]:
        outputs = {}
        for name in plan_.model_outputs:
            boundary = plan_.boundary(name)
            integers = np.array(self._values[name].values, dtype=np.float64)
            outputs[name] = (integers / (1 << boundary.scale)).reshape(boundary.shape)
        return outputs


def _position(plan_: Plan, name: str) -> int:
    for index, boundary in enumerate(plan_.boundaries):
        if boundary.name == name:
            return index
    raise StageError(f"the plan has no boundary {name}", stage="witness")


def _versions() -> dict[str, str]:
    packages = ("zkml-ray", "ezkl", "onnx", "onnx-ir", "onnxruntime", "ray", "numpy")
    found = {name: metadata.version(name) for name in packages}
    found["python"] = platform.python_version()
    found["platform"] = f"{sys.platform}-{platform.machine()}"
    found["host"] = socket.gethostname()
    return found
