"""A store in a local folder. Writes go to a temporary file, are synced and renamed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from datetime import datetime, timezone
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from zkml_ray.canonical import READ_BLOCK_BYTES
from zkml_ray.errors import ArtifactNotFoundError, ObjectTooLargeError, StoreError
from zkml_ray.stores.base import (
    ArtifactStore,
    ObjectInfo,
    UnfinishedUpload,
    check_source,
    checked_key,
    is_key,
)

_TEMPORARY = ".tmp-"


class LocalStore(ArtifactStore):
    """Objects as files below a folder, which is created on the first write."""

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root).expanduser().absolute()

    def __repr__(self) -> str:
        return f"LocalStore({str(self._root)!r})"

    @property
    def folder(self) -> Path:
        """The folder, which need not be there yet."""
        return self._root

    @property
    def url(self) -> str:
        """file:// URL of the folder."""
        return f"file://{self._root}"

    def put(self, key: str, data: bytes) -> None:
        """See `ArtifactStore.put`."""
        self._write(key, BytesIO(data), None)

    def put_file(self, key: str, path: Path, *, sha256: str | None = None) -> str:
        """See `ArtifactStore.put_file`."""
        try:
            with path.open("rb") as source:
                return self._write(key, source, sha256)
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}") from None

    def get(self, key: str, *, max_bytes: int) -> bytes:
        """See `ArtifactStore.get`."""
        with self._reading(key, max_bytes) as source:
            data = source.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise ObjectTooLargeError(f"{key} has more than the {max_bytes} bytes expected")
        return data

    def get_file(self, key: str, path: Path, *, max_bytes: int | None = None) -> None:
        """See `ArtifactStore.get_file`."""
        with self._reading(key, max_bytes) as source:
            try:
                with path.open("wb") as target:
                    while block := source.read(READ_BLOCK_BYTES):
                        target.write(block)
            except OSError as error:
                raise StoreError(f"cannot write {path}: {error.strerror}") from None

    def head(self, key: str) -> ObjectInfo | None:
        """See `ArtifactStore.head`."""
        path = self._path(key)
        try:
            return ObjectInfo(size_bytes=path.stat().st_size) if path.is_file() else None
        except OSError as error:
            raise StoreError(f"cannot look for {key} in {self._root}: {error.strerror}") from None

    def keys(self, prefix: str) -> Iterator[str]:
        """See `ArtifactStore.keys`."""
        return iter(sorted(key for key in self._files(prefix) if is_key(key)))

    def delete(self, key: str) -> None:
        """See `ArtifactStore.delete`."""
        self._unlink(self._path(key))

    def unfinished(self, prefix: str = "") -> Iterator[UnfinishedUpload]:
        """See `ArtifactStore.unfinished`."""
        for name in sorted(self._files(prefix)):
            folder, _, file = name.rpartition("/")
            if file.startswith(_TEMPORARY):
                with contextlib.suppress(FileNotFoundError):  # finished meanwhile
                    changed = (self._root / name).stat().st_mtime
                    yield UnfinishedUpload(
                        key=folder,
                        upload_id=name,
                        started=datetime.fromtimestamp(changed, tz=timezone.utc),
                    )

    def discard(self, upload: UnfinishedUpload) -> None:
        """See `ArtifactStore.discard`."""
        folder, _, file = upload.upload_id.rpartition("/")
        if not file.startswith(_TEMPORARY) or "/" in file:
            raise StoreError(f"{upload.upload_id!r} is no unfinished write")
        parent = self._path(folder) if folder else self._root
        self._unlink(parent / file)

    def _path(self, key: str) -> Path:
        return self._root / checked_key(key)

    def _files(self, prefix: str) -> Iterator[str]:
        if ".." in prefix.split("/"):
            raise StoreError(f"{prefix!r} leads out of the store")
        folder = self._root / prefix.rpartition("/")[0]
        for path in folder.rglob("*"):
            name = path.relative_to(self._root).as_posix()
            if name.startswith(prefix) and path.is_file():
                yield name

    def _unlink(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"cannot delete {path}: {error.strerror}") from None

    @contextlib.contextmanager
    def _reading(self, key: str, max_bytes: int | None) -> Iterator[BinaryIO]:
        path = self._path(key)
        try:
            # A pipe that somebody left there must not be waited for.
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as source:
                size_bytes = os.fstat(source.fileno()).st_size
                if max_bytes is not None and size_bytes > max_bytes:
                    raise ObjectTooLargeError(
                        f"{key} has {size_bytes} bytes; at most {max_bytes} were expected"
                    )
                yield source
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise ArtifactNotFoundError(f"{self._root} has no object {key}") from None
        except OSError as error:
            raise StoreError(f"cannot read {key} in {self._root}: {error.strerror}") from None

    def _write(self, key: str, source: BinaryIO, sha256: str | None) -> str:
        path = self._path(key)
        digest = hashlib.sha256()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=path.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    while block := source.read(READ_BLOCK_BYTES):
                        digest.update(block)
                        file.write(block)
                    file.flush()
                    os.fsync(file.fileno())
                check_source(key, sha256, digest.hexdigest())
                Path(name).replace(path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise StoreError(
                f"cannot write to the store {self._root}: {error.strerror or error}; choose a "
                "folder you can write to with --store"
            ) from None
        return digest.hexdigest()
