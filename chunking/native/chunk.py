"""A native chunk while it is lowered: nodes so far, constants, and scales as far as they matter."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.masked import is_masked
from zkml_ray.chunking.native.writer import Reals, Writer, power_of_two

Rule: TypeAlias = "Callable[[Chunk, Writer, onnx.NodeProto], bool]"
"""Writes a node in another form; False where it stays as it is."""

MAX_TAKEN_IN: Final = 64
"""Largest power of two before a factor that is taken into it."""

_MOVES: Final = frozenset(
    {"Flatten", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
)


class Chunk:
    """A chunk while it is lowered: what was written, and how far tensors are raised."""

    def __init__(
        self,
        graph: ModelGraph,
        raised: Mapping[str, int],
        *,
        nodes: Collection[str],
        rules: Mapping[str, Rule],
        scale: int,
        max_bits: int,
    ) -> None:
        """Begin a chunk.

        Args:
            graph: The normalised, possibly rewritten model.
            raised: By tensor that the chunk reads, its scale less the circuit's.
            nodes: Names of its nodes.
            rules: How each operator is lowered.
            scale: The circuit's scale.
            max_bits: log2 of what one rebase can divide by, less one.
        """
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.scale = scale
        self._names = frozenset(nodes)
        self._graph = graph
        self._rules = rules
        self._max_bits = max_bits
        # By tensor that a product with 2^-k, of which ezkl only takes note, has raised above the
        # circuit's scale: the tensor before and k; None where that is not known.
        self._raised: dict[str, tuple[str, int] | None] = {
            name: None for name, bits in raised.items() if bits
        }

    def visit(self, node: onnx.NodeProto) -> None:
        """Lower a node, or keep it as it is."""
        lower = self._rules.get(node.op_type)
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

    def raised(self, name: str) -> int | None:
        """How far a tensor's scale lies above the circuit's; None: that is not known."""
        origin = self._raised.get(name, (name, 0))
        while origin is not None and origin[0] != name:
            name = origin[0]
            before = self._raised.get(name, (name, 0))
            origin = None if before is None else (before[0], before[1] + origin[1])
        return None if origin is None else origin[1]

    def values(self, name: str) -> Reals | None:
        """A float constant's numbers, or None."""
        tensor = self._graph.initializers.get(name, self.constants.get(name))
        if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT:
            return None
        return np.asarray(numpy_helper.to_array(tensor), dtype=np.float64)

    def only_reader(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """The one node that reads a node's result, if it stands in the chunk; else None."""
        name = node.output[0]
        readers = self._graph.readers.get(name, ())
        if len(readers) != 1 or readers[0] not in self._names or name in self._graph.outputs:
            return None
        return self._graph.nodes[readers[0]]

    def own_maker(self, name: str) -> onnx.NodeProto | None:
        """The node that makes a tensor, if it stands in the chunk; else None."""
        maker = self._graph.producer_of.get(name)
        return self._graph.nodes[maker] if maker in self._names else None

    def float_constants(self, node: onnx.NodeProto) -> dict[str, Reals]:
        """A node's inputs that are float constants."""
        found = {name: self.values(name) for name in node.input if name}
        return {name: values for name, values in found.items() if values is not None}

    def maker(self, name: str) -> onnx.NodeProto | None:
        """The model's node that makes a tensor, or None."""
        made_by = self._graph.producer_of.get(name)
        return None if made_by is None else self._graph.nodes[made_by]

    def readers(self, name: str) -> list[onnx.NodeProto]:
        """The model's nodes that read a tensor."""
        return [node for node in self._graph.proto.graph.node if name in node.input]

    def mask(self, node: onnx.NodeProto | None) -> npt.NDArray[np.bool_] | None:
        """Which keys a node keeps that masks scores; None for others (`chunking.masked`)."""
        if node is None or not is_masked(node, self._graph.initializers):
            return None
        kept = numpy_helper.to_array(self._graph.initializers[node.input[0]]) != 0
        return np.asarray(kept)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape."""
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
