"""Keeps what happened during a run, for its report.

One log a process, in the run's `reports/`. It is written when the process leaves the run, however
it does, and now and then before, so that something is left of one that is killed. A log that cannot
be written stops no run.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from typing import Final, Literal

from zkml_ray import names
from zkml_ray.cluster.messages import Cause
from zkml_ray.errors import FieldRangeError, InputError, RangeExceededError, StoreError
from zkml_ray.events import (
    ChunkMoved,
    Event,
    Faulted,
    FloatOutputs,
    Listener,
    StageStarted,
    Warned,
    WorkersReady,
)
from zkml_ray.run.journal import Journal
from zkml_ray.schema.eventlog import EventLog, FloatOutput, LoggedEvent

WRITTEN_EVERY_S: Final = 30.0
MAX_FLOATS: Final = 10_000
"""Values of an output that are kept for comparison."""
_MAX_TEXT: Final = 2_000
_Outcome = Literal["under way", "done", "failed", "interrupted"]


class Recorder:
    """A listener that keeps what it hears and passes it on."""

    def __init__(self, journal: Journal, listener: Listener) -> None:
        self._journal = journal
        self._listener = listener
        self._started_s = time.time()
        self._written_s = self._started_s
        started = datetime.fromtimestamp(self._started_s, timezone.utc)
        self._name = names.events(f"{started:%Y%m%d-%H%M%S-%f}-{secrets.token_hex(2)}")
        self._events: list[LoggedEvent] = []
        self._floats: tuple[FloatOutput, ...] = ()

    def __call__(self, event: Event) -> None:
        """Keep an event and pass it on."""
        if isinstance(event, FloatOutputs):
            self._floats = tuple(
                FloatOutput(
                    output=name,
                    values=tuple(value if math.isfinite(value) else None for value in values),
                )
                for name, values in event.values.items()
                if len(values) <= MAX_FLOATS
            )
        logged = _logged(event)
        if logged is not None:
            self._events.append(logged)
        if time.time() - self._written_s > WRITTEN_EVERY_S:
            self.write("under way")
        self._listener(event)

    def write(self, outcome: _Outcome, failure: str = "") -> None:
        """Store the log as it is now."""
        self._written_s = time.time()
        log = EventLog(
            run_id=self._journal.layout.run_id,
            started_s=self._started_s,
            ended_s=None if outcome == "under way" else self._written_s,
            outcome=outcome,
            failure=failure[:_MAX_TEXT],
            events=tuple(self._events),
            float_outputs=self._floats,
        )
        key = self._journal.layout.run_key(self._name)
        with suppress(StoreError, OSError):
            self._journal.store.put(key, log.to_bytes())

    def end(self, error: BaseException | None = None) -> None:
        """Store the log of a run that is over, or that ended with an error."""
        if error is None:
            self.write("done")
        elif isinstance(error, Exception):
            self.write("failed", _failure(error))
        else:
            self.write("interrupted")


@contextmanager
def recorded(journal: Journal, listener: Listener) -> Iterator[Recorder]:
    """Keep what happens in a block, and how the block ends."""
    recorder = Recorder(journal, listener)
    try:
        yield recorder
    except BaseException as error:
        recorder.end(error)
        raise
    recorder.end()


def _failure(error: Exception) -> str:
    if isinstance(error, InputError | RangeExceededError | FieldRangeError):
        # Their messages may hold a value that is not to be shown.
        where = getattr(error, "chunk_id", None)
        at = f" of {where}" if where else ""
        return (
            f"a value{at} is outside the range that the circuits can express: normalise the "
            "input, or plan with more --range-bits"
        )
    return " ".join(str(error).split()) or type(error).__name__


def _logged(event: Event) -> LoggedEvent | None:
    now = time.time()
    if isinstance(event, StageStarted):
        return LoggedEvent(at_s=now, kind="stage", stage=event.stage, text=event.detail)
    if isinstance(event, ChunkMoved):
        return LoggedEvent(
            at_s=now,
            kind="chunk",
            chunk=event.chunk_id,
            state=event.state,
            worker=event.worker or None,
            attempt=event.attempt,
            seconds=event.seconds,
        )
    if isinstance(event, Faulted):
        # What is said of the input may hold a value that is not to be shown.
        said = "" if event.cause == Cause.FINAL.value else f": {event.message}"
        text = f"{event.cause}{said}"[:_MAX_TEXT]
        if not event.chunk_id:
            return LoggedEvent(at_s=now, kind="warned", text=text)
        return LoggedEvent(
            at_s=now,
            kind="failed",
            chunk=event.chunk_id,
            worker=event.worker,
            attempt=event.attempt,
            text=text,
        )
    if isinstance(event, WorkersReady):
        return LoggedEvent(at_s=now, kind="workers", workers=event.workers)
    if isinstance(event, Warned):
        text = event.message[:_MAX_TEXT]
        return LoggedEvent(at_s=now, kind="warned", text=text, severe=event.severe)
    return None
