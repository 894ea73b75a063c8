"""What classifiers and regressors share: their input as rows, their scores, their labels.

Where ONNX leaves open what a model of one score and two classes gives, it is read as onnxruntime
(1.31) reads it, with which every run is compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from zkml_ray.chunking.normal_form.writer import Writer


def rows(write: Writer, index: int = 0) -> tuple[ir.Value, tuple[int, int]]:
    """The input as float rows, and their number and width.

    Raises:
        ChunkingError: It has more than two dimensions.
    """
    shape = write.shape(index)
    if len(shape) not in (1, 2):
        raise write.refusal(f"its input has {len(shape)} dimensions; 1 or 2 were expected")
    value = floats(write, write.input(index))
    if len(shape) == 1:
        return write.reshape(value, [1, *shape]), (1, shape[0])
    return value, (shape[0], shape[1])


def floats(write: Writer, value: ir.Value | None) -> ir.Value:
    """A tensor of any numbers as float32.

    Raises:
        ChunkingError: It holds no numbers.
    """
    if value is None:
        raise write.refusal("it has no input")
    if value.dtype == ir.DataType.STRING:
        raise write.refusal(f"its input {value.name} is text, which cannot be proved")
    if value.dtype in (None, ir.DataType.FLOAT):
        return value
    return write.op("Cast", value, to=int(ir.DataType.FLOAT))


def text(write: Writer, name: str, default: str) -> str:
    """An attribute that is a word."""
    value = write.attribute(name, default)
    return value.decode() if isinstance(value, bytes) else str(value)


def transformed(write: Writer, scores: ir.Value, post_transform: str) -> ir.Value:
    """Scores of several targets after `post_transform`; shape [rows, targets].

    Raises:
        ChunkingError: It is one that cannot be proved.
    """
    if post_transform == "NONE":
        return scores
    if post_transform == "LOGISTIC":
        return write.op("Sigmoid", scores)
    if post_transform == "SOFTMAX":
        return write.op("Softmax", scores, axis=1)
    raise write.refusal(f"post_transform {post_transform} cannot be proved")


def regressed(write: Writer, scores: ir.Value, targets: int, post_transform: str) -> ir.Value:
    """Scores of a regressor.

    Raises:
        ChunkingError: Runtimes differ in what it gives, or it cannot be proved.
    """
    if targets == 1 and post_transform != "NONE":
        raise write.refusal(
            f"post_transform {post_transform} of a single target is left out by onnxruntime and "
            "not by others; write it as an operator of its own"
        )
    return transformed(write, scores, post_transform)


def pair(write: Writer, score: ir.Value, kind: str) -> ir.Value:
    """The scores of two classes from that of the second one, shape [rows, 1].

    Args:
        write: At the node.
        score: The score.
        kind: "complement" (1 - s, s), "opposite" (-s, s), or "logistic".
    """
    if kind == "logistic":
        score, kind = write.op("Sigmoid", score), "complement"
    if kind == "complement":
        first = write.op("Sub", write.floats(1.0), score)
    else:
        first = write.op("Neg", score)
    return write.op("Concat", first, score, axis=1)


def labels_of(write: Writer, *names: str) -> Sequence[Any]:
    """A classifier's labels, texts or whole numbers."""
    for name in names:
        found = write.attribute(name, ())
        if len(found):
            return list(found)
    raise write.refusal("it has no labels")


def label(write: Writer, scores: ir.Value, labels: Sequence[Any]) -> ir.Value | None:
    """The label of each row's first largest score; None where nothing reads it.

    Args:
        write: At the node; its first output is the label.
        scores: Shape [rows, classes].
        labels: Per class.

    Raises:
        ChunkingError: It is read, and text.
    """
    output = write.place.outputs[0]
    if not output.uses() and not output.is_graph_output():
        return None
    if not all(isinstance(each, int) for each in labels):
        raise write.refusal(f"its label {output.name} is text, which cannot be computed with")
    place = write.op("ArgMax", scores, axis=1, keepdims=0)
    if list(labels) == list(range(len(labels))):
        return place
    return write.op("Gather", write.integers(np.array(labels)), place, axis=0)
