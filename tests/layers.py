"""Proving layer by layer: tests that name chunks need cuts that no price can move."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zkml_ray import prove_distributed
from zkml_ray.api import Run
from zkml_ray.stages.plan import PlanOptions


def prove_layers(model: Path, *args: Any, **options: Any) -> Run:
    """`prove_distributed`, one chunk a layer."""
    return prove_distributed(model, *args, options=PlanOptions(layers_per_chunk=1), **options)
