"""How much the checks of hinted circuits leave open, computed over everything that planners take.

Where a check admits neighbours (a reciprocal, a root, the quotient below), the bounds that
docs/security.md states are computed here from the numbers that the circuits are made with.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest

from zkml_ray import limits
from zkml_ray.chunking.hinted.fine import FineDigits, places
from zkml_ray.chunking.hinted.forms import Form, Local, NotHintedError
from zkml_ray.chunking.hinted.grid import Wire
from zkml_ray.chunking.hinted.layer_norm import RootBounds
from zkml_ray.chunking.hinted.numbers import PACKED_BITS, PRECISION_BITS, Arithmetic
from zkml_ray.chunking.hinted.pins import GROUP, PRODUCT_BITS, _groups
from zkml_ray.chunking.hinted.rounding import Divisor, Quantised
from zkml_ray.chunking.hinted.softmax import FEW_KEYS, SumBounds
from zkml_ray.errors import ChunkingError

SCALES = range(4, 15)
RANGES = range(13)
WIDTHS = (1, 2, 3, 4, 16, 64, 384, 768, 1024, 4096)
KEYS = (1, 2, 4, 16, 64, 65, 197, 512, 1024, 4096)
EPSILONS = (0.0, 1e-12, 1e-5, 1e-2, 1.0)


def all_numbers(*more: int) -> Iterator[Arithmetic]:
    """Every circuit's numbers, with so many bits of rows more than of scale."""
    for scale, range_bits, extra in itertools.product(SCALES, RANGES, more):
        if scale + extra < 8:
            continue  # no room for blinders
        try:
            yield Arithmetic(scale=scale, logrows=scale + extra, range_bits=range_bits)
        except ChunkingError:
            continue  # more than two digits reach


def own_wire(numbers: Arithmetic) -> Wire:
    """What rounded values are."""
    low, high = -numbers.offset, numbers.value_bound - numbers.offset
    return Wire(name="x", size=1, low=low, high=high, resolution=2.0**numbers.scale)


def roots(widths: tuple[int, ...]) -> Iterator[tuple[Arithmetic, int, float, RootBounds]]:
    for numbers, width, epsilon in itertools.product(all_numbers(3, 4, 6), widths, EPSILONS):
        bounds = RootBounds.of(numbers, own_wire(numbers), width, epsilon=epsilon)
        yield numbers, width, epsilon, bounds


def largest_spread(numbers: Arithmetic, width: int) -> int:
    """Sum c^2 of the row with the largest deviation that any proof can hold: half at each end."""
    return (width // 2) * -(-width // 2) * width * numbers.value_bound**2


def test_one_step_of_a_root_is_what_is_published() -> None:
    """2^-(scale + 2) of it where values reach 2^range_bits; what digits reach beyond that counts.

    Of a small epsilon: a large one adds to the variance. It was 2^(range_bits - logrows) once: all
    of it for a range of 2^10 with 2^10 rows.
    """
    widest = Fraction(0)
    for numbers, width, epsilon, bounds in roots((2, 3, 64, 4096)):
        if epsilon > 1e-5:
            continue
        spread = bounds.factor * largest_spread(numbers, width) + bounds.epsilon
        # (1 / rho)^2 = W / C
        square = Fraction(spread, bounds.target) * 4 ** (numbers.scale + 2)
        beyond = Fraction(numbers.value_bound, 2 * numbers.offset) ** 2
        assert square <= max(beyond, 1) * Fraction(1001, 1000), (numbers, width)
        widest = max(widest, square)
    # Digits reach up to twice the range: so a step is never more than 2^-(scale + 1).
    assert 1 < widest <= 4


def test_root_of_every_row_has_digits_and_so_have_its_checks() -> None:
    """From no variance at all to the largest there is, with every epsilon."""
    for numbers, width, epsilon, bounds in roots(WIDTHS):
        digits = bounds.digits(numbers)
        reach = (numbers.divisor - 1) * sum(1 << digits.step * i for i in range(digits.count))
        held = 1 << ((numbers.logrows - 1) * places(numbers, bounds.honest))
        least = bounds.factor * width * (width - 1)
        most = bounds.factor * largest_spread(numbers, width)
        for squares in (0, least, math.isqrt(least * most), most):
            spread = squares + bounds.epsilon
            root = (math.isqrt(4 * bounds.target // spread) + 1) // 2
            assert 0 <= root <= reach, (numbers, width, epsilon)
            up = (root + 1) ** 2 * spread - bounds.target
            down = bounds.target - (root - 1) ** 2 * spread
            assert 0 <= up <= min(bounds.honest, held - 1), (numbers, width, epsilon)
            assert 0 <= down <= min(bounds.honest, held - 1), (numbers, width, epsilon)


def test_roots_that_pass_are_next_to_the_exact_one() -> None:
    draw = np.random.default_rng(0)
    for numbers, width, _, bounds in roots((2, 64)):
        squares = int(largest_spread(numbers, width) * 2.0 ** -draw.uniform(0, 20))
        spread = bounds.factor * squares + bounds.epsilon
        near = math.isqrt(bounds.target // spread)
        passing = [
            r
            for r in range(max(0, near - 3), near + 5)
            if (r - 1) ** 2 * spread <= bounds.target <= (r + 1) ** 2 * spread
        ]
        exact = math.sqrt(Fraction(bounds.target, spread))
        assert 2 <= len(passing) <= 3
        assert all(abs(r - exact) <= 1 + 1e-6 * exact for r in passing)


def test_epsilon_is_the_operators_but_for_what_is_published() -> None:
    """In W it is at most 2^-(scale + 4) off, so in the root half of that, in rows that vary."""
    for numbers, width, epsilon, bounds in roots(WIDTHS[1:]):
        unit = bounds.factor * Fraction(width) ** 3 * 4**numbers.scale
        least = bounds.factor * width * (width - 1)
        exact = Fraction(epsilon) * unit
        off = abs(bounds.epsilon - exact) / (least + exact)
        assert off <= Fraction(1001, 1000) / 2 ** (numbers.scale + 4), (numbers, width, epsilon)
        near = abs(Fraction(bounds.target) / (bounds.unit**2 * unit) - 1)
        assert near <= Fraction(1, 1 << 24)


def test_roots_checks_do_not_wrap() -> None:
    for numbers, _, _, bounds in roots(WIDTHS):
        largest = (bounds.digits(numbers).bound(numbers) + 1) ** 2 * bounds.most + bounds.target
        assert largest.bit_length() < PACKED_BITS


def sums() -> Iterator[tuple[Arithmetic, int, SumBounds]]:
    for numbers, keys in itertools.product(all_numbers(3, 4), KEYS):
        if keys > FEW_KEYS and numbers.logrows == numbers.scale + 3:
            continue
        yield numbers, keys, SumBounds.of(numbers, keys)


def table(numbers: Arithmetic, argument: int) -> int:
    """What ezkl's table of the exponential holds."""
    one = 1 << numbers.scale
    return math.floor(one * float(np.float32(np.e)) ** (argument / one) + 0.5)


def test_one_step_of_a_reciprocal_sum_is_what_is_published() -> None:
    """2^-(scale + 2) of it for a row of tied scores, less for every other row."""
    for numbers, keys, bounds in sums():
        largest = keys * table(numbers, numbers.divisor - 1)
        step = Fraction(largest, bounds.target)
        assert step <= Fraction(1001, 1000) / 2 ** (numbers.scale + 2), (numbers, keys)


def test_reciprocal_of_every_sum_has_digits_and_so_have_its_checks() -> None:
    for numbers, keys, bounds in sums():
        top = table(numbers, numbers.divisor - 1)
        assert top <= bounds.high
        digits, q = bounds.digits, numbers.divisor
        reach = (q - 1) * sum(1 << digits.step * i for i in range(digits.count))
        held = 1 << ((numbers.logrows - 1) * places(numbers, bounds.honest))
        low = top + (keys - 1) * table(numbers, 0)
        for total in {low, math.isqrt(low * keys * top), keys * top}:
            reciprocal = (bounds.target + total // 2) // total
            assert 0 < reciprocal <= reach, (numbers, keys)
            for change in (1, -1):
                left = change * ((reciprocal + change) * total - bounds.target)
                assert 0 <= left <= min(bounds.honest, held - 1), (numbers, keys)
        assert bounds.most.bit_length() < PACKED_BITS


# Digits.


@pytest.mark.parametrize("logrows", [8, 11, 15])
def test_fine_digits_give_every_number_they_reach_back(logrows: int) -> None:
    numbers = Arithmetic(scale=logrows - 3, logrows=logrows, range_bits=2)
    q, draw = numbers.divisor, np.random.default_rng(logrows)
    for most in [1, q - 2, q - 1, q, q + 1, 65 * q, q * q, q**3 + 5, 1 << 50]:
        digits = FineDigits.reaching(numbers, most)
        assert digits.bound(numbers) >= most
        for number in {0, 1, most // 3, most - 1, most, *(int(most * v) for v in draw.random(9))}:
            split = digits.split(number, q)
            assert len(split) == digits.count
            assert all(0 <= digit < q for digit in split), (most, number)
            assert sum(d << digits.step * i for i, d in enumerate(split)) == number


def test_fine_digits_reach_little_more_than_they_have_to() -> None:
    """So that what is packed with them is small: less than twice, or one more digit's step."""
    for logrows, bits in itertools.product((8, 11, 15), range(1, 55)):
        numbers = Arithmetic(scale=logrows - 3, logrows=logrows, range_bits=2)
        digits = FineDigits.reaching(numbers, 1 << bits)
        ratio = digits.bound(numbers) >> bits
        assert ratio <= 1 << max(1, digits.count) or digits.count == 1, (logrows, bits)


def test_number_that_no_digits_reach_is_refused() -> None:
    with pytest.raises(NotHintedError, match="too large"):
        FineDigits.reaching(Arithmetic(scale=5, logrows=8, range_bits=2), 1 << 70)


# Rows' tops.


@pytest.mark.parametrize("logrows", [8, 13, 16, 20, 26])
def test_every_element_of_a_row_is_in_a_group_of_its_row_and_no_product_wraps(logrows: int) -> None:
    for length in (*range(1, 70), 197, 1024, 4096):
        limit = PRODUCT_BITS // logrows - 1
        members = _groups(np.arange(3 * length).reshape(3, length), limit)
        groups, rows, size = members.shape
        assert size <= min(GROUP, limit)
        for row in range(rows):
            assert set(members[:, row].ravel()) == {row * length + i for i in range(length)}
        # A shorter group repeats elements of its own, so that a product is zero as it was.
        assert sum(len(set(members[g, 0])) for g in range(groups)) == length
        largest = ((1 << logrows) - 1) ** (size + 1) * groups * (1 << 26)
        assert largest.bit_length() < PACKED_BITS


# Quotients.


def every_circuit() -> Iterator[Arithmetic]:
    """All numbers that planners and verifiers take, up to 2^26 rows."""
    for scale in range(1, limits.MAX_SCALE_BITS + 1):
        for range_bits in range(limits.MAX_RANGE_BITS + 1):
            for logrows in range(max(8, scale + PRECISION_BITS), 27):
                with contextlib.suppress(ChunkingError):
                    yield Arithmetic(scale=scale, logrows=logrows, range_bits=range_bits)


def test_constants_are_what_is_published_at_every_scale_range_and_size() -> None:
    """A bias, half a divisor and the offset: off by less than a hundredth of a quantum.

    One float32 left out 0.8 quanta at scale 14, range 2^10 and 2^17 rows, 7 at 16, 2^11 and 2^20.
    """
    draw, widest, parts = np.random.default_rng(0), Fraction(0), set()
    for numbers in every_circuit():
        resolution = 2.0**numbers.scale
        wire = own_wire(numbers)
        biases = np.float32(draw.uniform(-1, 1, size=3) * 2.0**numbers.range_bits)
        bias = np.append(biases, [0.0, 2.0**numbers.range_bits]).astype(np.float64)
        size = len(bias)
        index = np.zeros((1, size, 2), dtype=np.int64)
        # Weights of more than 24 bits are refused.
        weights = np.tile([[0.3, 0.7]], (size, 1)) * 2.0 ** -max(0, numbers.logrows - 23)
        local = Local(wire=wire, index=index, weights=weights)
        form = Form(groups=1, channels=size, local=(local,), bias=bias[None])
        for offset in (0, numbers.offset):
            made = Quantised(form, numbers, resolution=resolution, offset=offset)
            divisor = made.divisor.value
            for held, exact in zip(made.constant[0].tolist(), bias.tolist(), strict=True):
                wanted = Fraction(exact) * divisor * (1 << numbers.scale)
                wanted += divisor // 2 + divisor * offset
                widest = max(widest, abs(held - wanted) / divisor)
            for part in made.constants:
                assert all(int(np.float32(v)) == v for v in part.ravel().tolist())
            parts.add(len(made.constants))
    assert Fraction(1, 200) < widest < Fraction(1, 100)
    assert parts == {1, 2}


def divisor_of(numbers: Arithmetic, weights: list[float], resolution: float) -> Divisor:
    """What sums of one wire's elements are divided by."""
    wire = Wire(name="w", size=8, low=0, high=7, resolution=resolution)
    index = np.zeros((1, 1, len(weights)), dtype=np.int64)
    local = Local(wire=wire, index=index, weights=np.array([weights]))
    form = Form(groups=1, channels=1, local=(local,), bias=np.zeros((1, 1)))
    return Quantised(form, numbers, resolution=2.0**numbers.scale, offset=0).divisor


def slack(numbers: Arithmetic, divisor: Divisor) -> Fraction:
    """The part of all remainders for which the quotient below passes as well."""
    return Fraction(divisor.remainder_bound(numbers) + 1 - divisor.value, divisor.value)


def test_averages_leave_the_quotient_below_and_no_other() -> None:
    """Of any number of values: all remainders at worst, one quantum and never two."""
    widest: dict[int, Fraction] = {}
    for extra in (2, 3, 4):
        numbers = Arithmetic(scale=8, logrows=8 + extra, range_bits=4)
        found = [
            slack(numbers, divisor_of(numbers, [1 / count] * 2, 2.0**8)) for count in range(1, 5000)
        ]
        assert max(found) <= 1
        widest[extra] = max(found)
    assert min(widest.values()) > Fraction(9, 10)


def test_products_of_two_activations_leave_a_third_of_all_remainders_at_most() -> None:
    """Per number of rows beyond the scale: what docs/security.md states."""
    stated = {2: Fraction(1, 3), 3: Fraction(1, 7), 4: Fraction(1, 15), 6: Fraction(1, 63)}
    for extra, most in stated.items():
        for numbers in all_numbers(extra):
            divisor = divisor_of(numbers, [1.0, 1.0], 4.0**numbers.scale)
            every = Fraction((1 << numbers.logrows) - numbers.divisor, numbers.divisor)
            assert slack(numbers, divisor) <= most + 2 * every, numbers
            assert divisor.remainder_bound(numbers) < 2 * divisor.value


def test_softmax_times_values_leaves_an_eighth_of_all_remainders_at_most() -> None:
    """Its only weight is whole, 8 or more; and the few that every table leaves."""
    for numbers, _, bounds in sums():
        resolution = float(bounds.target) * 2.0**numbers.scale
        divisor = divisor_of(numbers, [1.0], resolution)
        every = Fraction((1 << numbers.logrows) - numbers.divisor, numbers.divisor)
        lower = Fraction(2, 1 << divisor.step)
        assert slack(numbers, divisor) <= Fraction(1, 8) + 2 * every + lower, numbers
        assert divisor.value % bounds.target == 0
