"""Sigmoid and Tanh: one table of tanh, which is 1 from 8 on but for less than 2^-20.

sigmoid(x) = (1 + tanh(x / 2)) / 2 is as near as a table of its own would be: the halved argument's
rounding counts a quarter, and the result's is halved. So LSTM and GRU have one table a circuit.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import onnx

from zkml_ray.chunking.hinted.functions import odd, shifted
from zkml_ray.chunking.hinted.operators.linear import rescaled
from zkml_ray.chunking.hinted.values import Value

if TYPE_CHECKING:
    from zkml_ray.chunking.hinted.lower import Lowering


def tanh(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """Tanh."""
    return odd(lowering, "Tanh", lowering.linear(node.input[0]), node.input[0])


def sigmoid(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """Sigmoid: 1 + tanh(x / 2), twice as fine."""
    argument = rescaled(lowering.linear(node.input[0]), 0.5)
    found = shifted(lowering, odd(lowering, "Tanh", argument, node.input[0]), 1.0)
    return replace(found, wire=replace(found.wire, resolution=2 * lowering.resolution))
