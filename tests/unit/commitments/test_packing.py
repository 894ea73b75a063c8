from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkml_ray.commitments.field import MODULUS, canonical
from zkml_ray.commitments.packing import PACKED_BITS, PackingSpec, pack, unpack
from zkml_ray.errors import FieldRangeError

DECOMPOSITIONS = [
    (128, 4),
    (16384, 2),
    (128, 2),
    (16384, 1),
    (2, 1),
    (2, 6),
    (100, 3),
    (1024, 4),
    (64, 10),
    (2, 100),
    (2, 251),
]
CHOSEN = [PackingSpec.for_decomposition(base, legs) for base, legs in DECOMPOSITIONS]
TIGHT = [
    # The smallest stride that is still injective, and levels left out.
    PackingSpec(decomp_base=128, decomp_legs=4, stride_bits=29, inner=4, outer=2),
    PackingSpec(decomp_base=128, decomp_legs=4, stride_bits=30, inner=1, outer=1),
    PackingSpec(decomp_base=128, decomp_legs=4, stride_bits=30, inner=1, outer=3),
    PackingSpec(decomp_base=2, decomp_legs=1, stride_bits=2, inner=32, outer=2),
]
SPECS = CHOSEN + TIGHT
SPEC = CHOSEN[0]


def _name(spec: PackingSpec) -> str:
    return f"{spec.decomp_base}^{spec.decomp_legs}x{spec.inner}x{spec.outer}@{spec.stride_bits}"


def _elements(spec: PackingSpec) -> st.SearchStrategy[list[int]]:
    bound = spec.element_bound
    element = st.one_of(
        st.integers(min_value=-bound, max_value=bound),
        st.sampled_from([-bound, 1 - bound, -1, 0, 1, bound - 1, bound]),
    )
    groups = st.lists(
        st.lists(element, min_size=spec.pack, max_size=spec.pack), min_size=0, max_size=4
    )
    return groups.map(lambda nested: [e for group in nested for e in group])


def test_for_decomposition_of_28_bits_packs_eight_at_stride_30() -> None:
    for spec in (
        PackingSpec.for_decomposition(128, 4),
        PackingSpec.for_decomposition(16384, 2),
    ):
        assert (spec.stride_bits, spec.inner, spec.outer, spec.pack) == (30, 4, 2, 8)
        assert spec.element_bits == 28
        assert spec.element_bound == 2**28 - 1


def test_for_decomposition_of_14_bits_packs_fourteen_at_stride_16() -> None:
    spec = PackingSpec.for_decomposition(128, 2)
    assert (spec.stride_bits, spec.inner, spec.outer, spec.pack) == (16, 7, 2, 14)


@pytest.mark.parametrize("spec", SPECS, ids=_name)
def test_spec_keeps_elements_apart_and_sums_small(spec: PackingSpec) -> None:
    assert spec.decomp_base**spec.decomp_legs <= 2 ** (spec.stride_bits - 1)
    extreme = pack([spec.element_bound] * spec.pack, spec)[0]
    assert extreme < 2**PACKED_BITS < MODULUS // 2
    assert pack([-spec.element_bound] * spec.pack, spec) == [-extreme]


@pytest.mark.parametrize("spec", SPECS, ids=_name)
def test_injective_bound_is_where_two_elements_first_add_up_to_others(spec: PackingSpec) -> None:
    bound, stride = spec.injective_bound, 2**spec.stride_bits
    assert bound >= spec.element_bound
    # Two different elements, and what each leaves for the next one up: a whole stride apart.
    assert bound - -bound < stride
    assert (bound + 1) + 0 * stride == -(bound + 1) + 1 * stride


@pytest.mark.parametrize("spec", SPECS, ids=_name)
@given(data=st.data())
def test_pack_then_unpack_is_identity(spec: PackingSpec, data: st.DataObject) -> None:
    elements = data.draw(_elements(spec))
    packed = pack(elements, spec)
    assert len(packed) * spec.pack == len(elements)
    assert unpack(packed, spec) == elements
    assert unpack([canonical(number) for number in packed], spec) == elements


def test_pack_is_the_sum_of_shifted_elements() -> None:
    elements = [1, -2, 3, -4, 5, -6, 7, -8]
    assert pack(elements, SPEC) == [sum(e * 2 ** (30 * i) for i, e in enumerate(elements))]


@pytest.mark.parametrize("spec", SPECS, ids=_name)
@pytest.mark.parametrize("sign", [1, -1])
def test_pack_element_beyond_bound_is_refused(spec: PackingSpec, sign: int) -> None:
    elements = [0] * (2 * spec.pack)
    elements[spec.pack] = sign * (spec.element_bound + 1)
    with pytest.raises(FieldRangeError, match=f"element {spec.pack} is {elements[spec.pack]}"):
        pack(elements, spec)


@pytest.mark.parametrize("length", [1, 7, 9, 15])
def test_pack_length_off_the_multiple_is_refused(length: int) -> None:
    with pytest.raises(FieldRangeError, match="multiple of 8"):
        pack([0] * length, SPEC)


@pytest.mark.parametrize("position", range(SPEC.pack))
@pytest.mark.parametrize("digit", [2**28, -(2**28), 2**29 - 1, -(2**29)])
def test_unpack_digit_beyond_bound_is_refused(position: int, digit: int) -> None:
    with pytest.raises(FieldRangeError, match=f"digit {position} is {digit}"):
        unpack([digit << (30 * position)], SPEC)


@pytest.mark.parametrize("number", [1 << 240, -(1 << 240), MODULUS // 2, -(MODULUS // 2)])
def test_unpack_of_more_than_was_packed_is_refused(number: int) -> None:
    with pytest.raises(FieldRangeError, match="packed element 0"):
        unpack([number], SPEC)


@given(st.integers(min_value=0, max_value=MODULUS - 1))
def test_unpack_of_any_field_element_is_refused_or_exact(number: int) -> None:
    try:
        elements = unpack([number], SPEC)
    except FieldRangeError:
        return
    assert canonical(pack(elements, SPEC)[0]) == number


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decomp_base": 1}, "decomp_base"),
        ({"decomp_legs": 0}, "decomp_legs"),
        ({"inner": 0}, "inner"),
        ({"outer": 0}, "outer"),
        ({"stride_bits": 28}, "at least 29"),
        ({"stride_bits": 0}, "stride_bits"),
        ({"stride_bits": -5}, "stride_bits"),
        ({"stride_bits": 32}, "at most 252"),
        ({"inner": 2, "outer": 4}, "packing constant"),
        ({"inner": 8, "outer": 1}, "packing constant"),
        ({"decomp_base": 1 << 10**4}, "does not fit"),
        ({"decomp_legs": 10**9}, "does not fit"),
    ],
)
def test_spec_that_loses_information_is_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(FieldRangeError, match=message):
        dataclasses.replace(SPEC, **change)


@pytest.mark.parametrize(("base", "legs"), [(1, 4), (0, 1), (128, 0), (2, 252), (128, 10**9)])
def test_for_decomposition_of_impossible_width_is_refused(base: int, legs: int) -> None:
    with pytest.raises(FieldRangeError):
        PackingSpec.for_decomposition(base, legs)
