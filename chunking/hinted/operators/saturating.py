"""Sigmoid and Tanh: one table of tanh, which is 1 from 8 on but for less than 2^-20.

sigmoid(x) = (1 + tanh(x / 2)) / 2 is as near as a table of its own would be: the halved argument's
rounding counts a quarter, and the result's is halved. So LSTM and GRU have one table a circuit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from zkml_ray.chunking.hinted.functions import odd
from zkml_ray.chunking.hinted.grid import View
from zkml_ray.chunking.hinted.operators.linear import rescaled
from zkml_ray.chunking.hinted.values import Value

if TYPE_CHECKING:
    from zkml_ray.chunking.hinted.lower import Lowering


def tanh(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """Tanh."""
    return odd(lowering, "Tanh", lowering.linear(node.input[0]), node.input[0])


def sigmoid(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """Sigmoid: 1 + tanh(x / 2), twice as fine."""
    circuit, one = lowering.circuit, 1 << lowering.numbers.scale
    half = odd(lowering, "Tanh", rescaled(lowering.linear(node.input[0]), 0.5), node.input[0])
    size, nominal = half.wire.size, half.wire.nominal
    raised = circuit.raised(circuit.dynamic(one), 0, nominal)
    tensor = circuit.add(half.wire.name, raised, size)
    lowering.step(do="affine", wire=tensor, parts=[half.wire.name], factor=1, offset=one)
    wire = lowering.wire(tensor, size, 0, 2 * one, 2 * lowering.resolution, nominal)
    return View(wire=wire, index=half.index)
