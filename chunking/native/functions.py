"""Functions and normalisations that ezkl lacks, or leaves its prover a choice in."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import onnx

from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.native.chunk import Chunk, attributes
from zkml_ray.chunking.native.products import divided
from zkml_ray.chunking.native.writer import Writer
from zkml_ray.errors import ChunkingError

MAX_LEVEL: Final = 4
"""Rows above 2^8 elements have their sum of squares divided, to stay in range as a mean would."""


def extreme(chunk: Chunk, write: Writer, node: onnx.NodeProto) -> bool:
    """Max or Min with several constants, of which ezkl takes one: c + relu(x - c)."""
    constants = chunk.float_constants(node)
    if len(constants) != 1 or len(node.input) != 2:
        return False
    name, bound = next(iter(constants.items()))
    if bound.size == 1:
        return False
    data = node.input[1] if node.input[0] == name else node.input[0]
    sides = [data, write.constant(bound)]
    if node.op_type == "Min":
        sides.reverse()
    beyond = write.node("Relu", [write.node("Sub", sides)])
    op = "Add" if node.op_type == "Max" else "Sub"
    write.node(op, [write.constant(bound), beyond], to=node.output[0])
    return True


def leaky_relu(chunk: Chunk, write: Writer, node: onnx.NodeProto) -> bool:
    """X (1 + a) / 2 + |x| (1 - a) / 2; the two factors add up to exactly 1."""
    alpha = float(str(attributes(node).get("alpha", 0.01)))
    one = 1 << write.max_bits
    falling = round((1.0 - alpha) / 2 * one)
    if not abs(falling) < 1 << 40:
        return False
    data, _ = chunk.source(write, node.input[0], 0)
    magnitude = write.node("Abs", [data])
    left = write.node("Mul", [data, write.constant(one - falling)])
    right = write.node("Mul", [magnitude, write.constant(falling)])
    halves = [write.shifted(part, write.max_bits) for part in (left, right)]
    write.node("Add", halves, to=node.output[0])
    return True


def layer_norm(chunk: Chunk, write: Writer, node: onnx.NodeProto) -> bool:
    """Layer normalisation over the last axis, as the pass of that name writes it.

    With c = x - mean(x), r = sqrt(sum(c^2) + n eps) and whole G = gamma sqrt(n) 2^e it is
    (c G - sum(c) G / n) / r 2^-e + beta: sums are rebased once a row, the quotient once an element.
    In long rows c and r are smaller by a power of two.
    """
    shape = chunk.shape(node.input[0])
    gamma = chunk.values(node.input[1])
    if gamma is None:
        return False
    width = shape[-1]
    data, _ = chunk.source(write, node.input[0], 0)
    mean = divided(write, _row_sum(write, data, len(shape)), width)
    centred = write.node("Sub", [data, mean])
    letters = "abcdefghijklmnopqrstuvwxyz"[: len(shape)]
    equation = f"{letters},{letters}->{letters[:-1]}"
    level = round(math.log2(width) / 2)
    drop = max(0, level - MAX_LEVEL)
    part = write.shifted(centred, drop) if drop else centred
    squares = write.node("Einsum", [part, part], equation=equation)
    squares = write.node("Reshape", [squares, write.indices([*shape[:-1], 1])])
    epsilon = float(np.float32(str(attributes(node).get("epsilon", 1e-5))))
    offset = write.constant(math.ldexp(width * epsilon, -2 * drop))
    root = write.node("Sqrt", [write.node("Add", [squares, offset])])
    spare = max(level - drop + 1, write.max_bits // 2 - chunk.scale)
    inverse = write.node("Reciprocal", [write.shifted(root, spare)])
    bits = max(0, write.max_bits + 1 - chunk.scale - spare)
    factors = np.rint(np.ldexp(gamma * math.sqrt(width), bits - drop))
    grown = write.node("Mul", [centred, write.constant(factors)])
    rest = _row_sum(write, centred, len(shape))
    spread = write.node("Mul", [rest, write.constant(np.rint(factors / width))])
    grown = write.node("Sub", [grown, spread])
    divisor = write.shifted(inverse, spare + bits)
    beta = chunk.values(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if beta is None:
        write.node("Mul", [grown, divisor], to=node.output[0])
    else:
        result = write.node("Mul", [grown, divisor])
        write.node("Add", [result, write.constant(beta)], to=node.output[0])
    return True


def is_fused(graph: ModelGraph, value: str) -> bool:
    """Whether a tensor is a Sign that a Relu alone reads: the two are one in a chunk with both."""
    readers = graph.readers.get(value, ())
    return (
        graph.nodes[graph.producer_of[value]].op_type == "Sign"
        and len(readers) == 1
        and graph.nodes[readers[0]].op_type == "Relu"
        and value not in graph.outputs
    )


def is_positive(chunk: Chunk, write: Writer, node: onnx.NodeProto) -> bool:
    """1 where x is above 0, else 0, of Relu(Sign(x)): with q = 2^-S, (1 + Sign(2 x - q)) / 2.

    2 x - q is no multiple of 2 q, so it is never 0, and above 0 where x is q or more: one
    decomposition in place of two.
    """
    sign_node = chunk.own_maker(node.input[0])
    if sign_node is None or sign_node.op_type != "Sign" or not _is_fused(chunk, sign_node):
        return False
    data = sign_node.input[0]
    if chunk.raised(data) != 0:
        data = write.halved(write.shifted(data, 1))
    twice = write.node("Mul", [data, write.constant(2.0)])
    odd = write.node("Sub", [twice, write.constant(2.0**-chunk.scale)])
    both = write.node("Add", [write.node("Sign", [odd]), write.constant(1.0)])
    half = write.constant(2.0 ** (chunk.scale - 1))
    write.node("Mul", [write.shifted(both, chunk.scale), half], to=node.output[0])
    return True


def _is_fused(chunk: Chunk, node: onnx.NodeProto) -> bool:
    reader = chunk.only_reader(node)
    return chunk.scale > 0 and reader is not None and reader.op_type == "Relu"


def sign(chunk: Chunk, write: Writer, node: onnx.NodeProto) -> bool:
    """-1, 0 or 1 at the circuit's scale, which lowering relies on: ezkl's sign has scale 0.

    Nothing where a Relu alone reads it, which `is_positive` writes.
    """
    if _is_fused(chunk, node):
        write.nodes = []
        return True
    write.node("Identity", [write.sign(node.input[0])], to=node.output[0])
    return True


def floor(chunk: Chunk, write: Writer, node: onnx.NodeProto) -> bool:
    """A rebase by 2^S, and what is left of x.

    A rebase leaves its prover a choice between the two whole numbers beside x
    (docs/security.md). So x less the one chosen decides which it was: the result is unique.
    """
    data, bits = node.input[0], chunk.scale + 1
    if bits + 1 > write.max_bits:
        raise ChunkingError(
            f"node {node.name}: Floor at scale {chunk.scale} cannot be proved; use a smaller "
            "--scale"
        )
    if chunk.raised(data) != 0:
        data = write.halved(write.shifted(data, 1))
    if chunk.scale == 0:
        write.node("Identity", [data], to=node.output[0])
        return True
    near = write.halved(write.shifted(data, bits))
    whole = write.node("Mul", [near, write.constant(2.0**chunk.scale)])
    beyond = write.sign(write.node("Sub", [whole, data]))
    write.node("Sub", [whole, write.node("Relu", [beyond])], to=node.output[0])
    return True


def _row_sum(write: Writer, data: str, rank: int) -> str:
    return write.node("ReduceSum", [data, write.indices([rank - 1])], keepdims=1)
