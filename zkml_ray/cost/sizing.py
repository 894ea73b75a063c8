"""Choosing the rows of a circuit whose load is known, before any settings are made for it."""

from __future__ import annotations

from dataclasses import dataclass

from zkml_ray.cost.geometry import Geometry
from zkml_ray.cost.load import Load
from zkml_ray.cost.model import CostModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Sized:
    """A circuit's chosen size and what it is expected to cost."""

    geometry: Geometry
    seconds: float
    peak_bytes: int


def best_size(load: Load, model: CostModel, memory_bytes: int | None) -> Sized | None:
    """The size that is proved soonest within the memory; else the one that takes least memory.

    Returns:
        None where not even the largest circuit holds the load.
    """
    best: tuple[bool, float, int] | None = None
    chosen: Sized | None = None
    for geometry in load.geometries():
        seconds, peak = model.prove_s(geometry), model.peak_bytes(geometry)
        over = memory_bytes is not None and peak > memory_bytes
        rank = (over, float(peak) if over else seconds, geometry.logrows)
        if best is None or rank < best:
            best = rank
            chosen = Sized(geometry=geometry, seconds=seconds, peak_bytes=peak)
    return chosen
