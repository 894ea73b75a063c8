"""Normalisations that are LayerNormalization of other rows."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from zkml_ray.chunking.normal_form.writer import Writer


def instance_normalisation(write: Writer) -> ir.Value:
    """Each channel of each image by its own mean and deviation."""
    return _of_groups(write, write.shape()[1])


def group_normalisation(write: Writer) -> ir.Value:
    """Each group of channels of each image by its own mean and deviation (opset 21)."""
    groups = int(write.attribute("num_groups", 0))
    shape = write.shape()
    if groups < 1 or shape[1] % groups:
        raise write.refusal(f"{groups} groups do not divide {shape[1]} channels")
    return _of_groups(write, groups)


def _of_groups(write: Writer, groups: int) -> ir.Value:
    count, channels, *spatial = write.shape()
    width = channels // groups * math.prod(spatial)
    rows = write.op(
        "LayerNormalization",
        write.reshape(write.input(0), [count * groups, width]),
        write.floats(np.ones(width)),
        write.floats(np.zeros(width)),
        axis=-1,
        epsilon=float(write.attribute("epsilon", 1e-5)),
    )
    whole = write.reshape(rows, [count, channels, *spatial])
    factor, addend = write.constant(1), write.constant(2)
    if factor is None or addend is None:
        raise write.refusal("factors and addends must be constants")
    column = [1, channels, *(1 for _ in spatial)]
    scaled = write.op("Mul", whole, write.floats(factor.reshape(column)))
    return write.op("Add", scaled, write.floats(addend.reshape(column)))


def rms_normalisation(write: Writer) -> ir.Value:
    """X scale / sqrt(mean x^2 + epsilon), the mean over the axes from `axis` on."""
    x, shape, first = write.input(0), write.shape(), write.axis(-1)
    axes = write.integers(list(range(first, len(shape))))
    squares = write.op("ReduceMean", write.op("Mul", x, x), axes, keepdims=1)
    epsilon = write.floats(float(write.attribute("epsilon", 1e-5)))
    root = write.op("Sqrt", write.op("Add", squares, epsilon))
    scaled = write.op("Mul", x, write.input(1))
    return write.op("Div", scaled, root)
