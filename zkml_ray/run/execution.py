"""Beginning a run, taking one up again, giving it workers: what the API's functions share."""

from __future__ import annotations

import secrets
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
from zkml_ray.interrupts import as_exceptions
from zkml_ray.machine import cores, memory
from zkml_ray.run.coordinator import Coordinator
from zkml_ray.run.journal import Journal
from zkml_ray.schema.request import RunRequest, StoredInput
from zkml_ray.scratch import remove_leftovers
from zkml_ray.stages.comparison import MaxError, checked_max_error
from zkml_ray.stages.inputs import (
    Arrays,
    Inputs,
    ModelInput,
    from_store_form,
    read_inputs,
    store_form,
)
from zkml_ray.stages.plan import PlanOptions
from zkml_ray.stages.setup import StoreKeys
from zkml_ray.stores import ArtifactStore
from zkml_ray.stores.layout import RunLayout
from zkml_ray.verification import opened_store


def new_run_id() -> str:
    """A run id that sorts by time and does not repeat."""
    return f"run-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadModel:
    """A model as it was read, for any number of runs.

    Attributes:
        model: The file.
        graph: Its normalised form.
        options: The choices that it was read with.
        notices: What was taken for granted.
    """

    model: LoadedModel
    graph: ModelGraph
    options: PlanOptions
    notices: tuple[str, ...]

    def input(self, inputs: Inputs, seed: int) -> ModelInput:
        """Read and check an input of it.

        Raises:
            InputError: It is none.
        """
        try:
            return read_inputs(self.graph, inputs, seed=seed)
        except InputError as error:
            raise InputError("; ".join([error.message, *self.notices])) from None


def read_model(model: ModelLike, inputs: Inputs, options: PlanOptions | None) -> ReadModel:
    """Read a model.

    Args:
        model: As `zkml_ray.prove_distributed` takes it.
        inputs: An input, for models that are traced with one.
        options: Choices about the plan.

    Raises:
        ChunkingError: It cannot be proved.
    """
    options = options or PlanOptions()
    loaded = options.taken_by(take_model(model, inputs))
    taken = options.dimensions_of(loaded)
    return ReadModel(
        model=loaded,
        graph=normalised_graph(loaded, taken.values),
        options=options,
        notices=tuple(taken.notices),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A run whose request is stored, with what was read from it."""

    journal: Journal
    request: RunRequest
    model: LoadedModel
    graph: ModelGraph
    arrays: Arrays


def begin(
    read: ReadModel,
    model_input: ModelInput,
    *,
    store: str | Path | ArtifactStore | None,
    project: str,
    run_id: str | None,
    reveal: Sequence[str] | None,
    private_input: bool,
    allow_leaky_native: bool,
    seeded_salts: bool,
    keep_checkpoints: bool,
    max_error: MaxError | None,
    command: Sequence[str],
) -> Begun:
    """Store what a run is asked to do; other arguments are `zkml_ray.api.prove_distributed`'s.

    The model and its input have been read.

    Raises:
        ConfigError: An argument is wrong, or the run id is taken.
        StoreError: The store failed.
    """
    layout = RunLayout(project, new_run_id() if run_id is None else run_id)
    journal = Journal(opened_store(store), layout)
    loaded = read.model
    journal.check_new()
    asked = {name: model_input.arrays[name] for name in read.graph.asked}
    stored_input = store_form(layout.run_id, asked).to_bytes()
    request = RunRequest(
        project=layout.project,
        run_id=layout.run_id,
        created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        model_file=loaded.name,
        model=journal.share(names.MODEL, "models", loaded.data),
        input=journal.keep(names.INPUT, stored_input),
        input_source=model_input.source,
        choices=read.options.choices(),
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
        journal=journal, request=request, model=loaded, graph=read.graph, arrays=model_input.arrays
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
    options = PlanOptions.of(request.choices)
    loaded = options.taken_by(loaded)
    dimensions = options.dimensions_of(loaded)
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
    store_url: str,
    workers: int,
    threads: int | None,
    address: str | None,
    listener: Listener,
    memory_bytes: int | None = None,
) -> Iterator[StartingPool]:
    """Ray and workers for the duration of a block; they come up in the background.

    Every worker reserves its share of its machine's cores. On a private cluster each may use all of
    them: a chunk that is proved longer than the others then has the cores that those leave. A
    joined cluster's cores are others' too.

    Args:
        store_url: The workers' store.
        workers: How many.
        threads: Prover threads of each, and CPUs that it reserves; None: as above.
        address: A running Ray cluster; default: RAY_ADDRESS, else a private one.
        listener: Told of what is amiss.
        memory_bytes: Memory that each worker reserves: the budget that chunks were cut for.

    Raises:
        ConfigError: A number is below 1.
    """
    share, there = checked_threads(workers, threads), cores()
    private = is_private(address)
    if private:
        _warn_of_sharing(workers, share, there, memory_bytes, listener)
    environment = worker_environment(there if threads is None else share) if private else None

    def start() -> WorkerPool:
        session = ray_session(
            cpus=max(there, workers * share), address=address, environment=environment
        )
        sessions.enter_context(session)
        return WorkerPool(
            workers=workers,
            cpus=share if private else threads,
            store_url=store_url,
            environment=None if private else worker_environment,
            memory_bytes=None if private else memory_bytes,
        )

    sessions = ExitStack()
    with as_exceptions():
        pool = StartingPool(
            start,
            lambda: listener(WorkersReady(workers=workers, threads=share)),
            sessions.close,
        )
        try:
            yield pool
        finally:
            pool.close()
            remove_leftovers()  # workers are ended, and run nothing at their end


def _warn_of_sharing(
    workers: int, threads: int, cores_: int, memory_bytes: int | None, listener: Listener
) -> None:
    """Say where workers on this machine want more than it has."""
    if workers * threads > cores_:
        listener(Warned(message=f"{workers} workers of {threads} threads share {cores_} cores"))
    there = memory()
    if memory_bytes is not None and there is not None and workers * memory_bytes > there:
        mib = workers * memory_bytes >> 20
        listener(
            Warned(
                message=f"{workers} workers of --memory may need {mib} MiB together; this machine "
                f"has {there >> 20} MiB: use fewer workers or a smaller --memory"
            )
        )
