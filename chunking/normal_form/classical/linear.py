"""LinearClassifier and LinearRegressor: a product with coefficients, and intercepts."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from zkml_ray.chunking.normal_form.classical.scores import (
    label,
    labels_of,
    pair,
    regressed,
    rows,
    text,
    transformed,
)
from zkml_ray.chunking.normal_form.writer import Writer


def regressor(write: Writer) -> ir.Value:
    """X W^T + b, and `post_transform`."""
    targets = int(write.attribute("targets", 1))
    return regressed(
        write, _product(write, targets), targets, text(write, "post_transform", "NONE")
    )


def classifier(write: Writer) -> list[ir.Value | None]:
    """X W^T + b, and `post_transform`; of a single score, one for either class."""
    labels = labels_of(write, "classlabels_strings", "classlabels_ints")
    classes = len(write.attribute("intercepts", ()))
    if not classes:
        raise write.refusal("it has no intercepts, by which its classes are counted")
    made, post = _product(write, classes), text(write, "post_transform", "NONE")
    if classes > 1:
        if len(labels) != classes:
            raise write.refusal(f"it has {len(labels)} labels for {classes} scores")
        made = transformed(write, made, post)
    elif len(labels) == 2:
        made = _pair(write, made, post)
    elif post != "NONE":
        raise write.refusal(f"post_transform {post} of one class is not defined")
    return [label(write, made, labels), made]


def _pair(write: Writer, score: ir.Value, post: str) -> ir.Value:
    """Scores of two classes from one, whose label is that of 0."""
    if post == "LOGISTIC":
        return pair(write, score, "logistic")
    if post != "NONE":
        raise write.refusal(f"post_transform {post} of a single score is not defined")
    if write.place.outputs[0].uses():
        raise write.refusal("the label of a single score cannot be read by other operators")
    return pair(write, score, "complement")


def _product(write: Writer, targets: int) -> ir.Value:
    data, (_, width) = rows(write)
    weights = np.array(write.attribute("coefficients", ()), dtype=np.float64)
    if weights.size != targets * width:
        raise write.refusal(f"it has {weights.size} coefficients for {targets} x {width}")
    made = write.op("MatMul", data, write.floats(weights.reshape(targets, width).T))
    bias = np.array(write.attribute("intercepts", ()), dtype=np.float64)
    if bias.size not in (0, targets):
        raise write.refusal(f"it has {bias.size} intercepts for {targets} targets")
    return write.op("Add", made, write.floats(bias)) if bias.any() else made
