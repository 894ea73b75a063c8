"""The scheduler under any order of events that a cluster could show, drawn by Hypothesis.

Rules below are what Ray, workers, machines and the coordinator may do next; nothing is ever
promised about when. What must hold is written apart from the scheduler: this module keeps its own
account of who has what.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.unit.cluster.world import node_up
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
    NodeDown,
    Refused,
    StartWorker,
    Stop,
    Tick,
    Withdrawn,
    WorkerDown,
    WorkerSeen,
    WorkerUp,
)
from zkml_ray.cluster.policy import FREE_CAUSES, Need, Policy
from zkml_ray.cluster.scheduler import Scheduler, replay

POLICY = Policy(start_s=40, room_s=1e9, store_patience_s=1e9, starts=10**6, losses=10**6)
JOBS = ("one", "two")
FAILURES = (Cause.ERROR, Cause.STORE, Cause.MEMORY)
DEATHS = (Cause.PROCESS, Cause.MEMORY)

picks = st.integers(min_value=0, max_value=10**6)


class AnyOrder(RuleBasedStateMachine):
    """A cluster of up to six nodes, and two jobs."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.starting: dict[str, str] = {}
        self.up: dict[str, str] = {}
        self.has: dict[str, Attempt] = {}
        self.late: list[Attempt] = []
        self.checking: list[Attempt] = []
        self.accepted: list[ChunkKey] = []
        self.submitted: set[ChunkKey] = set()
        self.ended_jobs: set[str] = set()
        self.charged: dict[ChunkKey, int] = {}
        self.failed_at: dict[ChunkKey, set[str]] = {}
        self.stopped: dict[str, float] = {}
        self.nodes: dict[str, int] = {}
        self.node_number = 0
        self.instructions: list[list[object]] = []

    @initialize(workers=st.integers(1, 5), nodes=st.lists(st.integers(0, 3), max_size=3))
    def begin(self, workers: int, nodes: list[int]) -> None:
        self.scheduler = Scheduler(Need(workers=workers), POLICY)
        for cpus in nodes:
            self.node_joins(cpus)
        self.tell(Begin())

    # --- the account ------------------------------------------------------------------------

    def tell(self, event: Event) -> None:
        self.now_s += 0.01
        out = self.scheduler.handle(event, self.now_s)
        self.instructions.append(list(out))
        for instruction in out:
            if isinstance(instruction, EndWorker):
                self.ended_by_scheduler(instruction.worker, event)
        for instruction in out:
            if isinstance(instruction, StartWorker):
                assert instruction.worker not in {*self.starting, *self.up, *self.failed_workers}
                assert instruction.cpus >= 1
                self.starting[instruction.worker] = instruction.node
            elif isinstance(instruction, HandOut):
                self.handed_out(instruction.attempt)
            elif isinstance(instruction, Deliver):
                self.checking.append(instruction.attempt)
            elif isinstance(instruction, Stop):
                assert instruction.job is not None, instruction
                assert instruction.key is not None
                assert self.charged[instruction.key] == POLICY.failures
                self.ended_jobs.add(instruction.job)

    def ended_by_scheduler(self, worker: str, event: Event) -> None:
        """It lied, is stopped for too long, or has had its chunk for too long."""
        if (attempt := self.has.get(worker)) is not None:
            cause = Cause.TIME
            if isinstance(event, Refused):
                cause = Cause.MACHINE
            elif self.now_s >= self.stopped.get(worker, self.now_s) + POLICY.stopped_s:
                cause = Cause.STOPPED
            self.failed(attempt, cause)
        self.forget(worker)

    @property
    def failed_workers(self) -> set[str]:
        return {attempt.worker for attempt in self.late}

    def handed_out(self, attempt: Attempt) -> None:
        worker, key = attempt.worker, attempt.key
        assert worker in self.up, "it has not answered"
        assert worker not in self.has, "it has a chunk"
        assert worker not in self.stopped, "it is stopped"
        assert key.job not in self.ended_jobs
        assert key not in self.accepted, "it is done"
        holders = [a for a in self.has.values() if a.key == key]
        assert len(holders) <= 1
        if worker in self.failed_at.get(key, set()):
            others = [
                other
                for other in self.up
                if other not in self.failed_at[key]
                and other not in self.stopped
                and self.scheduler.workers[other].resting_until <= self.now_s
            ]
            assert not others, f"{key} was given back to {worker} while {others} work"
        self.has[worker] = attempt

    def forget(self, worker: str) -> None:
        """A worker is gone; what it had may still be heard of, and must count for nothing."""
        self.starting.pop(worker, None)
        self.up.pop(worker, None)
        self.stopped.pop(worker, None)
        if (attempt := self.has.pop(worker, None)) is not None:
            self.late.append(attempt)

    def failed(self, attempt: Attempt, cause: Cause) -> None:
        if attempt.key.job in self.ended_jobs or attempt.key in self.accepted:
            return
        self.failed_at.setdefault(attempt.key, set()).add(attempt.worker)
        if cause not in FREE_CAUSES:
            self.charged[attempt.key] = self.charged.get(attempt.key, 0) + 1

    # --- what may happen --------------------------------------------------------------------

    @rule(cpus=st.integers(0, 3))
    def node_joins(self, cpus: int) -> None:
        if len(self.nodes) < 6:
            name = f"n{self.node_number}"
            self.node_number += 1
            self.nodes[name] = cpus
            self.tell(node_up(name, cpus=cpus))

    @precondition(lambda self: self.nodes)
    @rule(pick=picks)
    def node_is_lost(self, pick: int) -> None:
        name = sorted(self.nodes)[pick % len(self.nodes)]
        del self.nodes[name]
        for worker, node in [*self.starting.items(), *self.up.items()]:
            if node == name:
                if worker in self.has:
                    self.failed(self.has[worker], Cause.MACHINE)
                self.forget(worker)
        self.tell(NodeDown(node=name))

    @precondition(lambda self: self.starting)
    @rule(pick=picks)
    def worker_answers_first(self, pick: int) -> None:
        worker = sorted(self.starting)[pick % len(self.starting)]
        self.up[worker] = self.starting.pop(worker)
        self.tell(WorkerUp(worker=worker))

    @precondition(lambda self: self.starting)
    @rule(pick=picks)
    def worker_does_not_come_up(self, pick: int) -> None:
        worker = sorted(self.starting)[pick % len(self.starting)]
        del self.starting[worker]
        self.tell(WorkerDown(worker=worker, cause=Cause.START, text="no"))

    @precondition(lambda self: self.up)
    @rule(pick=picks, cause=st.sampled_from(DEATHS))
    def worker_dies(self, pick: int, cause: Cause) -> None:
        worker = sorted(self.up)[pick % len(self.up)]
        if worker in self.has:
            self.failed(self.has[worker], cause)
        self.forget(worker)
        self.tell(WorkerDown(worker=worker, cause=cause, text="died"))

    @precondition(lambda self: self.up)
    @rule(pick=picks)
    def worker_is_stopped_or_continued(self, pick: int) -> None:
        worker = sorted(self.up)[pick % len(self.up)]
        running = worker in self.stopped
        if running:
            del self.stopped[worker]
        else:
            self.stopped[worker] = self.now_s + 0.01
        self.tell(WorkerSeen(worker=worker, running=running))

    @precondition(lambda self: self.has)
    @rule(pick=picks)
    def worker_answers(self, pick: int) -> None:
        worker = sorted(self.has)[pick % len(self.has)]
        attempt = self.has.pop(worker)
        self.tell(Answered(attempt=attempt))
        self.late.append(attempt)

    @precondition(lambda self: self.has)
    @rule(pick=picks, cause=st.sampled_from(FAILURES))
    def worker_fails(self, pick: int, cause: Cause) -> None:
        worker = sorted(self.has)[pick % len(self.has)]
        attempt = self.has.pop(worker)
        self.failed(attempt, cause)
        self.tell(Failed(attempt=attempt, cause=cause, text="failed"))
        self.late.append(attempt)

    @precondition(lambda self: self.checking)
    @rule(pick=picks, right=st.booleans())
    def answer_is_checked(self, pick: int, right: bool) -> None:
        attempt = self.checking.pop(pick % len(self.checking))
        if attempt.key.job in self.ended_jobs:
            self.tell(Accepted(attempt=attempt))
            return
        if right:
            assert attempt.key not in self.accepted
            self.accepted.append(attempt.key)
            self.tell(Accepted(attempt=attempt))
            return
        self.failed(attempt, Cause.PROOF)
        self.tell(Refused(attempt=attempt, text="wrong"))
        assert attempt.worker not in self.up, "it lied and is not excluded"

    @precondition(lambda self: self.late)
    @rule(pick=picks, kind=st.integers(0, 4))
    def late_word_changes_nothing(self, pick: int, kind: int) -> None:
        attempt = self.late[pick % len(self.late)]
        if attempt in self.checking or attempt in self.has.values():
            return
        events: list[Event] = [
            Answered(attempt=attempt),
            Failed(attempt=attempt, cause=Cause.CONFIGURATION, text="late"),
            Accepted(attempt=attempt),
            Refused(attempt=attempt, text="late"),
            WorkerUp(worker=attempt.worker),
        ]
        before = repr((self.scheduler.chunks, self.scheduler.workers))
        self.tell(Tick())
        after_tick = repr((self.scheduler.chunks, self.scheduler.workers))
        self.tell(events[kind])
        assert repr((self.scheduler.chunks, self.scheduler.workers)) == after_tick, before

    @rule(job=st.sampled_from(JOBS), predicted_s=st.floats(0, 100), limit_s=st.floats(1, 1000))
    def chunk_is_ready(self, job: str, predicted_s: float, limit_s: float) -> None:
        if job in self.ended_jobs:
            return
        number = len(self.submitted)
        key = ChunkKey(job, f"chunk-{number:03d}")
        self.submitted.add(key)
        circuit = f"c{number % 3}"
        self.tell(ChunkReady(key=key, circuit=circuit, predicted_s=predicted_s, limit_s=limit_s))

    @rule(job=st.sampled_from(JOBS), sure=st.integers(0, 9))
    def job_is_withdrawn(self, job: str, sure: int) -> None:
        if sure == 0:
            self.ended_jobs.add(job)
            self.tell(Withdrawn(job=job))

    @rule(seconds=st.floats(0.1, 100))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds
        self.tell(Tick())

    # --- what must hold -----------------------------------------------------------------------

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        self.scheduler.validate()
        assert len(self.accepted) == len(set(self.accepted))
        assert set(self.up) == {n for n, w in self.scheduler.workers.items() if w.up}
        assert {w.attempt for w in self.scheduler.workers.values() if w.attempt} == set(
            self.has.values()
        )
        known = set(self.scheduler.chunks)
        assert known == {key for key in self.submitted if key.job not in self.ended_jobs}
        for node, cpus in self.nodes.items():
            taken = sum(w.cpus for w in self.scheduler.workers.values() if w.node == node)
            assert taken <= cpus

    def teardown(self) -> None:
        """With one healthy machine more, everything that is wanted ends, each chunk once."""
        if not hasattr(self, "scheduler"):
            return
        self.nodes["last"] = 5
        self.tell(node_up("last", cpus=5))
        for worker in list(self.stopped):
            if worker in self.stopped:
                del self.stopped[worker]
                self.tell(WorkerSeen(worker=worker, running=True))
        steps = 0
        while self.scheduler.busy:
            steps += 1
            assert steps < 5000, "it does not end"
            if self.checking:
                self.answer_is_checked(0, right=True)
            elif self.starting:
                self.worker_answers_first(0)
            elif self.has:
                self.worker_answers(0)
            else:
                wakes_at = self.scheduler.wakes_at()
                assert wakes_at < float("inf"), "nothing would ever happen"
                self.now_s = max(self.now_s, wakes_at)
                self.time_passes(0.1)
        self.holds()
        wanted = {key for key in self.submitted if key.job not in self.ended_jobs}
        assert wanted == {key for key in self.accepted if key.job not in self.ended_jobs}
        _, again = replay(self.scheduler.need, POLICY, self.scheduler.log)
        assert again == self.instructions


AnyOrder.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestAnyOrder = AnyOrder.TestCase
