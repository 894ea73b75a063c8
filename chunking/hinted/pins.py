"""Pinning rows: one element of each row stands at the row's top.

A row's elements are given as distances E >= 0 below a hinted top X. That one of them is zero makes
X the row's largest element. Groups of a few elements have products P = prod E; one-hot hints b >= 0
with sum b = 1 name a group, and sum b P = 0 over all rows says that its product is zero, so that a
factor is. All of it is whole numbers far from wrapping, none of them negative.

Which of several tied elements is named changes nothing: b stands in no other equation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from zkml_ray.chunking.hinted.grid import Ints

if TYPE_CHECKING:
    from zkml_ray.chunking.hinted.lower import Lowering

GROUP: Final = 8
"""Elements of a product at most: one more costs two cells less for a hint of its own."""

PRODUCT_BITS: Final = 200
"""Bits of a product of hints in any proof: a circuit has room for 2^52 of them."""


def pin_rows(lowering: Lowering, distances: str, places: Ints) -> None:
    """Hold one element of each row at zero.

    Args:
        lowering: Where to.
        distances: Digits, flat.
        places: Shape [rows, length]: where a row's elements are; a shorter row has some several
            times, which changes no zero.
    """
    circuit, numbers = lowering.circuit, lowering.numbers
    rows = len(places)
    members = _groups(places, PRODUCT_BITS // numbers.logrows - 1)
    groups, _, size = members.shape
    count = groups * rows
    factors = [circuit.gather(distances, members[..., i].ravel()) for i in range(size)]
    product = factors[0]
    for factor in factors[1:]:
        product = circuit.multiply(product, factor, count)
    largest = numbers.digit_bound**size
    if groups > 1:
        others = circuit.hints(count - rows).reshape(groups - 1, rows)
        named = circuit.hinted(others.T)
        if groups > 2:
            named = circuit.sum_rows(named, rows, groups - 1)
        # What the others leave of 1: so they are all zero, or one of them is 1 and this is zero.
        first = circuit.subtract(circuit.whole([1]), circuit.reshape(named, [rows]), rows)
        circuit.check_digits(first, rows)
        one_hot = circuit.concat([first, circuit.hinted(others.ravel())])
        total = circuit.product("i,i->", one_hot, product, outputs=1, length=count)
        largest *= numbers.digit_bound
    else:
        total = product
        if rows > 1:
            total = circuit.sum_rows(circuit.reshape(product, [1, rows]), 1, rows)
    circuit.check_zero(circuit.reshape(total, [1]), count * largest)
    lowering.step(do="pin", wire=distances, members=circuit.indices(members))


def _groups(places: Ints, limit: int) -> Ints:
    """Positions of the elements of every group: [groups, rows, size].

    Shorter groups have one element several times, too.
    """
    length = places.shape[1]
    groups = -(-length // min(GROUP, limit))
    size = -(-length // groups)
    within = np.full((groups, size), -1, dtype=np.int64)
    for group, part in enumerate(np.array_split(np.arange(length), groups)):
        within[group] = np.resize(part, size)
    found: Ints = places[:, within].transpose(1, 0, 2)
    return found
