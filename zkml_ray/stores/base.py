"""The store's contract.

Keys are relative, '/'-separated. An object appears whole or not at all, and an overwrite is
atomic. Stores promise nothing about integrity: what was recorded at the write is compared at the
read (`read_verified`, `fetch_verified`), and a wrong digest is read once more before it counts.
Stores promise no conditional write either, so keys are content-addressed or have one writer.

`tests/contracts/store_contract.py` is this contract as tests; every backend inherits it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from zkml_ray.canonical import file_sha256, sha256_hex
from zkml_ray.errors import DigestMismatchError, ObjectTooLargeError, StoreError
from zkml_ray.schema.artifact import ArtifactRef, ObjectKey

_T = TypeVar("_T")
_KEY: TypeAdapter[str] = TypeAdapter(ObjectKey)
_READS = 2  # a wrong digest is read once more: the fault may lie on the way


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """What a store says about an object, without reading it.

    Attributes:
        size_bytes: Its size.
        provenance: What the provider adds, such as `network_root_cid`. Not authenticated.
    """

    size_bytes: int
    provenance: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfinishedUpload:
    """A write that was begun and neither finished nor abandoned; it occupies space.

    Attributes:
        key: Key it was to have (for a folder: the folder it lies in).
        upload_id: The store's name for it.
        started: When it was begun.
    """

    key: str
    upload_id: str
    started: datetime


class ArtifactStore(ABC):
    """Objects addressed by key."""

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL that opens this store again, from any process. It holds no secret."""

    @abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Write an object, replacing any other of this key.

        Raises:
            StoreError: It could not be written.
        """

    @abstractmethod
    def put_file(self, key: str, path: Path, *, sha256: str | None = None) -> str:
        """Write an object from a file, without holding it in memory.

        Args:
            key: Its key.
            path: The file.
            sha256: What the file must hash to; it is hashed as it is read, and nothing appears
                in the store if it differs.

        Returns:
            SHA-256 of the bytes written.

        Raises:
            DigestMismatchError: The file is not the one expected.
            StoreError: It could not be written.
        """

    @abstractmethod
    def get(self, key: str, *, max_bytes: int) -> bytes:
        """Read an object, unchecked.

        Args:
            key: Its key.
            max_bytes: A larger object is refused before it is read.

        Raises:
            ArtifactNotFoundError: There is none.
            ObjectTooLargeError: It is larger.
            StoreError: It could not be read.
        """

    @abstractmethod
    def get_file(self, key: str, path: Path, *, max_bytes: int | None = None) -> None:
        """Read an object into a file, unchecked, without holding it in memory.

        Raises:
            ArtifactNotFoundError: There is none.
            ObjectTooLargeError: It is larger than `max_bytes`.
            StoreError: It could not be read or the file could not be written.
        """

    @abstractmethod
    def head(self, key: str) -> ObjectInfo | None:
        """What the store says about an object, or None if there is none.

        Raises:
            StoreError: The store did not answer.
        """

    @abstractmethod
    def keys(self, prefix: str) -> Iterator[str]:
        """Keys that begin with a prefix, sorted. Foreign objects (no valid key) are left out."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object; removing none is no error."""

    @abstractmethod
    def unfinished(self, prefix: str = "") -> Iterator[UnfinishedUpload]:
        """Writes below a prefix that nobody finished (or not yet: mind how old they are).

        Raises:
            StoreError: The store cannot tell.
        """

    @abstractmethod
    def discard(self, upload: UnfinishedUpload) -> None:
        """Remove what an unfinished write left behind; its writer, if alive, fails or restarts."""

    def size(self, key: str) -> int | None:
        """An object's size in bytes, or None if there is none."""
        info = self.head(key)
        return None if info is None else info.size_bytes

    def store(self, key: str, data: bytes) -> ArtifactRef:
        """Write an object and return its reference."""
        self.put(key, data)
        return ArtifactRef(key=key, sha256=sha256_hex(data), size_bytes=len(data))

    def store_file(self, key: str, path: Path) -> ArtifactRef:
        """Write an object from a file and return its reference."""
        size_bytes = path.stat().st_size
        return ArtifactRef(key=key, sha256=self.put_file(key, path), size_bytes=size_bytes)

    def store_shared(self, key: str, data: bytes) -> ArtifactRef:
        """Write a content-addressed object unless one of that size is there already."""
        if self.size(key) != len(data):
            self.put(key, data)
        return ArtifactRef(key=key, sha256=sha256_hex(data), size_bytes=len(data))

    def store_shared_file(self, key: str, path: Path, sha256: str) -> ArtifactRef:
        """`store_shared` for a file whose digest is known."""
        size_bytes = path.stat().st_size
        if self.size(key) != size_bytes:
            self.put_file(key, path, sha256=sha256)
        return ArtifactRef(key=key, sha256=sha256, size_bytes=size_bytes)

    def read_verified(self, ref: ArtifactRef, *, max_bytes: int = 1 << 30) -> bytes:
        """Read an object and check its digest.

        Raises:
            ArtifactNotFoundError: There is none.
            ObjectTooLargeError: It is recorded with more than `max_bytes`.
            DigestMismatchError: Its bytes, read twice, are not those that were recorded.
        """
        if ref.size_bytes > max_bytes:
            raise ObjectTooLargeError(
                f"{ref.key} is recorded with {ref.size_bytes} bytes; at most {max_bytes} are read"
            )

        def read() -> tuple[bytes, str]:
            data = self.get(ref.key, max_bytes=ref.size_bytes)
            return data, sha256_hex(data)

        data, got = _read_again_if_wrong(ref, read, b"")
        check_digest(ref, got)
        return data

    def fetch_verified(self, ref: ArtifactRef, path: Path, *, keep_bad: Path | None = None) -> None:
        """Read an object into a file and check its digest. A failure leaves no file at `path`.

        Args:
            ref: The object.
            path: The file to write.
            keep_bad: A folder of the same file system that receives the bytes if they are wrong.

        Raises:
            ArtifactNotFoundError: There is none.
            DigestMismatchError: Its bytes, read twice, are not those that were recorded.
            StoreError: It cannot be read or written.
        """

        def read() -> tuple[None, str]:
            self.get_file(ref.key, path, max_bytes=ref.size_bytes)
            return None, file_sha256(path)

        try:
            _, got = _read_again_if_wrong(ref, read, None)
            if got != ref.sha256 and keep_bad is not None and path.exists():
                keep_bad.mkdir(parents=True, exist_ok=True)
                path.replace(keep_bad / f"{ref.sha256}.{got or 'too-large'}")
            check_digest(ref, got)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise StoreError(f"cannot keep {ref.key} in {path.parent}: {error.strerror}") from None
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def checked_key(key: str) -> str:
    """Return a key that can lie in a store.

    Raises:
        StoreError: It has empty or dot-leading parts, other characters, or is too long.
    """
    try:
        return _KEY.validate_python(key)
    except ValidationError:
        raise StoreError(
            f"{key[:200]!r} is no object key: use letters, digits, '.', '_' and '-' in parts that "
            "begin with a letter or digit, joined by '/'"
        ) from None


def is_key(name: str) -> bool:
    """Whether a listed name can be an object's key."""
    try:
        checked_key(name)
    except StoreError:
        return False
    return True


def check_digest(ref: ArtifactRef, got: str) -> None:
    """Compare a computed digest with a reference's.

    Raises:
        DigestMismatchError: They differ.
    """
    if got != ref.sha256:
        found = f"its SHA-256 is {got[:16]}..." if got else "it is larger than recorded"
        raise DigestMismatchError(
            f"{ref.key} was changed: {found}, recorded was {ref.sha256[:16]}... "
            f"({ref.size_bytes} bytes); restore it from a copy, or delete it and store it again",
            expected=ref.sha256,
            got=got,
        )


def check_source(key: str, expected: str | None, got: str) -> None:
    """Compare a file's digest with the one its caller named, before its object appears.

    Raises:
        DigestMismatchError: They differ.
    """
    if expected is not None and got != expected:
        raise DigestMismatchError(
            f"the file for {key} was changed before it was stored: its SHA-256 is {got[:16]}..., "
            f"expected was {expected[:16]}...",
            expected=expected,
            got=got,
        )


def _read_again_if_wrong(
    ref: ArtifactRef, read: Callable[[], tuple[_T, str]], nothing: _T
) -> tuple[_T, str]:
    content, got = nothing, ""
    for _ in range(_READS):
        try:
            content, got = read()
        except ObjectTooLargeError:
            content, got = nothing, ""
        if got == ref.sha256:
            break
    return content, got
