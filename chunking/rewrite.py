"""Rewrites: changes of the normalised graph that make circuits cheaper.

A rewrite is one change at one node: a named pass, the node it starts from and at most one number.
The plan stage chooses them; the plan records them in order; whoever derives the circuits again
applies the same list. So a pass is a deterministic function of (graph, node, number) that either
keeps the model's meaning up to its stated exactness or refuses: the names here are the only
changes that a plan can ask for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, Protocol

import onnx
import onnx_ir as ir
from onnx_ir.passes import Sequential
from onnx_ir.passes import common as passes

from zkml_ray.errors import ChunkingError

Exactness = Literal["bit-exact", "exact in reals", "bounded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite:
    """One application of a pass.

    Attributes:
        name: The pass.
        node: Name of the node it starts from, in the graph as the rewrites before it left it.
        parameter: The pass's number (parts of a split, bits of integer weights); 0 where it takes
            none.
    """

    name: str
    node: str
    parameter: int = 0


class RewritePass(Protocol):
    """A pass. Its module's docstring states precondition, postcondition and why it is exact."""

    @property
    def name(self) -> str:
        """Its name in plans and on the command line."""

    @property
    def exactness(self) -> Exactness:
        """How the rewritten model relates to the original.

        "bit-exact": equal integers after quantisation; "exact in reals": equal before it;
        "bounded": weights or activations are rounded by a stated amount.
        """

    def places(self, model: ir.Model) -> list[Rewrite]:
        """Where the precondition holds, in topological order, with default parameters."""

    def apply(self, model: ir.Model, rewrite: Rewrite) -> None:
        """Change the model in place.

        Raises:
            ChunkingError: The precondition does not hold there.
        """


PASSES: Final[Mapping[str, RewritePass]] = MappingProxyType({})
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
        ChunkingError: There is no such pass, or its precondition does not hold.
    """
    if not rewrites:
        return proto
    for rewrite in rewrites:
        if rewrite.name not in PASSES:
            known = ", ".join(PASSES) or "none"
            raise ChunkingError(f"there is no rewrite {rewrite.name}; known rewrites: {known}")
        model = ir.from_proto(proto)
        PASSES[rewrite.name].apply(model, rewrite)
        proto = _tidied(model)
    return proto


def node_named(model: ir.Model, name: str) -> ir.Node:
    """The node of this name.

    Raises:
        ChunkingError: There is none.
    """
    for node in model.graph:
        if node.name == name:
            return node
    raise ChunkingError(f"a rewrite names node {name}, which the model does not have")


def names_in(nodes: Iterable[ir.Node]) -> list[str]:
    """The nodes' names."""
    return [str(node.name) for node in nodes]


def _tidied(model: ir.Model) -> onnx.ModelProto:
    Sequential(passes.RemoveUnusedNodesPass(), passes.TopologicalSortPass(), passes.NameFixPass())(
        model
    )
    result = ir.to_proto(model)
    return onnx.shape_inference.infer_shapes(result, strict_mode=True, data_prop=True)
