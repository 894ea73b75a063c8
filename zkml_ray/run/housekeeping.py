"""Looking after a project's runs in a store: list, remove, collect garbage.

A run exists once its manifest does, and is under way from its request until then. Objects that
runs share belong to nobody: `collect` removes those that no run refers to, neither a manifest nor
what a run under way has stored so far. A store gives no age of an object and no lock, so nothing
shared is removed while a run is under way that was begun lately, and everything is looked at again
right before it is removed.

Left out: whole projects, and versions that a bucket keeps of what was deleted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Final, TypeVar

from zkml_ray import names
from zkml_ray.circuits.keycache import circuit_name
from zkml_ray.circuits.keyindex import find_keys
from zkml_ray.config import checked_name
from zkml_ray.errors import ConfigError
from zkml_ray.schema.document import MAX_DOCUMENT_BYTES, Document
from zkml_ray.schema.manifest import Manifest
from zkml_ray.schema.plan import Plan
from zkml_ray.schema.request import ChosenSrs, FinishedChunk, RunRequest
from zkml_ray.stores.base import ArtifactStore, UnfinishedUpload
from zkml_ray.stores.layout import RunLayout, run_objects

_RECORDS: Final = "records/"
_DocumentT = TypeVar("_DocumentT", bound=Document)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """A run as the store shows it.

    Attributes:
        run_id: Its id.
        state: "complete", "under way" (it can be resumed), or "left over" (remains of a run that
            was removed or never begun).
        created_at: When it was begun, UTC, ISO 8601.
        model: The model file's name.
        chunks: How many chunks it has; None before it is planned.
        proofs: How many of them are proved.
        srs_trust: "insecure" or "ceremony"; empty while that is open.
        plan_digest: Digest of the sealed plan; empty while there is none.
    """

    run_id: str
    state: str
    created_at: str = ""
    model: str = ""
    chunks: int | None = None
    proofs: int = 0
    srs_trust: str = ""
    plan_digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """What a project's store holds and no run refers to.

    Attributes:
        objects: Per key, its size in bytes.
        uploads: Writes that nobody finished.
        held_by: Runs under way, begun lately, for whose sake nothing shared is listed.
    """

    objects: dict[str, int]
    uploads: tuple[UnfinishedUpload, ...]
    held_by: tuple[str, ...]


def list_runs(store: ArtifactStore, project: str) -> list[StoredRun]:
    """Every run of a project, complete or not, sorted by id.

    Raises:
        ManifestError: A run's manifest or request cannot be read.
        StoreError: The store cannot be read.
    """
    return [
        _described(store, RunLayout(project, run_id), keys)
        for run_id, keys in _run_keys(store, project).items()
    ]


def describe_run(store: ArtifactStore, layout: RunLayout) -> StoredRun:
    """One run as the store shows it.

    Raises:
        ConfigError: There is none.
        ManifestError: Its manifest or request cannot be read.
        StoreError: The store cannot be read.
    """
    return _described(store, layout, _existing_keys(store, layout))


def remove_run(store: ArtifactStore, layout: RunLayout) -> int:
    """Remove a run: its manifest first, so that it is gone, then its request, then the rest.

    What it shares with other runs stays, for `collect`. Interrupted, it is called again.

    Returns:
        How many objects were removed.

    Raises:
        ConfigError: There is none.
        StoreError: The store cannot be changed.
    """
    keys = _existing_keys(store, layout)
    first = [layout.manifest, layout.run_key(names.REQUEST)]
    for key in [key for key in first if key in keys] + [key for key in keys if key not in first]:
        store.delete(key)
    return len(keys)


def find_garbage(
    store: ArtifactStore, project: str, *, older_than: timedelta, now: datetime | None = None
) -> Garbage:
    """What no run of a project refers to. Removes nothing.

    Args:
        store: The store.
        project: The project.
        older_than: Runs under way that were begun later than this hold all shared objects, and
            unfinished uploads must be older.
        now: The time; default: now.

    Raises:
        ManifestError: A manifest, plan or request cannot be read: what it refers to is not known.
        StoreError: The store cannot be read.
    """
    limit = (now or datetime.now(timezone.utc)) - older_than
    prefix = f"projects/{checked_name('project', project)}/"
    shared = list(store.keys(f"{prefix}artifacts/"))  # listed before the runs that may use them
    found: list[str] = []
    referenced: set[str] = set()
    held_by: list[str] = []
    for run_id, keys in _run_keys(store, project).items():
        layout = RunLayout(project, run_id)
        if layout.manifest in keys:
            manifest = _read(store, Manifest, layout.manifest)
            mine = {ref.key for ref in manifest.artifacts.values()}
            referenced |= mine
            private = layout.run_key(names.PRIVATE)
            found += [key for key in keys if key.startswith(private) and key not in mine]
        elif layout.run_key(names.REQUEST) in keys:
            request = _read(store, RunRequest, layout.run_key(names.REQUEST))
            referenced.update(_references(store, layout, keys, request))
            if _begun(request) > limit:
                held_by.append(run_id)
        else:
            found += keys
    if not held_by:
        found += [key for key in shared if key not in referenced]
    uploads = tuple(upload for upload in store.unfinished(prefix) if upload.started <= limit)
    sizes = {key: store.size(key) for key in found}
    return Garbage(
        objects={key: size for key, size in sizes.items() if size is not None},
        uploads=uploads,
        held_by=tuple(held_by),
    )


def collect(
    store: ArtifactStore, project: str, garbage: Garbage, *, older_than: timedelta
) -> Garbage:
    """Remove garbage that still is garbage.

    Args:
        store: The store.
        project: The project.
        garbage: What was found before.
        older_than: As for `find_garbage`.

    Returns:
        What was removed.

    Raises:
        ManifestError: As for `find_garbage`; nothing was removed.
        StoreError: The store cannot be read or changed.
    """
    still = find_garbage(store, project, older_than=older_than)
    objects = {key: size for key, size in garbage.objects.items() if key in still.objects}
    uploads = tuple(upload for upload in garbage.uploads if upload in still.uploads)
    for key in objects:
        store.delete(key)
    for upload in uploads:
        store.discard(upload)
    return Garbage(objects=objects, uploads=uploads, held_by=still.held_by)


def _run_keys(store: ArtifactStore, project: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for run_id, _, key in run_objects(store, project):
        found.setdefault(run_id, []).append(key)
    return found


def _existing_keys(store: ArtifactStore, layout: RunLayout) -> list[str]:
    keys = list(store.keys(layout.run_key("")))
    if not keys:
        raise ConfigError(
            f"no run {layout.run_id} in project {layout.project} of {store.url}; list them with: "
            "zkml-ray runs"
        )
    return keys


def _described(store: ArtifactStore, layout: RunLayout, keys: list[str]) -> StoredRun:
    proofs = sum(key.startswith(layout.run_key("proofs/")) for key in keys)
    if layout.manifest in keys:
        manifest = _read(store, Manifest, layout.manifest)
        return StoredRun(
            run_id=layout.run_id,
            state="complete",
            created_at=manifest.created_at,
            model=manifest.model_file,
            chunks=len(manifest.chunks),
            proofs=proofs,
            srs_trust=manifest.srs_trust,
            plan_digest=manifest.plan_sha256,
        )
    if layout.run_key(names.REQUEST) not in keys:
        return StoredRun(run_id=layout.run_id, state="left over", proofs=proofs)
    request = _read(store, RunRequest, layout.run_key(names.REQUEST))
    plan = layout.run_key(names.PLAN)
    return StoredRun(
        run_id=layout.run_id,
        state="under way",
        created_at=request.created_at,
        model=request.model_file,
        chunks=len(_read(store, Plan, plan).chunks) if plan in keys else None,
        proofs=proofs,
    )


def _references(
    store: ArtifactStore, layout: RunLayout, keys: list[str], request: RunRequest
) -> Iterator[str]:
    """Keys that a run under way needs to go on."""
    yield request.model.key
    yield request.input.key
    srs: dict[int, str] = {}
    if (key := layout.run_key(names.SRS)) in keys:
        pins = _read(store, ChosenSrs, key).pins
        srs = {pin.logrows: pin.sha256 for pin in pins}
        for pin in pins:
            yield layout.artifact_key("srs", pin.sha256)
            yield layout.artifact_key("srs", pin.verifier_sha256)
    if (key := layout.run_key(names.PLAN)) in keys:
        plan = _read(store, Plan, key)
        yield layout.artifact_key("models", plan.normalised_sha256)
        for chunk in plan.chunks:
            yield layout.artifact_key("circuits", chunk.onnx_sha256)
            yield layout.artifact_key("circuits", chunk.settings_sha256)
            if chunk.weights_sha256 is not None:
                yield layout.artifact_key("circuits", chunk.weights_sha256)
            if (sha256 := srs.get(chunk.arguments.logrows, "")) != "":
                circuit = circuit_name(chunk.onnx_sha256, chunk.settings_sha256)
                found = find_keys(store, layout, circuit, sha256)
                if found is not None:
                    index_ref, index = found
                    yield from (index_ref.key, index.vk.key, index.pk.key)
    for key in keys:
        if key.startswith(layout.run_key(_RECORDS)):
            yield _read(store, FinishedChunk, key).vk.key


def _read(store: ArtifactStore, kind: type[_DocumentT], key: str) -> _DocumentT:
    return kind.parse(store.get(key, max_bytes=MAX_DOCUMENT_BYTES), what=key)


def _begun(request: RunRequest) -> datetime:
    """When a run was begun; one that does not say counts as begun just now."""
    try:
        begun = datetime.fromisoformat(request.created_at)
    except ValueError:
        return datetime.max.replace(tzinfo=timezone.utc)
    return begun if begun.tzinfo else begun.replace(tzinfo=timezone.utc)
