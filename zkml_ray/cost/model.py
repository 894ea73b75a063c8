"""Seconds and bytes of a circuit, from its columns and a machine's prices.

The form is the prover's: every column of n = 2^logrows rows is interpolated, committed to and
evaluated on the extended domain, every lookup argument adds columns, every gate a pass over its
block; assigning the witness takes time per cell. All of it is linear in the features below, so
prices are found by least squares (`zkml_ray.cost.fit`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from zkml_ray.circuits.derive import DerivedCircuits
from zkml_ray.cost.geometry import Geometry
from zkml_ray.cost.load import geometry_of
from zkml_ray.schema.forecast import ChunkForecast, Forecast
from zkml_ray.schema.profile import Prices, Profile

COMMON_EXTENSION: Final = 8
"""Extended domain of circuits with up to seven inner columns; prices are for this one."""


def features(geometry: Geometry) -> tuple[float, ...]:
    """What a circuit's cost is linear in, in the order of `Prices`' fields."""
    rows = geometry.rows * geometry.extension / COMMON_EXTENSION
    columns = geometry.blocks * geometry.inner_columns
    return (
        1.0,
        rows,
        rows * columns,
        rows * geometry.blocks,
        rows * geometry.lookup_batches,
        rows * geometry.einsum_blocks * geometry.inner_columns,
        rows * columns * geometry.tables,
        rows * (columns + 3) * geometry.shuffle_blocks,
        float(geometry.cells),
    )


def price(geometry: Geometry, prices: Prices) -> float:
    """A circuit's cost in the prices' unit."""
    listed = (
        prices.fixed,
        prices.row,
        prices.main,
        prices.block,
        prices.batch,
        prices.einsum,
        prices.table,
        prices.shuffle,
        prices.cell,
    )
    return sum(each * amount for each, amount in zip(listed, features(geometry), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class CostModel:
    """A machine's prices, for workers of some number of threads."""

    profile: Profile
    threads: int = 1

    def prove_s(self, geometry: Geometry) -> float:
        """Wall seconds of proving, keys at hand."""
        return self._wall_s(price(geometry, self.profile.prove_core_s))

    def setup_s(self, geometry: Geometry) -> float:
        """Wall seconds of compiling and making keys."""
        return self._wall_s(price(geometry, self.profile.setup_core_s))

    def peak_bytes(self, geometry: Geometry) -> int:
        """Resident set of a worker that makes the keys, the witness and the proof."""
        grown = max(
            price(geometry, self.profile.prove_bytes), price(geometry, self.profile.setup_bytes)
        )
        return self.profile.worker_bytes + int(grown)

    def forecast(self, circuits: DerivedCircuits) -> Forecast:
        """What a plan is expected to cost."""
        plan = circuits.plan
        chunks = []
        for chunk in plan.chunks:
            geometry = geometry_of(circuits.files[chunk.id].settings)
            chunks.append(
                ChunkForecast(
                    chunk=chunk.id,
                    column_blocks=geometry.blocks,
                    advice_columns=geometry.advice_columns,
                    prove_s=round(self.prove_s(geometry), 3),
                    setup_s=round(self.setup_s(geometry), 3),
                    peak_bytes=self.peak_bytes(geometry),
                    proof_bytes=proof_bytes(geometry),
                )
            )
        return Forecast(
            plan_sha256=plan.digest(),
            profile_sha256=self.profile.digest(),
            threads=self.threads,
            chunk_s=self.profile.chunk_s,
            chunks=tuple(chunks),
        )

    def _wall_s(self, core_s: float) -> float:
        serial = self.profile.serial_share
        return core_s * (serial + (1 - serial) / self.threads)


def proof_bytes(geometry: Geometry) -> int:
    """Length of a circuit's proof, within a tenth: its commitments and evaluations go by columns.

    The same on every machine; fitted to 22 proofs, largest error 7 % (docs/adr/0014).
    """
    columns = geometry.blocks * geometry.inner_columns
    return round(
        1175
        + 332 * columns
        + 513 * geometry.blocks
        + 883 * geometry.lookup_batches
        + 1068 * geometry.einsum_blocks * geometry.inner_columns
        + 227 * columns * geometry.tables
        + 236 * (columns + 3) * geometry.shuffle_blocks
    )
