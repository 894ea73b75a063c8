"""Rewrites: changes of the normalised graph that make circuits cheaper.

A rewrite is one change at one node: a named pass, the node it starts from and at most one number.
The plan stage chooses them; the plan records them in order; whoever derives the circuits again
applies the same list. So a pass is a deterministic function of (graph, node, number) that either
keeps the model's meaning up to its stated exactness or refuses: the names here are the only
changes that a plan can ask for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import onnx
import onnx_ir as ir
from onnx_ir.passes import Sequential
from onnx_ir.passes import common as passes

from zkml_ray.chunking.lookups import with_tables
from zkml_ray.chunking.passes.attention import ATTENTION
from zkml_ray.chunking.passes.average import AverageDeferred
from zkml_ray.chunking.passes.base import Exactness, Rewrite, RewritePass, node_named
from zkml_ray.chunking.passes.dense import DenseInteger
from zkml_ray.chunking.passes.gelu_ffn import GELU_FFN
from zkml_ray.chunking.passes.im2col import ConvIm2col
from zkml_ray.chunking.passes.layer_norm import LAYER_NORM
from zkml_ray.chunking.passes.maxpool import MaxPoolPairwise
from zkml_ray.chunking.passes.relu import ReluAbs
from zkml_ray.chunking.passes.saturate import Saturate
from zkml_ray.chunking.passes.split_output import SplitOutput
from zkml_ray.chunking.unique import check_names
from zkml_ray.errors import ChunkingError

__all__ = [
    "PASSES",
    "Exactness",
    "Rewrite",
    "RewritePass",
    "apply_rewrites",
    "find_places",
    "names_in",
    "node_named",
]

_ALL: Final[tuple[RewritePass, ...]] = (
    ATTENTION,
    GELU_FFN,
    LAYER_NORM,
    ConvIm2col(),
    DenseInteger(),
    MaxPoolPairwise(),
    ReluAbs(),
    AverageDeferred(),
    Saturate(),
    SplitOutput(),
)

PASSES: Final[Mapping[str, RewritePass]] = MappingProxyType({step.name: step for step in _ALL})
"""Every pass by name, in the order in which the plan stage tries them."""


def find_places(proto: onnx.ModelProto, name: str) -> list[Rewrite]:
    """Where a pass can be applied.

    Args:
        proto: A normalised model, possibly rewritten.
        name: A key of `PASSES`.
    """
    return PASSES[name].places(ir.from_proto(proto))


def apply_rewrites(proto: onnx.ModelProto, rewrites: Sequence[Rewrite]) -> onnx.ModelProto:
    """Apply rewrites in order.

    Args:
        proto: The normalised model (not changed).
        rewrites: What to do.

    Returns:
        The rewritten model: normalised as before, deterministic in the arguments.

    Raises:
        ChunkingError: There is no such pass, its parameter is out of range, or its precondition
            does not hold.
    """
    if not rewrites:
        return proto
    original = proto
    for rewrite in rewrites:
        if rewrite.name not in PASSES:
            known = ", ".join(PASSES) or "none"
            raise ChunkingError(f"there is no rewrite {rewrite.name}; known rewrites: {known}")
        low, high = PASSES[rewrite.name].parameters
        if not low <= rewrite.parameter <= high:
            raise ChunkingError(
                f"rewrite {rewrite.name} at {rewrite.node}: its parameter is {rewrite.parameter}; "
                f"expected {low} to {high}"
            )
        model = ir.from_proto(proto)
        PASSES[rewrite.name].apply(model, rewrite)
        proto = _tidied(model)
    return with_tables(proto, original)


def names_in(nodes: Iterable[ir.Node]) -> list[str]:
    """The nodes' names."""
    return [str(node.name) for node in nodes]


def _tidied(model: ir.Model) -> onnx.ModelProto:
    Sequential(passes.RemoveUnusedNodesPass(), passes.TopologicalSortPass(), passes.NameFixPass())(
        model
    )
    result = ir.to_proto(model)
    check_names(result.graph)
    return onnx.shape_inference.infer_shapes(result, strict_mode=True, data_prop=True)
