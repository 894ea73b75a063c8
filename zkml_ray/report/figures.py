"""A run in figures, and two runs beside each other. Times and memory are the prover's word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zkml_ray.schema.manifest import ChunkRecord, Manifest
from zkml_ray.schema.plan import Plan
from zkml_ray.words import seconds_in_words, size_in_words


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Totals of a run.

    Attributes:
        chunks: Chunks of the plan.
        proved: Those that are proved.
        workers: Workers that proved.
        wall_s: Seconds from the first key to the last proof.
        keys_s: Seconds of workers, for keys.
        keys_made: Chunks whose keys were made, not found.
        witness_s: Seconds of workers, for witnesses.
        prove_s: Seconds of workers, for proving.
        check_s: Seconds of the coordinator, for checking proofs.
        peak_bytes: Most memory of a worker.
        proof_bytes: All proofs.
        rows: Rows of all circuits, before they are split over columns.
        hash_rows: Rows of hashing.
        max_abs_error: Largest difference of an output from the float model's; None where unknown.
    """

    chunks: int
    proved: int
    workers: int
    wall_s: float
    keys_s: float
    keys_made: int
    witness_s: float
    prove_s: float
    check_s: float
    peak_bytes: int
    proof_bytes: int
    rows: int
    hash_rows: int
    max_abs_error: float | None


def figures(plan: Plan, records: Sequence[ChunkRecord], manifest: Manifest | None) -> Figures:
    """The totals of a run, complete or not."""
    began = min((record.setup.started_s for record in records), default=0.0)
    ended = max((record.prove.ended_s for record in records), default=0.0)
    accuracy = manifest.accuracy if manifest else None
    return Figures(
        chunks=len(plan.chunks),
        proved=len(records),
        workers=len({record.worker for record in records}),
        wall_s=ended - began,
        keys_s=sum(record.setup.seconds for record in records),
        keys_made=sum(record.keys_made for record in records),
        witness_s=sum(record.witness.seconds for record in records),
        prove_s=sum(record.prove.seconds for record in records),
        check_s=sum(record.verify_s for record in records),
        peak_bytes=max((record.peak_rss_bytes for record in records), default=0),
        proof_bytes=sum(record.proof_bytes for record in records),
        rows=sum(chunk.num_rows for chunk in plan.chunks),
        hash_rows=sum(chunk.poseidon_rows for chunk in plan.chunks),
        max_abs_error=accuracy.max_abs_error if accuracy else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One figure of two runs.

    Attributes:
        name: What it is.
        first: The first run's, as text.
        second: The second run's.
        ratio: The second by the first; None where that means nothing.
    """

    name: str
    first: str
    second: str
    ratio: float | None


def compared(first: Figures, second: Figures) -> list[Difference]:
    """The figures of two runs, side by side."""

    def row(name: str, a: float, b: float, text: str, shown: str) -> Difference:
        return Difference(name=name, first=text, second=shown, ratio=b / a if a > 0 else None)

    rows = [
        row("chunks", first.chunks, second.chunks, f"{first.chunks:,}", f"{second.chunks:,}"),
        row("workers", first.workers, second.workers, f"{first.workers}", f"{second.workers}"),
    ]
    for name, a, b in (
        ("first key to last proof", first.wall_s, second.wall_s),
        ("keys", first.keys_s, second.keys_s),
        ("witness", first.witness_s, second.witness_s),
        ("prove", first.prove_s, second.prove_s),
        ("check of proofs", first.check_s, second.check_s),
    ):
        rows.append(row(name, a, b, seconds_in_words(a), seconds_in_words(b)))
    for name, a, b in (
        ("most memory", first.peak_bytes, second.peak_bytes),
        ("proofs", first.proof_bytes, second.proof_bytes),
    ):
        rows.append(row(name, a, b, size_in_words(a), size_in_words(b)))
    for name, a, b in (
        ("keys made", first.keys_made, second.keys_made),
        ("rows", first.rows, second.rows),
        ("hash rows", first.hash_rows, second.hash_rows),
    ):
        rows.append(row(name, a, b, f"{a:,}", f"{b:,}"))
    one, other = first.max_abs_error, second.max_abs_error
    rows.append(
        Difference(
            name="off the float model",
            first="?" if one is None else f"{one:.3g}",
            second="?" if other is None else f"{other:.3g}",
            ratio=other / one if one and other is not None else None,
        )
    )
    return rows
