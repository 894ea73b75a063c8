"""Canonical bytes and digests.

Every digest of a document is the SHA-256 of its RFC 8785 (JCS) form, so that it does not depend
on key order, white space or the JSON library. Digests are lowercase hexadecimal.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import rfc8785

READ_BLOCK_BYTES = 1 << 20


def canonical_json(value: Any) -> bytes:
    """Serialise a JSON value to its RFC 8785 bytes.

    Args:
        value: None, bool, int within +-2^53, float, str, list/tuple or dict with str keys.

    Returns:
        UTF-8 bytes.
    """
    return rfc8785.dumps(value)


def sha256_hex(data: bytes) -> str:
    """SHA-256 of bytes, lowercase hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def document_digest(value: Any) -> str:
    """SHA-256 of a JSON value's canonical form."""
    return sha256_hex(canonical_json(value))
