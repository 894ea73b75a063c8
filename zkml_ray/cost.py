"""Rough predictions, for progress displays.

Fitted on one machine (2 cores, ezkl 23.0.5, five inner columns): proving takes a fixed part and a
part that grows with the rows and column blocks that are allocated. Another machine is off by a
factor, a chunk with shuffles or lookups by another.
"""

from __future__ import annotations

from zkml_ray.schema.plan import ChunkPlan, Plan

_FIXED_CORE_S = 0.1
_CORE_S_PER_ROW = 1.0e-4
_CORE_S_PER_BLOCK_ROW = 4.0e-4


def predicted_prove_s(chunk: ChunkPlan, threads: int) -> float:
    """Predicted seconds of proving one chunk with keys at hand.

    Args:
        chunk: The chunk.
        threads: Prover threads.
    """
    rows = 1 << chunk.arguments.logrows
    blocks = -(-chunk.num_rows // rows)
    per_row = _CORE_S_PER_ROW + _CORE_S_PER_BLOCK_ROW * blocks
    return (_FIXED_CORE_S + per_row * rows) / threads


def predicted_makespan_s(plan: Plan, workers: int, threads: int) -> float:
    """Predicted seconds until the last chunk is proved, chunks handed out in plan order."""
    free = [0.0] * workers
    for chunk in plan.chunks:
        first = free.index(min(free))
        free[first] += predicted_prove_s(chunk, threads)
    return max(free)
