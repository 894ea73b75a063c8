"""A store in an S3 bucket: s3://bucket/prefix.

Endpoint and credentials come from the environment (`s3config`), so that a store is opened again in
any process by its URL alone and nothing secret travels with it.

Assumed of the provider: SigV4, whole-object atomicity, multipart, ranges (else one stream).
Not assumed: conditional writes, read-after-write (a write is confirmed by HEAD, within the
deadline), entity tags that mean anything, checksum headers, multi-object delete. A write whose
answer was lost is written again: it is the same bytes under the same key.

Left out: integrity (see `base`) and what a killed process leaves (`unfinished`, `discard`).
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from zkml_ray.canonical import sha256_hex
from zkml_ray.errors import ArtifactNotFoundError, ObjectTooLargeError, StoreError
from zkml_ray.stores.base import (
    ArtifactStore,
    ObjectInfo,
    UnfinishedUpload,
    check_source,
    checked_key,
    is_key,
)
from zkml_ray.stores.retry import RetryPolicy, TransientFault
from zkml_ray.stores.s3config import S3Location, S3Options, connect
from zkml_ray.stores.s3faults import (
    ObjectChangedError,
    RangeIgnoredError,
    UploadLostError,
    translated,
)
from zkml_ray.stores.s3transfer import Transfer

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

_T = TypeVar("_T")
_ROOT_CID = "network-root-cid"
_READ_ROUNDS = 4  # an object that changes under this many downloads is given up


class S3Store(ArtifactStore):
    """Objects of one bucket whose names begin with one prefix. Threads may share it."""

    def __init__(self, url: str, options: S3Options | None = None) -> None:
        """Open the store; no request is made yet.

        Args:
            url: s3://bucket or s3://bucket/prefix.
            options: Time limits and part size; default: the environment's.

        Raises:
            ConfigError: The URL or the environment is unusable.
        """
        self.location = S3Location.parse(url)
        self.options = options or S3Options()
        self.client: S3Client = connect(self.options)
        self._policy = RetryPolicy(
            deadline_s=self.options.deadline_s, backoff_s=self.options.backoff_s
        )

    def __repr__(self) -> str:
        return f"S3Store({self.url!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as URL and options: the other process has its own credentials."""
        return S3Store, (self.url, self.options)

    @property
    def url(self) -> str:
        """The URL, without endpoint or credentials."""
        return self.location.url

    def object_name(self, key: str) -> str:
        """A key's full name in the bucket."""
        return self.location.prefix + checked_key(key)

    def request(self, doing: str, call: Callable[[], _T]) -> _T:
        """Make a request of `client`, again where that may help.

        Args:
            doing: What is attempted, for messages ("read projects/p/...").
            call: The request.

        Raises:
            StoreError: As this package's errors, never boto3's.
        """

        def attempt() -> _T:
            with translated(doing, self.location.bucket):
                return call()

        return self._policy.run(attempt)

    def put(self, key: str, data: bytes) -> None:
        """See `ArtifactStore.put`."""
        name = self.object_name(key)
        if len(data) > self.options.part_bytes:
            transfer = self._transfer(name)
            step = transfer.part_size(len(data))
            transfer.upload(
                lambda: (data[at : at + step] for at in range(0, len(data), step)), lambda: None
            )
        else:
            self._put_whole(name, data)
        self._confirm(key, len(data))

    def put_file(self, key: str, path: Path, *, sha256: str | None = None) -> str:
        """See `ArtifactStore.put_file`."""
        try:
            with path.open("rb") as file:
                return self._put_open(key, file, path.stat().st_size, sha256)
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}") from None

    def get(self, key: str, *, max_bytes: int) -> bytes:
        """See `ArtifactStore.get`."""
        name = self.object_name(key)

        def read() -> bytes:
            answer = self.client.get_object(Bucket=self.location.bucket, Key=name)
            with contextlib.closing(answer["Body"]) as body:
                size_bytes = answer["ContentLength"]
                if size_bytes > max_bytes:
                    raise ObjectTooLargeError(
                        f"{key} has {size_bytes} bytes; at most {max_bytes} were expected"
                    )
                data = body.read()
            if len(data) != size_bytes:
                raise TransientFault(f"{key} broke off at byte {len(data)} of {size_bytes}")
            return data

        return self.request(f"read {key}", read)

    def get_file(self, key: str, path: Path, *, max_bytes: int | None = None) -> None:
        """See `ArtifactStore.get_file`."""
        name, part_bytes = self.object_name(key), self.options.part_bytes
        for _ in range(_READ_ROUNDS):
            answer = self._head(key)
            if answer is None:
                raise ArtifactNotFoundError(f"{self.url} has no object {key}")
            size_bytes = answer["ContentLength"]
            if max_bytes is not None and size_bytes > max_bytes:
                raise ObjectTooLargeError(
                    f"{key} has {size_bytes} bytes; at most {max_bytes} were expected"
                )
            try:
                with path.open("wb") as file:
                    self._transfer(name, part_bytes).download(
                        file.fileno(), size_bytes, answer.get("ETag")
                    )
            except ObjectChangedError:
                continue
            except RangeIgnoredError:
                part_bytes = max(size_bytes, 1)
                continue
            except OSError as error:
                raise StoreError(f"cannot write {path}: {error.strerror}") from None
            return
        raise StoreError(f"{key} changed each time it was read; try again when nobody writes it")

    def head(self, key: str) -> ObjectInfo | None:
        """See `ArtifactStore.head`. Provenance: `network_root_cid` where the provider gives it."""
        answer = self._head(key)
        if answer is None:
            return None
        said = dict(answer["ResponseMetadata"].get("HTTPHeaders", {}))
        said.update(answer.get("Metadata", {}))
        cid = {name.lower(): value for name, value in said.items()}.get(_ROOT_CID)
        provenance = {} if cid is None else {"network_root_cid": cid[:200]}
        return ObjectInfo(size_bytes=answer["ContentLength"], provenance=provenance)

    def keys(self, prefix: str) -> Iterator[str]:
        """See `ArtifactStore.keys`."""
        pages = self._pages(
            f"list {prefix}*",
            self.client.list_objects_v2,
            prefix,
            {"ContinuationToken": "NextContinuationToken"},
        )
        cut = len(self.location.prefix)
        found = {item["Key"][cut:] for page in pages for item in page.get("Contents", [])}
        return iter(sorted(key for key in found if is_key(key)))

    def delete(self, key: str) -> None:
        """See `ArtifactStore.delete`."""
        name = self.object_name(key)
        with contextlib.suppress(ArtifactNotFoundError):
            self.request(
                f"delete {key}",
                lambda: self.client.delete_object(Bucket=self.location.bucket, Key=name),
            )

    def unfinished(self, prefix: str = "") -> Iterator[UnfinishedUpload]:
        """See `ArtifactStore.unfinished`."""
        pages = self._pages(
            "list unfinished uploads",
            self.client.list_multipart_uploads,
            prefix,
            {"KeyMarker": "NextKeyMarker", "UploadIdMarker": "NextUploadIdMarker"},
        )
        with contextlib.suppress(UploadLostError):  # some servers' way to say that there is none
            for page in pages:
                for upload in page.get("Uploads", []):
                    yield UnfinishedUpload(
                        key=upload["Key"].removeprefix(self.location.prefix),
                        upload_id=upload["UploadId"],
                        started=upload["Initiated"],
                    )

    def discard(self, upload: UnfinishedUpload) -> None:
        """See `ArtifactStore.discard`."""
        with contextlib.suppress(UploadLostError, ArtifactNotFoundError):
            self.request(
                f"discard the upload of {upload.key}",
                lambda: self.client.abort_multipart_upload(
                    Bucket=self.location.bucket,
                    Key=self.location.prefix + upload.key,
                    UploadId=upload.upload_id,
                ),
            )

    def _put_whole(self, name: str, data: bytes) -> None:
        self.request(
            f"write {name}",
            lambda: self.client.put_object(Bucket=self.location.bucket, Key=name, Body=data),
        )

    def _put_open(self, key: str, file: BinaryIO, size_bytes: int, sha256: str | None) -> str:
        name = self.object_name(key)
        if size_bytes <= self.options.part_bytes:
            data = file.read()
            got = sha256_hex(data)
            check_source(key, sha256, got)
            self.put(key, data)
            return got
        transfer = self._transfer(name)
        step = transfer.part_size(size_bytes)
        digest = hashlib.sha256()
        written = 0

        def blocks() -> Iterator[bytes]:
            nonlocal digest, written
            digest, written = hashlib.sha256(), 0
            file.seek(0)
            while block := file.read(step):
                digest.update(block)
                written += len(block)
                yield block

        transfer.upload(blocks, lambda: check_source(key, sha256, digest.hexdigest()))
        self._confirm(key, written)
        return digest.hexdigest()

    def _confirm(self, key: str, size_bytes: int) -> None:
        def look() -> None:
            answer = self._head_once(key)
            found = "nothing" if answer is None else f"{answer['ContentLength']} bytes"
            if answer is None or answer["ContentLength"] != size_bytes:
                raise TransientFault(
                    f"{key} was written with {size_bytes} bytes, but the store shows {found}"
                )

        self._policy.run(look)

    def _head(self, key: str) -> HeadObjectOutputTypeDef | None:
        return self._policy.run(lambda: self._head_once(key))

    def _head_once(self, key: str) -> HeadObjectOutputTypeDef | None:
        name = self.object_name(key)
        try:
            with translated(f"look for {key}", self.location.bucket):
                return self.client.head_object(Bucket=self.location.bucket, Key=name)
        except ArtifactNotFoundError:
            return None

    def _pages(
        self, doing: str, call: Callable[..., Any], prefix: str, cursor: dict[str, str]
    ) -> Iterator[Any]:
        """Pages of a listing. `cursor` maps each argument to the answer's field that fills it."""
        place: dict[str, str] = {}
        while True:
            asked = partial(
                call, Bucket=self.location.bucket, Prefix=self.location.prefix + prefix, **place
            )
            page = self.request(doing, asked)
            yield page
            place = {name: page[said] for name, said in cursor.items() if page.get(said)}
            if not page.get("IsTruncated") or not place:
                return

    def _transfer(self, name: str, part_bytes: int | None = None) -> Transfer:
        return Transfer(
            client=self.client,
            bucket=self.location.bucket,
            name=name,
            policy=self._policy,
            part_bytes=part_bytes or self.options.part_bytes,
            parallel_parts=self.options.parallel_parts,
        )
