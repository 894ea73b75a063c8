"""The chunk graph as places on a page: a column a stage, long graphs in several rows.

A chunk's stage is the length of the longest way to it from an input: chunks of one stage need
nothing of each other. Inputs stand at stage 0, outputs one stage after their producer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from zkml_ray.schema.plan import BoundaryPlan, Plan

COLUMNS: Final = 8
"""Stages in a row of a small graph."""
MANY_COLUMNS: Final = 19
"""Stages in a row of a large one."""
MANY: Final = 60
"""Stages from which on a graph counts as large."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a chunk, an input or an output stands.

    Attributes:
        name: The chunk's id, or the boundary's name.
        kind: What it is: "chunk", "input" or "output".
        stage: Its stage.
        column: Its column in its row.
        line: Its line, from the top of the page.
    """

    name: str
    kind: str
    stage: int
    column: int
    line: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """A boundary from its source to one of those that read it."""

    boundary: BoundaryPlan
    source: Place
    target: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """Places and edges, and how much room they take."""

    places: tuple[Place, ...]
    edges: tuple[Edge, ...]
    columns: int
    lines: float
    large: bool


def stages(plan: Plan) -> dict[str, int]:
    """Per chunk, its stage, from 1."""
    known = {boundary.name: boundary for boundary in plan.boundaries}
    found: dict[str, int] = {}
    for chunk in plan.chunks:
        producers = [known[name].producer for name in chunk.inputs if name in known]
        found[chunk.id] = 1 + max((found.get(p, 0) for p in producers if p is not None), default=0)
    return found


def drawing(plan: Plan) -> Drawing:
    """Where everything stands."""
    at = stages(plan)
    columns_of: dict[int, list[tuple[str, str]]] = {}
    for name in plan.model_inputs:
        columns_of.setdefault(0, []).append((name, "input"))
    for chunk in plan.chunks:
        columns_of.setdefault(at[chunk.id], []).append((chunk.id, "chunk"))
    known = {boundary.name: boundary for boundary in plan.boundaries}
    for name in plan.model_outputs:
        producer = known[name].producer
        stage = 1 + (at.get(producer, 0) if producer else 0)
        columns_of.setdefault(stage, []).append((name, "output"))
    last = max(columns_of)
    large = last >= MANY
    width = MANY_COLUMNS if large else min(COLUMNS, last + 1)
    tallest: dict[int, int] = {}
    for stage, members in columns_of.items():
        row = stage // width
        tallest[row] = max(tallest.get(row, 0), len(members))
    top: dict[int, float] = {}
    lines = 0.0
    for row in range(last // width + 1):
        top[row] = lines
        lines += tallest.get(row, 1) + 0.35
    places: dict[tuple[str, str], Place] = {}
    for stage, members in sorted(columns_of.items()):
        row = stage // width
        spare = (tallest[row] - len(members)) / 2
        for index, (name, kind) in enumerate(members):
            places[kind, name] = Place(
                name=name,
                kind=kind,
                stage=stage,
                column=stage % width,
                line=top[row] + spare + index,
            )
    edges = []
    for boundary in plan.boundaries:
        key = ("chunk", boundary.producer) if boundary.producer else ("input", boundary.name)
        source = places.get((str(key[0]), str(key[1])))
        targets = [places.get(("chunk", consumer)) for consumer in boundary.consumers]
        if boundary.name in plan.model_outputs:
            targets.append(places.get(("output", boundary.name)))
        if source is not None:
            edges += [
                Edge(boundary=boundary, source=source, target=target)
                for target in targets
                if target is not None
            ]
    return Drawing(
        places=tuple(places.values()), edges=tuple(edges), columns=width, lines=lines, large=large
    )
