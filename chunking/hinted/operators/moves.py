"""Operators that only move elements: they change where a tensor's elements come from, at no cost.

What they bring in from elsewhere (another wire, a constant) costs what putting it beside costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx

from zkml_ray.chunking.hinted.forms import Floats, NotHintedError, identity
from zkml_ray.chunking.hinted.grid import Ints, View
from zkml_ray.chunking.hinted.operators.reading import (
    attribute,
    axis_of,
    broadcast,
    optional,
    text,
)
from zkml_ray.chunking.hinted.values import Masked, Value
from zkml_ray.chunking.hinted.whole import is_whole

if TYPE_CHECKING:
    from zkml_ray.chunking.hinted.lower import Lowering

_PADDINGS = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}


def reshaped(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """Reshape, Flatten and their like: the same elements in another shape."""
    value, shape = lowering.value(node.input[0]), lowering.shape(node.output[0])
    if isinstance(value, np.ndarray):
        return value.reshape(shape)
    view = lowering.fixed(node.input[0])
    return replace(view, index=view.index.reshape(shape))


def handed_on(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """Identity."""
    return lowering.fixed(node.input[0])


def transposed(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """Transpose."""
    value = lowering.value(node.input[0])
    order = attribute(node, "perm", None)
    if isinstance(value, np.ndarray):
        turned: Floats = value.transpose(order)
        return turned
    view = lowering.fixed(node.input[0])
    return replace(view, index=view.index.transpose(order))


def expanded(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """Expand: elements repeated."""
    value = lowering.value(node.input[0])
    if isinstance(value, np.ndarray):
        return np.array(np.broadcast_to(value, lowering.shape(node.output[0])))
    view = lowering.fixed(node.input[0])
    return replace(view, index=broadcast(view.index, lowering.shape(node.output[0])))


def gathered(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """Gather by constant indices."""
    view = lowering.fixed(node.input[0])
    axis = axis_of(attribute(node, "axis", 0), len(view.shape))
    index, size = lowering.integers(node.input[1]), view.shape[axis]
    if index.size and (index.min() < -size or index.max() >= size):
        raise NotHintedError(f"it reads behind its axis of {size}")
    return replace(view, index=np.take(view.index, index, axis=axis))


def sliced(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """Slice by constants."""
    view = lowering.fixed(node.input[0])
    starts, ends = (lowering.integers(name).tolist() for name in node.input[1:3])
    axes, steps = list(range(len(starts))), [1] * len(starts)
    if optional(node, 3):
        axes = lowering.integers(node.input[3]).tolist()
    if optional(node, 4):
        steps = lowering.integers(node.input[4]).tolist()
    cut = [slice(None)] * len(view.shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        place = axis_of(axis, len(view.shape))
        begin, stop, stride = slice(start, end, step).indices(view.shape[place])
        # Backwards to the first element: no stop stands for it.
        cut[place] = slice(begin, None if stop < 0 else stop, stride)
    return replace(view, index=view.index[tuple(cut)])


def split(lowering: Lowering, node: onnx.NodeProto) -> tuple[Value, ...]:
    """Split into parts of the sizes that shape inference gives."""
    view = lowering.fixed(node.input[0])
    axis = axis_of(attribute(node, "axis", 0), len(view.shape))
    sizes = [lowering.shape(name)[axis] for name in node.output]
    if sum(sizes) != view.shape[axis]:
        raise NotHintedError(f"parts of {sizes} of an axis of {view.shape[axis]}")
    parts = np.split(view.index, np.cumsum(sizes)[:-1], axis=axis)
    return tuple(replace(view, index=part) for part in parts)


def padded(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """Pad by constants; a negative width cuts off."""
    view = lowering.fixed(node.input[0])
    rank = len(view.shape)
    widths = lowering.integers(node.input[1]).tolist()
    axes = list(range(rank))
    if optional(node, 3):
        axes = [axis_of(axis, rank) for axis in lowering.integers(node.input[3]).tolist()]
    if len(widths) != 2 * len(axes):
        raise NotHintedError(f"{len(widths)} widths for {len(axes)} axes")
    around, cut = [(0, 0)] * rank, [slice(None)] * rank
    for place, axis in enumerate(axes):
        before, after = widths[place], widths[place + len(axes)]
        size = view.shape[axis]
        cut[axis] = slice(max(0, -before), size - max(0, -after))
        around[axis] = (max(0, before), max(0, after))
    kept = view.index[tuple(cut)]
    mode = text(node, "mode", "constant")
    if mode in _PADDINGS:
        if not kept.size:
            raise NotHintedError("nothing is left to repeat")
        return replace(view, index=_repeated(kept, around, mode))
    if mode != "constant":
        raise NotHintedError(f"padding of the kind {mode}")
    filling = lowering.constant(node.input[2]) if optional(node, 2) else np.zeros(1)
    if filling.size != 1:
        raise NotHintedError("the padding is no single number")
    inside = np.pad(np.ones(kept.shape, dtype=bool), around)
    padded_view = replace(view, index=np.pad(kept, around, constant_values=-1))
    return _filled(lowering, padded_view, np.where(inside, 0.0, float(filling.ravel()[0])))


def concatenated(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """Tensors side by side; those of several wires make a wire of their own."""
    axis = attribute(node, "axis", 0)
    values = [lowering.value(name) for name in node.input]
    constants = [value if isinstance(value, np.ndarray) else None for value in values]
    given = [name for name, c in zip(node.input, constants, strict=True) if c is None]
    views = [lowering.fixed(name) for name in given]
    if len({view.wire for view in views}) > 1:
        whole = all(is_whole(view) and (view.index >= 0).all() for view in views)
        joined = views if whole else [lowering.rounded(name) for name in given]
        views = _joined(lowering, joined)
    if not views:
        raise NotHintedError("it reads constants alone")
    rest = iter(views)
    parts, filling = [], []
    for constant in constants:
        part = next(rest).index if constant is None else np.full(constant.shape, -1, dtype=np.int64)
        parts.append(part)
        filling.append(np.zeros(part.shape) if constant is None else lowering.finite(constant))
    view = replace(views[0], index=np.concatenate(parts, axis=axis))
    return _filled(lowering, view, np.concatenate(filling, axis=axis))


def chosen(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """Where, by a constant condition: one tensor's elements or the other's."""
    shape = lowering.shape(node.output[0])
    where = np.broadcast_to(lowering.constant(node.input[0]) != 0, shape)
    if lowering.masks(node):
        if lowering.shape(node.input[1]) != shape:
            raise NotHintedError("a mask of more rows than there are scores")
        return Masked(source=node.input[1], kept=where)
    sides = []
    filling = np.zeros(shape)
    for name, taken in ((node.input[1], where), (node.input[2], ~where)):
        value = lowering.value(name)
        if isinstance(value, np.ndarray):
            constant = np.where(taken, np.broadcast_to(value, shape), 0.0)
            filling = filling + lowering.finite(constant)
            continue
        view = lowering.fixed(name)
        sides.append(replace(view, index=np.where(taken, broadcast(view.index, shape), -1)))
    if not sides:
        raise NotHintedError("it chooses among constants alone")
    if len(sides) == 2 and sides[0].wire == sides[1].wire:
        index = np.where(where, sides[0].index, sides[1].index)
        return replace(sides[0], index=index)
    if len(sides) == 1:
        return _filled(lowering, sides[0], filling)
    first, second = (lowering.weighable(side) for side in sides)
    made = identity(first)
    return replace(made, form=made.form.plus(made.read(second, 1.0)))


def _filled(lowering: Lowering, view: View, constant: Floats) -> Value:
    """A view whose padding holds constants."""
    if not constant.any():
        return view
    made = identity(lowering.weighable(view))
    return replace(made, form=made.form.plus(made.constant(constant)))


def _joined(lowering: Lowering, views: Sequence[View]) -> list[View]:
    """Views of one new wire."""
    flat = [lowering.circuit.gather(v.wire.name, v.index.ravel()) for v in views]
    tensor = lowering.circuit.concat(flat)
    sizes = [view.index.size for view in views]
    wire = lowering.wire(
        tensor,
        sum(sizes),
        min(v.wire.low for v in views),
        max(v.wire.high for v in views),
        views[0].wire.resolution,
    )
    lowering.step(
        do="join",
        wire=tensor,
        parts=[[v.wire.name, lowering.circuit.indices(v.index.ravel())] for v in views],
    )
    starts = np.cumsum([0, *sizes[:-1]])
    return [
        View(wire=wire, index=np.arange(start, start + size, dtype=np.int64).reshape(view.shape))
        for start, size, view in zip(starts, sizes, views, strict=True)
    ]


def _repeated(index: Ints, around: Sequence[tuple[int, int]], mode: str) -> Ints:
    if mode == "reflect" and any(
        max(pair) >= size for pair, size in zip(around, index.shape, strict=True)
    ):
        raise NotHintedError("it reflects more than there is")
    if mode == "edge":
        return np.pad(index, around, mode="edge")
    return np.pad(index, around, mode="reflect" if mode == "reflect" else "wrap")
