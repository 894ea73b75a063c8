"""Hinted forms of GELU, softmax, LayerNormalization and products of activations.

As in `test_hinted_operators`: the circuit's own nodes, fed by the recipe's hints, give the loops'
integers, bit for bit; those are near onnxruntime; and ezkl itself accepts the witness.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import ezkl
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from benchmarks.models.encoder import EncoderSize, build_encoder
from tests.unit.chunking.builders import integers, weight
from tests.unit.chunking.builders import run as run_float
from tests.unit.chunking.hinted_cases import Case, dense, found_and_exact, inputs, node, number
from tests.unit.chunking.hinted_circuit import (
    NUMBERS,
    HintedChunk,
    checked,
    checked_whole,
    evaluated,
    hinted_chunk,
    hinted_chunks,
    saved,
)
from zkml_ray.chunking.hinted.forms import NotHintedError
from zkml_ray.chunking.hinted.numbers import Arithmetic
from zkml_ray.circuits import backend
from zkml_ray.errors import ChunkingError, RangeExceededError

ROOMY = Arithmetic(scale=8, logrows=11, range_bits=4)

DEEP = Arithmetic(scale=7, logrows=11, range_bits=5)
"""The exponential's table reaches 16 below its top."""

ALL_NUMBERS = {"scale 7": NUMBERS, "scale 8": ROOMY, "deep": DEEP}

ROOT_2 = number("root", math.sqrt(2))


def vector(name: str, *values: float) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, dtype=np.float32), name)


def layer(*, to: str = "g", rows: int = 6, columns: int = 10) -> Case:
    """A dense layer, whose result is still to be rounded."""
    return Case(
        nodes=[node("Gemm", "x", "w", "b", to=to)],
        x=[3, rows],
        y=[3, columns],
        constants=[dense(rows, columns), weight("b", columns)],
    )


def gelu(kind: str) -> Case:
    """GELU of a dense layer, as exporters write it."""
    first = layer()
    quotient = {
        "Div": node("Div", "g", "root", to="v"),
        "Mul": node("Mul", "g", "inverse", to="v"),
    }[kind.split()[0]]
    around = {
        "x (1 + erf) half": [
            node("Add", "e", "one", to="p"),
            node("Mul", "g", "p", to="m"),
            node("Mul", "m", "half"),
        ],
        "x half (1 + erf)": [
            node("Mul", "g", "half", to="h"),
            node("Add", "one", "e", to="p"),
            node("Mul", "h", "p"),
        ],
        "half (x (1 + erf))": [
            node("Add", "e", "one", to="p"),
            node("Mul", "p", "g", to="m"),
            node("Mul", "half", "m"),
        ],
    }[kind.split(", ")[1]]
    return Case(
        nodes=[*first.nodes, quotient, node("Erf", "v", to="e"), *around],
        x=first.x,
        y=first.y,
        constants=[
            *first.constants,
            ROOT_2,
            number("inverse", 1 / math.sqrt(2)),
            number("one", 1.0),
            number("half", 0.5),
        ],
    )


FORMS = ("x (1 + erf) half", "x half (1 + erf)", "half (x (1 + erf))")


def product_of_gelus() -> Case:
    """GELU times its transpose, scaled: each factor has the scale of the function."""
    first = gelu("Div x, x half (1 + erf)")
    *head, last = first.nodes
    return Case(
        nodes=[
            *head,
            node("Mul", *last.input, to="z"),
            node("Transpose", "z", to="t", perm=[1, 0]),
            node("MatMul", "z", "t", to="m"),
            node("Mul", "m", "quarter"),
        ],
        x=first.x,
        y=[3, 3],
        constants=[*first.constants, number("quarter", 0.25)],
    )


KEPT = numpy_helper.from_array(np.tri(3, dtype=bool), "kept")
LOW = numpy_helper.from_array(np.array([[0, -np.inf, 0]], dtype=np.float32), "low")

CASES = {
    "masked softmax": Case(
        nodes=[node("Add", "x", "low", to="m"), node("Softmax", "m", axis=-1)],
        x=[2, 3],
        y=[2, 3],
        constants=[LOW],
    ),
    "masked attention": Case(
        nodes=[
            node("Transpose", "x", to="k", perm=[0, 2, 1]),
            node("MatMul", "x", "k", to="s"),
            node("Where", "kept", "s", "far", to="m"),
            node("Softmax", "m", to="p", axis=-1),
            node("MatMul", "p", "x"),
        ],
        x=[2, 3, 2],
        y=[2, 3, 2],
        constants=[KEPT, number("far", -1e9)],
    ),
    "product of two GELUs": product_of_gelus(),
    "product of activations": Case(
        nodes=[node("Transpose", "x", to="t", perm=[1, 0]), node("MatMul", "x", "t")],
        x=[3, 4],
        y=[3, 3],
    ),
    "product of activations, one row": Case(
        nodes=[node("Transpose", "x", to="t", perm=[1, 0]), node("MatMul", "x", "t")],
        x=[1, 5],
        y=[1, 1],
    ),
    "product of activations, halved": Case(
        nodes=[
            node("Transpose", "x", to="t", perm=[1, 0]),
            node("MatMul", "x", "t", to="m"),
            node("Div", "m", "k"),
        ],
        x=[4, 3],
        y=[4, 4],
        constants=[number("k", 2.0)],
    ),
    "product of activations, divided by a root": Case(
        nodes=[
            node("Transpose", "x", to="t", perm=[1, 0]),
            node("MatMul", "t", "x", to="m"),
            node("Div", "m", "root"),
        ],
        x=[4, 3],
        y=[3, 3],
        constants=[ROOT_2],
    ),
    "product of activations and a residual": Case(
        nodes=[
            node("Transpose", "x", to="t", perm=[1, 0]),
            node("MatMul", "x", "t", to="m"),
            node("Add", "m", "x"),
        ],
        x=[3, 3],
        y=[3, 3],
    ),
    "product of heads": Case(
        nodes=[
            node("Reshape", "x", "split", to="s"),
            node("Transpose", "s", to="q", perm=[0, 2, 1, 3]),
            node("Transpose", "s", to="k", perm=[0, 2, 3, 1]),
            node("MatMul", "q", "k"),
        ],
        x=[1, 3, 8],
        y=[1, 2, 3, 3],
        constants=[integers("split", 1, 3, 2, 4)],
    ),
    "maxima of a product": Case(
        nodes=[
            node("Transpose", "x", to="k", perm=[0, 1, 3, 2]),
            node("MatMul", "x", "k", to="p"),
            node("MaxPool", "p", kernel_shape=[2, 1], strides=[2, 1]),
        ],
        x=[1, 1, 4, 3],
        y=[1, 1, 2, 4],
    ),
    "product of wide heads": Case(
        nodes=[
            node("Transpose", "x", to="t", perm=[0, 2, 1]),
            node("MatMul", "x", "t", to="m"),
            node("Mul", "m", "small", to="n"),
            node("MatMul", "n", "x"),
        ],
        x=[2, 12, 2],
        y=[2, 12, 2],
        constants=[number("small", 0.1)],
    ),
    "softmax": Case(nodes=[node("Softmax", "x", axis=-1)], x=[3, 5], y=[3, 5]),
    "softmax of one": Case(nodes=[node("Softmax", "x", axis=1)], x=[3, 1], y=[3, 1]),
    "softmax of two": Case(nodes=[node("Softmax", "x", axis=-1)], x=[4, 2], y=[4, 2]),
    "softmax of a layer": Case(
        nodes=[*layer().nodes, node("Softmax", "g", axis=-1)],
        x=[3, 6],
        y=[3, 10],
        constants=layer().constants,
    ),
    "attention": Case(
        nodes=[
            node("Reshape", "x", "split", to="s"),
            node("Transpose", "s", to="q", perm=[0, 2, 1, 3]),
            node("Transpose", "s", to="k", perm=[0, 2, 3, 1]),
            node("MatMul", "q", "k", to="scores"),
            node("Div", "scores", "root", to="scaled"),
            node("Softmax", "scaled", to="shares", axis=3),
            node("MatMul", "shares", "q", to="c"),
            node("Transpose", "c", to="o", perm=[0, 2, 1, 3]),
            node("Reshape", "o", "join"),
        ],
        x=[1, 3, 8],
        y=[1, 3, 8],
        constants=[integers("split", 1, 3, 2, 4), integers("join", 1, 3, 8), ROOT_2],
    ),
    "layer norm": Case(
        nodes=[node("LayerNormalization", "x", "gamma", "beta", axis=-1, epsilon=1e-5)],
        x=[4, 8],
        y=[4, 8],
        constants=[weight("gamma", 8), weight("beta", 8)],
    ),
    "layer norm of a large epsilon": Case(
        nodes=[node("LayerNormalization", "x", "gamma", "beta", axis=1, epsilon=0.25)],
        x=[4, 3],
        y=[4, 3],
        constants=[weight("gamma", 3), weight("beta", 3)],
    ),
    "layer norm between layers": Case(
        nodes=[
            *layer(columns=6).nodes,
            node("Add", "g", "x", to="a"),
            node("LayerNormalization", "a", "gamma", "beta", to="n", axis=-1, epsilon=1e-3),
            node("MatMul", "n", "w", to="m"),
            node("Add", "m", "n"),
        ],
        x=[3, 6],
        y=[3, 6],
        constants=[dense(6, 6), weight("b", 6), weight("gamma", 6), weight("beta", 6)],
    ),
    **{f"GELU, {f}, {form}": gelu(f"{f} {f}, {form}") for f in ("Div", "Mul") for form in FORMS},
}

ERRORS = {"scale 7": 0.02, "scale 8": 0.01, "deep": 0.02}
"""Largest error against onnxruntime: two and a half units of the last place."""

PROVED = (
    "product of heads",
    "softmax",
    "attention",
    "layer norm",
    "GELU, Div, x (1 + erf) half",
    "GELU, Mul, x half (1 + erf)",
)


@pytest.mark.parametrize("kind", sorted(ALL_NUMBERS))
@pytest.mark.parametrize("name", sorted(CASES))
def test_circuit_fed_by_the_recipe_gives_the_loops_integers(name: str, kind: str) -> None:
    case, numbers = CASES[name], ALL_NUMBERS[kind]
    found, exact = found_and_exact(case, numbers)
    np.testing.assert_allclose(found, exact, rtol=0, atol=ERRORS[kind])


def compiled(chunk: HintedChunk, folder: Path) -> Path:
    """The chunk's compiled circuit."""
    path, settings = saved(chunk, folder), folder / "settings.json"
    settings.write_bytes(backend.derive_settings(path, chunk.arguments()).data)
    backend.compile_circuit(path, settings, folder / "circuit.ezkl")
    return folder / "circuit.ezkl"


def accepted(chunk: HintedChunk, whole: dict[str, np.ndarray], folder: Path) -> bool:
    """Whether ezkl gives the evaluated circuit's outputs, and finds its constraints satisfied."""
    vector, circuit, witness = chunk.advice(whole), compiled(chunk, folder), folder / "witness.json"
    found = backend.generate_witness("chunk-000", [vector], circuit, witness)
    assert found.outputs == evaluated(chunk, vector)
    return bool(ezkl.mock(str(witness), str(circuit)))


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("name", PROVED)
def test_ezkl_accepts_the_honest_witness(name: str, columns: int, tmp_path: Path) -> None:
    chunk = hinted_chunk(CASES[name].proto(), columns=columns)
    assert accepted(chunk, chunk.quantised(inputs(CASES[name], NUMBERS)), tmp_path)


# Softmax.


def softmax_of(*rows: list[float], numbers: Arithmetic = NUMBERS) -> np.ndarray:
    """What a hinted softmax gives, as real numbers; checked against the loops."""
    arrays = {"x": np.array(rows, dtype=np.float32)}
    shape = list(arrays["x"].shape)
    case = Case(nodes=[node("Softmax", "x", axis=-1)], x=shape, y=shape)
    return checked(hinted_chunk(case.proto(), numbers), arrays)["y"] / 2.0**numbers.scale


def test_softmax_of_rows_far_up_and_far_down_is_that_of_the_rows_at_zero() -> None:
    scores = np.random.default_rng(3).integers(-256, 256, size=6) / 2**NUMBERS.scale
    rows = [scores.tolist(), (scores + 30).tolist(), (scores - 30).tolist()]
    first, *others = softmax_of(*rows)
    for other in others:
        np.testing.assert_array_equal(other, first)
    exact = np.exp(scores) / np.exp(scores).sum()
    np.testing.assert_allclose(first, exact, rtol=0, atol=0.75 / 2**NUMBERS.scale)


def test_scores_more_than_the_table_below_the_largest_keep_its_smallest_share() -> None:
    found = softmax_of([30.0, -30.0, 0.0, 29.0])[0]
    exact = [1 / (1 + math.exp(-1)), 0.0, 0.0, math.exp(-1) / (1 + math.exp(-1))]
    np.testing.assert_allclose(found, exact, rtol=0, atol=0.75 / 2**NUMBERS.scale)


def test_many_scores_far_below_the_largest_take_little_from_it() -> None:
    """Each counts as exp(-7.74), the table's reach: 0.0004 of the largest."""
    (row,) = softmax_of([20.0, *[-20.0] * 30])
    np.testing.assert_allclose(row[0], 1 / (1 + 30 * math.exp(-991 / 128)), rtol=0, atol=0.5 / 128)
    np.testing.assert_array_equal(row[1:], 0)


def test_equal_scores_share_alike() -> None:
    (row,) = softmax_of([5.0] * 8)
    np.testing.assert_array_equal(row, 1 / 8)


def test_score_out_of_range_is_refused_and_the_option_is_named() -> None:
    with pytest.raises(RangeExceededError, match=r"x reached .*\+-32.*--range-bits"):
        softmax_of([0.0, 38.0])
    with pytest.raises(RangeExceededError, match=r"x reached .*\+-32.*--range-bits"):
        softmax_of([0.0, -33.0])


# GELU.


def gelu_of(values: list[float], numbers: Arithmetic = NUMBERS) -> np.ndarray:
    """GELU of the given numbers, behind a layer that hands them on; checked against the loops."""
    size = len(values)
    proto = Case(
        nodes=[node("MatMul", "x", "eye", to="g"), *gelu("Div x, x (1 + erf) half").nodes[1:]],
        x=[1, size],
        y=[1, size],
        constants=[
            numpy_helper.from_array(np.eye(size, dtype=np.float32), "eye"),
            *gelu("Div x, x (1 + erf) half").constants[2:],
        ],
    ).proto()
    arrays = {"x": np.array([values], dtype=np.float32)}
    found = checked(hinted_chunk(proto, numbers), arrays)["y"] / 2.0**numbers.scale
    return np.asarray(found[0])


def test_gelu_is_near_the_real_one_on_both_sides_of_zero() -> None:
    values = [0.0, 1 / 128, -1 / 128, 0.5, -0.5, -0.75, 1.0, -1.0, 3.0, -3.0, 8.0, -8.0]
    exact = [0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in values]
    # The argument's rounding, twice, and the result's.
    np.testing.assert_allclose(gelu_of(values), exact, rtol=0, atol=1.25 / 128)


def test_argument_of_gelu_beyond_a_digit_is_refused() -> None:
    limit = NUMBERS.divisor / 2**NUMBERS.scale * math.sqrt(2)
    gelu_of([limit - 0.1, 0.1 - limit])
    for value in (limit + 0.1, -limit - 0.1):
        with pytest.raises(RangeExceededError, match=r"v reached a value beyond .*--range-bits"):
            gelu_of([value])


# LayerNormalization.


def norm(width: int, epsilon: float = 1e-5, gamma: float = 1.0) -> Case:
    return Case(
        nodes=[node("LayerNormalization", "x", "gamma", "beta", axis=-1, epsilon=epsilon)],
        x=[2, width],
        y=[2, width],
        constants=[
            vector("gamma", *[gamma] * width),
            vector("beta", *(0.25 * np.arange(width))),
        ],
    )


def normalised(rows: list[list[float]], case: Case) -> np.ndarray:
    arrays = {"x": np.array(rows, dtype=np.float32)}
    found = checked(hinted_chunk(case.proto()), arrays)["y"] / 2.0**NUMBERS.scale
    exact = run_float(case.proto(), arrays)["y"]
    # The root is right to one in 2^10 or better here.
    np.testing.assert_allclose(found, exact, rtol=2**-10, atol=1.5 / 128)
    return np.asarray(found)


@pytest.mark.parametrize("epsilon", [0.0, 1e-12, 1e-5, 0.01, 3.0])
@pytest.mark.parametrize("width", [1, 2, 4, 33])
def test_constant_row_is_its_beta(width: int, epsilon: float) -> None:
    """No variance: what ONNX gives, however small epsilon is (for 0 it gives no number)."""
    case = norm(width, epsilon=epsilon)
    arrays = {"x": np.array([[3.0] * width, [-30.0] * width], dtype=np.float32)}
    found = checked(hinted_chunk(case.proto()), arrays)["y"] / 2.0**NUMBERS.scale
    np.testing.assert_array_equal(found, [0.25 * np.arange(width)] * 2)


def test_negative_epsilon_is_refused() -> None:
    with pytest.raises(NotHintedError, match="negative epsilon"):
        hinted_chunk(norm(4, epsilon=-0.5).proto())


def test_rows_of_any_mean_are_centred_exactly() -> None:
    row = np.array([0.5, -0.25, 1.0, 0.75])
    first, second = normalised([row.tolist(), (row + 25).tolist()], norm(4))
    np.testing.assert_array_equal(first, second)


def test_variance_that_epsilon_holds_up_is_normalised() -> None:
    normalised([[0.0, 1 / 128, 0.0, -1 / 128], [1 / 128] * 3 + [0.0]], norm(4, epsilon=0.002))


@pytest.mark.parametrize("epsilon", [0.0, 1e-12, 1e-5])
def test_least_variance_is_normalised(epsilon: float) -> None:
    """One element is one quantum off the others."""
    rows = [[1 / 128, 0.0, 0.0, 0.0], [5.0, 5.0 - 1 / 128, 5.0, 5.0]]
    normalised(rows, norm(4, epsilon=epsilon))


def test_result_of_a_normalisation_beyond_the_range_is_refused() -> None:
    case = norm(4, gamma=30.0)
    normalised([[0.0, 1.0, 0.0, 1.0]] * 2, case)
    with pytest.raises(RangeExceededError, match=r"y reached a value beyond .*--range-bits"):
        normalised([[0.0, 0.0, 0.0, 1.0]] * 2, case)


# A whole layer.

SIZE = EncoderSize(width=8, heads=2, hidden=16, tokens=4)


@pytest.mark.parametrize("kind", sorted(ALL_NUMBERS))
def test_encoder_layer_in_two_chunks_is_near_the_real_one(kind: str, tmp_path: Path) -> None:
    """Exp and Erf have a table each, so a circuit each: the cut is behind the attention."""
    proto, numbers = build_encoder(SIZE), ALL_NUMBERS[kind]
    cut = "layer0.attention.norm_out"
    chunks = hinted_chunks(proto, numbers, cuts=[cut], columns=2)
    drawn = np.random.default_rng(1).normal(size=(1, SIZE.tokens, SIZE.width)).clip(-2, 2)
    arrays = {"embeddings": drawn.astype(np.float32)}
    whole = chunks[0].quantised(arrays)
    for index, chunk in enumerate(chunks):
        folder = tmp_path / str(index)
        folder.mkdir()
        assert accepted(chunk, whole, folder)
        whole = checked_whole(chunk, whole)
    found = whole["hidden"] / 2.0**numbers.scale
    exact = run_float(proto, arrays)["hidden"]
    np.testing.assert_allclose(found, exact, rtol=0, atol=4 * ERRORS[kind])


def test_encoder_layer_in_one_chunk_is_refused() -> None:
    with pytest.raises(ChunkingError, match="a circuit with Exp cannot have Erf as well"):
        hinted_chunk(build_encoder(SIZE))


# Random shapes.


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_random_attention_and_normalisation_give_the_loops_integers(data: st.DataObject) -> None:
    draw = data.draw
    tokens, heads, size = draw(st.integers(1, 5)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    width = heads * size
    scale = draw(st.integers(6, 8))
    numbers = Arithmetic(scale=scale, logrows=scale + 3, range_bits=5)
    # No score comes near the range's end.
    small = numpy_helper.to_array(dense(width, width)) / 4
    nodes = [
        node("MatMul", "x", "w", to="g"),
        node("Reshape", "g", "split", to="s"),
        node("Transpose", "s", to="q", perm=[0, 2, 1, 3]),
        node("Transpose", "s", to="k", perm=[0, 2, 3, 1]),
        node("MatMul", "q", "k", to="scores"),
        node(draw(st.sampled_from(["Mul", "Div"])), "scores", "root", to="scaled"),
        node("Softmax", "scaled", to="shares", axis=-1),
        node("MatMul", "shares", "q", to="c"),
        node("Transpose", "c", to="o", perm=[0, 2, 1, 3]),
        node("Reshape", "o", "join", to="j"),
        node("Add", "j", "x", to="a"),
        node("LayerNormalization", "a", "gamma", "beta", axis=-1, epsilon=0.02),
    ]
    case = Case(
        nodes=nodes,
        x=[1, tokens, width],
        y=[1, tokens, width],
        constants=[
            numpy_helper.from_array(small, "w"),
            integers("split", 1, tokens, heads, size),
            integers("join", 1, tokens, width),
            number("root", draw(st.sampled_from([math.sqrt(2), 2.0, 0.5, 1.0, 0.3]))),
            weight("gamma", width),
            weight("beta", width),
        ],
    )
    chunk = hinted_chunk(case.proto(), numbers, columns=draw(st.integers(1, 3)))
    checked(chunk, inputs(case, numbers, draw(st.integers(0, 99))))


# Refusals.

REFUSED = {
    "normalised sum of numbers too fine for one rounding": (
        Case(
            nodes=[
                node("LayerNormalization", "x", "gamma", "beta", to="n", axis=-1),
                node("Add", "n", "x"),
            ],
            x=[2, 64],
            y=[2, 64],
            constants=[weight("gamma", 64), weight("beta", 64)],
        ),
        "weights are too large for their scale",
    ),
    "softmax over the first axis": (
        Case(nodes=[node("Softmax", "x", axis=0)], x=[3, 4], y=[3, 4]),
        "another axis than the last",
    ),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_has_no_hinted_form_is_refused(name: str) -> None:
    case, message = REFUSED[name]
    with pytest.raises(NotHintedError, match=message):
        hinted_chunk(case.proto())


@pytest.mark.parametrize(
    ("keys", "logrows", "takes"),
    [
        (5, 8, "2^9 rows or 2^10 alone"),
        (5, 9, ""),
        (5, 10, ""),
        (5, 11, "2^9 rows or 2^10 alone"),
        (64, 9, ""),
        (65, 9, "2^10 rows alone"),
        (65, 10, ""),
        (65, 11, "2^10 rows alone"),
    ],
)
def test_softmax_in_a_circuit_of_other_rows_than_its_table_wants_is_refused(
    keys: int, logrows: int, takes: str
) -> None:
    """With fewer its scores would be cut off; with more its table's end is more than ezkl holds."""
    proto = Case(nodes=[node("Softmax", "x", axis=-1)], x=[2, keys], y=[2, keys]).proto()
    numbers = Arithmetic(scale=6, logrows=logrows, range_bits=4)
    if not takes:
        hinted_chunk(proto, numbers)
        return
    with pytest.raises(NotHintedError, match=re.escape(f"circuits of {takes}")):
        hinted_chunk(proto, numbers)


def test_deep_table_is_ezkls_at_every_entry(tmp_path: Path) -> None:
    """All arguments from the beginning to the top: exp(16) 2^6 and what Python's power gives."""
    numbers = Arithmetic(scale=6, logrows=10, range_bits=4)
    proto = Case(nodes=[node("Softmax", "x", axis=-1)], x=[4, 32], y=[4, 32]).proto()
    chunk = hinted_chunk(proto, numbers, salted=False)
    circuit, witness = compiled(chunk, tmp_path), tmp_path / "witness.json"
    for start in range(0, numbers.divisor, 124):
        # One score at the top of every row, and 31 others.
        below = np.zeros((4, 32), dtype=np.int64)
        below[:, 1:] = np.minimum(start + np.arange(124), numbers.divisor - 1).reshape(4, 31)
        vector = chunk.advice({"x": 500 - below})
        found = backend.generate_witness("chunk-000", [vector], circuit, witness)
        assert found.outputs == evaluated(chunk, vector), start
        assert ezkl.mock(str(witness), str(circuit))


@pytest.mark.parametrize("keys", [1, 2, 8, 9, 16, 17, 64, 65, 197])
def test_rows_of_any_length_are_pinned(keys: int) -> None:
    """Groups of rows' elements of all sizes; tops at every place, and tied ones."""
    numbers = DEEP if keys > 64 else NUMBERS
    draw = np.random.default_rng(keys)
    rows = [draw.normal(size=keys).clip(-4, 4) for _ in range(3)]
    rows += [np.where(np.arange(keys) == place, 3.0, -1.0) for place in (0, keys // 2, keys - 1)]
    rows += [np.where(np.arange(keys) % 7 == keys % 7, 1.0, 0.5), np.zeros(keys)]
    scores = np.rint(np.array(rows) * 128) / 128
    found = softmax_of(*scores.tolist(), numbers=numbers)
    exact = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, exact, rtol=0, atol=0.75 / 128)
