"""How large hinted circuits would be: what a search for cuts asks, many times over.

A chunk that ends one unit later is the same chunk and a unit more. So all chunks that begin at one
unit are sized by lowering each unit once: after every unit the chunk is ended, its cells are read,
and what ending it emitted is taken back. Circuits are emitted as they would be (the counts are the
same ones), but for their constants, which a size does not need.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass

from zkml_ray.chunking.extract import CommittedTensor
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.hinted.circuit import Circuit
from zkml_ray.chunking.hinted.extract import ended, shapes_of
from zkml_ray.chunking.hinted.lower import Lowering
from zkml_ray.chunking.hinted.numbers import Arithmetic
from zkml_ray.chunking.hinted.operators import OPERATORS
from zkml_ray.chunking.hinted.refusal import refusing
from zkml_ray.errors import ChunkingError


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Where a chunk may end.

    Attributes:
        nodes: The nodes since the end before.
        incoming: All boundaries that the chunk reads if it ends here.
        outgoing: All that it then produces.
    """

    nodes: Sequence[str]
    incoming: Sequence[CommittedTensor]
    outgoing: Sequence[CommittedTensor]


def sized_circuits(
    graph: ModelGraph, ends: Sequence[End], numbers: Arithmetic, *, challenge: bool = False
) -> Iterator[Circuit | ChunkingError]:
    """The chunks from one beginning to every end, one after the other.

    Args:
        graph: The normalised model.
        ends: The ends, the nearest first.
        numbers: Digits and ranges of the circuits.
        challenge: Whether products may be checked by a challenge.

    Yields:
        Of every end, its chunk's circuit, for its size (`Circuit.cells_at`); or why it has none.
    """
    every = [name for end in ends for name in end.nodes]
    shapes = shapes_of(graph, every)
    lowering = Lowering(numbers, graph.initializers, shapes, 1, challenge=challenge, counted=True)
    received: set[str] = set()
    refusal: ChunkingError | None = None
    for end in ends:
        if refusal is None:
            try:
                with refusing():
                    for tensor in end.incoming:
                        if tensor.info.name not in received:
                            name = f"zkml_ray/incoming_{len(received)}"
                            received.add(tensor.info.name)
                            lowering.receive(tensor.info.name, name)
                    lowering.run([graph.nodes[name] for name in end.nodes], OPERATORS)
            except ChunkingError as error:
                refusal = error
        yield refusal or _ended(lowering, end)


def _ended(lowering: Lowering, end: End) -> Circuit | ChunkingError:
    mark = lowering.mark()
    try:
        with refusing():
            for _ in ended(lowering, end.incoming, end.outgoing):
                pass
        return copy(lowering.circuit)
    except ChunkingError as error:
        return error
    finally:
        lowering.rewind(mark)
