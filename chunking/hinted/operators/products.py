"""Matrix products."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx

from zkml_ray.chunking.hinted.forms import (
    Dense,
    Floats,
    Form,
    Local,
    NotHintedError,
    Pair,
    Pending,
    RowFactor,
)
from zkml_ray.chunking.hinted.grid import Ints, View
from zkml_ray.chunking.hinted.operators.reading import attribute, broadcast, number, optional
from zkml_ray.chunking.hinted.values import Shares, Value

if TYPE_CHECKING:
    from zkml_ray.chunking.hinted.lower import Lowering

MAX_BATCHED = 1 << 24
"""Most products of a batch of constant matrices, which share no inputs."""


def matmul(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """MatMul: vectors, matrices and batches of them, with broadcasting."""
    shape = lowering.shape(node.output[0])
    shares = lowering.value(node.input[0])
    if isinstance(shares, Shares) and node.input[0] != node.input[1]:
        right = _operand(lowering, node.input[1])
        if isinstance(right, View) and right.shape[:-2] == shares.weights.shape[:-2]:
            # A softmax times values: its rows are divided by their sums behind the product.
            made = _pair(shares.weights, right, shares.reciprocals)
            return replace(made, sites=made.sites.reshape(shape))
    left, right = (_operand(lowering, name) for name in node.input)
    return _product(left, right, shape)


def gemm(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """Gemm."""
    left, right = (_operand(lowering, name) for name in node.input[:2])
    shape = lowering.shape(node.output[0])
    if attribute(node, "transA", 0):
        left = _turned(left)
    if attribute(node, "transB", 0):
        right = _turned(right)
    made = _product(left, right, shape)
    made = replace(made, form=made.form.scaled(number(node, "alpha", 1.0)))
    bias = optional(node, 2)
    if not bias:
        return made
    beta = number(node, "beta", 1.0)
    if isinstance(lowering.value(bias), np.ndarray):
        part = made.constant(np.broadcast_to(lowering.constant(bias) * beta, shape))
    else:
        view = lowering.view(bias)
        part = made.read(replace(view, index=broadcast(view.index, shape)), beta)
    return replace(made, form=made.form.plus(part))


def _operand(lowering: Lowering, name: str) -> View | Floats:
    value = lowering.value(name)
    return lowering.constant(name) if isinstance(value, np.ndarray) else lowering.view(name)


def _turned(operand: View | Floats) -> View | Floats:
    """A matrix, or a batch of them, transposed."""
    return _turned_view(operand) if isinstance(operand, View) else _turned_constant(operand)


def _turned_view(view: View) -> View:
    return replace(view, index=view.index.swapaxes(-1, -2))


def _turned_constant(constant: Floats) -> Floats:
    turned: Floats = constant.swapaxes(-1, -2)
    return turned


def _product(left: View | Floats, right: View | Floats, shape: Sequence[int]) -> Pending:
    """A product of matrices whose sizes fit; `shape` is the result's."""
    if min(len(left.shape), len(right.shape)) < 1:
        raise NotHintedError("a product of a number alone")
    rows, columns = len(left.shape) > 1, len(right.shape) > 1
    left = left if rows else _shaped(left, (1, *left.shape))
    right = right if columns else _shaped(right, (*right.shape, 1))
    if left.shape[-1] != right.shape[-2]:
        raise NotHintedError(f"shapes {left.shape} and {right.shape} do not fit")
    if isinstance(left, View):
        made = _pair(left, right) if isinstance(right, View) else _weighted(left, right)
    elif isinstance(right, View):
        made = _weighted(_turned_view(right), _turned_constant(left))
        made = replace(made, sites=made.sites.swapaxes(-1, -2))
    else:
        raise NotHintedError("it multiplies constants alone")
    return replace(made, sites=np.ascontiguousarray(made.sites).reshape(tuple(shape)))


def _shaped(operand: View | Floats, shape: Sequence[int]) -> View | Floats:
    if isinstance(operand, View):
        return replace(operand, index=operand.index.reshape(tuple(shape)))
    return operand.reshape(tuple(shape))


def _weighted(view: View, weight: Floats) -> Pending:
    """[..., M, K] times constants [..., K, N]."""
    if math.prod(weight.shape[:-2]) != 1 or weight.ndim > len(view.shape):
        return _batched(view, weight)
    depth, channels = weight.shape[-2:]
    weight = weight.reshape(depth, channels)
    index = view.index.reshape(-1, depth)
    form = Form(
        groups=len(index),
        channels=channels,
        dense=(Dense(wire=view.wire, index=index, weights=weight),),
        bias=np.zeros((1, channels)),
    )
    sites = np.arange(len(index) * channels, dtype=np.int64)
    return Pending(form=form, sites=sites.reshape(*view.shape[:-1], channels))


def _batched(view: View, weight: Floats) -> Pending:
    """A matrix of constants for each of a batch: its columns and the batch are the channels."""
    (rows, depth), columns = view.shape[-2:], weight.shape[-1]
    batch = np.broadcast_shapes(view.shape[:-2], weight.shape[:-2])
    count = math.prod(batch)
    if count * rows * columns * depth > MAX_BATCHED:
        raise NotHintedError("a batch of matrices of constants is too large")
    index = broadcast(view.index, (*batch, rows, depth)).reshape(count, rows, 1, depth)
    weights = np.broadcast_to(weight, (*batch, depth, columns)).reshape(count, depth, columns)
    spread = np.broadcast_to(index.transpose(1, 0, 2, 3), (rows, count, columns, depth))
    channels = count * columns
    form = Form(
        groups=rows,
        channels=channels,
        local=(
            Local(
                wire=view.wire,
                index=spread.reshape(rows, channels, depth),
                weights=weights.transpose(0, 2, 1).reshape(channels, depth),
            ),
        ),
        bias=np.zeros((1, channels)),
    )
    sites = np.arange(rows * channels, dtype=np.int64).reshape(rows, count, columns)
    return Pending(form=form, sites=sites.transpose(1, 0, 2).reshape(*batch, rows, columns))


def _pair(left: View, right: View, factors: RowFactor | None = None) -> Pending:
    """A product of two activations, batch by batch; rows may have factors of their own."""
    batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    (rows, depth), channels = left.shape[-2:], right.shape[-1]
    count = math.prod(batch)
    left_index: Ints = broadcast(left.index, (*batch, rows, depth))
    right_index: Ints = broadcast(right.index, (*batch, depth, channels))
    form = Form(
        groups=count * rows,
        channels=channels,
        pairs=(
            Pair(
                left=left.wire,
                left_index=left_index.reshape(count, rows, depth),
                right=right.wire,
                right_index=right_index.reshape(count, depth, channels),
                rows=factors,
            ),
        ),
        bias=np.zeros((1, channels)),
    )
    sites = np.arange(count * rows * channels, dtype=np.int64)
    return Pending(form=form, sites=sites.reshape(*batch, rows, channels))
