"""What happens during a run, for whoever shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


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
    """

    chunks: tuple[tuple[str, str], ...]
    predicted_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkMoved:
    """A chunk reached a new state.

    Attributes:
        chunk_id: The chunk.
        state: "witnessed", "proving", "proved" or "verified".
        worker: The worker that has it, if any.
        seconds: Duration of what just ended, if known.
    """

    chunk_id: str
    state: str
    worker: str = ""
    seconds: float | None = None


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
        chunk_id: The chunk concerned, if any.
    """

    cause: str
    message: str
    worker: str = ""
    chunk_id: str = ""


Event: TypeAlias = "StageStarted | PlanReady | ChunkMoved | Warned | Faulted"
Listener: TypeAlias = "Callable[[Event], None]"


def ignore(_event: Event) -> None:
    """A listener that shows nothing."""
