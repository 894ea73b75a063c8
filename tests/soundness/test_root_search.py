"""Every root that a normalisation's equations leave, tried without ezkl, at the ends of its range.

The emitted nodes are computed over whole numbers, with a table that ends where ezkl's does. Rows
have the largest deviation that values can have, the least, none, and others: what is asked is which
roots pass, and how far the outputs that follow from them move.
"""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from tests.soundness.hinted_forger import Change, Forger, nothing, root_off_by
from tests.unit.chunking.hinted_cases import Case, node
from tests.unit.chunking.hinted_circuit import (
    HintedChunk,
    OutsideTableError,
    checked_whole,
    evaluated,
    hinted_chunk,
)
from zkml_ray.chunking.hinted.numbers import Arithmetic
from zkml_ray.chunking.hinted.recipe import _entry, filled, whole

Ints = NDArray[np.int64]

NUMBERS = [(7, 10, 5), (7, 10, 10), (4, 8, 8), (8, 11, 0), (8, 14, 4), (10, 14, 11)]
"""Scale, log2 of the rows, range bits; two roots of the second moved an output by 11 % once."""

WIDTHS = (2, 3, 16, 64)


def rows(numbers: Arithmetic, width: int) -> Ints:
    """Rows of whole numbers: the ends of what a normalisation can meet."""
    top = (numbers.divisor - 1) * sum(1 << numbers.overlap_bits * i for i in range(numbers.digits))
    low, high = -numbers.offset, min(numbers.offset, top - numbers.offset)
    place = np.arange(width)
    draw = np.random.default_rng(width)
    found = [
        np.where(place % 2, low, high),
        np.where(place == 0, high, low),
        np.where(place == 1, 1, 0) + high - 1,
        np.full(width, low),
        np.zeros(width),
        draw.integers(low, high, size=width),
        np.rint(draw.normal(size=width) * 2.0**numbers.scale).clip(low, high),
    ]
    return np.array(found, dtype=np.int64)


def normalisation(numbers: Arithmetic, width: int, epsilon: float, bound: float) -> HintedChunk:
    """A chunk of one normalisation, whose outputs stay in range."""
    count = len(rows(numbers, width))
    gamma = np.full(width, min(1.0, bound / np.sqrt(width)), dtype=np.float32)
    case = Case(
        nodes=[node("LayerNormalization", "x", "gamma", "beta", axis=-1, epsilon=epsilon)],
        x=[count, width],
        y=[count, width],
        constants=[
            numpy_helper.from_array(gamma, "gamma"),
            numpy_helper.from_array(np.zeros(width, dtype=np.float32), "beta"),
        ],
    )
    return hinted_chunk(case.proto(), numbers, salted=False)


def exact(chunk: HintedChunk, x: Ints, epsilon: float, bound: float) -> NDArray[np.float64]:
    """The real outputs; of rows without variance beta, whatever epsilon is."""
    real = x / 2.0**chunk.numbers.scale
    centred = real - real.mean(axis=1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=1, keepdims=True) + epsilon)
    deviation[deviation == 0] = 1.0
    found: NDArray[np.float64] = centred / deviation * min(1.0, bound / np.sqrt(x.shape[1]))
    return found


def tried(chunk: HintedChunk, x: Ints, change: Change) -> Ints | None:
    """The outputs of a prover who changes hints; None if a check fails."""
    model = onnx.ModelProto.FromString(chunk.data)
    arrays = {t.name: whole(numpy_helper.to_array(t)) for t in model.graph.initializer}
    forger = Forger(chunk.numbers, arrays.__getitem__, "chunk-000")
    for step in json.loads(_entry(model))["steps"]:
        forger.take(step, {"x": x})
        change(forger, step)
    vector = filled(model, np.concatenate(forger.hints), x.ravel().tolist())
    try:
        leaves = evaluated(chunk, vector, end=(1 << chunk.numbers.logrows) - 8)
    except OutsideTableError:
        return None
    return chunk.outputs(leaves)["y"]


@pytest.mark.parametrize("epsilon", [0.0, 1e-5])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("scale", "logrows", "range_bits"), NUMBERS)
def test_rows_at_the_ends_of_the_range_are_normalised(
    scale: int, logrows: int, range_bits: int, width: int, epsilon: float
) -> None:
    """Within what the weights' rounding, one step of a root and the result's rounding make."""
    numbers = Arithmetic(scale=scale, logrows=logrows, range_bits=range_bits)
    bound = 2.0**range_bits * 0.9
    chunk, x = normalisation(numbers, width, epsilon, bound), rows(numbers, width)
    found = checked_whole(chunk, {"x": x})["y"]
    real = exact(chunk, x, epsilon, bound) * 2.0**scale
    most = 0.5 + np.abs(real) * (2.0 ** -(scale + 1) + 4 / numbers.divisor)
    assert (np.abs(found - real) <= most + 1e-6).all()


@pytest.mark.parametrize("width", [2, 16])
@pytest.mark.parametrize(("scale", "logrows", "range_bits"), NUMBERS)
def test_no_accepted_root_moves_an_output_beyond_what_is_published(
    scale: int, logrows: int, range_bits: int, width: int
) -> None:
    """Outputs move by 2^-(scale + 1) of themselves at most, and by their own rounding."""
    numbers = Arithmetic(scale=scale, logrows=logrows, range_bits=range_bits)
    bound = 2.0**range_bits * 0.9
    chunk, x = normalisation(numbers, width, 1e-5, bound), rows(numbers, width)
    honest = tried(chunk, x, nothing)
    assert honest is not None
    passed = 0
    for row in range(len(x)):
        found = {a: tried(chunk, x, root_off_by(a, row=row)) for a in (-3, -2, -1, 1, 2, 3)}
        assert [a for a in (-3, -2, 2, 3) if found[a] is not None] == []
        for forged in (found[-1], found[1]):
            if forged is not None:
                passed += 1
                moved = np.abs(forged - honest)
                assert (moved <= 1 + np.abs(honest) / 2.0 ** (scale + 1)).all()
    assert passed >= len(x)
