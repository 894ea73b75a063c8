"""The actor: one process that proves one chunk at a time.

`ezkl.prove` holds the GIL from start to end, so the actor answers nothing meanwhile. Liveness is
Ray's to tell (its own threads do not need the GIL), deadlines are the pool's.
"""

from __future__ import annotations

import tempfile
from typing import Any

from zkml_ray.resident import peak_rss
from zkml_ray.stages.prove import ChunkResult, ProveJob, prove_chunk
from zkml_ray.stages.setup import SetupJob, SetupResult, setup_chunk
from zkml_ray.stores import open_store


class ChunkWorker:
    """Proves chunks from the objects of one store."""

    def __init__(self, store_url: str) -> None:
        self._store = open_store(store_url)

    def ready(self) -> bool:
        """Answers once the process is up."""
        return True

    def resident_bytes(self) -> int:
        """Largest resident set of this process so far."""
        return peak_rss()

    def setup(self, job: SetupJob) -> SetupResult:
        """Make and store a chunk's keys; see `zkml_ray.stages.setup.setup_chunk`."""
        return setup_chunk(job, self._store)

    def prove(self, job: ProveJob) -> ChunkResult:
        """Prove a chunk; see `zkml_ray.stages.prove.prove_chunk`."""
        return prove_chunk(job, self._store)


def idle_worker_bytes() -> int:
    """Resident set of a worker that has proved nothing yet. Needs a Ray session."""
    import ray

    with tempfile.TemporaryDirectory() as store:
        actor: Any = ray.remote(ChunkWorker).remote(store)
        found: int = ray.get(actor.resident_bytes.remote())
        ray.kill(actor, no_restart=True)
    return found
