"""BatchNormalization in inference is y = x * a + b per channel: folded away, or written as that.

With a = scale / sqrt(var + epsilon) and b = bias - mean * a. Computed in float64, whose square root
and division are correctly rounded, then rounded to float32 once: the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from zkml_ray.chunking.normal_form.structure import move_output, refuse_operators
from zkml_ray.errors import ChunkingError

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Affine:
    """y = x * factor + offset, one of each per channel."""

    factor: Doubles
    offset: Doubles


class FoldBatchNorm(InPlacePass):
    """Pre: shapes inferred, constants are initializers. Post: no BatchNormalization.

    Where a Conv, Gemm or MatMul with constant weights makes the tensor and nothing else reads it
    (a constant Add in between is allowed behind MatMul), the affine map goes into the weights;
    otherwise it becomes Mul and Add. Same outputs up to float rounding.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Fold or expand every BatchNormalization."""
        found = [node for node in model.graph if node.op_type == "BatchNormalization"]
        for node in found:
            affine = _affine(node)
            if not _into_conv(model, node, affine) and not _into_product(model, node, affine):
                _expand(model, node, affine)
        return PassResult(model, modified=bool(found))

    def ensures(self, model: ir.Model) -> None:
        """No BatchNormalization is left."""
        refuse_operators(model, frozenset({"BatchNormalization"}))


def _affine(node: ir.Node) -> _Affine:
    training = node.attributes.get("training_mode")
    if (training is not None and training.as_int()) or any(
        value.uses() or value.is_graph_output() for value in node.outputs[1:]
    ):
        raise ChunkingError(
            f"node {node.name}: BatchNormalization in training mode depends on the batch; export "
            "the model for inference"
        )
    arrays = [_constant(value) for value in node.inputs[1:5]]
    if len(arrays) != 4 or any(array is None for array in arrays):
        raise ChunkingError(f"node {node.name}: BatchNormalization needs constant parameters")
    scale, bias, mean, variance = (np.asarray(array, dtype=np.float64) for array in arrays)
    epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5
    # The attribute is a float32; Python shows it as the nearest double of its decimal digits.
    spread = variance + np.float64(np.float32(epsilon))
    if not (np.isfinite(spread).all() and (spread > 0).all()):
        raise ChunkingError(f"node {node.name}: BatchNormalization has a variance below zero")
    factor = scale / np.sqrt(spread)
    return _Affine(factor=factor, offset=bias - mean * factor)


def _into_conv(model: ir.Model, node: ir.Node, affine: _Affine) -> bool:
    conv = _only_producer(node.inputs[0], "Conv")
    weight = None if conv is None else _constant(conv.inputs[1])
    if conv is None or weight is None:
        return False
    bias: npt.NDArray[np.generic] | None = np.zeros(1)
    if len(conv.inputs) > 2 and conv.inputs[2] is not None:
        bias = _constant(conv.inputs[2])
    if bias is None:
        return False
    per_filter = affine.factor.reshape(-1, *[1] * (weight.ndim - 1))
    _set_input(model, conv, 1, weight.astype(np.float64) * per_filter)
    _set_input(model, conv, 2, bias.astype(np.float64) * affine.factor + affine.offset)
    _remove(model, node)
    return True


def _into_product(model: ir.Model, node: ir.Node, affine: _Affine) -> bool:
    data = node.inputs[0]
    # The channel is axis 1: of a matrix that is the last one, as the columns of the weights are.
    if data is None or data.shape is None or data.shape.rank() != 2:
        return False
    adding = _only_producer(data, "Add")
    product = _only_producer(data, "Gemm") or _only_producer(data, "MatMul")
    before = np.zeros(1)
    if adding is not None:
        sides = [_constant(value) for value in adding.inputs]
        place = 0 if sides[1] is not None else 1
        constant = sides[1 - place]
        product = _only_producer(adding.inputs[place], "MatMul")
        if constant is None or constant.size not in (1, affine.factor.size):
            return False
        if constant.size > 1 and constant.shape[-1] != constant.size:
            return False  # an addend a row
        before = constant.astype(np.float64).ravel()
    if product is None:
        return False
    weight = _constant(product.inputs[1])
    if weight is None or weight.ndim != 2:
        return False
    if product.op_type == "Gemm":
        return _into_gemm(model, node, product, weight, affine)
    _set_input(model, product, 1, weight.astype(np.float64) * affine.factor)
    offset = _new_constant(model, f"{node.name}/offset", before * affine.factor + affine.offset)
    sum_ = ir.node("Add", [product.outputs[0], offset], name=f"{node.name}/add")
    model.graph.insert_after(node, sum_)
    move_output(node.outputs[0], sum_.outputs[0])
    model.graph.remove(node, safe=True)
    return True


def _into_gemm(
    model: ir.Model, node: ir.Node, gemm: ir.Node, weight: npt.NDArray[np.generic], affine: _Affine
) -> bool:
    bias: npt.NDArray[np.generic] | None = np.zeros(1)
    if len(gemm.inputs) > 2 and gemm.inputs[2] is not None:
        bias = _constant(gemm.inputs[2])
    if bias is None or bias.size not in (1, affine.factor.size):
        return False
    if bias.shape[-1:] not in ((), (bias.size,)):
        return False  # a column: one number a row, not one a channel
    beta = gemm.attributes["beta"].as_float() if "beta" in gemm.attributes else 1.0
    if beta != 1.0:
        return False
    transposed = "transB" in gemm.attributes and gemm.attributes["transB"].as_int()
    per_column = affine.factor.reshape(-1, 1) if transposed else affine.factor
    _set_input(model, gemm, 1, weight.astype(np.float64) * per_column)
    folded = bias.astype(np.float64).ravel() * affine.factor + affine.offset
    _set_input(model, gemm, 2, folded)
    _remove(model, node)
    return True


def _expand(model: ir.Model, node: ir.Node, affine: _Affine) -> None:
    data = node.inputs[0]
    if data is None or data.shape is None:
        raise ChunkingError(f"node {node.name}: the input's shape is unknown")
    per_channel = [-1, *[1] * (data.shape.rank() - 2)]
    factor = _new_constant(model, f"{node.name}/factor", affine.factor.reshape(per_channel))
    offset = _new_constant(model, f"{node.name}/offset", affine.offset.reshape(per_channel))
    scaled = ir.node("Mul", [data, factor], name=f"{node.name}/mul")
    scaled.outputs[0].name = f"{node.name}/scaled"
    scaled.outputs[0].shape, scaled.outputs[0].type = data.shape, data.type
    moved = ir.node("Add", [scaled.outputs[0], offset], name=f"{node.name}/add")
    model.graph.insert_after(node, [scaled, moved])
    move_output(node.outputs[0], moved.outputs[0])
    model.graph.remove(node, safe=True)


def _only_producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node that makes a value, if it is of this type and nothing else uses the value."""
    if value is None or value.is_graph_output() or len(value.uses()) != 1:
        return None
    producer = value.producer()
    return producer if producer is not None and producer.op_type == op_type else None


def _constant(value: ir.Value | None) -> npt.NDArray[np.generic] | None:
    if value is None or not value.is_initializer() or value.const_value is None:
        return None
    array: npt.NDArray[np.generic] = value.const_value.numpy()
    return array


def _new_constant(model: ir.Model, name: str, array: Doubles) -> ir.Value:
    while name in model.graph.initializers:
        name += "_"
    with np.errstate(over="ignore"):  # what becomes infinite is refused by name
        tensor = ir.tensor(array.astype(np.float32), name=name)
    value = ir.Value(
        name=name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(ir.DataType.FLOAT),
        const_value=tensor,
    )
    model.graph.register_initializer(value)
    return value


def _set_input(model: ir.Model, node: ir.Node, index: int, array: Doubles) -> None:
    """Give a node a new constant of its own; the old one may have other readers."""
    constant = _new_constant(model, f"{node.name}/folded_{index}", array)
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, constant)


def _remove(model: ir.Model, node: ir.Node) -> None:
    data = node.inputs[0]
    if data is None:
        raise ChunkingError(f"node {node.name}: {node.op_type} has no input")
    move_output(node.outputs[0], data)
    model.graph.remove(node, safe=True)
