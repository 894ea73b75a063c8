"""Stage prove: all that a worker does for one chunk, in its own process.

From references to stored objects to a proof: set up (compile, find or make the keys), regenerate
the witness from the boundary checkpoints, prove. The worker is given nothing it could not check by
digest, and what it returns is checked by the coordinator.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from zkml_ray.circuits import backend, challenge
from zkml_ray.errors import StageError
from zkml_ray.machine import cores
from zkml_ray.resident import peak_rss, release_memory, reset_peak_rss
from zkml_ray.schema.artifact import ArtifactRef
from zkml_ray.schema.checkpoint import BoundaryCheckpoint
from zkml_ray.schema.manifest import Span
from zkml_ray.schema.plan import BoundaryPlan
from zkml_ray.schema.proof import ChunkProof
from zkml_ray.scratch import scratch_folder
from zkml_ray.stages.setup import ReadyChunk, SetupJob, make_ready
from zkml_ray.stages.witness import BoundaryValues, forward
from zkml_ray.stores.base import ArtifactStore
from zkml_ray.stores.objectcache import ObjectCache


@dataclass(frozen=True, slots=True, kw_only=True)
class ProveJob(SetupJob):
    """A chunk to set up and prove.

    Attributes:
        boundaries: Plans of the boundaries it touches.
        checkpoints: Values and salts of every boundary it touches.
    """

    boundaries: tuple[BoundaryPlan, ...]
    checkpoints: Mapping[str, ArtifactRef]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkResult:
    """A worker's answer.

    Attributes:
        chunk_id: The chunk.
        proof: Its proof.
        vk: The verifying key that the worker used.
        keys_made: Whether it made the keys (False: cached).
        setup: Time of compiling and keys.
        witness: Time of regenerating the witness.
        prove: Time of proving.
        peak_rss_bytes: Largest resident set of the process meanwhile.
        pid: Its process id.
        node: Its host's name.
        threads: Prover threads.
    """

    chunk_id: str
    proof: ChunkProof
    vk: bytes
    keys_made: bool
    setup: Span
    witness: Span
    prove: Span
    peak_rss_bytes: int
    pid: int
    node: str
    threads: int


def prove_chunk(job: ProveJob, store: ArtifactStore) -> ChunkResult:
    """Prove one chunk.

    Args:
        job: The chunk and where its objects lie.
        store: The store that holds them.

    Raises:
        StageError: ezkl failed, or the regenerated witness is not the planned one.
        StoreError: An object cannot be fetched, or was changed.
    """
    release_memory()
    reset_peak_rss()
    started = time.time()
    objects = ObjectCache(store)
    ready = make_ready(job, store, objects)
    release_memory()
    setup_ended = time.time()
    boundaries = {boundary.name: boundary for boundary in job.boundaries}
    known = {
        name: _checkpoint(job, name, store.read_verified(ref))
        for name, ref in job.checkpoints.items()
    }
    with scratch_folder() as folder:
        witness_path = folder / "witness.json"
        result = forward(
            job.chunk,
            boundaries,
            ready.circuit,
            {name: known[name] for name in job.chunk.inputs},
            {name: known[name].salts for name in job.chunk.outputs},
            witness_path,
        )
        for name, made in result.outgoing.items():
            if list(made.values) != list(known[name].values):
                raise StageError(
                    f"{job.chunk.id}: boundary {name} came out differently on this worker",
                    stage="witness",
                    chunk_id=job.chunk.id,
                )
        begins = b""
        if job.weights is not None:
            begins = challenge.answer(
                job.chunk,
                weights=objects.read(job.weights),
                vk_sha256=ready.keys.vk_sha256,
                leaves=result.instances(),
                vk_path=ready.keys.vk,
                settings_path=ready.circuit.settings,
                srs_path=ready.srs,
                witness_path=witness_path,
            )
        witness_ended = time.time()
        proof = _prove(job.chunk.id, witness_path, ready)
        if not proof.proof.startswith(begins.hex()):
            raise StageError(
                f"{job.chunk.id}: ezkl's proof does not begin with the commitments that its "
                "challenges were drawn from; this is a defect of zkml_ray, please report it",
                stage="prove",
                chunk_id=job.chunk.id,
            )
    proved = time.time()
    return ChunkResult(
        chunk_id=job.chunk.id,
        proof=proof,
        vk=ready.keys.vk.read_bytes(),
        keys_made=ready.keys.made,
        setup=Span(started_s=started, ended_s=setup_ended),
        witness=Span(started_s=setup_ended, ended_s=witness_ended),
        prove=Span(started_s=witness_ended, ended_s=proved),
        peak_rss_bytes=peak_rss(),
        pid=os.getpid(),
        node=socket.gethostname(),
        threads=int(os.environ.get("RAYON_NUM_THREADS") or cores()),
    )


def _prove(chunk_id: str, witness_path: Path, ready: ReadyChunk) -> ChunkProof:
    try:
        return backend.prove(
            chunk_id, witness_path, ready.circuit.compiled, ready.keys.pk, ready.srs
        )
    except StageError as error:
        error.retryable = error.retryable or ready.fetched  # the next attempt makes its own keys
        raise


def _checkpoint(job: ProveJob, name: str, data: bytes) -> BoundaryValues:
    checkpoint = BoundaryCheckpoint.parse(data, what=f"checkpoint of boundary {name}")
    if (checkpoint.run_id, checkpoint.boundary) != (job.run_id, name):
        raise StageError(
            f"{job.chunk.id}: the checkpoint of boundary {name} belongs to boundary "
            f"{checkpoint.boundary} of run {checkpoint.run_id}",
            stage="witness",
            chunk_id=job.chunk.id,
        )
    return BoundaryValues(values=checkpoint.values, salts=checkpoint.salts)
