"""The packed sums of a form's terms: one inner product for p sums."""

from __future__ import annotations

from typing import Any

from zkml_ray.chunking.hinted.circuit import Circuit
from zkml_ray.chunking.hinted.forms import Dense, Local, Pair
from zkml_ray.chunking.hinted.grid import Ints
from zkml_ray.chunking.hinted.layout import Layout
from zkml_ray.chunking.hinted.rounding import Quantised

Step = dict[str, Any]


def packed_sums(circuit: Circuit, form: Quantised, layout: Layout) -> tuple[str, list[Step]]:
    """Emit a form's sums.

    Args:
        circuit: Where to.
        form: The form.
        layout: How sums are packed.

    Returns:
        The packed sums, [units], at the form's nominal scale; and the terms for the recipe.
    """
    total, steps = "", []
    for dense, weights in form.dense:
        emit = _columns if layout.over_channels else _rows
        sums, step = emit(circuit, dense, weights, layout)
        total = _plus(circuit, total, sums, dense.wire.nominal, form, layout)
        steps.append(step)
    for local, weights in form.local:
        sums, step = _local(circuit, local, weights, layout)
        total = _plus(circuit, total, sums, local.wire.nominal, form, layout)
        steps.append(step)
    for pair, factor in form.pairs:
        sums, step = _pair(circuit, pair, factor, layout)
        nominal = pair.left.nominal + pair.right.nominal
        total = _plus(circuit, total, sums, nominal, form, layout)
        steps.append(step)
    return total, steps


def _plus(
    circuit: Circuit, total: str, sums: str, nominal: int, form: Quantised, layout: Layout
) -> str:
    flat = circuit.raised(circuit.reshape(sums, [layout.units]), nominal, form.nominal)
    return circuit.add(total, flat, layout.units) if total else flat


def _columns(circuit: Circuit, dense: Dense, weights: Ints, layout: Layout) -> tuple[str, Step]:
    """Packed weights: sums of several channels at once."""
    index = layout.rows(dense.index)
    arranged = layout.columns(weights)  # [K, B, p]
    depth, blocks, width = arranged.shape
    constant = circuit.whole(arranged)
    inputs = circuit.gather(dense.wire.name, index, size=dense.wire.size)
    if width > 1:
        powers = circuit.powers(layout.bits, width)
        packed = circuit.product(
            "kbp,p->kb", constant, powers, outputs=depth * blocks, length=width
        )
    else:
        packed = circuit.reshape(constant, [depth, blocks])
    sums = circuit.product("gk,kb->gb", inputs, packed, outputs=len(index) * blocks, length=depth)
    return sums, _step("columns", dense, circuit.indices(index), constant)


def _rows(circuit: Circuit, dense: Dense, weights: Ints, layout: Layout) -> tuple[str, Step]:
    """Packed inputs: sums of several groups at once."""
    index = layout.rows(dense.index)
    rows, width, depth = index.shape
    constant = circuit.whole(weights)
    if width > 1:
        powers = circuit.powers(layout.bits, width)
        turned = circuit.gather(dense.wire.name, index.transpose(0, 2, 1), size=dense.wire.size)
        inputs = circuit.product("ukp,p->uk", turned, powers, outputs=rows * depth, length=width)
    else:
        inputs = circuit.gather(dense.wire.name, index[:, 0], size=dense.wire.size)
    channels = weights.shape[1]
    sums = circuit.product("uk,kc->uc", inputs, constant, outputs=rows * channels, length=depth)
    return sums, _step("rows", dense, circuit.indices(index), constant)


def _local(circuit: Circuit, local: Local, weights: Ints, layout: Layout) -> tuple[str, Step]:
    index = layout.slots(local.index)  # [units, p, K]
    arranged = layout.per_slot(weights)  # [1 or B, p, K]
    blocks, width, depth = arranged.shape
    length = width * depth
    constant = circuit.whole(arranged)
    step = _step("local", local, circuit.indices(index), constant)
    factors = constant
    if width > 1:
        column = circuit.reshape(circuit.powers(layout.bits, width), [width, 1])
        factors = circuit.multiply(constant, column, arranged.size)
    inputs = circuit.gather(local.wire.name, index, size=local.wire.size)
    if length == 1:
        flat = circuit.reshape(inputs, [layout.units // blocks, blocks])
        return circuit.multiply(flat, circuit.reshape(factors, [blocks]), layout.units), step
    if blocks == 1:
        flat = circuit.reshape(inputs, [layout.units, length])
        row = circuit.reshape(factors, [length])
        return circuit.product("um,m->u", flat, row, outputs=layout.units, length=length), step
    flat = circuit.reshape(inputs, [layout.units // blocks, blocks, length])
    row = circuit.reshape(factors, [blocks, length])
    return circuit.product("gbm,bm->gb", flat, row, outputs=layout.units, length=length), step


def _pair(circuit: Circuit, pair: Pair, factor: int, layout: Layout) -> tuple[str, Step]:
    """Products of activations, the right side packed."""
    index = layout.paired(pair.right_index)  # [batch, K, B, p]
    batch, depth, blocks, width = index.shape
    rows = pair.left_index.shape[1]
    weight = circuit.multiply(circuit.powers(layout.bits, width), circuit.whole([factor]), width)
    right = circuit.gather(pair.right.name, index, size=pair.right.size)
    count = batch * depth * blocks
    if width > 1:
        packed = circuit.product("hkbp,p->hkb", right, weight, outputs=count, length=width)
    else:
        packed = circuit.multiply(circuit.reshape(right, [batch, depth, blocks]), weight, count)
    left = circuit.gather(pair.left.name, pair.left_index, size=pair.left.size)
    sums = circuit.product(
        "hmk,hkb->hmb", left, packed, outputs=batch * rows * blocks, length=depth
    )
    if pair.rows is not None:
        factors = circuit.reshape(pair.rows.tensor, [batch, rows, 1])
        sums = circuit.multiply(sums, factors, batch * rows * blocks)
    step = {
        "kind": "pair",
        "rows": pair.rows.tensor if pair.rows is not None else "",
        "wire": pair.left.name,
        "index": circuit.indices(pair.left_index),
        "right": pair.right.name,
        "right_index": circuit.indices(index),
        "factor": factor,
    }
    return sums, step


def _step(kind: str, term: Dense | Local, index: str, weights: str) -> Step:
    return {"kind": kind, "wire": term.wire.name, "index": index, "weights": weights}
