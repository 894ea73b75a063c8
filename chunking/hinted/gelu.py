"""Erf, and GELU.

Erf alone is an odd function with a table (`functions`). In GELU it is multiplied by a multiple u of
its own argument v, which needs no sign: v is settled as v = p - n with p n = 0; |v| = p + n is
looked up in the table of erf; and u (c + erf v) is u c + |u| erf |v|: exact, so it is not rounded
before the next product is. Which of both it is shows where it is read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import onnx

from zkml_ray.chunking.hinted.forms import Pending
from zkml_ray.chunking.hinted.functions import odd, shifted
from zkml_ray.chunking.hinted.grid import View
from zkml_ray.chunking.hinted.settle import Rounding
from zkml_ray.chunking.hinted.values import ErrorFunction

if TYPE_CHECKING:
    from zkml_ray.chunking.hinted.lower import Lowering


def error_function(lowering: Lowering, node: onnx.NodeProto) -> ErrorFunction:
    """Erf, to be looked up as its reader needs it."""
    (name,) = node.input
    key, argument = node.output[0], lowering.linear(name)

    def alone(plus: float) -> View:
        found = lowering.once(f"{key}/erf", lambda: odd(lowering, "Erf", argument, name))
        return found if not plus else shifted(lowering, found, plus)

    return ErrorFunction(key=key, name=name, argument=argument, alone=alone)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """An argument v = p - n, and erf |v|.

    Attributes:
        positive: p.
        negative: Tensor of n, in the same order.
        magnitude: Tensor of |v|.
        result: Tensor of erf |v|, at the circuit's scale.
    """

    positive: View
    negative: str
    magnitude: str
    result: str


def _parts(lowering: Lowering, gate: ErrorFunction) -> _Parts:
    numbers, circuit = lowering.numbers, lowering.circuit
    rounding = Rounding(
        resolution=lowering.resolution,
        offset=0,
        result_digits=1,
        below_digits=1,
        keeps_below=True,
    )
    settled = lowering.settle(replace(gate.argument, relu=True), rounding, gate.name)
    positive, size = settled.wire.name, settled.wire.size
    magnitude = circuit.add(positive, settled.below, size)
    return _Parts(
        positive=settled.view(),
        negative=settled.below,
        magnitude=magnitude,
        result=circuit.function("Erf", magnitude, size, numbers.scale),
    )


def gated(lowering: Lowering, first: str, second: str) -> View | None:
    """U (c + erf v), exactly, where u and v are multiples of one tensor; else None."""
    gate, name = lowering.value(first), second
    if not isinstance(gate, ErrorFunction):
        gate, name = lowering.value(second), first
    value = lowering.value(name)
    if not isinstance(gate, ErrorFunction) or not isinstance(value, (Pending, View)):
        return None
    argument, source = lowering.pending(name), gate.argument.source
    if not argument.is_linear or argument.source != source or not source:
        return None
    circuit, numbers = lowering.circuit, lowering.numbers
    function = gate
    parts = lowering.once(f"{gate.key}/parts", lambda: _parts(lowering, function))
    size, bits = parts.positive.wire.size, numbers.scale
    one = 1 << bits
    plus = round(gate.plus * one)
    tensor = circuit.multiply(parts.magnitude, parts.result, size)
    if plus:
        signed = circuit.subtract(parts.positive.wire.name, parts.negative, size)
        raised = circuit.raised(circuit.multiply(signed, circuit.whole([plus]), size), 0, bits)
        tensor = circuit.add(tensor, raised, size)
    bound = numbers.digit_bound * (one + abs(plus))
    ratio = argument.multiple / gate.argument.multiple
    wire = lowering.wire(tensor, size, -bound, bound, lowering.resolution * one / ratio, bits)
    lowering.step(
        do="gate",
        wire=tensor,
        positive=parts.positive.wire.name,
        negative=parts.negative,
        bits=bits,
        plus=plus,
    )
    return View(wire=wire, index=parts.positive.index)
