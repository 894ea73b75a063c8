"""The store's contract.

Keys are relative, '/'-separated. An object appears whole or not at all, and an overwrite is
atomic. Stores promise nothing about integrity: callers re-hash what they read (`read_verified`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from zkml_ray.canonical import file_sha256, sha256_hex
from zkml_ray.errors import DigestMismatchError
from zkml_ray.schema.artifact import ArtifactRef


class ArtifactStore(ABC):
    """Objects addressed by key."""

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL that opens this store again, from any process."""

    @abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Write an object, replacing any other of this key.

        Raises:
            StoreError: It could not be written.
        """

    @abstractmethod
    def put_file(self, key: str, path: Path) -> None:
        """Write an object from a file, without holding it in memory.

        Raises:
            StoreError: It could not be written.
        """

    @abstractmethod
    def get(self, key: str, *, max_bytes: int) -> bytes:
        """Read an object.

        Args:
            key: Its key.
            max_bytes: A larger object is refused before it is read.

        Raises:
            ArtifactNotFoundError: There is none.
            StoreError: It is larger, or could not be read.
        """

    @abstractmethod
    def get_file(self, key: str, path: Path) -> None:
        """Read an object into a file, without holding it in memory.

        Raises:
            ArtifactNotFoundError: There is none.
            StoreError: It could not be read.
        """

    @abstractmethod
    def size(self, key: str) -> int | None:
        """An object's size in bytes, or None if there is none."""

    @abstractmethod
    def keys(self, prefix: str) -> Iterator[str]:
        """Keys that begin with a prefix, sorted."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object; removing none is no error."""

    def store(self, key: str, data: bytes) -> ArtifactRef:
        """Write an object and return its reference."""
        self.put(key, data)
        return ArtifactRef(key=key, sha256=sha256_hex(data), size_bytes=len(data))

    def store_shared(self, key: str, data: bytes) -> ArtifactRef:
        """Write a content-addressed object unless one of that size is there already."""
        if self.size(key) != len(data):
            self.put(key, data)
        return ArtifactRef(key=key, sha256=sha256_hex(data), size_bytes=len(data))

    def store_shared_file(self, key: str, path: Path, sha256: str) -> ArtifactRef:
        """`store_shared` for a file whose digest is known."""
        size_bytes = path.stat().st_size
        if self.size(key) != size_bytes:
            self.put_file(key, path)
        return ArtifactRef(key=key, sha256=sha256, size_bytes=size_bytes)

    def read_verified(self, ref: ArtifactRef, *, max_bytes: int = 1 << 30) -> bytes:
        """Read an object and check its digest.

        Raises:
            ArtifactNotFoundError: There is none.
            DigestMismatchError: Its bytes are not those that were recorded.
        """
        data = self.get(ref.key, max_bytes=min(max_bytes, ref.size_bytes))
        check_digest(ref, sha256_hex(data))
        return data

    def fetch_verified(self, ref: ArtifactRef, path: Path) -> None:
        """Read an object into a file and check its digest.

        Raises:
            ArtifactNotFoundError: There is none.
            DigestMismatchError: Its bytes are not those that were recorded.
        """
        self.get_file(ref.key, path)
        check_digest(ref, file_sha256(path))


def check_digest(ref: ArtifactRef, got: str) -> None:
    """Compare a computed digest with a reference's.

    Raises:
        DigestMismatchError: They differ.
    """
    if got != ref.sha256:
        raise DigestMismatchError(
            f"{ref.key} was changed: its SHA-256 is {got[:16]}..., recorded was "
            f"{ref.sha256[:16]}...; restore it from a copy",
            expected=ref.sha256,
            got=got,
        )
