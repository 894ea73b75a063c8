"""What a failed S3 request means: try again, give up, or not there.

| answer | meaning |
|---|---|
| 5xx but 501, 408, 429, SlowDown and the like; resets, time-outs, short bodies | another attempt |
| body refused as damaged (BadDigest, XAmzContentSHA256Mismatch, IncompleteBody) | another attempt |
| 404 NoSuchKey | `ArtifactNotFoundError` |
| 404 NoSuchUpload, InvalidPart | `UploadLostError`: the upload is begun anew |
| 403, NoSuchBucket, redirects, 501, every other 4xx | `StoreError`, at once |

Messages name the status and the error code, never the server's own text or headers: some servers
repeat credentials there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ResponseStreamingError,
    SSLError,
)
from botocore.exceptions import (
    ConnectionError as BotoConnectionError,
)
from botocore.parsers import ResponseParserError

from zkml_ray.errors import ArtifactNotFoundError, ConfigError, StoreError, ZkmlRayError
from zkml_ray.stores.retry import TransientFault

_TRANSIENT_CODES = {
    "BadDigest",
    "IncompleteBody",
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "XAmzContentSHA256Mismatch",
}
_CREDENTIAL_CODES = {
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidSecurity",
    "InvalidToken",
    "SignatureDoesNotMatch",
}
_UPLOAD_CODES = {"NoSuchUpload", "InvalidPart", "InvalidPartOrder"}


class UploadLostError(StoreError):
    """The server no longer knows a multipart upload, or one of its parts."""


class ObjectChangedError(StoreError):
    """An object became another while it was read in parts."""


class RangeIgnoredError(StoreError):
    """The server answers a range request with the whole object."""


@contextmanager
def translated(doing: str, bucket: str) -> Iterator[None]:
    """Turn what boto3 raises into this package's errors.

    Args:
        doing: What is attempted, for the message ("read projects/p/...").
        bucket: The bucket, for the message.

    Raises:
        TransientFault: Another attempt may succeed.
        ArtifactNotFoundError: There is no such object.
        StoreError: Nothing will change by trying again.
    """
    try:
        yield
    except ClientError as error:
        raise _from_answer(error, doing, bucket) from None
    except (NoCredentialsError, PartialCredentialsError):
        raise ConfigError(f"cannot {doing}: the S3 credentials are missing or partial") from None
    except SSLError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise StoreError(
                f"cannot {doing}: the endpoint's certificate is not trusted; set AWS_CA_BUNDLE"
            ) from None
        raise TransientFault(f"cannot {doing}: the TLS connection failed") from None
    except (
        BotoConnectionError,
        HTTPClientError,
        IncompleteReadError,
        ResponseParserError,
        ResponseStreamingError,
    ) as error:
        kind = type(error).__name__.removesuffix("Error")
        raise TransientFault(f"cannot {doing}: no usable answer ({kind})") from None
    except BotoCoreError as error:
        raise StoreError(f"cannot {doing}: {type(error).__name__}") from None


def status_and_code(error: ClientError) -> tuple[int, str]:
    """HTTP status and S3 error code of a refusal."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status, error.response.get("Error", {}).get("Code", "")


def _from_answer(error: ClientError, doing: str, bucket: str) -> ZkmlRayError | TransientFault:
    status, code = status_and_code(error)
    named = "" if code == str(status) else f" {code}"  # an answer to HEAD has no code
    told = f"cannot {doing}: HTTP {status}{named}"
    if code in _UPLOAD_CODES:
        return UploadLostError(told)
    if code == "NoSuchBucket":
        return StoreError(
            f"{told}: the bucket {bucket} does not exist; create it or correct --store"
        )
    if status == 404 or code == "NoSuchKey":
        return ArtifactNotFoundError(f"{told}: there is no such object in bucket {bucket}")
    if code == "InvalidRange" or status == 416:
        return ObjectChangedError(told)
    if code in _TRANSIENT_CODES or status in {408, 429} or (status >= 500 and status != 501):
        return TransientFault(told)
    if code == "RequestTimeTooSkewed":
        return StoreError(f"{told}: this machine's clock is wrong; set it")
    if code in _CREDENTIAL_CODES:
        return StoreError(f"{told}: the credentials are not accepted; check key, secret and region")
    if status == 403:
        return StoreError(f"{told}: the credentials do not allow this on bucket {bucket}")
    if status in {301, 307, 308} or code == "AuthorizationHeaderMalformed":
        return StoreError(f"{told}: the bucket is in another region; set AWS_REGION")
    return StoreError(told)
