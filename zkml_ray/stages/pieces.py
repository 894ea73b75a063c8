"""Which pieces of a model are counted alike: one of them is counted for all.

Layers repeat. Their pieces differ in names and weights, which decide little about the cells that
ezkl lays out: it leaves out some products with zeros, and whole numbers have another scale than
others. So of many weights it counts how many are zero, roughly, and whether all are whole. Counts
of pieces that are alike may still differ by some cells: they are estimates, for the search of cuts.
What is chosen is counted as it is.

The first of a model's pieces stands for those like it. So what a plan is chosen by follows from the
model, not from what a machine has counted before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

import numpy as np
import onnx
from onnx import numpy_helper

FEW: Final = 16
"""Constants of so few elements may be what an operator does (an exponent, a bound): their values
count."""

ZEROS: Final = 16
"""The share of zeros counts in so many steps."""


def likeness(piece: bytes) -> str:
    """What pieces that are counted alike have in common.

    Args:
        piece: A chunk model.

    Returns:
        A digest of its operators, attributes and shapes, and of the constants that matter.
    """
    model = onnx.ModelProto.FromString(piece)
    graph, digest, numbers = model.graph, hashlib.sha256(), dict[str, int]()

    def renamed(names: Iterable[str]) -> str:
        # An input that is left out stays without a name.
        return " ".join(str(numbers.setdefault(n, len(numbers))) if n else "-" for n in names)

    def take(*parts: str | bytes) -> None:
        for part in parts:
            data = part.encode() if isinstance(part, str) else part
            digest.update(len(data).to_bytes(8, "little") + data)

    for values in (graph.input, graph.output):
        for value in values:
            take(renamed([value.name]), value.type.SerializeToString(deterministic=True))
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        take(node.op_type, renamed(node.input), renamed(node.output))
        for attribute in sorted(node.attribute, key=lambda each: each.name):
            take(attribute.SerializeToString(deterministic=True))
        for name in node.input:
            if name in constants:
                take(*_constant(constants.pop(name)))
    return digest.hexdigest()


def _constant(tensor: onnx.TensorProto) -> tuple[str, bytes]:
    array = numpy_helper.to_array(tensor)
    shown = f"{array.dtype.str} {array.shape}"
    if array.size <= FEW or array.dtype.kind != "f":
        return shown, array.tobytes()
    zeros = ZEROS * (array.size - np.count_nonzero(array)) // array.size
    whole = bool((array == np.rint(array)).all())
    return f"{shown} zeros {zeros} whole {whole}", b""
