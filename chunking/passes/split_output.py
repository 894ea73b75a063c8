"""Pass `split-output`: a wide matrix product or convolution is made in parts.

Precondition: a MatMul or Gemm of a tensor by a constant matrix, or a Conv with group 1 and constant
weights, that makes at least as many columns (rows, where the constant stands first; channels) as
the parameter asks parts of. Parameter: parts.

Postcondition: per part one node of the same kind with its share of the weights and bias. What
follows and treats every column or channel by itself (element by element, pooling, Gather along
another axis, Reshape that keeps the axis) is done part by part; behind it a Concat of the parts has
the old name. What only moves elements in front of the operator (the columns of a convolution) is
copied for every part, so that a part can be a chunk that reads the elements once.

Exactness: bit-exact. Every element is computed from the same operands in the same order, and
rescaled by the same rule; only which node does it changes.

Why: the parts can be chunks of their own, each with a fraction of the rows, and what crosses is
what comes out of the pooling. Where is the cut search's decision, so `places` names none.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from zkml_ray.chunking.operators import SELECTING
from zkml_ray.chunking.passes.base import (
    MAX_PARTS,
    Builder,
    Exactness,
    Rewrite,
    constant_of,
    dims_of,
    input_of,
    node_named,
    refuse,
)

_ELEMENTWISE: Final = frozenset(
    {"Abs", "Add", "Div", "Erf", "Exp", "Max", "Min", "Mul", "Neg", "Relu", "Sigmoid", "Sqrt"}
    | {"Sub", "Tanh"}
)
_POOLING: Final = frozenset({"AveragePool", "GlobalAveragePool", "MaxPool"})
_MOVING: Final = SELECTING - {"MaxPool"}
Weights = npt.NDArray[np.float32]


class SplitOutput:
    """The pass."""

    name = "split-output"
    exactness: Exactness = "bit-exact"
    parameters = (2, MAX_PARTS)

    def places(self, model: ir.Model) -> list[Rewrite]:
        """None: the cut search asks for splits where a chunk would not fit."""
        return []

    def apply(self, model: ir.Model, rewrite: Rewrite) -> None:
        """Split one operator."""
        node = node_named(model, rewrite.node)
        wide = _wide(node)
        if isinstance(wide, str):
            raise refuse(rewrite, wide)
        if not 2 <= rewrite.parameter <= min(MAX_PARTS, wide.width):
            raise refuse(
                rewrite,
                f"{rewrite.parameter} parts of {wide.width} columns or channels; expected 2 to "
                f"{min(MAX_PARTS, wide.width)}",
            )
        region, members = _region(model, node, wide)
        build = Builder(model, members[-1] if members else node, f"{rewrite.node}/{self.name}")
        edges = [wide.width * part // rewrite.parameter for part in range(rewrite.parameter + 1)]
        parts: list[dict[ir.Value, ir.Value]] = []
        for number, share in enumerate(itertools.pairwise(edges)):
            data = node.inputs[1 - wide.weight_input]
            if number and data is not None:
                data = _copied_moves(build, data, {})
            name = f"{rewrite.node}/part{number}"
            made = {node.outputs[0]: _part(build, node, wide, data, share, name)}
            for member in members:
                made[member.outputs[0]] = _following(build, member, region, made, wide, share)
            parts.append(made)
        removed = {node, *members}
        for value, axis in region.items():
            readers = [reader for reader, _ in value.uses()]
            if value.is_graph_output() or any(reader not in removed for reader in readers):
                joined = build.node("Concat", [made[value] for made in parts], {"axis": axis})
                _take_place(value, joined)
        for dead in [*reversed(members), node]:
            model.graph.remove(dead, safe=True)


def _take_place(old: ir.Value, new: ir.Value) -> None:
    """Let a value have another's name and readers."""
    name = old.name
    new.shape, new.type = old.shape, old.type
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    old.name = None
    new.name = name


def splittable(proto: onnx.ModelProto) -> dict[str, int]:
    """The nodes that can be split, and into how many parts at most."""
    found = {}
    for node in ir.from_proto(proto).graph:
        wide = _wide(node)
        if isinstance(wide, _Wide) and wide.width >= 2:
            found[str(node.name)] = min(MAX_PARTS, wide.width)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wide:
    """A node that can be split.

    Attributes:
        weight: Its constant.
        weight_input: Which input that is.
        weight_axis: The constant's axis that makes the output's columns or channels.
        axis: The output's axis of these.
        rank: The output's dimensions.
        width: Columns or channels.
    """

    weight: Weights
    weight_input: int
    weight_axis: int
    axis: int
    rank: int
    width: int


def _wide(node: ir.Node) -> _Wide | str:
    """How a node can be split, or why not."""
    shape = dims_of(node.outputs[0])
    if node.op_type not in ("MatMul", "Gemm", "Conv") or not shape or len(shape) < 2:
        return f"it is a {node.op_type}; MatMul, Gemm and Conv of two dimensions or more are split"
    weight_input, weight = 1, constant_of(input_of(node, 1))
    if node.op_type == "MatMul" and weight is None:
        weight_input, weight = 0, constant_of(input_of(node, 0))
    if weight is None:
        return "it has no constant weights"
    attributes = node.attributes
    if node.op_type == "Conv":
        if "group" in attributes and attributes["group"].as_int() != 1:
            return "a convolution in groups is not split"
        weight_axis, axis = 0, 1
    elif node.op_type == "Gemm":
        if input_of(node, 2) is not None and constant_of(input_of(node, 2)) is None:
            return "its addend is no constant"
        transposed = "transB" in attributes and attributes["transB"].as_int() != 0
        weight_axis, axis = (0 if transposed else 1), 1
    else:
        if weight.ndim < 2:
            return "its constant is a vector"
        back = 1 if weight_input == 1 else 2
        weight_axis, axis = weight.ndim - back, len(shape) - back
    return _Wide(
        weight=weight,
        weight_input=weight_input,
        weight_axis=weight_axis,
        axis=axis,
        rank=len(shape),
        width=shape[axis],
    )


def _region(
    model: ir.Model, start: ir.Node, wide: _Wide
) -> tuple[dict[ir.Value, int], list[ir.Node]]:
    """What can be done part by part.

    Returns:
        The tensors that are made in parts with the axis of the parts, the split operator's output
        first, and the nodes behind it that make them, in topological order.
    """
    region = {start.outputs[0]: wide.axis}
    members: list[ir.Node] = []
    for node in model.graph:
        if node is start or not any(value in region for value in node.inputs):
            continue
        others = [v for v in node.inputs if v is not None and v not in region]
        if len(node.outputs) != 1 or not all(_is_constant(value) for value in others):
            continue
        axis = _axis_behind(node, region, wide.width)
        if axis is not None:
            region[node.outputs[0]] = axis
            members.append(node)
    return region, members


def _axis_behind(node: ir.Node, region: Mapping[ir.Value, int], width: int) -> int | None:
    """The output's axis of the parts, or None where the node does not keep them apart."""
    shape = dims_of(node.outputs[0])
    first = node.inputs[0]
    if shape is None:
        return None
    if node.op_type in _ELEMENTWISE:
        back = {len(shape_of) - region[v] for v, shape_of in _regional(node, region)}
        axis = len(shape) - back.pop() if len(back) == 1 else -1
        whole = axis >= 0 and shape[axis] == width
        return axis if whole else None
    if first is None or first not in region:
        return None
    before, axis = dims_of(first), region[first]
    if before is None:
        return None
    if node.op_type in _POOLING:
        return axis if axis == 1 else None
    if node.op_type == "Reshape":
        ahead = math.prod(before[:axis])
        for place in range(len(shape)):
            if math.prod(shape[:place]) == ahead and shape[place] == width:
                return place
        return None
    if node.op_type == "Gather":
        picked = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
        picked += len(before) if picked < 0 else 0
        if picked == axis:
            return None
        return axis if picked > axis else axis + len(shape) - len(before)
    return None


def _regional(
    node: ir.Node, region: Mapping[ir.Value, int]
) -> list[tuple[ir.Value, tuple[int, ...]]]:
    """A node's inputs that are made in parts, and their shapes."""
    return [(v, dims_of(v) or ()) for v in node.inputs if v is not None and v in region]


def _copied_moves(build: Builder, value: ir.Value, copies: dict[ir.Value, ir.Value]) -> ir.Value:
    """A copy of a tensor, as far back as its elements are only moved.

    Args:
        build: Adds nodes.
        value: The tensor.
        copies: Copies made so far, by what they are copies of.
    """
    maker = value.producer()
    if maker is None or maker.op_type not in _MOVING or len(maker.outputs) != 1:
        return value
    if value not in copies:
        inputs = [
            v if _is_constant(v) else _copied_moves(build, v, copies)
            for v in maker.inputs
            if v is not None
        ]
        copies[value] = build.node(maker.op_type, inputs, _attributes(maker))
    return copies[value]


def _is_constant(value: ir.Value) -> bool:
    return ir.convenience.get_const_tensor(value) is not None


def _part(
    build: Builder,
    node: ir.Node,
    wide: _Wide,
    data: ir.Value | None,
    share: tuple[int, int],
    name: str,
) -> ir.Value:
    """One part of the operator itself."""
    weights = np.take(wide.weight, range(*share), axis=wide.weight_axis)
    inputs = [value for value in node.inputs if value is not None]
    if data is not None:
        inputs[1 - wide.weight_input] = data
    inputs[wide.weight_input] = build.constant(weights, "weights")
    if node.op_type != "MatMul" and len(inputs) > 2:
        bias = constant_of(inputs[2])
        if bias is None:
            raise refuse(Rewrite(name=SplitOutput.name, node=str(node.name)), "no constant bias")
        axis = 0 if node.op_type == "Conv" else bias.ndim - 1
        inputs[2] = build.constant(_share(bias, axis, wide.width, *share), "bias")
    return build.node(node.op_type, inputs, _attributes(node), name=name)


def _following(
    build: Builder,
    node: ir.Node,
    region: Mapping[ir.Value, int],
    made: Mapping[ir.Value, ir.Value],
    wide: _Wide,
    share: tuple[int, int],
) -> ir.Value:
    """One part of an operator behind it."""
    output = node.outputs[0]
    shape = dims_of(output) or ()
    inputs: list[ir.Value] = []
    for position, operand in enumerate(node.inputs):
        if operand is None or operand in made:
            inputs += [made[operand]] if operand is not None else []
            continue
        constant = constant_of(operand)
        if node.op_type == "Reshape" and position == 1:
            target = list(shape)
            target[region[output]] = share[1] - share[0]
            inputs.append(build.indices(target, "shape"))
        elif node.op_type in _ELEMENTWISE and constant is not None:
            axis = region[output] - (len(shape) - constant.ndim)
            inputs.append(build.constant(_share(constant, axis, wide.width, *share), "operand"))
        else:
            inputs.append(operand)
    return build.node(node.op_type, inputs, _attributes(node))


def _share(constant: Weights, axis: int, width: int, start: int, end: int) -> Weights:
    """A constant's part along an axis; all of it where it is broadcast along that axis."""
    if axis < 0 or constant.ndim == 0 or constant.shape[axis] != width or width == 1:
        return constant
    return np.take(constant, range(start, end), axis=axis)


def _attributes(node: ir.Node) -> dict[str, int | float | str]:
    values: dict[str, int | float | str] = {
        name: attribute.value for name, attribute in node.attributes.items()
    }
    return values
