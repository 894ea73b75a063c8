"""Deriving a plan's circuits from a model.

One derivation, two callers. The plan stage derives with a rule that *chooses* each circuit's
arguments; the verifier derives again from the model with the arguments that the plan *records*.
Equal digests then mean that the plan is the model's, without trusting the plan's author. So
nothing here may depend on anything but the model's bytes and the arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onnx import numpy_helper

from zkml_ray.canonical import sha256_hex
from zkml_ray.chunking.extract import CommittedTensor, extract_chunk
from zkml_ray.chunking.graph import Crossing, ModelGraph
from zkml_ray.chunking.hinted.extract import extract_hinted_chunk
from zkml_ray.chunking.hinted.numbers import Arithmetic
from zkml_ray.chunking.hinted.recipe import products_of
from zkml_ray.chunking.load import LoadedModel
from zkml_ray.chunking.lookups import quantised_table
from zkml_ray.chunking.normalize import normalise
from zkml_ray.chunking.passes.forms import is_lowered
from zkml_ray.chunking.rewrite import Rewrite, apply_rewrites
from zkml_ray.circuits import backend
from zkml_ray.commitments.challenge import write_weights
from zkml_ray.commitments.packing import PackingSpec
from zkml_ray.errors import ChunkingError, StageError, UnsupportedOperatorError
from zkml_ray.events import Listener, Working, ignore
from zkml_ray.limits import MAX_BOUNDARY_SCALE
from zkml_ray.schema.plan import (
    BoundaryPlan,
    ChunkPlan,
    CircuitArguments,
    CommitmentArguments,
    LayoutSpec,
    LookupPlan,
    Plan,
    RewriteStep,
)
from zkml_ray.scratch import scratch_folder

ArgumentRule = Callable[[str, Path, int], CircuitArguments]
"""(chunk id, chunk model file, input scale) -> arguments of its circuit."""

HintedRule = Callable[
    [str, Sequence[str], Sequence[CommittedTensor], Sequence[CommittedTensor]],
    CircuitArguments | None,
]
"""(chunk id, nodes, incoming, outgoing) -> arguments of its hinted circuit; None: a native one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitFiles:
    """The files that define a chunk's circuit.

    Attributes:
        onnx: The chunk model.
        settings: Its canonical settings.
        weights: The weights of products that it does not hold; None: it holds all.
    """

    onnx: bytes
    settings: bytes
    weights: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivedCircuits:
    """A plan and the files whose digests it records.

    Attributes:
        plan: The plan.
        files: Per chunk id, its circuit's files.
        normalised: The normalised model's bytes.
        tables: Per look-up of the plan, its quantised table (`chunking.lookups`).
        notices: What whoever planned should know about the choice, a sentence each.
    """

    plan: Plan
    files: Mapping[str, CircuitFiles]
    normalised: bytes
    tables: tuple[bytes, ...] = ()
    notices: tuple[str, ...] = ()


def normalised_graph(
    model: LoadedModel, dimensions: Mapping[str, int], rewrites: Sequence[Rewrite] = ()
) -> ModelGraph:
    """The normalised and rewritten model of a user's file, indexed."""
    normalised = normalise(model.proto, dimensions, tokens_outside=model.tokens_outside)
    return ModelGraph(apply_rewrites(normalised, rewrites))


def derive_circuits(
    model: LoadedModel,
    graph: ModelGraph,
    *,
    dimensions: Mapping[str, int],
    rewrites: Sequence[Rewrite] = (),
    parts: Sequence[Sequence[str]],
    input_scale: int,
    commitment: CommitmentArguments,
    arguments: ArgumentRule,
    hinted: HintedRule | None = None,
    made_chunk: Callable[[ChunkPlan], None] | None = None,
    listener: Listener = ignore,
) -> DerivedCircuits:
    """Derive every chunk's circuit.

    Args:
        model: The user's model.
        graph: Its normalised form (`normalised_graph` with the same dimensions and rewrites).
        dimensions: Values of symbolic dimensions.
        rewrites: Changes made to the normalised model.
        parts: Node names per chunk.
        input_scale: log2 of the fixed-point denominator of the model's inputs.
        commitment: How boundaries are cut into leaves.
        arguments: Gives each native circuit's arguments.
        hinted: Says which circuits are hinted, and gives their arguments; None: none is.
        made_chunk: Told of each chunk as soon as it is made; may refuse to go on.
        listener: Told how far it is.

    Raises:
        ChunkingError: The partition is not one, or scales do not fit.
        UnsupportedOperatorError: ezkl cannot express a chunk.
    """
    crossings = graph.crossings(parts)
    packing = PackingSpec.for_decomposition(commitment.decomp_base, commitment.decomp_legs)
    committed = committed_tensors(crossings, packing, commitment)
    chunks: list[ChunkPlan] = []
    files: dict[str, CircuitFiles] = {}
    for index, nodes in enumerate(parts):
        listener(Working(what="making the chunks' circuits", done=index, total=len(parts)))
        incoming = [c.tensor.name for c in crossings if index in c.consumers]
        outgoing = [c.tensor.name for c in crossings if c.producer == index]
        chunk_id = f"chunk-{index:03d}"
        operators = tuple(graph.nodes[name].op_type for name in nodes)
        if not incoming:
            raise ChunkingError(
                f"{chunk_id} ({', '.join(operators)}) reads no tensor: fold it away"
            )
        into = [committed[name] for name in incoming]
        out = [committed[name] for name in outgoing]
        chosen = None if hinted is None else hinted(chunk_id, nodes, into, out)
        if chosen is not None:
            made = _hinted_circuit(graph, nodes, chunk_id, operators, into, out, chosen)
        else:
            _check_cuts(chunk_id, graph, outgoing)
            made = _circuit(
                graph,
                nodes,
                chunk_id,
                operators,
                incoming,
                outgoing,
                committed,
                input_scale,
                arguments,
            )
        _check_range(chunk_id, made.chosen, packing)
        for name, shift in made.shifts.items():
            committed[name] = replace(committed[name], scale_shift=shift)
        files[chunk_id] = CircuitFiles(
            onnx=made.onnx, settings=made.settings.data, weights=made.weights
        )
        chunks.append(
            ChunkPlan(
                id=chunk_id,
                nodes=tuple(nodes),
                operators=operators,
                inputs=tuple(incoming),
                outputs=tuple(outgoing),
                arguments=made.chosen,
                onnx_sha256=sha256_hex(made.onnx),
                settings_sha256=sha256_hex(made.settings.data),
                weights_sha256=None if made.weights is None else sha256_hex(made.weights),
                num_rows=made.settings.num_rows,
                poseidon_rows=made.settings.poseidon_rows,
            )
        )
        if made_chunk is not None:
            made_chunk(chunks[-1])
    normalised = graph.proto.SerializeToString(deterministic=True)
    tables = {
        each.table: numpy_helper.to_array(graph.initializers[each.table]) for each in graph.lookups
    }
    quantised = {name: quantised_table(table, input_scale) for name, table in tables.items()}
    lookups = tuple(
        LookupPlan(
            input=each.input,
            boundary=each.tensor,
            rows=len(tables[each.table]),
            table_sha256=sha256_hex(quantised[each.table]),
        )
        for each in graph.lookups
    )
    looked_up: dict[str, Any] = {"lookups": lookups} if lookups else {}
    plan = Plan(
        ezkl_version=backend.EZKL_VERSION,
        model_sha256=sha256_hex(model.data),
        normalised_sha256=sha256_hex(normalised),
        dimensions=tuple(sorted(dimensions.items())),
        rewrites=tuple(
            RewriteStep(name=r.name, node=r.node, parameter=r.parameter) for r in rewrites
        ),
        input_scale=input_scale,
        commitment=commitment,
        chunks=tuple(chunks),
        boundaries=tuple(
            BoundaryPlan(
                name=c.tensor.name,
                shape=c.tensor.shape,
                scale=input_scale + committed[c.tensor.name].scale_shift,
                producer=None if c.producer is None else chunks[c.producer].id,
                consumers=tuple(chunks[i].id for i in c.consumers),
                layout=LayoutSpec.of(committed[c.tensor.name].layout),
            )
            for c in crossings
        ),
        model_inputs=graph.inputs,
        model_outputs=graph.outputs,
        **looked_up,
    )
    return DerivedCircuits(
        plan=plan,
        files=files,
        normalised=normalised,
        tables=tuple(quantised[each.table] for each in graph.lookups),
    )


def _check_cuts(chunk_id: str, graph: ModelGraph, outgoing: Sequence[str]) -> None:
    """No rewrite made a tensor small that a chunk then gives, rounded to the inputs' scale."""
    for name in outgoing:
        if is_lowered(graph, name):
            raise ChunkingError(
                f"{chunk_id} would end at {name}, which a rewrite made small for the operator "
                "after it: cut elsewhere, or leave the rewrite out (--no-pass)"
            )


def rederived_graph(model: LoadedModel, plan: Plan) -> ModelGraph:
    """The graph that a plan's chunks are cut from, made again from the model.

    Raises:
        ZkmlRayError: The plan's dimensions or rewrites do not fit the model.
    """
    return normalised_graph(model, dict(plan.dimensions), _rewrites(plan))


def rewritten_graph(normalised: ModelGraph, plan: Plan) -> ModelGraph:
    """The same from the normalised model.

    Raises:
        ZkmlRayError: The plan's rewrites do not fit the model.
    """
    return ModelGraph(apply_rewrites(normalised.proto, _rewrites(plan)))


def _rewrites(plan: Plan) -> list[Rewrite]:
    return [
        Rewrite(name=step.name, node=step.node, parameter=step.parameter) for step in plan.rewrites
    ]


def rederive_circuits(
    model: LoadedModel,
    plan: Plan,
    graph: ModelGraph | None = None,
    made_chunk: Callable[[ChunkPlan], None] | None = None,
) -> DerivedCircuits:
    """Derive a plan's circuits again from the model, with the arguments that the plan records.

    Args:
        model: The verifier's own copy of the model.
        plan: The plan to check; only its arguments are used.
        graph: `rederived_graph` of the two, if it is made already.
        made_chunk: Told of each chunk as soon as it is made; may refuse to go on.

    Raises:
        ZkmlRayError: The arguments do not fit the model.
    """
    recorded = {chunk.id: chunk.arguments for chunk in plan.chunks}
    return derive_circuits(
        model,
        graph or rederived_graph(model, plan),
        dimensions=dict(plan.dimensions),
        rewrites=_rewrites(plan),
        parts=[chunk.nodes for chunk in plan.chunks],
        input_scale=plan.input_scale,
        commitment=plan.commitment,
        arguments=lambda chunk_id, _path, _scale: recorded[chunk_id],
        hinted=lambda chunk_id, *_: (
            recorded[chunk_id] if recorded[chunk_id].kind == "hinted" else None
        ),
        made_chunk=made_chunk,
    )


def committed_tensors(
    crossings: Sequence[Crossing], packing: PackingSpec, commitment: CommitmentArguments
) -> dict[str, CommittedTensor]:
    """By name, how the tensors that cross cuts are committed to."""
    return {c.tensor.name: _committed(c, packing, commitment) for c in crossings}


def _committed(
    crossing: Crossing, packing: PackingSpec, commitment: CommitmentArguments
) -> CommittedTensor:
    count = 1
    for size in crossing.tensor.shape:
        count *= size
    layout = commitment.leaf_layout(count, packing)
    return CommittedTensor(info=crossing.tensor, layout=layout)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Circuit:
    """A chunk's circuit, and by how much each outgoing scale exceeds the plan's input scale."""

    onnx: bytes
    chosen: CircuitArguments
    settings: backend.Settings
    shifts: Mapping[str, int]
    weights: bytes | None = None


def _hinted_circuit(
    graph: ModelGraph,
    nodes: Sequence[str],
    chunk_id: str,
    operators: tuple[str, ...],
    incoming: Sequence[CommittedTensor],
    outgoing: Sequence[CommittedTensor],
    chosen: CircuitArguments,
) -> _Circuit:
    """Make a chunk's hinted circuit: whole numbers throughout, all boundaries at one scale."""
    shifted = [t.info.name for t in (*incoming, *outgoing) if t.scale_shift]
    if shifted:
        raise ChunkingError(f"{chunk_id}: boundary {shifted[0]} has a scale of its own")
    numbers = hinted_arithmetic(chosen)
    columns = chosen.num_inner_cols
    challenge = chosen.products == "challenge"
    data = extract_hinted_chunk(
        graph, nodes, incoming, outgoing, numbers, columns=columns, challenge=challenge
    )
    products = products_of(data) if challenge else None
    weights = None if products is None else write_weights(products)
    if weights is None:
        # Every form is cheaper packed: the same circuit as where no challenge was thought of.
        chosen = chosen.model_copy(update={"products": "packed"})
    _, settings = _settings(chunk_id, operators, data, chosen.input_scale, lambda *_: chosen)
    leaves = sum(t.layout.leaf_count for t in (*incoming, *outgoing)) + (weights is not None)
    # What ezkl takes the leaves' scales to be is a label: packed integers have none.
    labels = {0, chosen.input_scale}
    if settings.instance_count != leaves or not labels.issuperset(settings.output_scales):
        raise ChunkingError(
            f"{chunk_id}: its circuit has {settings.instance_count} instances at scales "
            f"{set(settings.output_scales)}; {leaves} at scales {labels} were expected"
        )
    return _Circuit(onnx=data, chosen=chosen, settings=settings, shifts={}, weights=weights)


def hinted_arithmetic(arguments: CircuitArguments) -> Arithmetic:
    """The numbers of a hinted circuit."""
    return Arithmetic(
        scale=arguments.input_scale,
        logrows=arguments.logrows,
        range_bits=arguments.range_bits,
    )


def _circuit(
    graph: ModelGraph,
    nodes: Sequence[str],
    chunk_id: str,
    operators: tuple[str, ...],
    incoming: Sequence[str],
    outgoing: Sequence[str],
    committed: Mapping[str, CommittedTensor],
    input_scale: int,
    arguments: ArgumentRule,
) -> _Circuit:
    """Make a chunk's circuit, its salts at the scales of the tensors they stand with.

    An outgoing tensor's scale is not known before ezkl has seen the chunk. With its salts at the
    input scale its leaves have the larger of the two scales, and no tensor's scale is below the
    input scale: so the leaves show the tensor's. Where it is larger, the salts are raised to it,
    and the second circuit must show the same (docs/adr/0012).
    """
    into = [committed[name] for name in incoming]
    counts = [committed[name].layout.leaf_count for name in (*incoming, *outgoing)]
    shifts = dict.fromkeys(outgoing, 0)
    for _ in range(3):
        out = [replace(committed[name], scale_shift=shifts[name]) for name in outgoing]
        data = extract_chunk(graph, nodes, into, out, input_scale)
        chosen, settings = _settings(chunk_id, operators, data, input_scale, arguments)
        shown = _boundary_scales(chunk_id, settings, counts)
        for name, scale in zip(incoming, shown, strict=False):
            if scale != input_scale:
                raise ChunkingError(
                    f"{chunk_id}: the leaves of {name}, which it reads, have scale {scale} instead "
                    f"of {input_scale}"
                )
        found = {
            name: scale - input_scale
            for name, scale in zip(outgoing, shown[len(incoming) :], strict=True)
        }
        if found == shifts:
            return _Circuit(onnx=data, chosen=chosen, settings=settings, shifts=shifts)
        if any(shift < 0 for shift in found.values()):
            break
        finest = max(found, key=lambda name: found[name])
        if input_scale + found[finest] > MAX_BOUNDARY_SCALE:
            raise ChunkingError(
                f"{chunk_id} ({', '.join(operators)}): {finest}, which it gives, has scale "
                f"{input_scale + found[finest]}, more than {MAX_BOUNDARY_SCALE}; use a smaller "
                "--scale, or cut elsewhere (--layers-per-chunk)"
            )
        shifts = found
    settled = ", ".join(f"{name} {input_scale + shift}" for name, shift in found.items())
    raise ChunkingError(
        f"{chunk_id} ({', '.join(operators)}): the scales of its outgoing tensors do not settle "
        f"(last {settled}); cut elsewhere (--layers-per-chunk)"
    )


def _settings(
    chunk_id: str,
    operators: tuple[str, ...],
    onnx_data: bytes,
    scale: int,
    arguments: ArgumentRule,
) -> tuple[CircuitArguments, backend.Settings]:
    with scratch_folder() as folder:
        path = folder / f"{chunk_id}.onnx"
        path.write_bytes(onnx_data)
        try:
            chosen = arguments(chunk_id, path, scale)
            if chosen.input_scale != scale:
                raise ChunkingError(
                    f"{chunk_id}: input scale {chosen.input_scale}, but its inputs have {scale}"
                )
            return chosen, backend.derive_settings(path, chosen)
        except StageError as error:
            raise UnsupportedOperatorError(
                f"{chunk_id} ({', '.join(operators)}) cannot be made a circuit: {error.message}"
            ) from None


def _check_range(chunk_id: str, chosen: CircuitArguments, packing: PackingSpec) -> None:
    bound: int = chosen.decomp_base**chosen.decomp_legs - 1
    if bound > packing.element_bound:
        raise ChunkingError(
            f"{chunk_id}: its circuit admits values up to {bound}, but packing is injective only "
            f"up to {packing.element_bound}"
        )


def _boundary_scales(chunk_id: str, settings: backend.Settings, leaves: Sequence[int]) -> list[int]:
    if len(settings.output_scales) != sum(leaves) or settings.instance_count != sum(leaves):
        raise ChunkingError(
            f"{chunk_id}: its circuit has {len(settings.output_scales)} outputs and "
            f"{settings.instance_count} instances; {sum(leaves)} leaves were expected"
        )
    scales, start = [], 0
    for count in leaves:
        found = set(settings.output_scales[start : start + count])
        if len(found) != 1:
            raise ChunkingError(f"{chunk_id}: the leaves of one boundary have scales {found}")
        scales.append(found.pop())
        start += count
    return scales
