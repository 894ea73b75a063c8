"""Proving layer by layer: tests that name chunks need cuts that no price can move."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zkml_ray import prove_distributed
from zkml_ray.api import Run
from zkml_ray.stages.plan import PlanOptions

# Tests name chunks: where the search would cut is not their matter. A hinted circuit has at least
# 2^(scale + 2) rows, so the scale is as small as accuracy allows.
BY_LAYER = PlanOptions(scale=8, layers_per_chunk=1)


def prove_layers(model: Path, *args: Any, **options: Any) -> Run:
    """`prove_distributed`, one chunk a layer."""
    return prove_distributed(model, *args, options=BY_LAYER, **options)
