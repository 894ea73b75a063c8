"""Layer-wise cuts.

A layer is a weighted operator (convolution or matrix product) with everything that follows it up
to the next one, in topological order. Branches need no special case: whatever tensors cross from
one layer to later ones become boundaries.
"""

from __future__ import annotations

from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.operators import WEIGHTED
from zkml_ray.errors import ConfigError


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
    parts: list[list[str]] = [[]]
    weighted = 0
    for name, node in graph.nodes.items():
        carries_weight = node.op_type in WEIGHTED and any(
            value in graph.initializers for value in node.input
        )
        if carries_weight:
            if weighted == layers_per_chunk:
                parts.append([])
                weighted = 0
            weighted += 1
        parts[-1].append(name)
    return tuple(tuple(part) for part in parts)
