"""Reading and quantising a model's input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ezkl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from tests.unit.chunking.builders import model
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.normalize import normalise
from zkml_ray.commitments.field import decode_signed
from zkml_ray.commitments.packing import PackingSpec
from zkml_ray.errors import InputError
from zkml_ray.stages.inputs import quantise, read_inputs, store_form

SPEC = PackingSpec.for_decomposition(128, 4)
VALUES = np.arange(6, dtype=np.float32).reshape(1, 2, 3) / 8


def graph_of(*names: str) -> ModelGraph:
    nodes = [helper.make_node("Relu", [name], [f"y_{name}"], name) for name in names]
    shape = [1, 2, 3]
    proto = model(nodes, dict.fromkeys(names, shape), {f"y_{n}": shape for n in names})
    return ModelGraph(normalise(proto, {}))


ONE, TWO = graph_of("x"), graph_of("a", "b")


@pytest.mark.parametrize(
    "given_value",
    [
        VALUES,
        VALUES.astype(np.float64),
        VALUES.ravel(),
        VALUES.reshape(1, 6),
        VALUES.tolist(),
        [VALUES],
        (VALUES.ravel().tolist(),),
        {"x": VALUES},
    ],
    ids=["array", "float64", "flat", "row", "lists", "sequence", "tuple", "mapping"],
)
def test_arrays_in_any_accepted_form_are_the_same_input(given_value: Any) -> None:
    found = read_inputs(ONE, given_value)
    assert found.source.kind == "given"
    assert found.arrays["x"].dtype == np.float32
    np.testing.assert_array_equal(found.arrays["x"], VALUES)


def test_integers_are_accepted_as_numbers() -> None:
    found = read_inputs(ONE, np.arange(6, dtype=np.uint8))
    np.testing.assert_array_equal(found.arrays["x"].ravel(), np.arange(6))


def test_truth_values_are_ones_and_zeros() -> None:
    found = read_inputs(ONE, np.arange(6) % 2 == 1)
    np.testing.assert_array_equal(found.arrays["x"].ravel(), [0, 1, 0, 1, 0, 1])


def test_files_in_every_format_are_the_same_input(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"input_data": [VALUES.ravel().tolist()]}))
    (tmp_path / "b.json").write_text(json.dumps({"input_data": [VALUES.tolist()]}))
    np.save(tmp_path / "c.npy", VALUES)
    np.savez(tmp_path / "d.npz", x=VALUES)
    np.savez_compressed(tmp_path / "E.NPZ", x=VALUES)
    for path in sorted(tmp_path.iterdir()):
        np.testing.assert_array_equal(read_inputs(ONE, path).arrays["x"], VALUES)
        np.testing.assert_array_equal(read_inputs(ONE, str(path)).arrays["x"], VALUES)


@pytest.mark.parametrize("form", ["json", "npz", "sequence", "mapping", "reversed mapping"])
def test_two_inputs_in_any_form_go_to_their_names(tmp_path: Path, form: str) -> None:
    first, second = VALUES, VALUES + 1
    path = tmp_path / f"both.{form}"
    if form == "json":
        path.write_text(json.dumps({"input_data": [first.ravel().tolist(), second.tolist()]}))
    elif form == "npz":
        np.savez(path, b=second, a=first)
    forms: dict[str, Any] = {
        "json": path,
        "npz": path,
        "sequence": [first, second],
        "mapping": {"a": first, "b": second},
        "reversed mapping": {"b": second, "a": first},
    }
    found = read_inputs(TWO, forms[form])
    np.testing.assert_array_equal(found.arrays["a"], first)
    np.testing.assert_array_equal(found.arrays["b"], second)


def test_no_input_gives_a_seeded_random_one_that_says_so() -> None:
    first, again, other = (read_inputs(TWO, None, seed=seed) for seed in (3, 3, 4))
    assert (first.source.kind, first.source.seed) == ("random", 3)
    for name in ("a", "b"):
        np.testing.assert_array_equal(first.arrays[name], again.arrays[name])
        assert not np.array_equal(first.arrays[name], other.arrays[name])
        assert first.arrays[name].min() >= 0
        assert first.arrays[name].max() < 1
    assert not np.array_equal(first.arrays["a"], first.arrays["b"])


class Unreadable:
    """Fails when NumPy asks it for an array."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise ValueError("no array here")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (np.zeros((1, 3, 2), dtype=np.float32), r"shape \[1, 3, 2\].*expects \[1, 2, 3\]"),
        (np.zeros((2, 6), dtype=np.float32), "shape"),
        (np.zeros(5, dtype=np.float32), "6 numbers"),
        (np.float32(1), "shape"),
        (np.array([["a", "b", "c"], ["d", "e", "f"]]), "dtype"),
        (np.zeros(6, dtype=np.complex64), "dtype complex64"),
        (np.array([None] * 6), "dtype object"),
        ([[1, 2, 3], [4, 5]], "not one array"),
        (Unreadable(), "not one array"),
        (np.array([0, 1, np.nan, 3, 4, 5]), "element 2 is NaN or infinite"),
        (np.array([0, 1, 2, np.inf, 4, 5]), "element 3 is NaN or infinite"),
        (np.array([0, 1, 2, 3, -np.inf, 5]), "element 4"),
        (np.array([0, 1, 2, 3, 4, 1e300]), "element 5 does not fit float32"),
        ({"a": VALUES, "b": VALUES}, "missing: x"),
        ([VALUES, VALUES], "shape"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_with_the_reason(value: Any, why: str) -> None:
    with pytest.raises(InputError, match=why):
        read_inputs(ONE, value)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"a": VALUES}, "missing: b"),
        ({"a": VALUES, "b": VALUES, "c": VALUES}, "unknown: c"),
        ([VALUES], "2 inputs"),
        ([VALUES] * 3, "2 inputs"),
        (VALUES, "2 inputs"),
    ],
)
def test_two_inputs_wrongly_given_are_refused(value: Any, why: str) -> None:
    with pytest.raises(InputError, match=why):
        read_inputs(TWO, value)


@given(
    st.lists(st.floats(min_value=-200_000, max_value=200_000, width=32), min_size=1, max_size=8),
    st.integers(1, 10),
)
def test_quantised_values_are_those_of_ezkl(values: list[float], scale: int) -> None:
    array = np.array(values, dtype=np.float32)
    assert quantise("x", array, scale, SPEC) == [
        decode_signed(ezkl.float_to_felt(float(value), scale)) for value in array
    ]


@given(st.integers(-10_000, 10_000), st.integers(1, 10))
def test_quantised_halves_go_away_from_zero_as_in_ezkl(integer: int, scale: int) -> None:
    half = (integer + 0.5) / (1 << scale)
    (found,) = quantise("x", np.array([half], dtype=np.float32), scale, SPEC)
    assert found == (integer + 1 if integer >= 0 else integer)
    assert found == decode_signed(ezkl.float_to_felt(half, scale))


@pytest.mark.parametrize("sign", [1, -1])
def test_quantised_range_ends_at_the_packings_bound(sign: int) -> None:
    bound = SPEC.element_bound / 16
    exact = np.array([0, sign * np.floor(bound)], dtype=np.float32)
    assert quantise("x", exact, 4, SPEC)[1] == sign * int(np.floor(bound)) * 16
    beyond = np.array([0, sign * (bound + 1)], dtype=np.float32)
    with pytest.raises(InputError, match=r"element 1 .* outside the quantised range"):
        quantise("x", beyond, 4, SPEC)


def test_stored_input_does_not_let_its_digest_test_guesses() -> None:
    arrays = {"x": np.zeros((1, 2), dtype=np.float32)}
    digests = {store_form("run", arrays).digest() for _ in range(3)}
    assert len(digests) == 3
