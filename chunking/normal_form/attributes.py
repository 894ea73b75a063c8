"""What of an operator the backend is known to read as ONNX does.

A table of every operator that a chunk may contain: its attributes, and which inputs must be
constant. It was made by reading the ONNX specification (Operators.md, opset 18) beside tract's
parser and ezkl 23.0.5's graph module, and is kept up by tests that run every entry against
onnxruntime. What is not in the table is refused by name: an attribute that the backend passes
over would prove another model than the user's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import onnx
import onnx_ir as ir
from onnx import helper
from onnx_ir.passes import InPlacePass, PassResult

from zkml_ray.chunking.normal_form.graph import described
from zkml_ray.errors import ChunkingError


@dataclass(frozen=True, slots=True)
class _Read:
    """What is read of an operator.

    Attributes:
        attributes: Names of attributes.
        constant: Positions of inputs that must be constant where they are given.
        most: Largest number of inputs; None: any.
    """

    attributes: frozenset[str]
    constant: tuple[int, ...] = ()
    most: int | None = None


def _read(*attributes: str, constant: tuple[int, ...] = (), most: int | None = 1) -> _Read:
    return _Read(frozenset(attributes), constant, most)


_WINDOW: Final = ("kernel_shape", "strides", "pads")

READ: Final[Mapping[str, _Read]] = {
    **dict.fromkeys(
        (
            *("Abs", "Erf", "Exp", "Floor", "GlobalAveragePool", "Identity", "Log", "Neg", "Relu"),
            *("Sigmoid", "Sign", "Sqrt", "Tanh"),
            *("Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh"),
            *("Cos", "Cosh", "Sin", "Sinh"),
        ),
        _read(),
    ),
    **dict.fromkeys(("Add", "Div", "MatMul", "Max", "Min", "Mul", "Sub", "Sum"), _read(most=2)),
    "AveragePool": _read(*_WINDOW, "count_include_pad"),
    "Clip": _read(constant=(1, 2), most=3),
    "Concat": _read("axis", most=None),
    "Conv": _read(*_WINDOW, "dilations", "group", most=3),
    "Einsum": _read("equation", most=None),
    "Expand": _read(constant=(1,), most=2),
    "Flatten": _read("axis"),
    "Gather": _read("axis", constant=(1,), most=2),
    "Gemm": _read("alpha", "beta", "transA", "transB", most=3),
    "LayerNormalization": _read("axis", "epsilon", "stash_type", most=3),
    "LeakyRelu": _read("alpha"),
    "MaxPool": _read(*_WINDOW, "dilations", "storage_order"),
    "Pad": _read("mode", constant=(1,), most=2),
    "Pow": _read(most=2),
    **dict.fromkeys(
        ("ReduceMax", "ReduceMean", "ReduceSum"),
        _read("keepdims", "noop_with_empty_axes", constant=(1,), most=2),
    ),
    "Reshape": _read("allowzero", constant=(1,), most=2),
    "Slice": _read(constant=(1, 2, 3, 4), most=5),
    "Softmax": _read("axis"),
    "Split": _read("axis", "num_outputs", constant=(1,), most=2),
    "Squeeze": _read(constant=(1,), most=2),
    "Transpose": _read("perm"),
    "Unsqueeze": _read(constant=(1,), most=2),
    "Where": _read(constant=(0,), most=3),
}


class DropDefaults(InPlacePass):
    """Pre: a normalised graph. Post: what the backend passes over says nothing of its own. Exact.

    An attribute that has the value which its operator's specification takes without it goes.
    """

    def __init__(self, opset: int) -> None:
        """Read operators in a version.

        Args:
            opset: The version.
        """
        super().__init__()
        self._opset = opset

    def call(self, model: ir.Model) -> PassResult:
        """Leave defaults out, but those that are read."""
        modified = False
        for node in model.graph:
            known = READ.get(node.op_type)
            unread = set(node.attributes) - known.attributes if known is not None else set()
            for name in sorted(unread):
                if _is_default(node, name, self._opset):
                    node.attributes.pop(name)
                    modified = True
        return PassResult(model, modified=modified)


def _is_default(node: ir.Node, name: str, opset: int) -> bool:
    declared = onnx.defs.get_schema(node.op_type, opset, node.domain).attributes.get(name)
    if declared is None or not declared.default_value.name:
        return False
    given = helper.get_attribute_value(ir.to_proto(node.attributes[name]))
    return bool(given == helper.get_attribute_value(declared.default_value))


def refuse_unread(model: ir.Model) -> None:
    """Refuse what the backend is not known to read.

    Args:
        model: A normalised model.

    Raises:
        ChunkingError: A node has such an attribute, input or output.
    """
    for node in model.graph:
        known = READ.get(node.op_type)
        if known is None:
            continue  # refused as an operator
        for name in sorted(set(node.attributes) - known.attributes):
            raise ChunkingError(
                f"{described(node)}: its attribute {name} cannot be proved; leave it out, or write "
                "what it does with other operators"
            )
        if known.most is not None and len(node.inputs) > known.most:
            raise ChunkingError(
                f"{described(node)}: it has {len(node.inputs)} inputs; {known.most} can be proved"
            )
        for index in known.constant:
            value = node.inputs[index] if index < len(node.inputs) else None
            if value is not None and not value.is_initializer():
                raise ChunkingError(
                    f"{described(node)}: its input {value.name} must be a constant to be proved"
                )
        for value in node.outputs[1:]:
            if node.op_type != "Split" and (value.uses() or value.is_graph_output()):
                raise ChunkingError(
                    f"{described(node)}: only its first output can be proved, but {value.name} "
                    "is read"
                )
