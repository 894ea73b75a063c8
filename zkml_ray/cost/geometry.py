"""The columns of a chunk circuit.

ezkl lays a circuit out as blocks of columns of 2^logrows rows: three variables of `num_inner_cols`
columns a block for the main region, three columns a block for shuffles and dynamic lookups, six
variables a block for Freivalds' argument, three columns for Poseidon. The numbers of blocks follow
from the settings (ezkl 23.0.5: `graph/vars.rs`, `tensor/var.rs`, `circuit/ops/chip.rs`,
`circuit/ops/chip/einsum/{analysis,reduction_planner}.rs`); proving time and memory follow from the
columns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

POSEIDON_COLUMNS: Final = 3
_VARIABLES: Final = 3
_EINSUM_VARIABLES: Final = 6
_POSEIDON_DEGREE: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """The size of a circuit.

    Attributes:
        logrows: log2 of its rows.
        inner_columns: Columns of one variable in one block.
        blocks: Blocks of the main region.
        einsum_blocks: Blocks of Freivalds' argument; 0 without it.
        shuffle_blocks: Blocks of the shuffles' and dynamic lookups' outputs; 0 without them.
        tables: Lookup tables (one a function).
        range_checks: Tables of range checks.
        cells: Cells that are assigned in the main region and Freivalds' columns.
        instances: Public instances.
    """

    logrows: int
    inner_columns: int
    blocks: int
    einsum_blocks: int
    shuffle_blocks: int
    tables: int
    range_checks: int
    cells: int
    instances: int

    @property
    def rows(self) -> int:
        """Rows of every column."""
        return 1 << self.logrows

    @property
    def advice_columns(self) -> int:
        """Columns that a witness fills."""
        return (
            self.inner_columns * (_VARIABLES * self.blocks + _EINSUM_VARIABLES * self.einsum_blocks)
            + _VARIABLES * self.shuffle_blocks
            + POSEIDON_COLUMNS
        )

    @property
    def degree(self) -> int:
        """Degree of the constraints: Poseidon's S-box, or a product over the inner columns."""
        return max(_POSEIDON_DEGREE, self.inner_columns + 2)

    @property
    def lookup_batches(self) -> int:
        """Range checks of every main column, as many together as the degree allows."""
        lookups = self.blocks * self.inner_columns * self.range_checks
        return -(-lookups // (self.degree - 3))

    @property
    def extension(self) -> int:
        """Size of the extended domain, in circuits: the degree, rounded up to a power of two."""
        return 1 << math.ceil(math.log2(self.degree - 1))


def reduction_length(equation: str, sizes: Mapping[str, int]) -> int:
    """Cells of Freivalds' columns that ezkl reserves for an equation, used or not.

    Args:
        equation: An einsum equation, such as "mk,kn->mn".
        sizes: Size of every axis.
    """
    inputs, _, output = (
        "".join(c for c in side if not c.isalpha() or sizes.get(c, 2) > 1)
        for side in equation.partition("->")
    )
    axes = [axis for axis in output if axis in sizes]
    # The output is reduced axis by axis from the last, the inputs as below.
    total = sum(math.prod(sizes[a] for a in axes[:end]) for end in range(1, len(axes) + 1))
    return total + sum(_reductions(inputs.split(","), axes, sizes))


def _reductions(terms: Sequence[str], output: Sequence[str], sizes: Mapping[str, int]) -> list[int]:
    """Length of every step in which the inputs are reduced to a number, axis by axis."""
    left = list(terms)
    lengths: list[int] = []

    def reduce(axis: str) -> None:
        nonlocal left
        holders = [term for term in left if axis in term]
        joined = axis in output and len(holders) > 1
        kept = sorted(set("".join(holders)) - (set() if joined else {axis}))
        products = math.prod(sizes[a] for a in kept)
        length = 1 if joined else sizes[axis]
        # Products of more than two factors are made pair by pair before they are summed.
        lengths.append(products * length * (len(holders) if len(holders) > 2 else 1))
        left = [term for term in left if term not in holders] + ["".join(kept)]

    for axis in output:
        while any(axis in term for term in left):
            reduce(axis)
    for axis in sorted(set("".join(left))):
        reduce(axis)
    return lengths
