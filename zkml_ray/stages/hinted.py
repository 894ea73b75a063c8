"""Planning with hinted circuits: their sizes are counted, not probed.

A hinted circuit's numbers depend on its rows (the table's length is the weights' scale), so every
number of rows is lowered anew; that takes milliseconds, and no call of ezkl. Layers are the units
that are cut between: a hinted layer ends with the one rounding that its boundary needs anyway.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from zkml_ray import limits
from zkml_ray.chunking.cuts import SegmentCost, best_cuts, blocking_segment
from zkml_ray.chunking.extract import CommittedTensor
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.hinted.circuit import Circuit
from zkml_ray.chunking.hinted.functions import TABLE_OF
from zkml_ray.chunking.hinted.numbers import MAX_OVERLAP_BITS, PRECISION_BITS, Arithmetic
from zkml_ray.chunking.hinted.refusal import NotHintedError
from zkml_ray.chunking.hinted.sizes import End, sized_circuits
from zkml_ray.chunking.load import LoadedModel
from zkml_ray.chunking.partition import layer_partition, split_by_kind
from zkml_ray.chunking.passes.split_output import SplitOutput
from zkml_ray.chunking.rewrite import Rewrite
from zkml_ray.circuits.backend import BLINDING_ROWS
from zkml_ray.circuits.derive import (
    DerivedCircuits,
    committed_tensors,
    derive_circuits,
    normalised_graph,
)
from zkml_ray.circuits.hinted_settings import HASH_ROWS, with_spare_rows
from zkml_ray.commitments.packing import PackingSpec
from zkml_ray.cost.load import MAX_COLUMN_BLOCKS, Load
from zkml_ray.cost.model import CostModel
from zkml_ray.cost.sizing import Sized, better_size
from zkml_ray.errors import ChunkingError
from zkml_ray.events import Listener, Working, ignore
from zkml_ray.schema.plan import CircuitArguments, CommitmentArguments, Products
from zkml_ray.stages.search import Budget, TooLarge, split_more

MIN_LOGROWS: Final = 8
"""Fewer rows have no room for values among blinders."""

MORE_ROWS: Final = 5
"""So many doublings of the least number of rows are tried."""

COLUMNS: Final = (6, 5, 7, 4, 3, 2, 1)
MAX_UNITS: Final = 32
"""Of more units small ones are joined before cuts are searched: what is less than this part of the
model is not worth a proof of its own."""

SMALL_CELLS: Final = 1 << 16
"""Joined units hold no more where memory is limited."""

MAX_WORK: Final = 1500
"""How much is lowered for the search; longer segments are left out of large models. A unit of work
takes some milliseconds."""

WORK_ELEMENTS: Final = 50_000
"""Elements of weights and tensors that are lowered as fast as the least node."""


class HintedPlanner:
    """Chooses the circuits of one model."""

    def __init__(
        self,
        graph: ModelGraph,
        *,
        scale: int,
        range_bits: int,
        commitment: CommitmentArguments,
        prices: CostModel,
        memory_bytes: int | None,
        products: Products = "packed",
        listener: Listener = ignore,
    ) -> None:
        """Plan for a model.

        Args:
            graph: The normalised model, not rewritten.
            scale: log2 of the fixed-point denominator of rounded values.
            range_bits: Rounded values may reach 2^range_bits.
            commitment: How boundaries are committed to, salts apart.
            prices: Predicts seconds and memory.
            memory_bytes: Most memory of one worker by prediction; None: any.
            products: How products are checked.
            listener: Told what is being done.
        """
        self._graph = graph
        self._products: Products = products
        self._listener = listener
        self._scale = scale
        self._range_bits = range_bits
        self._commitment = commitment
        self._packing = PackingSpec.for_decomposition(
            commitment.decomp_base, commitment.decomp_legs
        )
        self._prices = prices
        self._memory_bytes = memory_bytes
        self._refusals: dict[tuple[str, ...], ChunkingError] = {}
        self._found: dict[tuple[str, ...], tuple[Arithmetic, Sized] | None] = {}

    def circuits(
        self,
        model: LoadedModel,
        *,
        dimensions: Mapping[str, int],
        workers: int,
        layers_per_chunk: int | None,
    ) -> DerivedCircuits:
        """Cut the model and derive its circuits.

        Args:
            model: The user's model.
            dimensions: Values of symbolic dimensions.
            workers: Workers that prove.
            layers_per_chunk: Weighted operators per chunk; None: searched.

        Raises:
            NotHintedError: An operator has no hinted form.
            ChunkingError: No cuts keep within the memory.
        """
        parts_of: dict[str, int] = {}
        while True:
            splits = [
                Rewrite(name=SplitOutput.name, node=node, parameter=count)
                for node, count in parts_of.items()
            ]
            if splits:
                self._graph = normalised_graph(model, dimensions, splits)
                self._found.clear()
            if layers_per_chunk is None:
                parts = self._searched(workers)
            else:
                parts = self._units(layers_per_chunk)
            if not isinstance(parts, TooLarge):
                break
            budget = Budget(workers=workers, memory_bytes=self._memory_bytes)
            split_more(self._graph, parts, parts_of, budget)
        return derive_circuits(
            model,
            self._graph,
            dimensions=dimensions,
            rewrites=splits,
            parts=parts,
            input_scale=self._scale,
            commitment=self._commitment,
            arguments=_never,
            hinted=self._arguments,
            listener=self._listener,
        )

    def _units(self, layers: int) -> tuple[tuple[str, ...], ...]:
        """Nodes of so many layers each, or fewer where they need two tables."""
        parts = layer_partition(self._graph, layers_per_chunk=layers)
        return split_by_kind(self._graph, parts, TABLE_OF)

    def _searched(self, workers: int) -> Sequence[Sequence[str]] | TooLarge:
        """Node names per chunk; or what needs more memory than there is."""
        units = self._joined(self._units(1))
        count = len(units)
        work = [self._work(unit) for unit in units]

        def nodes(start: int, end: int) -> list[str]:
            return [name for unit in units[start:end] for name in unit]

        def lowered(longest: int) -> int:
            return sum(sum(work[start : start + longest]) for start in range(count))

        longest = next(n for n in range(count, 0, -1) if n == 1 or lowered(n) <= MAX_WORK)
        costs = {}
        for start in range(count):
            self._listener(
                Working(what="sizing pieces as hinted circuits", done=start, total=count)
            )
            found = self._sized(self._ends(units, start, min(count, start + longest)))
            for end, size in enumerate(found, start=start + 1):
                if size is not None:
                    costs[start, end] = SegmentCost(
                        seconds=size[1].seconds, peak_bytes=size[1].peak_bytes
                    )
        if self._memory_bytes is not None:
            blocking = blocking_segment(count, costs, self._memory_bytes)
            if blocking in costs:
                return TooLarge(
                    nodes=tuple(sorted(nodes(*blocking), key=self._weights, reverse=True)),
                    peak_bytes=costs[blocking].peak_bytes,
                )
        for start in range(count):
            if not any(first <= start < last for first, last in costs):
                # Nothing that this unit is part of has a circuit: its own refusal says why.
                alone = tuple(nodes(start, start + 1))
                raise self._refusals.get(alone) or self._too_small(f"{alone[0]} and what follows")
        try:
            segments = best_cuts(
                count,
                costs,
                workers=workers,
                memory_bytes=self._memory_bytes,
                chunk_s=self._prices.profile.chunk_s,
            )
        except ChunkingError as error:
            if self._memory_bytes is not None:
                raise
            raise next(iter(self._refusals.values()), error) from None
        return [nodes(start, end) for start, end in segments]

    def _ends(self, units: Sequence[Sequence[str]], start: int, last: int) -> list[End]:
        """The chunks that begin at a unit and end behind it or a later one, before `last`."""

        def nodes(first: int, end: int) -> list[str]:
            return [name for unit in units[first:end] for name in unit]

        ends = []
        for end in range(start + 1, last + 1):
            before, after = nodes(0, start), nodes(end, len(units))
            parts = [part for part in (before, nodes(start, end), after) if part]
            into, out = self._boundaries(parts, 1 if before else 0)
            ends.append(End(nodes=units[end - 1], incoming=into, outgoing=out))
        return ends

    def _joined(self, units: Sequence[Sequence[str]]) -> Sequence[Sequence[str]]:
        """Units of the search: those of many that are small, joined."""
        count = len(units)
        if count <= MAX_UNITS:
            return units
        cells: list[float] = []
        for start in range(count):
            self._listener(Working(what="sizing layers one by one", done=start, total=count))
            (alone,) = self._sized(self._ends(units, start, start + 1))
            cells.append(math.inf if alone is None else alone[1].geometry.cells)
        most = sum(filter(math.isfinite, cells)) / MAX_UNITS
        if self._memory_bytes is not None:
            most = min(most, SMALL_CELLS)
        result, start = [], 0
        while start < count:
            last = start + 1
            while last < count and sum(cells[start : last + 1]) <= most:
                last += 1
            if last > start + 1:
                # Two functions, say, may have no circuit together.
                found = self._sized(self._ends(units, start, last))
                last = max(end for end, size in enumerate(found, start=start + 1) if size)
            result.append([name for unit in units[start:last] for name in unit])
            start = last
        return result

    def _work(self, nodes: Sequence[str]) -> int:
        """How long nodes take to lower, roughly; the same on every machine."""
        graph = self._graph
        elements = 0
        for name in nodes:
            node = graph.nodes[name]
            elements += self._weights(name)
            elements += sum(math.prod(graph.tensor(v).shape) for v in node.output if v)
        return 1 + elements // WORK_ELEMENTS

    def _weights(self, name: str) -> int:
        """Weights of a node, which its cells go by."""
        known = self._graph.initializers
        return sum(
            math.prod(known[value].dims)
            for value in self._graph.nodes[name].input
            if value in known
        )

    def _boundaries(
        self, parts: Sequence[Sequence[str]], index: int
    ) -> tuple[list[CommittedTensor], list[CommittedTensor]]:
        crossings = self._graph.crossings(parts)
        committed = committed_tensors(crossings, self._packing, self._commitment)
        into = [committed[c.tensor.name] for c in crossings if index in c.consumers]
        out = [committed[c.tensor.name] for c in crossings if c.producer == index]
        return into, out

    def _arguments(
        self,
        chunk_id: str,
        nodes: Sequence[str],
        into: Sequence[CommittedTensor],
        out: Sequence[CommittedTensor],
    ) -> CircuitArguments:
        key = tuple(nodes)
        if key not in self._found:
            self._sized([End(nodes=nodes, incoming=into, outgoing=out)])
        found = self._found[key]
        if found is None:
            raise self._refusals.get(key) or self._too_small(chunk_id)
        numbers, sized = found
        if self._memory_bytes is not None and sized.peak_bytes > self._memory_bytes:
            raise ChunkingError(
                f"{chunk_id} needs about {sized.peak_bytes >> 20:,} MiB, more than the "
                f"{self._memory_bytes >> 20:,} MiB that --memory leaves"
            )
        return CircuitArguments(
            input_scale=self._scale,
            param_scale=self._scale,
            decomp_base=self._commitment.decomp_base,
            decomp_legs=self._commitment.decomp_legs,
            num_inner_cols=sized.geometry.inner_columns,
            logrows=numbers.logrows,
            lookup_range=(0, numbers.divisor - 1),
            kind="hinted",
            range_bits=self._range_bits,
            products=self._products,
        )

    def _too_small(self, what: str) -> ChunkingError:
        return ChunkingError(
            f"{what} does not fit 2^{self._scale + PRECISION_BITS + MORE_ROWS - 1} rows, "
            f"the most for scale {self._scale}: cut it smaller (--layers-per-chunk), or use a "
            "larger --scale or a smaller --range-bits"
        )

    def _sized(self, ends: Sequence[End]) -> list[tuple[Arithmetic, Sized] | None]:
        """Of the chunks from one beginning to every end, the rows and columns proved soonest.

        Within the memory, if that is possible; None where a chunk has no size at all.
        """
        options: list[dict[Arithmetic, Sized]] = [{} for _ in ends]
        refusals: list[ChunkingError | None] = [None] * len(ends)
        settled = [False] * len(ends)
        bits = (PRECISION_BITS, limits.MIN_TABLE_BITS)
        for logrows in range(self._scale + min(bits), self._scale + max(bits) + MORE_ROWS):
            wanted = [
                not done and self._may_have(logrows, ends[: index + 1])
                for index, done in enumerate(settled)
            ]
            # ezkl's forward pass decomposes every input, digits of the whole table among them.
            if not any(wanted) or (1 << logrows) - 1 > self._packing.element_bound:
                continue
            numbers = Arithmetic(scale=self._scale, logrows=logrows, range_bits=self._range_bits)
            last = max(index for index, want in enumerate(wanted) if want)
            challenge = self._products == "challenge"
            circuits = sized_circuits(self._graph, ends[: last + 1], numbers, challenge=challenge)
            for index, circuit in enumerate(circuits):
                if not wanted[index]:
                    continue
                if isinstance(circuit, ChunkingError):
                    mended = isinstance(circuit, NotHintedError) and circuit.by_rows
                    if refusals[index] is None or not mended:
                        refusals[index] = circuit  # what other rows do not mend is why
                    continue
                best = self._best(circuit, ends[index], numbers)
                if best is not None:
                    options[index][numbers] = best
                    settled[index] = best.geometry.blocks == 1
        nodes: tuple[str, ...] = ()
        result = []
        for end, sizes, refusal in zip(ends, options, refusals, strict=True):
            nodes += tuple(end.nodes)
            chosen = better_size(sizes.values(), self._memory_bytes)
            self._found[nodes] = next(((n, s) for n, s in sizes.items() if s is chosen), None)
            if refusal is not None:
                self._refusals[nodes] = refusal
            result.append(self._found[nodes])
        return result

    def _may_have(self, logrows: int, ends: Sequence[End]) -> bool:
        """Whether the chunk to the last of some ends may have a circuit of so many rows."""
        functions = any(
            self._graph.nodes[name].op_type in limits.FUNCTIONS
            for end in ends
            for name in end.nodes
        )
        least = self._scale + (limits.MIN_TABLE_BITS if functions else PRECISION_BITS)
        overlap_bits = self._scale + self._range_bits + 1 - logrows
        return (
            least <= logrows < least + MORE_ROWS
            and logrows >= MIN_LOGROWS
            and _hash_rows(ends[-1]) + BLINDING_ROWS <= 1 << logrows
            # Two digits do not reach further.
            and overlap_bits <= min(MAX_OVERLAP_BITS, logrows - 1)
        )

    def _best(self, circuit: Circuit, end: End, numbers: Arithmetic) -> Sized | None:
        """The columns with which a circuit is proved soonest."""
        options = []
        for columns in COLUMNS:
            load = Load(
                inner_columns=columns,
                cells=with_spare_rows(circuit.cells_at(columns), columns),
                einsum_cells=0,
                freivalds=False,
                shuffle_cells=0,
                tables=1,
                range_checks=0,
                hash_rows=_hash_rows(end),
                table_rows=numbers.divisor,
                instances=sum(t.layout.leaf_count for t in (*end.incoming, *end.outgoing)),
            )
            geometry = load.geometry(numbers.logrows)
            if geometry.blocks <= MAX_COLUMN_BLOCKS:
                options.append(
                    Sized(
                        geometry=geometry,
                        seconds=self._prices.prove_s(geometry),
                        peak_bytes=self._prices.peak_bytes(geometry),
                    )
                )
        return better_size(options, self._memory_bytes)


def _hash_rows(end: End) -> int:
    touched = [*end.incoming, *end.outgoing]
    return HASH_ROWS * sum(t.layout.leaf_count * t.layout.packed_per_leaf for t in touched)


def _never(chunk_id: str, *_: object) -> CircuitArguments:
    raise ChunkingError(f"{chunk_id}: every chunk of this plan has a hinted circuit")
