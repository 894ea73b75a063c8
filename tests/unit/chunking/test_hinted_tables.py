"""Hinted forms of functions by table that saturate: Sigmoid, Tanh, Erf.

As in `test_hinted_functions`: the circuit's nodes, fed by the recipe, give the loops' integers;
those are near onnxruntime; and ezkl accepts the witness. And no argument is too large.
"""

from __future__ import annotations

import math
from pathlib import Path

import ezkl
import numpy as np
import pytest
from onnx import helper, numpy_helper

from tests.unit.chunking.builders import integers, weight
from tests.unit.chunking.hinted_cases import Case, dense, found_and_exact, inputs, node, number
from tests.unit.chunking.hinted_circuit import (
    NUMBERS,
    checked_whole,
    evaluated,
    hinted_chunk,
)
from tests.unit.chunking.test_hinted_functions import ALL_NUMBERS, accepted, compiled
from zkml_ray.chunking.hinted.forms import NotHintedError
from zkml_ray.chunking.hinted.numbers import Arithmetic
from zkml_ray.circuits import backend


def gates() -> Case:
    """The state of an LSTM behind one step, f c + i g, and what it shows of it."""
    return Case(
        nodes=[
            node("MatMul", "x", "w", to="m"),
            helper.make_node("Split", ["m", "sizes"], ["a", "b", "c", "d"], "parts", axis=1),
            node("Sigmoid", "a", to="f"),
            node("Sigmoid", "b", to="i"),
            node("Tanh", "c", to="g"),
            node("Sigmoid", "d", to="o"),
            node("Mul", "f", "x", to="kept"),
            node("Mul", "i", "g", to="new"),
            node("Add", "kept", "new", to="s"),
            node("Tanh", "s", to="t"),
            node("Mul", "o", "t"),
        ],
        x=[2, 3],
        y=[2, 3],
        constants=[dense(3, 12), integers("sizes", 3, 3, 3, 3)],
    )


CASES = {
    "tanh alone": Case(nodes=[node("Tanh", "x")], x=[3, 4], y=[3, 4]),
    "sigmoid alone": Case(nodes=[node("Sigmoid", "x")], x=[2, 3, 4], y=[2, 3, 4]),
    "tanh between layers": Case(
        nodes=[
            node("MatMul", "x", "w", to="m"),
            node("Tanh", "m", to="t"),
            node("MatMul", "t", "v"),
        ],
        x=[3, 6],
        y=[3, 2],
        constants=[dense(6, 5), dense(5, 2, to="v")],
    ),
    "swish": Case(
        nodes=[
            node("MatMul", "x", "w", to="m"),
            node("Sigmoid", "m", to="s"),
            node("Mul", "m", "s"),
        ],
        x=[3, 6],
        y=[3, 5],
        constants=[dense(6, 5)],
    ),
    "square of a tanh": Case(
        nodes=[node("Tanh", "x", to="t"), node("Mul", "t", "t")], x=[2, 3], y=[2, 3]
    ),
    "one less a sigmoid": Case(
        nodes=[node("Sigmoid", "x", to="s"), node("Sub", "one", "s")],
        x=[2, 3],
        y=[2, 3],
        constants=[number("one", 1.0)],
    ),
    "gates": gates(),
    "erf alone": Case(nodes=[node("Erf", "x")], x=[3, 4], y=[3, 4]),
    "erf times another tensor": Case(
        nodes=[
            node("MatMul", "x", "w", to="g"),
            node("MatMul", "x", "v", to="h"),
            node("Erf", "g", to="e"),
            node("Mul", "h", "e"),
        ],
        x=[3, 4],
        y=[3, 4],
        constants=[dense(4, 4), dense(4, 4, to="v")],
    ),
    "GELU of a chunk's input": Case(
        nodes=[
            node("Div", "x", "root", to="v"),
            node("Erf", "v", to="e"),
            node("Add", "e", "one", to="p"),
            node("Mul", "x", "p"),
        ],
        x=[3, 4],
        y=[3, 4],
        constants=[number("root", math.sqrt(2)), number("one", 1.0)],
    ),
    "erf times its argument's relu": Case(
        nodes=[
            node("MatMul", "x", "w", to="g"),
            node("Relu", "g", to="r"),
            node("Erf", "g", to="e"),
            node("Mul", "r", "e"),
        ],
        x=[3, 4],
        y=[3, 4],
        constants=[dense(4, 4)],
    ),
    "quotient by erf": Case(
        nodes=[
            node("MatMul", "x", "w", to="g"),
            node("Relu", "g", to="r"),
            node("Erf", "r", to="e"),
            node("Add", "e", "one", to="p"),
            node("Div", "g", "p"),
        ],
        x=[3, 4],
        y=[3, 4],
        constants=[dense(4, 4), number("one", 1.0)],
    ),
    "a number minus erf": Case(
        nodes=[node("Erf", "x", to="e"), node("Sub", "one", "e")],
        x=[3, 4],
        y=[3, 4],
        constants=[number("one", 1.0)],
    ),
    "erf plus a row": Case(
        nodes=[node("Erf", "x", to="e"), node("Add", "e", "k")],
        x=[3, 4],
        y=[3, 4],
        constants=[weight("k", 4)],
    ),
    "erf and its product": Case(
        nodes=[
            node("Erf", "x", to="e"),
            node("Mul", "e", "x", to="p"),
            node("Add", "p", "e"),
        ],
        x=[3, 4],
        y=[3, 4],
    ),
}


@pytest.mark.parametrize("kind", sorted(ALL_NUMBERS))
@pytest.mark.parametrize("name", sorted(CASES))
def test_circuit_fed_by_the_recipe_gives_the_loops_integers(name: str, kind: str) -> None:
    case, numbers = CASES[name], ALL_NUMBERS[kind]
    found, exact = found_and_exact(case, numbers)
    np.testing.assert_allclose(found, exact, rtol=0, atol=3 * 2.0**-numbers.scale)


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("name", ["sigmoid alone", "gates"])
def test_ezkl_accepts_the_honest_witness(name: str, columns: int, tmp_path: Path) -> None:
    chunk = hinted_chunk(CASES[name].proto(), columns=columns)
    assert accepted(chunk, chunk.quantised(inputs(CASES[name], NUMBERS)), tmp_path)


REAL = {
    "Tanh": np.tanh,
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Erf": np.vectorize(math.erf),
}


@pytest.mark.parametrize("operator", ["Tanh", "Sigmoid", "Erf"])
@pytest.mark.parametrize("logrows", [10, 13])
def test_every_value_of_the_range_has_the_tables_result(operator: str, logrows: int) -> None:
    """Ties, zero, the table's end and what lies beyond, to the ends of the range."""
    numbers = Arithmetic(scale=7, logrows=logrows, range_bits=6)
    values = np.arange(-(64 << 7), 64 << 7, dtype=np.int64)
    case = Case(nodes=[node(operator, "x")], x=[1, len(values)], y=[1, len(values)])
    found = checked_whole(hinted_chunk(case.proto(), numbers), {"x": values[None]})["y"][0]
    exact = REAL[operator](values / 128)
    # Half a step of the table; of a sigmoid another half, for its own rounding.
    assert np.abs(found - exact * 128).max() <= (1.0 if operator == "Sigmoid" else 0.5)
    assert (np.diff(found) >= 0).all()


@pytest.mark.parametrize("operator", ["Tanh", "Sigmoid", "Erf"])
def test_no_argument_is_too_large(operator: str) -> None:
    """Values at the end of the range, times weights that take their sums far beyond it."""
    weights = np.full((64, 64), 7.5, dtype=np.float32)
    weights[:, ::2] *= -1
    case = Case(
        nodes=[node("MatMul", "x", "w", to="m"), node(operator, "m")],
        x=[1, 64],
        y=[1, 64],
        constants=[numpy_helper.from_array(weights, "w")],
    )
    chunk = hinted_chunk(case.proto(), NUMBERS)
    found = checked_whole(chunk, {"x": np.full((1, 64), (32 << 7) - 1)})["y"][0]
    lowest = 0 if operator == "Sigmoid" else -128
    assert found.tolist() == [lowest, 128] * 32


def test_tables_are_ezkls_at_every_entry(tmp_path: Path) -> None:
    """All arguments that a table has, every second one negative, and what lies beyond."""
    case = Case(nodes=[node("Tanh", "x")], x=[4, 32], y=[4, 32])
    chunk = hinted_chunk(case.proto(), NUMBERS, salted=False)
    circuit, witness = compiled(chunk, tmp_path), tmp_path / "witness.json"
    for start in range(0, 1024, 128):
        values = np.arange(start, start + 128, dtype=np.int64)
        signed = np.where(values % 2, values, -values).reshape(4, 32)
        vector = chunk.advice({"x": signed})
        found = backend.generate_witness("chunk-000", [vector], circuit, witness)
        assert found.outputs == evaluated(chunk, vector), start
        assert ezkl.mock(str(witness), str(circuit))


def test_limit_is_reached_within_a_step_at_every_scale() -> None:
    """Where the table ends, tanh counts as 1: at 20 bits after the point it is."""
    assert round(math.tanh(7.99) * (1 << 20)) == 1 << 20


def test_too_few_rows_are_refused_with_their_number() -> None:
    numbers = Arithmetic(scale=7, logrows=9, range_bits=5)
    with pytest.raises(NotHintedError, match=r"its table needs 2\^10 rows at scale 7"):
        hinted_chunk(CASES["tanh alone"].proto(), numbers)
