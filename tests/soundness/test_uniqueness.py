"""What any hints can make of an operator is its declared relation, and nothing else.

Small circuits, over tables of 2^7 rows: what their equations leave open is searched completely
(`tests/emitted/unknowns.py`), and compared with what each operator may give
(`tests/emitted/relations.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from tests.emitted.analyser import analyse
from tests.emitted.faults import planted
from tests.emitted.relations import outputs_declared
from tests.emitted.unknowns import TABLE_END, outputs_allowed
from tests.unit.chunking import hinted_circuit
from tests.unit.chunking.builders import integers
from tests.unit.chunking.hinted_cases import Case, conv, node, number, pool
from tests.unit.chunking.hinted_circuit import HintedChunk, hinted_chunk
from zkml_ray.chunking.hinted import blinding, layer_norm, settle, softmax
from zkml_ray.chunking.hinted.numbers import Arithmetic
from zkml_ray.chunking.hinted.operators import OPERATORS, pointwise

Whole = NDArray[np.int64]

ONE_DIGIT = Arithmetic(scale=4, logrows=7, range_bits=2)
TWO_DIGITS = Arithmetic(scale=4, logrows=7, range_bits=3)

NUMBERS = {"one digit": ONE_DIGIT, "two digits": TWO_DIGITS}


SECURITY = Path(__file__).parents[2] / "docs" / "security.md"


@pytest.fixture(autouse=True)
def few_blinders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blinders stand in no equation, and 2^7 rows have no room for 64 of them a column."""
    monkeypatch.setattr(blinding, "BLINDERS", 2)


def array(name: str, values: object) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, dtype=np.float32), name)


def case(
    *nodes: onnx.NodeProto,
    x: list[int],
    y: list[int],
    constants: list[onnx.TensorProto] | None = None,
) -> Case:
    return Case(nodes=nodes, x=x, y=y, constants=constants or [])


def halves(operator: str) -> tuple[onnx.NodeProto, onnx.NodeProto]:
    """An operator of the two elements of x."""
    parts = helper.make_node("Split", ["x", "sizes"], ["a", "b"], "n_split", axis=1)
    return parts, node(operator, "a", "b")


def mask(*values: bool) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, dtype=bool), "mask")


ENTRIES: dict[str, list[Case]] = {
    "Abs": [
        case(node("Abs", "x"), x=[1, 2], y=[1, 2]),
        case(
            node("MatMul", "x", "w", to="m"),
            node("Abs", "m"),
            x=[1, 2],
            y=[1, 2],
            constants=[array("w", [[0.3, 1], [0.4, -1]])],
        ),
    ],
    "Add": [
        case(node("Add", "x", "k"), x=[1, 3], y=[1, 3], constants=[array("k", [0.3, -1, 2])]),
        case(node("Relu", "x", to="r"), node("Add", "x", "r"), x=[1, 2], y=[1, 2]),
    ],
    "AveragePool": [
        case(pool("AveragePool", "x", 2, 2), x=[1, 1, 2, 2], y=[1, 1, 1, 1]),
        case(pool("AveragePool", "x", 1, 3), x=[1, 1, 1, 3], y=[1, 1, 1, 1]),
    ],
    "Clip": [
        # Bounds that inputs stand on, and beside.
        case(
            node("Clip", "x", "low", "high"),
            x=[1, 2],
            y=[1, 2],
            constants=[number("low", -1 / 16), number("high", 1)],
        ),
        case(node("Clip", "x", "low"), x=[1, 2], y=[1, 2], constants=[number("low", 0.3)]),
        case(node("Clip", "x", "", "high"), x=[1, 2], y=[1, 2], constants=[number("high", -0.3)]),
        case(
            node("MatMul", "x", "w", to="m"),
            node("Clip", "m", "low", "high"),
            x=[1, 2],
            y=[1, 1],
            constants=[array("w", [[0.3], [0.4]]), number("low", -0.3), number("high", 0.7)],
        ),
    ],
    "Concat": [
        case(node("Relu", "x", to="r"), node("Concat", "x", "r", axis=1), x=[1, 2], y=[1, 4])
    ],
    "Conv": [
        case(
            conv(2, 2, 2),
            x=[1, 1, 2, 2],
            y=[1, 2, 1, 1],
            constants=[
                array("wy", [[[[0.3, -0.7], [0.5, 0.1]]], [[[1, 1], [0, -1]]]]),
                array("by", [0.1, -2]),
            ],
        )
    ],
    "ConvTranspose": [
        case(
            node("ConvTranspose", "x", "wy", "by", strides=[2]),
            x=[1, 1, 2],
            y=[1, 1, 5],
            constants=[array("wy", [[[0.3, -0.7, 1]]]), array("by", [0.1])],
        )
    ],
    "Div": [
        case(node("Div", "x", "k"), x=[1, 3], y=[1, 3], constants=[number("k", 3)]),
        case(*halves("Div"), x=[1, 2], y=[1, 1], constants=[integers("sizes", 1, 1)]),
        case(node("Div", "k", "x"), x=[1, 2], y=[1, 2], constants=[array("k", [0.3, -2])]),
    ],
    "Erf": [
        case(
            node("Mul", "x", "k", to="v"),
            node("Erf", "v", to="e"),
            node("Add", "e", "one", to="p"),
            node("Mul", "p", "v"),
            x=[1, 2],
            y=[1, 2],
            constants=[number("one", 1), number("k", 0.9)],
        ),
        case(
            node("Mul", "x", "k", to="v"),
            node("Erf", "v", to="e"),
            node("Mul", "v", "e"),
            x=[1, 2],
            y=[1, 2],
            constants=[number("k", 0.7)],
        ),
        case(node("Erf", "x"), x=[1, 2], y=[1, 2]),
    ],
    "Exp": [
        case(node("Exp", "x"), x=[1, 2], y=[1, 2]),
        case(
            node("Min", "x", "zero", to="m"),
            node("Exp", "m"),
            x=[1, 2],
            y=[1, 2],
            constants=[number("zero", 0)],
        ),
    ],
    "Expand": [case(node("Expand", "x", "s"), x=[2, 1], y=[2, 2], constants=[integers("s", 2, 2)])],
    "Floor": [
        case(node("Floor", "x"), x=[1, 2], y=[1, 2]),
        case(
            node("MatMul", "x", "w", to="m"),
            node("Floor", "m"),
            x=[1, 2],
            y=[1, 1],
            constants=[array("w", [[0.3], [0.4]])],
        ),
    ],
    "Flatten": [case(node("Flatten", "x"), x=[1, 1, 3], y=[1, 3])],
    "Gather": [
        case(
            node("Gather", "x", "i", axis=1),
            x=[1, 3],
            y=[1, 3],
            constants=[integers("i", 2, 0, -1)],
        )
    ],
    "Gemm": [
        case(
            node("Gemm", "x", "w", "b"),
            x=[1, 2],
            y=[1, 3],
            constants=[array("w", [[0.3, -1, 0], [-0.7, 0.9, 0.01]]), array("b", [0.2, -1, 1])],
        )
    ],
    "GlobalAveragePool": [
        case(node("GlobalAveragePool", "x"), x=[1, 2, 1, 2], y=[1, 2, 1, 1]),
    ],
    "Identity": [case(node("Identity", "x"), x=[1, 3], y=[1, 3])],
    "LayerNormalization": [
        case(
            node("LayerNormalization", "x", "g", "b", axis=-1),
            x=[1, 2],
            y=[1, 2],
            constants=[array("g", [1, 0.6]), array("b", [0, -0.5])],
        ),
        case(
            node("LayerNormalization", "x", "g", "b", axis=-1, epsilon=0.1),
            x=[1, 3],
            y=[1, 3],
            constants=[array("g", [1, 1, 1]), array("b", [0, 0, 0])],
        ),
    ],
    "LeakyRelu": [
        case(node("LeakyRelu", "x", alpha=0.2), x=[1, 2], y=[1, 2]),
        case(
            node("MatMul", "x", "w", to="m"),
            node("LeakyRelu", "m", alpha=0.3),
            x=[1, 2],
            y=[1, 1],
            constants=[array("w", [[0.3], [0.4]])],
        ),
    ],
    "Log": [
        case(node("Log", "x"), x=[1, 1], y=[1, 1]),
        case(
            node("Relu", "x", to="r"),
            node("Add", "r", "k", to="a"),
            node("Log", "a"),
            x=[1, 1],
            y=[1, 1],
            constants=[number("k", 0.5)],
        ),
    ],
    "MatMul": [
        case(
            node("MatMul", "x", "w"),
            x=[1, 2],
            y=[1, 2],
            constants=[array("w", [[0.3, 1], [0.4, 1]])],
        ),
        case(
            node("Transpose", "x", to="t", perm=[1, 0]),
            node("MatMul", "t", "x"),
            x=[1, 2],
            y=[2, 2],
        ),
        case(
            node("Transpose", "x", to="t", perm=[1, 0]),
            node("MatMul", "x", "t"),
            x=[1, 2],
            y=[1, 1],
        ),
    ],
    "Max": [
        case(*halves("Max"), x=[1, 2], y=[1, 1], constants=[integers("sizes", 1, 1)]),
        case(node("Max", "x", "k"), x=[1, 2], y=[1, 2], constants=[array("k", [0.3, -1])]),
    ],
    "MaxPool": [
        case(pool("MaxPool", "x", 1, 2), x=[1, 1, 1, 2], y=[1, 1, 1, 1]),
        case(pool("MaxPool", "x", 1, 2, to="m"), node("Relu", "m"), x=[1, 1, 1, 2], y=[1, 1, 1, 1]),
    ],
    "Min": [
        case(*halves("Min"), x=[1, 2], y=[1, 1], constants=[integers("sizes", 1, 1)]),
        case(node("Min", "x", "k"), x=[1, 2], y=[1, 2], constants=[array("k", [0.3, -1])]),
    ],
    "Mul": [case(node("Mul", "x", "k"), x=[1, 3], y=[1, 3], constants=[number("k", -0.4)])],
    "Neg": [case(node("Neg", "x"), x=[1, 3], y=[1, 3])],
    "Pad": [
        case(
            node("Pad", "x", "p", "k"),
            x=[1, 2],
            y=[1, 4],
            constants=[integers("p", 0, 1, 0, 1), number("k", -1.5)],
        ),
        case(
            node("Pad", "x", "p", mode="reflect"),
            x=[1, 2],
            y=[1, 4],
            constants=[integers("p", 0, 1, 0, 1)],
        ),
    ],
    "Pow": [
        case(node("Pow", "x", "k"), x=[1, 2], y=[1, 2], constants=[number("k", 2)]),
        case(node("Pow", "x", "k"), x=[1, 1], y=[1, 1], constants=[number("k", 3)]),
        case(node("Pow", "x", "k"), x=[1, 1], y=[1, 1], constants=[number("k", 0.5)]),
        case(node("Pow", "k", "x"), x=[1, 2], y=[1, 2], constants=[number("k", 1.7)]),
    ],
    "ReduceMax": [case(node("ReduceMax", "x", axes=[1], keepdims=0), x=[1, 3], y=[1])],
    "ReduceMean": [case(node("ReduceMean", "x", axes=[1], keepdims=0), x=[1, 3], y=[1])],
    "ReduceMin": [case(node("ReduceMin", "x", axes=[1], keepdims=0), x=[1, 3], y=[1])],
    "ReduceSum": [
        case(
            node("ReduceSum", "x", "a", keepdims=0), x=[1, 3], y=[1], constants=[integers("a", 1)]
        ),
    ],
    "Relu": [
        case(node("Relu", "x"), x=[1, 3], y=[1, 3]),
        case(
            node("MatMul", "x", "w", to="m"),
            node("Relu", "m"),
            x=[1, 2],
            y=[1, 2],
            constants=[array("w", [[0.3, 1], [0.4, -1]])],
        ),
    ],
    "Reshape": [
        case(node("Reshape", "x", "s"), x=[1, 3], y=[3, 1], constants=[integers("s", 3, 1)])
    ],
    "Sign": [
        case(node("Sign", "x"), x=[1, 2], y=[1, 2]),
        case(
            node("Sub", "x", "k", to="d"),
            node("Sign", "d", to="s"),
            node("Relu", "s"),
            x=[1, 2],
            y=[1, 2],
            constants=[array("k", [0.3, -1])],
        ),
        case(
            node("Sub", "x", "k", to="d"),
            node("Sign", "d", to="s"),
            node("Abs", "s", to="a"),
            node("Sub", "one", "a", to="c"),
            node("Mul", "c", "x"),
            x=[1, 2],
            y=[1, 2],
            constants=[number("k", 1 / 16), number("one", 1)],
        ),
        case(
            node("MatMul", "x", "w", to="m"),
            node("Sign", "m"),
            x=[1, 2],
            y=[1, 1],
            constants=[array("w", [[0.3], [0.4]])],
        ),
    ],
    "Sigmoid": [
        case(node("Sigmoid", "x"), x=[1, 2], y=[1, 2]),
        case(
            node("MatMul", "x", "w", to="m"),
            node("Sigmoid", "m", to="s"),
            node("Mul", "s", "m"),
            x=[1, 2],
            y=[1, 1],
            constants=[array("w", [[1.3], [2.4]])],
        ),
    ],
    "Slice": [
        case(
            node("Slice", "x", "a", "b", "c", "d"),
            x=[1, 3],
            y=[1, 2],
            constants=[
                integers("a", -1),
                integers("b", -9),
                integers("c", 1),
                integers("d", -2),
            ],
        )
    ],
    "Softmax": [
        case(node("Softmax", "x", axis=-1), x=[1, 2], y=[1, 2]),
        case(
            node("Softmax", "x", axis=-1, to="s"),
            node("Transpose", "x", to="v", perm=[1, 0]),
            node("MatMul", "s", "v"),
            x=[1, 2],
            y=[1, 1],
        ),
        case(node("Softmax", "x", axis=-1), x=[1, 3], y=[1, 3]),
        # A dropped key, and a row that has only one.
        case(
            node("Where", "mask", "x", "low", to="m"),
            node("Softmax", "m", axis=-1),
            x=[1, 2],
            y=[1, 2],
            constants=[mask(False, True), number("low", -np.inf)],
        ),
        case(
            node("MatMul", "x", "w", to="s"),
            node("Add", "s", "bias", to="m"),
            node("Softmax", "m", axis=-1, to="p"),
            node("Transpose", "s", to="v", perm=[1, 0]),
            node("MatMul", "p", "v"),
            x=[1, 2],
            y=[1, 1],
            constants=[
                array("w", [[1, 0, 1], [0, 1, -1]]),
                array("bias", [[0, -np.inf, 0]]),
            ],
        ),
    ],
    "Split": [
        case(*halves("Sub"), x=[1, 2], y=[1, 1], constants=[integers("sizes", 1, 1)]),
    ],
    "Sqrt": [
        case(node("Sqrt", "x"), x=[1, 1], y=[1, 1]),
        case(
            node("Mul", "x", "k", to="m"),
            node("Relu", "m", to="r"),
            node("Sqrt", "r"),
            x=[1, 1],
            y=[1, 1],
            constants=[number("k", 0.3)],
        ),
    ],
    "Squeeze": [case(node("Squeeze", "x", "a"), x=[1, 3], y=[3], constants=[integers("a", 0)])],
    "Sub": [case(node("Sub", "k", "x"), x=[1, 3], y=[1, 3], constants=[array("k", [0.3, -1, 2])])],
    "Sum": [
        case(
            node("Relu", "x", to="r"),
            node("Sum", "x", "k", "r"),
            x=[1, 2],
            y=[1, 2],
            constants=[array("k", [0.3, -1])],
        )
    ],
    "Tanh": [
        case(node("Tanh", "x"), x=[1, 2], y=[1, 2]),
        case(
            node("MatMul", "x", "w", to="m"),
            node("Tanh", "m"),
            x=[1, 2],
            y=[1, 2],
            constants=[array("w", [[1.3, 5], [2.4, -1]])],
        ),
    ],
    "Transpose": [case(node("Transpose", "x", perm=[1, 0]), x=[1, 3], y=[3, 1])],
    "Unsqueeze": [case(node("Unsqueeze", "x", "a"), x=[3], y=[1, 3], constants=[integers("a", 0)])],
    "Where": [
        case(
            node("Where", "mask", "x", "k"),
            x=[1, 3],
            y=[1, 3],
            constants=[mask(True, False, True), number("k", -1.5)],
        ),
        case(
            node("Relu", "x", to="r"),
            node("Where", "mask", "r", "x"),
            x=[1, 2],
            y=[1, 2],
            constants=[mask(True, False)],
        ),
    ],
}
"""Per operator, circuits whose only freedom it is."""


def adversarial(size: int, numbers_: Arithmetic) -> Iterator[Whole]:
    """Ties of all, of some and of none; the ends of the range and of a table; one far from all."""
    held = (1 << numbers_.logrows) - TABLE_END - 1
    held *= 1 + (1 << numbers_.overlap_bits if numbers_.digits > 1 else 0)
    top, one = min(numbers_.offset, held - numbers_.offset), 1 << numbers_.scale
    flat = np.zeros(size, dtype=np.int64)
    yield flat
    for tie in (1, -1, top - 1, -top, one, min(7 * one // 2, top)):
        yield flat + tie
    first = flat.copy()
    first[0] = top - 1
    yield first
    yield -first
    last = flat + 5
    last[-1] = -numbers_.offset
    yield last
    yield np.arange(size) - 1
    yield 3 - np.arange(size) * 7 % 11
    draw = np.random.default_rng(size)
    for reach in (3, one, one, top, top):
        yield draw.integers(-reach, reach, size)


@lru_cache
def built(operator: str, index: int, kind: str) -> HintedChunk:
    return hinted_chunk(ENTRIES[operator][index].proto(), NUMBERS[kind])


SEARCHED_LONG = {"Concat", "LayerNormalization", "Relu", "Softmax"}


def instances() -> Iterator[object]:
    for name, cases in sorted(ENTRIES.items()):
        for index, each in enumerate(cases):
            for kind in sorted(NUMBERS):
                wide = name == "Softmax" and each.x[-1] > 2
                if wide and kind == "two digits":
                    continue  # Its search takes too long.
                hard = wide or (name in SEARCHED_LONG and kind == "two digits")
                marks = pytest.mark.slow if hard else ()
                yield pytest.param(name, index, kind, marks=marks)


def test_every_operator_with_a_hinted_form_has_an_entry() -> None:
    assert ENTRIES.keys() == OPERATORS.keys()
    for operator, cases in ENTRIES.items():
        for each in cases:
            assert operator in {n.op_type for n in each.nodes}


@pytest.mark.parametrize(("operator", "index", "kind"), list(instances()))
def test_hints_allow_what_the_operator_is_declared_to_give(
    operator: str, index: int, kind: str
) -> None:
    hold_to_declaration(built(operator, index, kind))


def hold_to_declaration(chunk: HintedChunk) -> None:
    model = onnx.ModelProto.FromString(chunk.data)
    found = analyse(model, logrows=chunk.numbers.logrows, scale=chunk.numbers.scale)
    assert not found.findings
    shape = chunk.incoming[0].info.shape
    satisfied = 0
    for values in adversarial(math.prod(shape), chunk.numbers):
        inputs = {"x": values.reshape(shape)}
        allowed = outputs_allowed(chunk, inputs)
        assert allowed == outputs_declared(chunk, inputs), values
        satisfied += bool(allowed)
    assert satisfied


REWRITTEN = ("ConvTranspose", "Pad", "ReduceMin", "Sum")
"""Operators that normalisation writes with others: lowered here as they are."""


@pytest.mark.parametrize("kind", sorted(NUMBERS))
@pytest.mark.parametrize("operator", REWRITTEN)
def test_hints_allow_the_same_of_operators_that_normalisation_rewrites(
    operator: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_it_is(proto: onnx.ModelProto, _: object) -> onnx.ModelProto:
        return onnx.shape_inference.infer_shapes(proto, strict_mode=True)

    monkeypatch.setattr(hinted_circuit, "normalise", as_it_is)
    for each in ENTRIES[operator]:
        chunk = hinted_chunk(each.proto(), NUMBERS[kind])
        assert operator in {chunk.graph.nodes[name].op_type for name in chunk.nodes}
        hold_to_declaration(chunk)


def test_other_operators_are_lowered_as_they_are() -> None:
    for operator, cases in ENTRIES.items():
        for index in range(len(cases)):
            chunk = built(operator, index, "one digit")
            kept = operator in {chunk.graph.nodes[name].op_type for name in chunk.nodes}
            assert kept or operator in REWRITTEN


def width(operator: str) -> tuple[int, int, int]:
    """Inputs tried, the most vectors that one of them allows, the most that an element differs."""
    tried, most, widest = 0, 0, 0
    for index, each in enumerate(ENTRIES[operator]):
        for kind in sorted(NUMBERS):
            if each.x[-1] > 2 and operator == "Softmax":
                continue
            chunk = built(operator, index, kind)
            shape = chunk.incoming[0].info.shape
            for values in adversarial(math.prod(shape), chunk.numbers):
                declared = outputs_declared(chunk, {"x": values.reshape(shape)})
                tried += bool(declared)
                most = max(most, len(declared))
                columns = zip(*declared, strict=True)
                widest = max([widest, *(max(c) - min(c) for c in columns)])
    return tried, most, widest


@pytest.mark.slow
def test_widths_in_the_documentation_are_those_found() -> None:
    rows = [
        f"| {operator} | {tried} | {most} | {widest} |"
        for operator, (tried, most, widest) in ((o, width(o)) for o in sorted(ENTRIES))
    ]
    text = SECURITY.read_text(encoding="utf-8")
    assert "\n".join(rows) in text, "\n".join(rows)


HOLES = {
    "a positive part beside a negative one": (
        settle,
        ("circuit.check_zero(", "(lambda *_: None)("),
        "Abs",
        0,
    ),
    "a value above what it is clipped to": (
        settle,
        ("circuit.check_zero(", "(lambda *_: None)("),
        "Clip",
        0,
    ),
    "a maximum of two tensors above both": (
        settle,
        ("circuit.check_zero(", "(lambda *_: None)("),
        "Max",
        0,
    ),
    "a clipped value that is put elsewhere": (
        pointwise,
        ("circuit.subtract(circuit.whole([offset]), tensor, size)", "tensor"),
        "Clip",
        0,
    ),
    "a magnitude without its negative part": (
        pointwise,
        ("circuit.add(tensor, plus.wire.name, size)", "tensor"),
        "Abs",
        0,
    ),
    "a maximum above all": (settle, ("circuit.check_zero(", "(lambda *_: None)("), "MaxPool", 0),
    "a ReLU above its argument": (
        settle,
        ("circuit.check_zero(", "(lambda *_: None)("),
        "Relu",
        0,
    ),
    "an argument of erf that is positive and negative": (
        settle,
        ("circuit.check_zero(", "(lambda *_: None)("),
        "Erf",
        0,
    ),
    "a reciprocal held on one side": (
        softmax,
        ("for change in (1, -1):", "for change in (1,):"),
        "Softmax",
        0,
    ),
    "a root held on one side": (
        layer_norm,
        ("for change in (1, -1):", "for change in (1,):"),
        "LayerNormalization",
        0,
    ),
}
"""Checks left out: where, what instead of what, and whose circuit then has other results."""


@pytest.mark.parametrize("name", sorted(HOLES))
def test_check_that_is_left_out_leaves_other_results(name: str) -> None:
    module, edit, operator, index = HOLES[name]
    with planted(module, edit):
        chunk = hinted_chunk(ENTRIES[operator][index].proto(), ONE_DIGIT)
    shape = chunk.incoming[0].info.shape

    def others(values: Whole) -> set[tuple[int, ...]]:
        inputs = {"x": values.reshape(shape)}
        declared = outputs_declared(chunk, inputs)
        return outputs_allowed(chunk, inputs, len(declared) + 1) - declared

    size = math.prod(shape)
    tried = [np.array([20, -9, 3])[:size], *adversarial(size, ONE_DIGIT)]
    assert any(others(values) for values in tried)
