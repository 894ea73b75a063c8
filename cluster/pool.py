"""The pool: the scheduler's hands and ears in Ray.

What is done with whom is the scheduler's to say (`scheduler`); here its instructions are carried
out, and what Ray, machines and workers say is told to it as events. Ray's own retries are off (its
default): only the scheduler knows which attempt counts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from zkml_ray.cluster import causes
from zkml_ray.cluster.machines import Machines
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
    Refused,
    Report,
    StartWorker,
    Stop,
    Tick,
    Withdrawn,
    WorkerDown,
    WorkerSeen,
    WorkerUp,
)
from zkml_ray.cluster.policy import Need, Policy
from zkml_ray.cluster.scheduler import Scheduler
from zkml_ray.cluster.session import ClusterError
from zkml_ray.cluster.worker import ChunkWorker
from zkml_ray.errors import ConfigError, StageError, StoreUnavailableError, ZkmlRayError
from zkml_ray.stages.prove import ChunkResult, ProveJob
from zkml_ray.stages.setup import SetupJob, SetupResult

LOOK_S: Final = 2.0
"""So often machines and processes are looked at."""

WAIT_S: Final = 0.5
"""Longest wait inside Ray: a signal waits as long (`zkml_ray.interrupts`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assigned:
    """A chunk was handed to a worker.

    Attributes:
        worker: The worker's name.
        run_id: The run.
        chunk_id: The chunk.
        attempt: Which attempt it is, from 1.
    """

    worker: str
    run_id: str
    chunk_id: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A worker's answer for a chunk, to be accepted or refused.

    Attributes:
        worker: The worker's name.
        run_id: The run.
        attempt: Which attempt it was, from 1.
        result: The answer, not yet checked.
    """

    worker: str
    run_id: str
    attempt: int
    result: ChunkResult | SetupResult

    @property
    def token(self) -> Attempt:
        """The attempt's token."""
        return Attempt(ChunkKey(self.run_id, self.result.chunk_id), self.attempt, self.worker)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Something went wrong that the run goes on from, and its cause."""

    cause: Cause
    message: str
    worker: str = ""
    run_id: str = ""
    chunk_id: str = ""
    attempt: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenUp:
    """A run cannot be finished; others go on."""

    run_id: str
    error: ZkmlRayError


PoolEvent: TypeAlias = "Assigned | Completed | Trouble | GivenUp"


@dataclass(slots=True)
class _Actor:
    node: str
    cpus: int
    memory_bytes: int
    handle: Any
    ready: Any
    pid: int | None = None
    call: Any = None
    attempt: Attempt | None = None
    stopped: bool = False


class WorkerPool:
    """Workers on the machines of a Ray cluster, and the chunks of any number of runs."""

    def __init__(
        self,
        *,
        workers: int,
        cpus: int | None,
        store_url: str,
        environment: Callable[[int], Mapping[str, str]] | None = None,
        memory_bytes: int | None = None,
        policy: Policy | None = None,
    ) -> None:
        """Ask for the workers; they come up in the background.

        Args:
            workers: How many are wanted; there may be room for fewer.
            cpus: CPUs that each reserves; None: its share of its node's.
            store_url: The store they read from.
            environment: Variables of a worker that reserves so many CPUs; None: the cluster's.
            memory_bytes: Memory that each reserves with Ray, which counts it but does not hold
                workers to it; None: none.
            policy: The scheduler's limits.
        """
        self._store_url = store_url
        self._environment = environment
        need = Need(workers=workers, cpus=cpus, memory_bytes=memory_bytes)
        self._scheduler = Scheduler(need, policy)
        self._machines = Machines()
        self._actors: dict[str, _Actor] = {}
        self._jobs: dict[ChunkKey, SetupJob] = {}
        self._results: dict[Attempt, ChunkResult | SetupResult] = {}
        self._errors: dict[ChunkKey | None, ZkmlRayError] = {}
        self._out: list[PoolEvent] = []
        self._looked_at = 0.0
        self._machines.settle()
        self._look()
        self._tell(Begin())

    def submit(
        self,
        job: SetupJob,
        limit_s: float = float("inf"),
        *,
        predicted_s: float = 0.0,
        setup_s: float = 0.0,
    ) -> None:
        """Queue a chunk to be proved (`ProveJob`) or only set up, and hand out what can be.

        Args:
            job: The chunk.
            limit_s: Longest time of an attempt; after it the worker is replaced.
            predicted_s: Expected seconds with keys at hand.
            setup_s: Expected seconds of making its keys.
        """
        key = ChunkKey(job.run_id, job.chunk.id)
        self._jobs[key] = job
        self._tell(
            ChunkReady(
                key=key,
                circuit=f"{job.onnx.sha256} {job.settings.sha256} {job.srs.sha256}",
                predicted_s=predicted_s,
                setup_s=setup_s,
                limit_s=limit_s,
                stored_keys=job.stored_keys is not None,
            )
        )

    @property
    def busy(self) -> bool:
        """Whether any chunk is queued, being proved or checked, or something is to be told."""
        return self._scheduler.busy or bool(self._out)

    @property
    def waiting(self) -> int:
        """Chunks that no worker has."""
        return self._scheduler.waiting

    def poll(self, timeout_s: float) -> list[PoolEvent]:
        """Wait for something to happen.

        Args:
            timeout_s: How long to wait at most; 0 only looks.

        Raises:
            ZkmlRayError: No run can be finished: what is set up is wrong, the store answers
                nobody, there is no room for workers.
        """
        until_s = time.monotonic() + timeout_s
        while True:
            self._listen(until_s)
            if time.monotonic() >= self._looked_at + LOOK_S:
                self._look()
            if time.monotonic() >= self._scheduler.wakes_at():
                self._tell(Tick())
            if self._out or time.monotonic() >= until_s:
                return self._taken()

    def accept(self, completed: Completed) -> None:
        """An answer is right: its chunk is done."""
        self._tell(Accepted(attempt=completed.token))

    def reject(self, completed: Completed, why: str) -> None:
        """An answer is wrong: its chunk gets another attempt, elsewhere, as far as it has any."""
        self._tell(Refused(attempt=completed.token, text=why))

    def forget(self, run_id: str) -> None:
        """Nothing of a run is wanted any more."""
        self._tell(Withdrawn(job=run_id))
        self._jobs = {key: job for key, job in self._jobs.items() if key.job != run_id}

    def close(self) -> None:
        """End the actors."""
        for name in list(self._actors):
            self._kill(name)
        self._machines.close()

    # --- the scheduler's ears ---------------------------------------------------------------------

    def _listen(self, until_s: float) -> None:
        """Wait for a worker's word, no longer than until something else is due."""
        due_s = min(until_s, self._looked_at + LOOK_S, self._scheduler.wakes_at())
        wait_s = min(WAIT_S, max(0.0, due_s - time.monotonic()))
        waited = {actor.ready: name for name, actor in self._actors.items() if actor.pid is None}
        waited |= {actor.call: name for name, actor in self._actors.items() if actor.call}
        if not waited:
            time.sleep(wait_s)
            return
        done, _ = ray.wait(list(waited), num_returns=1, timeout=wait_s)
        if done:  # and whoever else is done by now
            done, _ = ray.wait(list(waited), num_returns=len(waited), timeout=0)
        for ref in done:
            name = waited[ref]
            actor = self._actors.get(name)
            if actor is None:
                continue
            if ref == actor.ready:
                self._first_word(name, actor)
            elif ref == actor.call:
                self._answer(name, actor)

    def _first_word(self, name: str, actor: _Actor) -> None:
        try:
            actor.pid = ray.get(actor.ready).pid
        except RayError as error:
            cause, text = causes.not_started(error)
            self._kill(name)
            if isinstance(error, RayTaskError) and isinstance(error.cause, ZkmlRayError):
                self._errors[None] = error.cause
            elif not self._machines.lives(actor.node):
                self._node_down(actor.node)
                return
            self._tell(WorkerDown(worker=name, cause=cause, text=text))
            return
        self._tell(WorkerUp(worker=name))

    def _answer(self, name: str, actor: _Actor) -> None:
        attempt, call = actor.attempt, actor.call
        actor.attempt = actor.call = None
        if attempt is None:
            return
        chunk_id = attempt.key.chunk
        try:
            result: object = ray.get(call)
        except RayTaskError as error:
            cause, line, own = causes.raised(error)
            if own is not None:
                self._errors[attempt.key] = own
            text = f"{name} failed on {chunk_id}: {line}"
            self._tell(Failed(attempt=attempt, cause=cause, text=text))
            return
        except RayError as error:  # it, or its node, died or was ended
            self._lost(name, actor, error, f" while it had {chunk_id}")
            return
        job = self._jobs.get(attempt.key)
        expected = ChunkResult if isinstance(job, ProveJob) else SetupResult
        if not isinstance(result, expected) or result.chunk_id != chunk_id:
            # No answer at all is refused as a wrong one is: honest workers do not do this.
            self._tell(Answered(attempt=attempt))
            text = f"{name} did not answer for {chunk_id}, which it had"
            self._tell(Refused(attempt=attempt, text=text))
            return
        self._results[attempt] = result
        self._tell(Answered(attempt=attempt))
        self._results.pop(attempt, None)  # of an attempt that no longer counts

    def _lost(self, name: str, actor: _Actor, error: RayError, what_it_had: str) -> None:
        cause, became = causes.died(error)
        self._kill(name)
        if not self._machines.lives(actor.node):
            self._node_down(actor.node)
            return
        if cause is Cause.PROCESS and self._machines.killed_for_memory(actor.node):
            cause, became = Cause.MEMORY, "was ended by the kernel for lack of memory"
        self._tell(WorkerDown(worker=name, cause=cause, text=f"{name} {became}{what_it_had}"))

    def _node_down(self, node: str) -> None:
        """A machine is lost, and all its workers with it."""
        for name in [name for name, actor in self._actors.items() if actor.node == node]:
            self._kill(name)
        self._tell(NodeDown(node=node))

    def _look(self) -> None:
        """Look at machines and processes."""
        self._looked_at = time.monotonic()
        try:
            changes = self._machines.changes(self._reserved())
        except Exception as error:  # Ray has many
            line = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ClusterError(f"Ray does not answer any more: {line}") from None
        for change in changes:
            if isinstance(change, NodeDown):
                self._node_down(change.node)
            else:
                self._tell(change)
        pids: dict[str, tuple[int, ...]] = {}
        for actor in self._actors.values():
            if actor.pid is not None:
                pids[actor.node] = (*pids.get(actor.node, ()), actor.pid)
        stopped = self._machines.stopped(pids)
        for name, actor in list(self._actors.items()):
            is_stopped = actor.pid in stopped.get(actor.node, frozenset())
            if is_stopped != actor.stopped:
                actor.stopped = is_stopped
                self._tell(WorkerSeen(worker=name, running=not is_stopped))

    def _reserved(self) -> dict[str, tuple[int, int]]:
        """Per node whose capacity is to be looked at again, what workers there hold.

        Only while workers lack; and not where one is starting, which may hold it already or not.
        """
        if len(self._actors) >= self._scheduler.need.workers:
            return {}
        found = dict.fromkeys(self._scheduler.nodes, (0, 0))
        for actor in self._actors.values():
            if actor.node in found:
                cpus, memory_bytes = found[actor.node]
                found[actor.node] = cpus + actor.cpus, memory_bytes + actor.memory_bytes
        for actor in self._actors.values():
            if actor.pid is None:
                found.pop(actor.node, None)
        return found

    # --- the scheduler's hands --------------------------------------------------------------------

    def _tell(self, event: Event) -> None:
        for instruction in self._scheduler.handle(event, time.monotonic()):
            self._do(instruction)

    def _do(self, instruction: Instruction) -> None:
        if isinstance(instruction, StartWorker):
            self._start(instruction)
        elif isinstance(instruction, EndWorker):
            self._kill(instruction.worker)
        elif isinstance(instruction, HandOut):
            self._hand_out(instruction)
        elif isinstance(instruction, Deliver):
            attempt = instruction.attempt
            result = self._results.pop(attempt, None)
            if result is not None:
                self._out.append(
                    Completed(
                        worker=attempt.worker,
                        run_id=attempt.key.job,
                        attempt=attempt.number,
                        result=result,
                    )
                )
        elif isinstance(instruction, Report):
            failed = instruction.attempt
            self._out.append(
                Trouble(
                    cause=instruction.cause,
                    message=instruction.text,
                    worker=instruction.worker,
                    run_id="" if failed is None else failed.key.job,
                    chunk_id="" if failed is None else failed.key.chunk,
                    attempt=None if failed is None else failed.number,
                )
            )
        else:
            error = self._error(instruction)
            if instruction.job is None:
                raise error
            self._out.append(GivenUp(run_id=instruction.job, error=error))

    def _start(self, told: StartWorker) -> None:
        chosen: dict[str, Any] = {
            "num_cpus": told.cpus,
            "max_restarts": 0,
            "memory": told.memory_bytes,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id=told.node, soft=False),
        }
        if self._environment is not None:
            chosen["runtime_env"] = {"env_vars": dict(self._environment(told.cpus))}
        handle = ray.remote(ChunkWorker).options(**chosen).remote(self._store_url)
        self._actors[told.worker] = _Actor(
            node=told.node,
            cpus=told.cpus,
            memory_bytes=told.memory_bytes or 0,
            handle=handle,
            ready=handle.ready.remote(),
        )

    def _hand_out(self, told: HandOut) -> None:
        attempt = told.attempt
        actor, job = self._actors[attempt.worker], self._jobs[attempt.key]
        if told.own_keys:
            # Keys from the store get one chance: the next attempt makes its own.
            job = replace(job, stored_keys=None)
        method = actor.handle.prove if isinstance(job, ProveJob) else actor.handle.setup
        actor.attempt, actor.call = attempt, method.remote(job)
        self._out.append(
            Assigned(
                worker=attempt.worker,
                run_id=attempt.key.job,
                chunk_id=attempt.key.chunk,
                attempt=attempt.number,
            )
        )

    def _kill(self, name: str) -> None:
        actor = self._actors.pop(name, None)
        if actor is not None:
            ray.kill(actor.handle, no_restart=True)

    def _error(self, stop: Stop) -> ZkmlRayError:
        """The error that a run, or all of them, ends with."""
        own = self._errors.get(stop.key)
        if stop.cause is Cause.FINAL and own is not None:
            return own
        if stop.cause is Cause.CONFIGURATION:
            return own if own is not None else ConfigError(stop.text)
        if stop.cause in (Cause.CAPACITY, Cause.START):
            return ClusterError(stop.text)
        if stop.cause is Cause.STORE:
            return StoreUnavailableError(stop.text)
        if stop.key is None:
            return ClusterError(stop.text)
        stage = "prove" if isinstance(self._jobs.get(stop.key), ProveJob) else "setup"
        return StageError(stop.text, stage=stage, chunk_id=stop.key.chunk)

    def _taken(self) -> list[PoolEvent]:
        taken, self._out = self._out, []
        return taken


def worker_environment(threads: int) -> dict[str, str]:
    """Variables of a worker's process.

    Args:
        threads: Its prover threads.
    """
    passed = {"RAYON_NUM_THREADS": str(threads), "RUST_BACKTRACE": "0"}
    if cache := os.environ.get("ZKML_RAY_CACHE"):
        passed["ZKML_RAY_CACHE"] = cache
    return passed
