"""Writes operators in another one's place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from zkml_ray.chunking.normal_form.graph import Place, described
from zkml_ray.chunking.normal_form.structure import move_output
from zkml_ray.errors import ChunkingError


class Writer(Place):
    """A place, and what its node says in a version of the operator set.

    Values that are written have no shape until shapes are inferred again.
    """

    def __init__(self, model: ir.Model, node: ir.Node, opset: int) -> None:
        """Write before a node.

        Args:
            model: Its model.
            node: The node.
            opset: Version of its operator.
        """
        super().__init__(model, node)
        self.opset = opset

    @property
    def model(self) -> ir.Model:
        """The model that is written in."""
        return self._model

    @property
    def place(self) -> ir.Node:
        """The node that is replaced."""
        return self._node

    def op(self, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """A new node's output."""
        return self._made(op_type, inputs, attributes)

    def reshape(self, value: ir.Value | None, shape: Sequence[int]) -> ir.Value:
        """A tensor in another shape."""
        return self.op("Reshape", value, self.integers(list(shape)))

    def replace(self, results: Sequence[ir.Value | None]) -> None:
        """Let values be the node's outputs, in order, and remove the node.

        Args:
            results: Its outputs; None, or fewer, for those that nothing reads.

        Raises:
            ChunkingError: An output that is read is not among them.
        """
        for index, output in enumerate(self._node.outputs):
            if not (output.uses() or output.is_graph_output()):
                continue  # Left out, it has no name that a result could take over.
            result = results[index] if index < len(results) else None
            if result is not None:
                move_output(output, result)
            else:
                raise self.refusal(f"its output {output.name} cannot be proved")
        self._model.graph.remove(self._node, safe=True)

    # What the node says.

    def input(self, index: int) -> ir.Value | None:
        """An input, or None where it is left out."""
        return self._node.inputs[index] if index < len(self._node.inputs) else None

    def constant(self, index: int) -> npt.NDArray[Any] | None:
        """The numbers of a constant input; None where it is left out or no constant."""
        value = self.input(index)
        tensor = None if value is None else ir.convenience.get_const_tensor(value)
        return None if tensor is None else tensor.numpy()

    def shape(self, index: int = 0) -> tuple[int, ...]:
        """An input's shape.

        Raises:
            ChunkingError: It is not known.
        """
        value = self.input(index)
        if value is None or value.shape is None or not value.shape.is_static():
            raise self.refusal(f"the shape of input {index} is not known")
        return tuple(int(size) for size in value.shape.numpy())

    def output_shape(self) -> tuple[int, ...]:
        """The first output's shape.

        Raises:
            ChunkingError: It is not known.
        """
        shape = self._node.outputs[0].shape
        if shape is None or not shape.is_static():
            raise self.refusal("the shape of its result is not known")
        return tuple(int(size) for size in shape.numpy())

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute's value, or what the operator's specification takes in its place."""
        found = self._node.attributes.get(name)
        return default if found is None else found.value

    def axis(self, default: int) -> int:
        """The attribute `axis`, counted from the start."""
        rank = len(self.shape())
        axis = int(self.attribute("axis", default))
        if not -rank <= axis < rank:
            raise self.refusal(f"axis {axis} is none of a tensor of {rank} dimensions")
        return axis % rank

    def refusal(self, why: str) -> ChunkingError:
        """An error that names the node."""
        return ChunkingError(f"{described(self._node)}: {why}")
