"""Convolution and pooling with every attribute written out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult, PostconditionError

from zkml_ray.errors import ChunkingError

WINDOWED: Final = frozenset({"Conv", "MaxPool", "AveragePool"})


class ExplicitWindows(InPlacePass):
    """Pre: shapes known. Post: all window attributes written out, no auto_pad. Exact.

    tract refuses some of these operators when an attribute is missing.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Write out the attributes of every windowed operator."""
        for node in model.graph:
            if node.op_type in WINDOWED:
                _make_window_explicit(node)
        return PassResult(model, modified=True)

    def ensures(self, model: ir.Model) -> None:
        """kernel_shape, strides and pads are there, auto_pad is not."""
        for node in model.graph:
            if node.op_type in WINDOWED and (
                "auto_pad" in node.attributes
                or not {"kernel_shape", "strides", "pads"} <= set(node.attributes)
            ):
                raise PostconditionError(f"node {node.name}: its window is not explicit")


def _make_window_explicit(node: ir.Node) -> None:
    data = node.inputs[0]
    if data is None or data.shape is None:
        raise ChunkingError(f"node {node.name}: the input's shape is unknown")
    spatial = _sizes(data.shape)
    rank = len(spatial)
    attributes = node.attributes
    if "kernel_shape" not in attributes:
        weight = node.inputs[1] if len(node.inputs) > 1 else None
        if weight is None or weight.shape is None:
            raise ChunkingError(f"node {node.name}: kernel_shape is missing and cannot be inferred")
        kernel = _sizes(weight.shape)
    else:
        kernel = list(attributes["kernel_shape"].as_ints())
    strides = _ints(attributes, "strides", [1] * rank)
    dilations = _ints(attributes, "dilations", [1] * rank)
    auto_pad = attributes["auto_pad"].as_string() if "auto_pad" in attributes else "NOTSET"
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        before, after = [], []
        for size, k, stride, dilation in zip(spatial, kernel, strides, dilations, strict=True):
            total = max(0, (-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size)
            small, large = total // 2, total - total // 2
            before.append(small if auto_pad == "SAME_UPPER" else large)
            after.append(large if auto_pad == "SAME_UPPER" else small)
        pads = before + after
    elif auto_pad == "VALID":
        pads = [0] * (2 * rank)
    else:
        pads = _ints(attributes, "pads", [0] * (2 * rank))
    attributes.pop("auto_pad", None)
    for name, values in (("kernel_shape", kernel), ("strides", strides), ("pads", pads)):
        attributes[name] = ir.AttrInt64s(name, values)
    if node.op_type != "AveragePool" or any(value != 1 for value in dilations):
        attributes["dilations"] = ir.AttrInt64s("dilations", dilations)
    if node.op_type == "Conv" and "group" not in attributes:
        attributes["group"] = ir.AttrInt64("group", 1)


def _sizes(shape: ir.Shape) -> list[int]:
    """Spatial sizes of an NCHW... shape; dimensions are numbers once they are fixed."""
    return list(shape.numpy()[2:])


def _ints(attributes: Mapping[str, ir.Attr], name: str, default: list[int]) -> list[int]:
    return list(attributes[name].as_ints()) if name in attributes else default
