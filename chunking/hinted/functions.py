"""Erf in GELU, softmax and LayerNormalization.

GELU. The argument v is settled as v = p - n with p n = 0; |v| = p + n is looked up in the table of
erf; and u (c + erf v), with u a multiple of v, is u c + |u| erf |v|: exact, so it is not rounded
before the next product is.

Softmax. Each row is moved so that its largest score stands at the top of the exponential's table
(a hint; any move gives the same quotients), where it is exact to 2^-22; scores more than 8 below
the largest count as 8 below it, exp(-8) = 0.0003 of its weight. The row's reciprocal sum is a hint
too: (r - 1) s <= C <= (r + 1) s for the row's sum s. C is what the largest weight times the largest
reciprocal barely reaches, so that rows moved to where the table is coarse have no reciprocal.

LayerNormalization. With c = D x - sum x, exact, and W = sum c^2 + eps, the hinted reciprocal root r
satisfies (r - 1)^2 W <= C <= (r + 1)^2 W, for the C that makes r the reciprocal of the standard
deviation at its resolution. Then c r gamma + beta is rounded once.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from onnx import helper

from zkml_ray.chunking.hinted.forms import Form, Local, NotHintedError, Pending, identity
from zkml_ray.chunking.hinted.grid import View
from zkml_ray.chunking.hinted.recipe import FINE_OVERLAP
from zkml_ray.chunking.hinted.settle import Rounding
from zkml_ray.chunking.hinted.values import ErrorFunction

if TYPE_CHECKING:
    from zkml_ray.chunking.hinted.lower import Lowering

TABLE_TOP: Final = 8
"""Largest argument of the exponential's table that is used: exp(8) = 2981."""

SHARE_RESERVE: Final = 64
"""Softmax results stop so far below the largest digit, for their roundings."""

_NO_MORE_BITS: Final = 130


def error_function(lowering: Lowering, node: onnx.NodeProto) -> ErrorFunction:
    """Erf of a tensor, to be multiplied by a multiple of that tensor."""
    numbers, circuit = lowering.numbers, lowering.circuit
    pending = lowering.linear(node.input[0])
    rounding = Rounding(
        resolution=lowering.resolution,
        offset=0,
        result_digits=1,
        below_digits=1,
        keeps_below=True,
    )
    split = replace(pending, relu=True)
    settled = lowering.settle(split, rounding, node.input[0])
    positive, size = settled.wire.name, settled.wire.size
    magnitude = circuit.add(positive, settled.below, size)
    return ErrorFunction(
        source=pending.source,
        multiple=pending.multiple,
        positive=settled.view(),
        negative=settled.below,
        magnitude=magnitude,
        result=circuit.function("Erf", magnitude, size, numbers.scale),
        bits=numbers.scale,
    )


def gated(lowering: Lowering, first: str, second: str) -> View:
    """U (c + erf v), exactly; u and v are multiples of one tensor."""
    gate, name = lowering.value(first), second
    if not isinstance(gate, ErrorFunction):
        gate, name = lowering.value(second), first
    argument = lowering.value(name)
    if not isinstance(gate, ErrorFunction) or not isinstance(argument, Pending):
        raise NotHintedError("products of two tensors have no hinted form")
    if not argument.is_linear or argument.source != gate.source or not gate.source:
        raise NotHintedError("erf is multiplied by another tensor than its argument")
    circuit, numbers = lowering.circuit, lowering.numbers
    size, one = gate.positive.wire.size, 1 << gate.bits
    plus = round(gate.plus * one)
    tensor = circuit.multiply(gate.magnitude, gate.result, size)
    if plus:
        signed = circuit.subtract(gate.positive.wire.name, gate.negative, size)
        raised = circuit.raised(circuit.multiply(signed, circuit.whole([plus]), size), 0, gate.bits)
        tensor = circuit.add(tensor, raised, size)
    bound = numbers.digit_bound * (one + abs(plus))
    ratio = argument.multiple / gate.multiple
    wire = lowering.wire(tensor, size, -bound, bound, lowering.resolution * one / ratio, gate.bits)
    lowering.step(
        do="gate",
        wire=tensor,
        positive=gate.positive.wire.name,
        negative=gate.negative,
        bits=gate.bits,
        plus=plus,
    )
    return View(wire=wire, index=gate.positive.index)


def softmax(lowering: Lowering, node: onnx.NodeProto) -> View:
    """The softmax over the last axis."""
    numbers, circuit = lowering.numbers, lowering.circuit
    shape = lowering.shape(node.output[0])
    axis = _attribute(node, "axis", -1)
    if axis not in (-1, len(shape) - 1):
        raise NotHintedError("a softmax over another axis than the last has no hinted form")
    keys = shape[-1]
    pending = lowering.linear(node.input[0])
    flat = pending.sites.reshape(-1, keys)
    if pending.form.channels != keys or not np.array_equal(
        flat, np.arange(flat.size).reshape(flat.shape)
    ):
        pending = identity(lowering.view(node.input[0]))
    bits = numbers.scale
    if 1 << numbers.logrows != TABLE_TOP << bits:
        # With a larger table a row could stand above `top`, where one step of its reciprocal is
        # much; with a smaller one scores would be cut off nearer than TABLE_TOP below the largest.
        raise NotHintedError(
            f"a softmax at scale {bits} has a hinted form in circuits of "
            f"2^{bits + TABLE_TOP.bit_length() - 1} rows alone"
        )
    top = numbers.divisor - 1
    moved = lowering.settle(
        pending,
        Rounding(
            resolution=lowering.resolution,
            offset=0,
            result_digits=1,
            below_digits=numbers.digits,
            row_top=top,
        ),
        node.input[0],
    )
    rows, size = len(flat), flat.size
    power = circuit.function("Exp", moved.wire.name, size, bits)
    weights = circuit.reshape(power, [rows, keys])
    high, unit = _exponential(numbers.digit_bound, bits), _exponential(top, bits)
    total = circuit.sum_rows(weights, rows, keys)
    share = _fine(lowering, rows)
    target = _rounded(unit * (numbers.divisor << FINE_OVERLAP))
    goal = circuit.raised(circuit.dynamic(target), 0, bits)
    most = (_fine_bound(lowering) + 1) * keys * high + target
    for change in (1, -1):
        near = circuit.add(share, circuit.whole([change]), rows)
        product = circuit.multiply(total, near, rows)
        left, right = (product, goal) if change > 0 else (goal, product)
        difference = circuit.subtract(left, right, rows)
        _check_not_negative(lowering, difference, rows, most, nominal=bits)
    tensor = circuit.multiply(weights, circuit.reshape(share, [rows, 1]), size)
    wire = lowering.wire(
        circuit.reshape(tensor, [size]),
        size,
        0,
        high * _fine_bound(lowering),
        float(target),
        bits,
    )
    lowering.step(
        do="share",
        wire=wire.name,
        exponent=moved.wire.name,
        shape=[rows, keys],
        bits=bits,
        target=target,
        digits=_places(lowering, most),
    )
    # The wire's order is that of the scores: one row after the other.
    view = View(wire=wire, index=np.arange(size, dtype=np.int64).reshape(shape))
    resolution = numbers.divisor - SHARE_RESERVE
    return lowering.settle(
        identity(view),
        Rounding(resolution=resolution, offset=0, result_digits=1, below_digits=0),
        node.output[0],
    ).view()


def layer_norm(lowering: Lowering, node: onnx.NodeProto) -> Pending:
    """Normalisation over the last axis."""
    numbers, circuit = lowering.numbers, lowering.circuit
    view = lowering.rounded(node.input[0])
    width = view.shape[-1]
    if _attribute(node, "axis", -1) not in (-1, len(view.shape) - 1):
        raise NotHintedError("a normalisation over more than the last axis has no hinted form")
    gamma = lowering.constant(node.input[1])
    beta = lowering.constant(node.input[2]) if len(node.input) > 2 else np.zeros(width)
    rows, size = view.index.size // width, view.index.size
    values = circuit.gather(view.wire.name, view.index.reshape(rows, width))
    total = circuit.sum_rows(values, rows, width)
    centred = circuit.subtract(
        circuit.multiply(values, circuit.whole([width]), size),
        circuit.reshape(total, [rows, 1]),
        size,
    )
    bound = 2 * width * view.wire.magnitude
    squares = circuit.product("rk,rk->r", centred, centred, outputs=rows, length=width)
    # sum c^2 is width^3 resolution^2 times the variance.
    variance_unit = float(width**3) * view.wire.resolution**2
    epsilon = _rounded(round(_attribute(node, "epsilon", 1e-5) * variance_unit))
    spread = circuit.add(squares, circuit.whole([epsilon]), rows)
    root = _fine(lowering, rows)
    unit = 1 << numbers.logrows
    target = _rounded(round(unit**2 * variance_unit))
    most = (_fine_bound(lowering) + 1) ** 2 * (width * bound**2 + epsilon) + target
    goal = circuit.whole([target])
    for change in (1, -1):
        near = circuit.add(root, circuit.whole([change]), rows)
        product = circuit.multiply(circuit.multiply(near, near, rows), spread, rows)
        left, right = (product, goal) if change > 0 else (goal, product)
        _check_not_negative(lowering, circuit.subtract(left, right, rows), rows, most)
    tensor = circuit.multiply(centred, circuit.reshape(root, [rows, 1]), size)
    reach = bound * _fine_bound(lowering)
    wire = lowering.wire(
        circuit.reshape(tensor, [size]), size, -reach, reach, width * view.wire.resolution * unit
    )
    lowering.step(
        do="normalise",
        wire=wire.name,
        source=view.wire.name,
        index=circuit.indices(view.index.reshape(rows, width)),
        epsilon=epsilon,
        target=target,
        digits=_places(lowering, most),
        name=node.input[0],
    )
    index = np.arange(size, dtype=np.int64).reshape(rows, width)
    form = Form(
        groups=rows,
        channels=width,
        local=(Local(wire=wire, index=index[..., None], weights=gamma.reshape(width, 1)),),
        bias=beta.reshape(1, width),
    )
    return Pending(form=form, sites=index.reshape(view.shape))


def _fine(lowering: Lowering, count: int) -> str:
    """New hints of two digits each, finer than rounded values; their tensor."""
    circuit = lowering.circuit
    low, high = (circuit.hinted(circuit.hints(count)) for _ in range(2))
    weight = circuit.whole([1 << FINE_OVERLAP])
    return circuit.add(low, circuit.multiply(high, weight, count), count)


def _fine_bound(lowering: Lowering) -> int:
    return lowering.numbers.digit_bound * (1 + (1 << FINE_OVERLAP))


def _check_not_negative(
    lowering: Lowering, tensor: str, count: int, most: int, nominal: int = 0
) -> None:
    """Hold a flat tensor's elements at zero or above.

    They are put together of digits of `logrows - 1` bits, more than `most` needs and far fewer
    than would wrap.
    """
    circuit = lowering.circuit
    step = lowering.numbers.logrows - 1
    total = ""
    for place in range(1, _places(lowering, most)):
        digit = circuit.hinted(circuit.hints(count))
        part = circuit.multiply(digit, circuit.whole([1 << (step * place)]), count)
        total = circuit.add(total, part, count) if total else part
    if total:
        tensor = circuit.subtract(tensor, circuit.raised(total, 0, nominal), count)
    circuit.check_digits(tensor, count, nominal)


def _places(lowering: Lowering, most: int) -> int:
    if most.bit_length() > _NO_MORE_BITS:
        raise NotHintedError("a normalisation's numbers are too large")
    return -(-most.bit_length() // (lowering.numbers.logrows - 1))


def _exponential(argument: int, bits: int) -> int:
    """At least what ezkl's table holds for an argument."""
    return math.ceil(math.exp(argument / (1 << bits)) * (1 << bits) * (1 + 1e-6)) + 1


def _rounded(number: int) -> int:
    """The nearest number that float32 holds."""
    return int(np.float32(number))


def _attribute(node: onnx.NodeProto, name: str, default: float) -> float:
    for attribute in node.attribute:
        if attribute.name == name:
            found: float = helper.get_attribute_value(attribute)
            return found
    return default
