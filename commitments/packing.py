"""Several small integers in one field element.

`pack` turns `PackingSpec.pack` consecutive integers e_0, e_1, ... into the one integer
sum e_i * 2^(stride * i). The circuit computes the same sum by two matrix products with constant
columns of powers of two: `inner` elements at stride `stride_bits`, then `outer` of those sums at
stride `inner * stride_bits`. Two levels, because ezkl's constants pass through float32 (powers of
two up to 2^127) and signed 128-bit integers (up to 2^126).

Invariant (soundness): over elements within +-`element_bound` packing is injective. Two reasons:
`decomp_base ** decomp_legs <= 2^(stride_bits - 1)` makes balanced digits unique, and
`pack * stride_bits <= 252` keeps every sum below 2^252 < r/2 in magnitude, so the signed integer
is read back from its residue. `element_bound` is what ezkl's range check (sign and `decomp_legs`
digits in base `decomp_base`) admits. An element that no range check holds inside the bound breaks
the invariant: that is the circuit's duty, not this module's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from zkml_ray.commitments.field import to_signed
from zkml_ray.errors import FieldRangeError

PACKED_BITS: Final[int] = 252
"""Every packed integer is below 2^252 in magnitude; domain tags lie at or above."""

# ezkl turns 2^127 silently into 2^127 - 1, the largest signed 128-bit integer.
_CONSTANT_BITS: Final[int] = 126
_MAX_PACK: Final[int] = 16
_GUARD_BITS: Final[int] = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PackingSpec:
    """How many integers of which width share one field element.

    Attributes:
        decomp_base: ezkl's `decomp_base`: the base of the range check's digits.
        decomp_legs: ezkl's `decomp_legs`: the number of those digits.
        stride_bits: Distance in bits between neighbouring elements of one packed element.
        inner: Elements added up by the first matrix product.
        outer: Sums of the first product added up by the second; 1 leaves the second out.
    """

    decomp_base: int
    decomp_legs: int
    stride_bits: int
    inner: int
    outer: int

    def __post_init__(self) -> None:
        if self.decomp_base < 2 or self.decomp_legs < 1:
            raise FieldRangeError(
                f"decomp_base {self.decomp_base} and decomp_legs {self.decomp_legs}: expected a "
                "base of at least 2 and at least 1 leg"
            )
        if self.inner < 1 or self.outer < 1:
            raise FieldRangeError(
                f"inner {self.inner} and outer {self.outer}: expected at least 1 each"
            )
        # Compared before anything is raised to a power: the numbers may come from outside.
        if self.decomp_legs > PACKED_BITS or self.decomp_base.bit_length() > PACKED_BITS:
            raise FieldRangeError(
                f"decomp_base of {self.decomp_base.bit_length()} bits with decomp_legs "
                f"{self.decomp_legs} does not fit {PACKED_BITS} bits"
            )
        if self.decomp_base**self.decomp_legs > 1 << max(0, min(self.stride_bits - 1, PACKED_BITS)):
            raise FieldRangeError(
                f"stride_bits {self.stride_bits} is too small for elements of "
                f"{self.element_bits} bits: expected at least {self.element_bits + 1}"
            )
        if self.pack * self.stride_bits > PACKED_BITS:
            raise FieldRangeError(
                f"{self.pack} elements at stride_bits {self.stride_bits} need "
                f"{self.pack * self.stride_bits} bits: at most {PACKED_BITS} fit a field element"
            )
        largest = self.stride_bits * max(self.inner - 1, self.inner * (self.outer - 1))
        if largest > _CONSTANT_BITS:
            raise FieldRangeError(
                f"packing constant 2^{largest} is too large: lower inner {self.inner} or "
                f"outer {self.outer} (at most 2^{_CONSTANT_BITS})"
            )

    @classmethod
    def for_decomposition(cls, base: int, legs: int) -> PackingSpec:
        """Choose the densest packing for ezkl's range-check parameters.

        Args:
            base: ezkl's `decomp_base`.
            legs: ezkl's `decomp_legs`.

        Returns:
            The spec with the most elements per field element (at most 16), and of those the one
            with the fewest second-level sums.

        Raises:
            FieldRangeError: The parameters are wrong, or too wide for any packing.
        """
        # Validates base and legs alone, at the widest stride there is.
        single = cls(decomp_base=base, decomp_legs=legs, stride_bits=PACKED_BITS, inner=1, outer=1)
        stride = min(single.element_bits + _GUARD_BITS, PACKED_BITS)
        candidates = [
            (inner * outer, -outer)
            for inner in range(1, _MAX_PACK + 1)
            for outer in range(1, _MAX_PACK // inner + 1)
            if inner * outer * stride <= PACKED_BITS
            and stride * max(inner - 1, inner * (outer - 1)) <= _CONSTANT_BITS
        ]
        pack_size, negative_outer = max(candidates)
        return cls(
            decomp_base=base,
            decomp_legs=legs,
            stride_bits=stride,
            inner=pack_size // -negative_outer,
            outer=-negative_outer,
        )

    @property
    def element_bits(self) -> int:
        """Bits of the largest permitted magnitude."""
        return self.element_bound.bit_length()

    @property
    def element_bound(self) -> int:
        """Largest permitted magnitude of an element: decomp_base ** decomp_legs - 1."""
        return int(self.decomp_base**self.decomp_legs) - 1

    @property
    def injective_bound(self) -> int:
        """Largest magnitude on which packing is injective: balanced digits of the stride."""
        return (1 << (self.stride_bits - 1)) - 1

    @property
    def pack(self) -> int:
        """Elements per field element."""
        return self.inner * self.outer


def pack(elements: Sequence[int], spec: PackingSpec) -> list[int]:
    """Pack integers, `spec.pack` at a time.

    Args:
        elements: Integers, each within +-`spec.element_bound`; a multiple of `spec.pack` of them.
        spec: The packing.

    Returns:
        Signed integers below 2^252 in magnitude, len(elements) / `spec.pack` of them.

    Raises:
        FieldRangeError: An element is out of range or the length is no multiple of `spec.pack`.
    """
    if len(elements) % spec.pack:
        raise FieldRangeError(
            f"cannot pack {len(elements)} elements: expected a multiple of {spec.pack}"
        )
    bound = spec.element_bound
    for index, element in enumerate(elements):
        if not -bound <= element <= bound:
            raise FieldRangeError(
                f"element {index} is {element}: expected a magnitude of at most {bound} "
                f"({spec.decomp_base}**{spec.decomp_legs} - 1)"
            )
    return [
        sum(
            int(element) << (spec.stride_bits * position)
            for position, element in enumerate(elements[start : start + spec.pack])
        )
        for start in range(0, len(elements), spec.pack)
    ]


def unpack(packed: Sequence[int], spec: PackingSpec) -> list[int]:
    """Undo `pack`.

    Args:
        packed: Field elements, signed or canonical.
        spec: The packing.

    Returns:
        len(packed) * `spec.pack` signed integers within +-`spec.element_bound`.

    Raises:
        FieldRangeError: A number is no field element or no packing of permitted elements.
    """
    bound = spec.element_bound
    half, full = 1 << (spec.stride_bits - 1), 1 << spec.stride_bits
    elements: list[int] = []
    for index, number in enumerate(packed):
        rest = to_signed(number)
        for position in range(spec.pack):
            digit = (rest + half) % full - half
            if not -bound <= digit <= bound:
                raise FieldRangeError(
                    f"packed element {index}: digit {position} is {digit}, expected a magnitude "
                    f"of at most {bound}"
                )
            elements.append(digit)
            rest = (rest - digit) >> spec.stride_bits
        if rest:
            raise FieldRangeError(
                f"packed element {index} holds more than {spec.pack} elements of "
                f"{spec.stride_bits} bits"
            )
    return elements
