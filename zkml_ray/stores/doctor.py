"""Finding out what a store can do, by doing it.

Each check is a `Finding`. Those that a run rests on are `needed`; the others tell what the
provider adds or lacks, on which nothing here depends. Everything written lies below one random
prefix and is removed at the end, unfinished uploads included.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING

from zkml_ray.errors import ArtifactNotFoundError, StoreError, ZkmlRayError
from zkml_ray.stores import ArtifactStore, LocalStore, open_store

if TYPE_CHECKING:
    from zkml_ray.stores.s3 import S3Store

MAX_SKEW_S = 300.0
"""SigV4 refuses 15 minutes; a third of that is worth setting the clock for."""
_SMALL = b"zkml-ray doctor"
_LARGE_BYTES = (5 << 20) + 1  # two parts, the first of the smallest size that S3 allows
_DEADLINE_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found.

    Attributes:
        name: The check.
        ok: Whether the store does it.
        detail: What was seen.
        seconds: How long it took.
        needed: Whether runs rest on it.
    """

    name: str
    ok: bool
    detail: str
    seconds: float
    needed: bool = True


def examine(url: str) -> list[Finding]:
    """Check what a store can do.

    Args:
        url: The store, as for --store.

    Returns:
        Findings in the order of the checks; only the first if the store cannot be reached, and
        none of the writing kind if it cannot be written to.

    Raises:
        ConfigError: The URL or the environment is unusable.
    """
    if not url.startswith("s3://"):
        store = open_store(url)
        if not isinstance(store, LocalStore):
            return _Examination(store).run_folder()
        absent = [path for path in (store.folder, *store.folder.parents) if not path.exists()]
        examination = _Examination(store)
        try:
            return examination.run_folder()
        finally:
            # Innermost first; a folder that holds something else stays.
            mine = store.folder / examination.prefix
            for path in (mine, mine.parent, *absent):
                with contextlib.suppress(OSError):
                    path.rmdir()
    from zkml_ray.stores.s3 import S3Store
    from zkml_ray.stores.s3config import S3Options

    defaults = S3Options()
    options = S3Options(
        deadline_s=min(defaults.deadline_s, _DEADLINE_S),
        timeout_s=min(defaults.timeout_s, _DEADLINE_S),
        part_bytes=5 << 20,
    )
    store = S3Store(url, options)
    return _S3Examination(store).run_bucket()


def is_usable(findings: list[Finding]) -> bool:
    """Whether everything that runs rest on was found."""
    return all(finding.ok for finding in findings if finding.needed)


def render(findings: list[Finding]) -> list[str]:
    """Findings as lines of text: ok, FAIL (a run needs it) or no (nothing rests on it)."""
    width = max((len(finding.name) for finding in findings), default=0)
    return [
        f"{'ok' if finding.ok else 'FAIL' if finding.needed else 'no':<4}  "
        f"{finding.name:<{width}}  {finding.seconds:6.2f} s  {finding.detail}"
        for finding in findings
    ]


class _Examination:
    """Checks that any store allows."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store
        self.prefix = f"zkml-ray-doctor/{secrets.token_hex(8)}"
        self._key = f"{self.prefix}/small"
        self._findings: list[Finding] = []
        self._denied: set[str] = set()
        self._written = False

    def run_folder(self) -> list[Finding]:
        try:
            self._common()
            self._check("free space", self._free_space)
        finally:
            self._clean_up()
        return self._findings

    def _common(self) -> None:
        self._check("put", self._put, "put")
        self._check("get", self._get, "get")
        if self._written:
            self._check("head", self._head, "get")
            self._check("overwrite", self._overwrite, "put")
        self._check("list", self._list, "list")

    def _check(
        self,
        name: str,
        check: Callable[[], str],
        permission: str | None = None,
        *,
        needed: bool = True,
    ) -> None:
        started = time.monotonic()
        try:
            detail, ok = check(), True
        except ZkmlRayError as error:
            detail, ok = error.message, False
            if permission and "HTTP 403" in detail:
                self._denied.add(permission)
        seconds = time.monotonic() - started
        self._findings.append(
            Finding(name=name, ok=ok, detail=detail, seconds=seconds, needed=needed)
        )

    def _put(self) -> str:
        self._store.put(self._key, _SMALL)
        self._written = True
        return f"{len(_SMALL)} bytes"

    def _get(self) -> str:
        try:
            data = self._store.get(self._key, max_bytes=len(_SMALL))
        except ArtifactNotFoundError:
            if self._written:
                raise
            return "allowed; there is nothing to read"
        if data != _SMALL:
            raise StoreError("the object read is not the one that was written")
        return "the bytes that were written"

    def _head(self) -> str:
        info = self._store.head(self._key)
        if info is None or info.size_bytes != len(_SMALL):
            raise StoreError("the object's size is not shown")
        said = "".join(f", {name} {value}" for name, value in info.provenance.items())
        return f"size{said}"

    def _overwrite(self) -> str:
        self._store.put(self._key, _SMALL[::-1])
        if self._store.get(self._key, max_bytes=len(_SMALL)) != _SMALL[::-1]:
            raise StoreError("a read after an overwrite returned the old object")
        return "the next read returned the new object"

    def _list(self) -> str:
        listed = self._key in self._store.keys(f"{self.prefix}/")
        if self._written and not listed:
            raise StoreError("an object just written is not listed")
        return "a new object is listed at once" if listed else "allowed; there is nothing to list"

    def _delete(self) -> str:
        self._store.delete(self._key)
        if self._store.size(self._key) is not None:
            raise StoreError("a deleted object is still shown")
        return "gone at once"

    def _free_space(self) -> str:
        folder = Path(self._store.url.removeprefix("file://"))
        while not folder.exists():
            folder = folder.parent
        status = os.statvfs(folder)
        free_mib = status.f_bavail * status.f_frsize >> 20
        if free_mib < 1024:
            raise StoreError(f"{free_mib} MiB are free; a run may need more")
        return f"{free_mib} MiB"

    def _clean_up(self) -> None:
        self._check("delete", self._delete, "delete")
        self._check("clean-up", self._remove_all)

    def _remove_all(self) -> str:
        if not self._written:
            return "nothing was written"
        for key in (self._key, f"{self.prefix}/large", f"{self.prefix}/checksum"):
            self._store.delete(key)
        with contextlib.suppress(StoreError):  # some stores cannot list them
            for upload in self._store.unfinished(f"{self.prefix}/"):
                self._store.discard(upload)
        if left := list(self._store.keys(f"{self.prefix}/")):
            raise StoreError(f"{len(left)} objects remain below {self.prefix}")
        return "nothing of this examination remains"


class _S3Examination(_Examination):
    """Checks of an S3 endpoint."""

    def __init__(self, store: S3Store) -> None:
        super().__init__(store)
        self._s3 = store
        self._bucket = store.location.bucket

    def run_bucket(self) -> list[Finding]:
        self._check("reach", self._reach)
        if not self._findings[0].ok:
            return self._findings
        try:
            self._common()
            self._check("clock", self._clock)
            self._check("list unfinished uploads", self._unfinished, needed=False)
            if self._written:
                self._check("range get", self._range)
                self._check("multipart", self._multipart, "put")
                self._check("conditional put", self._conditional, needed=False)
                self._check("checksum headers", self._checksum, needed=False)
        finally:
            self._clean_up()
        self._check("permissions", self._permissions)
        return self._findings

    def _reach(self) -> str:
        endpoint = self._s3.client.meta.endpoint_url
        try:
            list(self._store.keys(f"{self.prefix}/"))
        except StoreError as error:
            if "HTTP 403 AccessDenied" not in error.message:
                raise
        return f"{endpoint}, bucket {self._bucket}"

    def _range(self) -> str:
        name = self._s3.object_name(self._key)
        answer = self._s3.request(
            "read a range",
            lambda: self._s3.client.get_object(Bucket=self._bucket, Key=name, Range="bytes=2-5"),
        )
        data = answer["Body"].read()
        if len(data) != 4:
            raise StoreError("ranges are ignored; large objects are read as one stream")
        return answer.get("ContentRange", "no Content-Range")

    def _multipart(self) -> str:
        data = os.urandom(_LARGE_BYTES)
        ref = self._store.store(f"{self.prefix}/large", data)
        with tempfile.TemporaryDirectory() as folder:
            self._store.fetch_verified(ref, Path(folder) / "large")
        return "2 parts written, read back, SHA-256 equal"

    def _clock(self) -> str:
        answer = self._s3.request(
            "ask the time",
            lambda: self._s3.client.list_objects_v2(
                Bucket=self._bucket, Prefix=self._s3.location.prefix, MaxKeys=1
            ),
        )
        told = answer["ResponseMetadata"]["HTTPHeaders"].get("date", "")
        try:
            server = parsedate_to_datetime(told)
        except (TypeError, ValueError):
            raise StoreError("the answers carry no date") from None
        skew_s = (datetime.now(timezone.utc) - server).total_seconds()
        if abs(skew_s) > MAX_SKEW_S:
            raise StoreError(f"this machine is {skew_s:+.0f} s from the server; set its clock")
        return f"{skew_s:+.0f} s from the server"

    def _unfinished(self) -> str:
        return f"{len(list(self._store.unfinished()))} of this store"

    def _conditional(self) -> str:
        name = self._s3.object_name(self._key)
        try:
            self._s3.request(
                "write if absent",
                lambda: self._s3.client.put_object(
                    Bucket=self._bucket, Key=name, Body=_SMALL, IfNoneMatch="*"
                ),
            )
        except StoreError as error:
            if "HTTP 412" not in error.message:
                raise
            return "If-None-Match is honoured"
        raise StoreError("If-None-Match is ignored: an object was overwritten")

    def _checksum(self) -> str:
        name = self._s3.object_name(f"{self.prefix}/checksum")
        self._s3.request(
            "write with a checksum header",
            lambda: self._s3.client.put_object(
                Bucket=self._bucket, Key=name, Body=_SMALL, ChecksumAlgorithm="CRC32"
            ),
        )
        return "tolerated"

    def _permissions(self) -> str:
        if self._denied:
            raise StoreError(f"denied: {', '.join(sorted(self._denied))}")
        return "put, get, list and delete are allowed"
