"""Functions of single elements that a split at zero gives: ReLU, Clip, Abs, LeakyRelu, maxima.

A tensor is settled as x = p - n with p, n >= 0 and p n = 0 (`Rounding.keeps_below`), so that its
positive and its negative part are both there, at the price of a ReLU. A bound from above is a
ReLU of what is left to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx

from zkml_ray.chunking.hinted.forms import Floats, Form, NotHintedError, Pending, identity
from zkml_ray.chunking.hinted.grid import View
from zkml_ray.chunking.hinted.operators.linear import rescaled, shifted_by
from zkml_ray.chunking.hinted.operators.reading import broadcast, number, optional
from zkml_ray.chunking.hinted.settle import Rounding
from zkml_ray.chunking.hinted.values import Signs, Value
from zkml_ray.chunking.hinted.whole import bits_of

if TYPE_CHECKING:
    from zkml_ray.chunking.hinted.lower import Lowering


def relu(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """Relu; of signs the bit that a comparison asks for."""
    value = lowering.value(node.input[0])
    if isinstance(value, Signs):
        return value.above()
    return replace(lowering.pending(node.input[0]), relu=True)


def absolute(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """Abs: p + n; of signs whether they are none of zero."""
    value = lowering.value(node.input[0])
    if isinstance(value, Signs):
        return value.other()
    positive, negative = _parts(lowering, node.input[0])
    # One of them is zero: no sum is larger than either can be.
    return _affine(lowering, positive, 1, plus=negative)


def leaky(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """LeakyRelu: p - alpha n."""
    alpha = number(node, "alpha", 0.01)
    positive, negative = _parts(lowering, node.input[0])
    made = identity(positive)
    return replace(made, form=made.form.plus(made.read(negative, -alpha)))


def clipped(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """Clip between constants: high - relu(high - low - relu(x - low)) + ..., bound by bound."""
    low, high = (_bound(lowering, node, place) for place in (1, 2))
    limit = lowering.numbers.value_bound
    for bound in (low, high):
        if bound is not None and np.isnan(bound):
            raise NotHintedError("a bound is no number")
    # What no rounded value can reach is no bound of one; of what is still to be rounded it is.
    least = None if low is None or low * lowering.resolution <= -limit else low
    most = None if high is None or high * lowering.resolution >= limit else high
    for bound in (least, most):
        if bound is not None and abs(bound) * lowering.resolution > limit:
            raise NotHintedError(
                f"its bound {bound:g} lies outside --range-bits", range_bits=bits_of(abs(bound))
            )
    dropped = (least is None and low is not None) or (most is None and high is not None)
    if least is None and most is None:
        return lowering.rounded(node.input[0]) if dropped else lowering.value(node.input[0])
    pending = (
        identity(lowering.rounded(node.input[0])) if dropped else lowering.linear(node.input[0])
    )
    if least is None:
        top = round(most * lowering.resolution)  # type: ignore[operator]
        under = shifted_by(rescaled(pending, -1.0), top / lowering.resolution)
        return _affine(lowering, _relu_of(lowering, under, node), -1, offset=top)
    bottom = round(least * lowering.resolution)
    above = _relu_of(lowering, shifted_by(pending, -bottom / lowering.resolution), node)
    if most is None:
        return above if not bottom else _affine(lowering, above, 1, offset=bottom)
    top = round(most * lowering.resolution)
    left = shifted_by(rescaled(identity(above), -1.0), (top - bottom) / lowering.resolution)
    return _affine(lowering, _relu_of(lowering, left, node), -1, offset=top)


def farthest(sign: float) -> Callable[[Lowering, onnx.NodeProto], Value]:
    """Max, or with -1 Min: b + relu(a - b), one tensor after the other."""

    def lower(lowering: Lowering, node: onnx.NodeProto) -> Value:
        shape = lowering.shape(node.output[0])
        names = sorted(node.input, key=lambda n: isinstance(lowering.value(n), np.ndarray))
        found = _spread(lowering, names[0], shape)
        if isinstance(found, np.ndarray):
            raise NotHintedError("it compares constants alone")
        for name in names[1:]:
            other = _spread(lowering, name, shape)
            made = identity(found)
            excess = replace(made, form=made.form.plus(_part(made, other, -1.0)))
            excess = rescaled(excess, sign)
            settled = identity(_relu_of(lowering, excess, node))
            total = rescaled(settled, sign)
            total = replace(total, form=total.form.plus(_part(total, other, 1.0)))
            if name == names[-1]:
                return replace(total, source="", multiple=1.0)
            found = lowering.settled(total, node.output[0])
        return found

    return lower


def _spread(lowering: Lowering, name: str, shape: tuple[int, ...]) -> View | Floats:
    if isinstance(lowering.value(name), np.ndarray):
        constant = lowering.constant(name)
        if np.abs(constant).max(initial=0) > 2.0**lowering.numbers.range_bits:
            most = float(np.abs(constant).max(initial=0))
            raise NotHintedError(
                "it compares with a constant outside --range-bits", range_bits=bits_of(most)
            )
        return np.broadcast_to(constant, shape)
    view = lowering.view(name)
    return replace(view, index=broadcast(view.index, shape))


def _part(pending: Pending, other: View | Floats, factor: float) -> Form:
    if isinstance(other, np.ndarray):
        return pending.constant(other * factor)
    return pending.read(other, factor)


def _parts(lowering: Lowering, name: str) -> tuple[View, View]:
    """A tensor's positive and negative part, rounded."""
    digits = lowering.numbers.digits
    rounding = Rounding(
        resolution=lowering.resolution,
        offset=0,
        result_digits=digits,
        below_digits=digits,
        keeps_below=True,
    )
    settled = lowering.settle(replace(lowering.linear(name), relu=True), rounding, name)
    positive = settled.view()
    bound = lowering.numbers.bound_of(digits)
    wire = lowering.wire(settled.below, positive.wire.size, 0, bound)
    return positive, View(wire=wire, index=positive.index)


def _bound(lowering: Lowering, node: onnx.NodeProto, place: int) -> float | None:
    name = optional(node, place)
    if not name:
        return None
    value = lowering.value(name)
    if not isinstance(value, np.ndarray) or value.size != 1:
        raise NotHintedError("a bound is no constant number")
    return float(value.ravel()[0])


def _relu_of(lowering: Lowering, pending: Pending, node: onnx.NodeProto) -> View:
    relued = replace(pending, relu=True, source="", multiple=1.0)
    return lowering.settled(relued, node.output[0])


def _affine(
    lowering: Lowering, view: View, factor: int, *, offset: int = 0, plus: View | None = None
) -> View:
    """Rounded elements times 1 or -1, with a number or a wire of the same order added; exact."""
    circuit, size, wire = lowering.circuit, view.wire.size, view.wire
    tensor = wire.name
    if plus is not None:
        tensor = circuit.add(tensor, plus.wire.name, size)
    if factor < 0:
        tensor = circuit.subtract(circuit.whole([offset]), tensor, size)
    elif offset:
        tensor = circuit.add(tensor, circuit.whole([offset]), size)
    ends = sorted((factor * wire.low + offset, factor * wire.high + offset))
    made = lowering.wire(tensor, size, ends[0], ends[1])
    lowering.step(
        do="affine",
        wire=tensor,
        parts=[wire.name] if plus is None else [wire.name, plus.wire.name],
        factor=factor,
        offset=offset,
    )
    return View(wire=made, index=view.index)
