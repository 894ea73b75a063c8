"""The scheduler: a state machine without input or output.

Events go in (`messages`), instructions come out; time is an argument. It starts no worker, waits
for nothing and knows nothing of Ray. So whatever happened can be replayed from the log of events,
and tests drive it through orders of events that no cluster would show in a year.

A **chunk** is in one of these states:

    ChunkReady        HandOut           Answered           Accepted
    ---------> waiting ------> proving ---------> checking ---------> done
                  ^               |                   |
                  |  Failed, WorkerDown, NodeDown,    | Refused
                  |  stopped, overdue                 |
                  +---------------+-------------------+
                                  |
                                  +--> its job is stopped, when its failures are used up

| chunk | meaning |
|---|---|
| waiting | no attempt runs: it can be handed out |
| proving | one attempt runs, or two where the first is a straggler |
| checking | an answer is being checked; no other is looked at meanwhile |
| done | an answer was accepted; whatever comes later changes nothing |

| attempt | meaning |
|---|---|
| running | its worker has it, and its answer would count |
| answered | its answer is being checked |
| accepted, refused, failed | it is over; its token counts no more |
| void | its worker has it still, but the chunk is done or its job withdrawn |

    StartWorker          WorkerUp        HandOut
    ----------> starting -------> idle <--------> busy --+
                   |               |                |    | quick failures, store failures
                   |               |    resting <--------+
                   v               v       v        v
                   +---------------+-------+--------+--> ended

| worker | meaning |
|---|---|
| starting | asked for, and not to be given anything: it has not answered |
| idle | can take a chunk |
| busy | has an attempt, running or void |
| resting | gets nothing for a while: it met the store's failure, or is quarantined |
| ended | gone or ended; its name is not used again |

| node | meaning |
|---|---|
| up | may get workers |
| waiting | a worker did not come up there: it gets another one later |
| barred | a wrong proof came from it, or its set-up is wrong: it gets one only if no other can |
| lost | gone, with its workers |

What failures cost (`Cause`):

- a lost machine, a stopped worker, a store that does not answer: no attempt;
- anything else: one of the chunk's three. It then goes to a worker it has not failed on, on another
  node if there is one, as long as any such worker works;
- two quick failures one after the other quarantine a worker, unless nobody else works;
- a wrong proof ends its worker, and bars the node, unless keys from the store may be at fault;
- what no other attempt mends stops the chunk's job, and what is wrong with the configuration stops
  everything: at once, unless another machine works, which is asked first.

Source of the manner: dask/distributed's `worker_state_machine.py` (frozen stimuli in, frozen
instructions out, a log, `validate_state`).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from typing import Final

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
    Withdrawn,
    WorkerDown,
    WorkerSeen,
    WorkerUp,
)
from zkml_ray.cluster.policy import (
    FINAL_CAUSES,
    FREE_CAUSES,
    Chunk,
    Failure,
    Need,
    Node,
    Policy,
    Worker,
    capacity_text,
    choose,
    place,
)

_FEWEST_MEASURED: Final = 3
"""Proofs that must have been timed before one is called a straggler."""

_MEMORY_HINT: Final = "; use fewer workers, or a smaller --memory for chunks that need less"


class Scheduler:
    """Chunks of any number of jobs, and the workers that are to prove them."""

    def __init__(self, need: Need, policy: Policy | None = None) -> None:
        self.need = need
        self.policy = policy or Policy()
        self.log: list[tuple[float, Event]] = []
        self.nodes: dict[str, Node] = {}
        self.workers: dict[str, Worker] = {}
        self.chunks: dict[ChunkKey, Chunk] = {}
        self.stopped = False
        self._out: list[Instruction] = []
        self._now_s = 0.0
        self._begun = False
        self._nobody_since: float | None = None
        self._named = 0
        self._ready = 0
        self._open: dict[ChunkKey, Chunk] = {}  # those that are not done
        self._served_s: dict[str, float] = {}
        self._slowness: list[float] = []
        self._store_failing_since: float | None = None
        self._start_failures = 0
        self._lacking_since: float | None = None
        self._told_of_room = False

    def handle(self, event: Event, now_s: float) -> list[Instruction]:
        """Take an event and say what to do.

        Args:
            event: What happened.
            now_s: When, on a clock that never goes back.
        """
        self.log.append((now_s, event))
        if self.stopped:
            return []
        self._now_s = max(self._now_s, now_s)
        self._out = []
        self._take(event)
        self._settle()
        return self._out

    @property
    def busy(self) -> bool:
        """Whether any chunk is not done."""
        return not self.stopped and bool(self._open)

    @property
    def waiting(self) -> int:
        """Chunks that nobody has."""
        return sum(chunk.waits for chunk in self._open.values())

    def wakes_at(self) -> float:
        """When something may be due without any event: a `Tick` is wanted then."""
        policy = self.policy
        times = [float("inf")]
        for worker in self.workers.values():
            if not worker.up:
                times.append(worker.asked_at + policy.start_s)
            if worker.resting_until > self._now_s:
                times.append(worker.resting_until)
            if worker.stopped_at is not None:
                times.append(worker.stopped_at + policy.stopped_s)
            if worker.attempt is not None:
                times.append(worker.overdue_at)
            if (chunk := self._running(worker)) is not None:
                times.append(self._straggles_at(worker, chunk))
        if len(self.workers) < self.need.workers:
            times += [node.restart_at for node in self.nodes.values()]
        if self._nobody_since is not None:
            times.append(self._nobody_since + policy.room_s)
        if self._lacking_since is not None and not self._told_of_room:
            times.append(self._lacking_since + policy.note_s)
        return min((at for at in times if at > self._now_s), default=float("inf"))

    # --- events -----------------------------------------------------------------------------------

    def _take(self, event: Event) -> None:
        if isinstance(event, NodeUp):
            if event.node in self.nodes:
                self.nodes[event.node].up = event
            else:
                self.nodes[event.node] = Node(up=event)
        elif isinstance(event, NodeDown):
            self._lose_node(event.node)
        elif isinstance(event, Begin):
            self._begun = True
            self._nobody_since = self._now_s
        elif isinstance(event, WorkerUp):
            self._worker_up(event.worker)
        elif isinstance(event, WorkerDown):
            self._worker_down(event)
        elif isinstance(event, WorkerSeen):
            self._worker_seen(event)
        elif isinstance(event, ChunkReady):
            self._chunk_ready(event)
        elif isinstance(event, Answered):
            self._answered(event.attempt)
        elif isinstance(event, Failed):
            self._failed(event)
        elif isinstance(event, Accepted):
            self._accepted(event.attempt)
        elif isinstance(event, Refused):
            self._refused(event)
        elif isinstance(event, Withdrawn):
            self._withdraw(event.job)

    def _lose_node(self, name: str) -> None:
        node = self.nodes.pop(name, None)
        if node is None:
            return
        self._report(Cause.MACHINE, f"the machine {node.up.name} was lost")
        for worker in [w for w, known in self.workers.items() if known.node == name]:
            self._end(worker, Cause.MACHINE, f"{worker}'s machine {node.up.name} was lost")

    def _worker_up(self, name: str) -> None:
        worker = self.workers.get(name)
        if worker is None or worker.up:
            return
        worker.up = True
        if worker.strikes >= self.policy.strikes:
            self._quarantine(name, worker)

    def _worker_down(self, event: WorkerDown) -> None:
        worker = self.workers.get(event.worker)
        if worker is None:
            return
        if worker.up:
            self._end(event.worker, event.cause, event.text)
        else:
            self._not_started(event.worker, worker, event.cause, event.text)

    def _not_started(self, name: str, worker: Worker, cause: Cause, text: str) -> None:
        node = self.nodes[worker.node]
        del self.workers[name]
        self._report(cause, f"{name} did not come up on {node.up.name}: {text}", worker=name)
        node.barred = node.barred or cause is Cause.CONFIGURATION
        self._count_start_failure(node)
        nobody = not self.workers
        wrong = cause is Cause.CONFIGURATION and all(n.barred for n in self.nodes.values())
        if nobody and (wrong or self._start_failures >= self.policy.starts):
            hint = _MEMORY_HINT if cause is Cause.MEMORY else ""
            self._stop_all(cause, text if wrong else f"no worker comes up: {text}{hint}")

    def _count_start_failure(self, node: Node) -> None:
        """A worker ended before it did anything: the next one there is started later."""
        self._start_failures += 1
        node.restart_at = self._now_s + self.policy.restart_s * 2 ** min(node.start_failures, 5)
        node.start_failures += 1

    def _worker_seen(self, event: WorkerSeen) -> None:
        worker = self.workers.get(event.worker)
        if worker is None or (worker.stopped_at is None) == event.running:
            return
        worker.stopped_at = None if event.running else self._now_s

    def _chunk_ready(self, event: ChunkReady) -> None:
        if event.key in self.chunks:
            return
        self._ready += 1
        self._served_s.setdefault(event.key.job, min(self._served_s.values(), default=0.0))
        self.chunks[event.key] = self._open[event.key] = Chunk(
            order=self._ready,
            circuit=event.circuit,
            predicted_s=event.predicted_s,
            setup_s=event.setup_s,
            limit_s=event.limit_s,
            stored_keys=event.stored_keys,
        )

    def _answered(self, attempt: Attempt) -> None:
        worker, chunk = self._release(attempt)
        if worker is not None:
            worker.store_failures = 0
            self._store_failing_since = None
            self._start_failures = self.nodes[worker.node].start_failures = 0
        if chunk is None:
            return
        if chunk.checking is not None:
            return  # another copy's answer is being checked; were it refused, both are gone
        chunk.checking = attempt
        if worker is not None and chunk.predicted_s > 0:
            taken_s = self._now_s - worker.handed_at
            self._slowness.append(taken_s / (chunk.predicted_s + chunk.setup_s))
        self._out.append(Deliver(attempt=attempt))

    def _failed(self, event: Failed) -> None:
        worker, chunk = self._release(event.attempt)
        if worker is None:
            return
        if event.cause is Cause.STORE:
            self._store_failed(event.attempt, worker)
        elif self._strike(worker):
            self._quarantine(event.attempt.worker, worker)
        if chunk is not None:
            self._fail(event.attempt, chunk, worker.node, event.cause, event.text)

    def _accepted(self, attempt: Attempt) -> None:
        chunk = self.chunks.get(attempt.key)
        if chunk is None or chunk.checking != attempt:
            return
        chunk.checking = None
        chunk.done = True
        del self._open[attempt.key]
        chunk.running.clear()  # a second copy's answer changes nothing
        worker = self.workers.get(attempt.worker)
        if worker is not None:
            worker.strikes = 0

    def _refused(self, event: Refused) -> None:
        attempt = event.attempt
        chunk = self.chunks.get(attempt.key)
        if chunk is None or chunk.checking != attempt:
            return
        chunk.checking = None
        by_keys = chunk.stored_keys and not chunk.counted()
        cause = Cause.KEYS if by_keys else Cause.PROOF
        worker = self.workers.get(attempt.worker)
        node = "" if worker is None else worker.node
        self._fail(attempt, chunk, node, cause, event.text)
        if by_keys or worker is None or self.stopped:
            return
        if node in self.nodes:
            self.nodes[node].barred = True
        self._report(cause, f"{attempt.worker} is excluded: {event.text}", attempt.worker)
        self._end(attempt.worker, Cause.MACHINE, f"{attempt.worker} was excluded", kill=True)

    def _withdraw(self, job: str) -> None:
        for key in [key for key in self.chunks if key.job == job]:
            del self.chunks[key]
            self._open.pop(key, None)
        self._served_s.pop(job, None)

    # --- what failures lead to --------------------------------------------------------------------

    def _release(self, attempt: Attempt) -> tuple[Worker | None, Chunk | None]:
        """End an attempt: its worker, if it had it, and its chunk, if the attempt counts."""
        worker = self.workers.get(attempt.worker)
        if worker is None or worker.attempt != attempt:
            return None, None
        worker.attempt = None
        chunk = self.chunks.get(attempt.key)
        if chunk is None or attempt not in chunk.running:
            return worker, None
        chunk.running.remove(attempt)
        return worker, chunk

    def _fail(self, attempt: Attempt, chunk: Chunk, node: str, cause: Cause, text: str) -> None:
        key, policy = attempt.key, self.policy
        chunk.failures.append(Failure(attempt.worker, node, cause))
        final = cause in FINAL_CAUSES and self._is_confirmed(chunk, node)
        if final and cause is Cause.CONFIGURATION:
            self._stop_all(cause, text, key)
            return
        counted = chunk.counted()
        causes = tuple(failure.cause for failure in chunk.failures)
        lost = sum(failure.cause in (Cause.MACHINE, Cause.STOPPED) for failure in chunk.failures)
        said = text if final else None
        if final:
            pass
        elif len(counted) >= policy.failures:
            said = f"{key.chunk} failed {len(counted)} times, last: {text}"
            if all(failure.cause is Cause.MEMORY for failure in counted):
                said += _MEMORY_HINT
        elif causes.count(Cause.STORE) >= policy.store_failures:
            said = f"the store failed {causes.count(Cause.STORE)} times on {key.chunk}: {text}"
        elif lost >= policy.losses:
            said = f"{lost} machines or workers were lost while they had {key.chunk}, last: {text}"
        if said is None:
            self._report(cause, f"{text}; {key.chunk} is tried again", attempt.worker, attempt)
            return
        self._withdraw(key.job)
        self._out.append(Stop(cause=cause, text=said, key=key, job=key.job, causes=causes))

    def _store_failed(self, attempt: Attempt, worker: Worker) -> None:
        wait_s = self.policy.store_wait_s * 2 ** min(worker.store_failures, 5)
        worker.store_failures += 1
        worker.resting_until, worker.forgiven = self._now_s + wait_s, False
        if self._store_failing_since is None:
            self._store_failing_since = worker.handed_at
        failing_s = self._now_s - self._store_failing_since
        if failing_s >= self.policy.store_patience_s:
            self._stop_all(
                Cause.STORE, f"the store has answered no worker for {failing_s:.0f} s", attempt.key
            )

    def _strike(self, worker: Worker) -> bool:
        """Count a worker's failure; whether it has failed too often at once."""
        quick = self._now_s - worker.handed_at < self.policy.quick_s
        worker.strikes = worker.strikes + 1 if quick else 0
        return worker.strikes >= self.policy.strikes

    def _quarantine(self, name: str, worker: Worker) -> None:
        if not any(other != name for other in self._working()):
            return
        wait_s = self.policy.quarantine_s * 2 ** min(worker.rests, 4)
        worker.rests += 1
        worker.resting_until, worker.forgiven = self._now_s + wait_s, True
        where = self.nodes[worker.node].up.name
        self._report(
            Cause.ERROR,
            f"{name} on {where} failed {worker.strikes} times at once: no work for {wait_s:.0f} s",
            worker=name,
        )

    def _end(self, name: str, cause: Cause, text: str, *, kill: bool = False) -> None:
        """A worker is gone, or is to go: what it had goes back."""
        worker = self.workers[name]
        attempt = worker.attempt
        if attempt is not None:
            _, chunk = self._release(attempt)
            if cause not in FREE_CAUSES:
                self._strike(worker)
            if chunk is not None:
                self._fail(attempt, chunk, worker.node, cause, text)
        elif cause not in FREE_CAUSES:
            self._report(cause, text, worker=name)
            self._count_start_failure(self.nodes[worker.node])
        self.workers.pop(name, None)
        if (node := self.nodes.get(worker.node)) is not None and worker.strikes:
            node.inherited.append(worker.strikes)
        if kill:
            self._out.append(EndWorker(worker=name))

    def _stop_all(self, cause: Cause, text: str, key: ChunkKey | None = None) -> None:
        self.stopped = True
        self._out.append(Stop(cause=cause, text=text, key=key))

    # --- what is due ------------------------------------------------------------------------------

    def _settle(self) -> None:
        self._end_what_is_due()
        self._forgive()
        self._start_missing()
        self._hand_out()

    def _end_what_is_due(self) -> None:
        now_s, policy = self._now_s, self.policy
        for name in list(self.workers):
            worker = self.workers.get(name)
            if worker is None or self.stopped:
                continue
            if not worker.up:
                if now_s >= worker.asked_at + policy.start_s:
                    text = f"it has not answered for {policy.start_s:.0f} s"
                    self._out.append(EndWorker(worker=name))
                    self._not_started(name, worker, Cause.START, text)
            elif worker.stopped_at is not None and now_s >= worker.stopped_at + policy.stopped_s:
                text = f"{name}'s process has been stopped for {policy.stopped_s:.0f} s"
                self._end(name, Cause.STOPPED, text, kill=True)
            elif (attempt := worker.attempt) is not None and now_s >= worker.overdue_at:
                limit_s = worker.overdue_at - worker.handed_at
                text = f"{name} had {attempt.key.chunk} for more than {limit_s:.0f} s"
                self._end(name, Cause.TIME, text, kill=True)

    def _forgive(self) -> None:
        """With nobody else at work, quarantine would only keep the run waiting."""
        if any(True for _ in self._working()):
            return
        for worker in self.workers.values():
            if worker.up and worker.forgiven:
                worker.resting_until = self._now_s

    def _start_missing(self) -> None:
        if not self._begun or self.stopped:
            return
        missing = self.need.workers - len(self.workers)
        nodes = {name: n for name, n in self.nodes.items() if n.restart_at <= self._now_s}
        workers = list(self.workers.values())
        found = place(self.need, nodes, workers, missing, lambda name: not nodes[name].barred)
        if not found and not workers:
            found = place(self.need, nodes, workers, missing, lambda _: True)
        for name, cpus in found:
            self._start(name, cpus)
        self._tell_of_room(missing - len(found))

    def _start(self, node: str, cpus: int) -> None:
        worker = f"worker-{self._named}"
        self._named += 1
        inherited = self.nodes[node].inherited
        self.workers[worker] = Worker(
            node=node,
            cpus=cpus,
            asked_at=self._now_s,
            strikes=inherited.pop(0) if inherited else 0,
        )
        self._out.append(
            StartWorker(worker=worker, node=node, cpus=cpus, memory_bytes=self.need.memory_bytes)
        )

    def _tell_of_room(self, missing: int) -> None:
        """Say once how many workers there is room for; without any, stop when time is up."""
        now_s, need, policy = self._now_s, self.need, self.policy
        self._lacking_since = _since(self._lacking_since, missing > 0, now_s)
        self._nobody_since = _since(self._nobody_since, not self.workers, now_s)
        if self._lacking_since is None or now_s < self._lacking_since + policy.note_s:
            return
        room = len(place(need, self.nodes, [], need.workers, lambda _: True))
        text = capacity_text(need, self.nodes.values())
        if 0 < room < need.workers and not self._told_of_room:
            self._told_of_room = True
            self._report(
                Cause.CAPACITY, f"there is room for {room} of {need.workers} workers: {text}"
            )
        if (
            self._nobody_since is not None
            and now_s >= self._nobody_since + policy.room_s
            and not room
        ):
            self._stop_all(Cause.CAPACITY, f"there is no room for a worker: {text}")

    def _hand_out(self) -> None:
        if self.stopped:
            return
        idle = [name for name, worker in self.workers.items() if self._idle(worker)]
        idle.sort(key=lambda name: (self.workers[name].strikes, -self.workers[name].cpus, name))
        for name in idle:
            worker = self.workers[name]
            node = self.nodes[worker.node]
            found = choose(
                name,
                node,
                [
                    (key, chunk)
                    for key, chunk in self._open.items()
                    if chunk.waits and self.may_take(name, chunk)
                ],
                self._served_s,
                self._being_made(),
                self._held_elsewhere(node),
            )
            if found is None:
                found = self._straggler(worker)
            if found is not None:
                self._give(name, worker, *found)

    def _give(self, name: str, worker: Worker, key: ChunkKey, chunk: Chunk) -> None:
        chunk.attempts += 1
        attempt = Attempt(key, chunk.attempts, name)
        chunk.running.append(attempt)
        worker.attempt, worker.handed_at = attempt, self._now_s
        worker.overdue_at = self._now_s + chunk.limit_s
        self._served_s[key.job] = self._served_s.get(key.job, 0.0) + chunk.predicted_s
        if chunk.circuit:
            self.nodes[worker.node].circuits.add(chunk.circuit)
        self._out.append(HandOut(attempt=attempt, own_keys=bool(chunk.counted())))

    def _is_confirmed(self, chunk: Chunk, node: str) -> bool:
        """Whether no other machine that works could say otherwise, or another said the same."""
        if any(
            failure.cause in FINAL_CAUSES and failure.node != node for failure in chunk.failures
        ):
            return True
        return all(self.workers[name].node == node for name in self._working())

    # --- questions --------------------------------------------------------------------------------

    def may_take(self, name: str, chunk: Chunk) -> bool:
        """Whether no worker that works is further from where a chunk failed than this one."""
        if not chunk.failures:
            return True
        mine = chunk.distance(name, self.workers[name].node)
        return all(
            mine <= chunk.distance(other, self.workers[other].node) for other in self._working()
        )

    def _working(self) -> Iterator[str]:
        """Workers that have work or would take some."""
        for name, worker in self.workers.items():
            if worker.up and worker.resting_until <= self._now_s and worker.stopped_at is None:
                yield name

    def _idle(self, worker: Worker) -> bool:
        rested = worker.resting_until <= self._now_s
        return worker.up and worker.attempt is None and rested and worker.stopped_at is None

    def _running(self, worker: Worker) -> Chunk | None:
        """The chunk that a worker proves, if its attempt counts."""
        if worker.attempt is None:
            return None
        chunk = self.chunks.get(worker.attempt.key)
        return chunk if chunk is not None and worker.attempt in chunk.running else None

    def _being_made(self) -> set[tuple[str, str]]:
        """Pairs of node and circuit whose first attempt there still runs."""
        return {
            (worker.node, chunk.circuit)
            for worker in self.workers.values()
            if (chunk := self._running(worker)) is not None and chunk.setup_s > 0
        }

    def _held_elsewhere(self, here: Node) -> set[str]:
        """Circuits whose keys lie on another node that works."""
        others = {self.workers[name].node for name in self._working()} - {here.up.node}
        return {circuit for name in others for circuit in self.nodes[name].circuits}

    def _straggles_at(self, worker: Worker, chunk: Chunk) -> float:
        """When a second copy of what a worker has would be worth it."""
        if len(self._slowness) < _FEWEST_MEASURED or len(chunk.running) != 1:
            return float("inf")
        usual_s = (chunk.predicted_s + chunk.setup_s) * statistics.median(self._slowness)
        wait_s = max(self.policy.straggler_s, self.policy.straggler_factor * usual_s)
        return worker.handed_at + wait_s

    def _straggler(self, idle: Worker) -> tuple[ChunkKey, Chunk] | None:
        """A chunk that takes far longer than others, on another machine than an idle worker's."""
        for worker in self.workers.values():
            chunk = self._running(worker)
            if worker.attempt is None or chunk is None or worker.node == idle.node:
                continue
            if self._now_s >= self._straggles_at(worker, chunk) and chunk.checking is None:
                return worker.attempt.key, chunk
        return None

    def _report(
        self, cause: Cause, text: str, worker: str = "", attempt: Attempt | None = None
    ) -> None:
        self._out.append(Report(cause=cause, text=text, worker=worker, attempt=attempt))

    def validate(self) -> None:
        """Check what must hold between two events.

        Raises:
            ValueError: It does not.
        """
        running = {}
        for key, chunk in self.chunks.items():
            if chunk.done == (key in self._open):
                raise ValueError(f"{key} is done and open, or neither")
            if chunk.done and (chunk.running or chunk.checking):
                raise ValueError(f"{key} is done and still worked on")
            if len(chunk.running) > 2:
                raise ValueError(f"{key} is handed out {len(chunk.running)} times")
            if len(chunk.counted()) >= self.policy.failures and not self.stopped:
                raise ValueError(f"{key} has used up its failures and its job goes on")
            for attempt in chunk.running:
                running[attempt.worker] = attempt
                if attempt.key != key or attempt.number > chunk.attempts:
                    raise ValueError(f"{key} holds the attempt {attempt}")
        for name, attempt in running.items():
            if name not in self.workers or self.workers[name].attempt != attempt:
                raise ValueError(f"{attempt} runs, but {name} does not have it")
        if len(self.workers) > self.need.workers:
            raise ValueError(f"there are {len(self.workers)} workers of {self.need.workers}")
        for name, worker in self.workers.items():
            if worker.node not in self.nodes:
                raise ValueError(f"{name} is on {worker.node}, which is lost")
            if worker.attempt is not None and not worker.up:
                raise ValueError(f"{name} has {worker.attempt} and has not answered yet")
        if self.stopped:
            return
        for name, worker in self.workers.items():
            if not self._idle(worker):
                continue
            for key, chunk in self._open.items():
                if chunk.waits and self.may_take(name, chunk):
                    raise ValueError(f"{key} waits while {name} is idle")


def _since(since: float | None, holds: bool, now_s: float) -> float | None:
    """Since when something holds, or None."""
    if not holds:
        return None
    return now_s if since is None else since


def replay(
    need: Need, policy: Policy, log: Iterable[tuple[float, Event]]
) -> tuple[Scheduler, list[list[Instruction]]]:
    """What a log of events leads to: the same instructions, one list an event."""
    scheduler = Scheduler(need, policy)
    return scheduler, [scheduler.handle(event, now_s) for now_s, event in log]
