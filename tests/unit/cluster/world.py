"""A cluster in memory, on a virtual clock: it does what a scheduler instructs, as it is told to.

Nothing of the scheduler is replaced. What workers and machines do is decided by a `Nature`: how
long an attempt takes and how it ends.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from zkml_ray.cluster.messages import (
    Accepted,
    Answered,
    Attempt,
    Begin,
    Cause,
    ChunkKey,
    ChunkReady,
    Deliver,
    EndWorker,
    Event,
    Failed,
    HandOut,
    Instruction,
    NodeDown,
    NodeUp,
    Refused,
    Report,
    StartWorker,
    Stop,
    Tick,
    WorkerDown,
    WorkerUp,
)
from zkml_ray.cluster.policy import Need, Policy
from zkml_ray.cluster.scheduler import Scheduler

GIB = 1 << 30


@dataclass(frozen=True)
class End:
    """How an attempt ends: after some seconds, with a proof or by a cause."""

    after_s: float = 1.0
    cause: Cause | None = None


Nature = Callable[[Attempt, str], End]
"""Of an attempt and its node: how it ends."""


def well(attempt: Attempt, node: str) -> End:
    return End()


def node_up(node: str, cpus: int = 4, memory_bytes: int = 64 * GIB) -> NodeUp:
    return NodeUp(node=node, name=node, cpus=cpus, memory_bytes=memory_bytes)


@dataclass
class World:
    """Nodes, workers and answers on a virtual clock."""

    need: Need
    nature: Nature = well
    policy: Policy = field(default_factory=Policy)
    start_s: float = 1.0
    no_start: dict[str, Cause] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(self.need, self.policy)
        self.now_s = 0.0
        self.heard: list[tuple[float, Instruction]] = []
        self.homes: dict[str, str] = {}
        self.alive: set[str] = set()
        self._order = itertools.count()
        self._due: list[tuple[float, int, Event]] = []

    def at(self, time_s: float, event: Event) -> None:
        heapq.heappush(self._due, (time_s, next(self._order), event))

    def tell(self, event: Event) -> None:
        for instruction in self.scheduler.handle(event, self.now_s):
            self.heard.append((self.now_s, instruction))
            self._do(instruction)
        self.scheduler.validate()

    def begin(self, *nodes: NodeUp) -> None:
        for node in nodes:
            self.tell(node)
        self.tell(Begin())

    def submit(self, job: str, count: int, **fields: float) -> None:
        for index in range(count):
            key = ChunkKey(job, f"chunk-{index:03d}")
            self.tell(ChunkReady(key=key, circuit=key.chunk, **fields))

    def run(self, until_s: float = 1e6, *, to_the_end: bool = False) -> None:
        """Let time pass until nothing is left to be done, or even nothing is left to happen."""
        while self.scheduler.busy or (to_the_end and self._due):
            wakes_at = self.scheduler.wakes_at()
            due_at = self._due[0][0] if self._due else float("inf")
            if min(wakes_at, due_at) > until_s:
                raise AssertionError(f"nothing happens after {self.now_s} s")
            if due_at <= wakes_at:
                self.now_s, _, event = heapq.heappop(self._due)
                if self._happens(event):
                    self.tell(event)
            else:
                self.now_s = wakes_at
                self.tell(Tick())

    def _happens(self, event: Event) -> bool:
        """Whether what was going to happen still does: a dead worker says nothing."""
        if isinstance(event, NodeDown):
            self.alive -= {name for name, node in self.homes.items() if node == event.node}
        elif isinstance(event, WorkerDown):
            if event.worker not in self.alive:
                return False
            self.alive.discard(event.worker)
        elif isinstance(event, WorkerUp):
            return event.worker in self.alive
        elif isinstance(event, (Answered, Failed)):
            return event.attempt.worker in self.alive
        return True

    def _do(self, instruction: Instruction) -> None:
        if isinstance(instruction, StartWorker):
            worker, node = instruction.worker, instruction.node
            self.homes[worker] = node
            self.alive.add(worker)
            cause = self.no_start.get(node)
            up: Event = WorkerUp(worker=worker)
            if cause is not None:
                up = WorkerDown(worker=worker, cause=cause, text=f"{cause.value} on {node}")
            self.at(self.now_s + self.start_s, up)
        elif isinstance(instruction, EndWorker):
            self.alive.discard(instruction.worker)
        elif isinstance(instruction, HandOut):
            self._prove(instruction.attempt)
        elif isinstance(instruction, Deliver):
            attempt = instruction.attempt
            cause = self.nature(attempt, self.homes[attempt.worker]).cause
            answer: Event = Accepted(attempt=attempt)
            if cause is Cause.PROOF:
                answer = Refused(attempt=attempt, text="it does not verify")
            self.at(self.now_s, answer)

    def _prove(self, attempt: Attempt) -> None:
        end = self.nature(attempt, self.homes[attempt.worker])
        text = f"{attempt.worker} had {attempt.key.chunk}"
        event: Event
        if end.cause in (None, Cause.PROOF):
            event = Answered(attempt=attempt)
        elif end.cause in (Cause.PROCESS, Cause.MEMORY):
            event = WorkerDown(worker=attempt.worker, cause=end.cause, text=f"{text} and died")
        elif end.cause is Cause.MACHINE:
            event = NodeDown(node=self.homes[attempt.worker])
        elif end.cause is Cause.TIME:
            return  # it never ends
        else:
            assert end.cause is not None
            event = Failed(attempt=attempt, cause=end.cause, text=f"{text} and failed")
        self.at(self.now_s + end.after_s, event)

    # --- what was seen ------------------------------------------------------------------------

    def handed(self, chunk: str | None = None) -> list[Attempt]:
        found = [i.attempt for _, i in self.heard if isinstance(i, HandOut)]
        return [a for a in found if chunk is None or a.key.chunk == chunk]

    def nodes_of(self, attempts: list[Attempt]) -> list[str]:
        return [self.homes[attempt.worker] for attempt in attempts]

    @property
    def stops(self) -> list[Stop]:
        return [i for _, i in self.heard if isinstance(i, Stop)]

    @property
    def reports(self) -> list[Report]:
        return [i for _, i in self.heard if isinstance(i, Report)]

    @property
    def done(self) -> set[ChunkKey]:
        return {key for key, chunk in self.scheduler.chunks.items() if chunk.done}
