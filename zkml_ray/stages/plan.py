"""Stage plan: choose the cuts and every circuit's arguments.

The chosen arguments are recorded in the plan, so that a verifier can derive the same circuits
without repeating the choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from zkml_ray import backend
from zkml_ray.chunking.choose import default_rewrites
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.load import LoadedModel
from zkml_ray.chunking.partition import layer_partition
from zkml_ray.chunking.rewrite import PASSES, apply_rewrites
from zkml_ray.circuits import DerivedCircuits, derive_circuits, normalised_graph
from zkml_ray.errors import ChunkingError, ConfigError
from zkml_ray.schema.plan import CircuitArguments, CommitmentArguments
from zkml_ray.schema.request import PlanChoices

MIN_LOGROWS = 10
"""Below this, one Poseidon hash region of a useful leaf does not fit."""

MAX_LOGROWS = 24

MAX_COLUMN_BLOCKS = 8
"""The main region is split over at most this many column blocks before logrows grows. A short
circuit with many blocks proves faster than a long one with few: the digits model's first chunk
takes 3.6 s of CPU at logrows 10 and 7 blocks, 4.6 s at logrows 13 and one (docs/adr/0004)."""

INNER_COLUMNS = 5
"""Poseidon's S-box sets the degree of every committed circuit, so up to 7 columns cost no larger
extended domain; 5 to 7 prove up to half as long again faster than 2 or 3 (docs/adr/0004)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """What a user may choose about a plan.

    Attributes:
        scale: log2 of the fixed-point denominator of inputs and weights.
        layers_per_chunk: Weighted operators per chunk.
        dimensions: Value of each symbolic dimension.
        salted: Whether boundary leaves carry salts.
        max_leaf_slots: Upper bound of a leaf's slots.
        passes: Names of the rewrite passes that may be used; None: all.
    """

    scale: int = 10
    layers_per_chunk: int = 1
    dimensions: Mapping[str, int] = field(default_factory=dict)
    salted: bool = True
    max_leaf_slots: int = 128
    passes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.scale <= 20:
            raise ConfigError(f"scale must lie in 1..20 (bits after the point), not {self.scale}")
        if self.layers_per_chunk < 1:
            raise ConfigError(f"layers per chunk must be at least 1, not {self.layers_per_chunk}")
        for name in self.passes or ():
            if name not in PASSES:
                raise ConfigError(f"there is no pass {name}; passes: {', '.join(PASSES)}")

    def choices(self) -> PlanChoices:
        """The document form."""
        return PlanChoices(
            scale=self.scale,
            layers_per_chunk=self.layers_per_chunk,
            dimensions=tuple(sorted(self.dimensions.items())),
            salted=self.salted,
            max_leaf_slots=self.max_leaf_slots,
            passes=self.passes,
        )

    @classmethod
    def of(cls, choices: PlanChoices) -> PlanOptions:
        """The options of a document."""
        return cls(
            scale=choices.scale,
            layers_per_chunk=choices.layers_per_chunk,
            dimensions=dict(choices.dimensions),
            salted=choices.salted,
            max_leaf_slots=choices.max_leaf_slots,
            passes=choices.passes,
        )


def plan(model: LoadedModel, options: PlanOptions) -> DerivedCircuits:
    """Plan a model.

    Args:
        model: The user's model.
        options: The user's choices.

    Raises:
        ZkmlRayError: The model cannot be planned; the message says why.
    """
    backend.check_version()
    commitment = CommitmentArguments(salted=options.salted, max_slots=options.max_leaf_slots)
    graph = normalised_graph(model, options.dimensions)
    rewrites = default_rewrites(graph.proto, weight_bits=options.scale, passes=options.passes)
    graph = ModelGraph(apply_rewrites(graph.proto, rewrites))

    def choose(chunk_id: str, path: Path, input_scale: int) -> CircuitArguments:
        return choose_arguments(chunk_id, path, input_scale, options.scale, commitment)

    return derive_circuits(
        model,
        graph,
        dimensions=options.dimensions,
        rewrites=rewrites,
        parts=layer_partition(graph, layers_per_chunk=options.layers_per_chunk),
        input_scale=options.scale,
        commitment=commitment,
        arguments=choose,
    )


def choose_arguments(
    chunk_id: str, path: Path, input_scale: int, param_scale: int, commitment: CommitmentArguments
) -> CircuitArguments:
    """Choose a circuit's arguments: the smallest logrows that everything fits into.

    Args:
        chunk_id: For error messages.
        path: The chunk model.
        input_scale: Scale of its inputs.
        param_scale: Scale of its weights.
        commitment: Gives the decomposition.
    """

    def arguments(logrows: int) -> CircuitArguments:
        return CircuitArguments(
            input_scale=input_scale,
            param_scale=param_scale,
            decomp_base=commitment.decomp_base,
            decomp_legs=commitment.decomp_legs,
            num_inner_cols=INNER_COLUMNS,
            logrows=logrows,
            lookup_range=(-(8 << input_scale), 8 << input_scale),
        )

    settings = backend.derive_settings(path, arguments(MAX_LOGROWS))
    needed = max(
        settings.poseidon_rows,
        -(-settings.num_rows // MAX_COLUMN_BLOCKS),
        max(settings.range_widths, default=0),
        (16 << input_scale) + 1 if settings.has_lookups else 0,
    )
    for logrows in range(MIN_LOGROWS, MAX_LOGROWS + 1):
        if needed + backend.BLINDING_ROWS <= 1 << logrows:
            return arguments(logrows)
    raise ChunkingError(
        f"{chunk_id} needs {needed} rows, more than 2^{MAX_LOGROWS}; use fewer layers per chunk"
    )
