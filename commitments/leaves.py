"""How a boundary tensor is cut into salted, packed leaves.

A tensor's integers (flat, row-major) are dealt out `leaf_size` at a time. A leaf has `slots`
slots: its elements, then zeros, then its salts, which are the *last* `salts_per_leaf` slots. The
last leaf's missing elements are zeros. Slots are packed `PackingSpec.pack` at a time into field
elements, and the leaf's hash is the Poseidon hash of those.

Salts make a leaf hiding: without them a leaf of few or predictable activations can be found by
trial. They are uniform in [0, 2^salt_bits) and together carry at least 128 bits.

This module only computes. That a circuit computes the same is `graph`'s concern, and its tests'.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from zkml_ray.commitments.packing import PackingSpec, pack, unpack
from zkml_ray.commitments.poseidon import hash_elements
from zkml_ray.errors import ConfigError, FieldRangeError

SALT_ENTROPY_BITS: Final[int] = 128
"""The least entropy of a salted leaf."""

_SALT_DOMAIN: Final[bytes] = b"zkml_ray/salt/v1"


def salt_bits(packing: PackingSpec) -> int:
    """Width of one salt element in bits: the most that never exceeds `packing.element_bound`."""
    return (packing.element_bound + 1).bit_length() - 1


def salts_for(packing: PackingSpec) -> int:
    """Salt elements a leaf needs for `SALT_ENTROPY_BITS` bits of entropy."""
    return -(-SALT_ENTROPY_BITS // salt_bits(packing))


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafLayout:
    """The cut of one boundary tensor into leaves.

    Attributes:
        element_count: Elements of the tensor.
        leaf_count: Leaves; the last may be partly filled but is never empty.
        leaf_size: Elements of the tensor per leaf.
        salts_per_leaf: Salt elements per leaf; 0 makes an unsalted, guessable leaf.
        slots: Elements, zero padding and salts of one leaf; a multiple of `packing.pack`.
        packing: How slots are packed into field elements.
    """

    element_count: int
    leaf_count: int
    leaf_size: int
    salts_per_leaf: int
    slots: int
    packing: PackingSpec

    def __post_init__(self) -> None:
        if self.element_count < 1 or self.leaf_size < 1 or self.salts_per_leaf < 0:
            raise FieldRangeError(
                f"element_count {self.element_count}, leaf_size {self.leaf_size}, salts_per_leaf "
                f"{self.salts_per_leaf}: expected at least 1, 1 and 0"
            )
        if self.leaf_count != -(-self.element_count // self.leaf_size):
            raise FieldRangeError(
                f"leaf_count {self.leaf_count} does not cut {self.element_count} elements into "
                f"leaves of {self.leaf_size}: expected {-(-self.element_count // self.leaf_size)}"
            )
        if self.slots % self.packing.pack or self.slots < self.leaf_size + self.salts_per_leaf:
            raise FieldRangeError(
                f"slots {self.slots}: expected a multiple of {self.packing.pack} that holds "
                f"{self.leaf_size} elements and {self.salts_per_leaf} salts"
            )

    @classmethod
    def plan(
        cls,
        element_count: int,
        packing: PackingSpec,
        max_slots: int = 128,
        salts_per_leaf: int | None = None,
    ) -> LeafLayout:
        """Cut a tensor into as few, equally filled leaves as `max_slots` allows.

        Args:
            element_count: Elements of the tensor.
            packing: How slots are packed.
            max_slots: The most slots a leaf may have; rounded down to a multiple of
                `packing.pack`.
            salts_per_leaf: Salt elements per leaf, or None for `salts_for(packing)`.

        Returns:
            The layout.

        Raises:
            FieldRangeError: There are no elements, or a leaf has no room for any.
        """
        salts = salts_for(packing) if salts_per_leaf is None else salts_per_leaf
        room = max_slots // packing.pack * packing.pack - salts
        if room < 1:
            raise FieldRangeError(
                f"max_slots {max_slots} leaves no room beside {salts} salts in packs of "
                f"{packing.pack}: raise it"
            )
        if element_count < 1:
            raise FieldRangeError(f"element_count {element_count}: expected at least 1")
        leaf_count = -(-element_count // room)
        leaf_size = -(-element_count // leaf_count)
        return cls(
            element_count=element_count,
            leaf_count=leaf_count,
            leaf_size=leaf_size,
            salts_per_leaf=salts,
            slots=-(-(leaf_size + salts) // packing.pack) * packing.pack,
            packing=packing,
        )

    @property
    def packed_per_leaf(self) -> int:
        """Field elements per leaf."""
        return self.slots // self.packing.pack

    @property
    def zeros_per_leaf(self) -> int:
        """Slots between a leaf's elements and its salts."""
        return self.slots - self.leaf_size - self.salts_per_leaf

    @property
    def salt_count(self) -> int:
        """Salt elements of all leaves."""
        return self.leaf_count * self.salts_per_leaf

    def elements_in(self, leaf: int) -> int:
        """Elements of the tensor in one leaf.

        Args:
            leaf: The leaf's index, from 0.

        Returns:
            `leaf_size`, or what is left for the last leaf.

        Raises:
            FieldRangeError: There is no such leaf.
        """
        if not 0 <= leaf < self.leaf_count:
            raise FieldRangeError(f"no leaf {leaf}: the layout has {self.leaf_count}")
        return min(self.leaf_size, self.element_count - leaf * self.leaf_size)


def draw_salts(layout: LeafLayout, *, seed: bytes | None = None, label: str) -> list[int]:
    """Draw the salts of one boundary.

    With a seed, salt i is the low `salt_bits` bits of
    SHA-256(domain || u64(len(seed)) || seed || u64(len(label)) || label || u64(i)), where domain
    is "zkml_ray/salt/v1", lengths and i are little-endian and the hash is read little-endian. The
    seed is then as secret as the activations, and two boundaries must not share a label.

    Args:
        layout: The boundary's layout.
        seed: Secret for a reproducible run, or None for the operating system's randomness.
        label: Names the boundary (and whatever else must not share salts); used with a seed.

    Returns:
        `layout.salt_count` integers in [0, 2^salt_bits), leaf by leaf.

    Raises:
        ConfigError: The seed is empty.
    """
    bits = salt_bits(layout.packing)
    if seed is None:
        return [secrets.randbits(bits) for _ in range(layout.salt_count)]
    if not seed:
        raise ConfigError("salt seed is empty: give a secret of 16 bytes or more, or none at all")
    name = label.encode()
    prefix = b"".join(
        (_SALT_DOMAIN, _u64(len(seed)), seed, _u64(len(name)), name),
    )
    mask = (1 << bits) - 1
    return [
        int.from_bytes(hashlib.sha256(prefix + _u64(i)).digest(), "little") & mask
        for i in range(layout.salt_count)
    ]


def leaf_slots(values: Sequence[int], salts: Sequence[int], layout: LeafLayout) -> list[list[int]]:
    """Lay values and salts out in slots.

    Args:
        values: The tensor, flat and row-major, `layout.element_count` signed integers.
        salts: `layout.salt_count` integers, leaf by leaf.
        layout: The layout.

    Returns:
        `layout.leaf_count` lists of `layout.slots` integers.

    Raises:
        FieldRangeError: There are too few or too many values or salts.
    """
    if len(values) != layout.element_count:
        raise FieldRangeError(f"{len(values)} values: expected {layout.element_count}")
    if len(salts) != layout.salt_count:
        raise FieldRangeError(f"{len(salts)} salts: expected {layout.salt_count}")
    width = layout.salts_per_leaf
    return [
        _fill(
            values[leaf * layout.leaf_size : (leaf + 1) * layout.leaf_size],
            salts[leaf * width : (leaf + 1) * width],
            layout,
        )
        for leaf in range(layout.leaf_count)
    ]


def pack_leaf(
    leaf: int, elements: Sequence[int], salts: Sequence[int], layout: LeafLayout
) -> list[int]:
    """Pack a single leaf.

    Args:
        leaf: The leaf's index, from 0.
        elements: The leaf's elements, `layout.elements_in(leaf)` integers within
            +-`layout.packing.element_bound`.
        salts: Its salts, `layout.salts_per_leaf` integers within the same bound.
        layout: The layout.

    Returns:
        `layout.packed_per_leaf` signed integers.

    Raises:
        FieldRangeError: There is no such leaf, a count is wrong or an integer is out of range.
    """
    if len(elements) != layout.elements_in(leaf):
        raise FieldRangeError(
            f"leaf {leaf}: {len(elements)} elements, expected {layout.elements_in(leaf)}"
        )
    if len(salts) != layout.salts_per_leaf:
        raise FieldRangeError(f"leaf {leaf}: {len(salts)} salts, expected {layout.salts_per_leaf}")
    return _pack_slots(leaf, _fill(elements, salts, layout), layout)


def pack_leaves(values: Sequence[int], salts: Sequence[int], layout: LeafLayout) -> list[list[int]]:
    """Pack a tensor's leaves.

    Args:
        values: As for `leaf_slots`, each within +-`layout.packing.element_bound`.
        salts: As for `leaf_slots`, within the same bound.
        layout: The layout.

    Returns:
        `layout.leaf_count` lists of `layout.packed_per_leaf` signed integers.

    Raises:
        FieldRangeError: A count is wrong or an integer is out of range.
    """
    return [
        _pack_slots(leaf, slots, layout)
        for leaf, slots in enumerate(leaf_slots(values, salts, layout))
    ]


def unpack_leaves(
    packed: Sequence[Sequence[int]], layout: LeafLayout
) -> tuple[list[int], list[int]]:
    """Undo `pack_leaves`.

    Args:
        packed: `layout.leaf_count` lists of `layout.packed_per_leaf` field elements, signed or
            canonical.
        layout: The layout.

    Returns:
        The tensor's values, flat and row-major, and the salts, leaf by leaf.

    Raises:
        FieldRangeError: A count is wrong, a digit is out of range or a padding slot is not zero.
    """
    if len(packed) != layout.leaf_count:
        raise FieldRangeError(f"{len(packed)} leaves: expected {layout.leaf_count}")
    values: list[int] = []
    salts: list[int] = []
    for leaf, numbers in enumerate(packed):
        if len(numbers) != layout.packed_per_leaf:
            raise FieldRangeError(
                f"leaf {leaf} has {len(numbers)} packed elements: expected {layout.packed_per_leaf}"
            )
        try:
            slots = unpack(numbers, layout.packing)
        except FieldRangeError as error:
            raise FieldRangeError(f"leaf {leaf}: {error.message}") from None
        filled = layout.elements_in(leaf)
        salts_from = layout.slots - layout.salts_per_leaf
        if any(slots[filled:salts_from]):
            raise FieldRangeError(f"leaf {leaf} has a padding slot that is not zero")
        values += slots[:filled]
        salts += slots[salts_from:]
    return values, salts


def hash_leaves(packed: Sequence[Sequence[int]]) -> list[int]:
    """Hash packed leaves as the circuit's `hashed` outputs do.

    Args:
        packed: Lists of field elements, signed or canonical, one list per leaf.

    Returns:
        One canonical element per leaf.

    Raises:
        FieldRangeError: A leaf is empty or holds a number that is no field element.
    """
    return [hash_elements(numbers) for numbers in packed]


def _fill(elements: Sequence[int], salts: Sequence[int], layout: LeafLayout) -> list[int]:
    zeros = [0] * (layout.slots - len(elements) - len(salts))
    return [*elements, *zeros, *salts]


def _pack_slots(leaf: int, slots: Sequence[int], layout: LeafLayout) -> list[int]:
    try:
        return pack(slots, layout.packing)
    except FieldRangeError as error:
        raise FieldRangeError(f"leaf {leaf}: {error.message}") from None


def _u64(value: int) -> bytes:
    return value.to_bytes(8, "little")
