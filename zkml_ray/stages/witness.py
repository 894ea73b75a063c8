"""Stage witness: run the quantised model chunk by chunk, in field elements.

The forward pass of a chunk is exactly what its circuit computes, so integers pass from chunk to
chunk and are never turned into floats. A chunk's outgoing values are unpacked from the packed
leaves that the circuit outputs; they are packed and hashed again natively and must agree, and the
incoming leaves must be those of the values that went in. What this module returns is therefore
consistent with the public instances that the proof will show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from zkml_ray.chunking.hinted.recipe import filled, solve
from zkml_ray.circuits import backend, challenge
from zkml_ray.circuits.keycache import CachedCircuit
from zkml_ray.commitments.field import canonical
from zkml_ray.commitments.leaves import LeafLayout, hash_leaves, pack_leaves, unpack_leaves
from zkml_ray.errors import FieldRangeError, RangeExceededError, StageError
from zkml_ray.schema.plan import BoundaryPlan, ChunkPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundaryValues:
    """A boundary's elements and salts.

    Attributes:
        values: Quantised elements, flat, row-major.
        salts: The salts of its leaves, leaf by leaf.
    """

    values: Sequence[int]
    salts: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkForward:
    """What a chunk's forward pass gives.

    Attributes:
        outgoing: Per produced boundary, its values and salts.
        leaf_hashes: Per touched boundary, in instance order, its leaf hashes.
    """

    outgoing: Mapping[str, BoundaryValues]
    leaf_hashes: Mapping[str, Sequence[int]]

    def instances(self) -> list[int]:
        """The public instances that the chunk's proof must show."""
        return [h for hashes in self.leaf_hashes.values() for h in hashes]


def forward(
    chunk: ChunkPlan,
    boundaries: Mapping[str, BoundaryPlan],
    circuit: CachedCircuit,
    incoming: Mapping[str, BoundaryValues],
    outgoing_salts: Mapping[str, Sequence[int]],
    witness_path: Path,
) -> ChunkForward:
    """Run one chunk's circuit and check its outputs against native packing and hashing.

    Args:
        chunk: The chunk.
        boundaries: Every boundary of the plan, by name.
        circuit: Its compiled circuit.
        incoming: Values and salts of every boundary it reads.
        outgoing_salts: Salts of every boundary it produces.
        witness_path: Where ezkl's witness is written (secret).

    Raises:
        RangeExceededError: A value left the range of the decomposition or of a lookup table.
        StageError: The circuit's outputs are not what native code computes.
    """
    salts = {
        name: incoming[name].salts if name in incoming else outgoing_salts[name]
        for name in chunk.touched()
    }
    tensors = [list(incoming[name].values) for name in chunk.inputs]
    tensors += [list(salts[name]) for name in chunk.touched() if salts[name]]
    if chunk.arguments.kind == "hinted":
        read = {name: incoming[name].values for name in chunk.inputs}
        tensors = [_advice(chunk.id, circuit, read, tensors)]
    if chunk.weights_sha256 is not None:
        # What depends on challenges comes later (`circuits.challenge`).
        lengths = challenge.input_lengths(circuit.settings.read_bytes())
        tensors += [[0] * length for length in lengths[1:]]
    witness = backend.generate_witness(chunk.id, tensors, circuit.compiled, witness_path)
    _check_lookups(chunk, witness.lookup_inputs)
    outgoing: dict[str, BoundaryValues] = {}
    leaf_hashes: dict[str, Sequence[int]] = {}
    start = 0
    for name in chunk.touched():
        layout = boundaries[name].layout.layout()
        packed = witness.outputs[start : start + layout.leaf_count]
        shown = witness.hashes[start : start + layout.leaf_count]
        start += layout.leaf_count
        if name in incoming:
            values: Sequence[int] = incoming[name].values
        else:
            values = _unpacked(chunk, name, packed, layout, salts[name])
            outgoing[name] = BoundaryValues(values=values, salts=salts[name])
        native = pack_leaves(values, salts[name], layout)
        if [[canonical(v) for v in leaf] for leaf in native] != packed:
            raise _inconsistent(chunk, name, "packs")
        if hash_leaves(native) != shown:
            raise _inconsistent(chunk, name, "hashes")
        leaf_hashes[name] = shown
    if start + (chunk.weights_sha256 is not None) != len(witness.outputs):
        raise StageError(
            f"{chunk.id}: its circuit has {len(witness.outputs)} outputs, {start} were expected",
            stage="witness",
            chunk_id=chunk.id,
        )
    return ChunkForward(outgoing=outgoing, leaf_hashes=leaf_hashes)


def _advice(
    chunk_id: str,
    circuit: CachedCircuit,
    values: Mapping[str, Sequence[int]],
    tensors: Sequence[Sequence[int]],
) -> list[int]:
    """The one input of a hinted circuit: hints, values and salts, blinders."""
    model = onnx.load(circuit.onnx)
    given = [element for tensor in tensors for element in tensor]
    return filled(model, solve(model, values, chunk_id), given)


def _unpacked(
    chunk: ChunkPlan,
    name: str,
    packed: Sequence[Sequence[int]],
    layout: LeafLayout,
    salts: Sequence[int],
) -> list[int]:
    try:
        values, found_salts = unpack_leaves(packed, layout)
    except FieldRangeError as error:
        raise RangeExceededError(
            f"{chunk.id}: boundary {name} holds a value outside the packed range: {error}; use a "
            "smaller --scale",
            stage="witness",
            chunk_id=chunk.id,
        ) from None
    if list(found_salts) != list(salts):
        raise _inconsistent(chunk, name, "salts")
    return list(values)


def _check_lookups(chunk: ChunkPlan, found: tuple[int, int]) -> None:
    low, high = chunk.arguments.lookup_range
    if found[0] < low or found[1] > high:
        raise RangeExceededError(
            f"{chunk.id} ({', '.join(chunk.operators)}): a function's argument reached "
            f"{_furthest(found, low, high) / 2**chunk.arguments.input_scale:.4g}, beyond its "
            f"table, which ends at about +-8 at every --scale; normalise the model's input, or "
            "clip the argument in the model",
            stage="witness",
            chunk_id=chunk.id,
        )


def _furthest(found: tuple[int, int], low: int, high: int) -> int:
    return found[0] if low - found[0] > found[1] - high else found[1]


def _inconsistent(chunk: ChunkPlan, name: str, what: str) -> StageError:
    return StageError(
        f"{chunk.id}: the circuit {what} boundary {name} differently from native code; this is a "
        "defect of the plan or of ezkl, please report it with the model",
        stage="witness",
        chunk_id=chunk.id,
    )
