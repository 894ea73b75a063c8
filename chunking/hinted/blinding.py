"""Where the blinders of a hinted circuit stand, and why there are so many.

Two kinds of polynomials in ezkl's proofs are functions of the witness alone, with no randomness of
halo2's own in them, so that a guess of a private input could be tested against the proof:

- the input's columns, each committed to and evaluated at one point (ezkl's "polycommit" columns
  are unblinded);
- per lookup argument, how often each table entry is looked up (halo2's logarithmic-derivative
  lookup commits to these multiplicities, and evaluates them at one point), and the differences of
  the arguments' running sums, whose blinding rows are shared.

So every input column and every column that is looked up gets `BLINDERS` random digits: a guess of
the values can be tested only together with a guess of those. A run of blinders stands before,
between and after segments of values, so close that every column has a whole run wherever the
segments begin: columns are filled cell by cell, `columns` side by side, and each block of them
starts over after at least 2^logrows - `TABLE_RESERVE` rows. Blinders are digits like any other and
stand in no equation. Nothing here matters for soundness.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from zkml_ray.chunking.hinted.grid import Ints
from zkml_ray.chunking.hinted.numbers import TABLE_RESERVE
from zkml_ray.errors import ChunkingError

BLINDERS: Final = 64
"""Random digits of every column. As a multiset, which is all that multiplicities show, 64 digits of
10 bits have 640 - log2(64!) = 344 bits of entropy, and of 13 bits 536."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Values among runs of blinders.

    Attributes:
        places: Position of every value.
        length: Values and blinders together.
    """

    places: Ints
    length: int

    @classmethod
    def of(cls, count: int, *, logrows: int, columns: int) -> Spread:
        """Spread values that fill columns cell by cell.

        Args:
            count: Values.
            logrows: log2 of the circuit's rows.
            columns: Columns side by side.

        Raises:
            ChunkingError: The columns are too short for any value.
        """
        run = BLINDERS * columns
        segment = ((1 << logrows) - TABLE_RESERVE) * columns - 2 * run
        if segment < 1:
            raise ChunkingError(f"2^{logrows} rows are too few for values among blinders")
        if not count:
            return cls(np.zeros(0, dtype=np.int64), 0)
        values = np.arange(count, dtype=np.int64)
        places = values + run * (1 + values // segment)
        return cls(places, int(places[-1]) + 1 + run)

    def others(self) -> Ints:
        """Positions of the blinders."""
        free = np.ones(self.length, dtype=bool)
        free[self.places] = False
        return np.flatnonzero(free)


class Advice:
    """The layout of a hinted circuit's one input.

    It holds the hints, among blinders that are looked up with them, and what was given, all among
    blinders of its own columns.

    Attributes:
        hints: The hints among the blinders that are looked up with them.
        length: Elements of the input.
    """

    def __init__(self, *, hints: int, given: int, logrows: int, columns: int) -> None:
        """Lay out an input.

        Args:
            hints: Hints.
            given: Values of incoming boundaries, and salts.
            logrows: log2 of the circuit's rows.
            columns: The circuit's inner columns.
        """
        self.hints = Spread.of(hints, logrows=logrows, columns=columns)
        outer = Spread.of(self.hints.length + given, logrows=logrows, columns=1)
        self.length = outer.length
        self._looked_up, self._given = np.split(outer.places, [self.hints.length])

    def looked_up(self) -> Ints:
        """Positions of the hints and of the blinders among them."""
        return self._looked_up

    def given(self) -> Ints:
        """Positions of what was given."""
        return self._given

    def filled(
        self, hints: Sequence[int], at: Ints, given: Sequence[int], digits: int
    ) -> list[int]:
        """The input.

        Args:
            hints: The hints, blinders left out.
            at: Their positions among all hints.
            given: Values of incoming boundaries, and salts.
            digits: Blinders are drawn below this.
        """
        vector = [secrets.randbelow(digits) for _ in range(self.length)]
        places = self._looked_up[self.hints.places][at]
        for place, hint in zip(places.tolist(), hints, strict=True):
            vector[place] = hint
        for place, value in zip(self._given.tolist(), given, strict=True):
            vector[place] = value
        return vector
