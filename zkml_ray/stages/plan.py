"""Stage plan: choose the cuts and every circuit's arguments.

The chosen arguments are recorded in the plan, so that a verifier can derive the same circuits
without repeating the choice. The choice uses a machine's prices (a profile), so another profile
may give another plan; the same model, options and profile give the same plan anywhere.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal, TypeVar, get_args

from pydantic import ValidationError

from zkml_ray import limits
from zkml_ray.chunking.choose import default_rewrites
from zkml_ray.chunking.dimensions import Completed, complete_dimensions
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.hinted.numbers import PRECISION_BITS
from zkml_ray.chunking.hinted.refusal import NotHintedError
from zkml_ray.chunking.load import LoadedModel
from zkml_ray.chunking.normal_form.floats import other_floats
from zkml_ray.chunking.normal_form.interface import input_notices, output_notices
from zkml_ray.chunking.normal_form.quantised import quantisation_notices
from zkml_ray.chunking.normal_form.tails import tail_notices
from zkml_ray.chunking.partition import layer_partition
from zkml_ray.chunking.rewrite import PASSES, apply_rewrites
from zkml_ray.circuits import backend
from zkml_ray.circuits.derive import DerivedCircuits, derive_circuits, normalised_graph
from zkml_ray.cost.load import geometry_of
from zkml_ray.cost.model import CostModel
from zkml_ray.cost.profiles import load_profile
from zkml_ray.errors import ChunkingError, ConfigError, TrustRootError
from zkml_ray.events import Listener, Working, ignore
from zkml_ray.schema.plan import CircuitArguments, CommitmentArguments, Products
from zkml_ray.schema.profile import Profile
from zkml_ray.schema.request import PlanChoices
from zkml_ray.stages.hinted import MORE_ROWS, HintedPlanner
from zkml_ray.stages.plancache import kept_plan
from zkml_ray.stages.search import Budget, search_circuits
from zkml_ray.stages.size import choose_arguments
from zkml_ray.stages.trial import TRIED, range_failure
from zkml_ray.verifying.extent import check_sizes
from zkml_ray.verifying.policy import VerifierPolicy, shortfalls

CircuitKind = Literal["auto", "hinted", "native"]
TokenKind = Literal["revealed", "hidden"]
_Choice = TypeVar("_Choice", bound=str)

CIRCUITS: Final[tuple[CircuitKind, ...]] = get_args(CircuitKind)
PRODUCTS: Final[tuple[Products, ...]] = get_args(Products)
TOKENS: Final[tuple[TokenKind, ...]] = get_args(TokenKind)

_log = logging.getLogger(__name__)

MEMORY_RESERVE: Final = 1.1
"""Chunks are planned for so much less than the memory allowed: predictions of memory are a few
percent off, and a worker that has proved other chunks keeps some of what they took."""

MAX_AUTO_SCALE: Final = 15
"""Above it "auto" does not choose hinted circuits: their table takes 2^(scale + 2) rows or more."""

MAX_AUTO_RANGE_BITS: Final = 10
"""As far as "auto" widens the range of hinted circuits where a constant that is compared lies
outside of it."""

WIDER_BITS: Final = 2
"""By so much it is widened where a random input leaves it."""

MIN_MEMORY_BYTES: Final = 64 << 20
"""Below this not even Python fits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """What a user may choose about a plan.

    Attributes:
        scale: log2 of the fixed-point denominator of inputs and weights.
        layers_per_chunk: Weighted operators per chunk; None: the cuts are searched.
        workers: Workers that the search cuts for.
        memory_bytes: Most memory of one worker, by prediction; None: any.
        dimensions: Value of each open dimension, by name or INPUT:AXIS; a first axis without one
            is a batch of 1.
        salted: Whether boundary leaves carry salts.
        max_leaf_slots: Upper bound of a leaf's slots.
        passes: Names of the rewrite passes that may be used in native circuits; None: all.
        circuits: "hinted", "native", or "auto": hinted where every operator has a hinted form and
            the cuts fit, else native; the plan's notices then say why.
        range_bits: Inputs and rounded values of hinted circuits may reach +-2^range_bits.
        products: How hinted circuits check products: "packed", or "challenge", which leaves weights
            outside the circuits.
        tokens: "revealed": rows that are looked up at places which are an input (an embedding's)
            are looked up outside of circuits, and the statement shows the places. "hidden": in
            circuits, which takes a product with every row of the table.
    """

    scale: int = 10
    layers_per_chunk: int | None = None
    workers: int = 2
    memory_bytes: int | None = None
    dimensions: Mapping[str, int] = field(default_factory=dict)
    salted: bool = True
    max_leaf_slots: int = 128
    passes: tuple[str, ...] | None = None
    circuits: CircuitKind = "auto"
    range_bits: int = 5
    products: Products = "packed"
    tokens: TokenKind = "revealed"

    def __post_init__(self) -> None:
        if not 1 <= self.scale <= limits.MAX_SCALE_BITS:
            raise ConfigError(
                f"scale must lie in 1..{limits.MAX_SCALE_BITS} (bits after the point), not "
                f"{self.scale}"
            )
        if self.layers_per_chunk is not None and self.layers_per_chunk < 1:
            raise ConfigError(f"layers per chunk must be at least 1, not {self.layers_per_chunk}")
        if self.workers < 1:
            raise ConfigError(f"workers must be at least 1, not {self.workers}")
        if self.memory_bytes is not None and self.memory_bytes < MIN_MEMORY_BYTES:
            raise ConfigError(
                f"memory must be at least {MIN_MEMORY_BYTES >> 20} MiB, not "
                f"{self.memory_bytes} bytes"
            )
        chosen("circuits", self.circuits, CIRCUITS)
        chosen("products", self.products, PRODUCTS)
        chosen("tokens", self.tokens, TOKENS)
        if not 0 <= self.range_bits <= limits.MAX_RANGE_BITS:
            raise ConfigError(
                f"range bits must lie in 0..{limits.MAX_RANGE_BITS}, not {self.range_bits}"
            )
        for name in self.passes or ():
            if name not in PASSES:
                raise ConfigError(f"there is no pass {name}; passes: {', '.join(PASSES)}")

    def choices(self) -> PlanChoices:
        """The document form.

        Raises:
            ConfigError: A value has no document form.
        """
        try:
            return PlanChoices(
                scale=self.scale,
                layers_per_chunk=self.layers_per_chunk,
                workers=self.workers,
                memory_bytes=self.memory_bytes,
                dimensions=tuple(sorted(self.dimensions.items())),
                salted=self.salted,
                max_leaf_slots=self.max_leaf_slots,
                passes=self.passes,
                circuits=self.circuits,
                range_bits=self.range_bits,
                products=self.products,
                tokens=self.tokens,
            )
        except ValidationError as error:
            first = error.errors()[0]
            raise ConfigError(
                f"plan options: {' '.join(map(str, first['loc']))}: {first['msg']}, not "
                f"{str(first['input'])[:100]}"
            ) from None

    def taken_by(self, model: LoadedModel) -> LoadedModel:
        """A model as it is to be proved."""
        return replace(model, tokens_outside=self.tokens == "revealed")

    def dimensions_of(self, model: LoadedModel) -> Completed:
        """Values of a model's open dimensions: the chosen ones, and batches of 1."""
        return complete_dimensions(model.proto, self.dimensions)

    @classmethod
    def of(cls, choices: PlanChoices) -> PlanOptions:
        """The options of a document."""
        return cls(
            scale=choices.scale,
            layers_per_chunk=choices.layers_per_chunk,
            workers=choices.workers,
            memory_bytes=choices.memory_bytes,
            dimensions=dict(choices.dimensions),
            salted=choices.salted,
            max_leaf_slots=choices.max_leaf_slots,
            passes=choices.passes,
            circuits=choices.circuits,
            range_bits=choices.range_bits,
            products=choices.products,
            tokens=choices.tokens,
        )


def chosen(what: str, name: str, choices: Sequence[_Choice]) -> _Choice:
    """One of some choices by its name.

    Args:
        what: What is chosen, for the message.
        name: As it was given.
        choices: All there are.

    Raises:
        ConfigError: There is no such choice.
    """
    for choice in choices:
        if choice == name:
            return choice
    raise ConfigError(f"{what} must be one of {', '.join(choices)}, not {name}")


def plan(
    model: LoadedModel,
    options: PlanOptions,
    profile: Profile | None = None,
    listener: Listener = ignore,
) -> DerivedCircuits:
    """Plan a model.

    Args:
        model: The user's model.
        options: The user's choices.
        profile: Prices of seconds and memory; default: `load_profile`'s.
        listener: Told what is being done.

    Raises:
        ZkmlRayError: The model cannot be planned; the message says why.
    """
    backend.check_version()
    model = options.taken_by(model)
    chosen = profile or load_profile()
    return kept_plan(
        model.data, options.choices(), chosen, lambda: _made(model, options, chosen, listener)
    )


def _made(
    model: LoadedModel, options: PlanOptions, profile: Profile, listener: Listener
) -> DerivedCircuits:
    # One thread: more of them change every chunk's time by one factor, so no choice.
    prices = CostModel(profile=profile, threads=1)
    limit_bytes = (
        None if options.memory_bytes is None else int(options.memory_bytes / MEMORY_RESERVE)
    )
    taken = options.dimensions_of(model)
    options = replace(options, dimensions=taken.values)
    made = _of_kind(model, options, prices, limit_bytes, listener)
    notices = (
        *taken.notices,
        *output_notices(model.proto),
        *tail_notices(model.proto),
        *quantisation_notices(model.proto),
        *_float_notices(model),
    )
    return replace(made, notices=(*notices, *made.notices))


def _float_notices(model: LoadedModel) -> tuple[str, ...]:
    kinds = other_floats(model.proto)
    return (f"the model's {' and '.join(kinds)} are taken as float32",) if kinds else ()


def _of_kind(
    model: LoadedModel,
    options: PlanOptions,
    prices: CostModel,
    limit_bytes: int | None,
    listener: Listener,
) -> DerivedCircuits:
    """The plan with the kind of circuits that the options ask for."""
    listener(Working(what="bringing the model into one form"))
    graph = normalised_graph(model, options.dimensions)
    try:
        check_sizes(graph, limits.MAX_TENSOR_ELEMENTS)
    except TrustRootError as error:
        raise ChunkingError(
            f"the model is larger than what can be proved: {error.subject} is {error.got}, "
            f"{error.expected} is expected; choose smaller dimensions (--dim), or prove parts of it"
        ) from None
    circuits = _of_its_kind(model, graph, options, prices, limit_bytes, listener)
    notices = (*input_notices(graph.unread), *lookup_notices(graph))
    if options.products != "packed" and circuits.plan.chunks[0].arguments.kind == "native":
        notices = (*notices, f"--products {options.products} has no effect on native circuits")
    circuits = replace(circuits, notices=(*notices, *circuits.notices))
    refusal = shortfalls(circuits.plan, VerifierPolicy(), graph)
    if refusal is None:
        return circuits
    notice = f"who verifies with the model refuses this plan by default: {refusal}"
    return replace(circuits, notices=(*circuits.notices, notice))


def lookup_notices(graph: ModelGraph) -> tuple[str, ...]:
    """Which inputs are places of rows that are looked up outside of circuits, a sentence each."""
    places = dict.fromkeys(lookup.input for lookup in graph.lookups)
    return tuple(
        f"input {name} is shown by the statement, and rows are looked up at its numbers outside of "
        "circuits: --tokens hidden proves the look-up"
        for name in places
    )


def _of_its_kind(
    model: LoadedModel,
    graph: ModelGraph,
    options: PlanOptions,
    prices: CostModel,
    limit_bytes: int | None,
    listener: Listener,
) -> DerivedCircuits:
    if options.circuits == "native":
        return _native(model, graph, options, prices, limit_bytes, listener)
    try:
        return _tried(_hinted(model, graph, options, prices, limit_bytes, listener), graph, options)
    except ChunkingError as error:
        if options.circuits == "hinted":
            raise
        wider = error.range_bits if isinstance(error, NotHintedError) else 0
        if options.range_bits < wider <= MAX_AUTO_RANGE_BITS:
            # The model's own constants say that values are larger than was supposed.
            notice = f"values may reach +-{1 << wider}: {error.message}"
            options = replace(options, range_bits=wider)
            made = _of_its_kind(model, graph, options, prices, limit_bytes, listener)
            if made.plan.chunks[0].arguments.kind == "native":
                return made
            return replace(made, notices=(notice, *made.notices))
        refusal = error.message
    notice = f"native circuits, because hinted ones do not do: {refusal}"
    _log.info(notice)
    try:
        native = _native(model, graph, options, prices, limit_bytes, listener)
    except ChunkingError as error:
        raise type(error)(f"{error.message}; hinted circuits do not do either: {refusal}") from None
    return replace(native, notices=(notice,))


def _tried(made: DerivedCircuits, graph: ModelGraph, options: PlanOptions) -> DerivedCircuits:
    """Hinted circuits that "auto" may choose: a random input can be proved.

    Raises:
        NotHintedError: It leaves their range, or has no result in them.
    """
    if options.circuits == "hinted" or not TRIED & {n.op_type for n in graph.nodes.values()}:
        return made
    failure = range_failure(graph, made)
    if failure:
        bits = max(
            min(options.range_bits + WIDER_BITS, MAX_AUTO_RANGE_BITS), options.range_bits + 1
        )
        raise NotHintedError(f"of a random input, {failure}", range_bits=bits)
    return made


def _native(
    model: LoadedModel,
    graph: ModelGraph,
    options: PlanOptions,
    prices: CostModel,
    limit_bytes: int | None,
    listener: Listener,
) -> DerivedCircuits:
    """The plan with native circuits."""
    commitment = CommitmentArguments(salted=options.salted, max_slots=options.max_leaf_slots)
    rewrites = default_rewrites(graph.proto, weight_bits=options.scale, passes=options.passes)

    def choose(chunk_id: str, path: Path, input_scale: int) -> CircuitArguments:
        return choose_arguments(
            chunk_id, path, input_scale, options.scale, commitment, prices, limit_bytes, listener
        )

    if options.layers_per_chunk is None:
        return search_circuits(
            model,
            rewrites,
            dimensions=dict(options.dimensions),
            input_scale=options.scale,
            commitment=commitment,
            prices=prices,
            budget=Budget(workers=options.workers, memory_bytes=limit_bytes),
            arguments=choose,
            listener=listener,
        )
    graph = ModelGraph(apply_rewrites(graph.proto, rewrites))
    circuits = derive_circuits(
        model,
        graph,
        dimensions=options.dimensions,
        rewrites=rewrites,
        parts=layer_partition(graph, layers_per_chunk=options.layers_per_chunk),
        input_scale=options.scale,
        commitment=commitment,
        arguments=choose,
        listener=listener,
    )
    _check_memory(circuits, prices, limit_bytes)
    return circuits


def _hinted(
    model: LoadedModel,
    graph: ModelGraph,
    options: PlanOptions,
    prices: CostModel,
    limit_bytes: int | None,
    listener: Listener,
) -> DerivedCircuits:
    """The plan with hinted circuits."""
    if options.circuits == "auto" and options.scale > MAX_AUTO_SCALE:
        raise ChunkingError(
            f"at scale {options.scale} their table needs 2^{options.scale + PRECISION_BITS} rows"
        )
    planner = HintedPlanner(
        graph,
        scale=options.scale,
        range_bits=options.range_bits,
        commitment=hinted_commitment(options),
        prices=prices,
        memory_bytes=limit_bytes,
        products=options.products,
        listener=listener,
    )
    circuits = planner.circuits(
        model,
        dimensions=options.dimensions,
        workers=options.workers,
        layers_per_chunk=options.layers_per_chunk,
    )
    if options.passes is None:
        return circuits
    return replace(circuits, notices=("rewrite passes have no effect on hinted circuits",))


def hinted_commitment(options: PlanOptions) -> CommitmentArguments:
    """How the boundaries of hinted circuits are committed to: for no more than their range.

    A narrower range packs more values into a hashed element. Two digits, because ezkl's forward
    pass decomposes even inputs that the circuit does not: so the range holds the digits of the
    largest table that is tried, too.

    Raises:
        ChunkingError: The range is wider than commitments can be.
    """
    largest_table_bits = options.scale + PRECISION_BITS + MORE_ROWS - 1
    bits = max(options.scale + max(options.range_bits, 1) + 2, largest_table_bits)
    # Two digits of a decomposition, of at most 2^20 each.
    if bits > limits.MAX_COMMITTED_BITS:
        raise ChunkingError(
            f"scale {options.scale} with values up to 2^{options.range_bits} needs {bits} bits a "
            f"value, more than {limits.MAX_COMMITTED_BITS}: use a smaller --scale or --range-bits"
        )
    return CommitmentArguments(
        decomp_base=1 << -(-bits // 2),
        decomp_legs=2,
        max_slots=options.max_leaf_slots,
        salted=options.salted,
        salts_apart=options.salted,
    )


def _check_memory(circuits: DerivedCircuits, prices: CostModel, memory_bytes: int | None) -> None:
    for chunk in circuits.plan.chunks:
        peak = prices.peak_bytes(geometry_of(circuits.files[chunk.id].settings))
        if memory_bytes is not None and peak > memory_bytes:
            raise ChunkingError(
                f"{chunk.id} ({', '.join(chunk.operators)}) needs about {peak >> 20:,} MiB, more "
                f"than the {memory_bytes >> 20:,} MiB that --memory leaves; leave "
                "--layers-per-chunk out"
            )
