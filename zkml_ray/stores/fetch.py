"""Fetching a run: its artifacts by logical name, as files below one folder.

The manifest is not trusted: its names must be paths below a folder, its keys objects of the project
that the run may refer to, and what is secret to the prover stays away unless it is asked for. Each
file appears with the bytes that the manifest records, or not at all; the manifest comes last.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from zkml_ray import names
from zkml_ray.canonical import file_sha256
from zkml_ray.errors import ArtifactNotFoundError, ConfigError, ManifestError, StoreError
from zkml_ray.schema.artifact import ArtifactRef
from zkml_ray.schema.document import MAX_DOCUMENT_BYTES
from zkml_ray.schema.manifest import Manifest
from zkml_ray.stores.base import ArtifactStore, is_key
from zkml_ray.stores.layout import MANIFEST, RunLayout


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What `fetch` wrote.

    Attributes:
        files: Logical names, sorted.
        size_bytes: Their size together.
        private: Artifacts that were left out because they are secret to the prover.
    """

    files: tuple[str, ...]
    size_bytes: int
    private: int


def fetch_run(
    store: ArtifactStore, layout: RunLayout, folder: Path, *, private: bool = False
) -> Fetched:
    """Download a complete run's artifacts by logical name, each re-hashed; the manifest last.

    Args:
        store: The store.
        layout: The run.
        folder: Where to; created if need be. Nothing is written outside it.
        private: Fetch the input, boundary values and salts too.

    Raises:
        ConfigError: There is no such run, or the folder cannot hold it.
        ManifestError: The manifest is not valid, or names what no run may name.
        StoreError: An object is missing, was changed, or cannot be read.
    """
    try:
        data = store.get(layout.manifest, max_bytes=MAX_DOCUMENT_BYTES)
    except ArtifactNotFoundError:
        raise ConfigError(
            f"no complete run {layout.run_id} in project {layout.project} of {store.url}; list "
            "them with: zkml-ray runs"
        ) from None
    manifest = Manifest.parse(data, what=f"manifest of {layout.run_id}")
    if (manifest.project, manifest.run_id) != (layout.project, layout.run_id):
        raise ManifestError(f"the manifest of {layout.run_id} is that of another run")
    wanted = {}
    for name, ref in sorted(manifest.artifacts.items()):
        _check_artifact(layout, name, ref)
        if private or not _is_private(layout, name, ref):
            wanted[name] = ref
    try:
        folder.mkdir(parents=True, exist_ok=True)
        root = folder.resolve()
        for name, ref in wanted.items():
            _fetch(store, ref, root, name)
        with tempfile.NamedTemporaryFile(dir=root, delete=False) as file:
            file.write(data)
        Path(file.name).replace(root / MANIFEST)
    except OSError as error:
        raise ConfigError(f"cannot write to {folder}: {error.strerror or error}") from None
    return Fetched(
        files=tuple(wanted),
        size_bytes=sum(ref.size_bytes for ref in wanted.values()),
        private=len(manifest.artifacts) - len(wanted),
    )


def _check_artifact(layout: RunLayout, name: str, ref: ArtifactRef) -> None:
    """Refuse a name that is no path below a folder, and a key of another run or project."""
    if not is_key(name) or name == MANIFEST:
        raise ManifestError(
            f"the manifest of {layout.run_id} lists {name[:200]!r}, which is no logical name: "
            "nothing was fetched"
        )
    shared = f"projects/{layout.project}/artifacts/"
    if not ref.key.startswith((shared, layout.run_key(""))):
        raise ManifestError(
            f"the manifest of {layout.run_id} says that {name} is {ref.key}, an object of another "
            "run: nothing was fetched"
        )


def _is_private(layout: RunLayout, name: str, ref: ArtifactRef) -> bool:
    return name.startswith(names.PRIVATE) or ref.key.startswith(layout.run_key(names.PRIVATE))


def _fetch(store: ArtifactStore, ref: ArtifactRef, root: Path, name: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.parent.resolve().is_relative_to(root):
        raise ConfigError(f"{path.parent} leads out of {root}; fetch into an empty folder")
    if path.is_file() and not path.is_symlink() and file_sha256(path) == ref.sha256:
        return
    with tempfile.TemporaryDirectory(dir=root, prefix=".fetch-") as temporary:
        part = Path(temporary) / "part"
        try:
            store.fetch_verified(ref, part)
        except ArtifactNotFoundError as error:
            raise StoreError(f"the run's {name} is missing: {error}") from None
        part.replace(path)
