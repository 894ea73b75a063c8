"""Where an S3 store lies and how it is reached: the URL, the environment, the client.

| variable | meaning |
|---|---|
| AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN | credentials |
| AWS_ENDPOINT_URL_S3, else AWS_ENDPOINT_URL | endpoint; without one, Amazon's |
| AWS_REGION, else AWS_DEFAULT_REGION | region; default us-east-1 |
| AKAVE_ACCESS_KEY_ID, AKAVE_SECRET_ACCESS_KEY, AKAVE_ENDPOINT_URL | aliases for Akave O3, region \
akave-network |

The AKAVE_* names are used as a set when AKAVE_ENDPOINT_URL is the endpoint, so that Amazon's keys
are never shown to another provider while Akave's are there; an AWS_ENDPOINT_URL* wins over it.
Without any of these, botocore's own chain (profile, instance role) applies.

Secrets stay in the client: no URL, message or `repr` of this package shows them.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from zkml_ray.config import store_deadline_s, store_timeout_s
from zkml_ray.errors import ConfigError
from zkml_ray.stores.base import is_key

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

AKAVE_REGION = "akave-network"
DEFAULT_REGION = "us-east-1"
MIN_PART_BYTES = 5 << 20  # S3's smallest part, but for the last

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Location:
    """A bucket and a prefix in it.

    Attributes:
        bucket: The bucket.
        prefix: "" or parts that each end in "/".
    """

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, url: str) -> S3Location:
        """Parse s3://bucket[/prefix].

        Raises:
            ConfigError: It is not of this form. The message does not repeat the URL, which may
                hold a secret in the wrong place.
        """
        bucket, _, path = url.removeprefix("s3://").partition("/")
        prefix = path.strip("/")
        if not _BUCKET.fullmatch(bucket) or (prefix and not is_key(prefix)):
            raise ConfigError(
                "the store's URL is not s3://bucket or s3://bucket/prefix; credentials and the "
                "endpoint belong in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, "
                "AWS_ENDPOINT_URL_S3)"
            )
        return cls(bucket=bucket, prefix=f"{prefix}/" if prefix else "")

    @property
    def url(self) -> str:
        """The URL, in its one normal form."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Options:
    """How requests are made.

    Attributes:
        deadline_s: Longest time without progress before an operation fails.
        timeout_s: Longest silence within one request.
        backoff_s: Ceiling of the first pause between attempts.
        part_bytes: Larger objects are written and read in parts of this size.
        parallel_parts: Parts on their way at once. Memory is about one part more than this.
    """

    deadline_s: float = field(default_factory=store_deadline_s)
    timeout_s: float = field(default_factory=store_timeout_s)
    backoff_s: float = 0.2
    part_bytes: int = 16 << 20
    parallel_parts: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Access:
    endpoint: str | None
    region: str
    key_id: str | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)


def connect(options: S3Options) -> S3Client:
    """A client for the endpoint and credentials that the environment names.

    Raises:
        ConfigError: There are no credentials, or a variable is unusable.
    """
    access = _access()
    try:
        session = boto3.session.Session(
            aws_access_key_id=access.key_id,
            aws_secret_access_key=access.secret,
            region_name=access.region,
        )
        if session.get_credentials() is None:
            raise ConfigError(
                "no credentials for the S3 store: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "
                "(or AKAVE_ACCESS_KEY_ID and AKAVE_SECRET_ACCESS_KEY)"
            )
        return session.client(
            "s3",
            endpoint_url=access.endpoint,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                # O3, like others, refuses the checksum headers that boto3 sends by default.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                retries={"total_max_attempts": 1, "mode": "standard"},  # ours: RetryPolicy
                connect_timeout=options.timeout_s,
                read_timeout=options.timeout_s,
                max_pool_connections=2 * options.parallel_parts + 2,
            ),
        )
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(
            f"the environment's S3 settings are not usable ({type(error).__name__}); check the "
            "AWS_* or AKAVE_* variables and the profile they name"
        ) from None


def _access() -> _Access:
    env = os.environ
    region = env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION")
    aws_endpoint = env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL")
    akave_endpoint = env.get("AKAVE_ENDPOINT_URL")
    endpoint = _checked_endpoint(aws_endpoint or akave_endpoint)
    akave_key = env.get("AKAVE_ACCESS_KEY_ID")
    by_alias = bool(akave_key) and (
        not env.get("AWS_ACCESS_KEY_ID") or (not aws_endpoint and bool(akave_endpoint))
    )
    if not by_alias:
        akave_only = endpoint is not None and not aws_endpoint
        return _Access(
            endpoint=endpoint,
            region=region or (AKAVE_REGION if akave_only else DEFAULT_REGION),
        )
    if endpoint is None:
        raise ConfigError(
            "AKAVE_ACCESS_KEY_ID is set without an endpoint: set AKAVE_ENDPOINT_URL to the one "
            "issued with the credentials"
        )
    secret = env.get("AKAVE_SECRET_ACCESS_KEY")
    if not secret:
        raise ConfigError("AKAVE_ACCESS_KEY_ID is set without AKAVE_SECRET_ACCESS_KEY")
    return _Access(
        endpoint=endpoint, region=region or AKAVE_REGION, key_id=akave_key, secret=secret
    )


def _checked_endpoint(endpoint: str | None) -> str | None:
    if not endpoint:
        return None
    parts = urlsplit(endpoint)
    if (
        parts.scheme not in {"http", "https"}
        or not parts.hostname
        or "@" in parts.netloc
        or parts.query
    ):
        raise ConfigError(
            "the S3 endpoint must be https://host[:port] without user, password or query; check "
            "AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL or AKAVE_ENDPOINT_URL"
        )
    return endpoint
