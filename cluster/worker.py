"""The actor: one process that proves one chunk at a time.

`ezkl.prove` holds the GIL from start to end, so the actor answers nothing meanwhile. Whether it is
stopped is seen from outside (`watching`), whether it died is Ray's to tell, deadlines are the
scheduler's.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from typing import Any

from zkml_ray.resident import keep_what_is_loaded, peak_rss
from zkml_ray.stages.prove import ChunkResult, ProveJob, prove_chunk
from zkml_ray.stages.setup import SetupJob, SetupResult, setup_chunk
from zkml_ray.stores import ArtifactStore, open_store


@dataclass(frozen=True, slots=True)
class Hello:
    """A worker's first answer.

    Attributes:
        pid: Its process, on its node.
    """

    pid: int


class ChunkWorker:
    """Proves chunks from the objects of one store."""

    def __init__(self, store_url: str) -> None:
        # Opened in `ready`: Ray shows an error that is raised here as a death without a cause.
        self._store_url = store_url
        self._opened: ArtifactStore | None = None

    def ready(self) -> Hello:
        """Answers once the process is up and its store is open.

        Raises:
            ConfigError: This node's environment lacks what the store needs.
        """
        self._opened = open_store(self._store_url)
        keep_what_is_loaded()
        return Hello(os.getpid())

    def resident_bytes(self) -> int:
        """Largest resident set of this process so far."""
        return peak_rss()

    def setup(self, job: SetupJob) -> SetupResult:
        """Make and store a chunk's keys; see `zkml_ray.stages.setup.setup_chunk`."""
        return setup_chunk(job, self._store)

    def prove(self, job: ProveJob) -> ChunkResult:
        """Prove a chunk; see `zkml_ray.stages.prove.prove_chunk`."""
        return prove_chunk(job, self._store)

    @property
    def _store(self) -> ArtifactStore:
        if self._opened is None:
            self.ready()
        assert self._opened is not None
        return self._opened


def idle_worker_bytes() -> int:
    """Resident set of a worker that has proved nothing yet. Needs a Ray session."""
    import ray

    with tempfile.TemporaryDirectory() as store:
        actor: Any = ray.remote(ChunkWorker).remote(store)
        found: int = ray.get(actor.resident_bytes.remote())
        ray.kill(actor, no_restart=True)
    return found
