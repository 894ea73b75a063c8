"""Real runs without Ray: the coordinator's worker is this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from zkml_ray.cluster.pool import Assigned, Completed
from zkml_ray.cluster.starting import StartingPool
from zkml_ray.cluster.worker import ChunkWorker
from zkml_ray.events import ignore
from zkml_ray.run.coordinator import RunOutcome
from zkml_ray.run.execution import begin, coordinating
from zkml_ray.run.recording import recorded
from zkml_ray.stages.prove import ProveJob
from zkml_ray.stages.setup import SetupJob, StoreKeys


class PoolHere:
    """Does each chunk when it is asked for the answer."""

    def __init__(self, store: Path) -> None:
        self._worker = ChunkWorker(str(store))
        self._waiting: list[SetupJob] = []

    @property
    def busy(self) -> bool:
        return bool(self._waiting)

    def submit(self, job: SetupJob, limit_s: float = float("inf")) -> list[Assigned]:
        self._waiting.append(job)
        return []

    def poll(self, timeout_s: float) -> list[Completed | Assigned]:
        if not self._waiting:
            return []
        job = self._waiting.pop(0)
        prove = isinstance(job, ProveJob)
        result = self._worker.prove(job) if prove else self._worker.setup(job)
        return [Completed(worker="here", attempt=1, result=result)]

    def reject(self, completed: Completed, why: str) -> None:
        raise AssertionError(why)


def prove_here(model: Path, *, store: Path, run_id: str, **arguments: Any) -> RunOutcome:
    """Prove a run; the arguments are those of `zkml_ray.prove_distributed`."""
    usual: dict[str, Any] = {
        "inputs": None,
        "project": "default",
        "options": None,
        "reveal": None,
        "private_input": False,
        "allow_leaky_native": False,
        "max_error": None,
        "seeded_salts": False,
        "keep_checkpoints": True,
        "seed": 0,
        "command": (),
    }
    begun = begin(model, store=store, run_id=run_id, **{**usual, **arguments})
    pool = cast(StartingPool, PoolHere(store))
    with recorded(begun.journal, ignore) as told:
        return coordinating(begun, None, pool, 1, 1, StoreKeys.VERIFYING, told).run()
