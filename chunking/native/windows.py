"""Convolutions with dilations, which ezkl refuses, as convolutions without.

A constant Gather picks, axis by axis, the elements that each window reads, window after window;
then windows of the kernel's size stand side by side, and the stride is that size. Gather costs no
cell. Exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper

from zkml_ray.chunking.native.writer import Writer


def lower_dilated(
    write: Writer, node: onnx.NodeProto, shape: Sequence[int]
) -> onnx.NodeProto | None:
    """Gather what a dilated convolution's windows read.

    Args:
        write: Where to.
        node: A Conv with explicit window attributes.
        shape: Its data's shape.

    Returns:
        A Conv without dilations over what was gathered, not written yet; None: it has none.
    """
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    rank = len(shape) - 2
    dilations = list(given.get("dilations", [1] * rank))
    if all(value == 1 for value in dilations):
        return None
    kernel, strides, pads = (list(given[name]) for name in ("kernel_shape", "strides", "pads"))
    data = node.input[0]
    if any(pads):
        both = [0, 0, *pads[:rank], 0, 0, *pads[rank:]]
        data = write.node("Pad", [data, write.indices(both)])
    for axis in range(rank):
        size = shape[2 + axis] + pads[axis] + pads[rank + axis]
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        starts = np.arange(0, size - reach + 1, strides[axis])
        taps = starts[:, None] + np.arange(kernel[axis])[None, :] * dilations[axis]
        data = write.node("Gather", [data, write.indices(taps.reshape(-1))], axis=2 + axis)
    plain = onnx.NodeProto.FromString(node.SerializeToString())
    plain.input[0] = data
    del plain.attribute[:]
    plain.attribute.extend(
        [
            helper.make_attribute("dilations", [1] * rank),
            helper.make_attribute("group", given.get("group", 1)),
            helper.make_attribute("kernel_shape", kernel),
            helper.make_attribute("pads", [0] * (2 * rank)),
            helper.make_attribute("strides", kernel),
        ]
    )
    return plain
