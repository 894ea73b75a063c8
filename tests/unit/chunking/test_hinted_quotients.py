"""Hinted forms of quotients of two tensors and of square roots."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.unit.chunking.builders import integers
from tests.unit.chunking.hinted_cases import Case, dense, found_and_exact, inputs, node, number
from tests.unit.chunking.hinted_circuit import NUMBERS, checked, checked_whole, hinted_chunk
from tests.unit.chunking.test_hinted_functions import ALL_NUMBERS, accepted
from zkml_ray.chunking.hinted.numbers import Arithmetic
from zkml_ray.errors import RangeExceededError

CASES = {
    "quotient of layers": Case(
        nodes=[
            node("MatMul", "x", "w", to="m"),
            node("Relu", "x", to="a"),
            node("Add", "a", "half", to="d"),
            node("Div", "m", "d"),
        ],
        x=[3, 4],
        y=[3, 4],
        constants=[dense(4, 4), number("half", 0.5)],
    ),
    "reciprocal of negative numbers": Case(
        nodes=[
            node("Relu", "x", to="a"),
            node("Sub", "k", "a", to="d"),
            node("Reciprocal", "d"),
        ],
        x=[3, 4],
        y=[3, 4],
        constants=[number("k", -0.5)],
    ),
    "root of a sum": Case(
        nodes=[
            node("Relu", "x", to="r"),
            node("ReduceSum", "r", "axes", keepdims=1, to="n"),
            node("Sqrt", "n"),
        ],
        x=[3, 4],
        y=[3, 1],
        constants=[integers("axes", 1)],
    ),
    "length": Case(nodes=[node("ReduceL2", "x", axes=[1], keepdims=1)], x=[3, 4], y=[3, 1]),
    "row over its sum": Case(
        nodes=[
            node("Relu", "x", to="r"),
            node("ReduceSum", "r", "axes", keepdims=1, to="n"),
            node("Add", "n", "half", to="d"),
            node("Div", "x", "d"),
        ],
        x=[3, 4],
        y=[3, 4],
        constants=[integers("axes", 1), number("half", 0.5)],
    ),
    "root as a factor": Case(
        nodes=[
            node("MatMul", "x", "w", to="m"),
            node("Relu", "m", to="a"),
            node("Sqrt", "a", to="r"),
            node("Mul", "r", "x"),
        ],
        x=[3, 4],
        y=[3, 4],
        constants=[dense(4, 4)],
    ),
}


@pytest.mark.parametrize("kind", sorted(ALL_NUMBERS))
@pytest.mark.parametrize("name", sorted(CASES))
def test_circuit_fed_by_the_recipe_gives_the_loops_integers(name: str, kind: str) -> None:
    case, numbers = CASES[name], ALL_NUMBERS[kind]
    found, exact = found_and_exact(case, numbers)
    np.testing.assert_allclose(found, exact, rtol=0, atol=4 * 2.0**-numbers.scale)


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("name", ["row over its sum", "reciprocal of negative numbers"])
def test_ezkl_accepts_the_honest_witness(name: str, columns: int, tmp_path: Path) -> None:
    chunk = hinted_chunk(CASES[name].proto(), columns=columns)
    assert accepted(chunk, chunk.quantised(inputs(CASES[name], NUMBERS)), tmp_path)


def pairs(values: np.ndarray, divisors: np.ndarray, logrows: int) -> np.ndarray:
    numbers = Arithmetic(scale=7, logrows=logrows, range_bits=5)
    halves = [
        node("Gather", "x", "first", axis=0, to="a"),
        node("Gather", "x", "second", axis=0, to="b"),
        node("Div", "a", "b"),
    ]
    places = [integers("first", 0), integers("second", 1)]
    case = Case(nodes=halves, x=[2, len(values)], y=[1, len(values)], constants=places)
    given = np.stack([values, divisors]).astype(np.int64)
    return checked_whole(hinted_chunk(case.proto(), numbers), {"x": given})["y"][0]


@pytest.mark.parametrize("logrows", [9, 10, 13])
def test_quotients_are_the_nearest_of_both_signs_to_the_ends_of_the_range(logrows: int) -> None:
    """Ties, one, the least and the largest divisors; divisors of all signs."""
    draw = np.random.default_rng(logrows)
    divisors = np.concatenate([[1, -1, 2, -2, 3900, -3900], draw.integers(-3900, 3900, 200)])
    divisors[divisors == 0] = 3
    largest = np.minimum(np.abs(divisors) * 30, 3900)
    values = np.rint(draw.uniform(-1, 1, len(divisors)) * largest).astype(np.int64)
    found = pairs(values, divisors, logrows)
    assert np.abs(found - 128 * values / divisors).max() <= 0.5


@pytest.mark.parametrize("logrows", [9, 10, 13])
def test_roots_are_below_by_less_than_a_quarter_of_a_step(logrows: int) -> None:
    numbers = Arithmetic(scale=7, logrows=logrows, range_bits=5)
    values = np.concatenate([np.arange(300), np.arange(300, 3900, 41), [3900]])
    case = Case(nodes=[node("Sqrt", "x")], x=[1, len(values)], y=[1, len(values)])
    found = checked_whole(hinted_chunk(case.proto(), numbers), {"x": values[None]})["y"][0]
    assert np.abs(found - np.sqrt(values * 128.0)).max() <= 0.75


def test_length_of_small_numbers_is_as_exact_as_that_of_large_ones() -> None:
    """A sum of squares that was rounded before would be off by its root: a hundredth and more."""
    case = Case(nodes=[node("ReduceL2", "x", axes=[1], keepdims=1)], x=[64, 3], y=[64, 1])
    values = np.random.default_rng(0).integers(-9, 10, (64, 3))
    found = checked_whole(hinted_chunk(case.proto()), {"x": values})["y"][:, 0]
    assert np.abs(found - np.sqrt((values**2).sum(axis=1))).max() <= 0.75


def test_division_by_what_is_zero_at_the_scale_is_refused_and_a_larger_scale_helps() -> None:
    case = Case(nodes=[node("Reciprocal", "x")], x=[1, 2], y=[1, 2])
    arrays = {"x": np.array([[0.5, 0.003]], dtype=np.float32)}
    with pytest.raises(RangeExceededError, match=r"x has a zero at scale 7.*larger --scale"):
        checked(hinted_chunk(case.proto()), arrays)
    fine = Arithmetic(scale=10, logrows=13, range_bits=9)
    checked(hinted_chunk(case.proto(), fine), arrays)


def test_quotient_beyond_the_range_is_refused_by_name() -> None:
    case = Case(nodes=[node("Reciprocal", "x")], x=[1, 2], y=[1, 2])
    chunk = hinted_chunk(case.proto())
    with pytest.raises(RangeExceededError, match=r"y reached a value beyond \+-32.*--range-bits"):
        checked(chunk, {"x": np.array([[0.5, 1 / 64]], dtype=np.float32)})


def test_root_of_a_negative_number_is_refused_by_name() -> None:
    chunk = hinted_chunk(Case(nodes=[node("Sqrt", "x")], x=[1, 2], y=[1, 2]).proto())
    with pytest.raises(RangeExceededError, match="x has a negative number, which has no square"):
        checked(chunk, {"x": np.array([[0.5, -0.5]], dtype=np.float32)})
