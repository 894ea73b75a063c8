"""A node's copies of stored objects, addressed by digest and re-hashed on every read.

Several processes share one cache. An object is fetched under a lock into a temporary file, synced
and renamed: it is whole or absent. A copy whose bytes changed is fetched again; bytes that are
wrong twice on the way in are kept under quarantine/ (`<expected>.<got>`, the newest few) and
never handed out.

An `ObjectCache` pins what it has handed out (`zkml_ray.pins`) until it is closed or collected. When
a fetch would exceed the size cap, the least recently used objects that nobody pins go first. An
object larger than the cap is still fetched: its job cannot run without it.

Layout below the cache folder: objects/<sha256>, objects/<sha256>.lock, objects/.tmp-<sha256>
(the fetch in progress), pins/<sha256>, quarantine/. POSIX only (flock).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from types import TracebackType

from filelock import FileLock

from zkml_ray.canonical import file_sha256, sha256_hex
from zkml_ray.config import cache_dir, cache_max_bytes
from zkml_ray.errors import StoreError
from zkml_ray.pins import Pin, claimed
from zkml_ray.schema.artifact import ArtifactRef
from zkml_ray.stores.base import ArtifactStore, check_digest

_TEMPORARY = ".tmp-"
_LOCK = ".lock"
_QUARANTINED = 8
"""Objects kept in quarantine, the newest."""


class ObjectCache:
    """Objects of a store as files on this machine."""

    def __init__(
        self, store: ArtifactStore, root: Path | None = None, *, max_bytes: int | None = None
    ) -> None:
        """Use a cache folder, which is created on the first fetch.

        Args:
            store: Where objects come from.
            root: The cache folder; default: ZKML_RAY_CACHE.
            max_bytes: Size cap; default: ZKML_RAY_CACHE_MAX_BYTES.
        """
        folder = root or cache_dir()
        self._store = store
        self._objects, self._pins_folder = folder / "objects", folder / "pins"
        self._quarantine = folder / "quarantine"
        self._max_bytes = cache_max_bytes() if max_bytes is None else max_bytes
        self._pins: dict[str, Pin] = {}

    def path(self, ref: ArtifactRef) -> Path:
        """A local file with the object's bytes, kept until this cache is closed.

        Raises:
            ArtifactNotFoundError: Neither cache nor store has it.
            DigestMismatchError: The store's bytes, read twice, are not those recorded.
            StoreError: It cannot be fetched or kept.
        """
        path = self._objects / ref.sha256
        try:
            self._objects.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}{_LOCK}"):
                self._pin(ref.sha256)
                if not _is_intact(path, ref.sha256):
                    path.unlink(missing_ok=True)
                    self._make_room(ref.size_bytes)
                    self._fetch(ref, path)
                os.utime(path)
        except OSError as error:
            raise StoreError(
                f"cannot use the cache {self._objects.parent}: {error.strerror or error}; free "
                "some space or name another folder with ZKML_RAY_CACHE"
            ) from None
        return path

    def read(self, ref: ArtifactRef) -> bytes:
        """The object's bytes, through the cache; hashed as they are returned.

        Raises:
            StoreError: As `path`.
        """
        path = self.path(ref)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}") from None
        check_digest(ref, sha256_hex(data))
        return data

    def close(self) -> None:
        """Let go of what was handed out; it may be evicted from now on."""
        while self._pins:
            self._pins.popitem()[1].close()

    def __enter__(self) -> ObjectCache:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _pin(self, sha256: str) -> None:
        if sha256 not in self._pins:
            self._pins[sha256] = Pin(self._pins_folder, sha256)

    def _fetch(self, ref: ArtifactRef, path: Path) -> None:
        temporary = self._objects / f"{_TEMPORARY}{ref.sha256}"
        try:
            self._store.fetch_verified(ref, temporary, keep_bad=self._quarantine)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
            self._trim_quarantine()

    def _make_room(self, needed_bytes: int) -> None:
        """Evict until an object of this size fits below the cap, or nothing more can go."""
        copies = []
        for path in self._objects.iterdir():
            if path.suffix != _LOCK:
                with contextlib.suppress(FileNotFoundError):  # evicted by another process
                    status = path.stat()
                    copies.append((status.st_mtime_ns, status.st_size, path))
        excess = sum(size for _, size, _ in copies) + needed_bytes - self._max_bytes
        for _, size, path in sorted(copies):
            if excess <= 0:
                return
            if self._evict(path):
                excess -= size

    def _evict(self, path: Path) -> bool:
        sha256 = path.name.removeprefix(_TEMPORARY)
        if sha256 in self._pins:
            return False
        with claimed(self._pins_folder, sha256, Path(f"{self._objects / sha256}{_LOCK}")) as free:
            if free:
                path.unlink(missing_ok=True)
            return free

    def _trim_quarantine(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            kept = sorted(self._quarantine.iterdir(), key=lambda path: path.stat().st_mtime_ns)
            for path in kept[:-_QUARANTINED]:
                path.unlink(missing_ok=True)


def _is_intact(path: Path, sha256: str) -> bool:
    return path.is_file() and file_sha256(path) == sha256
