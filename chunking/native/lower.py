"""Nodes of a native chunk, written so that ezkl computes them as precisely as its scale allows.

ezkl 23.0.5 rounds every fractional constant to the circuit's scale S: harmless where the constant
is added, wrong where it multiplies and is small. 1/n of an average over n = 2,049 elements is 0 at
S = 10. So constants that multiply are written as whole numbers and powers of two here
(`writer.Writer.times`), in

- Mul by and Div by constants; LeakyRelu;
- ReduceMean and GlobalAveragePool, which become sums times 1/n (AveragePool divides exactly);
- Div by a tensor, whose reciprocal keeps spare bits and is corrected once;
- LayerNormalization that no pass rewrote, which becomes what ONNX defines it as;
- Conv, Gemm, MatMul and Einsum whose weights are small, and Gemm's alpha and beta.

What ezkl refuses, or can only do in a smaller range, is written with what it can: a convolution
with dilations (`windows`), Max and Min with several constants, whole powers.

Lowering belongs to the derivation of a chunk, not to the plan: no plan can ask for a circuit
without it, and whoever derives the circuit again gets the same nodes. It comes after all rewrites
and before value bounds are looked at, so those hold for the nodes that ezkl sees (docs/adr/0003,
0021). It leaves every output's name and shape as they were.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.native.weights import lower_conv, lower_gemm, lower_product
from zkml_ray.chunking.native.windows import lower_dilated
from zkml_ray.chunking.native.writer import Reals, Writer, power_of_two
from zkml_ray.errors import ChunkingError

MAX_TAKEN_IN: Final = 64
"""Largest power of two before a factor that is taken into it."""

_MOVES: Final = frozenset(
    {"Flatten", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowered:
    """What became of a chunk's nodes.

    Attributes:
        nodes: In topological order.
        constants: Initializers by name: those of the model that are still read, and new ones.
    """

    nodes: list[onnx.NodeProto]
    constants: dict[str, onnx.TensorProto]


def lower_nodes(
    graph: ModelGraph,
    nodes: Sequence[str],
    raised: Mapping[str, int],
    *,
    scale: int,
    range_bits: int,
) -> Lowered:
    """Lower a chunk's nodes.

    Args:
        graph: The normalised, possibly rewritten model.
        nodes: The chunk's nodes, in topological order.
        raised: By tensor that the chunk reads, its scale less the circuit's.
        scale: The circuit's scale.
        range_bits: Bits of what the circuit can take apart into digits.

    Raises:
        ChunkingError: A node cannot be proved.
    """
    chunk = _Chunk(graph, raised, scale, range_bits - 2)
    for name in nodes:
        chunk.visit(graph.nodes[name])
    used = {value for node in chunk.nodes for value in node.input}
    known = {**graph.initializers, **chunk.constants}
    kept = {name: known[name] for name in sorted(used & known.keys())}
    return Lowered(nodes=chunk.nodes, constants=kept)


class _Chunk:
    def __init__(
        self, graph: ModelGraph, raised: Mapping[str, int], scale: int, max_bits: int
    ) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.scale = scale
        self._graph = graph
        self._max_bits = max_bits
        # By tensor that a product with 2^-k, of which ezkl only takes note, has raised above the
        # circuit's scale: the tensor before and k; None where that is not known.
        self._raised: dict[str, tuple[str, int] | None] = {
            name: None for name, bits in raised.items() if bits
        }

    def visit(self, node: onnx.NodeProto) -> None:
        lower = _LOWERED.get(node.op_type)
        write = Writer(
            prefix=f"zkml_ray/native/{node.name}", scale=self.scale, max_bits=self._max_bits
        )
        if lower is None or not lower(self, write, node):
            write.nodes = [onnx.NodeProto.FromString(node.SerializeToString())]
            write.constants = []
        self.nodes += write.nodes
        self.constants |= {tensor.name: tensor for tensor in write.constants}
        for made in write.nodes:
            self._note(made)

    def _note(self, node: onnx.NodeProto) -> None:
        """Follow nominal scales, as far as lowering must know them."""
        if node.op_type == "Mul":
            for data, other in (node.input, list(node.input)[::-1]):
                values = self.values(other)
                shift = None if values is None else power_of_two(values)
                if shift is not None:
                    before = self._raised.get(data, (data, 0))
                    known = None if before is None else (before[0], before[1] + shift)
                    self._raised[node.output[0]] = known
                    return
        elif node.op_type in _MOVES and node.input[0] in self._raised:
            self._raised.update(dict.fromkeys(node.output))

    def values(self, name: str) -> Reals | None:
        """A float constant's numbers, or None."""
        tensor = self._graph.initializers.get(name, self.constants.get(name))
        if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT:
            return None
        return np.asarray(numpy_helper.to_array(tensor), dtype=np.float64)

    def float_constants(self, node: onnx.NodeProto) -> dict[str, Reals]:
        found = {name: self.values(name) for name in node.input if name}
        return {name: values for name, values in found.items() if values is not None}

    def shape(self, name: str) -> tuple[int, ...]:
        return self._graph.tensor(name).shape

    def whole_axes(self, node: onnx.NodeProto) -> list[int] | None:
        """The axes of a reduction, counted from the start; None: they are not constant."""
        rank = len(self.shape(node.input[0]))
        if len(node.input) < 2 or not node.input[1]:
            return list(range(rank))
        tensor = self._graph.initializers.get(node.input[1])
        if tensor is None:
            return None
        return sorted({int(axis) % rank for axis in numpy_helper.to_array(tensor).reshape(-1)})

    def factor(self, write: Writer, data: str, values: Reals, to: str) -> bool:
        """Write a product with constants, together with powers of two that precede it."""
        if not np.isfinite(values).all():
            return False
        source, bits = self.source(write, data)
        write.times(source, np.ldexp(values, -bits), to=to)
        return True

    def source(self, write: Writer, data: str, most: int = MAX_TAKEN_IN) -> tuple[str, int]:
        """A tensor at the circuit's scale, and bits, of which 2^-bits times it is the tensor given.

        A product of a raised tensor is rebased where it is made. With whole numbers that is too
        early: the result is still 2^e too large.

        Args:
            write: Where to rebase the tensor if it takes that.
            data: The tensor.
            most: Largest number of bits.
        """
        origin = self._raised.get(data, (data, 0))
        if origin is not None and origin[0] not in self._raised and origin[1] <= most:
            return origin
        return write.halved(write.shifted(data, 1)), 0


def attributes(node: onnx.NodeProto) -> dict[str, object]:
    """A node's attributes as Python values."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _mul(chunk: _Chunk, write: Writer, node: onnx.NodeProto) -> bool:
    constants = chunk.float_constants(node)
    if len(constants) != 1 or len(node.input) != 2 or node.input[0] == node.input[1]:
        return False
    name, values = next(iter(constants.items()))
    shift = power_of_two(values)
    if (values == np.floor(values)).all() or (shift is not None and shift <= write.max_bits):
        return False
    data = node.input[1] if node.input[0] == name else node.input[0]
    return chunk.factor(write, data, values, node.output[0])


def _div(chunk: _Chunk, write: Writer, node: onnx.NodeProto) -> bool:
    divisor, dividend = (chunk.values(name) for name in (node.input[1], node.input[0]))
    if divisor is None:
        return _quotient(chunk, write, node)
    if dividend is not None:
        return False
    if not divisor.all():
        raise ChunkingError(f"node {node.name}: Div by a constant that is 0 cannot be proved")
    return chunk.factor(write, node.input[0], 1.0 / divisor, node.output[0])


def _quotient(chunk: _Chunk, write: Writer, node: onnx.NodeProto) -> bool:
    """The quotient x / y by a reciprocal of y with spare bits, and what is left of x once more.

    ezkl rounds 1/y to the scale S. Here y is lowered by 2^j, nominally, for which its reciprocal
    has j bits more: at most so many that the reciprocal of 2^-S stays within the range. Then
    q = x r is off by a share e of about y 2^-(S + j), and q + (x - q y) r by e^2.
    """
    dividend, divisor = (
        name if chunk.values(name) is not None else chunk.source(write, name, 0)[0]
        for name in node.input
    )
    spare = max(0, write.max_bits // 2 - chunk.scale)
    inverse = write.node("Reciprocal", [write.shifted(divisor, spare) if spare else divisor])

    def quotient(of: str) -> str:
        return write.node("Mul", [write.shifted(of, spare) if spare else of, inverse])

    constant = chunk.values(dividend)
    if constant is None:
        first = quotient(dividend)
    else:
        first = write.times(inverse, np.ldexp(constant, -spare))
    rest = write.node("Sub", [dividend, write.node("Mul", [first, divisor])])
    write.node("Add", [first, quotient(rest)], to=node.output[0])
    return True


def _mean(chunk: _Chunk, write: Writer, node: onnx.NodeProto) -> bool:
    if node.op_type == "GlobalAveragePool":
        axes: list[int] | None = list(range(2, len(chunk.shape(node.input[0]))))
        keep = 1
    else:
        axes = chunk.whole_axes(node)
        keep = int(str(attributes(node).get("keepdims", 1)))
    if axes is None:
        return False
    _average(chunk, write, node.input[0], axes, keep, node.output[0])
    return True


def _average(
    chunk: _Chunk, write: Writer, data: str, axes: Sequence[int], keep: int, to: str | None
) -> str:
    shape = chunk.shape(data)
    count = math.prod(shape[axis] for axis in axes)
    total = write.node("ReduceSum", [data, write.indices(axes)], keepdims=keep)
    return _divided(write, total, count, to)


def _divided(write: Writer, total: str, count: int, to: str | None = None) -> str:
    """A sum over `count`, rebased."""
    shift = power_of_two(np.array(1.0 / count))
    if shift is not None and shift < write.max_bits:
        return write.halved(write.shifted(total, shift + 1), to=to)
    if count == 1:
        return write.node("Identity", [total], to=to)
    return write.times(total, np.array(1.0 / count), to=to)


def _matmul(chunk: _Chunk, write: Writer, node: onnx.NodeProto) -> bool:
    """A product that repeats one of its batches, which ezkl cannot lay out, repeats it first."""
    constants = chunk.float_constants(node)
    if constants or any(len(chunk.shape(name)) < 3 for name in node.input):
        return lower_product(chunk, write, node)
    shapes = [chunk.shape(name) for name in node.input]
    batches = [shape[:-2] for shape in shapes]
    whole = np.broadcast_shapes(*batches)
    if all(batch == whole for batch in batches):
        return False
    sides = []
    for name, shape in zip(node.input, shapes, strict=True):
        raised = (*[1] * (len(whole) + 2 - len(shape)), *shape)
        made = (*whole, *shape[-2:])
        side = name if raised == shape else write.node("Reshape", [name, write.indices(raised)])
        sides.append(side if raised == made else write.node("Expand", [side, write.indices(made)]))
    write.node("MatMul", sides, to=node.output[0])
    return True


def _extreme(chunk: _Chunk, write: Writer, node: onnx.NodeProto) -> bool:
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


def _power(chunk: _Chunk, write: Writer, node: onnx.NodeProto) -> bool:
    """A whole power above 2 as products: ezkl would divide by 2^((n - 1) S) at once."""
    exponent = chunk.values(node.input[1])
    if exponent is None or exponent.size != 1 or chunk.values(node.input[0]) is not None:
        return False
    number = float(exponent.reshape(-1)[0])
    if not 3 <= number <= MAX_POWER or number != int(number):
        return False
    factor, result = node.input[0], ""
    for digit in reversed(f"{int(number):b}"):
        if digit == "1":
            result = write.node("Mul", [result, factor]) if result else factor
        factor = write.node("Mul", [factor, factor])
    write.nodes.pop()
    write.node("Identity", [result], to=node.output[0])
    return True


def _leaky(chunk: _Chunk, write: Writer, node: onnx.NodeProto) -> bool:
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


def _layer_norm(chunk: _Chunk, write: Writer, node: onnx.NodeProto) -> bool:
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
    mean = _divided(write, _row_sum(write, data, len(shape)), width)
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


def _row_sum(write: Writer, data: str, rank: int) -> str:
    return write.node("ReduceSum", [data, write.indices([rank - 1])], keepdims=1)


MAX_LEVEL: Final = 4
"""Rows above 2^8 elements have their sum of squares divided, to stay in range as a mean would."""

MAX_POWER: Final = 64
"""Larger whole powers are left to ezkl: they leave every range."""

_Rule = Callable[[_Chunk, Writer, onnx.NodeProto], bool]

_LOWERED: Final[Mapping[str, _Rule]] = {
    "Conv": lambda chunk, write, node: _conv(chunk, write, node),
    "Div": _div,
    "Einsum": lambda chunk, write, node: lower_product(chunk, write, node),
    "Gemm": lambda chunk, write, node: lower_gemm(chunk, write, node),
    "GlobalAveragePool": _mean,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": _leaky,
    "MatMul": _matmul,
    "Mul": _mul,
    "Max": _extreme,
    "Min": _extreme,
    "Pow": _power,
    "ReduceMean": _mean,
}


def _conv(chunk: _Chunk, write: Writer, node: onnx.NodeProto) -> bool:
    plain = lower_dilated(write, node, chunk.shape(node.input[0]))
    if plain is None:
        return lower_conv(chunk, write, node)
    kept = list(write.nodes)
    if not lower_conv(chunk, write, plain):
        write.nodes = [*kept, plain]
    return True
