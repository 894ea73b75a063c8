"""Every forgery of a softmax that the circuit's equations leave, searched for without ezkl.

The emitted nodes are computed over whole numbers, with a table that ends where ezkl's does, from
hints that a prover may choose: where a row stands in the exponential's table, its reciprocal sum,
which of the quotients that pass each score and the result are rounded to. All else follows from
these. What is asked is how far the share of k tied scores among n moves, as a product of the shares
with a tensor that is one at those and zero at the others: in quanta, and before it is rounded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from tests.soundness.hinted_forger import Change, Forger, at, moved_down, nothing, shares
from tests.unit.chunking.builders import model as build
from tests.unit.chunking.hinted_cases import node
from tests.unit.chunking.hinted_circuit import (
    HintedChunk,
    OutsideTableError,
    evaluated,
    hinted_chunk,
)
from zkml_ray.chunking.hinted.numbers import Arithmetic
from zkml_ray.chunking.hinted.recipe import _entry, filled, whole

Ints = NDArray[np.int64]

SCALE = 7
RANGE_BITS = 5

PUBLISHED = Fraction(5, 8)
"""docs/security.md: how far any scores' share of their row moves, in quanta, before it is rounded:
1/4 by the scores' roundings, 3/8 by the reciprocal's (the honest one is the nearest)."""

SECOND_ORDER = Fraction(1, 100)
"""A quantum is 2^-7 here: exp of it is not quite 1 + 2^-7."""

PUBLISHED_ROUNDED = 2
"""The same, rounded to whole quanta by whom it suits."""

COUNTS = [(k, n) for n in (16, 197, 1024) for k in (1, 4, 10, 31) if k < n]
SOONER = [
    pytest.param(k, n, marks=[pytest.mark.slow] if n == 1024 and k < 31 else []) for k, n in COUNTS
]


@dataclass
class Freedom:
    """A prover's choices.

    Attributes:
        move: Rows stand so much lower in the table.
        step: The reciprocal is so much more than the nearest.
        lowered: Scores that are rounded to the quotient below.
        result_lowered: Whether the result is.
    """

    move: int = 0
    step: int = 0
    lowered: Sequence[int] = field(default=())
    result_lowered: bool = False


class Prover(Forger):
    """A forger who rounds as he likes, and knows what his shares are."""

    freedom = Freedom()
    settled = 0

    def _quotient(self, total: Ints, divisor: int, step: Mapping[str, Any]) -> Ints:
        below = np.zeros(total.size, dtype=np.int64)
        if self.settled == 0:
            below[list(self.freedom.lowered)] = 1
        elif self.freedom.result_lowered:
            below[0] = 1
        self.settled += 1
        return super()._quotient(total, divisor, step) - below.reshape(total.shape)


class Row:
    """One row of n scores, k of them tied at the top: scores = q K, result = softmax(scores) v.

    Every score's sum has a remainder for which the quotient below passes as well.
    """

    def __init__(self, k: int, n: int, gap: float, scale: int = SCALE) -> None:
        self.k, self.n, self.scale = k, n, scale
        self.numbers = Arithmetic(
            scale=scale, logrows=scale + (3 if n <= 64 else 4), range_bits=RANGE_BITS
        )
        nodes = [
            node("MatMul", "q", "K", to="s"),
            node("Softmax", "s", to="p", axis=-1),
            node("MatMul", "p", "v"),
        ]
        proto = build(nodes, {"q": [1, 2], "K": [2, n], "v": [n, 1]}, {"y": [1, 1]})
        self.chunk: HintedChunk = hinted_chunk(proto, self.numbers, salted=False)
        one = 1 << scale
        scores = np.full(n, round((5 - gap) * one))
        scores[:k] = 5 * one
        # Sums are scores 2^scale - 0.47 2^scale: barely rounded up, by less than a table's end.
        self.whole = {
            "q": np.array([[one, 1]]),
            "K": np.stack([scores, np.full(n, -round(0.47 * one))]),
            "v": (np.arange(n) < k)[:, None] * one,
        }
        self._model = onnx.ModelProto.FromString(self.chunk.data)
        self._steps = json.loads(_entry(self._model))["steps"]
        self._constants = {t.name: t for t in self._model.graph.initializer}
        self._arrays: dict[str, Ints] = {}

    def _array(self, name: str) -> Ints:
        if name not in self._arrays:
            self._arrays[name] = whole(numpy_helper.to_array(self._constants[name]))
        return self._arrays[name]

    def tried(self, freedom: Freedom) -> tuple[Fraction, int] | None:
        """The tops' share in quanta, exactly and as it is given; None if a check fails."""
        prover = Prover(self.numbers, self._array, "chunk-000")
        prover.freedom = freedom
        exact: list[Fraction] = []
        changes: list[Change] = [
            moved_down(freedom.move) if freedom.move else nothing,
            shares(lambda share: share + freedom.step),
        ]

        def measure(forger: Forger, step: Mapping[str, Any]) -> None:
            weights = forger._wires[step["weights"]][: self.k]
            reciprocal = int(forger._wires[step["reciprocal"]][0])
            quanta = int(weights.sum()) * reciprocal << self.scale
            exact.append(Fraction(quanta, step["target"]))

        changes.append(at("share", 0, measure))
        for step in self._steps:
            prover.take(step, self.whole)
            for change in changes:
                change(prover, step)
        given = [int(v) for t in self.chunk.incoming for v in self.whole[t.info.name].ravel()]
        vector = filled(self._model, np.concatenate(prover.hints), given)
        try:
            leaves = evaluated(self.chunk, vector, end=(1 << self.numbers.logrows) - 8)
        except OutsideTableError:
            return None
        return exact[0], int(self.chunk.outputs(leaves)["y"][0, 0])

    def moves(self) -> Iterator[int]:
        """Where else a row might stand: near, as far as its sum allowed once, anywhere."""
        one = 1 << self.scale
        yield from range(-24, 0)
        yield from range(1, 25)
        for total in (self.k, self.n, self.n / self.k, math.e):
            yield from {round(math.log(total) * one) + extra for extra in (-1, 0, 1)} - {-1, 0}
        yield from (1 << bits for bits in range(5, self.numbers.logrows))

    def roundings(self) -> Iterator[Freedom]:
        """The scores' roundings that move the tops' share most, with all reciprocals about."""
        tops, others = range(self.k), range(self.k, self.n)
        for lowered in ((), tops, others, range(self.n)):
            for step in (-3, -2, -1, 0, 1, 2, 3):
                for result_lowered in (False, True):
                    yield Freedom(step=step, lowered=lowered, result_lowered=result_lowered)


def gaps(k: int, n: int) -> tuple[float, float]:
    """The others far below; and so that they have half of the row together."""
    return 20.0, max(0.1, math.log((n - k) / k))


@pytest.mark.parametrize(("k", "n"), SOONER)
def test_no_accepted_forgery_moves_the_share_of_tied_scores_beyond_what_is_published(
    k: int, n: int
) -> None:
    # Reciprocals have two or three roundings, and scores within the table two.
    for gap, choices in zip(gaps(k, n), (2, 6), strict=True):
        row = Row(k, n, gap)
        honest = row.tried(Freedom())
        assert honest is not None
        passed = [found for freedom in row.roundings() if (found := row.tried(freedom))]
        assert len({share for share, _ in passed}) >= choices
        assert max(abs(share - honest[0]) for share, _ in passed) <= PUBLISHED + SECOND_ORDER
        assert max(abs(given - honest[1]) for _, given in passed) < PUBLISHED_ROUNDED


@pytest.mark.parametrize(("k", "n"), [(4, 16), (10, 197)])
def test_row_stands_nowhere_else_in_the_table(k: int, n: int) -> None:
    row = Row(k, n, 20.0)
    assert row.tried(Freedom()) is not None
    assert [move for move in row.moves() if row.tried(Freedom(move=move)) is not None] == []


@pytest.mark.slow
@pytest.mark.parametrize(("k", "n"), COUNTS)
def test_row_of_any_counts_stands_nowhere_else_in_the_table(k: int, n: int) -> None:
    """With every reciprocal that might suit it as well, for rows that are not too long for that."""
    for gap in gaps(k, n):
        row = Row(k, n, gap)
        for move in row.moves():
            for step in (-1, 0, 1) if n < 1024 else (0,):
                assert row.tried(Freedom(move=move, step=step)) is None, (gap, move, step)


@pytest.mark.slow
def test_row_of_sixteen_stands_nowhere_else_in_the_whole_table() -> None:
    row = Row(4, 16, 20.0)
    table = 1 << row.numbers.logrows
    assert all(row.tried(Freedom(move=move)) is None for move in range(-40, table) if move)
