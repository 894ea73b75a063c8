"""One way of writing where ONNX allows several and the backend reads some of them otherwise.

- Expand: ezkl broadcasts a tensor of lower rank from the wrong end; a Reshape gives it the rank.
- Reductions: axes are a constant input, counted from the start; reducing over none is an Identity.
- LayerNormalization over several axes: over one, between two Reshapes; as its definition where its
  mean or deviation is read, or a parameter is no constant.
- Concat without what has no element; of one tensor, an Identity.
- Max, Min and Sum of one or of more than two tensors: a chain of two each.
- MatMul of or by a vector: a Reshape on either side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from zkml_ray.chunking.normal_form.graph import (
    Place,
    array_of,
    data_of,
    described,
    integer,
    sizes,
)
from zkml_ray.errors import ChunkingError

REDUCTIONS: Final = frozenset({"ReduceMax", "ReduceMean", "ReduceSum"})


class OneForm(InPlacePass):
    """Pre: shapes known, constants are initializers. Post: see the module. Exact."""

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite what is written another way."""
        modified = False
        for node in list(model.graph):
            rewrite = _REWRITES.get(node.op_type)
            if rewrite is not None:
                modified |= rewrite(model, node)
        return PassResult(model, modified=modified)


def _concat(model: ir.Model, node: ir.Node) -> bool:
    values = [data_of(node, index) for index in range(len(node.inputs))]
    filled = [value for value in values if math.prod(sizes(value, node))]
    if len(filled) == len(values) > 1 or not filled:
        return False
    place, made = Place(model, node), sizes(node.outputs[0], node)
    if len(filled) > 1:
        axis = integer(node, "axis", 0)
        place.finish(place.node("Concat", filled, made, axis=axis))
    else:
        place.finish(place.node("Identity", filled, made))
    return True


def _expand(model: ir.Model, node: ir.Node) -> bool:
    data, made = data_of(node), sizes(node.outputs[0], node)
    shape = sizes(data, node)
    given = array_of(node, 1)
    if len(shape) == len(made) and given is not None and tuple(given.tolist()) == made != shape:
        return False
    place = Place(model, node)
    if len(shape) < len(made):
        raised = (*[1] * (len(made) - len(shape)), *shape)
        data = place.node("Reshape", [data, place.integers(raised)], raised)
        shape = raised
    if shape != made:
        data = place.node("Expand", [data, place.integers(made)], made)
    place.finish(data)
    return True


def _reduce(model: ir.Model, node: ir.Node) -> bool:
    data = data_of(node)
    shape = sizes(data, node)
    given = array_of(node, 1)
    axes = [] if given is None else [int(axis) for axis in given.reshape(-1)]
    if any(not -len(shape) <= axis < len(shape) for axis in axes):
        raise ChunkingError(f"{described(node)}: axes {axes} are not those of shape {shape}")
    whole = sorted({axis % len(shape) for axis in axes})
    idle = integer(node, "noop_with_empty_axes", 0)
    if not whole and not idle:
        whole = list(range(len(shape)))
    keep = integer(node, "keepdims", 1)
    if whole == axes and not idle and "keepdims" in node.attributes and whole:
        return False
    place = Place(model, node)
    if not whole:
        place.finish(place.node("Identity", [data], shape))
        return True
    made = sizes(node.outputs[0], node)
    place.finish(place.node(node.op_type, [data, place.integers(whole)], made, keepdims=keep))
    return True


def _layer_norm(model: ir.Model, node: ir.Node) -> bool:
    read = any(output.uses() or output.is_graph_output() for output in node.outputs[1:])
    constant = all(value is None or value.is_initializer() for value in node.inputs[1:])
    if read or not constant:
        _define_layer_norm(model, node)
        return True
    data = data_of(node)
    shape = sizes(data, node)
    axis = integer(node, "axis", -1) % len(shape)
    width = math.prod(shape[axis:])
    parameters = [value for value in node.inputs[1:] if value is not None]
    plain = all(sizes(value, node) == (width,) for value in parameters)
    if axis == len(shape) - 1 and plain:
        return False
    place = Place(model, node)
    rows = (*shape[:axis], width)
    inputs = [data]
    if rows != shape:
        inputs[0] = place.node("Reshape", [data, place.integers(rows)], rows)
    for value in parameters:
        array = value.const_value.numpy() if value.const_value is not None else np.ones(1)
        inputs.append(place.floats(np.broadcast_to(array, shape[axis:]).reshape(-1)))
    result = place.node("LayerNormalization", inputs, rows, axis=-1, epsilon=_epsilon(node))
    if rows != shape:
        result = place.node("Reshape", [result, place.integers(shape)], shape)
    place.finish(result)
    return True


def _define_layer_norm(model: ir.Model, node: ir.Node) -> None:
    """Write what ONNX defines LayerNormalization as; its mean and 1 / deviation are read too."""
    place, data = Place(model, node), data_of(node)
    shape = sizes(data, node)
    axis = integer(node, "axis", -1) % len(shape)
    axes = list(range(axis, len(shape)))
    row = (*shape[:axis], *[1] * len(axes))

    def mean_of(value: ir.Value) -> ir.Value:
        return place.node("ReduceMean", [value, place.integers(axes)], row, keepdims=1)

    mean = mean_of(data)
    centred = place.node("Sub", [data, mean], shape)
    variance = mean_of(place.node("Mul", [centred, centred], shape))
    moved = place.node("Add", [variance, place.floats(_epsilon(node))], row)
    inverse = place.node("Div", [place.floats(1.0), place.node("Sqrt", [moved], row)], row)
    result = place.node("Mul", [centred, inverse], shape)
    for op, value in zip(("Mul", "Add"), node.inputs[1:], strict=False):
        if value is not None:
            result = place.node(op, [result, value], shape)
    for old, new in zip(node.outputs[1:], (mean, inverse), strict=False):
        if old.name:
            ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
            new.name, old.name = old.name, None
    place.finish(result)


def _epsilon(node: ir.Node) -> float:
    return node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5


def _chain(model: ir.Model, node: ir.Node) -> bool:
    values = [value for value in node.inputs if value is not None]
    if len(values) == 2:
        return False
    place, made = Place(model, node), sizes(node.outputs[0], node)
    op = "Add" if node.op_type == "Sum" else node.op_type
    total = values[0]
    for value in values[1:]:
        shape = np.broadcast_shapes(sizes(total, node), sizes(value, node))
        total = place.node(op, [total, value], shape)
    place.finish(total if len(values) > 1 else place.node("Identity", [total], made))
    return True


def _vectors(model: ir.Model, node: ir.Node) -> bool:
    left, right = data_of(node), data_of(node, 1)
    shapes = [sizes(value, node) for value in (left, right)]
    if all(len(shape) > 1 for shape in shapes):
        return False
    place, made = Place(model, node), sizes(node.outputs[0], node)
    if len(shapes[0]) == 1:
        shapes[0] = (1, *shapes[0])
        left = place.node("Reshape", [left, place.integers(shapes[0])], shapes[0])
    if len(shapes[1]) == 1:
        shapes[1] = (*shapes[1], 1)
        right = place.node("Reshape", [right, place.integers(shapes[1])], shapes[1])
    before = np.broadcast_shapes(shapes[0][:-2], shapes[1][:-2])
    product = place.node("MatMul", [left, right], (*before, shapes[0][-2], shapes[1][-1]))
    place.finish(place.node("Reshape", [product, place.integers(made)], made))
    return True


_REWRITES: Final[Mapping[str, Callable[[ir.Model, ir.Node], bool]]] = {
    "Concat": _concat,
    "Expand": _expand,
    "LayerNormalization": _layer_norm,
    "MatMul": _vectors,
    "Max": _chain,
    "Min": _chain,
    "Sum": _chain,
    **dict.fromkeys(REDUCTIONS, _reduce),
}
