"""Digits, ranges and packing of hinted circuits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from zkml_ray.chunking.hinted.forms import Form, Local, NotHintedError
from zkml_ray.chunking.hinted.grid import Wire
from zkml_ray.chunking.hinted.layout import Layout
from zkml_ray.chunking.hinted.numbers import (
    MAX_OVERLAP_BITS,
    PACKED_BITS,
    TABLE_RESERVE,
    Arithmetic,
    packable,
    stride_bits,
)
from zkml_ray.chunking.hinted.recipe import _split
from zkml_ray.chunking.hinted.rounding import Quantised
from zkml_ray.errors import ChunkingError

ARITHMETICS = st.builds(
    lambda scale, more, range_bits: (scale, scale + more, range_bits),
    st.integers(3, 14),
    st.integers(3, 8),
    st.integers(0, 12),
)


def arithmetic(chosen: tuple[int, int, int]) -> Arithmetic:
    scale, logrows, range_bits = chosen
    overlap_bits = scale + range_bits + 1 - logrows
    assume(overlap_bits <= MAX_OVERLAP_BITS)
    # The second digit's weight within the first digit's range.
    assume(overlap_bits <= 0 or 1 << overlap_bits <= (1 << logrows) - TABLE_RESERVE)
    return Arithmetic(scale=scale, logrows=logrows, range_bits=range_bits)


@given(ARITHMETICS)
def test_honest_digits_lie_in_the_table_and_the_table_in_the_rows(
    chosen: tuple[int, int, int],
) -> None:
    numbers = arithmetic(chosen)
    assert numbers.divisor + TABLE_RESERVE == 1 << numbers.logrows
    assert numbers.divisor <= numbers.digit_bound < 1 << numbers.logrows
    assert numbers.digits == (2 if numbers.overlap_bits else 1)


@given(ARITHMETICS, st.data())
def test_remainder_admits_the_quotient_below_at_most(
    chosen: tuple[int, int, int], data: st.DataObject
) -> None:
    """All honest remainders have digits, and those of no proof reach two divisors."""
    numbers, draw = arithmetic(chosen), data.draw
    assume(numbers.logrows >= 9)
    finer = draw(st.one_of(st.just(1.0), st.floats(0.25, 2.0**30)))
    unit = draw(st.one_of(st.just(1 / finer), st.floats(1e-3, 2).map(lambda v: v / finer)))
    weights = np.array([[unit, unit, draw(st.sampled_from([unit, -unit, unit / 3]))]])
    wire = Wire(name="w", size=3, low=0, high=7, resolution=finer * 2.0**numbers.scale)
    index = np.arange(3, dtype=np.int64).reshape(1, 1, 3)
    local = Local(wire=wire, index=index, weights=weights)
    form = Form(groups=1, channels=1, local=(local,), bias=np.zeros((1, 1)))
    try:
        quantised = Quantised(form, numbers, resolution=2.0**numbers.scale, offset=0)
    except NotHintedError:
        assume(False)
    divisor = quantised.divisor
    assert divisor.remainder_bound(numbers) < 2 * divisor.value
    # The highest digit is what the lower ones leave of d - 1.
    assert (divisor.value - 1) >> (divisor.step * (divisor.digits - 1)) < numbers.divisor
    assert divisor.digits == 1 or 1 << divisor.step <= numbers.divisor


@given(ARITHMETICS)
def test_digits_reach_every_value_of_the_range_but_a_reserve(chosen: tuple[int, int, int]) -> None:
    """The largest honest value falls short of 2^range_bits by the table's reserve alone."""
    numbers = arithmetic(chosen)
    assume(numbers.logrows >= 8)
    honest = sum((numbers.divisor - 1) << (numbers.overlap_bits * d) for d in range(numbers.digits))
    short = (TABLE_RESERVE + 1) * (1 + (1 << numbers.overlap_bits))
    assert honest >= 2 * numbers.offset - short
    assert honest <= numbers.value_bound
    assert numbers.value_bound == sum(
        numbers.digit_bound << (numbers.overlap_bits * d) for d in range(numbers.digits)
    )


@given(ARITHMETICS, st.data())
def test_digits_of_a_value_give_it_back_and_lie_in_the_table(
    chosen: tuple[int, int, int], data: st.DataObject
) -> None:
    numbers = arithmetic(chosen)
    assume(numbers.logrows >= 8)
    most = sum((numbers.divisor - 1) << (numbers.overlap_bits * d) for d in range(numbers.digits))
    values = np.array(
        [0, most, *data.draw(st.lists(st.integers(0, most), max_size=20))], dtype=np.int64
    )
    digits = _split(values, numbers)
    assert len(digits) == numbers.digits
    for digit in digits:
        assert digit.min() >= 0
        assert digit.max() < numbers.divisor
    together = sum(d << (numbers.overlap_bits * place) for place, d in enumerate(digits))
    np.testing.assert_array_equal(together, values)


def test_range_that_two_digits_do_not_reach_is_refused_with_the_rows() -> None:
    assert Arithmetic(scale=8, logrows=11, range_bits=10).overlap_bits == MAX_OVERLAP_BITS
    with pytest.raises(ChunkingError, match=r"scale 8 .* 2\^11 needs more than 2\^11 rows"):
        Arithmetic(scale=8, logrows=11, range_bits=11)
    # 224 honest digits: no two of them make 224, were the second to weigh 256.
    with pytest.raises(ChunkingError, match=r"needs more than 2\^8 rows"):
        Arithmetic(scale=3, logrows=8, range_bits=12)


@given(st.integers(1, 1 << 60))
def test_packed_elements_fit_the_field(magnitude: int) -> None:
    width, bits = packable(magnitude), stride_bits(magnitude)
    assert magnitude < 1 << bits <= 2 * magnitude
    assert sum(magnitude << (bits * i) for i in range(width)) < 1 << PACKED_BITS
    assert (width + 1) * bits > PACKED_BITS


@pytest.mark.parametrize("magnitude", [1, 2, 3, 4, 7])
def test_packed_sum_is_zero_only_if_every_element_is(magnitude: int) -> None:
    stride = 1 << stride_bits(magnitude)
    span = range(-magnitude, magnitude + 1)
    zero = [
        e for e in itertools.product(span, repeat=3) if e[0] + e[1] * stride + e[2] * stride**2 == 0
    ]
    assert zero == [(0, 0, 0)]
    # One bit less, and other elements cancel: the stride is no larger than it has to be.
    short = stride // 2
    assert any(a + b * short == 0 for a, b in itertools.product(span, repeat=2) if (a, b) != (0, 0))


# Layouts.


@st.composite
def layouts(draw: st.DrawFn) -> tuple[Layout, np.ndarray, int]:
    """A layout of any windows and channels, rarely divisible by the width."""
    t, count, channels = (draw(st.integers(1, n)) for n in (4, 9, 9))
    groups = draw(st.permutations(range(t * count + draw(st.integers(0, 3)))))
    chosen = np.array(groups[: t * count], dtype=np.int64).reshape(count, t)
    width, over = draw(st.integers(1, 7)), draw(st.booleans())
    return Layout(chosen, channels, width, 20, over_channels=over), chosen, channels


@given(layouts())
def test_every_candidate_has_exactly_one_slot(made: tuple[Layout, np.ndarray, int]) -> None:
    layout, groups, channels = made
    t, a, b, p = layout.shape
    assert layout.units == t * a * b
    size = int(groups.max()) + 1
    names = np.arange(size * channels, dtype=np.int64).reshape(size, channels, 1)
    slots = layout.slots(names)
    assert slots.shape == (layout.units, p, 1)
    found = np.sort(slots[slots >= 0])
    np.testing.assert_array_equal(found, np.sort(names[groups.ravel()].ravel()))
    # Candidates of one window stand at one place of the t blocks.
    window_of = {int(g): w for w, row in enumerate(groups) for g in row}
    for block in slots.reshape(t, -1).T:
        used = {(window_of[int(s) // channels], int(s) % channels) for s in block if s >= 0}
        assert len(used) <= 1
        assert (block >= 0).all() or (block < 0).all()


@given(layouts())
def test_every_result_has_exactly_one_place_in_the_wire(
    made: tuple[Layout, np.ndarray, int],
) -> None:
    layout, groups, channels = made
    positions = layout.positions(layout.valid)
    assert sorted(positions) == list(range(len(groups) * channels))
    assert int(layout.valid.sum()) == len(groups) * channels
    assert layout.valid.shape == layout.shape[1:]


@settings(max_examples=50)
@given(layouts(), st.integers(1, 4), st.integers(0, 99))
def test_packed_sums_of_a_dense_term_hold_every_candidates_sum(
    made: tuple[Layout, np.ndarray, int], depth: int, seed: int
) -> None:
    """Rows times columns, in the layout's order, against the product over the plain grid."""
    layout, groups, channels = made
    t, a, b, p = layout.shape
    generator = np.random.default_rng(seed)
    size = int(groups.max()) + 1
    index = generator.integers(-1, 6, size=(size, depth))
    weights = generator.integers(-9, 9, size=(depth, channels))
    wire = np.append(generator.integers(-9, 9, size=6), 0)
    if layout.over_channels:
        sums = np.einsum("gk,kbp->gbp", wire[layout.rows(index)], layout.columns(weights))
        found = sums.reshape(t, a, b, p)
    else:
        sums = np.einsum("upk,kc->ucp", wire[layout.rows(index)], weights)
        found = sums.reshape(t, a, b, p)
    names = np.arange(size * channels, dtype=np.int64).reshape(size, channels, 1)
    slots = layout.slots(names).reshape(t, a, b, p)
    plain = np.append((wire[index] @ weights).ravel(), 0)
    np.testing.assert_array_equal(np.where(slots >= 0, found, 0), plain[slots])


@given(layouts(), st.booleans())
def test_constants_and_weights_stand_at_their_candidates(
    made: tuple[Layout, np.ndarray, int], shared: bool
) -> None:
    layout, groups, channels = made
    t, a, b, p = layout.shape
    size = int(groups.max()) + 1
    constant = np.arange(1, (1 if shared else size) * channels + 1).reshape(-1, channels)
    arranged = np.broadcast_to(layout.arranged_constant(constant), layout.shape)
    names = np.arange(size * channels, dtype=np.int64).reshape(size, channels, 1)
    slots = layout.slots(names).reshape(t, a, b, p)
    every = np.append(np.broadcast_to(constant, (size, channels)).ravel(), 0)
    np.testing.assert_array_equal(arranged, every[slots])
    weights = np.arange(channels * 2).reshape(channels, 2)
    per_slot = np.broadcast_to(layout.per_slot(weights), (b, p, 2))
    channel = slots % channels
    for place in np.argwhere(slots >= 0):
        np.testing.assert_array_equal(per_slot[place[2], place[3]], weights[channel[tuple(place)]])
