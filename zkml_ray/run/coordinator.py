"""The coordinator of one run: the only module that knows the order of the stages.

    plan -> setup -> witness -> prove -> link -> verify -> store

Witnesses are made here, one chunk after the other; as soon as a chunk's is made, the chunk goes to
a worker, which sets it up and proves it while the next witness is made. The last one waits until
the outputs were compared with the float model's: a run that is too far from it is stopped there
(docs/adr/0022), and can be resumed with another tolerance. Everything is stored as
soon as it exists, so that a run continues where it stopped: what the journal holds is checked and
taken, what it lacks is made.

The coordinator does not trust workers: a proof must show the public instances that the boundary
values give, and verify. It does not trust the store either: a finished chunk is checked like a
worker's answer. The run is verified from the stored bytes by the same verifier that outsiders use;
only then is the manifest written, once, as the last object.

It waits for nobody: `proving` makes one witness a step, and what workers answer is handed to
`handle`, so that any number of runs can share one thread and one pool (`conduct`). A run may stop
after any stage; another process, elsewhere, goes on from what is stored.

A worker's verifying key is taken as it comes: checking it means making it again. A key of another
circuit is caught by every verifier whose trust root is the model.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from zkml_ray import names
from zkml_ray.canonical import sha256_hex
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.load import LoadedModel
from zkml_ray.circuits import backend, challenge
from zkml_ray.circuits.derive import DerivedCircuits
from zkml_ray.circuits.srs import SrsFile, ensure_srs
from zkml_ray.cluster.pool import Assigned, Completed, PoolEvent, Trouble
from zkml_ray.cluster.starting import StartingPool
from zkml_ray.cost.model import CostModel
from zkml_ray.cost.profiles import load_profile
from zkml_ray.errors import ProofRejectedError, StageError, ZkmlRayError
from zkml_ray.events import (
    INSECURE_SRS_WARNING,
    ChunkMoved,
    Faulted,
    Listener,
    PlanReady,
    StageStarted,
    Warned,
)
from zkml_ray.run.activations import Activations
from zkml_ray.run.assemble import assemble, check_leaks
from zkml_ray.run.journal import Journal
from zkml_ray.schema.forecast import Forecast
from zkml_ray.schema.manifest import ChunkRecord, Comparison, Manifest, Span, StageRecord
from zkml_ray.schema.plan import ChunkPlan, Plan
from zkml_ray.schema.proof import ChunkProof
from zkml_ray.schema.request import RunRequest
from zkml_ray.scratch import scratch_folder
from zkml_ray.stages.comparison import (
    OutputDifference,
    compared,
    recorded,
    require,
    summary,
    warning,
)
from zkml_ray.stages.inputs import Arrays
from zkml_ray.stages.plan import PlanOptions, plan
from zkml_ray.stages.prove import ChunkResult, ProveJob
from zkml_ray.stages.reference import Reference, reference_outputs
from zkml_ray.stages.setup import SetupJob, SetupResult
from zkml_ray.verifying.trust import TrustRoot
from zkml_ray.verifying.verifier import Verdict, verify_manifest

Until: TypeAlias = Literal["plan", "setup", "witness", "prove"]
"""Stages that a run can stop after; the ones behind them make it complete."""

ATTEMPT_FACTOR: Final = 20.0
"""An attempt may take so many times what is predicted: the profile may be of a faster machine."""

MIN_ATTEMPT_S: Final = 900.0
"""And no less than this: a worker's start and a slow store are not predicted."""

UNSALTED_WARNING = (
    "boundaries carry no salts: hidden activations can be found by trial from their commitments"
)
SEEDED_SALT_WARNING = (
    "salts come from a given seed: whoever knows it can test guesses of hidden activations"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """A finished, verified and stored run.

    Attributes:
        manifest: Its manifest.
        plan: Its plan.
        verdict: The verifier's verdict, with the plan's digest as trust root.
        outputs: Per model output, its real values in the model's shape.
        float_outputs: The float model's outputs on the same input, those that could be had.
        comparison: Per output, how far it is from that, and how far it may be.
        resumed: Chunks that had been proved before and were taken over.
    """

    manifest: Manifest
    plan: Plan
    verdict: Verdict
    outputs: Mapping[str, npt.NDArray[np.float64]]
    float_outputs: Mapping[str, npt.NDArray[Any]]
    comparison: Comparison
    resumed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Work:
    """What is being worked on once the plan stands."""

    circuits: DerivedCircuits
    srs: Mapping[int, SrsFile]
    activations: Activations | None


class Coordinator:
    """One run, from a stored request to a stored manifest."""

    def __init__(
        self,
        *,
        request: RunRequest,
        options: PlanOptions,
        model: LoadedModel,
        graph: ModelGraph,
        arrays: Arrays,
        salt_seed: bytes | None,
        journal: Journal,
        pool: StartingPool | None,
        workers: int,
        threads: int,
        upload_keys: bool,
        list_keys: bool,
        listener: Listener,
    ) -> None:
        """Take up a run that was begun.

        Args:
            request: What was asked, as stored.
            options: Its choices about the plan.
            model: The model.
            graph: Its normalised form.
            arrays: Its input, by name.
            salt_seed: Draw salts from this seed instead of the operating system.
            journal: The run's objects.
            pool: Workers; None where no chunk is to be set up or proved.
            workers: How many there are, for predictions.
            threads: Prover threads of each, for predictions.
            upload_keys: Store proving keys too.
            list_keys: Let the manifest refer to keys; without, only the model's owner can verify.
            listener: Told of every event.
        """
        self._request = request
        self._options = options
        self._model = model
        self._graph = graph
        self._arrays = arrays
        self._salt_seed = salt_seed
        self._journal = journal
        self._pool = pool
        self._workers = workers
        self._threads = threads
        self._upload_keys = upload_keys
        self._list_keys = list_keys
        self._listener = listener
        self._reference = Reference(values={}, source="")
        self._differences: tuple[OutputDifference, ...] = ()
        self._stages: list[StageRecord] = []
        self._warnings: list[str] = []
        self._expected: dict[str, list[int]] = {}
        self._records: dict[str, ChunkRecord] = {}
        self._instances: dict[str, Sequence[int]] = {}
        self._vks: dict[str, str] = {}
        self._resumed: list[str] = []
        self._forecast: Forecast | None = None
        self._work: _Work | None = None
        self._given_out: set[str] = set()
        journal.artifacts[names.MODEL] = request.model
        journal.artifacts[names.INPUT] = request.input

    @property
    def run_id(self) -> str:
        """The run."""
        return self._request.run_id

    def without_workers(self, until: Literal["plan", "witness"]) -> None:
        """Run the stages that need no worker, as far as they are not done yet.

        Raises:
            ZkmlRayError: A stage failed; the run can be resumed.
        """
        circuits = self._planned()
        if until == "plan":
            return
        activations = Activations(circuits, self._journal, self._arrays, self._salt_seed)
        with self._stage("witness", "running the quantised model chunk by chunk"):
            for chunk, seconds in activations.by_chunk():
                self._moved(chunk.id, "witnessed", seconds)
        self._compare(circuits.plan, activations)

    def setting_up(self) -> Iterator[bool]:
        """Have the keys made that the store lacks: steps, as those of `proving`.

        Raises:
            ZkmlRayError: A stage failed; the run can be resumed.
        """
        circuits = self._planned()
        srs = self._with_srs(circuits.plan)
        self._work = _Work(circuits, srs, None)
        with self._stage("setup", "making the keys that the store lacks"):
            for chunk in circuits.plan.chunks:
                file = srs[chunk.arguments.logrows]
                if self._journal.stored_keys(chunk, file.sha256) is None:
                    self._submit(SetupJob(**self._setup_fields(chunk, file)))
            while self._given_out:
                yield False

    def proving(self) -> Iterator[bool]:
        """Have every chunk proved that is not: one witness a step, then steps without work.

        Yields:
            Whether there is more to be done here; if not, the next step waits for answers.

        Raises:
            ZkmlRayError: A stage failed; the run can be resumed.
        """
        circuits = self._planned()
        srs = self._with_srs(circuits.plan)
        activations = Activations(circuits, self._journal, self._arrays, self._salt_seed)
        self._work = _Work(circuits, srs, activations)
        with self._stage("prove", "witnesses here, proofs on the workers"):
            with self._stage("witness", ""):
                for chunk, seconds in activations.by_chunk():
                    self._expected[chunk.id] = activations.expected_instances(chunk)
                    self._moved(chunk.id, "witnessed", seconds)
                    if chunk is circuits.plan.chunks[-1]:
                        self._compare(circuits.plan, activations)
                    if not self._take_finished(chunk, circuits, srs):
                        self._submit(self._prove_job(chunk, circuits.plan, srs, activations))
                    yield True
            while self._given_out:
                yield False

    def finish(self) -> RunOutcome:
        """Link, verify and store a run whose chunks are all proved.

        Raises:
            ZkmlRayError: A stage failed; the run can be resumed.
        """
        if self._work is None or self._work.activations is None:
            raise StageError("this run is not proved yet", stage="link")
        circuits, srs, activations = self._work.circuits, self._work.srs, self._work.activations
        outputs = activations.real_outputs()
        comparison = recorded(self._differences, self._reference, self._request.max_error)
        with self._stage("link", "comparing commitments across every boundary"):
            manifest = assemble(
                request=self._request,
                plan=circuits.plan,
                srs=srs,
                vk_sha256=self._vks,
                instances=self._instances,
                values=activations.values,
                records=self._records,
                journal=self._journal,
                stages=self._stages,
                accuracy=summary(self._differences),
                comparison=comparison,
                warnings=self._warnings,
                arrays=self._arrays,
            )
        with self._stage("verify", "verifying the stored run as an outsider would"):
            verdict = verify_manifest(
                manifest,
                self._journal.store,
                TrustRoot(plan_digest=manifest.plan_sha256),
                allow_insecure_srs=True,
            )
        with self._stage("store", "writing the manifest"):
            for chunk in circuits.plan.chunks:
                self._journal.stored_keys(chunk, srs[chunk.arguments.logrows].sha256)
        keep_private = self._request.keep_checkpoints
        manifest = manifest.model_copy(
            update={
                "stages": tuple(self._stages),
                "artifacts": self._journal.listed(private=keep_private, keys=self._list_keys),
            }
        )
        self._journal.complete(manifest)
        if not keep_private:
            # After the manifest: without them a run that is not complete could not be resumed.
            self._journal.forget_private()
        return RunOutcome(
            manifest=manifest,
            plan=circuits.plan,
            verdict=verdict,
            outputs=outputs,
            float_outputs=self._reference.values,
            comparison=comparison,
            resumed=tuple(self._resumed),
        )

    def _compare(self, plan_: Plan, activations: Activations) -> None:
        """Compare the outputs with the float model's, before anything dear is begun.

        Raises:
            AccuracyError: They are too far from it.
        """
        with self._stage("compare", "comparing the outputs with the float model's"):
            self._reference = reference_outputs(self._model, self._graph, self._arrays)
            self._differences = compared(plan_, activations.real_outputs(), self._reference)
        if self._reference.note:
            self._warn(f"outputs and float model: {self._reference.note}")
        require(self._differences, self._request.max_error, plan_, self._request.run_id)
        if self._request.max_error == "none" and (message := warning(self._differences)):
            self._warn(message, severe=True)

    @contextmanager
    def _stage(self, stage: str, detail: str) -> Iterator[None]:
        self._listener(StageStarted(stage=stage, detail=detail))
        started = time.time()
        yield
        span = Span(started_s=started, ended_s=time.time())
        self._stages.append(StageRecord(stage=stage, span=span))

    def _warn(self, message: str, *, severe: bool = False) -> None:
        self._warnings.append(message)
        self._listener(Warned(message=message, severe=severe))

    def _workers_pool(self) -> StartingPool:
        if self._pool is None:
            raise StageError("this stage needs workers", stage="prove")
        return self._pool

    def _moved(self, chunk_id: str, state: str, seconds: float | None = None) -> None:
        self._listener(ChunkMoved(chunk_id=chunk_id, state=state, seconds=seconds))

    def _planned(self) -> DerivedCircuits:
        with self._stage("plan", "cutting the model and sizing its circuits"):
            circuits = self._journal.circuits()
            if circuits is None or circuits.plan.model_sha256 != sha256_hex(self._model.data):
                circuits = plan(self._model, self._options, listener=self._listener)
                for notice in circuits.notices:
                    self._warn(notice)
                self._journal.keep_circuits(circuits)
            if not self._options.salted:
                self._warn(UNSALTED_WARNING)
            elif self._request.seeded_salts:
                self._warn(SEEDED_SALT_WARNING)
            if self._request.input_source.kind == "random":
                seed = self._request.input_source.seed
                self._warn(f"no input was given: the input is random, from seed {seed}")
            leak = check_leaks(circuits.plan, self._request)
            if leak is not None:
                self._warn(leak)
        forecast = CostModel(profile=load_profile(), threads=self._threads).forecast(circuits)
        self._journal.keep_forecast(forecast)
        self._forecast = forecast
        predicted_s = forecast.makespan_s(self._workers)
        chunks = tuple((chunk.id, " ".join(chunk.operators)) for chunk in circuits.plan.chunks)
        prices_s = tuple(c.prove_s + c.setup_s + forecast.chunk_s for c in forecast.chunks)
        self._listener(PlanReady(chunks=chunks, predicted_s=predicted_s, prices_s=prices_s))
        return circuits

    def _with_srs(self, plan_: Plan) -> dict[int, SrsFile]:
        sizes = sorted({chunk.arguments.logrows for chunk in plan_.chunks})
        with self._stage("setup", "fetching or generating the SRS"):
            files = self._journal.srs(sizes)
            if files is None:
                files = {logrows: ensure_srs(logrows) for logrows in sizes}
                self._journal.keep_srs(files.values())
            if any(file.trust == "insecure" for file in files.values()):
                self._warn(INSECURE_SRS_WARNING)
        return files

    def _setup_fields(self, chunk: ChunkPlan, srs: SrsFile) -> dict[str, Any]:
        artifacts = self._journal.artifacts
        return {
            "project": self._request.project,
            "run_id": self._request.run_id,
            "chunk": chunk,
            "onnx": artifacts[names.chunk_model(chunk.id)],
            "settings": artifacts[names.settings(chunk.id)],
            "weights": artifacts.get(names.weights(chunk.id)),
            "srs": artifacts[names.srs(chunk.arguments.logrows)],
            "stored_keys": self._journal.stored_keys(chunk, srs.sha256),
            "upload_keys": self._upload_keys,
        }

    def _prove_job(
        self,
        chunk: ChunkPlan,
        plan_: Plan,
        srs: Mapping[int, SrsFile],
        activations: Activations,
    ) -> ProveJob:
        return ProveJob(
            **self._setup_fields(chunk, srs[chunk.arguments.logrows]),
            boundaries=tuple(plan_.boundary(name) for name in chunk.touched()),
            checkpoints={
                name: self._journal.artifacts[names.checkpoint(position)]
                for name, position in activations.positions(chunk).items()
            },
        )

    def _submit(self, job: SetupJob) -> None:
        expected = {"limit_s": MIN_ATTEMPT_S}
        if self._forecast is not None:
            found = self._forecast.of(job.chunk.id)
            expected["predicted_s"] = found.prove_s if isinstance(job, ProveJob) else 0.0
            expected["setup_s"] = found.setup_s
            limit_s = ATTEMPT_FACTOR * (found.setup_s + found.prove_s)
            expected["limit_s"] = max(MIN_ATTEMPT_S, limit_s)
        self._given_out.add(job.chunk.id)
        self._workers_pool().submit(job, **expected)

    def handle(self, event: PoolEvent) -> None:
        """Take what the pool tells of this run, or of workers.

        Raises:
            ZkmlRayError: The run cannot be finished.
        """
        if isinstance(event, Assigned):
            state = "proving" if event.chunk_id in self._expected else "setting up"
            self._listener(
                ChunkMoved(
                    chunk_id=event.chunk_id,
                    state=state,
                    worker=event.worker,
                    attempt=event.attempt,
                )
            )
        elif isinstance(event, Trouble):
            self._listener(
                Faulted(
                    cause=event.cause.value,
                    message=event.message,
                    worker=event.worker,
                    chunk_id=event.chunk_id,
                    attempt=event.attempt,
                )
            )
        elif not isinstance(event, Completed):
            raise event.error
        elif isinstance(event.result, SetupResult):
            self._workers_pool().accept(event)
            self._given_out.discard(event.result.chunk_id)
            self._moved(event.result.chunk_id, "set up", event.result.setup.seconds)
        elif self._work is not None:
            self._accept(event, event.result, self._work.circuits, self._work.srs)

    def _accept(
        self,
        event: Completed,
        result: ChunkResult,
        circuits: DerivedCircuits,
        srs: Mapping[int, SrsFile],
    ) -> None:
        chunk = circuits.plan.chunk(result.chunk_id)
        started = time.time()
        problem = self._problem(chunk, result.proof, result.vk, circuits, srs)
        if problem:
            message = f"{event.worker} returned a bad proof of {chunk.id}: {problem}"
            self._warn(message)
            self._workers_pool().reject(event, message)
            return
        record = ChunkRecord(
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
            verify_s=time.time() - started,
            peak_rss_bytes=result.peak_rss_bytes,
            proof_bytes=len(result.proof.proof) // 2,
        )
        self._journal.finish_chunk(record, result.vk, result.proof)
        self._workers_pool().accept(event)
        self._given_out.discard(chunk.id)
        self._take(record, result.vk, result.proof)

    def _take_finished(
        self, chunk: ChunkPlan, circuits: DerivedCircuits, srs: Mapping[int, SrsFile]
    ) -> bool:
        found = self._journal.finished_chunk(chunk.id)
        if found is None:
            return False
        record, vk, proof = found
        problem = self._problem(chunk, proof, vk, circuits, srs)
        if problem:
            self._warn(f"the stored proof of {chunk.id} is not used: {problem}")
            return False
        self._resumed.append(chunk.id)
        self._take(record, vk, proof)
        return True

    def _take(self, record: ChunkRecord, vk: bytes, proof: ChunkProof) -> None:
        self._records[record.chunk] = record
        self._vks[record.chunk] = sha256_hex(vk)
        self._instances[record.chunk] = proof.elements()
        self._listener(
            ChunkMoved(
                chunk_id=record.chunk,
                state="verified",
                worker=record.worker,
                seconds=record.prove.seconds,
            )
        )

    def _problem(
        self,
        chunk: ChunkPlan,
        proof: ChunkProof,
        vk: bytes,
        circuits: DerivedCircuits,
        srs: Mapping[int, SrsFile],
    ) -> str:
        """Why a proof is not accepted, or nothing."""
        try:
            elements = proof.elements()
            leaves = elements if chunk.weights_sha256 is None else elements[:-1]
            if leaves != self._expected[chunk.id]:
                return "its public instances are not those of the witness"
        except ZkmlRayError as error:
            return str(error)
        with scratch_folder() as folder:
            vk_path, settings_path = folder / "vk.key", folder / "settings.json"
            vk_path.write_bytes(vk)
            settings_path.write_bytes(circuits.files[chunk.id].settings)
            srs_path = srs[chunk.arguments.logrows].path
            if not backend.verify_proof(proof, settings_path, vk_path, srs_path):
                return "it does not verify"
        weights = circuits.files[chunk.id].weights
        if weights is not None:
            try:
                challenge.check(
                    chunk,
                    proof,
                    weights=weights,
                    vk_sha256=sha256_hex(vk),
                    settings=circuits.files[chunk.id].settings,
                )
            except ProofRejectedError as error:
                return str(error)
        return ""
