"""Moving large objects to and from S3 in parts.

Upload: parts are read in order and sent a few at a time; nothing is visible before the last
request. A failure abandons the upload, so that no part is left behind. An upload that the server
forgot (it restarted) is begun anew, since no part of it can be trusted to be there.

Download: ranges are fetched a few at a time and written in place. A range that breaks off is
continued where it stopped. All ranges must come from one object: total size and, where given,
entity tag (compared, never interpreted) must not change.

Left out: integrity. Callers compare SHA-256.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from zkml_ray.errors import ArtifactNotFoundError, StoreError, StoreUnavailableError
from zkml_ray.stores.retry import RetryPolicy, TransientFault
from zkml_ray.stores.s3config import MIN_PART_BYTES
from zkml_ray.stores.s3faults import (
    ObjectChangedError,
    RangeIgnoredError,
    UploadLostError,
    translated,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

_MAX_PARTS = 10_000
_ROUNDS = 4  # an upload begun this often and lost each time is given up
_ABORT_DEADLINE_S = 15.0
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """One object's way in or out.

    Attributes:
        client: The S3 client (its methods may be called from several threads).
        bucket: The bucket.
        name: The object's full name in the bucket.
        policy: When to try again.
        part_bytes: Size of a part; larger where the object would need too many.
        parallel_parts: Parts on their way at once.
    """

    client: S3Client = field(repr=False)
    bucket: str
    name: str
    policy: RetryPolicy
    part_bytes: int
    parallel_parts: int

    def part_size(self, size_bytes: int) -> int:
        """Size of this object's parts, in bytes."""
        needed = -(-size_bytes // _MAX_PARTS)
        return max(self.part_bytes, MIN_PART_BYTES, -(-needed // _BLOCK_BYTES) * _BLOCK_BYTES)

    def upload(self, blocks: Callable[[], Iterator[bytes]], check: Callable[[], None]) -> None:
        """Write the object in parts.

        Args:
            blocks: Makes an iterator over the parts; called again when the upload is begun anew.
            check: Called when all parts were read, before the object becomes visible.

        Raises:
            StoreError: It could not be written; no part of it remains, or the message says so.
        """
        for begun in range(1, _ROUNDS + 1):
            try:
                return self._upload_once(blocks, check)
            except UploadLostError as error:
                if begun == _ROUNDS:
                    raise StoreError(f"{error}; the upload was begun {begun} times") from None
        return None

    def _upload_once(
        self, blocks: Callable[[], Iterator[bytes]], check: Callable[[], None]
    ) -> None:
        upload_id, tries = self._begin()
        stop = threading.Event()
        try:
            parts = self._send_parts(upload_id, blocks(), stop)
            check()
            self._request(
                "complete the upload of",
                lambda: self.client.complete_multipart_upload(
                    Bucket=self.bucket,
                    Key=self.name,
                    UploadId=upload_id,
                    MultipartUpload={"Parts": parts},
                ),
            )
        except BaseException as error:
            abandoned = self._abandon(upload_id)
            if not abandoned and isinstance(error, StoreUnavailableError):
                raise StoreUnavailableError(
                    f"{error}; parts of an unfinished upload may remain in the bucket until its "
                    "unfinished uploads are discarded"
                ) from None
            raise
        finally:
            if tries > 1:  # an answer to `create` may have been lost, and an empty upload with it
                self._abandon_empty()

    def _begin(self) -> tuple[str, int]:
        tries = 0

        def begin() -> str:
            nonlocal tries
            tries += 1
            with translated(f"begin the upload of {self.name}", self.bucket):
                answer = self.client.create_multipart_upload(Bucket=self.bucket, Key=self.name)
            return answer["UploadId"]

        try:
            return self.policy.run(begin), tries
        except StoreUnavailableError:
            self._abandon_empty()
            raise

    def _send_parts(
        self, upload_id: str, blocks: Iterator[bytes], stop: threading.Event
    ) -> list[CompletedPartTypeDef]:
        def send(number: int, block: bytes) -> CompletedPartTypeDef:
            answer = self._request(
                f"write part {number} of",
                lambda: self.client.upload_part(
                    Bucket=self.bucket,
                    Key=self.name,
                    UploadId=upload_id,
                    PartNumber=number,
                    Body=block,
                ),
                stop,
            )
            return {"ETag": answer["ETag"], "PartNumber": number}

        parts: list[CompletedPartTypeDef] = []
        with _workers(self.parallel_parts, stop) as submit:
            sent: deque[Future[CompletedPartTypeDef]] = deque()
            for number, block in enumerate(blocks, start=1):
                if len(sent) == self.parallel_parts:
                    parts.append(sent.popleft().result())
                sent.append(submit(send, number, block))
                del block
            parts.extend(future.result() for future in sent)
        return parts

    def _abandon(self, upload_id: str) -> bool:
        """Abort twice: a part that was still being received may land after the first."""
        policy = self.policy.within(_ABORT_DEADLINE_S)
        for _ in range(2):
            try:
                self._request(
                    "abandon the upload of",
                    lambda: self.client.abort_multipart_upload(
                        Bucket=self.bucket, Key=self.name, UploadId=upload_id
                    ),
                    policy=policy,
                )
            except (UploadLostError, ArtifactNotFoundError):
                return True
            except StoreError:
                return False
        return True

    def _abandon_empty(self) -> None:
        with contextlib.suppress(StoreError, KeyError):
            listed = self._request(
                "list the uploads of",
                lambda: self.client.list_multipart_uploads(Bucket=self.bucket, Prefix=self.name),
                policy=self.policy.within(_ABORT_DEADLINE_S),
            )
            for upload in listed.get("Uploads", []):
                if upload["Key"] == self.name and self._is_empty(upload["UploadId"]):
                    self._abandon(upload["UploadId"])

    def _is_empty(self, upload_id: str) -> bool:
        listed = self._request(
            "list the parts of",
            lambda: self.client.list_parts(Bucket=self.bucket, Key=self.name, UploadId=upload_id),
            policy=self.policy.within(_ABORT_DEADLINE_S),
        )
        return not listed.get("Parts")

    def download(self, handle: int, size_bytes: int, etag: str | None) -> None:
        """Read the object into a file.

        Args:
            handle: File descriptor, open for writing.
            size_bytes: The object's size.
            etag: Its entity tag, or None.

        Raises:
            ObjectChangedError: It became another meanwhile.
            RangeIgnoredError: The server knows no ranges; `part_bytes` must exceed the size.
            StoreError: It could not be read or the file could not be written.
        """
        step, stop = self.part_size(size_bytes), threading.Event()
        with _workers(self.parallel_parts, stop) as submit:
            fetched = [
                submit(
                    _Range(self, handle, at, min(at + step, size_bytes), size_bytes, etag).fetch,
                    stop,
                )
                for at in range(0, size_bytes, step)
            ]
            for future in fetched:
                future.result()

    def _request(
        self,
        doing: str,
        call: Callable[[], Any],
        stop: threading.Event | None = None,
        policy: RetryPolicy | None = None,
    ) -> Any:
        def attempt() -> Any:
            with translated(f"{doing} {self.name}", self.bucket):
                return call()

        return (policy or self.policy).run(attempt, stop)


class _Range:
    """A range of an object on its way into a file."""

    def __init__(
        self, transfer: Transfer, handle: int, start: int, end: int, total: int, etag: str | None
    ) -> None:
        self._transfer, self._handle, self._etag = transfer, handle, etag
        self._start, self._end, self._total = start, end, total

    def fetch(self, stop: threading.Event) -> None:
        """Fetch it, through as many attempts as the policy allows."""
        self._transfer.policy.run(lambda: self._attempt(stop), stop)

    def _attempt(self, stop: threading.Event) -> None:
        began = self._start
        try:
            with translated(f"read {self._transfer.name}", self._transfer.bucket):
                self._receive(stop)
        except TransientFault as fault:
            raise TransientFault(str(fault), progress=self._start > began) from None

    def _receive(self, stop: threading.Event) -> None:
        transfer, whole = self._transfer, (self._start, self._end) == (0, self._total)
        asked: dict[str, Any] = {} if whole else {"Range": f"bytes={self._start}-{self._end - 1}"}
        answer = transfer.client.get_object(Bucket=transfer.bucket, Key=transfer.name, **asked)
        with contextlib.closing(answer["Body"]) as body:
            if not whole and "ContentRange" not in answer:
                raise RangeIgnoredError(f"the store ignores ranges of {transfer.name}")
            expected = f"bytes {self._start}-{self._end - 1}/{self._total}"
            if answer.get("ContentRange", expected) != expected or (
                self._etag and answer.get("ETag", self._etag) != self._etag
            ):
                raise ObjectChangedError(f"{transfer.name} changed while it was read")
            while self._start < self._end:
                block = body.read(min(_BLOCK_BYTES, self._end - self._start))
                if not block:
                    raise TransientFault(f"{transfer.name} broke off at byte {self._start}")
                if stop.is_set():
                    raise StoreError(f"reading {transfer.name} was given up")
                self._write(block)

    def _write(self, block: bytes) -> None:
        view = memoryview(block)
        while view:
            try:
                written = os.pwrite(self._handle, view, self._start)
            except OSError as error:
                raise StoreError(
                    f"cannot keep {self._transfer.name} on this machine: {error.strerror}"
                ) from None
            self._start += written
            view = view[written:]


@contextlib.contextmanager
def _workers(count: int, stop: threading.Event) -> Iterator[Callable[..., Future[Any]]]:
    """Threads that are told to stop, and waited for, when the block is left by an exception."""
    pool = ThreadPoolExecutor(count, thread_name_prefix="zkml-ray-s3")
    try:
        yield pool.submit
    except BaseException:
        stop.set()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
