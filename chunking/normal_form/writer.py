"""Writes operators in another one's place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from zkml_ray.chunking.normal_form.structure import move_output
from zkml_ray.errors import ChunkingError


class Writer:
    """Puts nodes before one node, named after it, and at last takes its place.

    Values that are written have no shape until shapes are inferred again.
    """

    def __init__(self, model: ir.Model, place: ir.Node, opset: int) -> None:
        """Write before a node.

        Args:
            model: Its model.
            place: The node.
            opset: Version of its operator.
        """
        self.opset = opset
        self._model = model
        self._place = place
        self._count = 0

    @property
    def node(self) -> ir.Node:
        """The node that is replaced."""
        return self._place

    def op(self, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """A new node's output."""
        node = ir.node(op_type, list(inputs), attributes=attributes, name=self._name())
        node.outputs[0].name = f"{node.name}_out"
        self._model.graph.insert_before(self._place, node)
        return node.outputs[0]

    def floats(self, numbers: npt.ArrayLike) -> ir.Value:
        """A float32 constant."""
        return self._constant(np.asarray(numbers, dtype=np.float32))

    def integers(self, numbers: npt.ArrayLike) -> ir.Value:
        """An int64 constant."""
        return self._constant(np.asarray(numbers, dtype=np.int64))

    def reshape(self, value: ir.Value | None, shape: Sequence[int]) -> ir.Value:
        """A tensor in another shape."""
        return self.op("Reshape", value, self.integers(list(shape)))

    def replace(self, results: Sequence[ir.Value]) -> None:
        """Let values be the node's outputs, in order, and remove the node.

        Raises:
            ChunkingError: An output that is read is not among them.
        """
        for index, output in enumerate(self._place.outputs):
            if index < len(results):
                move_output(output, results[index])
            elif output.uses() or output.is_graph_output():
                raise self.refusal(f"its output {output.name} cannot be proved")
        self._model.graph.remove(self._place, safe=True)

    # What the node says.

    def input(self, index: int) -> ir.Value | None:
        """An input, or None where it is left out."""
        return self._place.inputs[index] if index < len(self._place.inputs) else None

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
        shape = self._place.outputs[0].shape
        if shape is None or not shape.is_static():
            raise self.refusal("the shape of its result is not known")
        return tuple(int(size) for size in shape.numpy())

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute's value, or what the operator's specification takes in its place."""
        found = self._place.attributes.get(name)
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
        return ChunkingError(f"node {self._place.name}: {self._place.op_type}: {why}")

    def _constant(self, array: npt.NDArray[Any]) -> ir.Value:
        name = self._name()
        value = ir.Value(
            name=name,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
            const_value=ir.tensor(array, name=name),
        )
        self._model.graph.register_initializer(value)
        return value

    def _name(self) -> str:
        self._count += 1
        base = self._place.name or self._place.outputs[0].name
        return f"{base}/{self._place.op_type.lower()}_{self._count}"
