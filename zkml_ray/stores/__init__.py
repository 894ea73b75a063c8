"""Artifact stores: one contract, one module a backend."""

from __future__ import annotations

from zkml_ray.errors import ConfigError
from zkml_ray.stores.base import ArtifactStore
from zkml_ray.stores.local import LocalStore

__all__ = ["ArtifactStore", "LocalStore", "open_store"]


def open_store(url: str) -> ArtifactStore:
    """Open the store that a URL names.

    Args:
        url: A folder's path, or file:// and an absolute path.

    Raises:
        ConfigError: The scheme is not known.
    """
    if url.startswith("file://"):
        return LocalStore(url.removeprefix("file://"))
    if "://" in url:
        scheme = url.split("://", 1)[0]
        raise ConfigError(f"store {url}: {scheme}:// is not known; use a folder or file://")
    return LocalStore(url)
