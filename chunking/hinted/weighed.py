"""A form's sums under a challenge: no product with a weight is left in the circuit."""

from __future__ import annotations

from typing import Final

import numpy as np

from zkml_ray.chunking.hinted.challenge import Identity
from zkml_ray.chunking.hinted.circuit import Circuit
from zkml_ray.chunking.hinted.forms import Dense, Local, Pair
from zkml_ray.chunking.hinted.grid import Ints
from zkml_ray.chunking.hinted.layout import Layout
from zkml_ray.chunking.hinted.rounding import Quantised
from zkml_ray.chunking.hinted.sums import Step

WEIGHTED_CELLS: Final = 3
"""Of every w'_k: its column, its power of t, its product with that."""

GIVEN_CELLS: Final = 2
"""Of every first remainder, which is a hint here: its column and its product."""


def is_cheaper(form: Quantised, groups: Ints, layout: Layout) -> bool:
    """Whether a challenge takes fewer cells than packed sums, roughly.

    Args:
        form: What is settled.
        groups: Shape [windows, t].
        layout: How its sums would be packed.
    """
    if not form.dense and not form.pairs:
        return False
    rows = groups.size
    cells = rows * form.form.channels * GIVEN_CELLS
    packed = layout.cost(form)
    for dense, _ in form.dense:
        depth = dense.index.shape[1]
        cells += rows * depth + depth * WEIGHTED_CELLS
    for pair, _ in form.pairs:
        cells += pair.left_index.size + pair.right_index.size
        packed += layout.units * pair.left_index.shape[2] + pair.right_index.size
    return cells < packed


def weighed_sums(
    circuit: Circuit, identity: Identity, form: Quantised, layout: Layout
) -> tuple[str, list[Step]]:
    """Emit the sum of rho^i sigma^j Y_ij.

    Args:
        circuit: Where to.
        identity: Gives the powers.
        form: The form.
        layout: Over channels, one slot a unit.

    Returns:
        The sum, shape [1], at the form's nominal scale; and the terms for the recipe.
    """
    total, steps = "", []

    def take(sum_: str, nominal: int) -> None:
        nonlocal total
        found = circuit.raised(circuit.reshape(sum_, [1]), nominal, form.nominal)
        total = circuit.add(total, found, 1) if total else found

    for dense, weights in form.dense:
        found, step = _dense(circuit, identity, dense, weights, layout)
        take(found, dense.wire.nominal)
        steps.append(step)
    for local, weights in form.local:
        found, step = _local(circuit, identity, local, weights, layout)
        take(found, local.wire.nominal)
        steps.append(step)
    for pair, factor in form.pairs:
        found, step = _pair(circuit, identity, pair, factor, layout)
        take(found, pair.left.nominal + pair.right.nominal)
        steps.append(step)
    return total, steps


def _dense(
    circuit: Circuit, identity: Identity, dense: Dense, weights: Ints, layout: Layout
) -> tuple[str, Step]:
    """(rho^T A) . (W sigma)."""
    index = layout.rows(dense.index)
    rows, depth = index.shape
    inputs = circuit.gather(dense.wire.name, index, size=dense.wire.size)
    folded = circuit.product("i,ik->k", identity.rho(rows), inputs, outputs=depth, length=rows)
    total = circuit.product("k,k->", folded, identity.weighted(depth), outputs=1, length=depth)
    step = {
        "kind": "columns",
        "wire": dense.wire.name,
        "index": circuit.indices(index),
        "weights": circuit.whole(layout.columns(weights)),
        "product": True,
    }
    return total, step


def _local(
    circuit: Circuit, identity: Identity, local: Local, weights: Ints, layout: Layout
) -> tuple[str, Step]:
    index = layout.slots(local.index)  # [units, 1, K]
    t, a, b, _ = layout.shape
    depth = index.shape[2]
    arranged = layout.per_slot(weights)  # [1 or B, 1, K]
    step = {
        "kind": "local",
        "wire": local.wire.name,
        "index": circuit.indices(index),
        "weights": circuit.whole(arranged),
    }
    inputs = circuit.gather(local.wire.name, index.reshape(t * a, b * depth), size=local.wire.size)
    folded = circuit.product(
        "i,ib->b", identity.rho(t * a), inputs, outputs=b * depth, length=t * a
    )
    each = np.broadcast_to(arranged[:, 0], (b, depth)).ravel()
    powers = circuit.gather(identity.sigma(b), np.repeat(np.arange(b, dtype=np.int64), depth))
    factors = circuit.multiply(powers, circuit.whole(each), b * depth)
    total = circuit.product("k,k->", folded, factors, outputs=1, length=b * depth)
    return total, step


def _pair(
    circuit: Circuit, identity: Identity, pair: Pair, factor: int, layout: Layout
) -> tuple[str, Step]:
    """(rho^T L) . (R sigma), a batch each."""
    index = layout.paired(pair.right_index)  # [batch, K, channels, 1]
    batch, depth, channels, _ = index.shape
    rows = pair.left_index.shape[1]
    powers = identity.rho(batch * rows)
    if pair.rows is not None:
        powers = circuit.multiply(powers, pair.rows.tensor, batch * rows)
    left = circuit.gather(pair.left.name, pair.left_index, size=pair.left.size)
    folded = circuit.product(
        "bm,bmk->bk",
        circuit.reshape(powers, [batch, rows]),
        left,
        outputs=batch * depth,
        length=rows,
    )
    right = circuit.gather(pair.right.name, index[..., 0], size=pair.right.size)
    summed = circuit.product(
        "bkc,c->bk", right, identity.sigma(channels), outputs=batch * depth, length=channels
    )
    total = circuit.product(
        "k,k->",
        circuit.reshape(folded, [batch * depth]),
        circuit.reshape(summed, [batch * depth]),
        outputs=1,
        length=batch * depth,
    )
    total = circuit.multiply(circuit.reshape(total, [1]), circuit.whole([factor]), 1)
    step = {
        "kind": "pair",
        "rows": pair.rows.tensor if pair.rows is not None else "",
        "wire": pair.left.name,
        "index": circuit.indices(pair.left_index),
        "right": pair.right.name,
        "right_index": circuit.indices(index),
        "factor": factor,
    }
    return total, step
