"""References to stored objects."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from zkml_ray.schema.document import Document, Sha256

ObjectKey = Annotated[
    str,
    StringConstraints(
        max_length=1000, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$"
    ),
]
"""A relative key without empty or dot-leading parts, so that no key can leave its store."""


class ArtifactRef(Document):
    """Where an object lies and what its bytes must be.

    Attributes:
        key: Its key in the store.
        sha256: Digest of its bytes.
        size_bytes: Its size.
    """

    key: ObjectKey
    sha256: Sha256
    size_bytes: Annotated[int, Field(ge=0, le=1 << 42)]
