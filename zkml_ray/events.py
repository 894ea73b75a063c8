"""What happens during a run, for whoever shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

INSECURE_SRS_WARNING: Final = (
    "the SRS was generated on a single machine: whoever kept its secret can forge proofs"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStarted:
    """A stage of the whole run began.

    Attributes:
        stage: Its verb.
        detail: What it works on, for people.
    """

    stage: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReady:
    """The plan stands.

    Attributes:
        chunks: Per chunk, its id and its operators.
        predicted_s: Predicted seconds of proving (one worker, keys cached), from the cost model.
        prices_s: Per chunk, predicted seconds of a worker, with making its keys; empty: not known.
    """

    chunks: tuple[tuple[str, str], ...]
    predicted_s: float
    prices_s: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkMoved:
    """A chunk reached a new state.

    Attributes:
        chunk_id: The chunk.
        state: "witnessed", "proving", "proved" or "verified".
        worker: The worker that has it, if any.
        seconds: Duration of what just ended, if known.
        attempt: Which attempt began, from 1; None where none did.
    """

    chunk_id: str
    state: str
    worker: str = ""
    seconds: float | None = None
    attempt: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersReady:
    """Ray is up and has been asked for its workers.

    Attributes:
        workers: How many.
        threads: Prover threads of each.
    """

    workers: int
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatOutputs:
    """The float model's values of outputs that the run reveals, for comparison; not proved.

    Attributes:
        values: Per output, its values, flat and row-major.
    """

    values: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """Something that a reader of the result should know.

    Attributes:
        message: What.
        severe: Whether the result is not to be relied on without it.
    """

    message: str
    severe: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Faulted:
    """Something failed that the run goes on from.

    Attributes:
        cause: Why, one of `zkml_ray.cluster.messages.Cause`.
        message: What, for people.
        worker: The worker concerned, if any.
        chunk_id: The chunk that is tried again for it, if one is.
        attempt: Which attempt at it failed, from 1.
    """

    cause: str
    message: str
    worker: str = ""
    chunk_id: str = ""
    attempt: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Working:
    """What a stage is about, where that may take long.

    Attributes:
        what: For people.
        done: How many of its pieces are done.
        total: How many there are; 0 where nobody counts.
    """

    what: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OfRun:
    """An event of one of several runs that go on at once.

    Attributes:
        run_id: The run.
        event: What happened.
    """

    run_id: str
    event: (
        StageStarted
        | PlanReady
        | ChunkMoved
        | Faulted
        | WorkersReady
        | FloatOutputs
        | Warned
        | Working
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded:
    """One of several runs is over.

    Attributes:
        run_id: The run.
        error: Why it is not complete; empty if it is.
    """

    run_id: str
    error: str = ""


Event: TypeAlias = (
    "StageStarted | PlanReady | ChunkMoved | Faulted | WorkersReady | FloatOutputs | Warned | "
    "Working | OfRun | RunEnded"
)
Listener: TypeAlias = "Callable[[Event], None]"


def ignore(_event: Event) -> None:
    """A listener that shows nothing."""
