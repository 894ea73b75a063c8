"""A boundary's values and salts: private, and all that is needed to regenerate a witness."""

from __future__ import annotations

from typing import Literal

from zkml_ray.schema.document import Document, Integer, Name


class BoundaryCheckpoint(Document):
    """The opening of one boundary of one run.

    Attributes:
        format: Version of this schema.
        run_id: The run.
        boundary: The tensor's name.
        values: Its quantised elements, flat, row-major.
        salts: The salts of its leaves, leaf by leaf.
    """

    format: Literal["zkml_ray/checkpoint/1"] = "zkml_ray/checkpoint/1"
    run_id: str
    boundary: Name
    values: tuple[Integer, ...]
    salts: tuple[Integer, ...]
