"""Cutting a model within a memory budget for the earliest last proof.

Estimates decide, exact settings check: the chunks that the estimates propose are derived, and
where a circuit turns out to need more memory than it may, its segment is not proposed again. An
operator that alone needs too much is split by its output (`split-output`), into more
parts until they fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from zkml_ray.chunking.cuts import best_cuts, blocking_segment
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.load import LoadedModel
from zkml_ray.chunking.operators import WEIGHTED
from zkml_ray.chunking.passes.base import MAX_PARTS
from zkml_ray.chunking.passes.split_output import SplitOutput, splittable
from zkml_ray.chunking.rewrite import Rewrite
from zkml_ray.circuits.derive import (
    ArgumentRule,
    DerivedCircuits,
    derive_circuits,
    normalised_graph,
)
from zkml_ray.cost.geometry import Geometry
from zkml_ray.cost.load import MIN_LOGROWS, geometry_of
from zkml_ray.cost.model import CostModel
from zkml_ray.errors import ChunkingError
from zkml_ray.events import Listener, Working, ignore
from zkml_ray.schema.plan import CommitmentArguments
from zkml_ray.stages.estimate import Estimator

MAX_ROUNDS: Final = 40
OPTIMISM: Final = 1.15
"""Estimates are for one number of columns; the search of a chunk's own saves up to so much. What
the exact settings say of a chunk replaces its estimate."""

MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What chunks are cut for.

    Attributes:
        workers: Workers that prove.
        memory_bytes: Most memory of one worker by prediction; None: any.
    """

    workers: int
    memory_bytes: int | None


def search_circuits(
    model: LoadedModel,
    rewrites: Sequence[Rewrite],
    *,
    dimensions: dict[str, int],
    input_scale: int,
    commitment: CommitmentArguments,
    prices: CostModel,
    budget: Budget,
    arguments: ArgumentRule,
    listener: Listener = ignore,
) -> DerivedCircuits:
    """Find the cuts, splitting operators where that is needed, and derive the circuits.

    Args:
        model: The user's model.
        rewrites: Changes already chosen; splits are added behind them.
        dimensions: Values of symbolic dimensions.
        input_scale: Scale of the model's inputs and weights.
        commitment: How boundaries are committed to.
        prices: Predicts seconds and memory.
        budget: What to cut for.
        arguments: Chooses each circuit's arguments.
        listener: Told what is being done.

    Raises:
        ChunkingError: An operator needs more memory than there is and cannot be split.
        UnsupportedOperatorError: ezkl cannot express the model.
    """
    _check_floor(prices, budget)
    parts_of: dict[str, int] = {}
    while True:
        splits = [
            Rewrite(name=SplitOutput.name, node=node, parameter=parts)
            for node, parts in parts_of.items()
        ]
        applied = [*rewrites, *splits]
        graph = normalised_graph(model, dimensions, applied)
        estimator = Estimator(
            graph,
            input_scale=input_scale,
            commitment=commitment,
            whole_forms=budget.memory_bytes is None,
            listener=listener,
        )
        found = _cut(
            model,
            graph,
            estimator,
            applied,
            dimensions,
            input_scale,
            commitment,
            prices,
            budget,
            arguments,
            listener,
        )
        if isinstance(found, DerivedCircuits):
            return found
        split_more(graph, found, parts_of, budget)


@dataclass(frozen=True, slots=True, kw_only=True)
class TooLarge:
    """Nodes that do not fit, those of the heaviest unit first, and the memory they would need."""

    nodes: tuple[str, ...]
    peak_bytes: int


def _cut(
    model: LoadedModel,
    graph: ModelGraph,
    estimator: Estimator,
    rewrites: Sequence[Rewrite],
    dimensions: dict[str, int],
    input_scale: int,
    commitment: CommitmentArguments,
    prices: CostModel,
    budget: Budget,
    arguments: ArgumentRule,
    listener: Listener,
) -> DerivedCircuits | TooLarge:
    listener(Working(what="searching the cuts"))
    count = len(estimator.units)
    costs = {
        segment: replace(cost, peak_bytes=int(cost.peak_bytes / OPTIMISM))
        for segment, cost in estimator.costs(prices, budget.memory_bytes).items()
    }
    for _ in range(MAX_ROUNDS):
        blocking = (
            None
            if budget.memory_bytes is None
            else blocking_segment(count, costs, budget.memory_bytes)
        )
        if blocking is not None:
            needed = costs[blocking].peak_bytes if blocking in costs else 0
            return TooLarge(nodes=estimator.heaviest_first(*blocking), peak_bytes=needed)
        segments = best_cuts(
            count,
            costs,
            workers=budget.workers,
            memory_bytes=budget.memory_bytes,
            chunk_s=prices.profile.chunk_s,
        )
        circuits = derive_circuits(
            model,
            graph,
            dimensions=dimensions,
            rewrites=rewrites,
            parts=[estimator.nodes(start, end) for start, end in segments],
            input_scale=input_scale,
            commitment=commitment,
            arguments=arguments,
            listener=listener,
        )
        exact = dict(zip(segments, _peaks(circuits, prices), strict=True))
        if budget.memory_bytes is None or max(exact.values()) <= budget.memory_bytes:
            return circuits
        for segment, peak in exact.items():
            costs[segment] = replace(costs[segment], peak_bytes=peak)
    raise ChunkingError(
        f"no cuts were found within {MAX_ROUNDS} rounds that keep every chunk within the memory; "
        "raise --memory a little"
    )


def _check_floor(prices: CostModel, budget: Budget) -> None:
    """Refuse a budget that no circuit keeps within, however the model is cut."""
    smallest = Geometry(
        logrows=MIN_LOGROWS,
        inner_columns=1,
        blocks=1,
        einsum_blocks=0,
        shuffle_blocks=0,
        tables=0,
        range_checks=2,
        cells=0,
        instances=1,
    )
    floor_bytes = prices.peak_bytes(smallest)
    if budget.memory_bytes is not None and budget.memory_bytes < floor_bytes:
        raise ChunkingError(
            f"--memory leaves {budget.memory_bytes // MIB:,} MiB, but the smallest circuit needs "
            f"about {floor_bytes // MIB:,} MiB on a worker"
        )


def _peaks(circuits: DerivedCircuits, prices: CostModel) -> list[int]:
    return [
        prices.peak_bytes(geometry_of(circuits.files[chunk.id].settings))
        for chunk in circuits.plan.chunks
    ]


def split_more(
    graph: ModelGraph, large: TooLarge, parts_of: dict[str, int], budget: Budget
) -> None:
    """Have the heaviest splittable operator of a unit split into more parts."""
    limit = budget.memory_bytes or 0
    need = (
        f"about {large.peak_bytes // MIB:,} MiB, more than the {limit // MIB:,} MiB that --memory "
        "leaves"
    )
    shown = ", ".join(f"{graph.nodes[name].op_type} {name}" for name in large.nodes[:4])
    limits = splittable(graph.proto)
    # A split goes on through what follows the operator: so it may be one further up that helps.
    reached = [*large.nodes, *_upstream(graph, large.nodes)]
    again = [node for node in parts_of if any(n.startswith(f"{node}/part") for n in large.nodes)]
    if again:
        node = again[0]
        # A part is split anew from the whole: splits are applied to the unsplit operator.
        width = sum(limits.get(f"{node}/part{i}", 1) for i in range(parts_of[node]))
        if parts_of[node] >= min(MAX_PARTS, width):
            raise ChunkingError(f"{shown} needs {need}, although split into {parts_of[node]} parts")
        parts_of[node] = min(2 * parts_of[node], MAX_PARTS, width)
        return
    heavy = [name for name in reached if name in limits and not _is_part(name, parts_of)]
    if not heavy:
        raise ChunkingError(
            f"{shown} alone needs {need}, and cannot be split: that is done to MatMul and Gemm "
            "with constant weights and to Conv without groups"
        )
    # What the boundaries of a part need anyway is not known yet; doubling finds it.
    parts_of[heavy[0]] = min(max(2, -(-large.peak_bytes // limit)), limits[heavy[0]])


def _upstream(graph: ModelGraph, nodes: Sequence[str]) -> list[str]:
    """The nodes that lead to these, nearest first, up to the first products with weights."""
    found: list[str] = []
    waiting = list(nodes)
    while waiting:
        name = waiting.pop(0)
        for value in graph.nodes[name].input:
            maker = graph.producer_of.get(value)
            if maker is None or maker in found or maker in nodes:
                continue
            found.append(maker)
            if graph.nodes[maker].op_type not in WEIGHTED:
                waiting.append(maker)
    return found


def _is_part(name: str, parts_of: Mapping[str, int]) -> bool:
    return any(name.startswith(f"{node}/part") for node in parts_of)
