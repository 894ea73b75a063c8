"""Pass `split-output`: a wide matrix product or convolution is made in parts.

Precondition: a MatMul or Gemm of a tensor by a constant matrix, or a Conv with group 1 and constant
weights, that makes at least as many columns (rows, where the constant stands first; channels) as
the parameter asks parts of. Parameter: parts.

Postcondition: per part one node of the same kind with its share of the weights and bias, and a
Concat of the parts under the output's old name. What follows the operator and works element by
element with constants alone (Mul, Add, Sub by a constant, Relu, Neg, Abs) is done part by part
before the Concat.

Exactness: bit-exact. Every element is computed from the same operands in the same order, and
rescaled by the same rule; only which node does it changes.

Why: the parts can be chunks of their own, each with a fraction of the rows. Where is the cut
search's decision, so `places` names none.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from zkml_ray.chunking.passes.base import (
    Builder,
    Exactness,
    Rewrite,
    constant_of,
    dims_of,
    input_of,
    node_named,
    only_user,
    refuse,
)

MAX_PARTS: Final = 256

_UNARY: Final = frozenset({"Abs", "Neg", "Relu"})
_BINARY: Final = frozenset({"Add", "Mul", "Sub"})
Weights = npt.NDArray[np.float32]


class SplitOutput:
    """The pass."""

    name = "split-output"
    exactness: Exactness = "bit-exact"

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
        followers = _followers(node)
        last = followers[-1] if followers else node
        build = Builder(model, last, f"{rewrite.node}/{self.name}")
        edges = [wide.width * part // rewrite.parameter for part in range(rewrite.parameter + 1)]
        parts = []
        for number, (start, end) in enumerate(itertools.pairwise(edges)):
            value = _part(build, node, wide, start, end, f"{rewrite.node}/part{number}")
            for follower in followers:
                value = _following(build, follower, wide, value, start, end)
            parts.append(value)
        joined = build.node("Concat", parts, {"axis": wide.axis})
        if last is not node:
            # The chain in between is dead once its end is replaced.
            build.replace(last.outputs[0], joined)
            for dead in [*reversed(followers[:-1]), node]:
                model.graph.remove(dead, safe=True)
        else:
            build.replace(node.outputs[0], joined)


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


def _followers(node: ir.Node) -> list[ir.Node]:
    """The operators behind a node that can be done part by part, as far as there are."""
    found: list[ir.Node] = []
    value = node.outputs[0]
    shape = dims_of(value)
    while (user := only_user(value)) is not None and dims_of(user.outputs[0]) == shape:
        if user.op_type in _BINARY:
            constants = [constant_of(operand) for operand in user.inputs]
            if sum(constant is not None for constant in constants) != 1:
                break
        elif user.op_type not in _UNARY:
            break
        found.append(user)
        value = user.outputs[0]
    return found


def _part(build: Builder, node: ir.Node, wide: _Wide, start: int, end: int, name: str) -> ir.Value:
    """One part of the operator itself."""
    share = np.take(wide.weight, range(start, end), axis=wide.weight_axis)
    inputs = [value for value in node.inputs if value is not None]
    inputs[wide.weight_input] = build.constant(share, "weights")
    if node.op_type != "MatMul" and len(inputs) > 2:
        bias = constant_of(inputs[2])
        if bias is None:
            raise refuse(Rewrite(name=SplitOutput.name, node=str(node.name)), "no constant bias")
        axis = 0 if node.op_type == "Conv" else bias.ndim - 1
        inputs[2] = build.constant(_share(bias, axis, wide.width, start, end), "bias")
    made = build.node(node.op_type, inputs, _attributes(node), name=name)
    return made


def _following(
    build: Builder, node: ir.Node, wide: _Wide, value: ir.Value, start: int, end: int
) -> ir.Value:
    """One part of an operator behind it."""
    inputs: list[ir.Value] = []
    for operand in node.inputs:
        constant = constant_of(operand)
        if constant is None:
            inputs.append(value)
            continue
        axis = wide.axis - (wide.rank - constant.ndim)
        inputs.append(build.constant(_share(constant, axis, wide.width, start, end), "operand"))
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
