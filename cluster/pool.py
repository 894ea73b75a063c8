"""The pool: hands chunks to workers, replaces dead workers, bounds attempts.

Ray's own retries are off (its default): only this pool knows which attempt counts. A result is
accepted only from the attempt that is current for its chunk. A chunk is tried at most
`MAX_ATTEMPTS` times; an error that says it is not retryable ends the run at once.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

from zkml_ray.cluster.worker import ChunkWorker
from zkml_ray.errors import StageError, StoreError, ZkmlRayError
from zkml_ray.stages.prove import ChunkResult, ProveJob
from zkml_ray.stages.setup import SetupJob, SetupResult

MAX_ATTEMPTS: Final[int] = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A worker's answer for a chunk.

    Attributes:
        worker: The worker's name.
        attempt: Which attempt it was, from 1.
        result: The answer, not yet checked.
    """

    worker: str
    attempt: int
    result: ChunkResult | SetupResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Assigned:
    """A chunk was handed to a worker."""

    worker: str
    chunk_id: str
    attempt: int


@dataclass(slots=True)
class _Worker:
    name: str
    actor: Any
    job: SetupJob | None = None
    call: Any = None
    attempt: int = 0
    overdue_at: float = 0.0


@dataclass(slots=True)
class _Queue:
    jobs: deque[SetupJob] = field(default_factory=deque)
    attempts: dict[str, int] = field(default_factory=dict)
    known: dict[str, SetupJob] = field(default_factory=dict)
    limits_s: dict[str, float] = field(default_factory=dict)


class WorkerPool:
    """N actors and a first-in-first-out queue of chunks that are ready to be proved."""

    def __init__(
        self,
        *,
        workers: int,
        cpus: int,
        store_url: str,
        environment: Mapping[str, str] | None = None,
        memory_bytes: int | None = None,
    ) -> None:
        """Start the actors (they come up in the background).

        Args:
            workers: How many.
            cpus: CPUs that each reserves.
            store_url: The store they read from.
            environment: Variables that they get; None: those of the cluster.
            memory_bytes: Memory that each reserves with Ray, which counts it but does not hold
                workers to it; None: none. Left out, with a warning, where no node has as much.
        """
        self._memory_bytes = memory_bytes if _has_memory(memory_bytes, workers) else None
        self.reserves_memory = memory_bytes is None or self._memory_bytes is not None
        self._cpus = cpus
        self._environment = environment
        self._store_url = store_url
        self._queue = _Queue()
        self._workers = [
            _Worker(name=f"worker-{index}", actor=self._start()) for index in range(workers)
        ]

    def submit(self, job: SetupJob, limit_s: float = float("inf")) -> list[Assigned]:
        """Queue a chunk to be proved (`ProveJob`) or only set up, and hand out what can be.

        Args:
            job: The chunk.
            limit_s: Longest time of an attempt; after it the worker is replaced.
        """
        self._queue.known[job.chunk.id] = job
        self._queue.limits_s[job.chunk.id] = limit_s
        self._queue.jobs.append(job)
        return self._assign()

    @property
    def busy(self) -> bool:
        """Whether any chunk is queued or being proved."""
        return bool(self._queue.jobs) or any(worker.job for worker in self._workers)

    def poll(self, timeout_s: float) -> list[Completed | Assigned]:
        """Wait for something to happen.

        Args:
            timeout_s: How long to wait at most; 0 only looks.

        Raises:
            ZkmlRayError: A chunk failed in a way that another attempt cannot mend, or failed
                `MAX_ATTEMPTS` times.
        """
        calls = {worker.call: worker for worker in self._workers if worker.call is not None}
        events: list[Completed | Assigned] = []
        if calls:
            overdue_at = min(worker.overdue_at for worker in calls.values())
            wait_s = min(timeout_s, max(0.0, overdue_at - time.monotonic()))
            done, _ = ray.wait(list(calls), num_returns=1, timeout=wait_s)
            for call in done:
                completed = self._collect(calls[call])
                if completed is not None:
                    events.append(completed)
        self._end_overdue()
        events += self._assign()
        return events

    def reject(self, completed: Completed, why: str) -> None:
        """Give a chunk whose answer was refused another attempt.

        Raises:
            StageError: It has had `MAX_ATTEMPTS`.
        """
        self._again(self._queue.known[completed.result.chunk_id], why)

    def close(self) -> None:
        """End the actors."""
        for worker in self._workers:
            ray.kill(worker.actor, no_restart=True)
        self._workers = []

    def _start(self) -> Any:
        chosen: dict[str, Any] = {"num_cpus": self._cpus, "max_restarts": 0}
        chosen["memory"] = self._memory_bytes
        if self._environment is not None:
            chosen["runtime_env"] = {"env_vars": dict(self._environment)}
        return ray.remote(ChunkWorker).options(**chosen).remote(self._store_url)

    def _assign(self) -> list[Assigned]:
        events = []
        for worker in self._workers:
            if worker.job is None and self._queue.jobs:
                job = self._queue.jobs.popleft()
                attempt = self._queue.attempts.get(job.chunk.id, 0) + 1
                self._queue.attempts[job.chunk.id] = attempt
                worker.job, worker.attempt = job, attempt
                worker.overdue_at = time.monotonic() + self._queue.limits_s[job.chunk.id]
                proves = isinstance(job, ProveJob)
                method = worker.actor.prove if proves else worker.actor.setup
                worker.call = method.remote(job)
                events.append(Assigned(worker=worker.name, chunk_id=job.chunk.id, attempt=attempt))
        return events

    def _end_overdue(self) -> None:
        """Replace workers whose attempt has taken too long."""
        for worker in self._workers:
            job = worker.job
            if job is None or time.monotonic() < worker.overdue_at:
                continue
            if ray.wait([worker.call], timeout=0)[0]:  # done in time; the next poll collects it
                continue
            ray.kill(worker.actor, no_restart=True)
            worker.job = worker.call = None
            worker.actor = self._start()
            limit_s = self._queue.limits_s[job.chunk.id]
            self._again(job, f"{worker.name} had {job.chunk.id} for more than {limit_s:.0f} s")

    def _collect(self, worker: _Worker) -> Completed | None:
        job, call, attempt = worker.job, worker.call, worker.attempt
        worker.job = worker.call = None
        if job is None:
            return None
        try:
            result: object = ray.get(call)
        except RayTaskError as error:
            cause = error.cause if isinstance(error.cause, ZkmlRayError) else None
            if cause is not None and not _retryable(cause):
                raise cause from None
            found = cause or error.cause or error
            line = (str(found).strip() or type(found).__name__).splitlines()[0]
            self._again(job, f"{worker.name} failed on {job.chunk.id}: {line}")
            return None
        except RayError as error:  # it, or its node, died or was ended
            ray.kill(worker.actor, no_restart=True)
            worker.actor = self._start()
            why = "was ended for lack of memory" if isinstance(error, OutOfMemoryError) else "died"
            self._again(job, f"{worker.name} {why} while it had {job.chunk.id}")
            return None
        expected = ChunkResult if isinstance(job, ProveJob) else SetupResult
        if not isinstance(result, expected) or result.chunk_id != job.chunk.id:
            self._again(job, f"{worker.name} did not answer for {job.chunk.id}, which it had")
            return None
        return Completed(worker=worker.name, attempt=attempt, result=result)

    def _again(self, job: SetupJob, why: str) -> None:
        if self._queue.attempts[job.chunk.id] >= MAX_ATTEMPTS:
            raise StageError(
                f"{job.chunk.id} failed {MAX_ATTEMPTS} times, last: {why}; if it died of memory, "
                "use fewer workers or fewer layers per chunk",
                stage="prove" if isinstance(job, ProveJob) else "setup",
                chunk_id=job.chunk.id,
            )
        # Keys from the store get one chance: whatever went wrong, the next attempt makes its own.
        self._queue.jobs.appendleft(replace(job, stored_keys=None))


def worker_environment(threads: int) -> dict[str, str]:
    """Variables of a worker's process.

    Args:
        threads: Its prover threads.
    """
    passed = {"RAYON_NUM_THREADS": str(threads), "RUST_BACKTRACE": "0"}
    if cache := os.environ.get("ZKML_RAY_CACHE"):
        passed["ZKML_RAY_CACHE"] = cache
    return passed


def _has_memory(memory_bytes: int | None, workers: int) -> bool:
    """Whether the cluster can reserve so much for every worker."""
    if memory_bytes is None:
        return False
    rooms = [
        int(node["Resources"].get("memory", 0)) // memory_bytes
        for node in ray.nodes()
        if node["Alive"]
    ]
    return sum(rooms) >= workers


def _retryable(error: ZkmlRayError) -> bool:
    return isinstance(error, StoreError) or (isinstance(error, StageError) and error.retryable)
