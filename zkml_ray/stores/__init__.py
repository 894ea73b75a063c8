"""Artifact stores: one contract, one module a backend."""

from __future__ import annotations

from zkml_ray.errors import ConfigError
from zkml_ray.extras import named_if_missing
from zkml_ray.stores.base import ArtifactStore, ObjectInfo, UnfinishedUpload
from zkml_ray.stores.local import LocalStore

__all__ = ["ArtifactStore", "LocalStore", "ObjectInfo", "UnfinishedUpload", "open_store"]


def open_store(url: str) -> ArtifactStore:
    """Open the store that a URL names.

    Args:
        url: A folder's path, file:// and an absolute path, or s3://bucket/prefix (endpoint and
            credentials from the environment, see `zkml_ray.stores.s3config`).

    Raises:
        ConfigError: The scheme is not known, the environment lacks what the store needs, or boto3
            is not installed.
    """
    if url.startswith("file://"):
        return LocalStore(url.removeprefix("file://"))
    if url.startswith("s3://"):
        with named_if_missing():
            from zkml_ray.stores.s3 import S3Store  # boto3 is loaded only when it is needed

        return S3Store(url)
    if "://" in url:
        scheme = url.split("://", 1)[0]
        raise ConfigError(f"store: {scheme}:// is not known; use a folder, file:// or s3://")
    return LocalStore(url)
