from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zkml_ray.commitments import merkle
from zkml_ray.commitments.field import MODULUS, to_signed
from zkml_ray.commitments.leaves import LeafLayout
from zkml_ray.commitments.merkle import (
    TAG_BOUNDARY,
    TAG_NODE,
    BoundaryMetadata,
    MerkleTree,
    boundary_commitment,
    root_from_path,
)
from zkml_ray.commitments.packing import PackingSpec
from zkml_ray.commitments.poseidon import hash_elements
from zkml_ray.errors import FieldRangeError, OpeningError

SPEC = PackingSpec.for_decomposition(128, 4)
METADATA = BoundaryMetadata(
    name="b", shape=(2, 15), scale=7, layout=LeafLayout.plan(30, SPEC, max_slots=16)
)


def _siblings(tree: MerkleTree, index: int) -> list[int]:
    return [step.sibling for step in tree.path(index)]


@given(st.lists(st.integers(min_value=0, max_value=MODULUS - 1), min_size=1, max_size=20))
@settings(max_examples=30)
def test_path_of_every_leaf_leads_to_the_root(leaves: list[int]) -> None:
    tree = MerkleTree(leaves)
    for index, leaf in enumerate(leaves):
        assert root_from_path(leaf, index, len(leaves), _siblings(tree, index)) == tree.root


def test_root_of_one_leaf_is_the_leaf() -> None:
    assert MerkleTree([5]).root == 5
    assert MerkleTree([5]).path(0) == []


def test_root_of_five_leaves_promotes_the_fifth() -> None:
    def node(left: int, right: int) -> int:
        return hash_elements([TAG_NODE, left, right])

    tree = MerkleTree([1, 2, 3, 4, 5])
    assert tree.root == node(node(node(1, 2), node(3, 4)), 5)
    assert _siblings(tree, 4) == [node(node(1, 2), node(3, 4))]
    assert [step.sibling_is_left for step in tree.path(4)] == [True]
    assert [step.sibling_is_left for step in tree.path(2)] == [False, True, False]


def test_tree_of_signed_leaves_equals_tree_of_their_residues() -> None:
    assert MerkleTree([-1, 2]) == MerkleTree([MODULUS - 1, 2])


def test_tree_of_a_list_is_unaffected_by_later_changes() -> None:
    leaves = [1, 2, 3]
    tree = MerkleTree(leaves)
    leaves[0] = 9
    assert tree.leaves == (1, 2, 3)


def test_tree_of_no_leaves_is_refused() -> None:
    with pytest.raises(FieldRangeError, match="at least one leaf"):
        MerkleTree([])


@pytest.mark.parametrize("index", [-1, 3])
def test_path_of_no_leaf_is_refused(index: int) -> None:
    with pytest.raises(FieldRangeError, match="no leaf"):
        MerkleTree([1, 2, 3]).path(index)


@pytest.mark.parametrize("index", [-1, 3])
def test_root_from_path_of_no_leaf_is_refused(index: int) -> None:
    with pytest.raises(OpeningError, match="outside the tree"):
        root_from_path(1, index, 3, [2, 3])


@pytest.mark.parametrize("leaf_count", range(1, 9))
def test_root_from_path_with_wrong_number_of_siblings_is_refused(leaf_count: int) -> None:
    tree = MerkleTree(list(range(1, leaf_count + 1)))
    for index in range(leaf_count):
        siblings = _siblings(tree, index)
        for wrong in ([*siblings, 0], siblings[:-1]):
            if len(wrong) != len(siblings):
                with pytest.raises(OpeningError, match="siblings"):
                    root_from_path(index + 1, index, leaf_count, wrong)


@pytest.mark.parametrize(
    ("tag", "text"),
    [(TAG_NODE, "zkml_ray/merkle/node/v1"), (TAG_BOUNDARY, "zkml_ray/merkle/boundary/v1")],
)
def test_tag_is_the_first_large_digest_of_its_public_string(tag: int, text: str) -> None:
    for counter in range(100):
        digest = hashlib.sha256(f"{text}{counter}".encode()).digest()
        element = int.from_bytes(digest, "big") % MODULUS
        if abs(to_signed(element)) >= 2**252:
            break
    assert tag == element


def test_tag_of_any_string_is_beyond_what_leaves_hold() -> None:
    """The two tags are large at once; a third of all digests are, so others need the search."""
    tags = [merkle._tag(f"text {number}") for number in range(50)]
    assert all(abs(to_signed(tag)) >= 2**252 for tag in tags)
    assert len(set(tags)) == 50


def test_tags_are_those_of_version_1() -> None:
    # Changing a tag changes every commitment ever made: then the version must change too.
    assert TAG_NODE == 0x125D0A88351BDC850989B958B17DA9A7FF127BD3C47E6E2E88E6AEC6268F685B
    assert TAG_BOUNDARY == 0x132DE88FCD957739D384D027910B1440A00AD13BE8C2D7BC2DC4DF852BF3B7D2


def test_commitment_hashes_tag_root_and_digest() -> None:
    assert boundary_commitment(7, METADATA) == hash_elements([TAG_BOUNDARY, 7, METADATA.digest()])


def test_digest_is_sha256_of_canonical_json_mod_r() -> None:
    text = METADATA.as_json()
    assert METADATA.digest() == int.from_bytes(hashlib.sha256(text).digest(), "big") % MODULUS
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":")).encode()


def test_json_of_metadata_holds_every_field() -> None:
    document = json.loads(METADATA.as_json())

    def names(cls: Any) -> set[str]:
        return {field.name for field in dataclasses.fields(cls)}

    assert set(document) == names(BoundaryMetadata) | {"format"}
    assert set(document["layout"]) == names(LeafLayout)
    assert set(document["layout"]["packing"]) == names(PackingSpec)


def _variants() -> list[BoundaryMetadata]:
    wide = LeafLayout.plan(30, PackingSpec.for_decomposition(16384, 2), max_slots=16)
    tight = dataclasses.replace(SPEC, stride_bits=29)
    flat = dataclasses.replace(SPEC, outer=1)
    swapped = dataclasses.replace(SPEC, inner=2, outer=2)
    layouts = [
        wide,
        LeafLayout.plan(30, tight, max_slots=16),
        LeafLayout.plan(30, flat, max_slots=16),
        LeafLayout.plan(30, swapped, max_slots=16),
        LeafLayout.plan(30, SPEC, max_slots=24),
        LeafLayout.plan(30, SPEC, max_slots=16, salts_per_leaf=6),
        dataclasses.replace(METADATA.layout, slots=24),
    ]
    return [
        METADATA,
        dataclasses.replace(METADATA, name="c"),
        dataclasses.replace(METADATA, shape=(15, 2)),
        dataclasses.replace(METADATA, shape=(1, 2, 15)),
        dataclasses.replace(METADATA, scale=8),
        dataclasses.replace(METADATA, scale=-7),
        *(dataclasses.replace(METADATA, layout=layout) for layout in layouts),
    ]


def test_commitment_differs_when_any_metadata_differs() -> None:
    variants = _variants()
    assert len({boundary_commitment(7, metadata) for metadata in variants}) == len(variants)


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": "a\nb"},
        {"name": "\ud800"},
        {"shape": (31,)},
        {"shape": ()},
        {"shape": (0, 30)},
        {"shape": (-2, -15)},
        {"scale": 257},
        {"scale": -257},
    ],
)
def test_metadata_that_does_not_fit_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(FieldRangeError):
        dataclasses.replace(METADATA, **change)


def test_metadata_of_a_scalar_is_accepted() -> None:
    metadata = BoundaryMetadata(name="s", shape=(), scale=0, layout=LeafLayout.plan(1, SPEC))
    assert metadata.digest() < MODULUS


def test_json_of_a_base_beyond_2_to_53_is_refused() -> None:
    spec = PackingSpec.for_decomposition(1 << 60, 1)
    metadata = dataclasses.replace(METADATA, layout=LeafLayout.plan(30, spec))
    with pytest.raises(FieldRangeError, match="no JSON"):
        metadata.digest()
