"""Many inputs of one model: one plan, one pool of workers, one queue for all their chunks."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from zkml_ray.api import Run, revealed_floats, run_of
from zkml_ray.chunking.given import ModelLike
from zkml_ray.cluster.starting import StartingPool
from zkml_ray.config import checked_threads
from zkml_ray.errors import ConfigError, ExitCode, InputError, InsecureSrsWarning, ZkmlRayError
from zkml_ray.events import INSECURE_SRS_WARNING, Event, Listener, OfRun, RunEnded, ignore
from zkml_ray.report.progress import Shown, showing
from zkml_ray.run.conduct import conduct
from zkml_ray.run.coordinator import Coordinator
from zkml_ray.run.execution import (
    Begun,
    begin,
    coordinating,
    new_run_id,
    read_model,
    worker_pool,
)
from zkml_ray.run.recording import Recorder
from zkml_ray.stages.accuracy import read_files
from zkml_ray.stages.comparison import MaxError
from zkml_ray.stages.inputs import DEFAULT_SEED, Inputs, ModelInput
from zkml_ray.stages.plan import PlanOptions
from zkml_ray.stages.setup import StoreKeys
from zkml_ray.stores import ArtifactStore
from zkml_ray.verification import DEFAULT_PROJECT, opened_store

SUFFIXES = (".json", ".npy", ".npz")
"""Names of files that may hold inputs."""


class BatchError(ZkmlRayError):
    """Some of several runs are not complete; the others are.

    Attributes:
        runs: Those that are complete, by their place among the inputs.
        errors: Why the others are not, by theirs. They can be resumed.
        exit_code: That of the first of those.
    """

    def __init__(
        self,
        message: str,
        *,
        runs: Mapping[int, Run] | None = None,
        errors: Mapping[int, ZkmlRayError] | None = None,
        exit_code: ExitCode = ExitCode.INFRASTRUCTURE,
    ) -> None:
        super().__init__(message)
        self.runs = {} if runs is None else runs
        self.errors = {} if errors is None else errors
        self.exit_code = exit_code


class Prover:
    """Workers that stay between inputs: Ray, processes, circuits and keys are there once.

    with Prover("model.onnx", workers=4) as prover:
        first = prover.prove(x)
        others = prover.prove_many([y, z])
    """

    def __init__(
        self,
        model: ModelLike,
        workers: int = 2,
        *,
        example: Inputs = None,
        store: str | Path | ArtifactStore | None = None,
        project: str = DEFAULT_PROJECT,
        threads: int | None = None,
        store_keys: StoreKeys = StoreKeys.VERIFYING,
        options: PlanOptions | None = None,
        reveal: Sequence[str] | None = None,
        private_input: bool = False,
        allow_leaky_native: bool = False,
        keep_checkpoints: bool = True,
        max_error: MaxError | None = None,
        address: str | None = None,
        command: Sequence[str] = (),
        listener: Listener = ignore,
        progress: Shown = "auto",
    ) -> None:
        """Read a model; a torch module takes its shapes from `example`, an input.

        Other arguments are those of `zkml_ray.prove_distributed`.

        Raises:
            ConfigError: An argument is wrong.
            ChunkingError: The model cannot be proved.
        """
        self._threads_each = checked_threads(workers, threads)
        self._workers = workers
        self._threads = threads
        self._store = opened_store(store)
        self._store_keys = store_keys
        self._address = address
        self._listener = self._asked_listener = listener
        self._progress: Shown = progress
        self._read = read_model(model, example, options or PlanOptions(workers=workers))
        self._asked: dict[str, Any] = {
            "project": project,
            "reveal": reveal,
            "private_input": private_input,
            "allow_leaky_native": allow_leaky_native,
            "seeded_salts": False,
            "keep_checkpoints": keep_checkpoints,
            "max_error": max_error,
            "command": command,
        }
        self._pool: StartingPool | None = None
        self._open = ExitStack()

    def __enter__(self) -> Prover:
        """Begin to start Ray and the workers; they come up in the background."""
        memory_bytes = self._read.options.memory_bytes
        self._listener = self._open.enter_context(showing(self._progress, self._asked_listener))
        self._pool = self._open.enter_context(
            worker_pool(
                self._store.url,
                self._workers,
                self._threads,
                self._address,
                self._listener,
                memory_bytes,
            )
        )
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """End the workers, and Ray where it was started for them."""
        self._pool = None
        self._open.close()

    def prove(
        self, inputs: Inputs = None, *, run_id: str | None = None, seed: int = DEFAULT_SEED
    ) -> Run:
        """Prove one input; arguments, result and errors are `zkml_ray.prove_distributed`'s."""
        found, errors = self._prove([self._read.input(inputs, seed)], [run_id or new_run_id()])
        for error in errors.values():
            raise error
        return found[0]

    def prove_many(
        self, inputs: Sequence[Inputs] | str | Path, *, run_id: str | None = None
    ) -> list[Run]:
        """Prove many inputs, each in a run of its own.

        Their chunks stand in one queue, so that no worker waits for the end of a run.

        Args:
            inputs: Inputs as `prove` takes them; or a folder of files with them, in the order of
                their names; or one file, which may hold several along an additional first axis.
            run_id: What the runs' ids begin with; a number is appended. Default: a new one.

        Returns:
            The runs, in the order of the inputs; all are stored and verified.

        Raises:
            ConfigError: An input is wrong, or a run id is taken: nothing was begun of that run.
            BatchError: Some runs are not complete.
            ZkmlRayError: None of those that are left can be finished; they can be resumed.
        """
        checked = self._checked(inputs)
        prefix = run_id or new_run_id()
        digits = max(3, len(str(len(checked) - 1)))
        run_ids = [f"{prefix}-{index:0{digits}d}" for index in range(len(checked))]
        runs, errors = self._prove(checked, run_ids)
        if errors:
            index, first = next(iter(errors.items()))
            raise BatchError(
                f"{len(errors)} of {len(checked)} runs are not complete; {run_ids[index]}: "
                f"{first.message}",
                runs=runs,
                errors=errors,
                exit_code=first.exit_code,
            )
        return [runs[index] for index in range(len(checked))]

    def _checked(self, inputs: Sequence[Inputs] | str | Path) -> list[ModelInput]:
        """All inputs, read before any run is begun."""
        if isinstance(inputs, str | Path):
            return read_files(self._read.graph, input_files(Path(inputs)))
        found = []
        for index, each in enumerate(inputs):
            try:
                found.append(self._read.input(each, DEFAULT_SEED + index))
            except InputError as error:
                raise InputError(f"input {index} of {len(inputs)}: {error.message}") from None
        if not found:
            raise ConfigError("there is no input to be proved: give at least one")
        return found

    def _prove(
        self, inputs: Sequence[ModelInput], run_ids: Sequence[str]
    ) -> tuple[dict[int, Run], dict[int, ZkmlRayError]]:
        if self._pool is None:
            raise ConfigError("a Prover has workers inside its block alone: with Prover(...) as p")
        begun: dict[str, tuple[Begun, Recorder]] = {}
        alone = len(inputs) == 1

        def coordinators() -> Iterator[Coordinator]:
            for run_id, model_input in zip(run_ids, inputs, strict=True):
                new = begin(
                    self._read, model_input, store=self._store, run_id=run_id, **self._asked
                )
                listener = self._listener if alone else _of(run_id, self._listener)
                told = Recorder(new.journal, listener)
                begun[run_id] = new, told
                yield coordinating(
                    new,
                    None,
                    self._pool,
                    self._workers,
                    self._threads_each,
                    self._store_keys,
                    told,
                )

        runs: dict[int, Run] = {}
        errors: dict[int, ZkmlRayError] = {}
        try:
            for run_id, outcome in conduct(coordinators(), self._pool, self._workers):
                index = run_ids.index(run_id)
                run, told = begun.pop(run_id)
                if isinstance(outcome, ZkmlRayError):
                    errors[index] = outcome
                    told.end(outcome)
                else:
                    told(revealed_floats(outcome))
                    told.end()
                    runs[index] = run_of(run, outcome)
                if not alone:
                    said = str(outcome) if isinstance(outcome, ZkmlRayError) else ""
                    self._listener(RunEnded(run_id=run_id, error=said))
        except BaseException as error:
            for _, told in begun.values():
                told.end(error)
            raise
        if any(run.manifest.srs_trust == "insecure" for run in runs.values()):
            warnings.warn(INSECURE_SRS_WARNING, InsecureSrsWarning, stacklevel=3)
        return runs, dict(sorted(errors.items()))


def prove_many(
    model: ModelLike,
    inputs: Sequence[Inputs] | str | Path,
    workers: int = 2,
    *,
    run_id: str | None = None,
    store: str | Path | ArtifactStore | None = None,
    project: str = DEFAULT_PROJECT,
    threads: int | None = None,
    store_keys: StoreKeys = StoreKeys.VERIFYING,
    options: PlanOptions | None = None,
    reveal: Sequence[str] | None = None,
    private_input: bool = False,
    allow_leaky_native: bool = False,
    keep_checkpoints: bool = True,
    max_error: MaxError | None = None,
    address: str | None = None,
    command: Sequence[str] = (),
    listener: Listener = ignore,
    progress: Shown = "auto",
) -> list[Run]:
    """Prove many inputs of a model on Ray workers, each in a run of its own.

    `inputs`, `run_id` and what is returned and raised are those of `Prover.prove_many`, the other
    arguments those of `prove_distributed`.
    """
    example = None if isinstance(inputs, str | Path) or len(inputs) == 0 else inputs[0]
    with Prover(
        model,
        workers,
        example=example,
        store=store,
        project=project,
        threads=threads,
        store_keys=store_keys,
        options=options,
        reveal=reveal,
        private_input=private_input,
        allow_leaky_native=allow_leaky_native,
        keep_checkpoints=keep_checkpoints,
        max_error=max_error,
        address=address,
        command=command,
        listener=listener,
        progress=progress,
    ) as prover:
        return prover.prove_many(inputs, run_id=run_id)


def input_files(path: Path) -> list[Path]:
    """Files that hold inputs: those of a folder, in the order of their names, or the one named.

    Raises:
        InputError: There is none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"no such file or folder of inputs: {path}")
    found = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    if not found:
        raise InputError(f"{path} holds no input; they are files named {', '.join(SUFFIXES)}")
    return found


def _of(run_id: str, listener: Listener) -> Listener:
    def tell(event: Event) -> None:
        if not isinstance(event, OfRun | RunEnded):
            listener(OfRun(run_id=run_id, event=event))

    return tell
