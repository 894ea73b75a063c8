"""The rounding that circuits leave free: what a prover who exploits it gets, and cannot pass."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.rounding_slack import (
    DigitsModel,
    Integers,
    admitted,
    attack,
    first_order_bound,
)
from zkml_ray import PlanOptions, names
from zkml_ray.api import advance, prepare
from zkml_ray.schema.checkpoint import BoundaryCheckpoint
from zkml_ray.schema.plan import Plan
from zkml_ray.stores.layout import RunLayout
from zkml_ray.stores.local import LocalStore


@pytest.fixture(scope="module")
def model(digits: Path) -> DigitsModel:
    return DigitsModel(digits / "digits.onnx")


def image_of(model: DigitsModel, path: Path) -> Integers:
    return model.quantised(np.asarray(json.loads(path.read_text())["input_data"][0]))


def test_integers_of_the_attacked_model_are_those_that_circuits_compute(
    model: DigitsModel, digits: Path, tmp_path: Path
) -> None:
    """Otherwise the figures below would be about another model than the circuits'."""
    prepare(
        digits / "digits.onnx",
        digits / "seven.json",
        store=tmp_path,
        run_id="seven",
        options=PlanOptions(layers_per_chunk=1, passes=(), circuits="native"),
    )
    advance("seven", "witness", store=tmp_path)
    store, layout = LocalStore(tmp_path), RunLayout("default", "seven")
    plan = Plan.parse(store.get(layout.run_key(names.PLAN), max_bytes=1 << 20), what="plan")
    trace = model.run(image_of(model, digits / "seven.json"))
    layers = {"image": 0, "pool1_out": 1, "pool2_out": 2, "relu3_out": 3, "logits": 4}
    met = 0
    for index, boundary in enumerate(plan.boundaries):
        data = store.get(layout.run_key(names.checkpoint(index)), max_bytes=1 << 20)
        values = BoundaryCheckpoint.parse(data, what=boundary.name).values
        if boundary.name in layers:
            assert list(trace.values[layers[boundary.name]]) == list(values), boundary.name
            met += 1
    assert met >= 3, f"the plan's boundaries are {[b.name for b in plan.boundaries]}"


@pytest.mark.parametrize("digit", ["zero", "seven"])
def test_prover_who_exploits_rounding_moves_outputs_within_the_bounds(
    model: DigitsModel, digits: Path, digit: str
) -> None:
    image = image_of(model, digits / f"{digit}.json")
    honest = model.run(image)
    assert admitted(model, honest)
    rigorous = model.rigorous_bound()
    for output in range(10):
        direction = np.eye(10)[output]
        cheated = attack(model, image, direction, climb=False)
        assert admitted(model, cheated)
        moved = int(cheated.values[-1][output] - honest.values[-1][output])
        assert 5 <= moved <= first_order_bound(model, honest, direction) <= rigorous[output]


def test_prover_who_exploits_rounding_does_not_change_the_digit(
    model: DigitsModel, digits: Path
) -> None:
    image = image_of(model, digits / "seven.json")
    honest = model.run(image).values[-1]
    assert int(honest.argmax()) == 7
    for other in set(range(10)) - {7}:
        direction = np.eye(10)[other] - np.eye(10)[7]
        assert int(attack(model, image, direction, climb=True).values[-1].argmax()) == 7


def test_quotient_beyond_the_neighbours_is_not_admitted(model: DigitsModel, digits: Path) -> None:
    trace = model.run(image_of(model, digits / "seven.json"))
    trace.quotients[3] = trace.quotients[3].copy()
    trace.quotients[3][0] += 2
    assert not admitted(model, trace)
