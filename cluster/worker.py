"""The actor: one process that proves one chunk at a time.

`ezkl.prove` holds the GIL from start to end, so the actor answers nothing meanwhile. Liveness is
Ray's to tell (its own threads do not need the GIL), deadlines are the pool's.
"""

from __future__ import annotations

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

    def setup(self, job: SetupJob) -> SetupResult:
        """Make and store a chunk's keys; see `zkml_ray.stages.setup.setup_chunk`."""
        return setup_chunk(job, self._store)

    def prove(self, job: ProveJob) -> ChunkResult:
        """Prove a chunk; see `zkml_ray.stages.prove.prove_chunk`."""
        return prove_chunk(job, self._store)
