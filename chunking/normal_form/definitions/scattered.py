"""GatherND and scatters at places that depend on a model's input, as products with 0 and 1.

A place of several numbers is one number: their sum, each times its stride. What is scattered goes
to where its place is; of several updates of one place the last one counts, as in onnxruntime (ONNX
leaves it open).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx_ir as ir

from zkml_ray.chunking.normal_form.definitions.decisions import hot, is_above, negated, rows_at
from zkml_ray.chunking.normal_form.writer import Writer

MAX_PAIRS: Final = 1 << 16
"""Updates times places that are compared."""


def gather_nd(write: Writer, data: ir.Value, places: ir.Value, *, natural: bool) -> ir.Value:
    """GatherND by computed places."""
    shape, given, batches = write.shape(), write.shape(1), int(write.attribute("batch_dims", 0))
    depth = given[-1]
    dims, rest = shape[batches : batches + depth], shape[batches + depth :]
    batch, count = math.prod(shape[:batches]), math.prod(given[batches:-1])
    size = math.prod(dims)
    places = _linear(write, places, dims, batch * count, natural=natural)
    if batch > 1:
        starts = np.repeat(np.arange(batch) * size, count).reshape(-1, 1)
        places = write.op("Add", places, write.floats(starts))
    table = write.reshape(data, [batch * size, math.prod(rest)])
    taken = rows_at(write, table, places, batch * size, math.prod(rest), batch * count)
    return write.reshape(taken, [*given[:-1], *rest])


def scatter_nd(
    write: Writer, data: ir.Value, places: ir.Value, updates: ir.Value, *, natural: bool
) -> ir.Value:
    """ScatterND at computed places."""
    shape, given = write.shape(), write.shape(1)
    dims, rest = shape[: given[-1]], shape[given[-1] :]
    size, count, width = math.prod(dims), math.prod(given[:-1]), math.prod(rest)
    _check_pairs(write, size * count)
    linear = _linear(write, places, dims, count, natural=natural)
    hits = write.reshape(hot(write, linear, size, 0), [1, count, size])
    rows, kept = _counted(write, hits, count)
    spread = write.op("Transpose", write.reshape(rows, [count, size]), perm=[1, 0])
    added = write.op("MatMul", spread, write.reshape(updates, [count, width]))
    old = write.reshape(data, [size, width])
    if kept is not None:
        old = write.op("Mul", old, write.reshape(kept, [size, 1]))
    return write.reshape(write.op("Add", old, added), shape)


def scatter_elements(
    write: Writer, data: ir.Value, places: ir.Value, updates: ir.Value, *, natural: bool
) -> ir.Value:
    """ScatterElements at computed places."""
    shape, given, axis = write.shape(), write.shape(1), write.axis(0)
    others = [index for index in range(len(shape)) if index != axis]
    if any(given[index] != shape[index] for index in others):
        raise write.refusal("indices of fewer elements than the data, besides its axis")
    before, after = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    size, count = shape[axis], given[axis]
    _check_pairs(write, before * size * count * after)
    places = write.reshape(places, [before, count, 1, after])
    if not natural:
        places = _from_start(write, places, np.array(size))
    hits = write.reshape(hot(write, places, size, 1), [before, count, size * after])
    rows, kept = _counted(write, hits, count)
    spread = write.op(
        "Mul",
        write.reshape(rows, [before, count, size, after]),
        write.reshape(updates, [before, count, 1, after]),
    )
    added = write.op("ReduceSum", spread, write.integers([1]), keepdims=0)
    old = write.reshape(data, [before, size, after])
    if kept is not None:
        old = write.op("Mul", old, write.reshape(kept, [before, size, after]))
    return write.reshape(write.op("Add", old, added), shape)


def _counted(write: Writer, hits: ir.Value, count: int) -> tuple[ir.Value, ir.Value | None]:
    """Which update counts at a place, and where none does; None where what was there stays.

    Args:
        write: At the node.
        hits: 1 where an update's place is; shape [batch, updates, places].
        count: Updates.
    """
    reduction = write.attribute("reduction", "none")
    if reduction == "add":
        return hits, None
    if reduction != "none":
        raise write.refusal(f"reduction {reduction} at computed places cannot be proved")
    if count > 1:
        # One that a later one overwrites has as many later ones, at least 1.
        later = write.op("MatMul", write.floats(np.triu(np.ones((count, count)), 1)), hits)
        hits = write.op("Relu", write.op("Sub", hits, later))
    total = write.op("ReduceSum", hits, write.integers([1]), keepdims=0)
    return hits, negated(write, total)


def _linear(
    write: Writer, places: ir.Value, dims: Sequence[int], count: int, *, natural: bool
) -> ir.Value:
    """Places of several numbers as one number each; shape [count, 1]."""
    table = write.reshape(places, [count, len(dims)])
    if not natural:
        table = _from_start(write, table, np.array(dims))
    strides = [math.prod(dims[index + 1 :]) for index in range(len(dims))]
    return write.op("MatMul", table, write.floats(np.array(strides).reshape(-1, 1)))


def _from_start(write: Writer, places: ir.Value, sizes: np.ndarray) -> ir.Value:
    """Places below 0, which count from the end, counted from the start."""
    below = is_above(write, write.floats(0.0), places)
    return write.op("Add", places, write.op("Mul", below, write.floats(sizes)))


def _check_pairs(write: Writer, pairs: int) -> None:
    if pairs > MAX_PAIRS:
        raise write.refusal(
            f"{pairs} comparisons of updates with places; {MAX_PAIRS} can be proved at most"
        )
