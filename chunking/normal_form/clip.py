"""Bounds that bound nothing."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

_LARGEST: Final = float(np.finfo(np.float32).max)


class DropInfiniteBounds(InPlacePass):
    """Pre: constants are initializers. Post: no Clip's bound lies beyond what float32 holds. Exact.

    Exporters write a Clip with one bound with an infinite other one, or, where opset 6 has it as a
    default, with the largest number. A Clip without a bound is an Identity.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Leave infinite bounds out."""
        modified = False
        for node in model.graph:
            if node.op_type != "Clip":
                continue
            for position, sign in ((1, -1.0), (2, 1.0)):
                if position < len(node.inputs) and _is_beyond(node.inputs[position], sign):
                    node.replace_input_with(position, None)
                    modified = True
            if all(bound is None for bound in node.inputs[1:]):
                node.op_type = "Identity"
                node.resize_inputs(1)
                modified = True
        return PassResult(model, modified=modified)


def _is_beyond(value: ir.Value | None, sign: float) -> bool:
    constant = None if value is None else ir.convenience.get_const_tensor(value)
    return constant is not None and bool((sign * constant.numpy() >= _LARGEST).all())
