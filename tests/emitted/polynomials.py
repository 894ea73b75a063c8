"""Polynomials over an emitted circuit's unknown cells, and of packed ones over S as well."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

Monomial: TypeAlias = "tuple[int, tuple[int, ...]]"
"""The power of S, and the unknowns, sorted, as often as they stand in it."""


class Polynomial:
    """A polynomial with whole coefficients; never zero (zero is the number 0)."""

    __slots__ = ("terms",)

    def __init__(self, terms: Mapping[Monomial, int]) -> None:
        self.terms = dict(terms)

    @classmethod
    def unknown(cls, index: int) -> Polynomial:
        """One unknown."""
        return cls({(0, (index,)): 1})

    @classmethod
    def power(cls, slot: int) -> Polynomial | int:
        """A power of S."""
        return simple({(slot, ()): 1})

    def __add__(self, other: Polynomial | int) -> Polynomial | int:
        total = dict(self.terms)
        for monomial, factor in terms_of(other).items():
            total[monomial] = total.get(monomial, 0) + factor
        return simple(total)

    def __mul__(self, other: Polynomial | int) -> Polynomial | int:
        total: dict[Monomial, int] = {}
        for (slot, names), factor in self.terms.items():
            for (far, more), times in terms_of(other).items():
                key = (slot + far, tuple(sorted(names + more)))
                total[key] = total.get(key, 0) + factor * times
        return simple(total)

    def __neg__(self) -> Polynomial:
        return Polynomial({monomial: -factor for monomial, factor in self.terms.items()})

    def __sub__(self, other: Polynomial | int) -> Polynomial | int:
        return self + -other

    def __rsub__(self, other: int) -> Polynomial | int:
        return -self + other

    __radd__ = __add__
    __rmul__ = __mul__

    def slots(self) -> dict[int, dict[tuple[int, ...], int]]:
        """Per power of S its polynomial: a factor per product of unknowns."""
        found: dict[int, dict[tuple[int, ...], int]] = {0: {}}
        for (slot, names), factor in self.terms.items():
            found.setdefault(slot, {})[names] = factor
        return found


def terms_of(value: Polynomial | int) -> Mapping[Monomial, int]:
    """A number's or a polynomial's terms."""
    if isinstance(value, Polynomial):
        return value.terms
    return {(0, ()): int(value)} if value else {}


def simple(terms: Mapping[Monomial, int]) -> Polynomial | int:
    """A polynomial without zeros; a number if it is one."""
    left = {monomial: factor for monomial, factor in terms.items() if factor}
    if not left:
        return 0
    if len(left) == 1 and (0, ()) in left:
        return left[0, ()]
    return Polynomial(left)
