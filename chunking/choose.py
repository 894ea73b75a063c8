"""Which rewrites a plan makes when nobody says otherwise.

Passes are tried in the order of `PASSES`; each is applied wherever it pays by a static estimate in
cells, before the next is tried on the rewritten graph. The estimates are those of ezkl 23.0.5 with
decomposition 128^4 and five columns (measured by tests/unit/chunking/test_passes_*.py):

- conv-im2col: by itself as dear as the native convolution; what it defers, a ReLU or a pooling
  saves. Left native where one output position makes it a dense layer;
- maxpool-pairwise: 24 cells for each maximum of two against about 100 a window;
- relu-abs: 4 cells an element;
- dense-integer: nothing by itself: applied where a ReLU follows;
- attention, gelu-ffn, layer-norm: wherever they find their form and the scale leaves them room;
  of the cells that are no multiplications of a product they save a third;
- saturate: everywhere: it costs, and without it an argument beyond a table's end has no proof.

Weight bits are the parameter scale, or more where an output's weights are small beside it, or fewer
where the weights say that sums would leave the decomposition's range: a deferred sum v is held as
v * 2^(scale + bits), times 2^growth inside a pooling, and |.| must take it apart. v is estimated as
`INPUT_MAGNITUDE` * `SIGMAS` times the largest Euclidean norm of an output's weights. Inputs beyond
that estimate may make the witness stage refuse (it never proves anything wrong); then `--no-pass`
helps. Where fewer bits would fit than verifiers demand (`zkml_ray.limits`), or than leave every
output's weights what they are (`passes.precision`), a rewrite is left out.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace
from typing import Final

import numpy as np
import onnx
import onnx_ir as ir

from zkml_ray.chunking.passes.attention import DEFERRED_BITS
from zkml_ray.chunking.passes.base import (
    ANY_BITS,
    Rewrite,
    constant_of,
    dims_of,
    node_named,
    only_user,
)
from zkml_ray.chunking.passes.maxpool import MAX_GROWTH_BITS
from zkml_ray.chunking.passes.precision import CoarseWeightsError, most_lost
from zkml_ray.chunking.rewrite import PASSES, apply_rewrites, find_places
from zkml_ray.limits import MAX_WEIGHT_LOSS, MIN_WEIGHT_BITS

INPUT_MAGNITUDE: Final = 8.0
"""Root mean square of a layer's inputs for which weight bits are chosen."""

SIGMAS: Final = 3.0

MIN_GAMMA_BITS: Final = 10
"""With fewer, layer-norm would be less exact than what it replaces."""

_WITH_WEIGHTS: Final = frozenset({"conv-im2col", "dense-integer"})


def default_rewrites(
    proto: onnx.ModelProto,
    *,
    weight_bits: int,
    range_bits: int = 28,
    passes: Collection[str] | None = None,
) -> list[Rewrite]:
    """Choose rewrites for a model.

    Args:
        proto: The normalised model.
        weight_bits: log2 of the fixed-point denominator of weights and activations.
        range_bits: log2 of the decomposition's range.
        passes: Names of the passes that may be used; None: all.

    Returns:
        The rewrites in the order in which they must be applied.
    """
    chosen: list[Rewrite] = []
    for name in PASSES:
        if passes is not None and name not in passes:
            continue
        model = ir.from_proto(proto)
        found = [
            made
            for place in find_places(proto, name)
            if _pays(model, place) and _has_room(place, weight_bits, range_bits)
            if (made := _with_bits(model, place, weight_bits, range_bits)) is not None
        ]
        for rewrite in found:
            try:
                proto = apply_rewrites(proto, [rewrite])
            except CoarseWeightsError:
                continue  # ezkl's own arithmetic keeps these weights
            chosen.append(rewrite)
    return chosen


def _pays(model: ir.Model, rewrite: Rewrite) -> bool:
    if rewrite.name == "conv-im2col":
        output = dims_of(node_named(model, rewrite.node).outputs[0])
        return output is not None and output[0] * math.prod(output[2:]) > 1
    if rewrite.name == "dense-integer":
        reader = only_user(node_named(model, rewrite.node).outputs[0])
        return reader is not None and reader.op_type == "Relu"
    return True


def _has_room(rewrite: Rewrite, weight_bits: int, range_bits: int) -> bool:
    """Whether what the rewrite's rebases take back stays below the decomposition's range."""
    if rewrite.name == "attention":
        return weight_bits + DEFERRED_BITS < range_bits
    if rewrite.name == "layer-norm":
        return weight_bits + MIN_GAMMA_BITS + 1 < range_bits
    return True


def _with_bits(
    model: ir.Model, rewrite: Rewrite, weight_bits: int, range_bits: int
) -> Rewrite | None:
    """The rewrite with as many weight bits as fit; None where they are too few."""
    if rewrite.name == "layer-norm":
        # Its rebase takes back the scale, the bits and one more.
        return replace(rewrite, parameter=min(rewrite.parameter, range_bits - 2 - weight_bits))
    if rewrite.name not in _WITH_WEIGHTS:
        return rewrite
    node = node_named(model, rewrite.node)
    weight = constant_of(node.inputs[1])
    if weight is None:
        return rewrite
    if node.op_type == "Conv":
        rows = weight.reshape(len(weight), -1)
    else:
        transposed = "transB" in node.attributes and node.attributes["transB"].as_int()
        rows = weight if transposed else weight.T
    norm = float(np.sqrt((rows.astype(np.float64) ** 2).sum(axis=1)).max(initial=0.0))
    value_bits = math.log2(max(norm * INPUT_MAGNITUDE * SIGMAS, 1.0))
    growth = MAX_GROWTH_BITS if node.op_type == "Conv" else 0
    room = math.floor(range_bits - value_bits - weight_bits - growth)
    bits = min(weight_bits, room)
    # A plan of a lower scale than the floor is the user's wish: its rewrites follow it.
    if bits < max(ANY_BITS[0], min(weight_bits, MIN_WEIGHT_BITS)):
        return None
    while bits < min(room, ANY_BITS[1]) and most_lost(rows, bits, 1) > MAX_WEIGHT_LOSS:
        bits += 1
    return replace(rewrite, parameter=bits)
