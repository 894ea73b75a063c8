"""Elements of the BN254 scalar field, and their text form.

ezkl writes field elements as 32 bytes, little-endian, in lowercase hexadecimal. There is exactly
one text per element: `decode` refuses every other spelling, so texts may be compared directly.

A tensor's integers are signed. An integer is embedded as its residue mod r; an element above
r // 2 stands for a negative integer.

Source: the field is that of halo2curves' `bn256::Fr`; r is the order of BN254's group G1
(EIP-196, "prime q").
"""

from __future__ import annotations

import re
from typing import Final

from zkml_ray.errors import FieldRangeError

MODULUS: Final[int] = 0x30644E72E131A029B85045B68181585D2833E84879B9709143E1F593F0000001
"""r, the order of the BN254 scalar field: a prime of 254 bits."""

ELEMENT_BYTES: Final[int] = 32
"""Length of an encoded element; its text has twice as many characters."""

_HALF: Final[int] = MODULUS // 2
_TEXT: Final[re.Pattern[str]] = re.compile(r"[0-9a-f]{64}")


def canonical(value: int) -> int:
    """Embed a signed or canonical integer in the field.

    Args:
        value: An integer in [-(r-1)/2, r).

    Returns:
        The residue in [0, r).

    Raises:
        FieldRangeError: The value is outside that range.
    """
    if not -_HALF <= value < MODULUS:
        raise FieldRangeError(
            f"integer of {value.bit_length()} bits is not a field element: expected -(r-1)/2 <= "
            "value < r of BN254's scalar field"
        )
    return value % MODULUS


def to_signed(element: int) -> int:
    """Read an element as a signed integer.

    Args:
        element: An integer in [-(r-1)/2, r); elements above r // 2 are negative.

    Returns:
        The representative in [-(r-1)/2, (r-1)/2].

    Raises:
        FieldRangeError: The element is outside that range.
    """
    residue = canonical(element)
    return residue - MODULUS if residue > _HALF else residue


def encode(value: int) -> str:
    """Write an integer as a field element.

    Args:
        value: An integer in [-(r-1)/2, r); negative integers are taken mod r.

    Returns:
        64 lowercase hexadecimal characters, little-endian.

    Raises:
        FieldRangeError: The value is outside that range.
    """
    return canonical(value).to_bytes(ELEMENT_BYTES, "little").hex()


def decode(text: str) -> int:
    """Read a field element.

    Args:
        text: 64 lowercase hexadecimal characters, little-endian, of an integer below r.

    Returns:
        The element in [0, r).

    Raises:
        FieldRangeError: The text has another form, or encodes r or more.
    """
    if not isinstance(text, str) or _TEXT.fullmatch(text) is None:
        raise FieldRangeError(
            f"not a field element: expected 64 lowercase hexadecimal characters, got {_shown(text)}"
        )
    element = int.from_bytes(bytes.fromhex(text), "little")
    if element >= MODULUS:
        raise FieldRangeError(
            f"not a canonical field element: {text} encodes an integer that is not below r of "
            "BN254's scalar field"
        )
    return element


def decode_signed(text: str) -> int:
    """Read a field element as a signed integer.

    Args:
        text: As for `decode`.

    Returns:
        The integer in [-(r-1)/2, (r-1)/2].

    Raises:
        FieldRangeError: As for `decode`.
    """
    return to_signed(decode(text))


def _shown(text: object) -> str:
    if not isinstance(text, str):
        return type(text).__name__
    return f"{len(text)} characters" if len(text) != 2 * ELEMENT_BYTES else repr(text)
