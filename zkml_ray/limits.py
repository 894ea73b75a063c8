"""What plans may ask for: one set of numbers for those who plan and those who verify.

Two kinds. *Limits* are what is known to be sound, or computable at all: a plan beyond them is
refused whoever chose it. *Floors* are how coarse a plan may be before it is another model than the
one it is called after: verifiers who let a prover choose the plan hold him to them
(`zkml_ray.verifying.policy`), and planners say so where they plan below
(docs/adr/0024-floors-and-bounds-of-plans.md, where they were measured).
"""

from __future__ import annotations

from typing import Final

MAX_BOUNDARY_SCALE: Final = 40
"""Of what circuits give: products may be as fine as two factors."""

MAX_SCALE_BITS: Final = 20
"""log2 of the finest fixed-point step, of values and of weights; 0 would round to whole numbers."""

MAX_RANGE_BITS: Final = 20
"""log2 of the largest value of a hinted circuit, as a real number."""

MIN_NATIVE_BITS: Final = 28
"""Width of what a native circuit takes apart, at least: its factors keep two bits fewer. A plan of
2^14 had factors of 2^-14 rounded to zero, and another class verified."""

MAX_COMMITTED_BITS: Final = 40
"""Width of the values that a circuit may admit and a commitment holds. Soundness needs far less
than the field's 253."""

MAX_LOOKUP: Final = 1 << 26
"""Largest magnitude that a native circuit looks up."""

MAX_ELEMENTS: Final = 1 << 24
"""Elements of all boundaries of a plan together."""

MAX_TENSOR_ELEMENTS: Final = 1 << 26
"""Elements of all tensors of a model under a plan's dimensions together."""

MAX_REWRITTEN_ELEMENTS: Final = 1 << 28
"""The same once a plan's rewrites were made: a convolution's columns repeat what it reads."""

MAX_COLUMNS: Final = 1 << 25
"""Elements of a convolution's columns where a rewrite gathers them, by positions written out."""

MAX_READS: Final = 1 << 27
"""What the windows of one convolution or pooling read in all, each element as often as it is read:
a hinted circuit's positions are written out."""

MAX_REWRITES_PER_NODE: Final = 4
"""Rewrites of a plan for every node of the normalised model. A planner makes two at most."""

MAX_INLINED_NODES: Final = 1 << 17
"""Nodes of a model once its functions stand in place of their calls."""

MAX_STEPS: Final = 1 << 12
"""Steps of a recurrent operator, which are written out one by one."""

MIN_HASH_ROWS: Final = 32
"""Rows that hashing a packed element takes at least, in columns of their own (measured: 41)."""

MIN_SCALE: Final = 7
"""Floor of the scale of inputs and activations."""

MIN_WEIGHT_BITS: Final = 7
"""Floor of the bits that weights keep after the point."""

MAX_WEIGHT_LOSS: Final = 1 / 16
"""Ceiling of what rounding may change of a weight tensor, Euclidean, as a share of its norm. Bits
after the point say nothing of a model whose weights are small: at 7 bits those below 2^-8 are 0."""

MIN_TABLE_BITS: Final = 3
"""Floor of log2 of a table's rows above the scale, in hinted circuits that compute functions: their
tables and reciprocals are as fine as the rows are many. An encoder block at scale 12 is off by
0.0163 with 2^14 rows, by 0.0007 with 2^15."""

FUNCTIONS: Final = frozenset(
    {"Erf", "Exp", "LayerNormalization", "Log", "Sigmoid", "Softmax", "Tanh"}
)
"""Operators that `MIN_TABLE_BITS` is for."""
