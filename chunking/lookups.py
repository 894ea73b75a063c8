"""Look-ups that are left out of circuits: rows of a constant table, at places that are an input.

An embedding of 50,000 words is a product of 50,000 rows in a circuit. Where the places are
revealed, anybody can look the rows up: circuits begin with the rows, and whoever has the table
holds the revealed rows against those of the revealed places (docs/adr/0031).

A normalised model keeps the table as an initializer that no node reads, and says in its metadata
what is looked up where.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx

from zkml_ray.errors import ChunkingError

_KEY: Final = "lookups"

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """One look-up.

    Attributes:
        input: The input of the user's file that holds the places, whole numbers.
        tensor: The tensor of rows, an input of the normalised model: the places' shape, or one of
            as many elements in the same order, and a row's.
        table: Name of the constant: one row for every place from 0 on.
        shape: The input's.
    """

    input: str
    tensor: str
    table: str
    shape: tuple[int, ...]


def record_lookups(
    proto: onnx.ModelProto, lookups: Sequence[Lookup], tables: Sequence[onnx.TensorProto]
) -> None:
    """Note look-ups in a normalised model, and add their tables.

    Args:
        proto: The model (changed).
        lookups: What is looked up.
        tables: The constants that they name.
    """
    if not lookups:
        return
    entry = proto.metadata_props.add()
    entry.key, entry.value = _KEY, json.dumps([asdict(each) for each in lookups])
    proto.graph.initializer.extend(tables)


def recorded_lookups(proto: onnx.ModelProto) -> tuple[Lookup, ...]:
    """The look-ups that a normalised model leaves out."""
    for entry in proto.metadata_props:
        if entry.key == _KEY:
            return tuple(
                Lookup(**{**each, "shape": tuple(each["shape"])})
                for each in json.loads(entry.value)
            )
    return ()


def with_tables(proto: onnx.ModelProto, before: onnx.ModelProto) -> onnx.ModelProto:
    """A model with the tables of its look-ups, which passes take for unused.

    Args:
        proto: The model (changed).
        before: The model that it was made of, with them.
    """
    held = {tensor.name for tensor in proto.graph.initializer}
    wanted = {each.table for each in recorded_lookups(before)} - held
    proto.graph.initializer.extend(
        tensor for tensor in before.graph.initializer if tensor.name in wanted
    )
    return proto


def quantised_table(table: npt.NDArray[Any], scale: int) -> bytes:
    """A table's rows as circuits begin with them: 32-bit whole numbers, little-endian, row-major.

    Args:
        table: Real numbers, a row for every place.
        scale: log2 of the fixed-point denominator; rounded as inputs are, halves away from zero.

    Raises:
        ChunkingError: A number needs more than 32 bits.
    """
    scaled = table.astype(np.float64) * float(1 << scale)
    rounded = np.copysign(np.floor(np.abs(scaled) + 0.5), scaled)
    if rounded.size and np.abs(rounded).max() >= 1 << 31:
        raise ChunkingError(f"a table of rows has numbers beyond 31 bits at scale {scale}")
    return rounded.astype("<i4").tobytes()
