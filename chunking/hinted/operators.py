"""How each operator is lowered."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper

from zkml_ray.chunking.hinted.forms import (
    Dense,
    Floats,
    Form,
    Local,
    NotHintedError,
    Pair,
    Pending,
    identity,
    pooled,
)
from zkml_ray.chunking.hinted.gelu import error_function, gated
from zkml_ray.chunking.hinted.grid import Ints, View, Window, windows
from zkml_ray.chunking.hinted.layer_norm import layer_norm
from zkml_ray.chunking.hinted.softmax import softmax
from zkml_ray.chunking.hinted.values import ErrorFunction, Shares, Value

if TYPE_CHECKING:
    from zkml_ray.chunking.hinted.lower import Lowering, Operators


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default


def _window(node: onnx.NodeProto) -> Window:
    kernel = tuple(_attribute(node, "kernel_shape", ()))
    if len(kernel) != 2:
        raise NotHintedError(f"{node.op_type} of {len(kernel)} dimensions has no hinted form")
    if _attribute(node, "ceil_mode", 0):
        raise NotHintedError("pooling with ceil_mode has no hinted form")
    return Window(
        kernel=kernel,
        strides=tuple(_attribute(node, "strides", (1, 1))),
        pads=tuple(_attribute(node, "pads", (0, 0, 0, 0))),
        dilations=tuple(_attribute(node, "dilations", (1, 1))),
    )


def _through(view: View, index: Ints) -> Ints:
    """A view's references at flat positions, -1 staying -1."""
    flat = np.append(view.index.ravel(), -1)
    return flat[index]


def _conv(lowering: Lowering, node: onnx.NodeProto) -> Value:
    view = lowering.view(node.input[0])
    weight = lowering.constant(node.input[1])
    count, channels, height, width = view.shape
    group = _attribute(node, "group", 1)
    if count != 1:
        raise NotHintedError("convolutions of several images have no hinted form")
    taps = windows((height, width), _window(node))  # [P, k]
    out_channels, per_group, *_ = weight.shape
    plane = height * width
    spread = np.arange(channels)[:, None, None] * plane + taps[None]
    index = _through(view, np.where(taps[None] < 0, -1, spread))  # [C, P, k]
    bias = np.zeros(out_channels)
    if len(node.input) > 2:
        bias = lowering.constant(node.input[2])
    groups = len(taps)
    dense: tuple[Dense, ...] = ()
    local: tuple[Local, ...] = ()
    if group == 1:
        dense = (
            Dense(
                wire=view.wire,
                index=index.transpose(1, 0, 2).reshape(groups, -1),
                weights=weight.reshape(out_channels, -1).T,
            ),
        )
    elif per_group == 1:
        copies = out_channels // group
        local = (
            Local(
                wire=view.wire,
                index=np.repeat(index, copies, axis=0).transpose(1, 0, 2),
                weights=weight.reshape(out_channels, -1),
            ),
        )
    else:
        raise NotHintedError("grouped convolutions have no hinted form")
    form = Form(groups=groups, channels=out_channels, dense=dense, local=local, bias=bias[None])
    sites = np.arange(groups)[None] * out_channels + np.arange(out_channels)[:, None]
    return Pending(form=form, sites=sites.reshape(lowering.shape(node.output[0])))


def _dense(lowering: Lowering, node: onnx.NodeProto, weight: Floats, bias: Floats) -> Pending:
    view = lowering.view(node.input[0])
    depth, channels = weight.shape
    index = view.index.reshape(-1, depth)
    form = Form(
        groups=len(index),
        channels=channels,
        dense=(Dense(wire=view.wire, index=index, weights=weight),),
        bias=bias,
    )
    sites = np.arange(len(index) * channels, dtype=np.int64)
    return Pending(form=form, sites=sites.reshape(lowering.shape(node.output[0])))


def _gemm(lowering: Lowering, node: onnx.NodeProto) -> Value:
    if _attribute(node, "transA", 0):
        raise NotHintedError("Gemm with transA has no hinted form")
    weight = lowering.constant(node.input[1])
    weight = weight.T if _attribute(node, "transB", 0) else weight
    weight = weight * _attribute(node, "alpha", 1.0)
    bias = np.zeros((1, weight.shape[1]))
    if len(node.input) > 2:
        constant = lowering.constant(node.input[2]) * _attribute(node, "beta", 1.0)
        rows = lowering.shape(node.output[0])[0]
        bias = np.broadcast_to(constant, (rows, weight.shape[1]))
        bias = bias[:1] if (bias == bias[:1]).all() else bias
    return _dense(lowering, node, weight, np.array(bias))


def _matmul(lowering: Lowering, node: onnx.NodeProto) -> Value:
    if not isinstance(lowering.value(node.input[1]), np.ndarray):
        return _pair(lowering, node)
    weight = lowering.constant(node.input[1])
    if weight.ndim != 2:
        raise NotHintedError("products of batches have no hinted form")
    return _dense(lowering, node, weight, np.zeros((1, weight.shape[1])))


def _pair(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """A product of two activations, batch by batch; the left one may be a softmax, not rounded."""
    shares = lowering.value(node.input[0])
    if isinstance(shares, Shares):
        left, factors = shares.weights, shares.reciprocals
    else:
        left, factors = lowering.view(node.input[0]), None
    right = lowering.view(node.input[1])
    if left.shape[:-2] != right.shape[:-2] or len(left.shape) < 2:
        raise NotHintedError("products that repeat a batch have no hinted form")
    rows, depth = left.shape[-2:]
    channels = right.shape[-1]
    batch = math.prod(left.shape[:-2])
    form = Form(
        groups=batch * rows,
        channels=channels,
        pairs=(
            Pair(
                left=left.wire,
                left_index=left.index.reshape(batch, rows, depth),
                right=right.wire,
                right_index=right.index.reshape(batch, depth, channels),
                rows=factors,
            ),
        ),
        bias=np.zeros((1, channels)),
    )
    sites = np.arange(batch * rows * channels, dtype=np.int64)
    return Pending(form=form, sites=sites.reshape(lowering.shape(node.output[0])))


def _sum(sign: float) -> Callable[[Lowering, onnx.NodeProto], Value]:
    def lower(lowering: Lowering, node: onnx.NodeProto) -> Value:
        first, second = node.input
        shape = lowering.shape(node.output[0])
        for name, other in ((first, second), (second, first)):
            value = lowering.value(name)
            if isinstance(value, ErrorFunction):
                if sign < 0 or lowering.constant(other).size != 1:
                    raise NotHintedError("erf is only multiplied by its argument, or has 1 added")
                return replace(value, plus=value.plus + float(lowering.constant(other).ravel()[0]))
        factors = {first: 1.0, second: sign}
        base, other = first, second
        if isinstance(lowering.value(first), np.ndarray) or (
            not isinstance(lowering.value(first), Pending)
            and isinstance(lowering.value(second), Pending)
        ):
            base, other = second, first
        if first == second:
            return _rescaled(lowering.linear(first), 1.0 + sign)
        if lowering.shape(base) != shape:
            raise NotHintedError("sums that repeat elements have no hinted form")
        left = lowering.linear(base)
        left = _rescaled(left, factors[base])
        value = lowering.value(other)
        if isinstance(value, np.ndarray):
            added = left.constant(np.broadcast_to(value * factors[other], shape))
        elif lowering.shape(other) != shape:
            raise NotHintedError("sums that repeat elements have no hinted form")
        elif (
            isinstance(value, Pending)
            and value.is_linear
            and value.form.channels == left.form.channels
            and np.array_equal(value.sites, left.sites)
        ):
            added = value.form.scaled(factors[other])
        else:
            added = left.read(lowering.view(other), factors[other])
        return replace(left, form=left.form.plus(added), source="", multiple=1.0)

    return lower


def _rescaled(pending: Pending, factor: float) -> Pending:
    if factor == 1.0:
        return pending
    multiple = pending.multiple * factor
    return replace(pending, form=pending.form.scaled(factor), multiple=multiple)


def _times(power: int) -> Callable[[Lowering, onnx.NodeProto], Value]:
    def lower(lowering: Lowering, node: onnx.NodeProto) -> Value:
        first, second = node.input
        if power > 0 and isinstance(lowering.value(first), np.ndarray):
            first, second = second, first
        if not isinstance(lowering.value(second), np.ndarray):
            if power < 0:
                raise NotHintedError("quotients of two tensors have no hinted form")
            return gated(lowering, first, second)
        factor = lowering.constant(second)
        if factor.size != 1:
            raise NotHintedError("products with a tensor of constants have no hinted form")
        return _rescaled(lowering.linear(first), float(factor.ravel()[0]) ** power)

    return lower


def _relu(lowering: Lowering, node: onnx.NodeProto) -> Value:
    return replace(lowering.pending(node.input[0]), relu=True)


def _taps(shape: Sequence[int], node: onnx.NodeProto) -> Ints:
    """Per output element, the flat elements of [1, C, H, W] that its window reads."""
    if len(shape) != 4 or shape[0] != 1:
        raise NotHintedError("pooling of several images has no hinted form")
    _, channels, height, width = shape
    taps = windows((height, width), _window(node))
    planes = np.arange(channels)[:, None, None] * (height * width)
    return np.where(taps[None] < 0, -1, planes + taps[None]).reshape(-1, taps.shape[1])


def _maxpool(lowering: Lowering, node: onnx.NodeProto) -> Value:
    taps = _taps(lowering.shape(node.input[0]), node)
    shape = lowering.shape(node.output[0])
    try:
        return pooled(lowering.pending(node.input[0]), taps, shape)
    except NotHintedError:
        # Not on a grid of channels: rounded, it can be put on one.
        return pooled(identity(lowering.view(node.input[0]), axis=1), taps, shape)


def _mean(lowering: Lowering, node: onnx.NodeProto, taps: Ints) -> Value:
    """The mean over flat positions, [outputs, k]; -1 counts as zero."""
    view = lowering.view(node.input[0])
    shape = lowering.shape(node.output[0])
    index = _through(view, taps)
    channels = shape[1] if len(shape) > 1 else 1
    groups = len(taps) // channels
    # Outputs are [channels, groups]; the grid is [groups, channels].
    grid = index.reshape(channels, groups, -1).transpose(1, 0, 2)
    weights = np.full((channels, taps.shape[1]), 1.0 / taps.shape[1])
    form = Form(
        groups=groups,
        channels=channels,
        local=(Local(wire=view.wire, index=grid, weights=weights),),
        bias=np.zeros((1, channels)),
    )
    sites = np.arange(groups)[None] * channels + np.arange(channels)[:, None]
    return Pending(form=form, sites=sites.reshape(shape))


def _average_pool(lowering: Lowering, node: onnx.NodeProto) -> Value:
    taps = _taps(lowering.shape(node.input[0]), node)
    if (taps < 0).any() and not _attribute(node, "count_include_pad", 0):
        raise NotHintedError("averages that leave padding out have no hinted form")
    return _mean(lowering, node, taps)


def _global_average(lowering: Lowering, node: onnx.NodeProto) -> Value:
    shape = lowering.shape(node.input[0])
    if shape[0] != 1:
        raise NotHintedError("pooling of several images has no hinted form")
    return _mean(lowering, node, np.arange(math.prod(shape)).reshape(shape[1], -1))


def _moved(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """Reshape, Flatten and their like: the same elements in another shape."""
    view = lowering.view(node.input[0])
    return replace(view, index=view.index.reshape(lowering.shape(node.output[0])))


def _concat(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """Tensors side by side; those of several wires make a wire of their own."""
    axis = _attribute(node, "axis", 0)
    views = [lowering.view(name) for name in node.input]
    if len({view.wire for view in views}) == 1:
        return replace(views[0], index=np.concatenate([v.index for v in views], axis=axis))
    views = [lowering.rounded(name) for name in node.input]
    flat = [lowering.circuit.gather(v.wire.name, v.index.ravel()) for v in views]
    tensor = lowering.circuit.concat(flat)
    indices, start = [], 0
    for view in views:
        size = view.index.size
        indices.append(np.arange(start, start + size, dtype=np.int64).reshape(view.shape))
        start += size
    wire = lowering.wire(
        tensor, start, min(v.wire.low for v in views), max(v.wire.high for v in views)
    )
    lowering.step(
        do="join",
        wire=tensor,
        parts=[[v.wire.name, lowering.circuit.indices(v.index.ravel())] for v in views],
    )
    return View(wire=wire, index=np.concatenate(indices, axis=axis))


def _transpose(lowering: Lowering, node: onnx.NodeProto) -> Value:
    view = lowering.view(node.input[0])
    order = _attribute(node, "perm", list(range(len(view.shape)))[::-1])
    return replace(view, index=view.index.transpose(order))


OPERATORS: Operators = {
    "Add": _sum(1.0),
    "AveragePool": _average_pool,
    "Concat": _concat,
    "Conv": _conv,
    "Div": _times(-1),
    "Erf": error_function,
    "Flatten": _moved,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average,
    "LayerNormalization": layer_norm,
    "MatMul": _matmul,
    "MaxPool": _maxpool,
    "Mul": _times(1),
    "Relu": _relu,
    "Reshape": _moved,
    "Softmax": softmax,
    "Squeeze": _moved,
    "Sub": _sum(-1.0),
    "Transpose": _transpose,
    "Unsqueeze": _moved,
}
"""Operators with a hinted form. A lowered operator may still refuse its node."""
