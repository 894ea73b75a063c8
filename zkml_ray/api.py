"""The Python API: prove a model on Ray workers, verify a stored run."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zkml_ray import names
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.load import LoadedModel, load_model, parse_model
from zkml_ray.circuits import normalised_graph
from zkml_ray.cluster.pool import WorkerPool
from zkml_ray.cluster.session import ray_session
from zkml_ray.config import default_store_url
from zkml_ray.coordinator import Coordinator
from zkml_ray.errors import ConfigError
from zkml_ray.events import Listener, Warned, ignore
from zkml_ray.journal import Journal
from zkml_ray.schema.manifest import Manifest
from zkml_ray.schema.plan import Plan
from zkml_ray.schema.request import RunRequest, StoredInput
from zkml_ray.stages.inputs import (
    DEFAULT_SEED,
    Arrays,
    Inputs,
    from_store_form,
    read_inputs,
    store_form,
)
from zkml_ray.stages.plan import PlanOptions
from zkml_ray.stores import ArtifactStore, open_store
from zkml_ray.stores.layout import RunLayout
from zkml_ray.verifier import TrustRoot, Verdict, verify_run

DEFAULT_PROJECT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A proved, verified and stored run.

    Attributes:
        run_id: Its id.
        project: Its project.
        store: URL of the store that holds it.
        outputs: Per output name, the proved output: quantised integers / 2^scale, in the model's
            shape.
        float_outputs: Per output name, the float model's output on the same input (not proved).
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
    float_outputs: Mapping[str, npt.NDArray[np.float32]]
    verified: bool
    plan_digest: str
    plan: Plan
    manifest: Manifest
    verdict: Verdict
    resumed: tuple[str, ...] = ()


def prove_distributed(
    model: str | Path,
    workers: int = 2,
    inputs: Inputs = None,
    *,
    store: str | Path | ArtifactStore | None = None,
    project: str = DEFAULT_PROJECT,
    run_id: str | None = None,
    threads: int | None = None,
    options: PlanOptions | None = None,
    reveal: Sequence[str] | None = None,
    private_input: bool = False,
    salt_seed: bytes | None = None,
    keep_checkpoints: bool = True,
    seed: int = DEFAULT_SEED,
    address: str | None = None,
    command: Sequence[str] = (),
    listener: Listener = ignore,
) -> Run:
    """Prove an inference of an ONNX model on Ray workers.

    Args:
        model: The ONNX file.
        workers: Ray actors that prove, at least 1. More than the machine has cores slows down.
        inputs: A path (.json in ezkl's input_data form, .npy, .npz), one array, a sequence of
            arrays in input order, or a mapping by input name. None: a seeded random input.
        store: Folder, URL or an opened store; default: ZKML_RAY_STORE or ./zkml-ray-store.
        project: Project in the store.
        run_id: Id of the run; default: a new one.
        threads: Prover threads of each worker; default: the machine's cores shared evenly.
        options: Choices about the plan.
        reveal: Boundaries whose values the statement shows; default: inputs and outputs.
        private_input: Prove without revealing the inputs.
        salt_seed: Make salts reproducible (whoever knows the seed can test guesses).
        keep_checkpoints: Keep boundary values in the store, so that they can be opened later.
        seed: Seed of the random input.
        address: A running Ray cluster; default: RAY_ADDRESS, else a private one.
        command: Recorded in the manifest.
        listener: Called with every event of the run.

    Returns:
        The run; it is stored and verified.

    Raises:
        ConfigError: An argument or the input is wrong, or the run id is taken.
        ChunkingError: The model cannot be proved.
        StageError: A stage failed.
        StoreError: The store failed.
    """
    threads = _checked_threads(workers, threads)
    options = options or PlanOptions()
    layout = RunLayout(project, new_run_id() if run_id is None else run_id)
    journal = Journal(_opened(store), layout)
    loaded = load_model(Path(model))
    graph = normalised_graph(loaded, options.dimensions)
    model_input = read_inputs(graph, inputs, seed=seed)
    journal.check_new()
    request = RunRequest(
        project=layout.project,
        run_id=layout.run_id,
        created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        model_file=loaded.name,
        model=journal.share(names.MODEL, "models", loaded.data),
        input=journal.keep(names.INPUT, store_form(layout.run_id, model_input.arrays).to_bytes()),
        input_source=model_input.source,
        choices=options.choices(),
        reveal=None if reveal is None else tuple(reveal),
        private_input=private_input,
        keep_checkpoints=keep_checkpoints,
        seeded_salts=salt_seed is not None,
        command=tuple(command),
    )
    journal.begin(request)
    return _execute(
        journal,
        request,
        loaded,
        graph,
        model_input.arrays,
        salt_seed,
        workers,
        threads,
        address,
        listener,
    )


def resume(
    run_id: str,
    *,
    store: str | Path | ArtifactStore | None = None,
    project: str = DEFAULT_PROJECT,
    workers: int = 2,
    threads: int | None = None,
    address: str | None = None,
    listener: Listener = ignore,
) -> Run:
    """Continue a run that was begun, on any machine that reaches its store.

    Chunks whose proofs are stored are checked and taken over; nothing is proved twice.

    Args:
        run_id: The run.
        store: Folder, URL or an opened store; default: ZKML_RAY_STORE or ./zkml-ray-store.
        project: Project in the store.
        workers: Ray actors that prove, at least 1.
        threads: Prover threads of each worker; default: the machine's cores shared evenly.
        address: A running Ray cluster; default: RAY_ADDRESS, else a private one.
        listener: Called with every event of the run.

    Raises:
        RunExistsError: The run is complete.
        ConfigError: No such run was begun.
        ZkmlRayError: As `prove_distributed`.
    """
    threads = _checked_threads(workers, threads)
    journal = Journal(_opened(store), RunLayout(project, run_id))
    request = journal.request()
    options = PlanOptions.of(request.choices)
    loaded = parse_model(journal.store.read_verified(request.model), request.model_file)
    graph = normalised_graph(loaded, options.dimensions)
    stored = StoredInput.parse(journal.store.read_verified(request.input), what="stored input")
    arrays = from_store_form(graph, stored)
    return _execute(
        journal, request, loaded, graph, arrays, None, workers, threads, address, listener
    )


def new_run_id() -> str:
    """A run id that sorts by time and does not repeat."""
    return f"run-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def _opened(store: str | Path | ArtifactStore | None) -> ArtifactStore:
    if isinstance(store, ArtifactStore):
        return store
    return open_store(str(store) if store is not None else default_store_url())


def _checked_threads(workers: int, threads: int | None) -> int:
    if workers < 1:
        raise ConfigError(f"workers must be at least 1, not {workers}")
    if threads is not None and threads < 1:
        raise ConfigError(f"threads must be at least 1, not {threads}")
    return threads or max(1, (os.cpu_count() or 1) // workers)


def _execute(
    journal: Journal,
    request: RunRequest,
    model: LoadedModel,
    graph: ModelGraph,
    arrays: Arrays,
    salt_seed: bytes | None,
    workers: int,
    threads: int,
    address: str | None,
    listener: Listener,
) -> Run:
    cores = os.cpu_count() or 1
    if workers * threads > cores:
        listener(Warned(message=f"{workers} workers of {threads} threads share {cores} cores"))
    with ray_session(cpus=max(cores, workers * threads), address=address):
        pool = WorkerPool(workers=workers, threads=threads, store_url=journal.store.url)
        try:
            outcome = Coordinator(
                request=request,
                options=PlanOptions.of(request.choices),
                model=model,
                graph=graph,
                arrays=arrays,
                salt_seed=salt_seed,
                journal=journal,
                pool=pool,
                workers=workers,
                threads=threads,
                listener=listener,
            ).run()
        finally:
            pool.close()
    return Run(
        run_id=request.run_id,
        project=request.project,
        store=journal.store.url,
        outputs=outcome.outputs,
        float_outputs=outcome.float_outputs,
        verified=outcome.verdict.ok,
        plan_digest=outcome.manifest.plan_sha256,
        plan=outcome.plan,
        manifest=outcome.manifest,
        verdict=outcome.verdict,
        resumed=outcome.resumed,
    )


def verify(
    run_id: str,
    *,
    store: str | Path | ArtifactStore | None = None,
    project: str = DEFAULT_PROJECT,
    model: str | Path | None = None,
    plan_digest: str | None = None,
    allow_insecure_srs: bool = False,
) -> Verdict:
    """Verify a stored run, trusting only the model file or a plan digest.

    Args:
        run_id: The run.
        store: Folder, URL or an opened store; default: ZKML_RAY_STORE or ./zkml-ray-store.
        project: Project in the store.
        model: Your copy of the ONNX file: circuits and verifying keys are re-built from it.
        plan_digest: Digest of a sealed plan that someone you trust re-built.
        allow_insecure_srs: Accept a generated SRS, with which its maker can forge.

    Returns:
        The verdict (`ok` is True; a run that does not verify raises).

    Raises:
        VerificationError: The run is not what it claims to be.
        ConfigError: There is no such run, or not exactly one trust root is given.
        StoreError: The store cannot be read.
    """
    layout = RunLayout(project, run_id)
    loaded = load_model(Path(model)) if model is not None else None
    return verify_run(
        _opened(store),
        layout,
        TrustRoot(model=loaded, plan_digest=plan_digest),
        allow_insecure_srs=allow_insecure_srs,
    )
