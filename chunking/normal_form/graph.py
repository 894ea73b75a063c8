"""What the passes that rewrite operators share: reading nodes, writing nodes in their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from zkml_ray.errors import ChunkingError

Attributes = dict[str, "int | float | str | Sequence[int]"]


class Place:
    """Where a node is to be replaced.

    New nodes stand before it, under names that start with its own; `finish` takes it out.
    """

    def __init__(self, model: ir.Model, node: ir.Node) -> None:
        """Start replacing a node."""
        self._model = model
        self._node = node
        self._base = node.name or node.outputs[0].name
        self._count = 0

    def node(
        self, op: str, inputs: Sequence[ir.Value], shape: Sequence[int], **given: object
    ) -> ir.Value:
        """Add a node with one float32 output of this shape."""
        output = self._made(op, inputs, given)
        output.shape, output.dtype = ir.Shape(list(shape)), ir.DataType.FLOAT
        return output

    def _made(
        self, op: str, inputs: Sequence[ir.Value | None], given: Mapping[str, object]
    ) -> ir.Value:
        self._count += 1
        attributes: Attributes = dict(given)  # type: ignore[arg-type]
        made = ir.node(op, list(inputs), attributes, name=f"{self._base}/{op}_{self._count}")
        output = made.outputs[0]
        output.name = f"{made.name}_out"
        self._model.graph.insert_before(self._node, made)
        return output

    def floats(self, values: npt.ArrayLike) -> ir.Value:
        """A float32 constant."""
        return self._constant(np.asarray(values, dtype=np.float32))

    def integers(self, values: npt.ArrayLike) -> ir.Value:
        """An int64 constant."""
        return self._constant(np.asarray(values, dtype=np.int64))

    def truths(self, values: npt.ArrayLike) -> ir.Value:
        """A constant of truth values."""
        return self._constant(np.asarray(values, dtype=np.bool_))

    def finish(self, result: ir.Value) -> None:
        """Let a value take the node's place; it keeps the name of the node's output."""
        old = self._node.outputs[0]
        if result.producer() is None or result.is_graph_output():
            result = self.node("Identity", [result], sizes(result, self._node))
        result.shape, result.type = old.shape, old.type
        ir.convenience.replace_all_uses_with(old, result, replace_graph_outputs=True)
        result.name, old.name = old.name, None
        self._model.graph.remove(self._node, safe=True)

    def _constant(self, values: npt.NDArray[np.generic]) -> ir.Value:
        self._count += 1
        name = f"{self._base}/constant_{self._count}"
        while name in self._model.graph.initializers:
            name += "_"
        made = ir.Value(name=name, const_value=ir.tensor(values.copy(order="C"), name=name))
        made.shape, made.dtype = ir.Shape(values.shape), ir.DataType.from_numpy(values.dtype)
        self._model.graph.register_initializer(made)
        return made


def described(node: ir.Node) -> str:
    """A node as messages name it."""
    return f"node {node.name} ({node.op_type})"


def data_of(node: ir.Node, index: int = 0) -> ir.Value:
    """A node's input.

    Raises:
        ChunkingError: It has none there.
    """
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        raise ChunkingError(f"{described(node)} lacks input {index + 1}")
    return value


def sizes(value: ir.Value, node: ir.Node) -> tuple[int, ...]:
    """A tensor's dimensions.

    Raises:
        ChunkingError: They are not known.
    """
    if value.shape is None or not value.shape.is_static():
        raise ChunkingError(f"{described(node)}: the shape of {value.name} is unknown")
    return tuple(int(size) for size in value.shape.numpy())


def array_of(node: ir.Node, index: int) -> npt.NDArray[Any] | None:
    """A constant input's value; None where the input is left out.

    Raises:
        ChunkingError: It is there, but no constant.
    """
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        return None
    if value.const_value is None or not value.is_initializer():
        raise ChunkingError(
            f"{described(node)}: its input {value.name} must be a constant to be proved"
        )
    array: npt.NDArray[Any] = value.const_value.numpy()
    return array


def ints(node: ir.Node, name: str, default: Sequence[int]) -> list[int]:
    """An attribute of several whole numbers."""
    return list(node.attributes[name].as_ints()) if name in node.attributes else list(default)


def integer(node: ir.Node, name: str, default: int) -> int:
    """An attribute of one whole number."""
    return node.attributes[name].as_int() if name in node.attributes else default


def text(node: ir.Node, name: str, default: str) -> str:
    """An attribute that is a word."""
    return node.attributes[name].as_string() if name in node.attributes else default
