"""A store in a local folder. Writes go to a temporary file, are synced and renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from zkml_ray.errors import ArtifactNotFoundError, StoreError
from zkml_ray.schema.artifact import ArtifactRef
from zkml_ray.stores.base import ArtifactStore

_TEMPORARY = ".tmp-"


class LocalStore(ArtifactStore):
    """Objects as files below a folder, which is created on the first write."""

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root).expanduser().absolute()

    @property
    def url(self) -> str:
        """file:// URL of the folder."""
        return f"file://{self._root}"

    def put(self, key: str, data: bytes) -> None:
        """See `ArtifactStore.put`."""
        self._write(key, lambda file: file.write(data))

    def put_file(self, key: str, path: Path) -> None:
        """See `ArtifactStore.put_file`."""
        with path.open("rb") as source:
            self._write(key, lambda file: shutil.copyfileobj(source, file, 1 << 20))

    def get(self, key: str, *, max_bytes: int) -> bytes:
        """See `ArtifactStore.get`."""
        path = self._existing(key)
        size_bytes = path.stat().st_size
        if size_bytes > max_bytes:
            raise StoreError(f"{key} has {size_bytes} bytes; at most {max_bytes} were expected")
        try:
            return path.read_bytes()
        except OSError as error:
            raise StoreError(f"cannot read {key} in {self._root}: {error.strerror}") from None

    def get_file(self, key: str, path: Path) -> None:
        """See `ArtifactStore.get_file`."""
        try:
            shutil.copyfile(self._existing(key), path)
        except OSError as error:
            raise StoreError(f"cannot read {key} in {self._root}: {error.strerror}") from None

    def size(self, key: str) -> int | None:
        """See `ArtifactStore.size`."""
        path = self._path(key)
        return path.stat().st_size if path.is_file() else None

    def keys(self, prefix: str) -> Iterator[str]:
        """See `ArtifactStore.keys`."""
        folder = self._root / prefix.rpartition("/")[0]
        found = (path for path in folder.rglob("*") if path.is_file())
        names = sorted(path.relative_to(self._root).as_posix() for path in found)
        return (
            name
            for name in names
            if name.startswith(prefix) and not name.rpartition("/")[2].startswith(_TEMPORARY)
        )

    def delete(self, key: str) -> None:
        """See `ArtifactStore.delete`."""
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        checked = ArtifactRef(key=key, sha256="0" * 64, size_bytes=0).key
        return self._root / checked

    def _existing(self, key: str) -> Path:
        path = self._path(key)
        if not path.is_file():
            raise ArtifactNotFoundError(f"{self._root} has no object {key}")
        return path

    def _write(self, key: str, fill: Callable[[BinaryIO], object]) -> None:
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=path.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    fill(file)
                    file.flush()
                    os.fsync(file.fileno())
                Path(name).replace(path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise StoreError(
                f"cannot write to the store {self._root}: {error.strerror or error}; choose a "
                "folder you can write to with --store"
            ) from None
