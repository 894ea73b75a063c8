"""Operators that only move elements, by places that are known: one Gather of constant indices.

What such an operator does to a tensor is found by doing it to the numbers of the tensor's places
(ONNX's own reference evaluation, exact for whole numbers below 2^53): element k of the result is
element `moved[k]` of the inputs, or 0. So whatever its attributes mean, they mean here what the
specification's evaluation says.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import helper
from onnx.reference import ReferenceEvaluator

from zkml_ray.chunking.normal_form.padding import REPEATING
from zkml_ray.chunking.normal_form.writer import Writer

MOVES: Final[dict[str, tuple[int, ...]]] = {
    "CenterCropPad": (0,),
    "Compress": (0,),
    "DepthToSpace": (0,),
    "GatherElements": (0,),
    "GatherND": (0,),
    "Pad": (0,),
    "ReverseSequence": (0,),
    "ScatterElements": (0, 2),
    "ScatterND": (0, 2),
    "SpaceToDepth": (0,),
    "Tile": (0,),
    "Trilu": (0,),
}
"""Operator -> which of its inputs are moved; all others must be constants."""

_MAX_ELEMENTS: Final = 1 << 24


def is_move(write: Writer) -> bool:
    """Whether the node only moves elements, or sets some to zero."""
    op_type = write.place.op_type
    if op_type == "Pad":
        return bool(write.attribute("mode", "constant") != "constant")
    return op_type in MOVES


def moved(write: Writer) -> ir.Value:
    """The node's result, gathered.

    Args:
        write: At the node.

    Raises:
        ChunkingError: It adds or multiplies, it reads other tensors than constants, or it cannot
            be evaluated.
    """
    node, sources = write.place, MOVES[write.place.op_type]
    if write.attribute("reduction", "none") != "none":
        raise write.refusal("a reduction cannot be proved")
    feeds: dict[str, npt.NDArray[np.float64]] = {}
    parts, start = [], 1
    for index in range(len(node.inputs)):
        value = write.input(index)
        if value is None:
            continue
        constant = write.constant(index)
        if index in sources:
            shape = write.shape(index)
            size = int(np.prod(shape, dtype=np.int64))
            feeds[str(index)] = np.arange(start, start + size, dtype=np.float64).reshape(shape)
            parts.append(write.reshape(value, [size]))
            start += size
        elif constant is not None:
            feeds[str(index)] = constant
        else:
            raise write.refusal(
                f"input {index} ({value.name}) must be a constant: places that depend on the "
                "model's input cannot be proved"
            )
    # What Compress keeps is not inferred, but is no more than it has.
    made = 0 if node.op_type == "Compress" else math.prod(write.output_shape())
    if max(start, made) > _MAX_ELEMENTS:
        raise write.refusal(f"it moves more than {_MAX_ELEMENTS} elements")
    evaluated = _padded if node.op_type == "Pad" else _evaluated
    places = np.rint(evaluated(write, feeds)).astype(np.int64)
    if (places == 0).any():
        parts.append(write.floats([0.0]))
        places = np.where(places == 0, start, places)
    source = parts[0] if len(parts) == 1 else write.op("Concat", *parts, axis=0)
    flat = write.op("Gather", source, write.integers(places.ravel() - 1), axis=0)
    return write.reshape(flat, places.shape)


def _padded(write: Writer, feeds: dict[str, npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """Pad by what there is: negative widths cut off first, which onnx's evaluation does not do."""
    data, widths = feeds["0"], feeds["1"].astype(np.int64).reshape(2, -1)
    axes = feeds["3"].astype(np.int64).reshape(-1) if "3" in feeds else np.arange(data.ndim)
    if widths.shape[1] != len(axes):
        raise write.refusal(f"{widths.size} pads do not go with {len(axes)} axes")
    around, cut = [(0, 0)] * data.ndim, [slice(None)] * data.ndim
    for axis, before, after in zip(axes % data.ndim, *widths.tolist(), strict=True):
        cut[axis] = slice(max(0, -before), data.shape[axis] - max(0, -after))
        around[axis] = (max(0, before), max(0, after))
    kept = data[tuple(cut)]
    mode = str(write.attribute("mode", "constant"))
    if mode not in REPEATING:
        raise write.refusal(f"there is no mode {mode!r} of padding")
    if not kept.size:
        raise write.refusal("its negative pads leave nothing to repeat")
    if mode == "reflect" and any(
        max(pair) >= size for pair, size in zip(around, kept.shape, strict=True) if max(pair)
    ):
        raise write.refusal("it reflects more than there is")
    return np.pad(kept, around, mode=REPEATING[mode])


def _evaluated(write: Writer, feeds: dict[str, npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    proto = ir.to_proto(write.place)
    names = [str(i) if str(i) in feeds else "" for i in range(len(write.place.inputs))]
    del proto.input[:]
    proto.input.extend(names)
    del proto.output[1:]
    graph = helper.make_graph(
        [proto],
        "moves",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in feeds.items()
        ],
        [onnx.ValueInfoProto(name=proto.output[0])],
    )
    single = helper.make_model(graph, opset_imports=[helper.make_opsetid("", write.opset)])
    try:
        found = ReferenceEvaluator(single).run(None, feeds)[0]
    except Exception as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else "it fails"
        raise write.refusal(f"it cannot be evaluated: {line}") from None
    return np.asarray(found, dtype=np.float64)
