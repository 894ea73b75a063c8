"""Hinted forms of Exp and Log, and of what is written with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.unit.chunking.builders import run as run_float
from tests.unit.chunking.hinted_cases import Case, dense, inputs, node, number
from tests.unit.chunking.hinted_circuit import checked, checked_whole, hinted_chunk
from tests.unit.chunking.test_hinted_functions import accepted
from zkml_ray.chunking.hinted.numbers import Arithmetic
from zkml_ray.chunking.hinted.refusal import NotHintedError
from zkml_ray.errors import RangeExceededError

SHORT = Arithmetic(scale=7, logrows=10, range_bits=5)
DEEP = Arithmetic(scale=7, logrows=11, range_bits=5)
FINE = Arithmetic(scale=9, logrows=13, range_bits=4)

BELOW_ZERO = {
    "softplus": Case(nodes=[node("Softplus", "x")], x=[3, 4], y=[3, 4]),
    "elu": Case(nodes=[node("Elu", "x", alpha=1.5)], x=[3, 4], y=[3, 4]),
    "selu between layers": Case(
        nodes=[
            node("MatMul", "x", "w", to="m"),
            node("Selu", "m", to="s"),
            node("MatMul", "s", "w"),
        ],
        x=[3, 4],
        y=[3, 4],
        constants=[dense(4, 4)],
    ),
}
"""Their arguments are bounded: tables that reach 8 do."""

CASES = {
    "exponential": Case(
        nodes=[
            node("Min", "x", "three", to="m"),
            node("Exp", "m"),
        ],
        x=[3, 4],
        y=[3, 4],
        constants=[number("three", 3)],
    ),
    "logarithm": Case(
        nodes=[
            node("Relu", "x", to="r"),
            node("Add", "r", "half", to="a"),
            node("Log", "a"),
        ],
        x=[3, 4],
        y=[3, 4],
        constants=[number("half", 0.5)],
    ),
    "power of a constant": Case(
        nodes=[node("Min", "x", "three", to="m"), node("Pow", "two", "m")],
        x=[3, 4],
        y=[3, 4],
        constants=[number("three", 3), number("two", 1.7)],
    ),
    "log softmax": Case(nodes=[node("LogSoftmax", "x")], x=[3, 4], y=[3, 4]),
    "logarithm of a sum of exponentials": Case(
        nodes=[node("ReduceLogSumExp", "x", axes=[1], keepdims=1)], x=[3, 4], y=[3, 1]
    ),
}


def instances() -> list[tuple[str, str]]:
    names = [(name, kind) for name in CASES for kind in ("deep", "fine")]
    return names + [(name, kind) for name in BELOW_ZERO for kind in ("short", "deep", "fine")]


ALL = {**CASES, **BELOW_ZERO}
NUMBERS = {"short": SHORT, "deep": DEEP, "fine": FINE}


@pytest.mark.parametrize(("name", "kind"), instances())
def test_circuit_fed_by_the_recipe_gives_the_loops_integers(name: str, kind: str) -> None:
    case, numbers = ALL[name], NUMBERS[kind]
    arrays = inputs(case, numbers)
    found = checked(hinted_chunk(case.proto(), numbers), arrays)["y"] / 2**numbers.scale
    exact = run_float(case.proto(), arrays)["y"]
    # An exponential's argument is off by half a step.
    allowed = (3 + np.abs(exact)) * 2.0**-numbers.scale
    assert (np.abs(found - exact) <= allowed).all()


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize(("name", "kind"), [("softplus", "short"), ("logarithm", "deep")])
def test_ezkl_accepts_the_honest_witness(
    name: str, kind: str, columns: int, tmp_path: Path
) -> None:
    chunk = hinted_chunk(ALL[name].proto(), NUMBERS[kind], columns=columns)
    assert accepted(chunk, chunk.quantised(inputs(ALL[name], NUMBERS[kind])), tmp_path)


def every_value(operator: str, values: np.ndarray, numbers: Arithmetic) -> np.ndarray:
    case = Case(nodes=[node(operator, "x")], x=[1, len(values)], y=[1, len(values)])
    return checked_whole(hinted_chunk(case.proto(), numbers), {"x": values[None]})["y"][0]


def test_exponential_of_every_value_is_near_to_the_ends_of_the_range() -> None:
    values = np.arange(-(32 << 7), int(np.log(31.9) * 128), dtype=np.int64)
    found = every_value("Exp", values, DEEP)
    assert np.abs(found - 128 * np.exp(values / 128)).max() <= 1


def test_logarithm_of_every_value_is_near_to_the_ends_of_the_range() -> None:
    values = np.arange(1, 3900, dtype=np.int64)
    found = every_value("Log", values, DEEP)
    assert np.abs(found - 128 * np.log(values / 128)).max() <= 0.75


def test_softplus_of_every_value_is_near_to_the_ends_of_the_range() -> None:
    values = np.arange(-3900, 3900, 3, dtype=np.int64)
    found = every_value("Softplus", values, SHORT)
    assert np.abs(found - 128 * np.log1p(np.exp(values / 128))).max() <= 1.1


@pytest.mark.parametrize(("operator", "value"), [("Log", 0), ("Log", -5)])
def test_logarithm_of_no_positive_number_is_refused_by_name(operator: str, value: int) -> None:
    with pytest.raises(RangeExceededError, match="x has a number of zero or below at scale 7"):
        every_value(operator, np.array([100, value]), DEEP)


def test_exponential_beyond_the_range_is_refused_by_name() -> None:
    with pytest.raises(RangeExceededError, match=r"y reached a value beyond \+-32.*--range-bits"):
        every_value("Exp", np.array([0, 4 << 7]), DEEP)


@pytest.mark.parametrize("logrows", [10, 12])
def test_tables_of_other_rows_are_refused_with_their_number(logrows: int) -> None:
    numbers = Arithmetic(scale=7, logrows=logrows, range_bits=5)
    with pytest.raises(NotHintedError, match=r"needs 2\^11 rows or more .* 2\^11 or fewer"):
        hinted_chunk(CASES["exponential"].proto(), numbers)
