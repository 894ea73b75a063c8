from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkml_ray.canonical import (
    READ_BLOCK_BYTES,
    canonical_json,
    document_digest,
    file_sha256,
    sha256_hex,
)

SAFE = (1 << 53) - 1
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-SAFE, SAFE)
    | st.floats(-SAFE, SAFE)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
documents = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)


def reordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    return [reordered(item) for item in value] if isinstance(value, list) else value


@given(documents)
def test_digest_of_a_document_does_not_depend_on_key_order(document: Any) -> None:
    assert document_digest(reordered(document)) == document_digest(document)


@given(documents)
def test_canonical_json_reads_back_as_the_same_document(document: Any) -> None:
    data = canonical_json(document)
    assert json.loads(data) == document
    assert canonical_json(json.loads(data)) == data


@pytest.mark.parametrize(
    ("first", "second"),
    [({"a": 1}, {"a": 2}), ([1, 2], [2, 1]), ("1", 1), (None, False), ({}, []), ("é", "e\u0301")],
)
def test_digest_of_different_documents_differs(first: Any, second: Any) -> None:
    assert document_digest(first) != document_digest(second)


def test_canonical_json_of_a_known_document_has_known_bytes() -> None:
    document = {"\u20ac": "Euro", "b": [1.0, 1e21, 0.000001], "a": {"z": None, "y": True}}
    expected = '{"a":{"y":true,"z":null},"b":[1,1e+21,0.000001],"\u20ac":"Euro"}'
    assert canonical_json(document) == expected.encode()
    assert document_digest(document) == hashlib.sha256(expected.encode()).hexdigest()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1 << 53, {1: "a"}])
def test_canonical_json_of_what_json_cannot_hold_exactly_is_refused(value: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        canonical_json(value)


@pytest.mark.parametrize(
    "size", [0, 1, READ_BLOCK_BYTES - 1, READ_BLOCK_BYTES, READ_BLOCK_BYTES + 1]
)
def test_file_digest_is_that_of_its_bytes(tmp_path: Path, size: int) -> None:
    data = bytes(index % 251 for index in range(size))
    path = tmp_path / "file"
    path.write_bytes(data)
    assert file_sha256(path) == sha256_hex(data) == hashlib.sha256(data).hexdigest()
