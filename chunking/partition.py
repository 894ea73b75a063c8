"""Layer-wise cuts.

A layer is a weighted operator (convolution or matrix product) with everything that follows it up
to the next one, in topological order. Branches need no special case: whatever tensors cross from
one layer to later ones become boundaries.

Between two weighted operators the cut falls where the fewest elements cross it; of equal places
where the model's own tensors cross, not those of a rewrite; and of those at the last. So what a
rewrite puts in front of a product, such as the columns of a convolution, stays with it: they are
many times the tensor that they are picked from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.masked import masked_tensors
from zkml_ray.chunking.operators import WEIGHTED
from zkml_ray.chunking.passes.base import MADE_SUFFIX
from zkml_ray.errors import ChunkingError, ConfigError


def layer_partition(graph: ModelGraph, *, layers_per_chunk: int = 1) -> tuple[tuple[str, ...], ...]:
    """Cut a model before every n-th weighted operator.

    Args:
        graph: The normalised model.
        layers_per_chunk: Weighted operators per chunk, at least 1.

    Returns:
        Node names per chunk, topologically ordered.

    Raises:
        ConfigError: `layers_per_chunk` is below 1.
    """
    if layers_per_chunk < 1:
        raise ConfigError(f"layers per chunk must be at least 1, not {layers_per_chunk}")
    names = list(graph.nodes)
    weighted = [
        index
        for index, node in enumerate(graph.nodes.values())
        if node.op_type in WEIGHTED and any(value in graph.initializers for value in node.input)
    ]
    cost = _crossing_costs(graph)
    cuts = [0]
    for before, layer in zip(
        weighted[layers_per_chunk - 1 :: layers_per_chunk],
        weighted[layers_per_chunk::layers_per_chunk],
        strict=False,
    ):
        places = range(before + 1, layer + 1)
        cuts.append(min(places, key=lambda place: (*cost[place], -place)))
    cuts.append(len(names))
    return tuple(tuple(names[start:end]) for start, end in pairwise(cuts))


def split_by_kind(
    graph: ModelGraph, parts: Sequence[Sequence[str]], kind_of: Mapping[str, str]
) -> tuple[tuple[str, ...], ...]:
    """Cut parts further, so that none has operators of two kinds.

    Args:
        graph: The normalised model.
        parts: Node names per part, topologically ordered.
        kind_of: Operators that have a kind, and which.

    Returns:
        Node names per part. A cut falls where the fewest elements cross it.
    """
    places = {name: place for place, name in enumerate(graph.nodes)}
    cost = _crossing_costs(graph)
    found = []
    for part in parts:
        start, first, kind = 0, 1, ""
        for index, name in enumerate(part):
            own = kind_of.get(graph.nodes[name].op_type, "")
            if own and kind and own != kind:
                cuts = range(first, index + 1)
                cut = min(cuts, key=lambda place: (*cost[places[part[place]]], -place))
                found.append(tuple(part[start:cut]))
                start = cut
            if own:
                kind, first = own, index + 1
        found.append(tuple(part[start:]))
    return tuple(found)


def _crossing_costs(graph: ModelGraph) -> list[tuple[float, int]]:
    """Per place in front of a node: elements, and tensors of rewrites, made before and read after.

    Infinite where a tensor may not cross a cut. The model's own inputs are not counted.
    """
    nodes = list(graph.nodes.values())
    last_reader: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for name in node.input:
            last_reader[name] = index
    elements, made = [0.0] * (len(nodes) + 1), [0] * (len(nodes) + 1)
    masked = masked_tensors(nodes, graph.initializers)
    for index, node in enumerate(nodes):
        for name in node.output:
            if name in last_reader:
                for place in range(index + 1, last_reader[name] + 1):
                    elements[place] += math.inf if name in masked else _elements(graph, name)
                    made[place] += name.endswith(MADE_SUFFIX)
    return list(zip(elements, made, strict=True))


def _elements(graph: ModelGraph, name: str) -> float:
    try:
        info = graph.tensor(name)
    except ChunkingError:
        return math.inf
    return float(math.prod(info.shape)) if info.is_float else math.inf
