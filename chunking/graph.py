"""A read-only view of a normalised model: who makes and who reads each tensor, and its shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import onnx

from zkml_ray.chunking.lookups import recorded_lookups
from zkml_ray.chunking.normal_form.interface import recorded_inputs
from zkml_ray.errors import ChunkingError


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """A tensor's static type.

    Attributes:
        name: Its name.
        shape: Dimensions, row-major.
        is_float: Whether its elements are float32, the only kind that may cross a cut.
    """

    name: str
    shape: tuple[int, ...]
    is_float: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """A tensor that crosses a cut, or enters or leaves the model.

    Attributes:
        tensor: The tensor.
        producer: Index of the part that computes it; None for an input of the model.
        consumers: Indices of the parts that read it, ascending.
    """

    tensor: TensorInfo
    producer: int | None
    consumers: tuple[int, ...]


class ModelGraph:
    """Index over a normalised model's nodes and tensors."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.proto = proto
        graph = proto.graph
        self.nodes: dict[str, onnx.NodeProto] = {node.name: node for node in graph.node}
        if len(self.nodes) != len(graph.node) or "" in self.nodes:
            raise ChunkingError("nodes have missing or repeated names: the model is not normalised")
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self.inputs = tuple(
            value.name for value in graph.input if value.name not in self.initializers
        )
        self.lookups = recorded_lookups(proto)
        """Look-ups at places that are an input, which are not among the nodes."""
        sources = {each.input for each in self.lookups}
        self.unread = tuple(
            name for name in recorded_inputs(proto) if name not in {*self.inputs, *sources}
        )
        """Inputs of the user's file that no output depends on."""
        self.given = recorded_inputs(proto)
        """All inputs of the user's file, in order."""
        self.asked = tuple(name for name in self.given if name not in self.unread)
        """Those of them that a proof depends on."""
        self.outputs = tuple(value.name for value in graph.output)
        self.producer_of = {name: node.name for node in graph.node for name in node.output if name}
        self._infos = {
            value.name: value for value in (*graph.input, *graph.value_info, *graph.output)
        }

    @cached_property
    def readers(self) -> dict[str, tuple[str, ...]]:
        """Per tensor that a node reads, the nodes that do, in order."""
        found: dict[str, list[str]] = {}
        for node in self.proto.graph.node:
            for name in dict.fromkeys(node.input):
                if name:
                    found.setdefault(name, []).append(node.name)
        return {name: tuple(nodes) for name, nodes in found.items()}

    def tensor(self, name: str) -> TensorInfo:
        """The static type of a tensor.

        Raises:
            ChunkingError: Its shape is not known.
        """
        info = self._infos.get(name)
        if info is None or not info.type.tensor_type.HasField("shape"):
            raise ChunkingError(f"the shape of tensor {name} cannot be inferred")
        tensor = info.type.tensor_type
        shape = tuple(int(dim.dim_value) for dim in tensor.shape.dim)
        if any(size < 1 for size in shape):
            raise ChunkingError(f"tensor {name} has a dimension without a value: {shape}")
        return TensorInfo(
            name=name, shape=shape, is_float=tensor.elem_type == onnx.TensorProto.FLOAT
        )

    def tensor_shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, or of an input at whose places rows are looked up."""
        for lookup in self.lookups:
            if lookup.input == name:
                return lookup.shape
        return self.tensor(name).shape

    def crossings(self, parts: Sequence[Sequence[str]]) -> list[Crossing]:
        """The tensors that cross the cuts of a partition, in order of production.

        Args:
            parts: Node names per part; every node of the model exactly once, and no part may read
                from a later one.

        Raises:
            ChunkingError: The partition breaks one of these rules, a tensor that is not float32
                would cross a cut, or no chunk could commit to an input or output of the model.
        """
        part_of = self._part_of(parts)
        readers: dict[str, set[int]] = {name: set() for name in (*self.inputs, *self.outputs)}
        for node in self.proto.graph.node:
            part = part_of[node.name]
            for name in node.input:
                maker = self.producer_of.get(name)
                if maker is None:
                    if name in readers:
                        readers[name].add(part)
                elif part_of[maker] != part:
                    if part_of[maker] > part:
                        raise ChunkingError(
                            f"the partition is not topological: part {part} reads {name} from the "
                            f"later part {part_of[maker]}"
                        )
                    readers.setdefault(name, set()).add(part)
        for name in self.inputs:
            if not readers[name]:
                raise ChunkingError(f"input {name} is read by no node; remove it from the model")
        for name in self.outputs:
            if name not in self.producer_of:
                raise ChunkingError(
                    f"output {name} is no node's result but a constant or an input; remove it from "
                    "the model"
                )
        made = [name for node in self.proto.graph.node for name in node.output if name in readers]
        result = []
        for name in (*self.inputs, *made):
            info = self.tensor(name)
            if not info.is_float:
                raise ChunkingError(
                    f"tensor {name} is not float32; only float32 tensors can be an input, an "
                    "output or cross a cut"
                )
            maker = self.producer_of.get(name)
            result.append(
                Crossing(
                    tensor=info,
                    producer=None if maker is None else part_of[maker],
                    consumers=tuple(sorted(readers[name])),
                )
            )
        return result

    def _part_of(self, parts: Sequence[Sequence[str]]) -> dict[str, int]:
        part_of: dict[str, int] = {}
        for index, part in enumerate(parts):
            if not part:
                raise ChunkingError(f"part {index} of the partition has no node")
            for name in part:
                if name not in self.nodes:
                    raise ChunkingError(f"the partition names node {name}, which the model lacks")
                if name in part_of:
                    raise ChunkingError(f"the partition has node {name} twice")
                part_of[name] = index
        missing = [name for name in self.nodes if name not in part_of]
        if missing:
            raise ChunkingError(f"the partition lacks node {missing[0]} ({len(missing)} in all)")
        return part_of
