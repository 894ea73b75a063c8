"""Convolutions and pooling, of any number of dimensions and images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx

from zkml_ray.chunking.hinted.forms import (
    Dense,
    Floats,
    Form,
    Local,
    NotHintedError,
    Pending,
    identity,
    pooled,
)
from zkml_ray.chunking.hinted.grid import Ints, View, Window, windows
from zkml_ray.chunking.hinted.operators.reading import attribute, optional, text
from zkml_ray.chunking.hinted.operators.reductions import largest, mean
from zkml_ray.chunking.hinted.values import Value
from zkml_ray.limits import MAX_READS

if TYPE_CHECKING:
    from zkml_ray.chunking.hinted.lower import Lowering

DENSE_GROUPS: Final = 6
"""Up to so many groups a convolution is cheaper with zeros between them, packed over channels."""


def conv(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """Conv."""
    view, weight = lowering.view(node.input[0]), lowering.constant(node.input[1])
    plane = _plane(view.shape)
    if weight.ndim != len(view.shape):
        raise NotHintedError(f"weights of {weight.ndim} dimensions for a tensor of {view.shape}")
    window = _window(node, plane, weight.shape[2:])
    _check_reads(lowering, node, window)
    taps = windows(plane, window)
    return _convolved(lowering, node, view, taps, weight)


def conv_transpose(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """ConvTranspose: each output reads the inputs whose windows would reach it."""
    view, weight = lowering.view(node.input[0]), lowering.constant(node.input[1])
    plane = _plane(view.shape)
    rank = len(plane)
    if weight.ndim != rank + 2:
        raise NotHintedError(f"weights of {weight.ndim} dimensions for a tensor of {view.shape}")
    window = _window(node, plane, weight.shape[2:])
    beyond = attribute(node, "output_padding", [0] * rank)
    if attribute(node, "output_shape", []):
        raise NotHintedError("an output_shape of its own")
    made = lowering.shape(node.output[0])[2:]
    expected = [
        window.strides[a] * (plane[a] - 1)
        + beyond[a]
        + window.reach(a)
        - window.pads[a]
        - window.pads[a + rank]
        for a in range(rank)
    ]
    if list(made) != expected:
        raise NotHintedError(f"its output is {list(made)}, where {expected} was expected")
    group = attribute(node, "group", 1)
    inputs, per_group = weight.shape[:2]
    if inputs % group:
        raise NotHintedError(f"{inputs} channels in {group} groups")
    _check_reads(lowering, node, window)
    # [C, M / g, ...] as a convolution's [M, C / g, ...].
    turned = weight.reshape(group, inputs // group, per_group, *weight.shape[2:]).swapaxes(1, 2)
    turned = turned.reshape(group * per_group, inputs // group, *weight.shape[2:])
    return _convolved(lowering, node, view, _sources(plane, made, window), turned)


def max_pool(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """MaxPool."""
    shape, made = lowering.shape(node.input[0]), lowering.shape(node.output[0])
    plane = _plane(shape)
    window = _window(node, plane)
    _check_reads(lowering, node, window)
    taps = windows(plane, window, made[2:])
    if (taps < 0).all(axis=1).any():
        raise NotHintedError("a window lies in the padding alone")
    # Padding is no part of a maximum: another element of the window stands in for it.
    inside = taps[np.arange(len(taps)), (taps >= 0).argmax(axis=1)]
    taps = np.where(taps < 0, inside[:, None], taps)
    flat = _planes(shape, taps).reshape(-1, taps.shape[1])
    name = node.input[0]
    try:
        return pooled(lowering.pending(name), flat, made)
    except NotHintedError:
        # Not on a grid of channels: rounded, it can be put on one.
        view = lowering.view(name)
    try:
        return pooled(identity(view, axis=1), flat, made)
    except NotHintedError:
        return largest(lowering, view, flat, made, name)


def average_pool(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """AveragePool."""
    shape, made = lowering.shape(node.input[0]), lowering.shape(node.output[0])
    plane = _plane(shape)
    window = _window(node, plane)
    if list(made[2:]) != window.counts(plane):
        raise NotHintedError("a window that reaches over the end (ceil_mode)")
    _check_reads(lowering, node, window)
    taps = windows(plane, window)
    if (taps < 0).any() and not attribute(node, "count_include_pad", 0):
        raise NotHintedError("averages that leave padding out")
    return mean(lowering.view(node.input[0]), _planes(shape, taps), made)


def global_average(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """GlobalAveragePool."""
    shape = lowering.shape(node.input[0])
    taps = np.arange(math.prod(_plane(shape)), dtype=np.int64)[None]
    return mean(lowering.view(node.input[0]), _planes(shape, taps), lowering.shape(node.output[0]))


def _plane(shape: Sequence[int]) -> tuple[int, ...]:
    """The dimensions behind images and channels."""
    if len(shape) < 3:
        raise NotHintedError(f"a window over a tensor of {len(shape)} dimensions")
    return tuple(shape[2:])


def _window(
    node: onnx.NodeProto, plane: Sequence[int], weights: Sequence[int] | None = None
) -> Window:
    rank = len(plane)
    kernel = tuple(attribute(node, "kernel_shape", weights or ()))
    if weights is not None and kernel != tuple(weights):
        raise NotHintedError(f"a kernel_shape of {kernel} with weights of {tuple(weights)}")
    if text(node, "auto_pad", "NOTSET") not in ("NOTSET", ""):
        raise NotHintedError("auto_pad")
    window = Window(
        kernel=kernel,
        strides=tuple(attribute(node, "strides", [1] * rank)),
        pads=tuple(attribute(node, "pads", [0] * (2 * rank))),
        dilations=tuple(attribute(node, "dilations", [1] * rank)),
    )
    sizes = [len(window.kernel), len(window.strides), len(window.dilations), len(window.pads) / 2]
    if any(size != rank for size in sizes):
        raise NotHintedError(f"a window of {len(kernel)} dimensions over {rank}")
    if min(*window.kernel, *window.strides, *window.dilations) < 1 or min(window.pads) < 0:
        raise NotHintedError(f"a window of {window}")
    return window


def _check_reads(lowering: Lowering, node: onnx.NodeProto, window: Window) -> None:
    """Every position that is read is written out: refused before there are too many."""
    given, made = lowering.shape(node.input[0]), lowering.shape(node.output[0])
    reads = given[0] * given[1] * math.prod(made[2:]) * math.prod(window.kernel)
    if reads > MAX_READS:
        raise NotHintedError(f"its windows read {reads} elements, more than {MAX_READS}")


def _planes(shape: Sequence[int], taps: Ints) -> Ints:
    """Flat elements of [N, C, ...] that windows over its planes read: [N, C, outputs, k]."""
    images, channels, *plane = shape
    starts: Ints = np.arange(images * channels, dtype=np.int64) * math.prod(plane)
    return np.where(taps < 0, -1, starts.reshape(images, channels, 1, 1) + taps)


def _sources(plane: Sequence[int], made: Sequence[int], window: Window) -> Ints:
    """Per output of a transposed convolution and tap, the input's position or -1."""
    rank = len(plane)
    found, inside = np.zeros(1, dtype=np.int64), np.ones(1, dtype=bool)
    for axis, size in enumerate(plane):
        end = np.arange(made[axis])[:, None] + window.pads[axis]
        ahead = end - np.arange(window.kernel[axis])[None, :] * window.dilations[axis]
        source, rest = np.divmod(ahead, window.strides[axis])
        spread = [1] * (2 * rank)
        spread[axis], spread[rank + axis] = source.shape
        source, rest = source.reshape(spread), rest.reshape(spread)
        found = found * size + source
        inside = inside & (rest == 0) & (source >= 0) & (source < size)
    found = np.where(inside, found, -1)
    return found.reshape(math.prod(made), math.prod(window.kernel)).astype(np.int64)


def _convolved(
    lowering: Lowering, node: onnx.NodeProto, view: View, taps: Ints, weight: Floats
) -> Pending:
    """Sums over taps, [outputs, k], of every image; weights are [M, C / group, ...]."""
    images, channels = view.shape[:2]
    out_channels, per_group, *_ = weight.shape
    group = attribute(node, "group", 1)
    if group < 1 or channels != per_group * group or out_channels % group:
        raise NotHintedError(
            f"{channels} channels to {out_channels} in {group} groups, with weights for {per_group}"
        )
    positions, size = taps.shape
    flat = np.append(view.index.ravel(), -1)
    index: Ints = flat[_planes(view.shape, taps)]  # [N, C, P, k]
    bias = np.zeros(out_channels)
    if optional(node, 2):
        bias = lowering.constant(node.input[2]).reshape(-1)
    if bias.size != out_channels:
        raise NotHintedError(f"a bias of {bias.size} for {out_channels} channels")
    groups = images * positions
    dense: tuple[Dense, ...] = ()
    local: tuple[Local, ...] = ()
    if group == 1 or (per_group > 1 and group <= DENSE_GROUPS):
        filled = weight if group == 1 else _between_zeros(weight, group)
        dense = (
            Dense(
                wire=view.wire,
                index=index.transpose(0, 2, 1, 3).reshape(groups, -1),
                weights=filled.reshape(out_channels, -1).T,
            ),
        )
    else:
        parts = index.reshape(images, group, per_group, positions, size)
        parts = parts.transpose(0, 3, 1, 2, 4).reshape(groups, group, per_group * size)
        local = (
            Local(
                wire=view.wire,
                index=np.repeat(parts, out_channels // group, axis=1),
                weights=weight.reshape(out_channels, -1),
            ),
        )
    form = Form(groups=groups, channels=out_channels, dense=dense, local=local, bias=bias[None])
    sites: Ints = np.arange(groups * out_channels, dtype=np.int64)
    by_image = sites.reshape(images, positions, out_channels).swapaxes(1, 2)
    shape = lowering.shape(node.output[0])
    return Pending(form=form, sites=np.ascontiguousarray(by_image).reshape(shape))


def _between_zeros(weight: Floats, group: int) -> Floats:
    """A grouped convolution's weights for all channels."""
    out_channels, per_group, *kernel = weight.shape
    filled = np.zeros((out_channels, per_group * group, *kernel))
    per_output = out_channels // group
    for each in range(group):
        outputs = slice(each * per_output, (each + 1) * per_output)
        filled[outputs, each * per_group : (each + 1) * per_group] = weight[outputs]
    return filled
