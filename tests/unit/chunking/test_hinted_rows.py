"""Settings of hinted circuits have room for what is laid out, and little more.

With too few rows ezkl panics in setup ("index out of bounds"); with too many, columns are paid for
that stay empty. `ezkl.gen_settings` cannot be asked
(`zkml_ray.circuits.hinted_settings`): the circuits are laid out, in many blocks of few
rows, so that a lack would show.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper

from tests.unit.chunking.hinted_cases import (
    CASES,
    Case,
    conv,
    dense,
    inputs,
    node,
    pool,
    taps,
    weight,
)
from tests.unit.chunking.hinted_circuit import HintedChunk, hinted_chunk, saved
from tests.unit.chunking.test_hinted_functions import CASES as FUNCTIONS
from zkml_ray.chunking.hinted.blinding import Spread
from zkml_ray.chunking.hinted.circuit import Circuit
from zkml_ray.chunking.hinted.numbers import Arithmetic
from zkml_ray.chunking.hinted.sizes import End, sized_circuits
from zkml_ray.circuits import backend
from zkml_ray.circuits.challenge import input_lengths
from zkml_ray.circuits.hinted_settings import SPARE_ROWS

COLUMNS = (1, 3, 6)
SHORT = Arithmetic(scale=6, logrows=9, range_bits=5)
ONE_DIGIT = Arithmetic(scale=5, logrows=9, range_bits=3)

WIDE = {
    "perceptron": Case(
        nodes=[
            node("Gemm", "x", "w", "b", to="g"),
            node("Relu", "g", to="r"),
            node("Gemm", "r", "v", "c"),
        ],
        x=[1, 24],
        y=[1, 12],
        constants=[dense(24, 80), weight("b", 80), dense(80, 12, to="v"), weight("c", 12)],
    ),
    "image net": Case(
        nodes=[
            conv(6, 3, 3, to="c", pads=[1, 1, 1, 1]),
            node("Relu", "c", to="r"),
            pool("MaxPool", "r", 2, 2, to="m"),
            node("Flatten", "m", to="f"),
            node("Gemm", "f", "v", "k"),
        ],
        x=[1, 1, 8, 8],
        y=[1, 10],
        constants=[*taps(6, 1, 3, 3, to="c"), dense(96, 10, to="v"), weight("k", 10)],
    ),
    "separable": Case(
        nodes=[
            conv(6, 3, 3, to="c", group=3, pads=[1, 1, 1, 1]),
            node("Relu", "c", to="r"),
            conv(4, 1, 1, to="d", x="r"),
            pool("AveragePool", "d", 3, 3),
        ],
        x=[1, 3, 6, 6],
        y=[1, 4, 2, 2],
        constants=[*taps(6, 1, 3, 3, to="c"), *taps(4, 6, 1, 1, to="d")],
    ),
    "residual": Case(
        nodes=[
            node("MatMul", "x", "w", to="a"),
            node("Sub", "a", "x", to="s"),
            node("Relu", "s", to="r"),
            node("Add", "r", "x"),
        ],
        x=[4, 20],
        y=[4, 20],
        constants=[dense(20, 20)],
    ),
    "one number in, one out": Case(
        nodes=[
            node("MatMul", "x", "w", to="a"),
            node("Relu", "a", to="r"),
            node("MatMul", "r", "v"),
        ],
        x=[1, 1],
        y=[1, 1],
        constants=[dense(1, 40), dense(40, 1, to="v")],
    ),
    "tied weights": Case(
        nodes=[
            node("MatMul", "x", "w", to="a"),
            node("Relu", "a", to="r"),
            node("MatMul", "r", "w"),
        ],
        x=[1, 48],
        y=[1, 48],
        constants=[dense(48, 48)],
    ),
    "block with a shortcut": CASES["block with a shortcut"],
    "mobile": Case(
        nodes=[
            conv(4, 3, 3, to="c", strides=[2, 2], pads=[1, 1, 1, 1]),
            node("Clip", "c", "low", "high", to="k"),
            pool("MaxPool", "k", 3, 3, strides=[1, 1], to="m"),
            node("LeakyRelu", "m", alpha=0.1, to="l"),
            node("Abs", "l", to="a"),
            node("Mul", "a", "m", to="p"),
            node("ReduceMean", "p", axes=[2, 3]),
        ],
        x=[2, 1, 8, 8],
        y=[2, 4, 1, 1],
        constants=[
            *taps(4, 1, 3, 3, to="c"),
            numpy_helper.from_array(np.float32(0), "low"),
            numpy_helper.from_array(np.float32(1), "high"),
        ],
    ),
    "attention": FUNCTIONS["attention"],
    "GELU": FUNCTIONS["GELU, Div, x (1 + erf) half"],
    "layer norm": FUNCTIONS["layer norm between layers"],
}
DEEP = Case(
    nodes=[node("MatMul", *("xabcde"[i], "w"), to="abcdey"[i]) for i in range(6)],
    x=[3, 20],
    y=[3, 20],
    constants=[dense(20, 20)],
)
CHALLENGED = ("perceptron", "image net", "residual", "deep")
LONGER = Arithmetic(scale=7, logrows=10, range_bits=5)
"""The leaf of challenges is hashed as well."""
WIDE["deep"] = DEEP
LAID_OUT = [
    *itertools.product(WIDE, (SHORT, ONE_DIGIT), COLUMNS, (False,)),
    *itertools.product(CHALLENGED, (LONGER,), (1, 6), (True,)),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Laid:
    """A circuit as planned and as laid out."""

    chunk: HintedChunk
    planned_cells: int
    cells: int
    looked_up: int
    held: bool


@pytest.fixture(scope="module")
def laid(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Laid]:
    """Every circuit with every number of columns."""
    made: dict[str, tuple[HintedChunk, int]] = {}
    asked = []
    for name, numbers, columns, challenge in LAID_OUT:
        # Hashing salts would need more rows, in columns of its own.
        chunk = hinted_chunk(
            WIDE[name].proto(), numbers, salted=False, columns=columns, challenge=challenge
        )
        vector = chunk.advice(chunk.quantised(inputs(WIDE[name], numbers)))
        folder = tmp_path_factory.mktemp("laid")
        path, settings = saved(chunk, folder), folder / "settings.json"
        compiled, witness = folder / "circuit.ezkl", folder / "witness.json"
        settings.write_bytes(backend.derive_settings(path, chunk.arguments()).data)
        backend.compile_circuit(path, settings, compiled)
        # With zeros for challenges every identity holds.
        lengths = input_lengths(settings.read_bytes())
        zeros = [[0] * length for length in lengths[1:]]
        backend.generate_witness("chunk-000", [vector, *zeros], compiled, witness)
        planned = json.loads(settings.read_text())["total_assignments"]
        kind = "challenge" if challenge else f"{numbers.digits} digits"
        made[f"{name}, {kind}, {columns} columns"] = (chunk, planned)
        asked.append([str(path), str(settings), str(witness)])
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("hinted_rows_child.py"))],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    answers = json.loads(done.stdout)
    return {
        key: Laid(chunk=chunk, planned_cells=planned, cells=cells, looked_up=looked_up, held=held)
        for (key, (chunk, planned)), (cells, looked_up, held) in zip(
            made.items(), answers, strict=True
        )
    }


def sized(chunk: HintedChunk) -> Circuit:
    """A chunk's circuit as a search for cuts has it."""
    end = End(nodes=list(chunk.graph.nodes), incoming=chunk.incoming, outgoing=chunk.outgoing)
    (found,) = sized_circuits(chunk.graph, [end], chunk.numbers, challenge=chunk.challenge)
    assert isinstance(found, Circuit)
    return found


def test_planned_rows_hold_every_circuit(laid: dict[str, Laid]) -> None:
    assert len(laid) == len(LAID_OUT)
    assert [name for name, found in laid.items() if not found.held] == []
    assert [name for name, found in laid.items() if found.planned_cells < found.cells] == []


def test_planned_rows_are_few_more_than_are_laid_out(laid: dict[str, Laid]) -> None:
    for name, found in laid.items():
        spare = (SPARE_ROWS + 1) * found.chunk.columns
        assert found.planned_cells <= 1.08 * found.cells + spare, name


def test_circuits_fill_several_blocks_so_that_a_lack_would_show(laid: dict[str, Laid]) -> None:
    room = (1 << SHORT.logrows) - backend.BLINDING_ROWS
    blocks = [found.cells / (room * found.chunk.columns) for found in laid.values()]
    assert sum(count > 4 for count in blocks) >= 6


def test_counted_cells_that_cuts_are_chosen_by_are_near_those_laid_out(
    laid: dict[str, Laid],
) -> None:
    for name, found in laid.items():
        chunk = found.chunk
        counted = sized(chunk).cells_at(chunk.columns)
        assert abs(counted - found.cells) <= 0.05 * found.cells + 3 * chunk.columns, name


def test_every_hint_and_every_derived_digit_is_looked_up(laid: dict[str, Laid]) -> None:
    """tract may drop, move or shorten what it thinks needless: a digit would be any number."""
    for name, found in laid.items():
        chunk = found.chunk
        # What is derived does not depend on the columns; blinders among it, hints too, do.
        circuit = sized(chunk)
        spread = {"logrows": chunk.numbers.logrows, "columns": chunk.columns}
        mixed = [Spread.of(count, **spread).length for count in circuit.mixed]
        before = sum(len(run) for run in circuit.blinders)
        hints = circuit.hint_count - before + sum(mixed) - sum(circuit.mixed)
        expected = Spread.of(hints, **spread).length + sum(mixed)
        # Where a block of columns ends, a cell may be assigned twice.
        blocks = found.cells // ((1 << chunk.numbers.logrows) * chunk.columns) + 1
        assert expected <= found.looked_up <= expected + blocks * chunk.columns, name
