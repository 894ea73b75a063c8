"""Choosing the rows of a circuit whose load is known, before any settings are made for it."""

from __future__ import annotations

from collections.abc import Iterable
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


def better_size(sizes: Iterable[Sized | None], memory_bytes: int | None) -> Sized | None:
    """The one that is proved soonest within the memory; else the one that takes least memory.

    Args:
        sizes: Sizes of one circuit; of equal ones the first is taken.
        memory_bytes: Memory to keep within; None: any.

    Returns:
        None where there is no size at all.
    """
    best: tuple[bool, float] | None = None
    chosen: Sized | None = None
    for size in sizes:
        if size is None:
            continue
        over = memory_bytes is not None and size.peak_bytes > memory_bytes
        rank = (over, float(size.peak_bytes) if over else round(size.seconds, 6))
        if best is None or rank < best:
            best, chosen = rank, size
    return chosen


def best_size(load: Load, model: CostModel, memory_bytes: int | None) -> Sized | None:
    """The size that is proved soonest within the memory; else the one that takes least memory.

    Returns:
        None where not even the largest circuit holds the load.
    """
    return better_size(
        (
            Sized(
                geometry=geometry,
                seconds=model.prove_s(geometry),
                peak_bytes=model.peak_bytes(geometry),
            )
            for geometry in load.geometries()
        ),
        memory_bytes,
    )
