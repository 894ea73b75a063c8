"""Sparse tensors, written out: what comes after the loader knows dense ones alone."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import helper, numpy_helper

from zkml_ray.chunking.external import MAX_MODEL_BYTES
from zkml_ray.chunking.places import node_label
from zkml_ray.errors import ModelFormatError, UnsupportedOperatorError


def write_out_sparse(proto: onnx.ModelProto) -> None:
    """Turn sparse initializers and constants of a model's graph and functions into dense ones.

    Args:
        proto: The model; changed in place.

    Raises:
        ModelFormatError: Indices do not fit the shape, or the dense tensor would be too large.
        UnsupportedOperatorError: A node that is no Constant has a sparse tensor.
    """
    for sparse in proto.graph.sparse_initializer:
        name = sparse.values.name
        dense = _dense(sparse, f"sparse initializer {name!r}")
        proto.graph.initializer.append(numpy_helper.from_array(dense, name))
    del proto.graph.sparse_initializer[:]
    for node in (*proto.graph.node, *(node for f in proto.functions for node in f.node)):
        for attribute in node.attribute:
            held = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
            if not held and not attribute.sparse_tensors:
                continue
            if node.op_type != "Constant" or attribute.name != "sparse_value" or not held:
                raise UnsupportedOperatorError(
                    f"attribute {attribute.name} of {node_label(node)} is a sparse tensor, which "
                    "is supported in Constant alone"
                )
            dense = _dense(held[0], node_label(node))
            attribute.CopyFrom(helper.make_attribute("value", numpy_helper.from_array(dense)))


def _dense(sparse: onnx.SparseTensorProto, where: str) -> np.ndarray:
    values = numpy_helper.to_array(sparse.values)
    indices = numpy_helper.to_array(sparse.indices)
    shape = tuple(sparse.dims)
    count = math.prod(shape)
    if any(size < 1 for size in shape) or count * max(values.itemsize, 1) > MAX_MODEL_BYTES:
        raise ModelFormatError(
            f"{where} has shape {list(shape)}; at most {MAX_MODEL_BYTES} bytes and no empty "
            "dimension were expected"
        )
    places = _flat(indices, shape, values.size)
    if places is None or len(np.unique(places)) != len(places):
        raise ModelFormatError(
            f"{where}: its {values.size} indices are not one place each in shape {list(shape)}"
        )
    dense = np.zeros(count, dtype=values.dtype)
    dense[places] = values.ravel()
    return dense.reshape(shape)


def _flat(indices: np.ndarray, shape: tuple[int, ...], count: int) -> np.ndarray | None:
    """Indices, one number or one per axis each, as places in the flat tensor; None: no such."""
    if indices.shape == (count,):
        inside = ((indices >= 0) & (indices < math.prod(shape))).all()
        return indices if inside else None
    if indices.shape != (count, len(shape)):
        return None
    if not ((indices >= 0) & (indices < np.array(shape))).all():
        return None
    return np.ravel_multi_index(tuple(indices.T), shape) if shape else indices[:, 0]
