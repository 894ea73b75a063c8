"""A simulation of the scheduler: what `zkml_ray.run.coordinator` and `cluster.pool` do, virtually.

The policy, step by step as in the code:

- the coordinator is one thread; it makes the witness of one chunk after the other, in plan order;
- a chunk whose witness is made joins a first-in-first-out queue (`WorkerPool.submit`), and idle
  workers take from it in the order of their names (`WorkerPool._assign`);
- then it looks once, without waiting, whether a worker is done (`poll(0)`), and takes at most one
  answer; behind the last witness it waits for answers, at most a second at a time (`poll(1.0)`);
- with an answer taken, that worker gets the next chunk before the proof is verified; verifying
  keeps the coordinator, and whoever finishes meanwhile waits.

A worker's time for a chunk is what was measured with one thread and no other worker beside it.
Left out: failures and second attempts, messages' own time, and workers that slow each other down
(memory bandwidth, shared caches): measured times of two workers on one machine show the latter.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

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


@dataclass(slots=True)
class _Worker:
    task: Task | None = None
    ends_s: float = 0.0


class _Clockwork:
    """The coordinator and its workers at a moment of virtual time."""

    def __init__(self, workers: int, up_s: float) -> None:
        self.now_s = 0.0
        self.up_s = up_s
        self.queue: deque[Task] = deque()
        self.workers = [_Worker() for _ in range(workers)]
        self.spans: list[tuple[str, int, float, float]] = []

    @property
    def busy(self) -> bool:
        return bool(self.queue) or any(worker.task for worker in self.workers)

    def submit(self, task: Task) -> None:
        self.queue.append(task)
        self._assign()

    def poll(self, timeout_s: float) -> None:
        """Wait for one answer, hand out what can be, verify the answer."""
        proving = [worker for worker in self.workers if worker.task is not None]
        if not proving:
            self._assign()
            return
        # Of several that are done, ray.wait gives the first in the order it was asked about.
        done = next((worker for worker in proving if worker.ends_s <= self.now_s), None)
        if done is None:
            soonest = min(proving, key=lambda worker: worker.ends_s)
            self.now_s = min(soonest.ends_s, self.now_s + timeout_s)
            done = soonest if soonest.ends_s <= self.now_s else None
        answer = None
        if done is not None:
            answer, done.task = done.task, None
        self._assign()
        if answer is not None:
            self.now_s += answer.verify_s

    def _assign(self) -> None:
        for index, worker in enumerate(self.workers):
            if worker.task is None and self.queue:
                worker.task = self.queue.popleft()
                starts_s = max(self.now_s, self.up_s)  # a call waits until its actor is up
                worker.ends_s = starts_s + worker.task.work_s
                self.spans.append((worker.task.name, index, starts_s, worker.ends_s))


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
