"""Products checked by a challenge: the same integers, and an identity of all that is rounded."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.unit.chunking import hinted_cases as operators
from tests.unit.chunking import hinted_circuit
from tests.unit.chunking import test_hinted_decisions as decisions
from tests.unit.chunking import test_hinted_exponentials as exponentials
from tests.unit.chunking import test_hinted_functions as functions
from tests.unit.chunking import test_hinted_quotients as quotients
from tests.unit.chunking import test_hinted_tables as tables
from tests.unit.chunking.hinted_circuit import (
    CHALLENGES,
    NUMBERS,
    HintedChunk,
    answered,
    checked,
    hinted_chunk,
)
from zkml_ray.chunking.hinted import challenge as emitted
from zkml_ray.chunking.hinted import settle
from zkml_ray.chunking.hinted.extract import INPUT
from zkml_ray.chunking.hinted.numbers import Arithmetic
from zkml_ray.chunking.hinted.recipe import METADATA_KEY, advice_of, products_of
from zkml_ray.commitments.challenge import value_at, weighted
from zkml_ray.commitments.field import MODULUS

CASES = {
    **{name: (case, NUMBERS) for name, case in operators.CASES.items()},
    **{name: (case, functions.ALL_NUMBERS["scale 7"]) for name, case in functions.CASES.items()},
    **{f"table, {name}": (case, NUMBERS) for name, case in tables.CASES.items()},
    **{f"quotient, {name}": (case, NUMBERS) for name, case in quotients.CASES.items()},
    **{f"decision, {name}": (case, decisions.NUMBERS) for name, case in decisions.CASES.items()},
    **{
        f"exponential, {name}": (case, exponentials.NUMBERS["deep"])
        for name, case in exponentials.CASES.items()
    },
}


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every form is held by the identity, cheaper or not."""
    monkeypatch.setattr(settle, "is_cheaper", lambda *_: True)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("name", sorted(CASES))
def test_circuit_fed_by_the_recipe_gives_the_loops_integers(name: str) -> None:
    case, numbers = CASES[name]
    checked(hinted_chunk(case.proto(), numbers, challenge=True), operators.inputs(case, numbers))


WIDE = {
    "two digits": Arithmetic(scale=13, logrows=15, range_bits=5),
    "far": Arithmetic(scale=13, logrows=16, range_bits=8),
}
"""Constants of sums take more than one float32."""


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("which", sorted(WIDE))
@pytest.mark.parametrize("bias", [(8,), (6, 8)])
def test_constants_of_several_parts_are_those_of_packed_sums(
    bias: tuple[int, ...], which: str
) -> None:
    """A bias of channels, and one that every row has another of."""
    added = np.random.default_rng(5).normal(size=bias).astype(np.float32)
    case = operators.Case(
        nodes=[operators.node("MatMul", "x", "w", to="s"), operators.node("Add", "s", "b")],
        x=[6, 8],
        y=[6, 8],
        constants=[operators.dense(8, 8), numpy_helper.from_array(added, "b")],
    )
    chunk = hinted_chunk(case.proto(), WIDE[which], challenge=True)
    steps = [s for s in recipe_of(chunk)["steps"] if s["do"] == "settle" and s["challenged"]]
    assert any(len(step["constants"]) > 1 for step in steps)
    checked(chunk, operators.inputs(case, WIDE[which]))


SEVERAL = (
    "block with a shortcut",
    "conv, relu, max pool",
    "product of heads",
    "masked attention",
)
"""Circuits of several forms, pooled ones, products of two activations, moved and masked rows."""


def challenged(name: str) -> tuple[HintedChunk, list[int]]:
    """A circuit, and its input as the recipe makes it."""
    case, numbers = CASES[name]
    chunk = hinted_chunk(case.proto(), numbers, challenge=True)
    return chunk, chunk.advice(chunk.quantised(operators.inputs(case, numbers)))


def error_of(chunk: HintedChunk, vector: list[int]) -> int:
    """E, whatever is looked up."""
    return answered(chunk, vector, CHALLENGES, end=-1)[-1][-2]


def powers_of_equations(chunk: HintedChunk) -> list[int]:
    """tau^f rho^i sigma^j of every equation of every form, from the recipe's sizes."""
    c, found = CHALLENGES, []
    steps = [s for s in recipe_of(chunk)["steps"] if s["do"] == "settle" and s["challenged"]]
    for form, step in enumerate(steps, start=1):
        t, a, b, p = step["layout"]
        assert p == 1
        found += [
            pow(c.tau, form, MODULUS) * pow(c.rho, i, MODULUS) * pow(c.sigma, j, MODULUS) % MODULUS
            for i in range(1, t * a + 1)
            for j in range(1, b + 1)
        ]
    return found


def recipe_of(chunk: HintedChunk) -> dict[str, Any]:
    """Its document."""
    model = onnx.ModelProto.FromString(chunk.data)
    return json.loads(next(e.value for e in model.metadata_props if e.key == METADATA_KEY))


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("name", SEVERAL)
def test_every_equation_has_a_power_of_its_own_and_every_hint_is_in_one(name: str) -> None:
    chunk, vector = challenged(name)
    advice = advice_of(onnx.ModelProto.FromString(chunk.data))
    places = advice.looked_up()[advice.hints.places]
    blinders = {
        place
        for start, count in recipe_of(chunk)["blinders"]
        for place in range(start, start + count)
    }
    assert error_of(chunk, vector) == 0
    slopes: Counter[int] = Counter()
    for index, place in enumerate(places.tolist()):
        changed = list(vector)
        changed[place] += 1
        slope = error_of(chunk, changed)
        if index in blinders:
            assert slope == 0
        slopes[slope] += 1
    powers = powers_of_equations(chunk)
    assert len(set(powers)) == len(powers)
    # A remainder's lowest digit is in its own equation alone, with factor -1.
    for power in powers:
        assert slopes[-power % MODULUS] == 1


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("name", SEVERAL)
def test_nothing_but_the_leaf_is_made_of_challenges(name: str) -> None:
    chunk, _ = challenged(name)
    graph = onnx.ModelProto.FromString(chunk.data).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    assert [value.name for value in graph.input][-1] == emitted.CHALLENGES
    assert {value.name for value in graph.input} <= {INPUT, emitted.WEIGHTED, emitted.CHALLENGES}
    made = {emitted.CHALLENGES, emitted.WEIGHTED}
    read: Counter[int] = Counter()
    for node in graph.node:
        if not made.intersection(node.input):
            continue
        assert node.op_type in {"Gather", "Concat", "Reshape", "Einsum", "Mul", "Add", "Sub"} | {
            "ReduceSum"
        }
        made.update(node.output)
        if node.op_type == "Gather" and node.input[0] == emitted.WEIGHTED:
            read.update(constants[node.input[1]].tolist())
    assert [v.name for v in graph.output if v.name in made] == [emitted.LEAF]
    # Every w' is one product's.
    depth = sum(len(weights) for weights in products_of(chunk.data) or [])
    assert read == Counter(range(depth))


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("name", ["block with a shortcut", "conv, relu, max pool"])
def test_one_weight_by_one_quantum_is_an_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chunk, vector = challenged(name)
    products = products_of(chunk.data) or []
    draw = np.random.default_rng(2)
    for which, weights in enumerate(products):
        honest = value_at(weighted(products, CHALLENGES.sigma), CHALLENGES.t)
        errors = []
        for row in range(min(len(weights), 12)):
            others = [array.copy() for array in products]
            others[which][row, draw.integers(weights.shape[1])] += 1
            assert value_at(weighted(others, CHALLENGES.sigma), CHALLENGES.t) != honest
            with monkeypatch.context() as patched:
                patched.setattr(hinted_circuit, "products_of", lambda _, found=others: found)
                errors.append(error_of(chunk, vector))
        # What a weight multiplies may be zero throughout, behind a ReLU.
        assert any(errors)


def test_only_what_is_cheaper_is_held_by_a_challenge() -> None:
    small, large = (
        hinted_chunk(
            operators.Case(
                nodes=[operators.node("MatMul", "x", "w")],
                x=[2, size],
                y=[2, size],
                constants=[operators.dense(size, size)],
            ).proto(),
            NUMBERS,
            challenge=True,
        )
        for size in (2, 64)
    )
    assert products_of(small.data) is None
    assert [w.shape for w in products_of(large.data) or []] == [(64, 64)]
