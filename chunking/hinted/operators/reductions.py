"""Sums, means and maxima over some of a tensor's elements."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx

from zkml_ray.chunking.hinted.forms import Form, Local, NotHintedError, Pending
from zkml_ray.chunking.hinted.grid import Ints, View
from zkml_ray.chunking.hinted.operators.exact import exact_rows
from zkml_ray.chunking.hinted.operators.reading import attribute, axis_of, optional
from zkml_ray.chunking.hinted.values import Value
from zkml_ray.chunking.hinted.whole import is_whole

if TYPE_CHECKING:
    from zkml_ray.chunking.hinted.lower import Lowering

MAX_CANDIDATES: Final = 9
"""Larger maxima are maxima of maxima: the products that hold them must fit a field element."""


def averaged(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """ReduceMean over any axes."""
    taps = _reduced(lowering, node)
    if taps is None:
        return lowering.view(node.input[0])
    return _summed(lowering, node, taps, 1.0 / taps.shape[1])


def totalled(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """ReduceSum over any axes."""
    taps = _reduced(lowering, node)
    view = lowering.fixed(node.input[0])
    if taps is None:
        return view
    if is_whole(view):
        return exact_rows(lowering, view, taps, lowering.shape(node.output[0]))
    return _summed(lowering, node, taps, 1.0)


def extreme(sign: float) -> Callable[[Lowering, onnx.NodeProto], Value]:
    """ReduceMax, or with -1 ReduceMin."""

    def lower(lowering: Lowering, node: onnx.NodeProto) -> Value:
        taps = _reduced(lowering, node)
        view = lowering.view(node.input[0])
        if taps is None:
            return view
        shape = lowering.shape(node.output[0])
        if sign > 0:
            return largest(lowering, view, taps, shape, node.input[0])
        # The least is the largest of what is opposite.
        turned = replace(view, wire=replace(view.wire, resolution=-view.wire.resolution))
        made = largest(lowering, turned, taps, shape, node.input[0])
        found = lowering.settled(made, node.output[0]) if isinstance(made, Pending) else made
        return replace(found, wire=replace(found.wire, resolution=-found.wire.resolution))

    return lower


def mean(view: View, taps: Ints, shape: Sequence[int]) -> Pending:
    """The mean over a window, of every image and channel.

    Args:
        view: Shape [N, C, ...].
        taps: Shape [N, C, outputs, k]: flat positions; -1 counts as zero.
        shape: The result's, [N, C, ...].
    """
    images, channels, outputs, size = taps.shape
    index = np.append(view.index.ravel(), -1)[taps]
    groups = images * outputs
    form = Form(
        groups=groups,
        channels=channels,
        local=(
            Local(
                wire=view.wire,
                index=index.transpose(0, 2, 1, 3).reshape(groups, channels, size),
                weights=np.full((channels, size), 1.0 / size),
            ),
        ),
        bias=np.zeros((1, channels)),
    )
    sites = np.arange(groups * channels, dtype=np.int64).reshape(images, outputs, channels)
    return Pending(
        form=form, sites=np.ascontiguousarray(sites.swapaxes(1, 2)).reshape(tuple(shape))
    )


def largest(
    lowering: Lowering, view: View, taps: Ints, shape: Sequence[int], name: str
) -> View | Pending:
    """The maximum over any elements, which may be read several times.

    Args:
        lowering: Where it goes.
        view: The tensor.
        taps: Shape [outputs, k]: flat positions of each output's candidates.
        shape: The result's.
        name: The tensor's, for messages.
    """
    outputs, size = taps.shape
    if not size:
        raise NotHintedError("a maximum of nothing")
    index = view.index.ravel()[taps]
    while size > MAX_CANDIDATES:
        parts = -(-size // MAX_CANDIDATES)
        width = -(-size // parts)
        # The last part's last candidate fills it up; a maximum does not mind.
        filled = np.pad(index, ((0, 0), (0, parts * width - size)), mode="edge")
        made = _maxima(view, filled.reshape(outputs * parts, width), (outputs, parts))
        view = lowering.settled(made, name)
        index, size = view.index, parts
    if size == 1:
        return replace(view, index=index.reshape(tuple(shape)))
    return _maxima(view, index, shape)


def _maxima(view: View, index: Ints, shape: Sequence[int]) -> Pending:
    outputs, size = index.shape
    form = Form(
        groups=outputs * size,
        channels=1,
        local=(Local(wire=view.wire, index=index.reshape(-1, 1, 1), weights=np.ones((1, 1))),),
        bias=np.zeros((1, 1)),
    )
    return Pending(
        form=form,
        sites=np.arange(outputs, dtype=np.int64).reshape(tuple(shape)),
        windows=np.arange(outputs * size, dtype=np.int64).reshape(outputs, size),
    )


def _summed(lowering: Lowering, node: onnx.NodeProto, taps: Ints, weight: float) -> Pending:
    view = lowering.view(node.input[0])
    outputs, size = taps.shape
    form = Form(
        groups=outputs,
        channels=1,
        local=(
            Local(
                wire=view.wire,
                index=view.index.ravel()[taps].reshape(outputs, 1, size),
                weights=np.full((1, size), weight),
            ),
        ),
        bias=np.zeros((1, 1)),
    )
    shape = lowering.shape(node.output[0])
    return Pending(form=form, sites=np.arange(outputs, dtype=np.int64).reshape(shape))


def _reduced(lowering: Lowering, node: onnx.NodeProto) -> Ints | None:
    """Per output the flat elements that a reduction reads; None: it reduces nothing."""
    shape = lowering.shape(node.input[0])
    axes: Sequence[int] = attribute(node, "axes", [])
    if optional(node, 1):
        axes = lowering.integers(node.input[1]).ravel().tolist()
    if not axes and attribute(node, "noop_with_empty_axes", 0):
        return None
    gone = sorted({axis_of(axis, len(shape)) for axis in axes} or set(range(len(shape))))
    if not gone:
        return None
    kept = [axis for axis in range(len(shape)) if axis not in gone]
    flat = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
    outputs, size = (math.prod(shape[a] for a in axes) for axes in (kept, gone))
    found: Ints = flat.transpose(*kept, *gone).reshape(outputs, size)
    return found
