from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from zkml_ray.commitments.field import MODULUS, decode
from zkml_ray.commitments.poseidon import hash_elements
from zkml_ray.errors import FieldRangeError

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "poseidon_bn254_t2.json").read_text()
)
POOL = [decode(text) for text in VECTORS["pool"]]


def test_vectors_cover_lengths_1_to_64_of_this_field() -> None:
    assert list(VECTORS["suffixes"]["hashes"]) == [str(n) for n in range(1, 65)]
    assert len(POOL) == len(set(POOL)) == 64
    assert int(VECTORS["instance"]["modulus"], 16) == MODULUS


@pytest.mark.parametrize("length", range(1, 65))
def test_hash_of_pool_suffix_equals_independent_vector(length: int) -> None:
    assert hash_elements(POOL[-length:]) == decode(VECTORS["suffixes"]["hashes"][str(length)])


@pytest.mark.parametrize("vector", VECTORS["edges"], ids=lambda vector: vector["name"])
def test_hash_of_edge_case_equals_independent_vector(vector: dict[str, Any]) -> None:
    elements = [decode(text) for text in vector["input"]]
    assert hash_elements(elements) == decode(vector["hash"])


def test_hash_of_signed_integer_equals_hash_of_its_residue() -> None:
    assert hash_elements([-1, -(2**250)]) == hash_elements([MODULUS - 1, MODULUS - 2**250])


def test_hash_binds_order_and_length() -> None:
    lists = [[0], [0, 0], [1], [1, 0], [0, 1], [1, 0, 0], [0, 0, 1]]
    assert len({hash_elements(elements) for elements in lists}) == len(lists)


def test_hash_of_nothing_is_refused() -> None:
    with pytest.raises(FieldRangeError, match="nothing to hash"):
        hash_elements([])


@pytest.mark.parametrize("value", [MODULUS, -MODULUS])
def test_hash_of_no_field_element_is_refused(value: int) -> None:
    with pytest.raises(FieldRangeError, match="not a field element"):
        hash_elements([0, value])
