"""Pooling whose windows ezkl reads otherwise than ONNX.

tract takes no notice of a pooling's dilations; ezkl pads a maximum with zeros and counts all
padding in an average. What both read alike is a pooling without padding, dilations and rounding
up; so

- padding of a MaxPool becomes the edge of its input, repeated (Gather), where every window still
  contains what it repeats;
- any other irregular window is gathered element by element: then windows of the kernel's size stand
  side by side, and the stride is that size. Where a MaxPool's window reaches outside, it reads one
  of its own elements again; an AveragePool reads a zero there, and a constant corrects the divisor.

Maxima are exact; averages are, up to float rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult, PostconditionError

from zkml_ray.chunking.normal_form.graph import Place, data_of, described, integer, ints, sizes
from zkml_ray.errors import ChunkingError

Indices = npt.NDArray[np.int64]
_POOLS = ("MaxPool", "AveragePool")


class RegularPooling(InPlacePass):
    """Pre: shapes known, windows explicit. Post: ezkl reads every pooling as ONNX does."""

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite irregular pooling."""
        modified = False
        for node in [node for node in model.graph if node.op_type in _POOLS]:
            windows = _Windows.of(node)
            if integer(node, "ceil_mode", 0):
                if windows.start_in_padding():
                    raise ChunkingError(
                        f"{described(node)}: with ceil_mode its last window starts in the padding, "
                        "which versions of ONNX count differently: use ceil_mode 0 or fewer pads"
                    )
                if not windows.rounds_up():
                    node.attributes["ceil_mode"] = ir.AttrInt64("ceil_mode", 0)
            if not _is_irregular(node, windows):
                node.attributes.pop("ceil_mode", None)
                if node.op_type == "AveragePool":
                    node.attributes.pop("dilations", None)
                continue
            modified = True
            if node.op_type == "AveragePool":
                _average(model, node, windows)
            elif windows.repeat_their_edge():
                _extend_by_edge(model, node, windows)
            else:
                _gathered_maximum(model, node, windows)
        return PassResult(model, modified=modified)

    def ensures(self, model: ir.Model) -> None:
        """No irregular pooling is left."""
        for node in model.graph:
            if node.op_type in _POOLS and _is_irregular(node, _Windows.of(node)):
                raise PostconditionError(f"node {node.name} pads otherwise than ezkl")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Windows:
    """The windows of a pooling, per spatial axis.

    Attributes:
        source: Sizes of the input.
        made: Numbers of windows.
        kernel: Elements of a window.
        strides: Steps from one window to the next.
        dilations: Steps from one element to the next.
        before: Padding at the start.
        after: Padding at the end.
    """

    source: tuple[int, ...]
    made: tuple[int, ...]
    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    before: list[int]
    after: list[int]

    @classmethod
    def of(cls, node: ir.Node) -> _Windows:
        source = sizes(data_of(node), node)[2:]
        rank = len(source)
        pads = ints(node, "pads", [0] * (2 * rank))
        return cls(
            source=source,
            made=sizes(node.outputs[0], node)[2:],
            kernel=ints(node, "kernel_shape", ()),
            strides=ints(node, "strides", [1] * rank),
            dilations=ints(node, "dilations", [1] * rank),
            before=pads[:rank],
            after=pads[rank:],
        )

    def taps(self, axis: int) -> Indices:
        """Positions that windows read, [windows, kernel]; outside the input where they pad."""
        starts = np.arange(self.made[axis]) * self.strides[axis] - self.before[axis]
        reach = np.arange(self.kernel[axis]) * self.dilations[axis]
        return np.asarray(starts[:, None] + reach[None, :], dtype=np.int64)

    def inside(self, axis: int) -> npt.NDArray[np.bool_]:
        taps = self.taps(axis)
        return np.asarray((taps >= 0) & (taps < self.source[axis]))

    def start_in_padding(self) -> bool:
        """Whether a window starts behind the input's end."""
        return any(self.taps(axis)[-1, 0] >= size for axis, size in enumerate(self.source))

    def rounds_up(self) -> bool:
        """Whether a window reaches beyond the padding, which only ceil_mode allows."""
        return any(
            self.taps(axis).max() >= self.source[axis] + self.after[axis]
            for axis in range(len(self.source))
        )

    def repeat_their_edge(self) -> bool:
        """Whether every window that reads padding also reads the edge next to it."""
        plain = all(value == 1 for value in self.dilations) and not self.rounds_up()
        return plain and all(
            pad < size
            for pads in (self.before, self.after)
            for pad, size in zip(pads, self.kernel, strict=True)
        )


def _is_irregular(node: ir.Node, windows: _Windows) -> bool:
    if any(value != 1 for value in windows.dilations) or integer(node, "ceil_mode", 0):
        return True
    if not any(windows.before) and not any(windows.after):
        return False
    return node.op_type == "MaxPool" or not integer(node, "count_include_pad", 0)


def _extend_by_edge(model: ir.Model, node: ir.Node, windows: _Windows) -> None:
    place, data = Place(model, node), data_of(node)
    shape = list(sizes(data, node))
    for axis, (before, after) in enumerate(zip(windows.before, windows.after, strict=True)):
        if not before and not after:
            continue
        size = windows.source[axis]
        index = np.clip(np.arange(-before, size + after), 0, size - 1)
        shape[2 + axis] = len(index)
        data = place.node("Gather", [data, place.integers(index)], shape, axis=2 + axis)
    node.replace_input_with(0, data)
    node.attributes.pop("ceil_mode", None)
    node.attributes["pads"] = ir.AttrInt64s("pads", [0] * (2 * len(windows.source)))


def _gathered_maximum(model: ir.Model, node: ir.Node, windows: _Windows) -> None:
    place, data = Place(model, node), data_of(node)
    shape = list(sizes(data, node))
    for axis in range(len(windows.source)):
        taps, inside = windows.taps(axis), windows.inside(axis)
        if not inside.any(axis=1).all():
            raise ChunkingError(
                f"{described(node)}: a window lies in the padding alone, where its maximum is "
                "minus infinity: make the pads smaller than the window"
            )
        first = taps[np.arange(len(taps)), inside.argmax(axis=1)]
        index = np.where(inside, taps, first[:, None]).reshape(-1)
        shape[2 + axis] = len(index)
        data = place.node("Gather", [data, place.integers(index)], shape, axis=2 + axis)
    _side_by_side(node, data, windows)


def _average(model: ir.Model, node: ir.Node, windows: _Windows) -> None:
    counted = bool(integer(node, "count_include_pad", 0))
    rank = len(windows.source)
    counts = np.ones([1] * rank)
    for axis in range(rank):
        taps, inside = windows.taps(axis), windows.inside(axis)
        if counted:
            low, high = -windows.before[axis], windows.source[axis] + windows.after[axis]
            inside = (taps >= low) & (taps < high)
        counts = counts * inside.sum(axis=1).reshape([-1 if i == axis else 1 for i in range(rank)])
    if not counts.all():
        raise ChunkingError(
            f"{described(node)}: a window lies in the padding alone and has no average: make the "
            "pads smaller than the window"
        )
    place, data = Place(model, node), data_of(node)
    if any(value != 1 for value in windows.dilations) or windows.rounds_up():
        data = _gathered_with_zeros(place, node, windows)
        _side_by_side(node, data, windows)
    node.attributes["count_include_pad"] = ir.AttrInt64("count_include_pad", 1)
    node.attributes.pop("ceil_mode", None)
    node.attributes.pop("dilations", None)
    factor = math.prod(windows.kernel) / counts
    if (factor == 1).all():
        return
    output = node.outputs[0]
    constant = place.floats(factor[np.newaxis, np.newaxis])
    scaled = ir.node("Mul", [output, constant], name=f"{node.name}/corrected")
    model.graph.insert_after(node, scaled)
    corrected = scaled.outputs[0]
    name, output.name = output.name, f"{node.name}/counted"
    corrected.shape, corrected.type = output.shape, output.type
    ir.convenience.replace_all_uses_with(output, corrected, replace_graph_outputs=True)
    scaled.replace_input_with(0, output)
    corrected.name = name


def _gathered_with_zeros(place: Place, node: ir.Node, windows: _Windows) -> ir.Value:
    data = data_of(node)
    shape = list(sizes(data, node))
    for axis, size in enumerate(windows.source):
        taps, inside = windows.taps(axis), windows.inside(axis)
        if not inside.all():
            after = [0] * len(shape)
            after[2 + axis] = 1
            shape[2 + axis] += 1
            pads = place.integers([0] * len(shape) + after)
            data = place.node("Pad", [data, pads], shape)
        index = np.where(inside, taps, size).reshape(-1)
        shape[2 + axis] = len(index)
        data = place.node("Gather", [data, place.integers(index)], shape, axis=2 + axis)
    return data


def _side_by_side(node: ir.Node, data: ir.Value, windows: _Windows) -> None:
    """Let a pooling read windows that stand side by side."""
    rank = len(windows.source)
    node.replace_input_with(0, data)
    node.attributes.pop("ceil_mode", None)
    node.attributes["strides"] = ir.AttrInt64s("strides", windows.kernel)
    node.attributes["pads"] = ir.AttrInt64s("pads", [0] * (2 * rank))
    if "dilations" in node.attributes:
        node.attributes["dilations"] = ir.AttrInt64s("dilations", [1] * rank)
