"""Forgeries against the boundary commitment that the tree's construction must stop.

Each test plays an attacker who knows everything and may choose leaves, siblings and documents, but
not the commitment, which comes from proofs, nor the metadata, which comes from the plan.
"""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zkml_ray.commitments.field import MODULUS, canonical, encode, to_signed
from zkml_ray.commitments.leaves import LeafLayout, draw_salts, hash_leaves, pack_leaves
from zkml_ray.commitments.merkle import (
    TAG_BOUNDARY,
    TAG_NODE,
    BoundaryMetadata,
    MerkleTree,
    boundary_commitment,
    root_from_path,
)
from zkml_ray.commitments.opening import Opening, open_leaf, verify_opening
from zkml_ray.commitments.packing import PACKED_BITS, PackingSpec, pack, unpack
from zkml_ray.commitments.poseidon import hash_elements
from zkml_ray.errors import FieldRangeError, OpeningError

SPEC = PackingSpec.for_decomposition(128, 4)
SPECS = [
    PackingSpec.for_decomposition(base, legs)
    for base, legs in [(128, 4), (16384, 2), (128, 2), (100, 3), (1024, 4), (2, 100), (2, 251)]
]
# Three packed elements per leaf: as many as a node's hash has inputs.
LAYOUT = LeafLayout.plan(57, SPEC, max_slots=24)
METADATA = BoundaryMetadata(name="b", shape=(57,), scale=7, layout=LAYOUT)
VALUES = list(range(57))
SALTS = draw_salts(LAYOUT, seed=b"seed", label="b")
LEAVES = hash_leaves(pack_leaves(VALUES, SALTS, LAYOUT))
TREE = MerkleTree(LEAVES)
COMMITMENT = boundary_commitment(TREE.root, METADATA)


def _siblings(tree: MerkleTree, index: int) -> list[int]:
    return [step.sibling for step in tree.path(index)]


def _refused(opening: Opening, metadata: BoundaryMetadata = METADATA) -> None:
    with pytest.raises(OpeningError):
        verify_opening(opening, expected_commitment=COMMITMENT, expected_metadata=metadata)


def _opening(index: int = 0) -> Opening:
    return open_leaf(
        run_id="run", metadata=METADATA, values=VALUES, salts=SALTS, index_of_element=index
    )


def test_layout_under_attack_has_leaves_of_a_nodes_length() -> None:
    assert LAYOUT.packed_per_leaf == 3
    assert LAYOUT.leaf_count == 3


@pytest.mark.parametrize("tag", [TAG_NODE, TAG_BOUNDARY])
@pytest.mark.parametrize("spec", SPECS)
def test_tag_as_packed_element_is_refused_by_every_packing(tag: int, spec: PackingSpec) -> None:
    extreme = pack([spec.element_bound] * spec.pack, spec)[0]
    assert abs(to_signed(tag)) >= 2**PACKED_BITS > extreme
    with pytest.raises(FieldRangeError):
        unpack([tag], spec)


def test_tags_differ() -> None:
    assert TAG_NODE != TAG_BOUNDARY


@given(st.lists(st.integers(-SPEC.element_bound, SPEC.element_bound), min_size=24, max_size=24))
@settings(deadline=None)
def test_packed_leaf_never_has_a_nodes_preimage(slots: list[int]) -> None:
    first = canonical(pack(slots, SPEC)[0])
    assert first not in (TAG_NODE, TAG_BOUNDARY)


def test_inner_node_shown_as_leaf_is_refused() -> None:
    # In a tree of two leaves, show the node over leaves 0 and 1 as leaf 0: its preimage is
    # (tag, left, right), three elements like a leaf's, but they unpack to no elements.
    node = [TAG_NODE, LEAVES[0], LEAVES[1]]
    assert hash_elements(node) == TREE.levels[1][0]
    with pytest.raises(FieldRangeError):
        unpack(node, SPEC)
    # As bare hashes: the path is one step too short for the real tree.
    with pytest.raises(OpeningError, match="siblings"):
        root_from_path(TREE.levels[1][0], 0, LAYOUT.leaf_count, [LEAVES[2]])


def test_inner_node_shown_as_leaf_of_a_shorter_tree_is_refused() -> None:
    # The same, claiming a tree of two leaves, where the path has the right length and the root
    # comes out right. The leaf count is in the metadata that the commitment binds.
    root = root_from_path(TREE.levels[1][0], 0, 2, [LEAVES[2]])
    assert root == TREE.root
    shorter = LeafLayout.plan(38, SPEC, max_slots=24)
    assert shorter.leaf_count == 2
    metadata = BoundaryMetadata(name="b", shape=(38,), scale=7, layout=shorter)
    assert boundary_commitment(root, metadata) != COMMITMENT


def test_leaf_shown_as_inner_node_is_refused() -> None:
    # A promoted leaf sits on the level of inner nodes. Pretend it is one, over chosen children.
    for left, right in ((0, 0), (LEAVES[2], 0), (LEAVES[0], LEAVES[1])):
        assert hash_elements([TAG_NODE, left, right]) != LEAVES[2]
    with pytest.raises(OpeningError, match="siblings"):
        root_from_path(LEAVES[2], 2, LAYOUT.leaf_count, [LEAVES[2], TREE.levels[1][0]])


def test_boundary_commitment_is_no_node_and_no_leaf() -> None:
    assert COMMITMENT not in (*LEAVES, *(node for level in TREE.levels for node in level))
    with pytest.raises(FieldRangeError):
        unpack([TAG_BOUNDARY, TREE.root, METADATA.digest()], SPEC)


@pytest.mark.parametrize("count", [1, 3, 5, 6, 7])
def test_duplicated_last_leaf_gives_another_root(count: int) -> None:
    # Trees that duplicate an odd node give [a, b, c] and [a, b, c, c] one root (CVE-2012-2459).
    leaves = list(range(1, count + 1))
    for copies in range(1, 4):
        assert MerkleTree(leaves + leaves[-copies:]).root != MerkleTree(leaves).root


@pytest.mark.parametrize("count", [3, 5, 6, 7])
def test_promoted_leaf_with_itself_as_sibling_is_refused(count: int) -> None:
    leaves = list(range(1, count + 1))
    tree = MerkleTree(leaves)
    last = count - 1
    honest = _siblings(tree, last)
    assert len(honest) < len(tree.levels) - 1
    with pytest.raises(OpeningError, match="siblings"):
        root_from_path(leaves[last], last, count, [leaves[last], *honest])


def test_leaf_of_a_tree_at_the_index_after_the_last_is_refused() -> None:
    duplicated = MerkleTree([*LEAVES, LEAVES[-1]])
    with pytest.raises(OpeningError, match="outside the tree"):
        root_from_path(LEAVES[-1], 3, LAYOUT.leaf_count, _siblings(duplicated, 3))


@given(
    count=st.integers(min_value=1, max_value=17),
    claimed=st.integers(min_value=1, max_value=33),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_path_under_wrong_leaf_count_does_not_reach_the_commitment(
    count: int, claimed: int, data: st.DataObject
) -> None:
    tree = MerkleTree(list(range(1, count + 1)))
    index = data.draw(st.integers(min_value=0, max_value=count - 1))
    siblings = _siblings(tree, index)

    def commit(root: int, leaf_count: int) -> int:
        layout = LeafLayout.plan(leaf_count * 3, SPEC, max_slots=8)
        assert layout.leaf_count == leaf_count
        return boundary_commitment(
            root, BoundaryMetadata(name="b", shape=(leaf_count * 3,), scale=7, layout=layout)
        )

    try:
        root = root_from_path(index + 1, index, claimed, siblings)
    except OpeningError:
        assert claimed != count
        return
    # Some shapes share a path's form; what differs then is the metadata, hence the commitment.
    assert (commit(root, claimed) == commit(tree.root, count)) == (claimed == count)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_leaf_at_another_index_leads_elsewhere(data: st.DataObject) -> None:
    count = data.draw(st.integers(min_value=2, max_value=17))
    tree = MerkleTree(list(range(1, count + 1)))
    index = data.draw(st.integers(min_value=0, max_value=count - 1))
    claimed = data.draw(st.integers(min_value=0, max_value=count - 1).filter(lambda i: i != index))
    try:
        root = root_from_path(index + 1, claimed, count, _siblings(tree, index))
    except OpeningError:
        return
    assert root != tree.root


def test_swapped_leaves_give_another_root() -> None:
    assert MerkleTree(LEAVES[::-1]).root != TREE.root
    assert MerkleTree([LEAVES[1], LEAVES[0], LEAVES[2]]).root != TREE.root


def test_opening_moved_to_another_leaf_is_refused() -> None:
    opening = _opening(0)
    for index in (1, 2, 3):
        _refused(opening.model_copy(update={"leaf_index": index}))


def test_opening_with_another_leafs_siblings_is_refused() -> None:
    _refused(_opening(0).model_copy(update={"siblings": _opening(20).siblings}))


def test_opening_of_another_boundary_with_the_same_values_is_refused() -> None:
    other = dataclasses.replace(METADATA, name="c")
    opening = open_leaf(
        run_id="run", metadata=other, values=VALUES, salts=SALTS, index_of_element=0
    )
    _refused(opening)
    _refused(opening.model_copy(update={"boundary": "b"}))
    claimed = {"boundary": "b", "commitment": encode(COMMITMENT)}
    verified = verify_opening(
        opening.model_copy(update=claimed),
        expected_commitment=COMMITMENT,
        expected_metadata=METADATA,
    )
    # Told the right name and commitment it is boundary b's own opening, letter for letter.
    assert opening.model_copy(update=claimed) == _opening(0)
    assert verified.elements == tuple(VALUES[:19])


def test_overflowing_element_is_refused_though_it_packs_to_the_same_number() -> None:
    # 2^30 in slot 0 equals 1 in slot 1: only the range check tells them apart.
    honest = _opening(0)
    elements = list(honest.elements)
    elements[0], elements[1] = elements[0] + 2**30, elements[1] - 1
    forged = honest.model_copy(update={"elements": tuple(elements)})
    sums = [
        sum(e << (30 * i) for i, e in enumerate(opening.elements[:8]))
        for opening in (honest, forged)
    ]
    assert sums[0] == sums[1]
    _refused(forged)


def test_elements_shifted_by_the_modulus_are_refused() -> None:
    honest = _opening(0)
    forged = (honest.elements[0] + MODULUS, *honest.elements[1:])
    _refused(honest.model_copy(update={"elements": forged}))


def test_padding_smuggled_through_salts_is_refused() -> None:
    honest = _opening(0)
    _refused(honest.model_copy(update={"salts": (0, *honest.salts)}))
    _refused(
        honest.model_copy(
            update={"elements": honest.elements[:-1], "salts": (honest.elements[-1], *honest.salts)}
        )
    )
