from __future__ import annotations

import ezkl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkml_ray.commitments.field import (
    MODULUS,
    canonical,
    decode,
    decode_signed,
    encode,
    to_signed,
)
from zkml_ray.errors import FieldRangeError

HALF = MODULUS // 2
signed = st.integers(min_value=-HALF, max_value=HALF)


@given(signed)
def test_encode_signed_then_decode_signed_is_identity(value: int) -> None:
    assert decode_signed(encode(value)) == value


@given(st.integers(min_value=0, max_value=MODULUS - 1))
def test_encode_canonical_then_decode_is_identity(value: int) -> None:
    text = encode(value)
    assert decode(text) == value
    assert len(text) == 64
    assert text == text.lower()


@given(signed)
def test_canonical_of_signed_is_undone_by_to_signed(value: int) -> None:
    assert to_signed(canonical(value)) == value
    assert to_signed(value) == value


@pytest.mark.parametrize("value", [-HALF, -1, 0, 1, HALF, HALF + 1, MODULUS - 1])
def test_encode_extremes_are_accepted(value: int) -> None:
    assert decode(encode(value)) == value % MODULUS


@pytest.mark.parametrize("value", [-HALF - 1, MODULUS, MODULUS + 1, -MODULUS, 1 << 5000])
def test_encode_outside_range_is_refused(value: int) -> None:
    with pytest.raises(FieldRangeError, match="not a field element"):
        encode(value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        "0" * 63,
        "0" * 65,
        "0x" + "0" * 62,
        "g" + "0" * 63,
        "AB" + "0" * 62,
        " " + "0" * 63,
        "0" * 63 + "\n",
        "0" * 64 + "\n",
        "\u0660" * 64,
    ],
)
def test_decode_other_form_is_refused(text: str) -> None:
    with pytest.raises(FieldRangeError, match="64 lowercase hexadecimal"):
        decode(text)


def test_decode_of_no_string_is_refused() -> None:
    with pytest.raises(FieldRangeError, match="got bytes"):
        decode(b"0" * 64)  # type: ignore[arg-type]


@pytest.mark.parametrize("integer", [MODULUS, MODULUS + 1, (1 << 256) - 1])
def test_decode_not_below_modulus_is_refused(integer: int) -> None:
    with pytest.raises(FieldRangeError, match="canonical"):
        decode(integer.to_bytes(32, "little").hex())


@pytest.mark.parametrize("value", [0, 1, 7, 1 << 100])
def test_encode_agrees_with_ezkl(value: int) -> None:
    assert int(ezkl.felt_to_big_endian(encode(value)), 16) == value


@pytest.mark.parametrize("value", [-5, 0, 5])
def test_decode_signed_agrees_with_ezkl(value: int) -> None:
    assert ezkl.felt_to_int(encode(value)) == decode_signed(encode(value)) == value
