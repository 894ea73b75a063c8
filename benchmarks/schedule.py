"""A simulation of a run: the package's own scheduler, driven on a virtual clock.

Who gets which chunk is decided by `zkml_ray.cluster.scheduler.Scheduler` itself, the same code that
runs on Ray. What surrounds it is written down here, step by step as in `zkml_ray.run.coordinator`
and `cluster.pool`:

- the coordinator is one thread; it makes the witness of one chunk after the other, in plan order,
  and submits the chunk (`WorkerPool.submit`);
- then it looks once, without waiting, which workers are done (`poll(0)`), and takes their answers;
  behind the last witness it waits for answers, at most a second at a time (`poll(1.0)`);
- with an answer taken, that worker gets the next chunk before the proof is verified; verifying
  keeps the coordinator, and whoever finishes meanwhile waits.

A worker's time for a chunk is what was measured with one thread and no other worker beside it.
Left out: failures and second attempts, messages' own time, and workers that slow each other down
(memory bandwidth, shared caches): measured times of two workers on one machine show the latter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from zkml_ray.cluster.messages import (
    Accepted,
    Answered,
    Attempt,
    Begin,
    ChunkKey,
    ChunkReady,
    Deliver,
    Event,
    HandOut,
    NodeUp,
    StartWorker,
    WorkerUp,
)
from zkml_ray.cluster.policy import Need
from zkml_ray.cluster.scheduler import Scheduler

POLL_S: Final = 1.0
"""Longest wait of the coordinator's loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One chunk of one input.

    Attributes:
        name: For people.
        witness_s: The coordinator's time until the chunk can be proved.
        work_s: A worker's time: set-up from cached keys, witness, proof.
        verify_s: The coordinator's time for the answer.
    """

    name: str
    witness_s: float
    work_s: float
    verify_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """What the simulation gives.

    Attributes:
        makespan_s: From the first witness to the last verified proof.
        spans: Per task, in order of assignment: name, worker, start and end.
    """

    makespan_s: float
    spans: tuple[tuple[str, int, float, float], ...]


class _Clockwork:
    """The coordinator, the scheduler and the workers at a moment of virtual time."""

    def __init__(self, workers: int, up_s: float) -> None:
        self.now_s = 0.0
        self.spans: list[tuple[str, int, float, float]] = []
        self._scheduler = Scheduler(Need(workers=workers, cpus=1))
        self._tasks: dict[ChunkKey, Task] = {}
        self._ends: dict[Attempt, float] = {}
        self._starting: list[str] = []
        self._up_s = up_s
        self._answers: list[Attempt] = []
        self._tell(NodeUp(node="here", name="here", cpus=workers, memory_bytes=0))
        self._tell(Begin())
        self._workers_up()

    @property
    def busy(self) -> bool:
        return self._scheduler.busy

    def submit(self, task: Task) -> None:
        key = ChunkKey("run", f"{len(self._tasks)}")
        self._tasks[key] = task
        self._tell(ChunkReady(key=key, predicted_s=task.work_s))

    def poll(self, timeout_s: float) -> None:
        """Wait for answers, take all that are there, verify them."""
        due_s = list(self._ends.values())
        if self._starting:
            due_s.append(self._up_s)
        self.now_s = min(max(self.now_s, min(due_s, default=0.0)), self.now_s + timeout_s)
        self._workers_up()
        for attempt in [attempt for attempt, end_s in self._ends.items() if end_s <= self.now_s]:
            del self._ends[attempt]
            self._tell(Answered(attempt=attempt))
        answers, self._answers = self._answers, []
        for attempt in answers:
            self.now_s += self._tasks[attempt.key].verify_s
            self._tell(Accepted(attempt=attempt))

    def _workers_up(self) -> None:
        if self.now_s >= self._up_s:
            starting, self._starting = self._starting, []
            for worker in starting:
                self._tell(WorkerUp(worker=worker))

    def _tell(self, event: Event) -> None:
        for instruction in self._scheduler.handle(event, self.now_s):
            if isinstance(instruction, StartWorker):
                self._starting.append(instruction.worker)
            elif isinstance(instruction, Deliver):
                self._answers.append(instruction.attempt)
            elif isinstance(instruction, HandOut):
                task = self._tasks[instruction.attempt.key]
                worker = int(instruction.attempt.worker.rpartition("-")[2])
                end_s = self.now_s + task.work_s
                self._ends[instruction.attempt] = end_s
                self.spans.append((task.name, worker, self.now_s, end_s))


def simulate(tasks: Sequence[Task], workers: int, up_s: float = 0.0) -> Schedule:
    """Run tasks through the scheduler's policy.

    Args:
        tasks: In the order of the plan; for several inputs, one input after the other.
        workers: How many, at least 1.
        up_s: When the workers' processes are up; Ray starts them in the background.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    state = _Clockwork(workers, up_s)
    for task in tasks:
        state.now_s += task.witness_s
        state.submit(task)
        state.poll(0.0)
    while state.busy:
        state.poll(POLL_S)
    return Schedule(makespan_s=state.now_s, spans=tuple(state.spans))


def bound_s(tasks: Sequence[Task], workers: int) -> tuple[float, str]:
    """No schedule of these tasks is shorter, and what says so.

    Args:
        tasks: As for `simulate`.
        workers: How many.

    Returns:
        Seconds, and "work" (all of it, evenly shared), "longest chunk" (its witness is ready no
        sooner than the coordinator can make it) or "witnesses" (made one after the other).
    """
    ready_s, longest = 0.0, 0.0
    for task in tasks:
        ready_s += task.witness_s
        longest = max(longest, ready_s + task.work_s + task.verify_s)
    return max(
        (sum(task.work_s for task in tasks) / workers, "work"),
        (longest, "longest chunk"),
        (ready_s + (tasks[-1].verify_s if tasks else 0.0), "witnesses"),
    )
