"""The Merkle tree over a boundary's leaves, and the boundary commitment.

    node       = H(TAG_NODE, left, right)
    commitment = H(TAG_BOUNDARY, root, digest of the boundary's metadata)

H is `poseidon.hash_elements`. A level's odd last node is promoted unchanged, never duplicated, so
no two leaf lists of one length share a root by repetition. Leaf hashes come from the proofs'
public instances; a tree over anything else proves nothing.

Domain separation: leaf, node and commitment are hashes of lists. A leaf's elements are below
2^252 in magnitude (`packing.PACKED_BITS`), the tags are not, so no leaf is also a node or a
commitment. The number of leaves is part of the metadata, so a verifier derives a path's shape
from (index, leaf count) and a path of another shape is refused.

A tag is SHA-256(public string || decimal counter) mod r for the first counter, from 0, whose
signed value is at least 2^252 in magnitude.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import rfc8785

from zkml_ray.commitments.field import MODULUS, canonical, to_signed
from zkml_ray.commitments.leaves import LeafLayout
from zkml_ray.commitments.packing import PACKED_BITS
from zkml_ray.commitments.poseidon import hash_elements
from zkml_ray.errors import FieldRangeError, OpeningError


def _tag(text: str) -> int:
    counter = 0
    while True:
        digest = hashlib.sha256(f"{text}{counter}".encode()).digest()
        element = int.from_bytes(digest, "big") % MODULUS
        if abs(to_signed(element)) >= 1 << PACKED_BITS:
            return element
        counter += 1


TAG_NODE: Final[int] = _tag("zkml_ray/merkle/node/v1")
"""First element of every inner node's hash."""

TAG_BOUNDARY: Final[int] = _tag("zkml_ray/merkle/boundary/v1")
"""First element of every boundary commitment's hash."""

MAX_SCALE: Final[int] = 256
"""Largest magnitude of a boundary's scale; dequantised values then fit a float64."""

METADATA_FORMAT: Final[str] = "zkml_ray/boundary/1"
"""Version of the JSON form that `BoundaryMetadata.digest` hashes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PathStep:
    """One step from a leaf towards the root.

    Attributes:
        sibling: The hash of the other child, canonical.
        sibling_is_left: Whether the other child is the left one.
    """

    sibling: int
    sibling_is_left: bool


@dataclass(frozen=True, slots=True)
class MerkleTree:
    """A tree over leaf hashes.

    Attributes:
        leaves: One or more field elements.
        levels: Canonical elements, from the leaves to the root.
    """

    leaves: Sequence[int]
    levels: tuple[tuple[int, ...], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.leaves:
            raise FieldRangeError("a Merkle tree needs at least one leaf")
        level = tuple(canonical(leaf) for leaf in self.leaves)
        levels = [level]
        while len(level) > 1:
            paired = [_node(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
            level = tuple(paired) + level[2 * len(paired) :]
            levels.append(level)
        object.__setattr__(self, "leaves", levels[0])
        object.__setattr__(self, "levels", tuple(levels))

    @property
    def root(self) -> int:
        """The root; of a single leaf, the leaf itself."""
        return self.levels[-1][0]

    def path(self, index: int) -> list[PathStep]:
        """The siblings on the way from a leaf to the root.

        Args:
            index: The leaf's index, from 0.

        Returns:
            Steps from the leaf upwards; a level where the node is promoted has none.

        Raises:
            FieldRangeError: There is no such leaf.
        """
        if not 0 <= index < len(self.leaves):
            raise FieldRangeError(f"no leaf {index}: the tree has {len(self.leaves)}")
        steps = []
        for level in self.levels[:-1]:
            if index ^ 1 < len(level):
                steps.append(PathStep(sibling=level[index ^ 1], sibling_is_left=bool(index & 1)))
            index >>= 1
        return steps


def root_from_path(leaf: int, index: int, leaf_count: int, siblings: Sequence[int]) -> int:
    """Compute the root that a leaf and its siblings lead to.

    The path's shape is derived from `index` and `leaf_count` alone.

    Args:
        leaf: The leaf's hash.
        index: The leaf's index, from 0.
        leaf_count: Leaves of the tree, from a trusted source.
        siblings: Siblings from the leaf upwards.

    Returns:
        The root; the caller compares it.

    Raises:
        OpeningError: There is no such leaf, or another number of siblings belongs to it.
        FieldRangeError: A hash is not a field element.
    """
    if not 0 <= index < leaf_count:
        raise OpeningError(
            f"leaf index {index} is outside the tree of {leaf_count} leaves",
            expected=f"0 <= index < {leaf_count}",
            got=str(index),
            subject="leaf_index",
        )
    sides = _sibling_sides(index, leaf_count)
    if len(siblings) != len(sides):
        raise OpeningError(
            f"{len(siblings)} siblings: leaf {index} of {leaf_count} has {len(sides)}",
            expected=str(len(sides)),
            got=str(len(siblings)),
            subject="siblings",
        )
    node = canonical(leaf)
    for sibling, is_left in zip(siblings, sides, strict=True):
        node = _node(sibling, node) if is_left else _node(node, sibling)
    return node


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundaryMetadata:
    """What a boundary commitment says about the tensor besides its values.

    Attributes:
        name: The boundary's name, unique in its plan.
        shape: The tensor's dimensions.
        scale: Binary exponent of the quantisation: real value = integer / 2**scale.
        layout: The cut into leaves.
    """

    name: str
    shape: tuple[int, ...]
    scale: int
    layout: LeafLayout

    def __post_init__(self) -> None:
        if not self.name or not self.name.isprintable():
            raise FieldRangeError(
                f"boundary name {self.name!r}: expected one or more printable characters"
            )
        if abs(self.scale) > MAX_SCALE:
            raise FieldRangeError(
                f"boundary {self.name}: scale {self.scale} is beyond +-{MAX_SCALE}"
            )
        if any(dimension < 1 for dimension in self.shape):
            raise FieldRangeError(
                f"boundary {self.name}: shape {self.shape} has a dimension below 1"
            )
        if math.prod(self.shape) != self.layout.element_count:
            raise FieldRangeError(
                f"boundary {self.name}: shape {self.shape} does not have the layout's "
                f"{self.layout.element_count} elements"
            )

    def as_json(self) -> bytes:
        """Canonical JSON (RFC 8785) of every field, those of layout and packing included.

        Returns:
            UTF-8 bytes.

        Raises:
            FieldRangeError: A number is beyond 2^53 and has no canonical JSON form.
        """
        layout, packing = self.layout, self.layout.packing
        try:
            return rfc8785.dumps(
                {
                    "format": METADATA_FORMAT,
                    "name": self.name,
                    "shape": list(self.shape),
                    "scale": self.scale,
                    "layout": {
                        "element_count": layout.element_count,
                        "leaf_count": layout.leaf_count,
                        "leaf_size": layout.leaf_size,
                        "salts_per_leaf": layout.salts_per_leaf,
                        "slots": layout.slots,
                        "packing": {
                            "decomp_base": packing.decomp_base,
                            "decomp_legs": packing.decomp_legs,
                            "stride_bits": packing.stride_bits,
                            "inner": packing.inner,
                            "outer": packing.outer,
                        },
                    },
                }
            )
        except rfc8785.CanonicalizationError as error:
            raise FieldRangeError(f"boundary {self.name}: metadata has no JSON: {error}") from None

    def digest(self) -> int:
        """SHA-256 of `as_json`, read big-endian, mod r.

        The 256-bit digest falls into r, a 254-bit field: 5 or 6 digests share an element, so a
        collision costs about 2^127 hashes, as one of Poseidon itself does (capacity of one
        element). Nothing needs the element to be uniform.

        Returns:
            An element in [0, r).

        Raises:
            FieldRangeError: As for `as_json`.
        """
        return int.from_bytes(hashlib.sha256(self.as_json()).digest(), "big") % MODULUS


def boundary_commitment(root: int, metadata: BoundaryMetadata) -> int:
    """Commit to a boundary.

    Args:
        root: The Merkle root over the boundary's leaf hashes.
        metadata: The boundary's metadata.

    Returns:
        A canonical element.

    Raises:
        FieldRangeError: The root is not a field element, or the metadata has no JSON form.
    """
    return hash_elements([TAG_BOUNDARY, root, metadata.digest()])


def _node(left: int, right: int) -> int:
    return hash_elements([TAG_NODE, left, right])


def _sibling_sides(index: int, leaf_count: int) -> list[bool]:
    """For each sibling of a path, from the leaf upwards: whether it is the left child."""
    sides = []
    width = leaf_count
    while width > 1:
        if index ^ 1 < width:
            sides.append(bool(index & 1))
        index >>= 1
        width = (width + 1) // 2
    return sides
