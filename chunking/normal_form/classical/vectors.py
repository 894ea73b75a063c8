"""SVMClassifier and SVMRegressor: a kernel of the input with each support vector, weighted.

|x - v|^2 of the RBF kernel is |x|^2 - 2 x v + |v|^2: one square a feature, and a product. Its
exponential is read at -7.75 and above, as elsewhere.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from zkml_ray.chunking.normal_form.classical.scores import (
    label,
    labels_of,
    pair,
    rows,
    text,
    transformed,
)
from zkml_ray.chunking.normal_form.definitions import decisions
from zkml_ray.chunking.normal_form.definitions.pointwise import FLOOR
from zkml_ray.chunking.normal_form.writer import Writer

Reals = npt.NDArray[np.float64]

_MAX_DEGREE: Final = 8


def regressor(write: Writer) -> ir.Value:
    """SVMRegressor: the weighted kernels and rho, or the sign of that."""
    coefficients, rho = _array(write, "coefficients"), _array(write, "rho")
    data, (_, width) = rows(write)
    count = int(write.attribute("n_supports", 0))
    if count:
        found = _kernels(write, data, _vectors(write, count, width))
        weights = coefficients.reshape(-1, 1)
    else:
        found, weights = data, coefficients.reshape(1, -1).T
    made = write.op("MatMul", found, write.floats(weights))
    made = write.op("Add", made, write.floats(rho[:1]))
    if not int(write.attribute("one_class", 0)):
        return made
    above = decisions.is_above(write, made, write.floats(0.0))
    return write.op("Sub", write.op("Mul", above, write.floats(2.0)), write.floats(1.0))


def classifier(write: Writer) -> list[ir.Value | None]:
    """SVMClassifier: a score for every two classes, or one for each."""
    labels = labels_of(write, "classlabels_strings", "classlabels_ints")
    post, classes = text(write, "post_transform", "NONE"), len(labels)
    sizes = [int(size) for size in write.attribute("vectors_per_class", ())]
    data, (_, width) = rows(write)
    rho, coefficients = _array(write, "rho"), _array(write, "coefficients")
    if not sum(sizes):
        weights = coefficients.reshape(classes, width)
        made = write.op("MatMul", data, write.floats(weights.T))
        made = transformed(write, write.op("Add", made, write.floats(rho[:1])), post)
        if classes == 2 and write.place.outputs[0].uses():
            raise write.refusal("the label of two linear classes cannot be read by others")
        return [label(write, made, labels), made]
    found = _kernels(write, data, _vectors(write, sum(sizes), width))
    pairs = write.op("MatMul", found, write.floats(_pairwise(coefficients, sizes)))
    pairs = write.op("Add", pairs, write.floats(rho))
    if len(_array(write, "prob_a")):
        if classes > 2:
            raise write.refusal(
                "probabilities of more than two classes are the end of an iteration, which cannot "
                "be proved; export the model without them (probability=False)"
            )
        made = _probability(write, pairs)
        made = transformed(write, made, post)
    elif classes > 2:
        made = transformed(write, pairs, post)
    else:
        if post not in ("NONE", "LOGISTIC"):
            raise write.refusal(f"post_transform {post} of a single score is not defined")
        made = pair(write, pairs, "opposite" if post == "NONE" else "logistic")
    return [_voted(write, pairs, labels), made]


def _pairwise(coefficients: Reals, sizes: list[int]) -> Reals:
    """Weights of every kernel in every pair's score: [vectors, pairs].

    Of classes i < j, the vectors of i have row j - 1 of the coefficients, those of j row i.
    """
    count, starts = sum(sizes), np.cumsum([0, *sizes])
    table = coefficients.reshape(len(sizes) - 1, count)
    columns = []
    for i, j in itertools.combinations(range(len(sizes)), 2):
        column = np.zeros(count)
        column[starts[i] : starts[i + 1]] = table[j - 1, starts[i] : starts[i + 1]]
        column[starts[j] : starts[j + 1]] = table[i, starts[j] : starts[j + 1]]
        columns.append(column)
    return np.stack(columns, axis=1)


def _voted(write: Writer, pairs: ir.Value, labels: Sequence[Any]) -> ir.Value | None:
    """The class that wins most pairs, the first of several; None where nothing reads it."""
    output = write.place.outputs[0]
    if not output.uses() and not output.is_graph_output():
        return None
    first = decisions.is_above(write, pairs, write.floats(0.0))
    matches = list(itertools.combinations(range(len(labels)), 2))
    wins, losses = np.zeros((len(matches), len(labels))), np.zeros(len(labels))
    for index, (i, j) in enumerate(matches):
        wins[index, i], wins[index, j] = 1, -1
        losses[j] += 1
    votes = write.op("Add", write.op("MatMul", first, write.floats(wins)), write.floats(losses))
    return label(write, votes, labels)


def _probability(write: Writer, score: ir.Value) -> ir.Value:
    """Platt's probability of the first class, 1 - logistic(a s + b), and of the second."""
    slope, offset = _array(write, "prob_a"), _array(write, "prob_b")
    line = write.op("Mul", score, write.floats(slope[:1]))
    second = write.op("Sigmoid", write.op("Add", line, write.floats(offset[:1])))
    return write.op("Concat", decisions.negated(write, second), second, axis=1)


def _vectors(write: Writer, count: int, width: int) -> Reals:
    vectors = _array(write, "support_vectors")
    if vectors.size != count * width:
        raise write.refusal(f"it has {vectors.size} numbers of vectors for {count} x {width}")
    table: Reals = vectors.reshape(count, width)
    return table


def _kernels(write: Writer, data: ir.Value, vectors: Reals) -> ir.Value:
    """The kernel of each row and each support vector: [rows, vectors]."""
    kind = text(write, "kernel_type", "LINEAR")
    gamma, offset, degree = [*_array(write, "kernel_params"), 0.0, 0.0, 0.0][:3]
    if kind == "LINEAR":
        return write.op("MatMul", data, write.floats(vectors.T))
    if kind == "RBF":
        near = write.op("MatMul", data, write.floats(2 * gamma * vectors.T))
        squares = write.op("Mul", data, data)
        length = write.op("MatMul", squares, write.floats(np.full((vectors.shape[1], 1), -gamma)))
        shift = write.floats(-gamma * (vectors**2).sum(axis=1))
        inner = write.op("Add", write.op("Add", near, length), shift)
        bounded = write.op("Clip", inner, write.floats(FLOOR), write.floats(0.0))
        return write.op("Exp", bounded)
    line = write.op("MatMul", data, write.floats(gamma * vectors.T))
    line = write.op("Add", line, write.floats(float(offset)))
    if kind == "SIGMOID":
        return write.op("Tanh", line)
    if kind != "POLY" or degree != int(degree) or not 1 <= degree <= _MAX_DEGREE:
        raise write.refusal(f"kernel {kind} of degree {degree:g} cannot be proved")
    return line if degree == 1 else write.op("Pow", line, write.floats(float(degree)))


def _array(write: Writer, name: str) -> Reals:
    found: Reals = np.array(write.attribute(name, ()), dtype=np.float64)
    return found
