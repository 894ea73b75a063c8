"""Operators that ezkl 23.0.5 takes and computes otherwise than ONNX says: rewritten, or refused.

Found by running every supported operator with its attributes against onnxruntime
(tests/integration/test_operator_meaning.py keeps that up):

- a padded MaxPool pads with zeros, where ONNX leaves padding out of the maximum;
- a padded AveragePool always counts the padding;
- Gather takes an index below -1 for another one;
- Pow turns a whole exponent below 1 into 0, and x^0 is not 1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult, PostconditionError

from zkml_ray.errors import ChunkingError


class ExactPadding(InPlacePass):
    """Pre: shapes known, windows explicit. Post: ezkl pads as ONNX does.

    MaxPool: the input is extended by its edge (Gather) and the pads become 0. Exact: a window that
    reaches over an edge contains the edge, so its maximum stays. AveragePool that leaves padding
    out: it counts the padding and a constant corrects the divisor. Exact up to float rounding.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite padded pooling."""
        found = [node for node in model.graph if _pads_otherwise(node)]
        for node in found:
            if node.op_type == "MaxPool":
                _extend_by_edge(model, node)
            else:
                _count_padding(model, node)
        return PassResult(model, modified=bool(found))

    def ensures(self, model: ir.Model) -> None:
        """No pooling is left whose padding ezkl takes otherwise."""
        for node in model.graph:
            if _pads_otherwise(node):
                raise PostconditionError(f"node {node.name} pads otherwise than ezkl")


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
    """Refuse exponents that ezkl would silently take for another.

    Raises:
        ChunkingError: A Pow has a whole exponent below 1.
    """
    for node in model.graph:
        if node.op_type != "Pow" or node.inputs[1] is None:
            continue
        exponent = node.inputs[1].const_value
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


def _pads_otherwise(node: ir.Node) -> bool:
    if node.op_type not in ("MaxPool", "AveragePool") or not any(_ints(node, "pads")):
        return False
    counted = node.attributes.get("count_include_pad")
    return node.op_type == "MaxPool" or counted is None or not counted.as_int()


def _extend_by_edge(model: ir.Model, node: ir.Node) -> None:
    kernel, pads = _ints(node, "kernel_shape"), _ints(node, "pads")
    data = node.inputs[0]
    rank = len(kernel)
    if data is None or data.shape is None:
        raise ChunkingError(f"node {node.name}: the input's shape is unknown")
    dilated = any(value != 1 for value in _ints(node, "dilations") or [1])
    if dilated or any(pad >= kernel[i % rank] for i, pad in enumerate(pads)):
        raise ChunkingError(
            f"node {node.name}: MaxPool with dilations or with pads as wide as its window cannot "
            "be proved"
        )
    sizes = list(data.shape.numpy())
    for axis, (before, after) in enumerate(zip(pads[:rank], pads[rank:], strict=True), start=2):
        if not before and not after:
            continue
        index = np.clip(np.arange(-before, sizes[axis] + after), 0, sizes[axis] - 1)
        sizes[axis] = len(index)
        name = f"{node.name}/edge_{axis}"
        gather = ir.node("Gather", [data, _constant(model, name, index)], {"axis": axis})
        gather.name = name
        made = gather.outputs[0]
        made.name, made.shape, made.type = f"{name}_out", ir.Shape(sizes), data.type
        model.graph.insert_before(node, gather)
        data = made
    node.replace_input_with(0, data)
    node.attributes["pads"] = ir.AttrInt64s("pads", [0] * (2 * rank))


def _count_padding(model: ir.Model, node: ir.Node) -> None:
    data, output = node.inputs[0], node.outputs[0]
    if data is None or data.shape is None or output.shape is None:
        raise ChunkingError(f"node {node.name}: a shape is unknown")
    kernel, pads, strides = (_ints(node, name) for name in ("kernel_shape", "pads", "strides"))
    rank = len(kernel)
    counts = np.ones([1] * rank)
    for axis in range(rank):
        size, made = data.shape.numpy()[2 + axis], output.shape.numpy()[2 + axis]
        starts = np.arange(made) * strides[axis] - pads[axis]
        inside = np.minimum(starts + kernel[axis], size) - np.maximum(starts, 0)
        counts = counts * inside.reshape([-1 if i == axis else 1 for i in range(rank)])
    factor = (np.prod(kernel) / counts).astype(np.float32)[np.newaxis, np.newaxis]
    node.attributes["count_include_pad"] = ir.AttrInt64("count_include_pad", 1)
    constant = _constant(model, f"{node.name}/divisor", factor)
    scaled = ir.node("Mul", [output, constant], name=f"{node.name}/corrected")
    model.graph.insert_after(node, scaled)
    corrected = scaled.outputs[0]
    name, output.name = output.name, f"{node.name}/counted"
    corrected.shape, corrected.type = output.shape, output.type
    ir.convenience.replace_all_uses_with(output, corrected, replace_graph_outputs=True)
    scaled.replace_input_with(0, output)
    corrected.name = name


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


def _ints(node: ir.Node, name: str) -> list[int]:
    return list(node.attributes[name].as_ints()) if name in node.attributes else []
