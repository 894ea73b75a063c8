"""Pad with zeros at the end of axes that exist: what ezkl knows of it.

Modes that repeat elements are a constant Gather, negative pads leave elements out, and another
number than zero is added behind the zeros. Exact.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from zkml_ray.chunking.normal_form.graph import Place, array_of, data_of, described, sizes, text
from zkml_ray.errors import ChunkingError

REPEATING: dict[str, Literal["edge", "reflect", "wrap"]] = {
    "edge": "edge",
    "reflect": "reflect",
    "wrap": "wrap",
}


class ZeroPadding(InPlacePass):
    """Pre: shapes known, constants are initializers. Post: Pad has two inputs and adds zeros."""

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite every Pad that does something else."""
        found = [node for node in model.graph if node.op_type == "Pad" and not _is_plain(node)]
        for node in found:
            _rewrite(model, node)
        return PassResult(model, modified=bool(found))


def _is_plain(node: ir.Node) -> bool:
    if text(node, "mode", "constant") != "constant" or len(node.inputs) != 2:
        return False
    pads = array_of(node, 1)
    return pads is not None and bool((pads >= 0).all())


def _rewrite(model: ir.Model, node: ir.Node) -> None:
    place, data = Place(model, node), data_of(node)
    shape = list(sizes(data, node))
    rank = len(shape)
    before, after = _by_axis(node, rank)
    mode = text(node, "mode", "constant")
    if mode != "constant" and mode not in REPEATING:
        raise ChunkingError(f"{described(node)}: there is no mode {mode!r} of padding")
    for axis in range(rank):
        index = np.arange(shape[axis])
        index = index[max(0, -before[axis]) : len(index) - max(0, -after[axis])]
        if mode != "constant":
            widths = max(0, before[axis]), max(0, after[axis])
            index = np.pad(index, widths, mode=REPEATING[mode])
        if len(index) != shape[axis] or (index != np.arange(len(index))).any():
            shape[axis] = len(index)
            data = place.node("Gather", [data, place.integers(index)], shape, axis=axis)
    low, high = np.maximum(before, 0), np.maximum(after, 0)
    if mode == "constant" and (low.any() or high.any()):
        inner = np.zeros(shape, dtype=np.float32)
        shape = [int(n + a + b) for n, a, b in zip(shape, low, high, strict=True)]
        data = place.node("Pad", [data, place.integers([*low, *high])], shape)
        value = array_of(node, 2)
        number = 0.0 if value is None or not value.size else float(value.reshape(-1)[0])
        if number:
            around = np.pad(inner, np.stack([low, high], axis=1), constant_values=number)
            data = place.node("Add", [data, place.floats(around)], shape)
    place.finish(data)


def _by_axis(node: ir.Node, rank: int) -> tuple[list[int], list[int]]:
    pads, axes = array_of(node, 1), array_of(node, 3)
    if pads is None:
        raise ChunkingError(f"{described(node)} lacks its pads")
    widths = [int(value) for value in pads.reshape(-1)]
    named = range(rank) if axes is None else [int(a) % rank for a in axes.reshape(-1)]
    if len(widths) != 2 * len(named):
        raise ChunkingError(
            f"{described(node)}: {len(widths)} pads do not go with {len(named)} axes"
        )
    before, after = [0] * rank, [0] * rank
    for place, axis in enumerate(named):
        before[axis], after[axis] = widths[place], widths[place + len(named)]
    return before, after
