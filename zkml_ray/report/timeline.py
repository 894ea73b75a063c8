"""When what was done by whom: lanes of spans, from a run's records and its event logs.

All of it is the prover's word. Times are seconds since the Unix epoch of the machines that took
them; workers on other machines have clocks of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from zkml_ray.report.facts import RunFacts
from zkml_ray.schema.eventlog import EventLog

COORDINATOR: Final = "coordinator"
CHECKS: Final = "checks"
RAY: Final = "Ray"
LONGEST_PAUSE_S: Final = 60.0
"""Pauses in which nothing ran are shown no longer than this: a run may be resumed days later."""

COORDINATOR_STAGES: Final = ("plan", "setup", "witness", "compare", "link", "verify", "store")
"""Stages of the coordinator that are spans of their own; "prove" holds others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A span of one lane.

    Attributes:
        lane: Who: a worker, the coordinator, its checks of proofs, or Ray.
        kind: What.
        started_s: When it began.
        ended_s: When it ended.
        chunk: The chunk it was about, or nothing.
        note: What to say about it.
        node: The machine, for workers.
    """

    lane: str
    kind: str
    started_s: float
    ended_s: float
    chunk: str = ""
    note: str = ""
    node: str = ""

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.ended_s - self.started_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An attempt that came to nothing."""

    at_s: float
    worker: str
    chunk: str
    attempt: int
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """All spans and failures, and the pauses that were cut out of the picture.

    Attributes:
        work: In order of their beginning.
        failures: In order of time.
        pauses: (beginning, seconds) of every pause longer than `LONGEST_PAUSE_S`.
    """

    work: tuple[Work, ...]
    failures: tuple[Failure, ...]
    pauses: tuple[tuple[float, float], ...]

    @property
    def started_s(self) -> float:
        """The first beginning."""
        return min((span.started_s for span in self.work), default=0.0)

    def lanes(self) -> list[str]:
        """Lanes that have a span or a failure: the coordinator's first, then workers."""
        named = {span.lane for span in self.work} | {failure.worker for failure in self.failures}
        first = [lane for lane in (COORDINATOR, RAY, CHECKS) if lane in named]
        return [*first, *sorted(named - set(first), key=_natural)]

    def shown_s(self, at_s: float) -> float:
        """A time as seconds from the start, with long pauses cut to `LONGEST_PAUSE_S`."""
        cut = sum(
            min(max(at_s - began, 0.0), length) - min(max(at_s - began, 0.0), LONGEST_PAUSE_S)
            for began, length in self.pauses
        )
        return at_s - self.started_s - cut

    def idle_s(self) -> dict[str, tuple[float, float, float]]:
        """Per worker: seconds idle before its first chunk, between chunks, after its last.

        Counted from the time that workers were ready to the last proof of any.
        """
        workers = [lane for lane in self.lanes() if lane not in (COORDINATOR, CHECKS, RAY)]
        mine = {
            lane: sorted(
                (span for span in self.work if span.lane == lane), key=lambda s: s.started_s
            )
            for lane in workers
        }
        ready = [span.ended_s for span in self.work if span.lane == RAY]
        spans = [span for all_ in mine.values() for span in all_]
        if not spans:
            return {}
        begin = min(ready) if ready else min(span.started_s for span in spans)
        end = max(span.ended_s for span in spans)
        found = {}
        for lane, own in mine.items():
            if not own:
                found[lane] = (self._idle(begin, end), 0.0, 0.0)
                continue
            between, until = 0.0, own[0].ended_s
            for span in own[1:]:
                between += self._idle(until, span.started_s)
                until = max(until, span.ended_s)
            found[lane] = (self._idle(begin, own[0].started_s), between, self._idle(until, end))
        return found

    def _idle(self, since_s: float, until_s: float) -> float:
        return max(0.0, self.shown_s(until_s) - self.shown_s(since_s))


def timeline(facts: RunFacts) -> Timeline:
    """The spans and failures of a run."""
    work = [
        *_records(facts),
        *_checks(facts),
        *_stages(facts),
        *(span for log in facts.logs for span in _ray(log)),
    ]
    work = sorted((span for span in work if span.seconds >= 0), key=lambda span: span.started_s)
    failures = [
        Failure(
            at_s=event.at_s,
            worker=event.worker or "worker",
            chunk=event.chunk or "",
            attempt=event.attempt or 0,
            cause=event.text or "",
        )
        for log in facts.logs
        for event in log.events
        if event.kind == "failed"
    ]
    return Timeline(
        work=tuple(work),
        failures=tuple(sorted(failures, key=lambda failure: failure.at_s)),
        pauses=_pauses(work),
    )


def _records(facts: RunFacts) -> Iterable[Work]:
    for record in facts.records:
        made = Work(
            lane=record.worker,
            kind="keys",
            started_s=record.setup.started_s,
            ended_s=record.setup.ended_s,
            chunk=record.chunk,
            note="keys made" if record.keys_made else "keys found",
            node=record.node,
        )
        yield made
        for kind, span in (("witness", record.witness), ("prove", record.prove)):
            yield replace(made, kind=kind, started_s=span.started_s, ended_s=span.ended_s, note="")


def _checks(facts: RunFacts) -> Iterable[Work]:
    """The coordinator's check of every proof; when it ended is in the logs."""
    took = {record.chunk: record.verify_s for record in facts.records}
    for log in facts.logs:
        for event in log.events:
            if event.kind == "chunk" and event.state == "verified" and event.chunk in took:
                yield Work(
                    lane=CHECKS,
                    kind="verify",
                    started_s=event.at_s - took[event.chunk],
                    ended_s=event.at_s,
                    chunk=event.chunk,
                )


def _stages(facts: RunFacts) -> Iterable[Work]:
    if facts.manifest is not None:
        for stage in facts.manifest.stages:
            if stage.stage in COORDINATOR_STAGES:
                yield Work(
                    lane=COORDINATOR,
                    kind=stage.stage,
                    started_s=stage.span.started_s,
                    ended_s=stage.span.ended_s,
                )
        return
    for log in facts.logs:
        begun = [event for event in log.events if event.kind == "stage"]
        ends = [event.at_s for event in begun[1:]] + [_end(log)]
        for event, ended_s in zip(begun, ends, strict=False):
            if event.stage in COORDINATOR_STAGES:
                yield Work(
                    lane=COORDINATOR, kind=event.stage, started_s=event.at_s, ended_s=ended_s
                )


def _ray(log: EventLog) -> Iterable[Work]:
    for event in log.events:
        if event.kind == "workers":
            yield Work(
                lane=RAY,
                kind="start",
                started_s=log.started_s,
                ended_s=event.at_s,
                note=f"{event.workers} workers",
            )


def _end(log: EventLog) -> float:
    last = log.events[-1].at_s if log.events else log.started_s
    return log.ended_s if log.ended_s is not None else last


def _pauses(work: Sequence[Work]) -> tuple[tuple[float, float], ...]:
    found = []
    until: float | None = None
    for span in sorted(work, key=lambda span: span.started_s):
        if until is not None and span.started_s - until > LONGEST_PAUSE_S:
            found.append((until, span.started_s - until))
        until = span.ended_s if until is None else max(until, span.ended_s)
    return tuple(found)


def _natural(lane: str) -> tuple[str, int, str]:
    """Workers by number: worker-2 before worker-10."""
    stem, _, number = lane.rpartition("-")
    return (
        (stem, int(number), lane) if number.isdecimal() and len(number) < 10 else (lane, -1, lane)
    )


def trace_events(facts: RunFacts) -> Mapping[str, object]:
    """The timeline in Chrome's trace format, which Perfetto opens.

    A process is a machine, a thread a lane; times are microseconds since the first span.
    """
    line = timeline(facts)
    nodes = {span.lane: span.node for span in line.work if span.node}
    machines = ["coordinator", *sorted(set(nodes.values()))]
    lanes = line.lanes()
    events: list[dict[str, object]] = [
        {"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": machine}}
        for pid, machine in enumerate(machines, 1)
    ]
    places = {}
    for tid, lane in enumerate(lanes, 1):
        pid = 1 + machines.index(nodes[lane]) if lane in nodes else 1
        places[lane] = (pid, tid)
        events.append(
            {"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": lane}}
        )
    for span in line.work:
        pid, tid = places[span.lane]
        events.append(
            {
                "ph": "X",
                "name": f"{span.kind} {span.chunk}".strip(),
                "cat": span.kind,
                "pid": pid,
                "tid": tid,
                "ts": round(1e6 * (span.started_s - line.started_s)),
                "dur": round(1e6 * span.seconds),
                "args": {"chunk": span.chunk, "note": span.note},
            }
        )
    for failure in line.failures:
        pid, tid = places[failure.worker]
        events.append(
            {
                "ph": "i",
                "s": "t",
                "name": f"attempt {failure.attempt} of {failure.chunk} failed",
                "cat": "failed",
                "pid": pid,
                "tid": tid,
                "ts": round(1e6 * (failure.at_s - line.started_s)),
                "args": {"cause": failure.cause},
            }
        )
    return {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {"run": facts.run_id, "project": facts.project},
    }
