"""A circuit's arguments by search: columns, decomposition and rows, for the least predicted time.

Every candidate is one probe of ezkl's settings with many rows; the number of blocks at any other
number of rows follows from it (`zkml_ray.cost.load`). A candidate admits exactly the range that
the plan's packing is injective on: more would let two tensors have one commitment, less would
refuse salts.

A circuit of millions of cells takes ezkl seconds to count, so of a large one each decomposition is
counted with one number of columns alone; the settings that are derived in the end are exact.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from zkml_ray.cost.load import MAX_LOGROWS, Load
from zkml_ray.cost.model import CostModel
from zkml_ray.cost.sizing import Sized, best_size, better_size
from zkml_ray.errors import ChunkingError
from zkml_ray.events import Listener, ignore
from zkml_ray.schema.plan import CircuitArguments, CommitmentArguments
from zkml_ray.stages.probe import each, lookup_range, probe

COLUMNS: Final = (5, 6, 7, 4, 3, 2, 1)
"""Inner columns that are tried. From eight on the extended domain doubles (docs/adr/0004)."""

LARGE_CELLS: Final = 1 << 20
"""From here on one probe takes seconds, and columns are chosen by what one number of them needs."""

LARGE_LOGROWS: Final = 14
"""From here on a decomposition into fewer, wider digits may fit its table into the circuit."""


def choose_arguments(
    chunk_id: str,
    path: Path,
    input_scale: int,
    param_scale: int,
    commitment: CommitmentArguments,
    model: CostModel,
    memory_bytes: int | None = None,
    listener: Listener = ignore,
) -> CircuitArguments:
    """Choose a circuit's arguments.

    Args:
        chunk_id: For error messages.
        path: The chunk model.
        input_scale: Scale of its inputs.
        param_scale: Scale of its weights.
        commitment: Gives the range that the circuit must admit.
        model: Prices.
        memory_bytes: Memory to keep within, if that is possible.
        listener: Told how far it is.

    Raises:
        ChunkingError: It does not fit the largest circuit.
    """
    data = path.read_bytes()

    def sized(candidate: CircuitArguments) -> tuple[CircuitArguments, Sized | None]:
        load = Load.of(probe(data, candidate).data)
        return candidate, best_size(load, model, memory_bytes)

    def arguments(columns: int, base: int, legs: int) -> CircuitArguments:
        return CircuitArguments(
            input_scale=input_scale,
            param_scale=param_scale,
            decomp_base=base,
            decomp_legs=legs,
            num_inner_cols=columns,
            logrows=MAX_LOGROWS,
            lookup_range=lookup_range(input_scale),
        )

    base, legs = commitment.decomp_base, commitment.decomp_legs
    what = f"choosing columns and digits of {chunk_id}"
    first = arguments(COLUMNS[0], base, legs)
    load = Load.of(probe(data, first).data)
    if load.cells >= LARGE_CELLS:
        best = _best(_coarse(data, first, load, model, memory_bytes, listener), memory_bytes)
    else:
        narrow = [arguments(columns, base, legs) for columns in COLUMNS]
        found = each(sized, narrow, listener=listener, what=what)
        best = _best(found, memory_bytes)
        if best is not None and best[1].geometry.logrows >= LARGE_LOGROWS:
            wider = [
                arguments(columns, *digits)
                for digits in wider_digits(base, legs)
                for columns in COLUMNS
            ]
            more = each(sized, wider, listener=listener, what=what)
            best = _best([*found, *more], memory_bytes)
    if best is None:
        raise ChunkingError(
            f"{chunk_id} needs more than 2^{MAX_LOGROWS} rows; cut the model into smaller chunks "
            "(--memory, --layers-per-chunk)"
        )
    chosen, size = best
    return chosen.model_copy(update={"logrows": size.geometry.logrows})


def _coarse(
    data: bytes,
    first: CircuitArguments,
    load: Load,
    model: CostModel,
    memory_bytes: int | None,
    listener: Listener,
) -> list[tuple[CircuitArguments, Sized | None]]:
    """Candidates for a large circuit, their sizes by one probe for each decomposition.

    Other columns hold as many cells, but for what fills up rows (`estimate.ESTIMATED_COLUMNS`).
    """
    wider = [
        first.model_copy(update={"decomp_base": base, "decomp_legs": legs})
        for base, legs in wider_digits(first.decomp_base, first.decomp_legs)
    ]
    loads = each(
        lambda candidate: Load.of(probe(data, candidate).data),
        wider,
        listener=listener,
        what="counting a large native circuit with other digits",
    )
    return [
        (
            candidate.model_copy(update={"num_inner_cols": columns}),
            best_size(replace(counted, inner_columns=columns), model, memory_bytes),
        )
        for candidate, counted in zip([first, *wider], [load, *loads], strict=True)
        for columns in COLUMNS
    ]


def wider_digits(base: int, legs: int) -> list[tuple[int, int]]:
    """Decompositions into fewer digits that admit exactly the same range.

    Args:
        base: Base of the digits.
        legs: Their number.

    Returns:
        (base, legs), fewest wide digits last; none wider than 16 bits.
    """
    found = []
    for fewer in range(legs - 1, 0, -1):
        wide = round((base**legs) ** (1 / fewer))
        if wide**fewer == base**legs and wide <= 1 << 16:
            found.append((wide, fewer))
    return found


def _best(
    candidates: list[tuple[CircuitArguments, Sized | None]], memory_bytes: int | None
) -> tuple[CircuitArguments, Sized] | None:
    chosen = better_size((size for _, size in candidates), memory_bytes)
    if chosen is None:
        return None
    return next((a, size) for a, size in candidates if size is chosen)
