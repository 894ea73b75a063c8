"""Forms in whole numbers, and the divisor that rounds them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from zkml_ray.chunking.hinted.forms import Floats, Form, NotHintedError, Pair
from zkml_ray.chunking.hinted.grid import Ints
from zkml_ray.chunking.hinted.numbers import FLOAT_BITS, Arithmetic

MAX_REMAINDER_DIGITS: Final = 8
EXACT: Final = 1e-9
CONSTANT_BITS: Final = 100
"""Of a constant that is added to sums."""

CONSTANT_SHARE: Final = 128
"""Of it at most this part of a divisor is left out, and so of a quantum. One float32 holds so much
for values up to 2^17."""

INT64_BITS: Final = 62
"""Larger ones are Python's integers."""

SUM_BITS: Final = 120
"""At least two sums of any proof are to fit a field element side by side."""

_MORE_BITS: Final = (0, 6, 12, 18)
"""How much finer weights may be made where they are small beside 1/q."""

_TOLERATED: Final = 32
"""A channel's weights may be off by this part of them, all together..."""

_SEEN: Final = 2
"""...or by what changes a result by so many quanta, for values at the end of their range."""

_SEEN_OF_FINE: Final = 10
"""The same where what is summed is finer than the result: one weight, half of a whole number off,
changes it by less for values of the circuit's range (a normalisation's are far smaller)."""

_GLANCE: Final = 64
"""Weights of every term that are looked at before all are."""

_PARTS: Final = 1 << 10
"""Errors of weights are counted in this part of a whole number."""

_EXACT_BITS: Final = 53
"""Of whole numbers that float64 adds exactly."""

_WHOLE: Final = 8
"""A whole weight of sums of fine numbers is at least this: an eighth of all remainders leave the
quotient below, besides the few that always do."""

_WHOLE_ERROR: Final = 2.0**-50
"""What float64 makes of the inverse of a whole number's inverse."""

_COARSE: Final = 4
"""Weights may be this much coarser than 1/q before another digit of the remainder is paid for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Divisor:
    """What sums are divided by.

    The quotient below is accepted as well where the remainder plus d still has digits: for some 24
    of q remainders where d is q, for one in eight or so where it has several digits, and where an
    exact d is less than q for as many more as it is less. The quotient below that never is.

    Attributes:
        value: d; remainders lie in [0, d).
        digits: Digits of a remainder.
        step: Digit i weighs 2^(step i).
    """

    value: int
    digits: int = 1
    step: int = 0

    def remainder_bound(self, numbers: Arithmetic) -> int:
        """Largest remainder that digits can hold in any proof."""
        return sum(numbers.digit_bound << (self.step * place) for place in range(self.digits))


class Quantised:
    """A form in whole numbers, at `divisor` times the resolution of its rounded values.

    Weights are rounded to that scale. Sums of unweighted values (products of two activations,
    averages) take a divisor that makes their one weight a whole number; otherwise the divisor
    leaves weights about as many bits as a table has, with more digits for the remainder where the
    values that are summed are finer than the result.

    Attributes:
        form: The form.
        divisor: What sums are divided by.
        dense: Terms with whole weights.
        local: Terms with whole weights.
        pairs: Terms with their whole factor.
        constant: What is added to sums: bias, half a divisor, divisor times offset.
        constants: What float32 holds of it, one after the other; they add up to it.
        magnitude: Largest absolute value of a sum, constant included, in any proof.
        nominal: Largest nominal scale among the terms.
    """

    def __init__(
        self,
        form: Form,
        numbers: Arithmetic,
        *,
        resolution: float,
        offset: int,
        moved_down: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """Quantise a form.

        Args:
            form: The form.
            numbers: Of the circuit.
            resolution: Whole numbers per unit of the rounded values.
            offset: Added to rounded values.
            moved_down: Shape [groups, channels]: where twice the offset is taken away again, so
                that no value in range is left above zero.
        """
        self.form = form
        self.divisor = _divisor(form, numbers, resolution)
        scale = self.divisor.value * resolution
        self.dense = [(t, _whole(t.weights, scale / t.wire.resolution)) for t in form.dense]
        self.local = [(t, _whole(t.weights, scale / t.wire.resolution)) for t in form.local]
        self.pairs = [
            (t, int(_whole(np.asarray([t.factor]), scale / _finer(t))[0])) for t in form.pairs
        ]
        added = form.bias * scale + (self.divisor.value // 2 + self.divisor.value * offset)
        if moved_down is not None:
            added = np.where(moved_down, added - 2.0 * self.divisor.value * offset, added)
        if np.abs(added).max(initial=0) >= 2.0**CONSTANT_BITS:
            raise NotHintedError("a bias is too large for its scale")
        self.constants = _in_float32(np.rint(added), self.divisor.value / CONSTANT_SHARE)
        self.constant: Ints = sum(self.constants[1:], start=self.constants[0])
        sums = np.zeros(form.channels, dtype=object)
        for dense, weights in self.dense:
            sums += np.abs(weights).sum(axis=0).astype(object) * dense.wire.magnitude
        for local, weights in self.local:
            sums += np.abs(weights).sum(axis=1).astype(object) * local.wire.magnitude
        for pair, factor in self.pairs:
            sums += abs(factor) * pair.most
        self.magnitude = int(sums.max()) + int(np.abs(self.constant).max())
        if self.magnitude.bit_length() > SUM_BITS:
            raise NotHintedError("sums are too large to round")
        nominals = [t.wire.nominal for t in form.dense] + [t.wire.nominal for t in form.local]
        nominals += [t.left.nominal + t.right.nominal for t in form.pairs]
        self.nominal = max(nominals, default=0)


def _in_float32(values: Floats, most: float) -> list[Ints]:
    """Whole numbers in parts that float32 holds, as many as leave no more than `most` out."""
    small = np.abs(values).max(initial=0) < 2.0**INT64_BITS
    parts: list[Ints] = []
    while not parts or np.abs(values).max(initial=0) > most:
        held = values.astype(np.float32).astype(np.float64)
        parts.append(held.astype(np.int64) if small else unbounded(held))
        # Exact: both have the digits of one float64.
        values = values - held
    return parts


def unbounded(values: Floats) -> Ints:
    """Whole numbers as Python's integers."""
    found: Ints = np.array([int(v) for v in values.ravel()], dtype=object).reshape(values.shape)
    return found


def _finer(pair: Pair) -> float:
    """Whole numbers per unit of a product of activations."""
    return pair.left.resolution * pair.right.resolution


def _resolutions(form: Form) -> list[tuple[Floats, float]]:
    """Per term its weights and the resolution of what they multiply, signs left out."""
    found = [(term.weights, abs(term.wire.resolution)) for term in form.dense]
    found += [(term.weights, abs(term.wire.resolution)) for term in form.local]
    found += [(np.asarray([pair.factor]), abs(_finer(pair))) for pair in form.pairs]
    return found


def _divisor(form: Form, numbers: Arithmetic, resolution: float) -> Divisor:
    terms = _resolutions(form)
    if not terms:
        raise NotHintedError("a constant stands where a tensor is expected")
    unit = _unit(terms, resolution)
    exact = unit and (_unit_divisor(unit, numbers) or _fine_divisor(unit, numbers))
    if exact:
        return exact
    finest = max(own for _, own in terms)
    excess = math.log2(finest / resolution)

    def fitting(more: int) -> Divisor | None:
        found = _finer_divisor(numbers, resolution / finest, excess + more)
        fits = found is not None and _fits_constants(terms, found.value * resolution)
        return found if fits else None

    def blurred(divisor: Divisor) -> bool:
        return _blurred(form, numbers, divisor.value, resolution, finest)

    if _finer_divisor(numbers, resolution / finest, excess) is None:
        raise NotHintedError("values are too fine to be rounded at once")
    if fitting(0) is None:
        raise NotHintedError("weights are too large for their scale")
    for more in _MORE_BITS:
        divisor = fitting(more)
        if divisor is None:
            # As fine as the largest weight allows.
            between = (fitting(bits) for bits in range(more - 1, more - 6, -1))
            divisor = next((found for found in between if found is not None), None)
            if divisor is None or blurred(divisor):
                break
            return divisor
        if not blurred(divisor):
            return divisor
    # Rounded all the same, an output would be another one than the model's.
    raise NotHintedError("some output's weights are too small beside the largest weight")


def _finer_divisor(numbers: Arithmetic, ratio: float, excess: float) -> Divisor | None:
    """The divisor of fewest digits that leaves weights about as many bits as a table has.

    Args:
        numbers: Of the circuit.
        ratio: Resolution of the result by that of the finest summed values.
        excess: Bits by which weights are to be finer than 1/q of the result.
    """
    for digits in range(1, MAX_REMAINDER_DIGITS + 1):
        step = 0 if digits == 1 else math.ceil(max(excess, 1) / (digits - 1))
        value = numbers.divisor << (step * (digits - 1))
        if step >= numbers.logrows or value * ratio * _COARSE < numbers.divisor:
            continue
        if value.bit_length() + 2 >= numbers.logrows + excess:
            return Divisor(value=value, digits=digits, step=step)
    return None


def _fits_constants(terms: list[tuple[Floats, float]], scale: float) -> bool:
    """Whether weights at a scale are whole numbers that a file's float32 holds."""
    largest = max(float(np.abs(w).max(initial=0)) * scale / own for w, own in terms)
    return largest < (1 << FLOAT_BITS) - 1


def _blurred(
    form: Form, numbers: Arithmetic, divisor: int, resolution: float, finest: float
) -> bool:
    """Whether rounded weights make some channel another one: zero, say, where they are small.

    The errors of its weights exceed a share of the weights, and could be seen in the result. In
    whole numbers, because a plan may not depend on a processor's order of summation.
    """
    scale = divisor * resolution
    seen_from = _SEEN if finest <= 2 * resolution else _SEEN_OF_FINE
    terms = [(t.weights, t.wire.resolution, t.wire.magnitude, 0) for t in form.dense]
    terms += [(t.weights, t.wire.resolution, t.wire.magnitude, 1) for t in form.local]
    terms += [
        (np.full((1, form.channels), pair.factor), _finer(pair), pair.most, 0)
        for pair in form.pairs
    ]
    reaches = [
        min(bound, math.ceil(abs(own) * 2.0**numbers.range_bits)) for _, own, bound, _ in terms
    ]
    right: Any = np.zeros(form.channels, dtype=object)
    most = 0
    for (weights, own, _, axis), reach in zip(terms, reaches, strict=True):
        size = np.rint(np.abs(weights * (scale / own)) * _PARTS)
        right += _whole_sums(size, axis) * reach
        most += weights.shape[axis] * (_PARTS // 2) * reach
    if (right >= most * _TOLERATED).all():
        return False  # not even if every weight were off by half
    wrong: Any = np.zeros(form.channels, dtype=object)
    for (weights, own, _, axis), reach in zip(terms, reaches, strict=True):
        scaled = weights * (scale / own)
        error = np.rint(np.abs(np.rint(scaled) - scaled) * _PARTS)
        wrong += _whole_sums(error, axis) * reach
    seen = wrong > seen_from * _PARTS * divisor
    return bool((seen & (wrong * _TOLERATED > right)).any())


def _whole_sums(values: Floats, axis: int) -> Any:
    """Sums of whole numbers, as Python's integers, the same in every order of summation."""
    # Float64 adds whole numbers exactly as long as no sum needs more bits.
    if values.max(initial=0) * values.shape[axis] >= 2.0**_EXACT_BITS:
        values = values.astype(np.int64)
    return values.sum(axis=axis).astype(np.int64).astype(object)


def _unit(terms: list[tuple[Floats, float]], resolution: float) -> float | None:
    """The only weight there is, in whole numbers of the result."""
    # Most weights differ from the first few on: all of them need not be looked at.
    for most in (_GLANCE, None):
        units = np.concatenate(
            [np.abs(weights.ravel()[:most]) * resolution / own for weights, own in terms]
        )
        units = units[units > 0]
        if units.size and np.ptp(units) > EXACT * units[0]:
            return None
    return float(units[0]) if units.size else None


def _fine_divisor(unit: float, numbers: Arithmetic) -> Divisor | None:
    """The divisor of several digits that makes the only weight of fine numbers a small whole one.

    It leaves sums no larger than they are fine, where weights as fine as a table need as many bits
    again.
    """
    if unit * numbers.divisor >= 1:
        return None
    inverse = int(np.float32(1 / unit))
    if abs(inverse * unit - 1) > _WHOLE_ERROR:
        return None
    for digits in range(2, MAX_REMAINDER_DIGITS + 1):
        for step in range(1, numbers.divisor.bit_length()):
            weight = (numbers.divisor << (step * (digits - 1))) // inverse
            value = weight * inverse
            # Else a remainder could be that of the quotient after the next.
            single = 2 * value > numbers.digit_bound * sum(1 << step * i for i in range(digits))
            if weight >= _WHOLE and single and value == int(np.float32(value)):
                return Divisor(value=value, digits=digits, step=step)
    return None


def _unit_divisor(unit: float, numbers: Arithmetic) -> Divisor | None:
    """The divisor of one digit that makes the only weight there is a whole number."""
    weight = math.floor(numbers.divisor * unit * (1 + EXACT))
    if weight < 1:
        return None
    value = weight / unit
    # More than half a table: a remainder beyond it is of the next quotient, none of the one after.
    fits = numbers.digit_bound < 2 * value <= 2 * numbers.divisor * (1 + EXACT)
    whole = fits and abs(value - round(value)) < EXACT * value
    return Divisor(value=round(value)) if whole else None


def _whole(weights: Floats, scale: float) -> Ints:
    scaled = np.rint(weights * scale)
    if np.abs(scaled).max(initial=0) >= 1 << FLOAT_BITS:
        raise NotHintedError("weights are too large for their scale")
    return scaled.astype(np.int64)
