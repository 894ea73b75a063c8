"""The one form of a softmax with dropped keys, behind normalisation.

    Softmax(Where(kept, scores, DROPPED))        kept: a constant, a key of every row true

In float32 a dropped key's share is exactly 0. `normal_form.masks` writes masks so; circuits know
the form and compute with the kept keys alone, so that no number of DROPPED's size is ever one of
theirs. Between the two operators no cut may fall.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
import onnx
from onnx import numpy_helper

DROPPED: Final = float(np.finfo(np.float32).min)
"""What stands in the place of a dropped key's score."""


def is_masked(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether a node gives scores, and DROPPED where a constant is false."""
    if node.op_type != "Where" or len(node.input) != 3 or node.input[0] not in constants:
        return False
    filling = constants.get(node.input[2])
    if filling is None or filling.data_type != onnx.TensorProto.FLOAT:
        return False
    numbers = numpy_helper.to_array(filling)
    return numbers.size == 1 and float(numbers.reshape(-1)[0]) == DROPPED


def masked_tensors(
    nodes: Iterable[onnx.NodeProto], constants: Mapping[str, onnx.TensorProto]
) -> set[str]:
    """The tensors that hold DROPPED: none of them may cross a cut."""
    return {node.output[0] for node in nodes if is_masked(node, constants)}
