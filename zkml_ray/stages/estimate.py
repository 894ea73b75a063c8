"""What any segment of a model would cost as a chunk, from few probes.

A chunk's cells are those of its operators plus those of the boundaries it touches, and both add
up. So every unit is probed once, alone, with its boundaries; every boundary size once, in a chunk
without operators; and the cost of each of the n(n+1)/2 segments is a sum. Only differences between
one whole circuit and the sum of its parts are lost (some cells at the ends of columns).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper

from zkml_ray.chunking.bounds import value_bounds
from zkml_ray.chunking.cuts import (
    SegmentCost,
    branch_order,
    forbidden_positions,
    units_of,
)
from zkml_ray.chunking.extract import CommittedTensor, extract_chunk
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.native.functions import is_fused
from zkml_ray.chunking.passes.forms import is_lowered
from zkml_ray.chunking.passes.maxpool import MaxPoolPairwise
from zkml_ray.chunking.passes.relu import ReluAbs
from zkml_ray.circuits import backend
from zkml_ray.commitments.leaves import LeafLayout
from zkml_ray.commitments.packing import PackingSpec
from zkml_ray.cost.load import MAX_LOGROWS, Load
from zkml_ray.cost.model import CostModel
from zkml_ray.cost.sizing import best_size, better_size
from zkml_ray.errors import ChunkingError, UnsupportedOperatorError
from zkml_ray.events import Listener, ignore
from zkml_ray.schema.plan import CircuitArguments, CommitmentArguments
from zkml_ray.stages.pieces import likeness
from zkml_ray.stages.probe import each, lookup_range, probe, probed_or_reason

PROBE_COLUMNS: Final = 5
"""Inner columns of the estimates; a chunk's own are searched when it is chosen."""

ESTIMATED_COLUMNS: Final = (PROBE_COLUMNS, 3, 2)
"""Fewer columns hold as many cells or fewer, since less is padded: the probe's count is taken. They
pay where the hash region, which has no blocks, makes the circuit long."""

_PRICED_ELEMENTS: Final = 96


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Nodes that stay together.

    Attributes:
        nodes: Their names, in order.
        load: What they take in a circuit, boundaries not counted.
        lookups: The functions they look up.
        reads: Tensors they read that are made elsewhere.
        makes: Tensors they make that are read elsewhere, or leave the model.
        bounded: Those of them that need no guard.
    """

    nodes: tuple[str, ...]
    load: Load
    lookups: frozenset[str]
    reads: tuple[str, ...]
    makes: tuple[str, ...]
    bounded: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """A unit cut out of the model.

    Attributes:
        nodes: Their names, in the model's order.
        incoming: Tensors they read that are made elsewhere.
        outgoing: Tensors they make that are read elsewhere, or leave the model.
        kind: What pieces that are counted alike have in common.
    """

    nodes: tuple[str, ...]
    incoming: tuple[CommittedTensor, ...]
    outgoing: tuple[CommittedTensor, ...]
    kind: str = ""


class Estimator:
    """Costs of the segments of one model."""

    def __init__(
        self,
        graph: ModelGraph,
        *,
        input_scale: int,
        commitment: CommitmentArguments,
        whole_forms: bool = False,
        listener: Listener = ignore,
    ) -> None:
        """Probe a model.

        Args:
            graph: The normalised and rewritten model.
            input_scale: Scale of its inputs, its weights and every tensor that is cut at.
            commitment: How boundaries are committed to.
            whole_forms: Never cut between the operators of a rewritten ReLU or pooling. Such cuts
                are worth little time, and their boundaries are tensors that the user's model does
                not have; a tight memory budget may need them.
            listener: Told how far it is.

        Raises:
            UnsupportedOperatorError: ezkl cannot express a part of it.
        """
        self._graph = graph
        self._listener = listener
        self._scale = input_scale
        self._commitment = commitment
        self._packing = PackingSpec.for_decomposition(
            commitment.decomp_base, commitment.decomp_legs
        )
        self._readers = graph.readers
        forms = (f"/{ReluAbs.name}/", f"/{MaxPoolPairwise.name}/") if whole_forms else ()
        self._uncut = {
            v
            for v in graph.producer_of
            if any(form in v for form in forms) or is_lowered(graph, v) or is_fused(graph, v)
        }
        self._boundaries: dict[int, Load] = {}
        self._pieces: dict[tuple[str, ...], _Piece | str] = {}
        self._counted: dict[str, backend.Settings | str] = {}
        self._check_cells, self._guard_cells = self._element_cells()
        self.units = self._settled_units()

    def costs(
        self, model: CostModel, memory_bytes: int | None
    ) -> dict[tuple[int, int], SegmentCost]:
        """What every segment of units would cost as a chunk.

        Args:
            model: Prices.
            memory_bytes: Circuits are sized to keep within it where they can.
        """
        found = {}
        for start in range(len(self.units)):
            for end, load in self._loads_from(start):
                sizes = [
                    best_size(replace(load, inner_columns=columns), model, memory_bytes)
                    for columns in ESTIMATED_COLUMNS
                ]
                sized = better_size(sizes, memory_bytes)
                if sized is not None:
                    found[start, end] = SegmentCost(
                        seconds=sized.seconds, peak_bytes=sized.peak_bytes
                    )
        return found

    def nodes(self, start: int, end: int) -> tuple[str, ...]:
        """The nodes of a segment, in the model's own order."""
        chosen = {name for unit in self.units[start:end] for name in unit.nodes}
        return tuple(name for name in self._graph.nodes if name in chosen)

    def heaviest_first(self, start: int, end: int) -> tuple[str, ...]:
        """The nodes of a segment, unit by unit, the one with the most cells first."""
        units = sorted(self.units[start:end], key=lambda unit: -unit.load.cells)
        return tuple(name for unit in units for name in unit.nodes)

    def _loads_from(self, start: int) -> list[tuple[int, Load]]:
        """(end, load) of every segment that begins at a unit."""
        last_reader = {
            value: index for index, unit in enumerate(self.units) for value in unit.reads
        }
        total = replace(
            self.units[start].load,
            cells=0,
            einsum_cells=0,
            shuffle_cells=0,
            hash_rows=0,
            instances=0,
        )
        lookups: frozenset[str] = frozenset()
        made: set[str] = set()
        reads: set[str] = set()
        leaving: dict[str, Load] = {}
        result = []
        for index in range(start, len(self.units)):
            unit = self.units[index]
            total = _plus(total, unit.load)
            lookups |= unit.lookups
            for value in unit.reads:
                if value not in made and value not in reads:
                    reads.add(value)
                    total = _plus(total, self._incoming(value))
            for value in [v for v in leaving if last_reader.get(v) == index]:
                if value not in self._graph.outputs:
                    del leaving[value]
            for value in unit.makes:
                made.add(value)
                leaving[value] = self._outgoing(value, bounded=value in unit.bounded)
            load = total
            for boundary in leaving.values():
                load = _plus(load, boundary)
            result.append((index + 1, replace(load, tables=len(lookups))))
        return result

    def _settled_units(self) -> list[Unit]:
        """Units between which every tensor has the inputs' scale, so that any may be cut."""
        order = branch_order(self._graph)
        fixed = self._uncut
        joined: set[int] = set()
        while True:
            groups = units_of(order, forbidden_positions(self._graph, order, fixed) | joined)
            self._count(groups)
            probed = [self._probed(nodes) for nodes in groups]
            starts = [sum(map(len, groups[:index])) for index in range(len(groups) + 1)]
            found_fixed = {
                name
                for result in probed
                if not isinstance(result, str)
                for name, scale in result[1].items()
                if scale != self._scale and self._readers.get(name)
            } - fixed
            failed = [index for index, result in enumerate(probed) if isinstance(result, str)]
            if not found_fixed and not failed:
                return [result[0] for result in probed if not isinstance(result, str)]
            if failed and len(groups) == 1:
                raise UnsupportedOperatorError(f"the model cannot be made a circuit: {probed[0]}")
            for index in failed:
                joined.add(starts[index + 1] if index + 1 < len(groups) else starts[index])
            fixed = fixed | found_fixed

    def _count(self, groups: Sequence[tuple[str, ...]]) -> None:
        """Have ezkl count the groups, one of those that are alike."""
        waiting: dict[str, bytes] = {}
        for nodes in groups:
            if nodes in self._pieces:
                continue
            piece = self._cut_out(nodes)
            if isinstance(piece, str):
                self._pieces[nodes] = piece
                continue
            data = extract_chunk(
                self._graph, piece.nodes, piece.incoming, piece.outgoing, self._scale
            )
            kind = likeness(data)
            self._pieces[nodes] = replace(piece, kind=kind)
            if kind not in self._counted:
                waiting.setdefault(kind, data)
        found = each(
            lambda data: probed_or_reason(data, self._arguments()),
            list(waiting.values()),
            listener=self._listener,
            what=f"counting native circuits of {len(groups)} pieces, different ones",
        )
        self._counted.update(zip(waiting, found, strict=True))

    def _cut_out(self, nodes: tuple[str, ...]) -> _Piece | str:
        """A unit as a piece of the model, or why it is none."""
        graph = self._graph
        inside = set(nodes)
        made = {value for name in nodes for value in graph.nodes[name].output if value}
        reads = sorted(
            {value for name in nodes for value in graph.nodes[name].input}
            - made
            - graph.initializers.keys()
            - {""}
        )
        makes = sorted(
            value
            for value in made
            if value in graph.outputs
            or any(reader not in inside for reader in self._readers.get(value, ()))
        )
        if not reads:
            return "it reads no tensor: fold it away"
        try:
            return _Piece(
                nodes=tuple(name for name in graph.nodes if name in inside),
                incoming=tuple(self._tensor(value) for value in reads),
                outgoing=tuple(self._tensor(value) for value in makes),
            )
        except ChunkingError as error:
            return error.message

    def _probed(self, nodes: tuple[str, ...]) -> tuple[Unit, dict[str, int]] | str:
        """A unit and the scales of what it makes, or why it is no circuit alone."""
        piece = self._pieces[nodes]
        settings = piece if isinstance(piece, str) else self._counted[piece.kind]
        if isinstance(piece, str) or isinstance(settings, str):
            return str(settings)
        reads = [tensor.info.name for tensor in piece.incoming]
        makes = [tensor.info.name for tensor in piece.outgoing]
        load = Load.of(settings.data)
        bounded = self._bounded_tensors(piece.nodes, reads)
        for value in reads:
            load = _plus(load, self._incoming(value), sign=-1)
        for value in makes:
            load = _plus(load, self._outgoing(value, bounded=value in bounded), sign=-1)
        position = sum(tensor.layout.leaf_count for tensor in piece.incoming)
        scales = {}
        for tensor in piece.outgoing:
            scales[tensor.info.name] = settings.output_scales[position]
            position += tensor.layout.leaf_count
        raw = json.loads(settings.data)
        unit = Unit(
            nodes=nodes,
            load=load,
            lookups=frozenset(
                json.dumps(each_, sort_keys=True) for each_ in raw["required_lookups"]
            ),
            reads=tuple(reads),
            makes=tuple(makes),
            bounded=frozenset(bounded & set(makes)),
        )
        return unit, scales

    def _incoming(self, value: str) -> Load:
        size = int(np.prod(self._graph.tensor(value).shape))
        if size not in self._boundaries:
            self._boundaries[size] = self._packed(size)
        return self._boundaries[size]

    def _bounded_tensors(self, nodes: Iterable[str], reads: Iterable[str]) -> set[str]:
        """Tensors that need no guard in a chunk of these nodes."""
        found = value_bounds(
            [self._graph.nodes[name] for name in nodes],
            self._graph.initializers,
            dict.fromkeys(reads, 0),
            self._packing.element_bound,
        )
        return {name for name, bound in found.items() if bound <= self._packing.injective_bound}

    def _outgoing(self, value: str, *, bounded: bool) -> Load:
        incoming = self._incoming(value)
        size = int(np.prod(self._graph.tensor(value).shape))
        per_element = -self._check_cells
        if not bounded:
            per_element += self._guard_cells
        return replace(incoming, cells=incoming.cells + round(per_element * size))

    def _packed(self, size: int) -> Load:
        """What a chunk takes that only reads a tensor and commits to it."""
        graph = _vector(size, [])
        return Load.of(self._probe_vector(graph, outgoing=False).data)

    def _element_cells(self) -> tuple[float, float]:
        """Cells an element of an input's range check, and of the guard of an unchecked tensor."""
        bare, relu, relus, neg, negs = each(
            lambda operators: self._vector_cells(operators),
            [(), ("Relu",), ("Relu", "Relu"), ("Neg",), ("Neg", "Neg")],
        )
        packing = relu - bare - (relus - relu)
        guard = neg - bare - (negs - neg) - packing
        return (bare - packing) / _PRICED_ELEMENTS, guard / _PRICED_ELEMENTS

    def _vector_cells(self, operators: Sequence[str]) -> int:
        graph = _vector(_PRICED_ELEMENTS, operators)
        return Load.of(self._probe_vector(graph, outgoing=bool(operators)).data).cells

    def _probe_vector(self, graph: ModelGraph, *, outgoing: bool) -> backend.Settings:
        source = [self._tensor("x", graph)]
        target = [self._tensor("y", graph)] if outgoing else []
        return probe(
            extract_chunk(
                graph, list(graph.nodes) if outgoing else [], source, target, self._scale
            ),
            self._arguments(),
        )

    def _tensor(self, value: str, graph: ModelGraph | None = None) -> CommittedTensor:
        info = (graph or self._graph).tensor(value)
        return CommittedTensor(
            info=info,
            layout=LeafLayout.plan(
                int(np.prod(info.shape)),
                self._packing,
                max_slots=self._commitment.max_slots,
                salts_per_leaf=None if self._commitment.salted else 0,
            ),
        )

    def _arguments(self) -> CircuitArguments:
        return probe_arguments(self._scale, self._scale, self._commitment, PROBE_COLUMNS)


def probe_arguments(
    input_scale: int, param_scale: int, commitment: CommitmentArguments, columns: int
) -> CircuitArguments:
    """Arguments of a probe: rows enough for anything."""
    return CircuitArguments(
        input_scale=input_scale,
        param_scale=param_scale,
        decomp_base=commitment.decomp_base,
        decomp_legs=commitment.decomp_legs,
        num_inner_cols=columns,
        logrows=MAX_LOGROWS,
        lookup_range=lookup_range(input_scale),
    )


def _plus(load: Load, other: Load, sign: int = 1) -> Load:
    return replace(
        load,
        cells=max(0, load.cells + sign * other.cells),
        einsum_cells=max(0, load.einsum_cells + sign * other.einsum_cells),
        shuffle_cells=max(0, load.shuffle_cells + sign * other.shuffle_cells),
        hash_rows=max(0, load.hash_rows + sign * other.hash_rows),
        instances=max(0, load.instances + sign * other.instances),
        table_rows=max(load.table_rows, other.table_rows),
        range_checks=max(load.range_checks, other.range_checks),
        freivalds=load.freivalds or other.freivalds,
    )


def _vector(size: int, operators: Sequence[str]) -> ModelGraph:
    """A vector of some size, passed through operators one after the other."""
    names = ["x", *(f"a{index}" for index in range(1, len(operators))), "y"]
    nodes = [
        helper.make_node(operator, [names[index]], [names[index + 1]], f"n{index}")
        for index, operator in enumerate(operators)
    ] or [helper.make_node("Identity", ["x"], ["y"], "n")]
    made = helper.make_graph(
        nodes,
        "vector",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, size])],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return ModelGraph(onnx.shape_inference.infer_shapes(model))
