"""Random small models with awkward attributes, shapes and numbers: right, or refused by name.

Ranks 0 to 5, broadcast shapes, factors of -1, 0, 1, tiny and huge ones, infinities and what is no
number. Nothing else may happen: no other exception, no warning, no wrong number.
"""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.unit.chunking.awkward import Made, Maker, tolerance
from tests.unit.chunking.hinted_circuit import evaluated, hinted_chunk
from tests.zoo.quantised import chained
from zkml_ray.chunking.hinted.forms import NotHintedError
from zkml_ray.chunking.hinted.numbers import Arithmetic
from zkml_ray.chunking.load import parse_model
from zkml_ray.circuits.derive import DerivedCircuits
from zkml_ray.cost.profiles import shipped_profile
from zkml_ray.errors import ChunkingError, ModelFormatError, RangeExceededError
from zkml_ray.stages.plan import CircuitKind, PlanOptions, plan

FINE = Arithmetic(scale=10, logrows=13, range_bits=5)
REACH = 28
"""No value that onnxruntime gives may leave the range while all of them are below this."""

NATIVE_SLACK = 0.02
"""ezkl's rounding accumulates; what the native circuits of these models were seen to need."""


def models(first: int, count: int, *, wild: bool) -> list[tuple[int, Made]]:
    """Models by seed; those in which no operator could be placed are left out."""
    found = []
    for seed in range(first, first + count):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            made = Maker(seed, wild=wild).made()
        if made is not None:
            found.append((seed, made))
    return found


def lowered(made: Made) -> str:
    """What becomes of a model whose circuit is made and evaluated over Python's integers.

    Raises:
        AssertionError: The circuit's numbers are wrong, or it has none and does not say why.
    """
    (name,) = (output.name for output in made.proto.graph.output)
    try:
        chunk = hinted_chunk(made.proto, FINE)
    except NotHintedError as error:
        assert error.node
        assert error.operator
        assert error.message.startswith(f"{error.operator} (node {error.node!r})")
        assert "bug" not in error.message, error.message
        return "refused"
    except ChunkingError:
        return "refused earlier"  # by normalisation, whose tests these are not
    try:
        advice = chunk.advice(chunk.quantised({"x": made.x}))
    except RangeExceededError:
        # Differences of two tensors may reach twice as far.
        assert max(float(np.abs(v).max()) for v in made.values.values()) > REACH / 2
        return "out of range"
    found = chunk.outputs(evaluated(chunk, advice))[name] / 2.0**FINE.scale
    np.testing.assert_allclose(
        found, made.values[name], rtol=0, atol=tolerance(made, 2.0**-FINE.scale, 1 / FINE.divisor)
    )
    return "right"


def planned(made: Made, kind: CircuitKind, folder: Path) -> str:
    """What becomes of a model that is planned, and run through ezkl's own forward pass.

    Raises:
        AssertionError: Numbers are wrong, or a refusal does not name a node and its operator.
    """
    (output,) = made.proto.graph.output
    options = PlanOptions(scale=FINE.scale, circuits=kind, workers=1)
    try:
        circuits: DerivedCircuits = plan(
            parse_model(made.proto.SerializeToString(), "awkward.onnx"), options, shipped_profile()
        )
    except ChunkingError as error:
        nodes = made.proto.graph.node
        if isinstance(error, ModelFormatError):  # a constant is not finite
            constants = made.proto.graph.initializer
            assert any(repr(tensor.name) in error.message for tensor in constants), error.message
            return "refused"
        assert any(node.name in error.message for node in nodes), error.message
        assert any(node.op_type in error.message for node in nodes), error.message
        assert "bug" not in error.message, error.message
        return "refused"
    try:
        found = chained(circuits, {"x": made.x}, folder)[output.name]
    except RangeExceededError:
        return "out of range"
    native = {chunk.arguments.kind for chunk in circuits.plan.chunks} != {"hinted"}
    bound = tolerance(made, 2.0**-FINE.scale, 2.0 ** -(FINE.scale + 2))
    exact = made.values[output.name].ravel()
    values = np.array(found.values) / 2.0**found.scale
    assert np.abs(values - exact).max() <= (4 * bound + NATIVE_SLACK if native else bound)
    return "native, right" if native else "right"


def counted(first: int, count: int, *, wild: bool) -> Counter[str]:
    found: Counter[str] = Counter()
    for seed, made in models(first, count, wild=wild):
        try:
            found[lowered(made)] += 1
        except Exception as error:
            pytest.fail(f"seed {seed}: {type(error).__name__}: {error}\n{made.text}")
    return found


def counted_plans(first: int, count: int, folder: Path, *, wild: bool) -> Counter[str]:
    found: Counter[str] = Counter()
    kinds: tuple[CircuitKind, ...] = ("auto", "hinted")
    for seed, made in models(first, count, wild=wild):
        for kind in kinds:
            try:
                found[planned(made, kind, folder / f"{seed} {kind}")] += 1
            except Exception as error:
                pytest.fail(f"seed {seed}, {kind}: {type(error).__name__}: {error}\n{made.text}")
    return found


def test_lowered_models_are_right_or_refused_by_name() -> None:
    found = counted(0, 120, wild=False) + counted(3000, 40, wild=True)
    assert found["right"] > 100, found
    assert found["refused"] > 5, found


def test_planned_models_are_right_or_refused_by_name(tmp_path: Path) -> None:
    found = counted_plans(0, 6, tmp_path, wild=False) + counted_plans(150, 6, tmp_path, wild=True)
    assert found["right"] > 8, found


@pytest.mark.slow
@pytest.mark.parametrize("first", range(200, 5200, 500))
def test_many_lowered_models_are_right_or_refused_by_name(first: int) -> None:
    found = counted(first, 500, wild=first >= 3200)
    assert found["right"] > 300, found


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 100, 200, 300])
def test_many_planned_models_are_right_or_refused_by_name(first: int, tmp_path: Path) -> None:
    found = counted_plans(first, 100, tmp_path, wild=first >= 200)
    assert found["right"] > 100, found
