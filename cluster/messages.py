"""What a scheduler is told, and what it tells: frozen values, all of them.

Events are facts about Ray, workers and answers; instructions are what the pool is to do. Nothing in
them needs Ray, so a log of events can be kept, read and replayed anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias


class Cause(str, Enum):
    """Why an attempt or a worker ended without a proof that is accepted.

    Attributes:
        MACHINE: The machine was lost. Says nothing about the chunk.
        STOPPED: The worker's process was stopped, or could no longer be seen. Nor does this.
        STORE: The store did not answer. Nor does this; whoever met it waits.
        MEMORY: The worker was ended for lack of memory.
        PROCESS: The worker's process died, on a machine that lives.
        TIME: The attempt took longer than it may.
        ERROR: Proving failed in a way that another attempt may mend.
        PROOF: The answer was refused: a wrong proof, or none of this chunk.
        KEYS: The same, with keys that came from the store: they are suspected first.
        START: The worker did not come up.
        FINAL: Proving failed in a way that no other attempt mends: it stops the chunk's job.
        CONFIGURATION: What was set up is wrong: it stops everything.
        CAPACITY: There is no room for a worker.
    """

    MACHINE = "machine lost"
    STOPPED = "worker stopped"
    STORE = "store"
    MEMORY = "memory"
    PROCESS = "worker died"
    TIME = "time"
    ERROR = "failed proof"
    PROOF = "wrong proof"
    KEYS = "stored keys"
    START = "start"
    FINAL = "circuit or input"
    CONFIGURATION = "configuration"
    CAPACITY = "capacity"


@dataclass(frozen=True, slots=True, order=True)
class ChunkKey:
    """A chunk of a job: one input's run. Jobs of one model have chunks of the same names."""

    job: str
    chunk: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One hand-out of a chunk: the token that an answer must carry to count.

    Attributes:
        key: The chunk.
        number: Which hand-out of this chunk it is, from 1.
        worker: Who has it.
    """

    key: ChunkKey
    number: int
    worker: str


# --- events ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeUp:
    """A node joined, or has another capacity than it had.

    Attributes:
        node: Its id.
        name: Its host's name or address, for people.
        cpus: CPUs that this pool may reserve there: all of them but those that others hold.
        memory_bytes: Memory that it may reserve there.
    """

    node: str
    name: str
    cpus: int
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDown:
    """A node was lost or left, and its workers with it."""

    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """All nodes that are there have been told: workers may be started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerUp:
    """A worker answered for the first time: from now on it gets work."""

    worker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerDown:
    """A worker is gone, or could not come up."""

    worker: str
    cause: Cause
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSeen:
    """A worker's process was seen to run again, or to be stopped (or was not seen at all)."""

    worker: str
    running: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkReady:
    """A chunk can be proved, or set up.

    Attributes:
        key: The chunk.
        circuit: What its keys belong to: nodes that have these keys are preferred.
        predicted_s: Expected seconds with keys at hand.
        setup_s: Expected seconds of making its keys.
        limit_s: Longest time of an attempt.
        stored_keys: Whether a worker may use keys that come from the store.
    """

    key: ChunkKey
    circuit: str = ""
    predicted_s: float = 0.0
    setup_s: float = 0.0
    limit_s: float = float("inf")
    stored_keys: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A worker answered for an attempt; whether rightly is not known yet."""

    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A worker reported that an attempt failed, and lives."""

    attempt: Attempt
    cause: Cause
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """An answer was checked and is right."""

    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """An answer was checked and is wrong."""

    attempt: Attempt
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """Nobody wants a job's proofs any more."""

    job: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time has passed."""


Event: TypeAlias = (
    "NodeUp | NodeDown | Begin | WorkerUp | WorkerDown | WorkerSeen | ChunkReady | Answered | "
    "Failed | Accepted | Refused | Withdrawn | Tick"
)


# --- instructions ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StartWorker:
    """Start a worker on a node; `WorkerUp` or `WorkerDown` will say what became of it.

    Attributes:
        worker: Its name, never used before.
        node: The node.
        cpus: CPUs that it reserves.
        memory_bytes: Memory that it reserves; None: none.
    """

    worker: str
    node: str
    cpus: int
    memory_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndWorker:
    """End a worker, whatever it does. No event about it is expected any more."""

    worker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HandOut:
    """Give an attempt to its worker.

    Attributes:
        attempt: The attempt.
        own_keys: Whether keys from the store are not to be used: they may be why it failed.
    """

    attempt: Attempt
    own_keys: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliver:
    """Check the answer of this attempt; `Accepted` or `Refused` is expected."""

    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Something that a reader of the run should know.

    Attributes:
        cause: Why.
        text: What, for people.
        worker: The worker concerned, if any.
        attempt: The attempt that failed and is followed by another, if one is.
    """

    cause: Cause
    text: str
    worker: str = ""
    attempt: Attempt | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """A job cannot be finished; it is withdrawn.

    Attributes:
        cause: Why.
        text: What happened, and what to do, for people.
        key: The chunk that stands in the way, if one does.
        job: The job; None: nothing can be finished any more.
        causes: Causes of all its failures, the last one last.
    """

    cause: Cause
    text: str
    key: ChunkKey | None = None
    job: str | None = None
    causes: tuple[Cause, ...] = ()


Instruction: TypeAlias = "StartWorker | EndWorker | HandOut | Deliver | Report | Stop"
