"""How far the sums of a form can reach, as real numbers."""

from __future__ import annotations

import numpy as np

from zkml_ray.chunking.hinted.forms import Floats, Pending
from zkml_ray.chunking.hinted.grid import Wire


def extent(pending: Pending) -> tuple[float, float]:
    """The least and the largest sum in any proof, for the bounds that its wires have."""
    form = pending.form
    low, high = form.bias.min(axis=0), form.bias.max(axis=0)
    for dense in form.dense:
        ends = _ends(dense.weights, dense.wire)
        low, high = low + ends[0].sum(axis=0), high + ends[1].sum(axis=0)
    for local in form.local:
        ends = _ends(local.weights, local.wire)
        low, high = low + ends[0].sum(axis=1), high + ends[1].sum(axis=1)
    for pair in form.pairs:
        scale = pair.left.resolution * pair.right.resolution
        reach = abs(pair.factor) * float(pair.most) / abs(scale)
        low, high = low - reach, high + reach
    return float(low.min(initial=np.inf)), float(high.max(initial=-np.inf))


def _ends(weights: Floats, wire: Wire) -> tuple[Floats, Floats]:
    """What each weight adds at least and at most; zero where nothing is read."""
    first = weights * (min(wire.low, 0) / wire.resolution)
    second = weights * (max(wire.high, 0) / wire.resolution)
    return np.minimum(first, second), np.maximum(first, second)
