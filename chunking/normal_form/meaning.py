"""Operators that ezkl 23.0.5 takes and computes otherwise than ONNX says: rewritten, or refused.

Found by running every supported operator with its attributes against onnxruntime
(tests/integration/test_operator_meaning.py keeps that up):

- Gather takes an index below -1 for another one;
- Pow turns a whole exponent below 1 into 0, and x^0 is not 1.

Others have modules of their own: `pooling`, `transposed`, `padding`, `einsum`, `canonical`,
`attributes`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult, PostconditionError

from zkml_ray.errors import ChunkingError


class CountFromTheStart(InPlacePass):
    """Pre: shapes known. Post: constant indices of Gather are not negative. Exact."""

    def call(self, model: ir.Model) -> PassResult:
        """Replace negative indices."""
        found = [node for node in model.graph if _negative_indices(node) is not None]
        for node in found:
            data, index = node.inputs[0], _negative_indices(node)
            if data is None or data.shape is None or index is None:
                raise ChunkingError(f"node {node.name}: the input's shape is unknown")
            axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
            size = data.shape.numpy()[axis]
            if index.min() < -size or index.max() >= size:
                raise ChunkingError(f"node {node.name}: Gather reads behind its axis of {size}")
            wrapped = np.where(index < 0, index + size, index)
            node.replace_input_with(1, _constant(model, f"{node.name}/index", wrapped))
        return PassResult(model, modified=bool(found))

    def ensures(self, model: ir.Model) -> None:
        """No constant index is negative."""
        for node in model.graph:
            if _negative_indices(node) is not None:
                raise PostconditionError(f"node {node.name} has a negative index")


def refuse_powers(model: ir.Model) -> None:
    """Refuse exponents that ezkl would silently take for another, and several of them.

    Raises:
        ChunkingError: A Pow has a whole exponent below 1, or more than one.
    """
    for node in model.graph:
        if node.op_type != "Pow" or node.inputs[1] is None:
            continue
        exponent = node.inputs[1].const_value
        if exponent is not None and exponent.numpy().size > 1:
            raise ChunkingError(
                f"node {node.name}: Pow with {exponent.numpy().size} exponents cannot be proved; "
                "write one Pow for each"
            )
        if exponent is not None and any(
            value < 1 and value == np.floor(value) for value in exponent.numpy().ravel()
        ):
            raise ChunkingError(
                f"node {node.name}: Pow with an exponent of 0 or below cannot be proved; write it "
                "as a division"
            )


def _negative_indices(node: ir.Node) -> npt.NDArray[np.integer] | None:
    """A Gather's constant indices, if one of them is negative."""
    if node.op_type != "Gather" or node.inputs[1] is None or node.inputs[1].const_value is None:
        return None
    index: npt.NDArray[np.integer] = node.inputs[1].const_value.numpy()
    return index if index.size and index.min() < 0 else None


def _constant(model: ir.Model, name: str, array: np.ndarray) -> ir.Value:
    while name in model.graph.initializers:
        name += "_"
    tensor = ir.tensor(array, name=name)
    value = ir.Value(
        name=name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
        const_value=tensor,
    )
    model.graph.register_initializer(value)
    return value
