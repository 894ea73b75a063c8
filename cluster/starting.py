"""A pool whose Ray is still starting.

Ray takes seconds to start, most of them waiting. Meanwhile the run is planned and its witnesses are
made: chunks that are ready wait here, and whoever polls for results waits for Ray. Calls into Ray
are shielded from signals (`zkml_ray.interrupts`).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from zkml_ray.cluster.pool import Completed, PoolEvent, WorkerPool
from zkml_ray.interrupts import shielded
from zkml_ray.stages.setup import SetupJob


class StartingPool:
    """Chunks for workers that come up in the background; otherwise a `WorkerPool`."""

    def __init__(
        self,
        start: Callable[[], WorkerPool],
        started: Callable[[], None],
        end: Callable[[], None],
    ) -> None:
        """Begin to start.

        Args:
            start: Starts Ray and its workers; called in a thread of its own.
            started: Called once in the thread that polls, before any chunk is handed out.
            end: Ends Ray; called in the thread of `start`, or Ray takes 20 seconds to end.
        """
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ray")
        self._starting: Future[WorkerPool] = self._executor.submit(start)
        self._started = started
        self._end = end
        self._pool: WorkerPool | None = None
        self._waiting: list[tuple[SetupJob, dict[str, float]]] = []

    def submit(self, job: SetupJob, **expected: float) -> None:
        """As `WorkerPool.submit`; nothing is handed out before the workers are there."""
        if self._pool is None:
            self._waiting.append((job, expected))
            return
        with shielded():
            self._pool.submit(job, **expected)

    @property
    def waiting(self) -> int:
        """Chunks that no worker has."""
        return len(self._waiting) if self._pool is None else self._pool.waiting

    @property
    def busy(self) -> bool:
        """Whether any chunk waits, is queued or is being proved."""
        return bool(self._waiting) or (self._pool is not None and self._pool.busy)

    def poll(self, timeout_s: float) -> list[PoolEvent]:
        """As `WorkerPool.poll`; at first it waits for the workers.

        Raises:
            ClusterError: Ray could not be started or joined.
            ZkmlRayError: As `WorkerPool.poll`.
        """
        if self._pool is None:
            done, _ = wait([self._starting], timeout_s)
            if not done:
                return []
            self._pool = self._starting.result()
            self._started()
            with shielded():
                for job, expected in self._waiting:
                    self._pool.submit(job, **expected)
            self._waiting.clear()
            timeout_s = 0.0
        with shielded():
            return self._pool.poll(timeout_s)

    def accept(self, completed: Completed) -> None:
        """As `WorkerPool.accept`."""
        if self._pool is None:
            raise ValueError("no worker answered yet")
        with shielded():
            self._pool.accept(completed)

    def reject(self, completed: Completed, why: str) -> None:
        """As `WorkerPool.reject`."""
        if self._pool is None:
            raise ValueError("no worker answered yet")
        with shielded():
            self._pool.reject(completed, why)

    def forget(self, run_id: str) -> None:
        """As `WorkerPool.forget`."""
        self._waiting = [(job, given) for job, given in self._waiting if job.run_id != run_id]
        if self._pool is not None:
            with shielded():
                self._pool.forget(run_id)

    def close(self) -> None:
        """End the workers and Ray; those that are still starting are waited for."""
        try:
            self._executor.submit(self._close).result()
        finally:
            self._executor.shutdown()

    def _close(self) -> None:
        try:
            if self._starting.exception() is None:
                self._starting.result().close()
        finally:
            self._end()
