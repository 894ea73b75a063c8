"""Whether hinted circuits hold what a model computes: their recipes, run on a random input.

No proof and no call of ezkl: a recipe is a forward pass of the quantised model. It finds whole
numbers beyond the range, divisors and logarithms of zero, before a plan is chosen; of other inputs
it says nothing.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx

from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.hinted.recipe import Recipe
from zkml_ray.circuits.derive import DerivedCircuits
from zkml_ray.errors import InputError, RangeExceededError
from zkml_ray.stages.inputs import quantise, read_inputs

TRIED: Final = frozenset({"Div", "Exp", "Floor", "Log", "Sign", "Sqrt"})
"""Operators for which ranges matter more than they do for sums."""


def range_failure(graph: ModelGraph, circuits: DerivedCircuits) -> str:
    """Why a plan's hinted circuits cannot be proved of a random input; "" if they can.

    Args:
        graph: The normalised model.
        circuits: All of them hinted.
    """
    plan = circuits.plan
    boundaries = {boundary.name: boundary for boundary in plan.boundaries}
    arrays = read_inputs(graph, None).arrays
    known = {}
    try:
        for name in plan.model_inputs:
            layout = boundaries[name].layout.layout()
            whole = quantise(name, arrays[name], boundaries[name].scale, layout.packing)
            known[name] = np.asarray(whole, dtype=np.int64)
        for chunk in plan.chunks:
            model = onnx.ModelProto.FromString(circuits.files[chunk.id].onnx)
            known.update(Recipe(model).solve(known, chunk.id).outgoing)
    except (InputError, RangeExceededError) as error:
        return error.message
    return ""
