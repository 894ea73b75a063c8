"""Activations that ezkl lacks, written with operators that it has.

Gelu is an operator of its own from opset 20 on, and PyTorch's exporter writes it. It is replaced by
its definition, before operators are converted to the older version.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from zkml_ray.chunking.normal_form.structure import move_output, refuse_operators
from zkml_ray.errors import ChunkingError


class ExpandGelu(InPlacePass):
    """Pre: any graph. Post: no Gelu. Exact up to float rounding.

    Gelu(x) = x/2 (1 + erf(x / sqrt 2)); with approximate="tanh" it is
    x/2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).
    """

    def call(self, model: ir.Model) -> PassResult:
        """Replace every Gelu."""
        found = [node for node in model.graph if node.op_type == "Gelu"]
        for node in found:
            _expand(model, node)
        return PassResult(model, modified=bool(found))

    def ensures(self, model: ir.Model) -> None:
        """No Gelu is left."""
        refuse_operators(model, frozenset({"Gelu"}))


class _Writer:
    """Puts nodes before another one, with names derived from its name."""

    def __init__(self, model: ir.Model, place: ir.Node) -> None:
        self._model = model
        self._place = place
        self._count = 0

    def op(self, op_type: str, *inputs: ir.Value | None) -> ir.Value:
        node = ir.node(op_type, list(inputs), name=self._name())
        output = node.outputs[0]
        source = self._place.outputs[0]
        output.name, output.shape, output.type = f"{node.name}_out", source.shape, source.type
        self._model.graph.insert_before(self._place, node)
        return output

    def constant(self, number: float) -> ir.Value:
        name = self._name()
        tensor = ir.tensor(np.array(number, dtype=np.float32), name=name)
        value = ir.Value(
            name=name,
            shape=ir.Shape([]),
            type=ir.TensorType(ir.DataType.FLOAT),
            const_value=tensor,
        )
        self._model.graph.register_initializer(value)
        return value

    def _name(self) -> str:
        self._count += 1
        return f"{self._place.name or self._place.outputs[0].name}/gelu_{self._count}"


def _expand(model: ir.Model, node: ir.Node) -> None:
    x, write = node.inputs[0], _Writer(model, node)
    kind = node.attributes["approximate"].as_string() if "approximate" in node.attributes else ""
    if kind in ("", "none"):
        bent = write.op("Erf", write.op("Mul", x, write.constant(math.sqrt(0.5))))
    elif kind == "tanh":
        cube = write.op("Mul", write.op("Mul", x, x), x)
        inner = write.op("Add", x, write.op("Mul", cube, write.constant(0.044715)))
        bent = write.op("Tanh", write.op("Mul", inner, write.constant(math.sqrt(2 / math.pi))))
    else:
        raise ChunkingError(f"node {node.name}: Gelu has no approximation {kind!r}")
    twice = write.op("Mul", x, write.op("Add", bent, write.constant(1.0)))
    result = write.op("Mul", twice, write.constant(0.5))
    move_output(node.outputs[0], result)
    model.graph.remove(node, safe=True)
