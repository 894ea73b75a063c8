"""The ONNX sub-graph that packs a boundary tensor's leaves inside a chunk's circuit.

For a tensor of n elements in L leaves of s slots, of which `leaf_size` hold elements:

    tensor -> [L, leaf_size] -> Concat(zeros, salts) -> [L, s]
           -> [L*s/inner, inner] @ powers -> [L*s/pack, outer] @ powers -> [L, s/pack] -> L rows

The rows are the graph's outputs; ezkl's `hashed` visibility turns each into its Poseidon hash, a
public instance. The same numbers come from `leaves.pack_leaves`.

Preconditions, the caller's duty:

- the run argument `rebase_frac_zero_constants` is on, which keeps the powers of two at scale 0:
  then nothing is rescaled and the sums are exact in the field;
- every element is held within the packing's bound by a range check in the same circuit (inputs
  are; an outgoing tensor must be the result of a rebase or an activation);
- the salt tensor is a private input of the circuit, so it is range-checked too.

All leaves of a boundary are packed by one product per level and then taken apart by `Gather`,
which costs nothing. One `Slice` per leaf of the tensor would assign the whole tensor anew each
time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from zkml_ray.commitments.leaves import LeafLayout
from zkml_ray.errors import FieldRangeError


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitGraph:
    """What one boundary adds to a chunk's ONNX graph.

    Attributes:
        nodes: In topological order.
        initializers: The constants those nodes use.
        outputs: One float tensor [packed_per_leaf] per leaf, named `<prefix>/leaf_<iiii>`.
        salt_input: The float tensor [leaf_count, salts_per_leaf], or None without salts.
    """

    nodes: list[onnx.NodeProto]
    initializers: list[onnx.TensorProto]
    outputs: list[onnx.ValueInfoProto]
    salt_input: onnx.ValueInfoProto | None


def commit_nodes(
    *, prefix: str, tensor: str, salt: str | None, layout: LeafLayout, shape: Sequence[int]
) -> CommitGraph:
    """Build the sub-graph that packs one boundary.

    Args:
        prefix: Unique in the chunk; every new name starts with it.
        tensor: Name of the boundary tensor, float, with `layout.element_count` elements.
        salt: Name for the salt input, or None when the layout has no salts.
        layout: The boundary's layout.
        shape: The tensor's shape, static.

    Returns:
        The nodes, initializers, outputs and salt input to add to the chunk.

    Raises:
        FieldRangeError: The shape does not have the layout's elements, or a salt name is missing
            or needless.
    """
    if math.prod(shape) != layout.element_count:
        raise FieldRangeError(
            f"boundary {prefix}: shape {tuple(shape)} does not have the layout's "
            f"{layout.element_count} elements"
        )
    if (salt is None) != (layout.salts_per_leaf == 0):
        raise FieldRangeError(
            f"boundary {prefix}: {layout.salts_per_leaf} salts per leaf with salt input {salt!r}"
        )
    builder = _Builder(prefix)
    slots = _slots(builder, tensor, salt, layout)
    packed = _packed(builder, slots, layout)
    outputs = []
    for leaf in range(layout.leaf_count):
        name = f"{prefix}/leaf_{leaf:04d}"
        index = builder.constant(f"index_{leaf:04d}", np.asarray(leaf, dtype=np.int64))
        builder.nodes.append(helper.make_node("Gather", [packed, index], [name], name=name, axis=0))
        outputs.append(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [layout.packed_per_leaf])
        )
    salt_input = None
    if salt is not None:
        salt_input = helper.make_tensor_value_info(
            salt, TensorProto.FLOAT, [layout.leaf_count, layout.salts_per_leaf]
        )
    return CommitGraph(
        nodes=builder.nodes,
        initializers=builder.initializers,
        outputs=outputs,
        salt_input=salt_input,
    )


class _Builder:
    """Collects nodes and constants under one prefix."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, name: str, value: np.ndarray) -> str:
        full = f"{self.prefix}/{name}"
        self.initializers.append(numpy_helper.from_array(value, full))
        return full

    def node(self, op: str, inputs: Sequence[str], name: str, **attributes: int) -> str:
        full = f"{self.prefix}/{name}"
        self.nodes.append(helper.make_node(op, list(inputs), [full], name=full, **attributes))
        return full

    def reshape(self, tensor: str, name: str, shape: Sequence[int]) -> str:
        target = self.constant(f"{name}_shape", np.asarray(shape, dtype=np.int64))
        return self.node("Reshape", [tensor, target], name)

    def zeros(self, name: str, shape: Sequence[int]) -> str:
        return self.constant(name, np.zeros(shape, dtype=np.float32))


def _slots(builder: _Builder, tensor: str, salt: str | None, layout: LeafLayout) -> str:
    """[leaf_count, slots]: elements, zeros, salts."""
    missing = layout.leaf_count * layout.leaf_size - layout.element_count
    if missing:
        flat = builder.reshape(tensor, "flat", [layout.element_count])
        padding = builder.zeros("missing", [missing])
        tensor = builder.node("Concat", [flat, padding], "filled", axis=0)
    parts = [builder.reshape(tensor, "elements", [layout.leaf_count, layout.leaf_size])]
    if layout.zeros_per_leaf:
        parts.append(builder.zeros("zeros", [layout.leaf_count, layout.zeros_per_leaf]))
    if salt is not None:
        parts.append(salt)
    return parts[0] if len(parts) == 1 else builder.node("Concat", parts, "slots", axis=1)


def _packed(builder: _Builder, slots: str, layout: LeafLayout) -> str:
    """[leaf_count, packed_per_leaf]: two levels of sums, a level of one element left out."""
    packing = layout.packing
    count = layout.leaf_count * layout.slots
    tensor = slots
    for level, width, stride in (
        ("inner", packing.inner, packing.stride_bits),
        ("outer", packing.outer, packing.stride_bits * packing.inner),
    ):
        if width == 1:
            continue
        count //= width
        powers = np.asarray([[2.0 ** (stride * i)] for i in range(width)], dtype=np.float32)
        rows = builder.reshape(tensor, f"{level}_rows", [count, width])
        column = builder.constant(f"{level}_powers", powers)
        tensor = builder.node("MatMul", [rows, column], f"{level}_sums")
    return builder.reshape(tensor, "packed", [layout.leaf_count, layout.packed_per_leaf])
