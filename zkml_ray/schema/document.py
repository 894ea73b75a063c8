"""Base of every stored document.

Unknown fields are refused and values are not coerced. What a parser is given is bounded first:
size, nesting and number of values are counted on the raw bytes, in that order, before JSON is
parsed. A document's digest is that of its canonical JSON; documents that a digest stands for, or
whose every byte must mean something, are read with `parse_canonical`, which also refuses repeated
keys, white space and other spellings of one value.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from zkml_ray.canonical import canonical_json, sha256_hex
from zkml_ray.errors import ManifestError

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Felt = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A field element: 32 bytes, little-endian, hexadecimal."""
Name = Annotated[str, StringConstraints(min_length=1, max_length=500)]
Text = Annotated[str, StringConstraints(max_length=10_000)]
"""Words for people."""
ChunkId = Annotated[str, StringConstraints(pattern=r"^chunk-[0-9]{3,5}$")]
Integer = Annotated[int, Field(gt=-(1 << 53), lt=1 << 53)]
"""An integer that canonical JSON can carry exactly."""

MAX_DOCUMENT_BYTES: Final = 64 << 20
MAX_DEPTH: Final = 12
"""Nesting of arrays and objects; the deepest document here has 8 levels."""
MAX_VALUES: Final = 4 << 20
"""Array items and object members of one document."""

# Escapes are taken out first. An unclosed string counts to the end, so that no input is scanned
# twice: the time is linear in the bytes, whatever they are.
_STRING: Final = re.compile(rb'"[^"]*(?:"|\Z)')
_BRACKET: Final = re.compile(rb"[\[\]{}]")

DocumentT = TypeVar("DocumentT", bound="Document")


class Document(BaseModel):
    """A frozen document with a canonical form."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def to_bytes(self) -> bytes:
        """Canonical JSON (RFC 8785) of this document."""
        return canonical_json(self.model_dump(mode="json"))

    def digest(self) -> str:
        """SHA-256 of the canonical JSON, lowercase hexadecimal."""
        return sha256_hex(self.to_bytes())

    @classmethod
    def parse(
        cls: type[DocumentT], data: bytes, *, what: str, max_bytes: int = MAX_DOCUMENT_BYTES
    ) -> DocumentT:
        """Parse bytes that came from outside.

        Args:
            data: JSON bytes.
            what: How to call the document in an error message.
            max_bytes: Larger input is refused unread.

        Raises:
            ManifestError: Too large, too deep, not JSON, or not of this document's schema.
        """
        check_bounds(data, what=what, max_bytes=max_bytes)
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise ManifestError(f"{what} is not valid: {first_problem(error)}") from None

    @classmethod
    def parse_canonical(
        cls: type[DocumentT], data: bytes, *, what: str, max_bytes: int = MAX_DOCUMENT_BYTES
    ) -> DocumentT:
        """`parse`, and refuse bytes that are not canonical JSON or do not name their format.

        Raises:
            ManifestError: As for `parse`, or the bytes are another spelling of the document.
        """
        parsed = cls.parse(data, what=what, max_bytes=max_bytes)
        if "format" in cls.model_fields and "format" not in parsed.model_fields_set:
            raise ManifestError(f"{what} does not say which format it has")
        try:
            canonical = canonical_json(json.loads(data)) == data
        except (ValueError, RecursionError):
            canonical = False
        if not canonical:
            raise ManifestError(
                f"{what} is not canonical JSON (RFC 8785): repeated keys, white space, key order "
                "or a number's spelling"
            )
        return parsed


def check_bounds(data: bytes, *, what: str, max_bytes: int) -> None:
    """Bound what a JSON parser will meet, without parsing.

    Args:
        data: Bytes that may be JSON.
        what: How to call them in an error message.
        max_bytes: Upper bound of their length.

    Raises:
        ManifestError: Too many bytes, nested too deeply, or too many values.
    """
    if len(data) > max_bytes:
        raise ManifestError(f"{what} has {len(data)} bytes; at most {max_bytes} are read")
    structure = _STRING.sub(b"", data.replace(b"\\\\", b"").replace(b'\\"', b""))
    if sum(structure.count(sign) for sign in (b",", b"[", b"{")) > MAX_VALUES:
        raise ManifestError(f"{what} has more than {MAX_VALUES} values")
    depth = 0
    for bracket in _BRACKET.finditer(structure):
        depth += 1 if bracket.group() in b"[{" else -1
        if depth > MAX_DEPTH:
            raise ManifestError(f"{what} is nested more than {MAX_DEPTH} levels deep")


def first_problem(error: ValidationError) -> str:
    """The first problem that pydantic found, as one line that shows where it is."""
    problems: list[Any] = list(error.errors(include_url=False, include_input=False))
    first = problems[0]
    place = ".".join(str(part) for part in first["loc"]) or "the document"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{place[:200]}: {first['msg'][:200]}{more}"
