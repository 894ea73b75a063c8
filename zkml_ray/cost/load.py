"""What a circuit has to hold, read from settings, and how many blocks of columns that takes.

ezkl's counts of cells depend on the inner columns, hardly on the rows: one probe with many rows
tells how many blocks every smaller circuit would have.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from zkml_ray.circuits.backend import BLINDING_ROWS
from zkml_ray.cost.geometry import Geometry, reduction_length

MIN_LOGROWS: Final = 10
"""Below this, one Poseidon hash region of a useful leaf does not fit."""

MAX_LOGROWS: Final = 24

MAX_COLUMN_BLOCKS: Final = 12
"""The main region is split over at most this many blocks: every block makes the proof 4 kB longer
(at five inner columns), and beyond what was measured the cost model is too hopeful."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a circuit has to hold, whatever its rows.

    Attributes:
        inner_columns: Columns of one variable in one block.
        cells: Cells of the main region.
        einsum_cells: Cells of Freivalds' columns, were there any. One equation that uses the
            argument makes ezkl reserve them for all equations, those of range checks included.
        freivalds: Whether there are.
        shuffle_cells: Cells of the shuffles' columns; 0 without shuffles.
        tables: Lookup tables.
        range_checks: Tables of range checks.
        hash_rows: Rows of the hash region.
        table_rows: Rows of the longest table.
        instances: Public instances.
    """

    inner_columns: int
    cells: int
    einsum_cells: int
    freivalds: bool
    shuffle_cells: int
    tables: int
    range_checks: int
    hash_rows: int
    table_rows: int
    instances: int

    @classmethod
    def of(cls, settings: bytes) -> Load:
        """What canonical settings say."""
        raw: dict[str, Any] = json.loads(settings)
        einsum = raw["einsum_params"]
        widths = [high - low + 1 for low, high in raw["required_range_checks"]]
        if raw["required_lookups"]:
            low, high = raw["run_args"]["lookup_range"]
            widths.append(high - low + 1)
        return cls(
            inner_columns=raw["run_args"]["num_inner_cols"],
            cells=raw["total_assignments"],
            einsum_cells=sum(
                reduction_length(equation, sizes) for equation, sizes in einsum["equations"]
            ),
            freivalds=bool(einsum["total_einsum_col_size"]),
            shuffle_cells=(
                raw["total_dynamic_col_size"] + raw["total_shuffle_col_size"]
                if raw["num_dynamic_lookups"] or raw["num_shuffles"]
                else 0
            ),
            tables=len(raw["required_lookups"]),
            range_checks=len(raw["required_range_checks"]),
            hash_rows=raw["module_sizes"]["poseidon"][0],
            table_rows=max(widths, default=0),
            instances=sum(raw["module_sizes"]["poseidon"][1]),
        )

    def geometry(self, logrows: int) -> Geometry:
        """The columns at some number of rows."""
        rows, columns = 1 << logrows, self.inner_columns
        return Geometry(
            logrows=logrows,
            inner_columns=columns,
            blocks=block_count(self.cells, rows, columns),
            einsum_blocks=block_count(self.einsum_cells, rows, columns) if self.freivalds else 0,
            shuffle_blocks=block_count(self.shuffle_cells, rows, 1) if self.shuffle_cells else 0,
            tables=self.tables,
            range_checks=self.range_checks,
            cells=self.cells + (self.einsum_cells if self.freivalds else 0),
            instances=self.instances,
        )

    def geometries(self) -> Iterator[Geometry]:
        """Every size that holds it, from the fewest rows on; more rows than it fills are not."""
        for logrows in range(MIN_LOGROWS, MAX_LOGROWS + 1):
            if max(self.hash_rows, self.table_rows) + BLINDING_ROWS > 1 << logrows:
                continue
            geometry = self.geometry(logrows)
            blocks = max(geometry.blocks, geometry.einsum_blocks, geometry.shuffle_blocks)
            if blocks > MAX_COLUMN_BLOCKS and logrows < MAX_LOGROWS:
                continue
            yield geometry
            if blocks == 1:
                return


def block_count(cells: int, rows: int, columns: int) -> int:
    """Blocks of `columns` columns of `rows` rows that ezkl allocates for some cells."""
    room = (rows - BLINDING_ROWS) * columns
    blocks: int = cells // room + 1
    return (cells + blocks) // room + 1


def geometry_of(settings: bytes) -> Geometry:
    """The columns that canonical settings allocate."""
    logrows: int = json.loads(settings)["run_args"]["logrows"]
    return Load.of(settings).geometry(logrows)
