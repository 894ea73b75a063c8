"""Base of every stored document.

Unknown fields are refused, values are not coerced, and parsing is bounded: the size is checked
before the parser sees a byte. A document's digest is that of its canonical JSON.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from zkml_ray.canonical import canonical_json, sha256_hex
from zkml_ray.errors import ManifestError

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Felt = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A field element: 32 bytes, little-endian, hexadecimal."""
Name = Annotated[str, StringConstraints(min_length=1, max_length=500)]
ChunkId = Annotated[str, StringConstraints(pattern=r"^chunk-[0-9]{3,5}$")]

MAX_DOCUMENT_BYTES = 64 << 20

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
            ManifestError: Too large, not JSON, or not of this document's schema.
        """
        if len(data) > max_bytes:
            raise ManifestError(f"{what} has {len(data)} bytes; at most {max_bytes} are read")
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise ManifestError(f"{what} is not valid: {first_problem(error)}") from None


def first_problem(error: ValidationError) -> str:
    """The first problem that pydantic found, as one line that shows where it is."""
    problems: list[Any] = list(error.errors(include_url=False, include_input=False))
    first = problems[0]
    place = ".".join(str(part) for part in first["loc"]) or "the document"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{place}: {first['msg']}{more}"
