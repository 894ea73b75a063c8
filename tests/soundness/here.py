"""Real runs without Ray: the coordinator's worker is this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from zkml_ray.cluster.pool import Completed, PoolEvent
from zkml_ray.cluster.starting import StartingPool
from zkml_ray.cluster.worker import ChunkWorker
from zkml_ray.errors import ZkmlRayError
from zkml_ray.events import ignore
from zkml_ray.run.conduct import conduct
from zkml_ray.run.coordinator import RunOutcome
from zkml_ray.run.execution import begin, coordinating, read_model
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

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def submit(self, job: SetupJob, **expected: float) -> None:
        self._waiting.append(job)

    def poll(self, timeout_s: float) -> list[PoolEvent]:
        if not self._waiting:
            return []
        job = self._waiting.pop(0)
        prove = isinstance(job, ProveJob)
        result = self._worker.prove(job) if prove else self._worker.setup(job)
        return [Completed(worker="here", run_id=job.run_id, attempt=1, result=result)]

    def accept(self, completed: Completed) -> None:
        pass

    def forget(self, run_id: str) -> None:
        pass

    def reject(self, completed: Completed, why: str) -> None:
        raise AssertionError(why)


def prove_here(model: Path, *, store: Path, run_id: str, **arguments: Any) -> RunOutcome:
    """Prove a run; the arguments are those of `zkml_ray.prove_distributed`."""
    usual: dict[str, Any] = {
        "inputs": None,
        "project": "default",
        "reveal": None,
        "private_input": False,
        "allow_leaky_native": False,
        "max_error": None,
        "seeded_salts": False,
        "keep_checkpoints": True,
        "command": (),
    }
    given = {**usual, **arguments}
    inputs = given.pop("inputs")
    read = read_model(model, inputs, given.pop("options", None))
    model_input = read.input(inputs, given.pop("seed", 0))
    begun = begin(read, model_input, store=store, run_id=run_id, **given)
    pool = cast(StartingPool, PoolHere(store))
    with recorded(begun.journal, ignore) as told:
        coordinator = coordinating(begun, None, pool, 1, 1, StoreKeys.VERIFYING, told)
        ((_, outcome),) = conduct([coordinator], pool, 1)
        if isinstance(outcome, ZkmlRayError):
            raise outcome
    return outcome
