"""Resize, axis by axis: elements picked (nearest), or a product with a constant matrix.

What resizing does to an axis is found by resizing its unit vectors (ONNX's own reference
evaluation). Which neighbour is nearest can hang on the rounding of a coordinate: where float32, in
which onnxruntime computes it, and the reference disagree, the node is refused.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import helper
from onnx.reference import ReferenceEvaluator

from zkml_ray.chunking.normal_form.writer import Writer

_OF_NODE: Final = (
    "antialias",
    "coordinate_transformation_mode",
    "cubic_coeff_a",
    "exclude_outside",
    "extrapolation_value",
    "mode",
    "nearest_mode",
)

_MAX_ELEMENTS: Final = 1 << 24
"""Elements of an axis' matrix."""

_COORDINATES_SAID: Final = 11
"""Version from which Resize says how coordinates are meant; before, x_in = x_out / scale."""


def resize(write: Writer) -> ir.Value:
    """Along each axis that changes, a Gather or x M^T."""
    shape, out = write.shape(), write.output_shape()
    attributes = _attributes(write)
    scales = _scales(write, shape, out)
    value = write.input(0)
    if value is None:
        raise write.refusal("it reads nothing")
    for axis, (size, made) in enumerate(zip(shape, out, strict=True)):
        if size == made and scales[axis] in (None, 1.0):
            continue
        matrix = _matrix(write, attributes, size, made, scales[axis])
        if attributes["mode"] == "nearest":
            places = _places(write, attributes, matrix, scales[axis])
            value = write.op("Gather", value, write.integers(places), axis=axis)
        else:
            value = _product(write, value, matrix, axis, len(shape))
    return value if value is not write.input(0) else write.op("Identity", value)


def _attributes(write: Writer) -> dict[str, Any]:
    """Those of an operator of the common version."""
    given = write.place.attributes
    attributes = {name: given[name].value for name in _OF_NODE if name in given}
    attributes.setdefault("mode", "nearest")
    if write.place.op_type == "Upsample" or write.opset < _COORDINATES_SAID:
        attributes |= {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    how = attributes.setdefault("coordinate_transformation_mode", "half_pixel")
    if how == "tf_crop_and_resize":
        raise write.refusal(f"coordinate_transformation_mode {how} cannot be proved")
    attributes.setdefault("nearest_mode", "round_prefer_floor")
    return attributes


def _scales(write: Writer, shape: tuple[int, ...], out: tuple[int, ...]) -> list[float | None]:
    """Per axis, the scale that the node gives; None where it gives a size."""
    axes = [axis % len(shape) for axis in write.attribute("axes", range(len(shape)))]
    early = write.place.op_type == "Upsample" or write.opset < _COORDINATES_SAID
    given = write.constant(1 if early else 2)
    if given is None:
        given = np.array(write.attribute("scales", []))
    scales = [None if size != made else 1.0 for size, made in zip(shape, out, strict=True)]
    if given.size:
        for axis, scale in zip(axes, given.ravel(), strict=True):
            scales[axis] = float(scale)
    nearest = write.attribute("mode", "nearest") == "nearest"
    if early and nearest and any(scale is not None and scale < 1 for scale in scales):
        raise write.refusal(
            f"opset {write.opset} does not say which element is nearest when a tensor is made "
            "smaller; export the model with opset 13 or later"
        )
    return scales


def _matrix(
    write: Writer, attributes: dict[str, Any], size: int, made: int, scale: float | None
) -> npt.NDArray[np.float32]:
    """What resizing does to an axis, [made, size]."""
    if size * made > _MAX_ELEMENTS:
        raise write.refusal(f"an axis of {size} that becomes {made} is too long")
    last = "scales" if scale is not None else "sizes"
    reads = ["x", "", "scales"] if scale is not None else ["x", "", "", "sizes"]
    feeds: dict[str, Any] = {"x": np.eye(size, dtype=np.float32)}
    feeds[last] = (
        np.array([1.0, scale], dtype=np.float32)
        if scale is not None
        else np.array([size, made], dtype=np.int64)
    )
    graph = helper.make_graph(
        [helper.make_node("Resize", reads, ["y"], **attributes)],
        "axis",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in feeds.items()
        ],
        [onnx.ValueInfoProto(name="y")],
    )
    single = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    try:
        found = np.asarray(ReferenceEvaluator(single).run(None, feeds)[0], dtype=np.float32)
    except Exception as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else "it fails"
        raise write.refusal(f"it cannot be evaluated: {line}") from None
    if found.shape != (size, made):
        raise write.refusal(f"an axis of {size} becomes {found.shape[1]}, where {made} is expected")
    matrix: npt.NDArray[np.float32] = found.T
    return matrix


def _places(
    write: Writer,
    attributes: dict[str, Any],
    matrix: npt.NDArray[np.float32],
    scale: float | None,
) -> npt.NDArray[np.int64]:
    """Which element each place of an axis takes.

    Raises:
        ChunkingError: A float32's rounding decides it, or it is taken from outside the tensor.
    """
    made, size = matrix.shape
    if not ((matrix == 1).sum(1) == 1).all() or (matrix != 0).sum() != made:
        raise write.refusal("some of its result is no element of its input")
    places = matrix.argmax(1)
    x = np.arange(made, dtype=np.float32)
    ratio = np.float32(made / size if scale is None else scale)
    half, one = np.float32(0.5), np.float32(1)
    match attributes["coordinate_transformation_mode"]:
        case "asymmetric":
            x = x / ratio
        case "half_pixel":
            x = (x + half) / ratio - half
        case "pytorch_half_pixel":
            x = (x + half) / ratio - half if made > 1 else np.zeros_like(x)
        case "align_corners":
            x = x * np.float32(size - 1) / np.float32(made - 1) if made > 1 else np.zeros_like(x)
        case other:
            raise write.refusal(f"coordinate_transformation_mode {other} cannot be proved")
    match attributes["nearest_mode"]:
        case "floor":
            nearest = np.floor(x)
        case "ceil":
            nearest = np.ceil(x)
        case "round_prefer_ceil":
            nearest = np.floor(x + half)
        case _:
            nearest = np.ceil(x - half)
    nearest = np.clip(nearest, 0, size * one - one).astype(np.int64)
    if not np.array_equal(places, nearest):
        where = int(np.argmax(places != nearest))
        raise write.refusal(
            f"at scale {ratio:g} a rounding decides which element place {where} takes; resize by "
            "a whole number, or by sizes"
        )
    return nearest


def _product(
    write: Writer,
    value: ir.Value,
    matrix: npt.NDArray[np.float32],
    axis: int,
    rank: int,
) -> ir.Value:
    order = list(range(rank))
    order[axis], order[-1] = order[-1], order[axis]
    last = axis == rank - 1
    turned = value if last else write.op("Transpose", value, perm=order)
    result = write.op("MatMul", turned, write.floats(matrix.T))
    return result if last else write.op("Transpose", result, perm=order)
