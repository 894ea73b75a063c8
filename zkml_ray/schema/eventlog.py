"""What happened in one process that worked on a run, kept for people.

No verifier reads it, and no digest covers it: it is the prover's word. It holds no value that the
run does not reveal. A run that was resumed has one log for each process.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from zkml_ray.schema.document import ChunkId, Document, Integer, Name, Text
from zkml_ray.schema.manifest import RunName, Seconds


class LoggedEvent(Document):
    """One event (`zkml_ray.events`) and its time.

    Attributes:
        at_s: When, in seconds since the Unix epoch.
        kind: What: a stage began, a chunk reached a state, an attempt failed, workers were ready,
            something was warned of.
        stage: The stage that began.
        chunk: The chunk concerned.
        state: The state it reached.
        worker: The worker concerned.
        attempt: Which attempt at the chunk, from 1.
        seconds: Duration of what just ended.
        workers: How many workers were ready.
        text: The stage's detail, the cause of the failure, or the warning.
        severe: Whether a warning is one to heed.
    """

    at_s: Seconds
    kind: Literal["stage", "chunk", "failed", "workers", "warned"]
    stage: Text | None = None
    chunk: ChunkId | None = None
    state: Text | None = None
    worker: Text | None = None
    attempt: Integer | None = None
    seconds: Seconds | None = None
    workers: Integer | None = None
    text: Text | None = None
    severe: bool | None = None


class FloatOutput(Document):
    """The float model's values of a revealed output.

    Attributes:
        output: Its name.
        values: Flat, row-major; None where a value is not finite.
    """

    output: Name
    values: tuple[Annotated[float, Field(allow_inf_nan=False)] | None, ...]


class EventLog(Document):
    """What happened in one process that worked on a run.

    Attributes:
        format: Version of this schema.
        run_id: The run.
        started_s: When the process took it up, in seconds since the Unix epoch.
        ended_s: When it left it; None: it was still at it when this was written, or was killed.
        outcome: How it ended.
        failure: What failed, in words; empty where nothing did.
        events: In order of time.
        float_outputs: The float model's values of revealed outputs.
    """

    format: Literal["zkml_ray/events/1"] = "zkml_ray/events/1"
    run_id: RunName
    started_s: Seconds
    ended_s: Seconds | None
    outcome: Literal["under way", "done", "failed", "interrupted"]
    failure: Text
    events: Annotated[tuple[LoggedEvent, ...], Field(max_length=1_000_000)]
    float_outputs: tuple[FloatOutput, ...]
