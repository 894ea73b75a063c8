"""What a plan is expected to cost on a machine. Stored beside the plan, never part of it.

A plan's digest is a trust root that anyone can re-build; what a machine needs for it is not
(docs/adr/0014). Nothing here is read by a verifier.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from zkml_ray.chunking.cuts import makespan_s
from zkml_ray.schema.document import ChunkId, Document, Sha256

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=0, le=1 << 53)]


class ChunkForecast(Document):
    """What one chunk is expected to cost.

    Attributes:
        chunk: The chunk.
        column_blocks: Blocks of columns of the main region.
        advice_columns: Columns that a witness fills.
        prove_s: Wall seconds of proving with the forecast's threads.
        setup_s: Wall seconds of making its keys with as many threads.
        peak_bytes: Resident set of the worker that makes the keys and proves.
        proof_bytes: Length of the proof.
    """

    chunk: ChunkId
    column_blocks: Annotated[int, Field(ge=1)]
    advice_columns: Annotated[int, Field(ge=1)]
    prove_s: Seconds
    setup_s: Seconds
    peak_bytes: Bytes
    proof_bytes: Bytes


class Forecast(Document):
    """What a plan is expected to cost.

    Attributes:
        format: Version of this schema.
        plan_sha256: Digest of the plan.
        profile_sha256: Digest of the profile that priced it.
        threads: Prover threads of a worker.
        chunk_s: Seconds a worker spends on every chunk besides proving.
        chunks: In plan order.
    """

    format: Literal["zkml_ray/forecast/1"] = "zkml_ray/forecast/1"
    plan_sha256: Sha256
    profile_sha256: Sha256
    threads: Annotated[int, Field(ge=1)]
    chunk_s: Seconds
    chunks: tuple[ChunkForecast, ...]

    def makespan_s(self, workers: int) -> float:
        """Seconds until the last chunk is proved, keys at hand.

        Chunks are handed out in plan order, to the first free worker: the scheduler prefers longer
        ones among those that wait, which are few while witnesses are made in that order.
        """
        return makespan_s([chunk.prove_s + self.chunk_s for chunk in self.chunks], workers)

    def of(self, chunk_id: str) -> ChunkForecast:
        """The forecast of one chunk (KeyError if there is none)."""
        for chunk in self.chunks:
            if chunk.chunk == chunk_id:
                return chunk
        raise KeyError(chunk_id)
