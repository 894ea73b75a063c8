"""Blinders stand wherever a column is shown, however values and columns fall."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zkml_ray.chunking.hinted.blinding import BLINDERS, Advice, Spread
from zkml_ray.errors import ChunkingError

UNUSABLE_ROWS = 6
"""Rows that ezkl leaves out of an advice column: halo2's five of blinding, and one."""


@given(
    count=st.integers(1, 20_000),
    columns=st.integers(1, 7),
    start=st.integers(0, 20_000),
    logrows=st.sampled_from([9, 10, 11]),
)
@settings(deadline=None)
def test_every_column_that_holds_a_value_holds_blinders(
    count: int, columns: int, start: int, logrows: int
) -> None:
    spread = Spread.of(count, logrows=logrows, columns=columns)
    is_value = np.zeros(spread.length, dtype=bool)
    is_value[spread.places] = True
    cell = start + np.arange(spread.length)
    block, column = np.divmod(cell, ((1 << logrows) - UNUSABLE_ROWS) * columns)
    place = block * columns + column % columns
    values = np.bincount(place, weights=is_value)
    blinders = np.bincount(place, weights=~is_value)
    assert values.sum() == count
    assert (blinders[values > 0] >= BLINDERS).all()


@given(count=st.integers(0, 5_000), columns=st.integers(1, 7))
@settings(deadline=None)
def test_values_keep_their_order_and_blinders_are_the_rest(count: int, columns: int) -> None:
    spread = Spread.of(count, logrows=10, columns=columns)
    assert (np.diff(spread.places) > 0).all()
    both = np.sort(np.concatenate([spread.places, spread.others()]))
    assert np.array_equal(both, np.arange(spread.length))


def test_columns_too_short_for_blinders_are_refused() -> None:
    with pytest.raises(ChunkingError, match="too few"):
        Spread.of(5, logrows=7, columns=1)


@given(
    hints=st.integers(0, 3_000), blinders=st.integers(0, 2_000), given_count=st.integers(1, 3_000)
)
@settings(deadline=None)
def test_input_holds_hints_and_given_values_where_the_circuit_reads_them(
    hints: int, blinders: int, given_count: int
) -> None:
    advice = Advice(hints=hints + blinders, given=given_count, logrows=10, columns=3)
    at = np.arange(blinders, blinders + hints)
    first, second = list(range(hints)), list(range(10_000, 10_000 + given_count))
    vector = np.asarray(advice.filled(first, at, second, 100))
    assert len(vector) == advice.length
    assert vector[advice.looked_up()][advice.hints.places][at].tolist() == first
    assert vector[advice.given()].tolist() == second
    others = np.delete(vector, advice.given())
    assert (others < max(100, hints)).all()


def test_blinders_are_fresh() -> None:
    advice = Advice(hints=5, given=5, logrows=10, columns=1)
    one, other = (advice.filled([0] * 5, np.arange(5), [0] * 5, 1000) for _ in range(2))
    assert one != other
