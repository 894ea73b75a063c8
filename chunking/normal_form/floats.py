"""float64, float16 and bfloat16 taken as float32.

Circuits compute on fixed-point numbers of far fewer bits than float32 has, so nothing that could be
proved is lost; what onnxruntime computes in the file's own types is what outputs are compared with.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from zkml_ray.chunking.places import nodes, tensors
from zkml_ray.errors import ModelFormatError

_NAMES: Final = {
    TensorProto.DOUBLE: "float64",
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
}


def other_floats(proto: onnx.ModelProto) -> list[str]:
    """Which float types besides float32 a model has, by name."""
    found = {place.tensor.data_type for place in tensors(proto)}
    found.update(value.type.tensor_type.elem_type for value in proto.graph.input)
    found.update(value.type.tensor_type.elem_type for value in proto.graph.output)
    found.update(a.i for place in nodes(proto) for a in place.node.attribute if a.name == "to")
    return sorted(_NAMES[kind] for kind in found & _NAMES.keys())


def as_float32(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A model whose floats are all float32.

    Args:
        proto: The model (not changed).

    Returns:
        The model, or the same one if it has no others.

    Raises:
        ModelFormatError: A number does not fit float32.
    """
    if not other_floats(proto):
        return proto
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    for place in tensors(result):
        if place.tensor.data_type not in _NAMES:
            continue
        with np.errstate(over="ignore"):
            wide = numpy_helper.to_array(place.tensor)
            numbers = wide.astype(np.float32)
        if not np.isfinite(numbers).all() and np.isfinite(wide.astype(np.float64)).all():
            raise ModelFormatError(f"{place.where}: a number does not fit float32")
        place.tensor.CopyFrom(numpy_helper.from_array(numbers, place.tensor.name))
    for node_place in nodes(result):
        for attribute in node_place.node.attribute:
            if attribute.name in ("to", "dtype", "stash_type") and attribute.i in _NAMES:
                attribute.i = TensorProto.FLOAT
    for value in (*result.graph.input, *result.graph.output):
        if value.type.tensor_type.elem_type in _NAMES:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return result
