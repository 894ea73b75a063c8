"""A pass over a pattern: operators found from one of them are written anew, all at once.

What the transformer passes do alike: look for their pattern at every node of one kind, refuse a
rewrite where it is not, and put the new nodes where the pattern ends. Each module of theirs says
what its pattern is (`match`) and what takes its place (`write`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import onnx_ir as ir

from zkml_ray.chunking.passes.base import Builder, Exactness, Rewrite, node_named
from zkml_ray.errors import ChunkingError


class Pattern(Protocol):
    """Operators that were found."""

    @property
    def output(self) -> ir.Value:
        """The one tensor of theirs that others read."""


PatternT = TypeVar("PatternT", bound=Pattern)


@dataclass(frozen=True, slots=True, kw_only=True)
class PatternPass(Generic[PatternT]):
    """A pass (`base.RewritePass`).

    Attributes:
        name: Its name in plans and on the command line.
        parameters: Smallest and largest parameter that a plan may name.
        default: Parameter where nobody names one.
        label: What is made at a node is named after the node and this.
        missing: What a node is not at which a rewrite finds no pattern: "is no ...".
        match: The pattern that a node starts, or None.
        write: Writes the new nodes, the parameter given, and replaces the pattern's output.
        parts: How many parts there can be, and of what, where the parameter is a number of parts.
        exactness: How the rewritten model relates to the original.
    """

    name: str
    parameters: tuple[int, int]
    default: int
    label: str
    missing: str
    match: Callable[[ir.Node], PatternT | None]
    write: Callable[[Builder, PatternT, int], None]
    parts: Callable[[PatternT], tuple[int, str]] | None = None
    exactness: Exactness = "bounded"

    def places(self, model: ir.Model) -> list[Rewrite]:
        """Where the pattern is, in topological order, with the default parameter."""
        return [
            Rewrite(name=self.name, node=str(node.name), parameter=self.default)
            for node in model.graph
            if self.match(node) is not None
        ]

    def apply(self, model: ir.Model, rewrite: Rewrite) -> None:
        """Write one pattern anew.

        Raises:
            ChunkingError: The node starts none, or one of fewer parts than the parameter says.
        """
        node = node_named(model, rewrite.node)
        found = self.match(node)
        anchor = None if found is None else found.output.producer()
        if found is None or anchor is None:
            raise ChunkingError(f"node {rewrite.node} {self.missing}")
        if self.parts is not None:
            count, what = self.parts(found)
            if not 1 <= rewrite.parameter <= count:
                raise ChunkingError(
                    f"node {rewrite.node}: {count} {what} cannot be dealt out to "
                    f"{rewrite.parameter} parts"
                )
        self.write(Builder(model, anchor, f"{rewrite.node}/{self.label}"), found, rewrite.parameter)
