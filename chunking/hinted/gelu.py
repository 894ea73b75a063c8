"""Erf in GELU.

The argument v is settled as v = p - n with p n = 0; |v| = p + n is looked up in the table of erf;
and u (c + erf v), with u a multiple of v, is u c + |u| erf |v|: exact, so it is not rounded before
the next product is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import onnx

from zkml_ray.chunking.hinted.forms import NotHintedError, Pending
from zkml_ray.chunking.hinted.grid import View
from zkml_ray.chunking.hinted.settle import Rounding
from zkml_ray.chunking.hinted.values import ErrorFunction

if TYPE_CHECKING:
    from zkml_ray.chunking.hinted.lower import Lowering


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
