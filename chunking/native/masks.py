"""A softmax with dropped keys, whose masked scores no circuit can hold (`chunking.masked`).

With k = 1 for kept keys and 0 for dropped ones, and m the largest kept score of a row:

    e = exp((x - m) k) k,    shares = e / sum e

so that a dropped key is looked up at 0 and counts for nothing. m is the maximum of x k - B (1 - k):
as long as some kept score of the row is above -B, and otherwise -B, which the table refuses unless
it is near; a softmax is the same for every m.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx

from zkml_ray.chunking.native.chunk import Chunk, attributes
from zkml_ray.chunking.native.products import quotient_of
from zkml_ray.chunking.native.writer import Writer
from zkml_ray.errors import ChunkingError

LOWEST: Final = 64.0
"""B: no score is expected so far below zero."""


def where(chunk: Chunk, write: Writer, node: onnx.NodeProto) -> bool:
    """A mask: scores, and zero where keys are dropped; the softmax knows which."""
    kept = chunk.mask(node)
    if kept is None:
        return False
    for reader in chunk.readers(node.output[0]):
        if reader.op_type != "Softmax":
            raise ChunkingError(
                f"node {node.name} (Where): masked scores are read by {reader.op_type} (node "
                f"{reader.name}); only a Softmax of them can be proved"
            )
    data, _ = chunk.source(write, node.input[1], 0)
    factor = write.constant(_spread(chunk, kept, node.output[0]))
    write.node("Mul", [data, factor], to=node.output[0])
    return True


def softmax(chunk: Chunk, write: Writer, node: onnx.NodeProto) -> bool:
    """A softmax of masked scores; others stay as they are."""
    kept = chunk.mask(chunk.maker(node.input[0]))
    if kept is None:
        return False
    data = node.input[0]
    truth = _spread(chunk, kept, data)
    axis = int(str(attributes(node).get("axis", -1))) % truth.ndim
    low = write.constant((truth - 1) * LOWEST)
    raised = write.node("Add", [data, low])
    largest = write.node("ReduceMax", [raised, write.indices([axis])], keepdims=1)
    below = write.node("Sub", [data, largest])
    argument = write.node("Mul", [below, write.constant(truth)])
    powers = write.node("Mul", [write.node("Exp", [argument]), write.constant(truth)])
    total = write.node("ReduceSum", [powers, write.indices([axis])], keepdims=1)
    quotient_of(write, powers, total, node.output[0], None, chunk.scale)
    return True


def _spread(chunk: Chunk, kept: np.ndarray, name: str) -> np.ndarray:
    """1 for every kept score and 0 for others, in the scores' shape."""
    return np.broadcast_to(kept, chunk.shape(name)).astype(np.float64)
