"""Hinted circuits and their recipes, operator by operator, against loops and against onnxruntime.

Every case is laid out, its hints are made, and the circuit's own nodes are evaluated over Python's
integers: every lookup must lie in the table, and the outputs must be the reference's, bit for bit.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from tests.unit.chunking.builders import model as build
from tests.unit.chunking.builders import run as run_float
from tests.unit.chunking.builders import weight
from tests.unit.chunking.hinted_cases import (
    ALL_NUMBERS,
    CASES,
    FINE,
    Case,
    convolutions,
    dense,
    found_and_exact,
    inputs,
    node,
    number,
)
from tests.unit.chunking.hinted_circuit import (
    NUMBERS,
    HintedChunk,
    checked,
    evaluated,
    hinted_chunk,
    saved,
)
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.hinted.forms import NotHintedError
from zkml_ray.chunking.hinted.lower import Lowering
from zkml_ray.chunking.hinted.numbers import Arithmetic
from zkml_ray.chunking.hinted.operators import OPERATORS
from zkml_ray.chunking.normalize import normalise
from zkml_ray.circuits import backend
from zkml_ray.errors import ChunkingError, RangeExceededError


@pytest.mark.parametrize("kind", sorted(ALL_NUMBERS))
@pytest.mark.parametrize("name", sorted(CASES))
def test_circuit_fed_by_the_recipe_gives_the_loops_integers(name: str, kind: str) -> None:
    case, numbers = CASES[name], ALL_NUMBERS[kind]
    found, exact = found_and_exact(case, numbers)
    # A rounding to the nearest, and weights to the nearest of q; x is exact and within +-2.
    bound = case.roundings * 0.5 / 2**numbers.scale + case.summands * 2 / (2 * numbers.divisor)
    np.testing.assert_allclose(found, exact, rtol=0, atol=bound + 1e-6)


def test_every_operator_with_a_hinted_form_has_a_case() -> None:
    used = {n.op_type for case in CASES.values() for n in case.nodes}
    assert set(OF_OTHER_TESTS) | used >= set(OPERATORS)


OF_OTHER_TESTS = (
    *("Erf", "LayerNormalization", "Softmax"),  # test_hinted_functions
    *("Sigmoid", "Tanh"),  # test_hinted_tables
    *("Floor", "Sign"),  # test_hinted_decisions
    "Sqrt",  # test_hinted_quotients
    *("Exp", "Log"),  # test_hinted_exponentials
    "ReduceMin",
)
"""What has its cases elsewhere; and what normalisation takes away."""


@pytest.mark.parametrize("salted", [True, False])
def test_chunk_of_the_same_arguments_has_the_same_bytes(salted: bool) -> None:
    proto = CASES["block with a shortcut"].proto()
    made = {hinted_chunk(proto, salted=salted).data for _ in range(3)}
    assert len(made) == 1
    assert made != {hinted_chunk(proto, FINE, salted=salted).data}


OF_EZKLS_WITNESS = [
    *("conv, relu, max pool", "block with a shortcut", "conv of three dimensions, dilated"),
    *("clipped to six", "clipped from above", "two tensors multiplied", "magnitude", "leaky"),
    *("max pool, overlapping", "product with minus one beside the tensor", "smallest of three"),
    *("masked by a number", "padded", "split"),
]


@pytest.mark.parametrize("name", OF_EZKLS_WITNESS)
@pytest.mark.parametrize("salted", [True, False])
def test_ezkls_own_witness_is_what_the_evaluated_circuit_gives(
    name: str, salted: bool, tmp_path: Path
) -> None:
    gives_what_ezkl_gives(CASES[name], NUMBERS, tmp_path, salted=salted)


def test_ezkl_adds_up_constants_that_one_float32_does_not_hold(tmp_path: Path) -> None:
    numbers = Arithmetic(scale=12, logrows=14, range_bits=8)
    gives_what_ezkl_gives(CASES["conv, relu, max pool"], numbers, tmp_path, salted=True)


def gives_what_ezkl_gives(case: Case, numbers: Arithmetic, tmp_path: Path, *, salted: bool) -> None:
    chunk = hinted_chunk(case.proto(), numbers, salted=salted, columns=3)
    whole = chunk.quantised(inputs(case, numbers))
    vector = chunk.advice(whole)
    path = saved(chunk, tmp_path)
    settings = backend.derive_settings(path, chunk.arguments())
    (tmp_path / "settings.json").write_bytes(settings.data)
    compiled, witness = tmp_path / "circuit.ezkl", tmp_path / "witness.json"
    backend.compile_circuit(path, tmp_path / "settings.json", compiled)
    found = backend.generate_witness("chunk-000", [vector], compiled, witness)
    assert found.outputs == evaluated(chunk, vector)
    low, high = found.lookup_inputs
    assert 0 <= low <= high < numbers.divisor


# Bounds: a stride that is too small lets errors pass from one packed element to the next.

BOUND = NUMBERS.value_bound
LARGEST = max(NUMBERS.offset, BOUND - NUMBERS.offset)
HALF = 1 << (NUMBERS.scale - 1)


def bounded(operator: onnx.NodeProto, *constants: onnx.TensorProto) -> tuple[int, int]:
    """Between what an operator's result lies in any proof; it reads x and r, its ReLU."""
    proto = build(
        [node("Relu", "x", to="r"), operator], {"x": [1, 4]}, {"y": [1, 4]}, list(constants)
    )
    graph = ModelGraph(normalise(proto, {}))
    names = dict.fromkeys(("x", "r", "y"), (1, 4))
    shapes = {**names, **{name: tuple(t.dims) for name, t in graph.initializers.items()}}
    lowering = Lowering(NUMBERS, graph.initializers, shapes, 1)
    lowering.receive("x", "given")
    lowering.run(list(graph.nodes.values()), OPERATORS)
    wire = lowering.view("y").wire
    return wire.low, wire.high


def test_bounds_hold_whatever_digits_a_proof_has() -> None:
    half, minus = number("h", 0.5), number("l", -0.5)
    assert bounded(node("Relu", "x")) == (0, BOUND)
    assert bounded(node("Mul", "x", "r")) == (-LARGEST * BOUND, LARGEST * BOUND)
    assert bounded(node("Mul", "x", "x")) == (0, LARGEST**2)
    assert bounded(node("Abs", "x")) == (0, BOUND)
    assert bounded(node("Clip", "x", "l"), minus) == (-HALF, BOUND - HALF)
    assert bounded(node("Clip", "x", "", "h"), half) == (HALF - BOUND, HALF)
    assert bounded(node("Clip", "x", "l", "h"), minus, half) == (HALF - BOUND, HALF)


# Precision: what is small beside the steps of weights, or of values, is not lost.

SMALL = {
    "mean over more than the table has rows": Case(
        nodes=[node("ReduceMean", "x")], x=[3, 3001], y=[1, 1]
    ),
    "layer of small weights": Case(
        nodes=[node("MatMul", "x", "w")],
        x=[1, 256],
        y=[1, 3],
        constants=[
            numpy_helper.from_array(
                np.linspace(-1, 3, 768, dtype=np.float32).reshape(256, 3) * 1e-4, "w"
            )
        ],
    ),
    "small multiple that is rounded before the tensor": Case(
        nodes=[
            node("MatMul", "x", "w", to="h"),
            node("Mul", "h", "k", to="n"),
            node("Concat", "n", "h", axis=1),
        ],
        x=[2, 4],
        y=[2, 6],
        constants=[dense(4, 3), number("k", 1e-4)],
    ),
}


@pytest.mark.parametrize("name", sorted(SMALL))
def test_what_is_small_is_not_lost(name: str) -> None:
    case, quantum = SMALL[name], 2.0**-FINE.scale
    arrays = {"x": np.abs(inputs(case, FINE)["x"]) + np.float32(8)}
    chunk = hinted_chunk(case.proto(), FINE)
    found = chunk.outputs(evaluated(chunk, chunk.advice(chunk.quantised(arrays))))["y"]
    exact = run_float(case.proto(), arrays)["y"]
    np.testing.assert_allclose(found * quantum, exact, rtol=0, atol=1.5 * quantum)
    assert np.abs(exact).max() > 0.05


# Random shapes.


@settings(deadline=None, max_examples=40)
@given(convolutions().filter(lambda case: min(case.y) > 0), st.integers(0, 2**16))
def test_random_convolutions_give_the_loops_integers(case: Case, seed: int) -> None:
    checked(hinted_chunk(case.proto()), inputs(case, NUMBERS, seed))


@settings(deadline=None, max_examples=40)
@example(2, 1, 2, Arithmetic(scale=8, logrows=10, range_bits=5), True, 1)
@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 9),
    st.builds(
        Arithmetic, scale=st.integers(4, 8), logrows=st.integers(10, 12), range_bits=st.just(5)
    ),
    st.booleans(),
    st.integers(0, 99),
)
def test_random_dense_layers_give_the_loops_integers(
    rows: int, depth: int, columns: int, numbers: Arithmetic, relu: bool, seed: int
) -> None:
    """The example's weights are small: the divisor is finer than a table for them alone."""
    nodes = [node("Gemm", "x", "w", "b", to="g")]
    nodes.append(
        node("Add", "g", "x", to="s") if depth == columns else node("Sub", "g", "b", to="s")
    )
    nodes.append(node("Relu", "s", to="r") if relu else node("Add", "s", "s", to="r"))
    nodes.append(node("MatMul", "r", "v"))
    case = Case(
        nodes=nodes,
        x=[rows, depth],
        y=[rows, 2],
        constants=[dense(depth, columns), weight("b", columns), dense(columns, 2, to="v")],
    )
    checked(hinted_chunk(case.proto(), numbers), inputs(case, numbers, seed))


@pytest.mark.parametrize(
    ("scale", "range_bits", "logrows"),
    [(10, 5, 13), (14, 10, 17), (16, 11, 20), (10, 14, 18), (4, 18, 16), (14, 10, 24)],
)
def test_added_constants_are_exact_at_every_scale_and_range(
    scale: int, range_bits: int, logrows: int
) -> None:
    """x + b and the nearest whole number to it, however large b and whatever the divisor."""
    numbers = Arithmetic(scale=scale, logrows=logrows, range_bits=range_bits)
    draw = np.random.default_rng(scale)
    most = 2.0 ** (range_bits - 1)
    bias = np.append(draw.uniform(-most, most, size=5), [most, 0.0]).astype(np.float32)
    case = Case(
        nodes=[node("Add", "x", "b")],
        x=[2, 7],
        y=[2, 7],
        constants=[numpy_helper.from_array(bias, "b")],
    )
    x = np.asarray(np.rint(draw.uniform(-most, most, size=(2, 7))), dtype=np.float32)
    found = checked(hinted_chunk(case.proto(), numbers), {"x": x})["y"]
    exact = (x.astype(np.float64) + bias.astype(np.float64)) * 2.0**scale
    assert np.abs(found - exact).max() <= 1 / 2 + 1 / 100


# Refusals.

REFUSED = {
    "an operator without a hinted form": Case(nodes=[node("Exp", "x")], x=[1, 4], y=[1, 4]),
    "quotient by zero": Case(
        nodes=[node("Div", "x", "k")], x=[1, 4], y=[1, 4], constants=[number("k", 0)]
    ),
    "third root as a power": Case(
        nodes=[node("Pow", "x", "k")], x=[1, 4], y=[1, 4], constants=[number("k", 1 / 3)]
    ),
    "clip to what the range does not hold": Case(
        nodes=[node("Clip", "x", "k")], x=[1, 4], y=[1, 4], constants=[number("k", 1e4)]
    ),
    "maximum with what the range does not hold": Case(
        nodes=[node("Max", "x", "k")], x=[1, 4], y=[1, 4], constants=[number("k", 1e4)]
    ),
    "weights beyond float32's whole numbers": Case(
        nodes=[node("Mul", "x", "k")], x=[1, 4], y=[1, 4], constants=[number("k", 1e6)]
    ),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_has_no_hinted_form_is_refused(name: str) -> None:
    with pytest.raises(NotHintedError) as caught:
        hinted_chunk(REFUSED[name].proto())
    error, last = caught.value, REFUSED[name].nodes[-1]
    assert "\n" not in error.message
    assert (error.node, error.operator) == (last.name, last.op_type)
    assert error.message.startswith(f"{last.op_type} (node {last.name!r}) has no hinted form")
    assert "bug" not in error.message


def test_value_beyond_the_range_is_refused_and_the_option_is_named() -> None:
    case = CASES["product with a number"]
    chunk = hinted_chunk(case.proto(), FINE)

    def hints(value: float) -> HintedChunk:
        chunk.advice(chunk.quantised({"x": np.full((2, 3), value, dtype=np.float32)}))
        return chunk

    assert hints(18.0)
    with pytest.raises(RangeExceededError, match=r"chunk-000: .*\+-32.*--range-bits"):
        hints(20.0)  # the input fits, times -1.7 it does not
    with pytest.raises(RangeExceededError, match=r"x reached .*--range-bits"):
        hints(-33.0)


def test_boundary_that_packing_does_not_hold_is_refused() -> None:
    proto = CASES["relu alone"].proto()
    with pytest.raises(ChunkingError, match=r"more than its packing holds|needs more than"):
        hinted_chunk(proto, Arithmetic(scale=4, logrows=22, range_bits=2))
