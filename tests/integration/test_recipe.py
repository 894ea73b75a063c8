"""A hinted chunk's recipe as a forward pass: the integers that ezkl computes."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from benchmarks.accuracy import OurModel
from benchmarks.models.registry import MODELS
from zkml_ray import PlanOptions
from zkml_ray.chunking.hinted.recipe import Recipe
from zkml_ray.chunking.load import load_model
from zkml_ray.errors import RangeExceededError
from zkml_ray.stages.plan import plan

DIGITS = MODELS["digits"]


def test_recipes_give_every_boundary_the_integers_of_a_real_run(tmp_path: Path) -> None:
    options = PlanOptions(scale=11, circuits="hinted", layers_per_chunk=2)
    circuits = plan(load_model(DIGITS.path), options)
    assert len(circuits.plan.chunks) == 2
    model = OurModel(circuits, tmp_path)
    sample = DIGITS.inputs()[0]
    found = model.run(sample)
    assert found == model.as_in_a_run(sample)
    assert found.keys() == {boundary.name for boundary in circuits.plan.boundaries}


def test_a_recipe_refuses_values_beyond_the_circuit_s_range() -> None:
    circuits = plan(load_model(DIGITS.path), PlanOptions(scale=11, circuits="hinted", range_bits=5))
    first = circuits.plan.chunks[0]
    recipe = Recipe(onnx.load_model_from_string(circuits.files[first.id].onnx))
    name = first.inputs[0]
    count = circuits.plan.boundary(name).layout.element_count
    inside = recipe.solve({name: [1 << 11] * count}, first.id)
    assert inside.outgoing.keys() == set(first.outputs)
    with pytest.raises(RangeExceededError, match="range"):
        recipe.solve({name: [1 << 17] * count}, first.id)
