"""Beginning a run, taking one up again, giving it workers: what the API's functions share."""

from __future__ import annotations

import os
import secrets
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from zkml_ray import names
from zkml_ray.chunking.given import ModelLike, take_model
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.load import LoadedModel, parse_model
from zkml_ray.circuits.derive import normalised_graph
from zkml_ray.cluster.pool import WorkerPool, worker_environment
from zkml_ray.cluster.session import is_private, ray_session
from zkml_ray.cluster.starting import StartingPool
from zkml_ray.config import checked_threads
from zkml_ray.errors import InputError
from zkml_ray.events import Listener, Warned, WorkersReady
from zkml_ray.run.coordinator import Coordinator
from zkml_ray.run.journal import Journal
from zkml_ray.schema.request import RunRequest, StoredInput
from zkml_ray.scratch import remove_leftovers
from zkml_ray.stages.comparison import MaxError, checked_max_error
from zkml_ray.stages.inputs import Arrays, Inputs, from_store_form, read_inputs, store_form
from zkml_ray.stages.plan import PlanOptions
from zkml_ray.stages.setup import StoreKeys
from zkml_ray.stores import ArtifactStore
from zkml_ray.stores.layout import RunLayout
from zkml_ray.verification import opened_store


def new_run_id() -> str:
    """A run id that sorts by time and does not repeat."""
    return f"run-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A run whose request is stored, with what was read from it."""

    journal: Journal
    request: RunRequest
    model: LoadedModel
    graph: ModelGraph
    arrays: Arrays


def begin(
    model: ModelLike,
    inputs: Inputs,
    *,
    store: str | Path | ArtifactStore | None,
    project: str,
    run_id: str | None,
    options: PlanOptions | None,
    reveal: Sequence[str] | None,
    private_input: bool,
    allow_leaky_native: bool,
    seeded_salts: bool,
    keep_checkpoints: bool,
    seed: int,
    max_error: MaxError | None,
    command: Sequence[str],
) -> Begun:
    """Store what a run is asked to do; the arguments are `zkml_ray.api.prove_distributed`'s.

    Raises:
        ConfigError: An argument or the input is wrong, or the run id is taken.
        ChunkingError: The model cannot be proved.
        StoreError: The store failed.
    """
    options = options or PlanOptions()
    layout = RunLayout(project, new_run_id() if run_id is None else run_id)
    journal = Journal(opened_store(store), layout)
    loaded = take_model(model, inputs)
    taken = options.dimensions_of(loaded)
    graph = normalised_graph(loaded, taken.values)
    try:
        model_input = read_inputs(graph, inputs, seed=seed)
    except InputError as error:
        raise InputError("; ".join([error.message, *taken.notices])) from None
    journal.check_new()
    stored_input = store_form(layout.run_id, model_input.arrays).to_bytes()
    request = RunRequest(
        project=layout.project,
        run_id=layout.run_id,
        created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        model_file=loaded.name,
        model=journal.share(names.MODEL, "models", loaded.data),
        input=journal.keep(names.INPUT, stored_input),
        input_source=model_input.source,
        choices=options.choices(),
        reveal=None if reveal is None else tuple(reveal),
        private_input=private_input,
        allow_leaky_native=allow_leaky_native,
        keep_checkpoints=keep_checkpoints,
        seeded_salts=seeded_salts,
        max_error="default" if max_error is None else checked_max_error(max_error),
        command=tuple(command),
    )
    journal.begin(request)
    _store_again(journal, request, loaded.data, stored_input)
    return Begun(
        journal=journal, request=request, model=loaded, graph=graph, arrays=model_input.arrays
    )


def _store_again(journal: Journal, request: RunRequest, model: bytes, stored_input: bytes) -> None:
    """Store what a garbage collection removed before it could see the request."""
    if journal.store.size(request.model.key) is None:
        journal.share(names.MODEL, "models", model)
    if journal.store.size(request.input.key) is None:
        journal.keep(names.INPUT, stored_input)


def take_up(journal: Journal, max_error: MaxError | None = None) -> Begun:
    """Read what a run was asked to do.

    Args:
        journal: The run's objects.
        max_error: Another tolerance: stored, so that it holds from now on, whoever goes on.

    Raises:
        RunExistsError: The run is complete.
        ConfigError: No such run was begun.
        StoreError: The store failed, or its model or input was changed.
    """
    request = journal.request()
    if max_error is not None:
        request = request.model_copy(update={"max_error": checked_max_error(max_error)})
        journal.begin(request)
    loaded = parse_model(journal.store.read_verified(request.model), request.model_file)
    dimensions = PlanOptions.of(request.choices).dimensions_of(loaded)
    graph = normalised_graph(loaded, dimensions.values)
    stored = StoredInput.parse(journal.store.read_verified(request.input), what="stored input")
    arrays = from_store_form(graph, stored)
    return Begun(journal=journal, request=request, model=loaded, graph=graph, arrays=arrays)


def coordinating(
    begun: Begun,
    salt_seed: bytes | None,
    pool: StartingPool | None,
    workers: int,
    threads: int,
    store_keys: StoreKeys,
    listener: Listener,
) -> Coordinator:
    """A coordinator that takes up a run; the arguments are its own."""
    return Coordinator(
        request=begun.request,
        options=PlanOptions.of(begun.request.choices),
        model=begun.model,
        graph=begun.graph,
        arrays=begun.arrays,
        salt_seed=salt_seed,
        journal=begun.journal,
        pool=pool,
        workers=workers,
        threads=threads,
        upload_keys=store_keys is StoreKeys.ALL,
        list_keys=store_keys is not StoreKeys.NONE,
        listener=listener,
    )


@contextmanager
def worker_pool(
    journal: Journal,
    workers: int,
    threads: int | None,
    address: str | None,
    listener: Listener,
    memory_bytes: int | None = None,
) -> Iterator[StartingPool]:
    """Ray and workers for the duration of a block; they come up in the background.

    Every worker reserves its share of the machine's cores. On a private cluster each may use all of
    them: a chunk that is proved longer than the others then has the cores that those leave. A
    joined cluster's cores are others' too.

    Args:
        journal: The run; its store is the workers'.
        workers: How many.
        threads: Prover threads of each, and CPUs that it reserves; None: as above.
        address: A running Ray cluster; default: RAY_ADDRESS, else a private one.
        listener: Told of what is amiss.
        memory_bytes: Memory that each worker reserves: the budget that chunks were cut for.

    Raises:
        ConfigError: A number is below 1.
    """
    cores = os.cpu_count() or 1
    cpus = checked_threads(workers, threads)
    private = is_private(address)
    if workers * cpus > cores:
        listener(Warned(message=f"{workers} workers of {cpus} threads share {cores} cores"))
    environment = worker_environment(cores if private and threads is None else cpus)

    def start() -> WorkerPool:
        session = ray_session(
            cpus=max(cores, workers * cpus), address=address, environment=environment
        )
        sessions.enter_context(session)
        return WorkerPool(
            workers=workers,
            cpus=cpus,
            store_url=journal.store.url,
            environment=None if private else environment,
            memory_bytes=memory_bytes,
        )

    def started(pool: WorkerPool) -> None:
        listener(WorkersReady(workers=workers, threads=cpus))
        if not pool.reserves_memory:
            listener(Warned(message=f"Ray has less memory than {workers} workers of --memory need"))

    sessions = ExitStack()
    with _termination_as_exit():
        pool = StartingPool(start, started, sessions.close)
        try:
            yield pool
        finally:
            pool.close()
            remove_leftovers()  # workers are ended, and run nothing at their end


@contextmanager
def _termination_as_exit() -> Iterator[None]:
    """Turn SIGTERM into SystemExit, so that Ray is ended too; a caller's own handler stays.

    Ray does so itself where it is started in the main thread.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
