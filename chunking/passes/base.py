"""What every pass is made of: the rewrite it applies, its interface, and a builder of nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from zkml_ray.errors import ChunkingError

Exactness = Literal["bit-exact", "exact in reals", "bounded"]
Array = npt.NDArray[np.float32] | npt.NDArray[np.int64]
Attributes = Mapping[str, "int | float | str | Sequence[int]"]

MADE_SUFFIX: Final = ":out"
"""Ends the names of tensors that only a rewrite made; the model's own keep their names."""


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


NO_PARAMETER: Final = (0, 0)
ANY_BITS: Final = (4, 20)
"""Weight bits that a plan may name. With fewer, what it calls the model would be a caricature."""

MAX_PARTS: Final = 256
"""Parts of one operator or form; more would be chunks too small to be worth a proof each."""

ANY_PARTS: Final = (1, MAX_PARTS)


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

    @property
    def parameters(self) -> tuple[int, int]:
        """Smallest and largest parameter that a plan may name."""

    def places(self, model: ir.Model) -> list[Rewrite]:
        """Where the precondition holds, in topological order, with default parameters."""

    def apply(self, model: ir.Model, rewrite: Rewrite) -> None:
        """Change the model in place.

        Raises:
            ChunkingError: The precondition does not hold there.
        """


class Builder:
    """Adds nodes in front of one node, under names that start with a prefix."""

    def __init__(self, model: ir.Model, anchor: ir.Node, prefix: str) -> None:
        """Start building.

        Args:
            model: The model to change.
            anchor: New nodes stand before this one.
            prefix: Unique to the rewrite: the node's name and the pass's.
        """
        self._graph = model.graph
        self._anchor = anchor
        self._prefix = prefix
        self._count = 0

    def _name(self, what: str) -> str:
        self._count += 1
        return f"{self._prefix}/{what}_{self._count}"

    def constant(self, value: Array, what: str) -> ir.Value:
        """An initializer of its own: ezkl rescales a constant for free only if one node reads it.

        Args:
            value: float32 or int64.
            what: Part of its name.
        """
        name = self._name(what)
        made = ir.Value(name=name, const_value=ir.tensor(value.copy(order="C"), name=name))
        made.shape, made.dtype = ir.Shape(value.shape), ir.DataType.from_numpy(value.dtype)
        self._graph.register_initializer(made)
        return made

    def scalar(self, value: float) -> ir.Value:
        """A float32 constant of one element and no dimension."""
        return self.constant(np.asarray(value, dtype=np.float32), "factor")

    def indices(self, value: npt.NDArray[np.int64] | Sequence[int], what: str) -> ir.Value:
        """An int64 constant: a shape, axes or what Gather picks."""
        return self.constant(np.asarray(value, dtype=np.int64), what)

    def node(
        self,
        op: str,
        inputs: Sequence[ir.Value],
        attributes: Attributes | None = None,
        *,
        name: str | None = None,
    ) -> ir.Value:
        """Add a node with one output.

        Args:
            op: ONNX operator.
            inputs: Its inputs.
            attributes: Its attributes.
            name: Its name, where a later rewrite must find it; None: one is made.
        """
        named = name if name is not None else self._name(op.lower())
        made = ir.node(op, list(inputs), attributes or {}, name=named)
        made.outputs[0].name = f"{self._prefix}/{op.lower()}_{self._count}{MADE_SUFFIX}"
        self._graph.insert_before(self._anchor, made)
        return made.outputs[0]

    def replace(self, old: ir.Value, new: ir.Value) -> None:
        """Let `new` take the place and the name of `old`, whose node is removed."""
        node = old.producer()
        if node is None:
            raise ChunkingError(f"{old.name} is an input or a constant: it cannot be replaced")
        name = old.name
        new.shape, new.type = old.shape, old.type
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        old.name = None
        self._graph.remove(node, safe=True)
        new.name = name


def node_named(model: ir.Model, name: str) -> ir.Node:
    """The node of this name.

    Raises:
        ChunkingError: There is none.
    """
    for node in model.graph:
        if node.name == name:
            return node
    raise ChunkingError(f"a rewrite names node {name}, which the model does not have")


def constant_of(value: ir.Value | None) -> npt.NDArray[np.float32] | None:
    """The value of a float32 constant, or None if it is none."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    if tensor is None or tensor.dtype != ir.DataType.FLOAT:
        return None
    return np.asarray(tensor.numpy(), dtype=np.float32)


def dims_of(value: ir.Value | None) -> tuple[int, ...] | None:
    """A tensor's dimensions, or None if one is not known."""
    if value is None or value.shape is None:
        return None
    sizes = tuple(value.shape)
    if not all(isinstance(size, int) for size in sizes):
        return None
    return tuple(int(size) for size in sizes if isinstance(size, int))


def only_user(value: ir.Value) -> ir.Node | None:
    """The one node that reads a tensor, or None if it is an output or has more readers."""
    users = list(value.uses())
    return users[0][0] if len(users) == 1 and not value.is_graph_output() else None


def input_of(node: ir.Node, index: int) -> ir.Value | None:
    """A node's input, or None where it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def refuse(rewrite: Rewrite, reason: str) -> ChunkingError:
    """The error of a rewrite whose precondition does not hold."""
    return ChunkingError(f"rewrite {rewrite.name} does not apply to node {rewrite.node}: {reason}")
