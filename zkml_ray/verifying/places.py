"""Rows that are looked up outside of circuits are those of the places that the statement shows.

The plan pins the quantised table by its digest (with the model as trust root it was made again from
the model's). The rows are an input of the circuits, revealed, and their values have opened the
commitment that the proofs show. What is left to check is that they are the table's at the stated
places, one after the other.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from zkml_ray import names
from zkml_ray.errors import StatementError, VerificationError
from zkml_ray.schema.manifest import Manifest
from zkml_ray.schema.plan import BoundaryPlan, LookupPlan, Plan
from zkml_ray.verifying.reader import PinnedReader

_NUMBER_BYTES = 4


def check_lookups(plan: Plan) -> None:
    """Every look-up of a plan gives one input of its circuits, all of its rows alike.

    Raises:
        VerificationError: Code "plan-topology".
    """
    given = [lookup.boundary for lookup in plan.lookups]
    # The verdict shows an input's places under its name, boundaries under theirs.
    crossing = {boundary.name for boundary in plan.boundaries}
    for lookup in plan.lookups:
        stands = lookup.boundary in plan.model_inputs and given.count(lookup.boundary) == 1
        if not stands or lookup.input in crossing:
            raise VerificationError(
                f"the plan's graph is not complete: the rows {lookup.boundary} that it looks up "
                "are no input of its circuits, or given twice, or called as a tensor of theirs",
                subject=lookup.boundary,
                code="plan-topology",
            )


def check_places(
    manifest: Manifest, plan: Plan, reader: PinnedReader
) -> dict[str, tuple[float, ...]]:
    """The revealed rows are those of the stated places.

    Args:
        manifest: The run; the values that it reveals open their commitments.
        plan: Its plan.
        reader: Reads the tables.

    Returns:
        Per input that holds places, its elements.

    Raises:
        StatementError: They are not: code "statement-places".
        VerificationError: A table is not there, or not the pinned one.
    """
    wanted = list(dict.fromkeys(lookup.input for lookup in plan.lookups))
    stated = {entry.input: entry.places for entry in manifest.statement.places}
    if [entry.input for entry in manifest.statement.places] != wanted:
        raise _refusal(
            "the statement does not say at which places rows were looked up, once for each input",
            expected=", ".join(wanted) or "none",
            got=", ".join(entry.input for entry in manifest.statement.places) or "none",
        )
    shown = {entry.boundary: entry.values for entry in manifest.statement.revealed}
    for index, lookup in enumerate(plan.lookups):
        values, places = shown.get(lookup.boundary), stated[lookup.input]
        if values is None:
            raise _refusal(
                f"the rows {lookup.boundary} are not revealed: nothing shows that they are rows of "
                f"the table, and those of {lookup.input}",
                subject=lookup.input,
            )
        boundary = plan.boundary(lookup.boundary)
        table = reader.file(
            names.table(index),
            # As wide as rows are where there is one place.
            max_bytes=lookup.rows * boundary.layout.element_count * _NUMBER_BYTES,
            pinned=lookup.table_sha256,
        )
        width = _width(boundary, lookup, table.stat().st_size, places)
        _check_rows(lookup, table, width, places, values)
    return {name: tuple(map(float, places)) for name, places in stated.items()}


def _width(
    boundary: BoundaryPlan, lookup: LookupPlan, table_bytes: int, places: Sequence[int]
) -> int:
    """Elements of a row, which the table alone decides.

    Were it for the number of places to say, two rows that follow each other would be one row twice
    as wide, at half the place.
    """
    elements = boundary.layout.element_count
    width, rest = divmod(table_bytes, lookup.rows * _NUMBER_BYTES)
    if not width or rest or elements % width:
        raise VerificationError(
            f"a table of {table_bytes} bytes has no {lookup.rows} rows of which some make up "
            f"the {elements} numbers of {lookup.boundary}",
            subject=lookup.boundary,
            code="artifact-size",
        )
    if len(places) * width != elements:
        raise _refusal(
            f"the statement has {len(places)} places of {lookup.input}; {elements // width} were "
            "expected",
            expected=str(elements // width),
            got=str(len(places)),
            subject=lookup.input,
        )
    return width


def _check_rows(
    lookup: LookupPlan, table: Path, width: int, places: Sequence[int], values: Sequence[int]
) -> None:
    with table.open("rb") as file:
        for position, place in enumerate(places):
            if not 0 <= place < lookup.rows:
                raise _refusal(
                    f"element {position} of {lookup.input} is no row of its table",
                    expected=f"0 to {lookup.rows - 1}",
                    got=str(place),
                    subject=lookup.input,
                )
            if _row(file, place, width) != tuple(values[position * width :][:width]):
                raise _refusal(
                    f"the revealed rows {lookup.boundary} are not those of {lookup.input}: element "
                    f"{position} has another row",
                    subject=lookup.input,
                )


def _row(file: BinaryIO, place: int, width: int) -> tuple[int, ...]:
    size = width * _NUMBER_BYTES
    file.seek(place * size)
    data = file.read(size)
    if len(data) != size:
        raise VerificationError(
            "a table of rows is shorter than the plan says", code="artifact-size"
        )
    return struct.unpack(f"<{width}i", data)


def _refusal(
    message: str, *, expected: str = "", got: str = "", subject: str = ""
) -> StatementError:
    return StatementError(
        message, expected=expected, got=got, subject=subject, code="statement-places"
    )
