"""Roots and powers of sums of powers: Lp norms and pools, and normalisation over channels."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from zkml_ray.chunking.normal_form.writer import Writer

_WINDOW = ("auto_pad", "dilations", "kernel_shape", "pads", "strides")


def lp_normalisation(write: Writer) -> ir.Value:
    """X over the Lp norm of its row."""
    x, p = write.input(0), int(write.attribute("p", 2))
    axes = write.integers([write.axis(-1)])
    total = write.op("ReduceSum", _power(write, x, p), axes, keepdims=1)
    return write.op("Div", x, _root(write, total, p))


def lp_pool(write: Writer) -> ir.Value:
    """The Lp norm of every window: the root of a convolution of powers with ones."""
    shape, p = write.shape(), int(write.attribute("p", 2))
    kernel = [int(size) for size in write.attribute("kernel_shape", ())]
    if write.attribute("ceil_mode", 0):
        raise write.refusal("ceil_mode cannot be proved; pad the input instead")
    if len(kernel) != len(shape) - 2:
        raise write.refusal(
            f"a kernel of {len(kernel)} dimensions does not fit a tensor of {len(shape)}"
        )
    window = {name: write.attribute(name, None) for name in _WINDOW}
    ones = write.floats(np.ones([shape[1], 1, *kernel]))
    sums = write.op(
        "Conv",
        _power(write, write.input(0), p),
        ones,
        group=shape[1],
        **{name: value for name, value in window.items() if value is not None},
    )
    return _root(write, sums, p)


def global_lp_pool(write: Writer) -> ir.Value:
    """The Lp norm of every channel of every image."""
    p = int(write.attribute("p", 2))
    axes = write.integers(list(range(2, len(write.shape()))))
    return _root(
        write, write.op("ReduceSum", _power(write, write.input(0), p), axes, keepdims=1), p
    )


def local_response(write: Writer) -> ir.Value:
    """X / (bias + alpha / size sum x^2)^beta, the sum over the channels near it."""
    x, shape = write.input(0), write.shape()
    size, beta = int(write.attribute("size", 0)), float(write.attribute("beta", 0.75))
    alpha, bias = (float(write.attribute(name, v)) for name, v in (("alpha", 1e-4), ("bias", 1.0)))
    if size < 1:
        raise write.refusal(f"size is {size}; 1 or more was expected")
    channels = shape[1]
    before, after = (size - 1) // 2, size // 2
    far = np.arange(channels)[None, :] - np.arange(channels)[:, None]
    near = write.floats((far >= -before) & (far <= after))
    squares = write.reshape(write.op("Mul", x, x), [shape[0], channels, math.prod(shape[2:])])
    sums = write.reshape(write.op("MatMul", near, squares), list(shape))
    base = write.op("Add", write.op("Mul", sums, write.floats(alpha / size)), write.floats(bias))
    return write.op("Div", x, base if beta == 1 else write.op("Pow", base, write.floats(beta)))


def _power(write: Writer, x: ir.Value | None, p: int) -> ir.Value:
    """|x|^p."""
    if p < 1:
        raise write.refusal(f"p is {p}; 1 or more was expected")
    if p == 2:
        return write.op("Mul", x, x)
    size = write.op("Abs", x)
    return size if p == 1 else write.op("Pow", size, write.floats(float(p)))


def _root(write: Writer, total: ir.Value, p: int) -> ir.Value:
    if p == 1:
        return total
    return write.op("Sqrt", total) if p == 2 else write.op("Pow", total, write.floats(1 / p))
