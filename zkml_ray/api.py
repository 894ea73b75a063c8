"""The Python API of proving: prove a model on Ray workers, resume a run, take one by stages."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zkml_ray.chunking.given import ModelLike
from zkml_ray.config import checked_threads
from zkml_ray.errors import InsecureSrsWarning, ZkmlRayError
from zkml_ray.events import INSECURE_SRS_WARNING, FloatOutputs, Listener, ignore
from zkml_ray.report.progress import Shown, showing
from zkml_ray.report.snippet import as_html, one_line
from zkml_ray.run.conduct import conduct, drive
from zkml_ray.run.coordinator import RunOutcome, Until
from zkml_ray.run.execution import (
    Begun,
    begin,
    coordinating,
    read_model,
    take_up,
    worker_pool,
)
from zkml_ray.run.journal import Journal
from zkml_ray.run.recording import recorded
from zkml_ray.schema.manifest import Comparison, Manifest
from zkml_ray.schema.plan import Plan
from zkml_ray.schema.request import RunRequest
from zkml_ray.stages.comparison import MaxError
from zkml_ray.stages.inputs import DEFAULT_SEED, Inputs
from zkml_ray.stages.plan import PlanOptions
from zkml_ray.stages.setup import StoreKeys
from zkml_ray.stores import ArtifactStore
from zkml_ray.stores.layout import RunLayout
from zkml_ray.verification import DEFAULT_PROJECT, opened_store
from zkml_ray.verifying.verifier import Verdict


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Run:
    """A proved, verified and stored run. A notebook shows it as a small table.

    Attributes:
        run_id: Its id.
        project: Its project.
        store: URL of the store that holds it.
        outputs: Per output name, the proved output: quantised integers / 2^scale, in the model's
            shape.
        float_outputs: Per output name, the float model's output on the same input (not proved);
            none where onnxruntime does not run the model.
        comparison: Per output, how far it is from that, and how far it may be (not proved).
        verified: Whether all proofs verify, all boundaries link and the statement holds.
        plan_digest: Digest of the sealed plan; a trust root for those who re-built it.
        plan: The plan.
        manifest: The manifest as stored.
        verdict: The verifier's verdict.
        resumed: Chunks that had been proved before and were taken over.
    """

    run_id: str
    project: str
    store: str
    outputs: Mapping[str, npt.NDArray[np.float64]]
    float_outputs: Mapping[str, npt.NDArray[Any]]
    comparison: Comparison
    verified: bool
    plan_digest: str
    plan: Plan
    manifest: Manifest
    verdict: Verdict
    resumed: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """The run in one line."""
        return one_line(self.manifest, self.plan, self.outputs, verified=self.verified)

    def _repr_html_(self) -> str:
        """The run as a notebook shows it."""
        return as_html(self.manifest, self.plan, self.outputs, verified=self.verified)


def prove_distributed(
    model: ModelLike,
    workers: int = 2,
    inputs: Inputs = None,
    *,
    store: str | Path | ArtifactStore | None = None,
    project: str = DEFAULT_PROJECT,
    run_id: str | None = None,
    threads: int | None = None,
    store_keys: StoreKeys = StoreKeys.VERIFYING,
    options: PlanOptions | None = None,
    reveal: Sequence[str] | None = None,
    private_input: bool = False,
    allow_leaky_native: bool = False,
    salt_seed: bytes | None = None,
    keep_checkpoints: bool = True,
    seed: int = DEFAULT_SEED,
    max_error: MaxError | None = None,
    address: str | None = None,
    command: Sequence[str] = (),
    listener: Listener = ignore,
    progress: Shown = "auto",
) -> Run:
    """Prove an inference of an ONNX model on Ray workers.

    Args:
        model: The ONNX file: its path, its bytes, or a parsed onnx.ModelProto. Or a
            torch.nn.Module, exported with `inputs` for example, or a fitted scikit-learn
            estimator (needs skl2onnx): what is proved is the ONNX model they are exported to.
        workers: Ray actors that prove, at least 1. More than the machine has cores slows down.
        inputs: A path (.json in ezkl's input_data form, .npy, .npz), one array, a sequence of
            arrays in input order, or a mapping by input name. None: a seeded random input.
        store: Folder, URL or an opened store; default: ZKML_RAY_STORE or ./zkml-ray-store.
        project: Project in the store.
        run_id: Id of the run; default: a new one.
        threads: Prover threads of each worker, and CPUs that it reserves; default: its share of
            the machine's cores, and what others leave on a private cluster.
        store_keys: Which keys to leave in the store.
        options: Choices about the plan; default: cuts for this many workers.
        reveal: Boundaries whose values the statement shows; default: inputs and outputs.
        private_input: Prove without revealing the inputs. Native circuits are then refused.
        allow_leaky_native: Hide inputs behind native circuits all the same, although their proofs
            let a guess of the input be tested (docs/security.md).
        salt_seed: Make salts reproducible (whoever knows the seed can test guesses).
        keep_checkpoints: Keep boundary values in the store, so that they can be opened later.
        seed: Seed of the random input.
        max_error: Largest accepted absolute difference of an output from onnxruntime's on the same
            input: a number, "none", or "default" (docs/adr/0022), which None stands for. It is
            looked at once the witnesses are made, before the run is proved.
        address: A running Ray cluster; default: RAY_ADDRESS, else a private one.
        command: Recorded in the manifest.
        listener: Called with every event of the run.
        progress: "auto": shown on a terminal and in a notebook; None: not at all.

    Returns:
        The run; it is stored and verified. One that rests on a generated SRS is warned of
        (`zkml_ray.errors.InsecureSrsWarning`).

    Raises:
        ConfigError: An argument or the input is wrong, or the run id is taken.
        ChunkingError: The model cannot be proved.
        AccuracyError: An output is further from onnxruntime's; the run can be resumed with
            another `max_error`.
        StageError: A stage failed.
        StoreError: The store failed.
    """
    checked_threads(workers, threads)
    read = read_model(model, inputs, options or PlanOptions(workers=workers))
    begun = begin(
        read,
        read.input(inputs, seed),
        store=store,
        project=project,
        run_id=run_id,
        reveal=reveal,
        private_input=private_input,
        allow_leaky_native=allow_leaky_native,
        seeded_salts=salt_seed is not None,
        keep_checkpoints=keep_checkpoints,
        max_error=max_error,
        command=command,
    )
    return _execute(begun, salt_seed, workers, threads, store_keys, address, listener, progress)


def prepare(
    model: ModelLike,
    inputs: Inputs = None,
    *,
    store: str | Path | ArtifactStore | None = None,
    project: str = DEFAULT_PROJECT,
    run_id: str | None = None,
    options: PlanOptions | None = None,
    reveal: Sequence[str] | None = None,
    private_input: bool = False,
    allow_leaky_native: bool = False,
    keep_checkpoints: bool = True,
    seed: int = DEFAULT_SEED,
    max_error: MaxError | None = None,
    command: Sequence[str] = (),
) -> RunRequest:
    """Store what a run is asked to do, and nothing more; `advance` and `resume` go on.

    Args:
        model: As for `prove_distributed`, and so are the others.
        inputs: The model's input.
        store: The store.
        project: Project in the store.
        run_id: Id of the run.
        options: Choices about the plan.
        reveal: Boundaries to reveal.
        private_input: Prove without revealing the inputs. Native circuits are then refused.
        allow_leaky_native: Hide inputs behind native circuits all the same, although their proofs
            let a guess of the input be tested (docs/security.md).
        keep_checkpoints: Keep boundary values when the run is complete.
        seed: Seed of the random input.
        max_error: Largest accepted difference of an output from onnxruntime's.
        command: Recorded in the manifest.

    Returns:
        The stored request.

    Raises:
        ConfigError: An argument or the input is wrong, or the run id is taken.
        ChunkingError: The model cannot be proved.
        StoreError: The store failed.
    """
    read = read_model(model, inputs, options)
    return begin(
        read,
        read.input(inputs, seed),
        store=store,
        project=project,
        run_id=run_id,
        reveal=reveal,
        private_input=private_input,
        allow_leaky_native=allow_leaky_native,
        seeded_salts=False,
        keep_checkpoints=keep_checkpoints,
        max_error=max_error,
        command=command,
    ).request


def advance(
    run_id: str,
    until: Until,
    *,
    store: str | Path | ArtifactStore | None = None,
    project: str = DEFAULT_PROJECT,
    workers: int = 1,
    threads: int | None = None,
    store_keys: StoreKeys = StoreKeys.VERIFYING,
    max_error: MaxError | None = None,
    address: str | None = None,
    listener: Listener = ignore,
) -> None:
    """Take a run that was begun up to a stage, doing what that stage needs and the store lacks.

    Args:
        run_id: The run.
        until: The stage to stop after. "plan" and "witness" need no Ray.
        store: Folder, URL or an opened store; default: ZKML_RAY_STORE or ./zkml-ray-store.
        project: Project in the store.
        workers: Ray actors that set up and prove, at least 1.
        threads: Prover threads of each worker, and CPUs that it reserves; default: its share of
            the machine's cores, and what others leave on a private cluster.
        store_keys: Which keys to leave in the store.
        max_error: Another tolerance than the run was begun with; it holds from now on.
        address: A running Ray cluster; default: RAY_ADDRESS, else a private one.
        listener: Called with every event of the run.

    Raises:
        RunExistsError: The run is complete.
        ConfigError: No such run was begun.
        ZkmlRayError: As `prove_distributed`.
    """
    share = checked_threads(workers, threads)
    begun = take_up(Journal(opened_store(store), RunLayout(project, run_id)), max_error)
    memory_bytes = begun.request.choices.memory_bytes
    url = begun.journal.store.url
    with recorded(begun.journal, listener) as told:
        if until == "plan" or until == "witness":
            coordinator = coordinating(begun, None, None, workers, share, store_keys, told)
            coordinator.without_workers(until)
            return
        with worker_pool(url, workers, threads, address, told, memory_bytes) as pool:
            coordinator = coordinating(begun, None, pool, workers, share, store_keys, told)
            steps = coordinator.setting_up() if until == "setup" else coordinator.proving()
            drive(coordinator, steps, pool)


def resume(
    run_id: str,
    *,
    store: str | Path | ArtifactStore | None = None,
    project: str = DEFAULT_PROJECT,
    workers: int = 2,
    threads: int | None = None,
    store_keys: StoreKeys = StoreKeys.VERIFYING,
    max_error: MaxError | None = None,
    address: str | None = None,
    listener: Listener = ignore,
    progress: Shown = "auto",
) -> Run:
    """Continue a run that was begun, on any machine that reaches its store.

    Chunks whose proofs are stored are checked and taken over; nothing is proved twice.

    Args:
        run_id: The run.
        store: Folder, URL or an opened store; default: ZKML_RAY_STORE or ./zkml-ray-store.
        project: Project in the store.
        workers: Ray actors that prove, at least 1.
        threads: Prover threads of each worker, and CPUs that it reserves; default: its share of
            the machine's cores, and what others leave on a private cluster.
        store_keys: Which keys to leave in the store.
        max_error: Another tolerance than the run was begun with; it holds from now on.
        address: A running Ray cluster; default: RAY_ADDRESS, else a private one.
        listener: Called with every event of the run.
        progress: "auto": shown on a terminal and in a notebook; None: not at all.

    Raises:
        RunExistsError: The run is complete.
        ConfigError: No such run was begun.
        ZkmlRayError: As `prove_distributed`.
    """
    checked_threads(workers, threads)
    journal = Journal(opened_store(store), RunLayout(project, run_id))
    return _execute(
        take_up(journal, max_error),
        None,
        workers,
        threads,
        store_keys,
        address,
        listener,
        progress,
    )


def _execute(
    begun: Begun,
    salt_seed: bytes | None,
    workers: int,
    threads: int | None,
    store_keys: StoreKeys,
    address: str | None,
    listener: Listener,
    progress: Shown,
) -> Run:
    share = checked_threads(workers, threads)
    memory_bytes = begun.request.choices.memory_bytes
    url = begun.journal.store.url
    with (
        showing(progress, listener) as shown,
        recorded(begun.journal, shown) as told,
        worker_pool(url, workers, threads, address, told, memory_bytes) as pool,
    ):
        coordinator = coordinating(begun, salt_seed, pool, workers, share, store_keys, told)
        ((_, outcome),) = conduct([coordinator], pool, workers)
        if isinstance(outcome, ZkmlRayError):
            raise outcome
        told(revealed_floats(outcome))
    if outcome.manifest.srs_trust == "insecure":
        warnings.warn(INSECURE_SRS_WARNING, InsecureSrsWarning, stacklevel=3)
    return run_of(begun, outcome)


def run_of(begun: Begun, outcome: RunOutcome) -> Run:
    """A finished run, as the API shows it."""
    return Run(
        run_id=begun.request.run_id,
        project=begun.request.project,
        store=begun.journal.store.url,
        outputs=outcome.outputs,
        float_outputs=outcome.float_outputs,
        comparison=outcome.comparison,
        verified=outcome.verdict.ok,
        plan_digest=outcome.manifest.plan_sha256,
        plan=outcome.plan,
        manifest=outcome.manifest,
        verdict=outcome.verdict,
        resumed=outcome.resumed,
    )


def revealed_floats(outcome: RunOutcome) -> FloatOutputs:
    """The float model's values of those outputs that anyone may see."""
    revealed = {entry.boundary for entry in outcome.manifest.statement.revealed}
    return FloatOutputs(
        values={
            name: tuple(float(value) for value in np.asarray(values, dtype=np.float64).ravel())
            for name, values in outcome.float_outputs.items()
            if name in revealed
        }
    )
