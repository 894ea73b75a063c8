from __future__ import annotations

import dataclasses
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkml_ray.commitments.leaves import (
    LeafLayout,
    draw_salts,
    hash_leaves,
    leaf_slots,
    pack_leaf,
    pack_leaves,
    salt_bits,
    salts_for,
    unpack_leaves,
)
from zkml_ray.commitments.packing import PackingSpec
from zkml_ray.commitments.poseidon import hash_elements
from zkml_ray.errors import ConfigError, FieldRangeError

SPEC = PackingSpec.for_decomposition(128, 4)
SPECS = [
    SPEC,
    PackingSpec.for_decomposition(128, 2),
    PackingSpec.for_decomposition(100, 3),
    PackingSpec.for_decomposition(2, 100),
    PackingSpec.for_decomposition(2, 6),
]
SMALL = LeafLayout.plan(10, SPEC, max_slots=16, salts_per_leaf=5)


@st.composite
def layouts(draw: st.DrawFn) -> LeafLayout:
    spec = draw(st.sampled_from(SPECS))
    salts = draw(st.integers(min_value=0, max_value=salts_for(spec)))
    return LeafLayout.plan(
        draw(st.integers(min_value=1, max_value=300)),
        spec,
        max_slots=draw(st.integers(min_value=2 * spec.pack + salts, max_value=160)),
        salts_per_leaf=salts,
    )


@given(layouts())
def test_plan_covers_every_element_without_an_empty_leaf(layout: LeafLayout) -> None:
    counts = [layout.elements_in(leaf) for leaf in range(layout.leaf_count)]
    assert sum(counts) == layout.element_count
    assert min(counts) >= 1
    assert layout.slots % layout.packing.pack == 0
    assert layout.slots - layout.leaf_size - layout.salts_per_leaf == layout.zeros_per_leaf
    assert layout.zeros_per_leaf < layout.packing.pack


@pytest.mark.parametrize(
    ("elements", "leaves", "size", "slots"),
    [(1, 1, 1, 8), (10, 1, 10, 16), (64, 1, 64, 72), (500, 5, 100, 112), (1176, 10, 118, 128)],
)
def test_plan_with_defaults_cuts_evenly(elements: int, leaves: int, size: int, slots: int) -> None:
    layout = LeafLayout.plan(elements, SPEC)
    assert (layout.leaf_count, layout.leaf_size, layout.slots) == (leaves, size, slots)
    assert layout.salts_per_leaf == 5


@given(layouts(), st.data())
def test_pack_leaves_then_unpack_leaves_is_identity(
    layout: LeafLayout, data: st.DataObject
) -> None:
    bound = layout.packing.element_bound
    element = st.one_of(st.integers(-bound, bound), st.sampled_from([-bound, 0, bound]))
    values = data.draw(
        st.lists(element, min_size=layout.element_count, max_size=layout.element_count)
    )
    salts = draw_salts(layout, label="any")
    packed = pack_leaves(values, salts, layout)
    assert [len(numbers) for numbers in packed] == [layout.packed_per_leaf] * layout.leaf_count
    assert unpack_leaves(packed, layout) == (values, salts)


def test_leaf_slots_order_is_elements_zeros_salts() -> None:
    layout = LeafLayout.plan(5, SPEC, max_slots=8, salts_per_leaf=4)
    assert leaf_slots([1, 2, 3, 4, 5], list(range(91, 99)), layout) == [
        [1, 2, 3, 0, 91, 92, 93, 94],
        [4, 5, 0, 0, 95, 96, 97, 98],
    ]


def test_pack_leaf_is_the_leaf_of_pack_leaves() -> None:
    layout = LeafLayout.plan(30, SPEC, max_slots=16)
    values, salts = list(range(-15, 15)), draw_salts(layout, label="any")
    packed = pack_leaves(values, salts, layout)
    for leaf in range(layout.leaf_count):
        size, width = layout.leaf_size, layout.salts_per_leaf
        elements = values[leaf * size : (leaf + 1) * size]
        own = salts[leaf * width : (leaf + 1) * width]
        assert pack_leaf(leaf, elements, own, layout) == packed[leaf]


def test_hash_leaves_hashes_each_leaf() -> None:
    packed = pack_leaves(list(range(10)), [1, 2, 3, 4, 5], SMALL)
    assert hash_leaves(packed) == [hash_elements(numbers) for numbers in packed]


@pytest.mark.parametrize(("values", "salts"), [(9, 5), (11, 5), (10, 4), (10, 6), (0, 0)])
def test_pack_leaves_of_wrong_counts_is_refused(values: int, salts: int) -> None:
    with pytest.raises(FieldRangeError, match="expected"):
        pack_leaves([0] * values, [0] * salts, SMALL)


@pytest.mark.parametrize(("elements", "salts"), [(9, 5), (11, 5), (10, 4), (10, 6)])
def test_pack_leaf_of_wrong_counts_is_refused(elements: int, salts: int) -> None:
    with pytest.raises(FieldRangeError, match="expected"):
        pack_leaf(0, [0] * elements, [0] * salts, SMALL)


@pytest.mark.parametrize("leaf", [-1, 1])
def test_pack_leaf_of_no_leaf_is_refused(leaf: int) -> None:
    with pytest.raises(FieldRangeError, match="no leaf"):
        pack_leaf(leaf, [0] * 10, [0] * 5, SMALL)


def test_pack_leaves_of_element_beyond_bound_names_leaf_and_element() -> None:
    layout = LeafLayout.plan(20, SPEC, max_slots=16)
    values = [0] * 20
    values[13] = 2**28
    with pytest.raises(FieldRangeError, match=f"leaf 1: element 3 is {2**28}"):
        pack_leaves(values, [0] * layout.salt_count, layout)


def test_unpack_leaves_with_nonzero_padding_is_refused() -> None:
    packed = pack_leaves(list(range(10)), [1, 2, 3, 4, 5], SMALL)
    packed[0][1] += 1 << (30 * 2)  # slot 10, the only padding slot
    with pytest.raises(FieldRangeError, match="leaf 0 has a padding slot"):
        unpack_leaves(packed, SMALL)


def test_unpack_leaves_with_nonzero_missing_element_is_refused() -> None:
    layout = LeafLayout.plan(5, SPEC, max_slots=8, salts_per_leaf=4)
    packed = pack_leaves([0] * 5, [0] * 8, layout)
    packed[1][0] += 1 << (30 * 2)
    with pytest.raises(FieldRangeError, match="leaf 1 has a padding slot"):
        unpack_leaves(packed, layout)


def test_unpack_leaves_of_wrong_counts_is_refused() -> None:
    packed = pack_leaves(list(range(10)), [1, 2, 3, 4, 5], SMALL)
    for wrong in ([], packed * 2, [packed[0][:-1]], [[*packed[0], 0]]):
        with pytest.raises(FieldRangeError, match="expected"):
            unpack_leaves(wrong, SMALL)


@pytest.mark.parametrize("spec", SPECS)
def test_salts_carry_128_bits_within_the_bound(spec: PackingSpec) -> None:
    assert salts_for(spec) * salt_bits(spec) >= 128
    assert (salts_for(spec) - 1) * salt_bits(spec) < 128
    assert 2 ** salt_bits(spec) - 1 <= spec.element_bound < 2 ** (salt_bits(spec) + 1) - 1


@given(layouts(), st.sampled_from([None, b"seed"]))
def test_draw_salts_fit_count_and_range(layout: LeafLayout, seed: bytes | None) -> None:
    salts = draw_salts(layout, seed=seed, label="b")
    assert len(salts) == layout.leaf_count * layout.salts_per_leaf
    assert all(0 <= salt < 2 ** salt_bits(layout.packing) for salt in salts)


def test_draw_salts_without_seed_differ_each_time() -> None:
    assert draw_salts(SMALL, label="b") != draw_salts(SMALL, label="b")


def test_draw_salts_with_seed_repeat_and_separate_labels() -> None:
    salts = draw_salts(SMALL, seed=b"seed", label="b")
    assert salts == draw_salts(SMALL, seed=b"seed", label="b")
    assert salts != draw_salts(SMALL, seed=b"seed", label="c")
    assert salts != draw_salts(SMALL, seed=b"seee", label="b")
    # Seed and label are length-prefixed: moving a byte between them changes the salts.
    assert salts != draw_salts(SMALL, seed=b"seedb", label="")


def test_draw_salts_with_seed_follow_the_documented_expansion() -> None:
    def u64(value: int) -> bytes:
        return value.to_bytes(8, "little")

    prefix = b"zkml_ray/salt/v1" + u64(4) + b"seed" + u64(1) + b"b"
    expected = [
        int.from_bytes(hashlib.sha256(prefix + u64(i)).digest(), "little") % 2**28 for i in range(5)
    ]
    assert draw_salts(SMALL, seed=b"seed", label="b") == expected


def test_draw_salts_seeded_look_uniform() -> None:
    layout = LeafLayout.plan(40_000, SPEC)
    salts = draw_salts(layout, seed=b"seed", label="b")
    for bit in range(28):
        ones = sum(salt >> bit & 1 for salt in salts)
        # 6 standard deviations of a fair coin
        assert abs(ones - len(salts) / 2) < 3 * len(salts) ** 0.5
    assert len(set(salts)) > len(salts) - 5


def test_draw_salts_with_empty_seed_is_refused() -> None:
    with pytest.raises(ConfigError, match="seed is empty"):
        draw_salts(SMALL, seed=b"", label="b")


@pytest.mark.parametrize(("elements", "max_slots"), [(0, 128), (-1, 128), (10, 7), (10, 5), (1, 0)])
def test_plan_without_room_is_refused(elements: int, max_slots: int) -> None:
    with pytest.raises(FieldRangeError):
        LeafLayout.plan(elements, SPEC, max_slots=max_slots)


@pytest.mark.parametrize(
    "change",
    [
        {"element_count": 0},
        {"element_count": 11},
        {"leaf_count": 0},
        {"leaf_count": 2},
        {"leaf_size": 0},
        {"leaf_size": 9},
        {"leaf_size": 12},
        {"salts_per_leaf": -1},
        {"salts_per_leaf": 7},
        {"slots": 15},
        {"slots": 8},
        {"slots": 0},
    ],
)
def test_layout_of_inconsistent_sizes_is_refused(change: dict[str, int]) -> None:
    with pytest.raises(FieldRangeError):
        dataclasses.replace(SMALL, **change)  # type: ignore[arg-type]
