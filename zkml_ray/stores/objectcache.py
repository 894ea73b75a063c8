"""A node's copies of stored objects, addressed by digest and re-hashed on every read."""

from __future__ import annotations

import tempfile
from pathlib import Path

from filelock import FileLock

from zkml_ray.canonical import file_sha256
from zkml_ray.config import cache_dir
from zkml_ray.schema.artifact import ArtifactRef
from zkml_ray.stores.base import ArtifactStore


class ObjectCache:
    """Objects of a store as files on this machine."""

    def __init__(self, store: ArtifactStore, root: Path | None = None) -> None:
        self._store = store
        self._root = (root or cache_dir()) / "objects"

    def path(self, ref: ArtifactRef) -> Path:
        """A local file with the object's bytes.

        Raises:
            StoreError: It cannot be fetched, or its bytes are not those recorded.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        path = self._root / ref.sha256
        with FileLock(str(path) + ".lock"):
            if path.is_file():
                if file_sha256(path) == ref.sha256:
                    return path
                path.unlink()
            with tempfile.TemporaryDirectory(dir=self._root) as folder:
                fetched = Path(folder) / ref.sha256
                self._store.fetch_verified(ref, fetched)
                fetched.replace(path)
        return path

    def read(self, ref: ArtifactRef) -> bytes:
        """The object's bytes, through the cache."""
        return self.path(ref).read_bytes()
