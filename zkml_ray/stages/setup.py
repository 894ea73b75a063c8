"""Stage setup: a chunk's compiled circuit and its keys, on the worker that will prove it.

Keys are taken from this machine's key cache, else from the store, else made. A key that came from
the store is used for proving only and never enters the key cache (see `circuits.keyindex`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from zkml_ray.circuits.keycache import CachedCircuit, CachedKeys, KeyCache
from zkml_ray.circuits.keyindex import KeyIndex, store_keys, store_verifying_key
from zkml_ray.errors import ArtifactNotFoundError, DigestMismatchError
from zkml_ray.schema.artifact import ArtifactRef
from zkml_ray.schema.manifest import Span
from zkml_ray.schema.plan import ChunkPlan
from zkml_ray.stores.base import ArtifactStore
from zkml_ray.stores.layout import RunLayout
from zkml_ray.stores.objectcache import ObjectCache


class StoreKeys(str, Enum):
    """Which keys a run leaves in the store.

    Attributes:
        ALL: Proving keys too, so that other machines fetch them instead of making them.
        VERIFYING: Verifying keys alone: what a verifier needs.
        NONE: The manifest lists no keys: only whoever has the model can verify, by making them
            again. Verifying keys lie in the store while the run is under way, and until `gc`.
    """

    ALL = "all"
    VERIFYING = "verifying"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class SetupJob:
    """A chunk to set up.

    Attributes:
        project: Project in the store.
        run_id: The run.
        chunk: Its plan.
        onnx: Its model.
        settings: Its settings.
        weights: The weights that its circuit does not hold, if there are any.
        srs: SRS of its logrows.
        stored_keys: Its keys in the store, if they may be used.
        upload_keys: Store the proving key if it is made here.
    """

    project: str
    run_id: str
    chunk: ChunkPlan
    onnx: ArtifactRef
    settings: ArtifactRef
    srs: ArtifactRef
    weights: ArtifactRef | None = None
    stored_keys: KeyIndex | None = None
    upload_keys: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SetupResult:
    """A worker's answer.

    Attributes:
        chunk_id: The chunk.
        keys_made: Whether it made the keys (False: cached, or there already).
        setup: Time of compiling and keys.
    """

    chunk_id: str
    keys_made: bool
    setup: Span


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyChunk:
    """A chunk whose circuit and keys lie on this machine.

    Attributes:
        circuit: Its compiled circuit.
        srs: The SRS file.
        keys: Its keys.
        fetched: Whether the keys came from the store.
    """

    circuit: CachedCircuit
    srs: Path
    keys: CachedKeys
    fetched: bool


def setup_chunk(job: SetupJob, store: ArtifactStore) -> SetupResult:
    """Have a chunk's keys made and stored.

    Raises:
        StageError: ezkl failed.
        StoreError: An object cannot be fetched or stored, or was changed.
    """
    started = time.time()
    with ObjectCache(store) as objects:
        ready = make_ready(job, store, objects)
        if not ready.fetched:
            store_verifying_key(store, RunLayout(job.project, job.run_id), ready.keys)
    return SetupResult(
        chunk_id=job.chunk.id,
        keys_made=ready.keys.made,
        setup=Span(started_s=started, ended_s=time.time()),
    )


def make_ready(job: SetupJob, store: ArtifactStore, objects: ObjectCache) -> ReadyChunk:
    """Compile a chunk and find, fetch or make its keys.

    Args:
        job: The chunk.
        store: The store, for keys that are to be uploaded.
        objects: This machine's copies of stored objects; keeps what is returned.

    Raises:
        StageError: ezkl failed.
        StoreError: An object cannot be fetched or stored, or was changed.
    """
    cache = KeyCache()
    circuit = cache.circuit(objects.read(job.onnx), objects.read(job.settings))
    srs = objects.path(job.srs)
    keys = cache.made_keys(circuit, job.srs.sha256)
    stored = job.stored_keys
    if keys is None and stored is not None:
        fetched = _fetched(stored, objects)
        if fetched is not None:
            return ReadyChunk(circuit=circuit, srs=srs, keys=fetched, fetched=True)
        if job.upload_keys:
            store.delete(stored.vk.key)
            store.delete(stored.pk.key)
        stored = None
    keys = keys or cache.keys(circuit, srs, job.srs.sha256)
    if job.upload_keys and not _is_stored(stored, keys):
        layout = RunLayout(job.project, job.run_id)
        store_keys(store, layout, circuit.name, job.srs.sha256, keys)
    return ReadyChunk(circuit=circuit, srs=srs, keys=keys, fetched=False)


def _is_stored(index: KeyIndex | None, keys: CachedKeys) -> bool:
    found = None if index is None else (index.vk.sha256, index.pk.sha256)
    return found == (keys.vk_sha256, keys.pk_sha256)


def _fetched(index: KeyIndex, objects: ObjectCache) -> CachedKeys | None:
    """The stored keys, or None where one is missing or damaged."""
    try:
        return CachedKeys(
            vk=objects.path(index.vk),
            pk=objects.path(index.pk),
            vk_sha256=index.vk.sha256,
            pk_sha256=index.pk.sha256,
            made=False,
        )
    except (ArtifactNotFoundError, DigestMismatchError):
        return None
