"""Hinted forms of decisions: onnxruntime is the judge, and nothing is rounded.

Comparisons, choices, places, casts, roundings, as `test_decisions` has them: many ties.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.emitted.analyser import analyse
from tests.unit.chunking import test_decisions as decisions
from tests.unit.chunking.builders import integers
from tests.unit.chunking.hinted_cases import Case, dense, inputs, node, number
from tests.unit.chunking.hinted_circuit import (
    HintedChunk,
    checked,
    checked_whole,
    evaluated,
    hinted_chunk,
)
from tests.unit.chunking.test_hinted_functions import ALL_NUMBERS, accepted
from zkml_ray.chunking.hinted.numbers import Arithmetic
from zkml_ray.chunking.hinted.operators import OPERATORS
from zkml_ray.chunking.hinted.refusal import NotHintedError
from zkml_ray.chunking.normalize import normalise
from zkml_ray.errors import RangeExceededError

NUMBERS = Arithmetic(scale=7, logrows=10, range_bits=5)


def model(case: decisions.Case) -> onnx.ModelProto:
    _, nodes, given, used, opset = case
    return decisions._read_on(decisions.built(nodes, given, used, opset))


def in_whole_numbers(chunk: HintedChunk, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    whole = chunk.quantised({t.info.name: feeds[t.info.name] for t in chunk.incoming})
    return chunk.outputs(evaluated(chunk, chunk.advice(whole)))


CASES = {
    "comparison": Case(
        nodes=[node("Sub", "x", "k", to="d"), node("Sign", "d", to="s"), node("Relu", "s")],
        x=[3, 4],
        y=[3, 4],
        constants=[number("k", 0.5)],
    ),
    "choice between layers": Case(
        nodes=[
            node("MatMul", "x", "w", to="m"),
            node("Sub", "m", "x", to="d"),
            node("Sign", "d", to="s"),
            node("Relu", "s", to="c"),
            node("Sub", "one", "c", to="n"),
            node("Mul", "c", "x", to="p"),
            node("Mul", "n", "m", to="q"),
            node("Add", "p", "q", to="a"),
            node("MatMul", "a", "w"),
        ],
        x=[3, 4],
        y=[3, 4],
        constants=[number("one", 1), dense(4, 4)],
    ),
    "signs of a layer": Case(
        nodes=[
            node("MatMul", "x", "w", to="m"),
            node("Sign", "m", to="s"),
            node("MatMul", "s", "w"),
        ],
        x=[3, 4],
        y=[3, 4],
        constants=[dense(4, 4)],
    ),
    "floor of a layer": Case(
        nodes=[
            node("MatMul", "x", "w", to="m"),
            node("Floor", "m", to="f"),
            node("Sub", "m", "f"),
        ],
        x=[3, 4],
        y=[3, 4],
        constants=[dense(4, 4)],
    ),
    "equal ones counted": Case(
        nodes=[
            node("Sub", "x", "k", to="d"),
            node("Sign", "d", to="s"),
            node("Abs", "s", to="a"),
            node("Sub", "one", "a", to="e"),
            node("ReduceSum", "e", "axes", keepdims=0),
        ],
        x=[3, 4],
        y=[3],
        constants=[number("k", 0.5), number("one", 1), integers("axes", 1)],
    ),
}
"""Those that bounds are checked of."""


@pytest.mark.parametrize("kind", sorted(ALL_NUMBERS))
@pytest.mark.parametrize("name", sorted(CASES))
def test_circuit_fed_by_the_recipe_gives_the_loops_integers(name: str, kind: str) -> None:
    chunk = hinted_chunk(CASES[name].proto(), ALL_NUMBERS[kind])
    arrays = inputs(CASES[name], chunk.numbers)
    checked(chunk, {"x": np.rint(arrays["x"] * 4).astype(np.float32) / 4})
    checked(chunk, arrays)


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("name", ["choice between layers", "floor of a layer"])
def test_ezkl_accepts_the_honest_witness(name: str, columns: int, tmp_path: Path) -> None:
    chunk = hinted_chunk(CASES[name].proto(), columns=columns)
    assert accepted(chunk, chunk.quantised(inputs(CASES[name], NUMBERS)), tmp_path)


def test_floor_beyond_the_range_ends_the_run() -> None:
    chunk = hinted_chunk(Case(nodes=[node("Floor", "x")], x=[1, 2], y=[1, 2]).proto())
    with pytest.raises(RangeExceededError, match=r"x reached a value beyond \+-32.*--range-bits"):
        checked_whole(chunk, {"x": np.array([[0, 33 << 7]])})


SLOW = ("TopK", "among 1000", "among 100")


def cases() -> Iterator[object]:
    for index, case in enumerate(decisions.CASES):
        # Every few of them are enough to see that they agree.
        slow = index % 6 > 0 or any(part in case[0] for part in SLOW)
        yield pytest.param(case, id=case[0], marks=pytest.mark.slow if slow else ())


@pytest.mark.parametrize("case", list(cases()))
def test_decisions_in_a_hinted_circuit_are_onnxruntimes(case: decisions.Case) -> None:
    given = case[2]
    proto = model(case)
    operators = {node.op_type for node in normalise(proto, {}).graph.node}
    if not operators <= OPERATORS.keys():
        assert operators - OPERATORS.keys() <= {"Einsum"}
        return
    try:
        chunk = hinted_chunk(proto, NUMBERS)
        in_whole_numbers(chunk, decisions.feeds_of(given, 0))
    except NotHintedError as error:
        assert "its constant" in error.message
        return
    except RangeExceededError:
        # What places are computed with is larger than the values are.
        chunk = hinted_chunk(proto, replace(NUMBERS, range_bits=7))
    found = analyse(onnx.ModelProto.FromString(chunk.data), logrows=10, scale=7)
    assert not found.findings
    theirs = decisions.session(proto)
    for seed in range(3):
        feeds = decisions.feeds_of(given, seed)
        typed = {
            name: values.astype(helper.tensor_dtype_to_np_dtype(given[name][0]))
            for name, values in feeds.items()
        }
        got = in_whole_numbers(chunk, feeds)
        names = [value.name for value in proto.graph.output]
        for name, expected in zip(names, theirs.run(None, typed), strict=True):
            exact = expected.astype(np.float64) * 128
            np.testing.assert_allclose(got[name], exact, rtol=0, atol=0.55)


def test_whole_constant_beyond_the_range_is_refused_with_the_bits_that_hold_it() -> None:
    (case,) = [each for each in decisions.CASES if each[0] == "Gather among 64"]
    with pytest.raises(NotHintedError, match=r"its constant 64 lies .*: --range-bits 6 holds it"):
        hinted_chunk(model(case), NUMBERS)
    hinted_chunk(model(case), replace(NUMBERS, range_bits=6))
