"""Where to cut: contiguous segments of one topological order, by dynamic programming.

Nodes are ordered branch by branch, so that a segment of the order holds a whole branch before the
next one begins, and parallel branches can become chunks of their own. Nodes that no cut may
separate form a unit. What a segment of units costs is the caller's to say; this module finds the
segments.

The time until the last chunk is proved depends on how chunks are dealt out to workers, which no
sum expresses. So for a family of caps on the dearest chunk the cheapest segmentation in total is
found exactly, each is dealt out as the coordinator would, and the best one is taken; work counts a
little as well (`WORK_SHARE`). Ties are broken by total cost, then by fewer chunks: the result is a
function of the arguments alone.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.masked import masked_tensors
from zkml_ray.chunking.operators import SELECTING
from zkml_ray.errors import ChunkingError

MAX_CAPS: Final = 48
"""Caps that are tried; of more different segment costs, as many spread evenly."""

WORK_SHARE: Final = 0.1
"""A second sooner is worth up to ten seconds more work in all: chunks that share a machine's cores
slow each other down, and every chunk is a proof more to store and to verify."""

MOVING: Final = SELECTING - {"MaxPool"}
"""Operators that move elements and cost next to nothing: no chunk is made of them alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentCost:
    """What a segment costs as one chunk.

    Attributes:
        seconds: Seconds of proving.
        peak_bytes: Memory of the worker.
    """

    seconds: float
    peak_bytes: int


Costs = Mapping[tuple[int, int], SegmentCost]
"""(first unit, unit after the last) -> cost; a segment that is missing may not be a chunk."""


def makespan_s(seconds: Sequence[float], workers: int) -> float:
    """When the last chunk is proved: each goes, in order, to the first worker that is free.

    Args:
        seconds: What every chunk takes, in the order in which they are handed out.
        workers: Workers, at least 1.
    """
    free = [0.0] * workers
    for each in seconds:
        first = free.index(min(free))
        free[first] += each
    return max(free)


def branch_order(graph: ModelGraph) -> list[str]:
    """Node names, topologically ordered, branch by branch.

    A node follows its producers, the first one's whole branch before the second's. Nodes that
    lead to no output come last.
    """
    order: list[str] = []
    seen: set[str] = set()

    def visit(root: str) -> None:
        stack = [(root, False)]
        while stack:
            name, ready = stack.pop()
            if ready:
                order.append(name)
                continue
            if name in seen:
                continue
            seen.add(name)
            stack.append((name, True))
            makers = [graph.producer_of.get(value) for value in graph.nodes[name].input]
            stack += [(maker, False) for maker in reversed(makers) if maker and maker not in seen]

    for output in graph.outputs:
        if output in graph.producer_of:
            visit(graph.producer_of[output])
    for name in graph.nodes:
        visit(name)
    return order


def forbidden_positions(
    graph: ModelGraph, order: Sequence[str], fixed: Collection[str] = ()
) -> set[int]:
    """Positions of the order that no cut may be at.

    Position p lies before the p-th node. A cut there is forbidden when a tensor would cross it
    that is not float32, holds what drops keys of a softmax or is in `fixed`, or when it would part
    an operator that only moves elements from the one that makes them. One that repeats elements
    (the columns of a convolution) stays with its readers instead, and a Concat of branches with
    what comes next.

    Args:
        graph: The model.
        order: Its nodes, topologically ordered.
        fixed: Tensors that may not cross a cut.
    """
    place = {name: index for index, name in enumerate(order)}
    readers = graph.readers
    fixed = {*fixed, *masked_tensors(graph.nodes.values(), graph.initializers)}
    forbidden: set[int] = set()
    for index, name in enumerate(order):
        node = graph.nodes[name]
        for value in node.output:
            last = max((place[reader] for reader in readers.get(value, ())), default=index)
            if value and (value in fixed or not graph.tensor(value).is_float):
                forbidden.update(range(index + 1, last + 1))
        if node.op_type in MOVING:
            sources = [v for v in node.input if v in graph.producer_of]
            if any(_elements(graph, v) > _most_elements(graph, sources) for v in node.output):
                last = max((place[r] for v in node.output for r in readers.get(v, ())), default=0)
                forbidden.update(range(index + 1, last + 1))
            elif len(sources) == 1 and place[graph.producer_of[sources[0]]] == index - 1:
                forbidden.add(index)
    # What is left of them, such as a Concat of branches, goes with what comes next.
    start = 0
    for unit in units_of(order, forbidden):
        end = start + len(unit)
        if all(graph.nodes[name].op_type in MOVING for name in unit):
            forbidden.add(end if end < len(order) else start)
        start = end
    return forbidden - {0, len(order)}


def _elements(graph: ModelGraph, value: str) -> int:
    return math.prod(graph.tensor(value).shape)


def _most_elements(graph: ModelGraph, values: Sequence[str]) -> int:
    return max((_elements(graph, value) for value in values), default=0)


def units_of(order: Sequence[str], forbidden: Collection[int]) -> list[tuple[str, ...]]:
    """The order, cut at every position that is not forbidden."""
    units: list[list[str]] = []
    for index, name in enumerate(order):
        if not units or index not in forbidden:
            units.append([])
        units[-1].append(name)
    return [tuple(unit) for unit in units]


def best_cuts(
    count: int, costs: Costs, *, workers: int, memory_bytes: int | None, chunk_s: float = 0.0
) -> list[tuple[int, int]]:
    """The segments whose chunks are proved soonest on so many workers, without much more work.

    Args:
        count: Units.
        costs: What each possible segment costs.
        workers: Workers to plan for.
        memory_bytes: Most memory that a chunk may take; None: any.
        chunk_s: Seconds that every chunk takes besides proving.

    Returns:
        Segments (first unit, unit after the last), in order.

    Raises:
        ChunkingError: No segmentation keeps within the memory.
    """
    allowed = {
        segment: cost.seconds + chunk_s
        for segment, cost in costs.items()
        if memory_bytes is None or cost.peak_bytes <= memory_bytes
    }
    best: tuple[float, float, int] | None = None
    chosen: list[tuple[int, int]] = []
    for cap in _caps(allowed):
        found = cheapest_segments(count, allowed, cap)
        if found is None:
            continue
        seconds = [allowed[segment] for segment in found]
        total_s = sum(seconds)
        judged_s = makespan_s(seconds, workers) + WORK_SHARE * total_s
        rank = (round(judged_s, 6), round(total_s, 6), len(found))
        if best is None or rank < best:
            best, chosen = rank, found
    if best is None:
        raise ChunkingError("no way of cutting the model keeps every chunk within the memory")
    return chosen


def cheapest_segments(
    count: int, seconds: Mapping[tuple[int, int], float], cap: float
) -> list[tuple[int, int]] | None:
    """The segmentation of least total cost in which no segment costs more than the cap.

    Args:
        count: Units.
        seconds: Cost of each segment that may be used.
        cap: Highest cost of a segment.

    Returns:
        Its segments in order; None where there is none. Of equal totals, the one with fewer
        segments.
    """
    starts: dict[int, list[tuple[int, float]]] = {}
    for (start, end), cost in seconds.items():
        if cost <= cap:
            starts.setdefault(end, []).append((start, cost))
    best: list[tuple[float, int, int]] = [(0.0, 0, -1)] + [(math.inf, 0, -1)] * count
    for end in range(1, count + 1):
        for start, cost in starts.get(end, ()):
            total, segments, _ = best[start]
            best[end] = min(best[end], (total + cost, segments + 1, start))
    if math.isinf(best[count][0]):
        return None
    found, end = [], count
    while end:
        start = best[end][2]
        found.append((start, end))
        end = start
    return found[::-1]


def blocking_segment(count: int, costs: Costs, memory_bytes: int) -> tuple[int, int] | None:
    """What stands in the way where no segmentation keeps within the memory.

    Args:
        count: Units.
        costs: What each possible segment costs.
        memory_bytes: Most memory that a chunk may take.

    Returns:
        Of the segments that would lead beyond what can be cut so far, the one of least memory;
        None where nothing stands in the way.
    """
    reached = {0}
    for end in range(1, count + 1):
        if any(
            (start, end) in costs and costs[start, end].peak_bytes <= memory_bytes
            for start in reached
        ):
            reached.add(end)
    if count in reached:
        return None
    beyond = [
        (cost.peak_bytes, segment)
        for segment, cost in costs.items()
        if segment[0] in reached and segment[1] > max(reached)
    ]
    return min(beyond)[1] if beyond else (0, count)


def _caps(seconds: Mapping[tuple[int, int], float]) -> list[float]:
    values = sorted(set(seconds.values()))
    if len(values) <= MAX_CAPS:
        return values
    # Evenly in cost, not in rank: most segments are long, the good caps are among the short.
    low, high = values[0], values[-1]
    ratio = (high / low) ** (1 / (MAX_CAPS - 1)) if low > 0 else 1.0
    return [low * ratio**step for step in range(MAX_CAPS - 1)] + [high]
