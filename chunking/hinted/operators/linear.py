"""Sums, multiples and elementwise products."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx

from zkml_ray.chunking.hinted.forms import Floats, Form, NotHintedError, Pending, identity
from zkml_ray.chunking.hinted.gelu import gated
from zkml_ray.chunking.hinted.grid import View
from zkml_ray.chunking.hinted.operators.exact import exact_multiple, exact_sum
from zkml_ray.chunking.hinted.operators.quotients import quotient, root
from zkml_ray.chunking.hinted.operators.reading import broadcast
from zkml_ray.chunking.hinted.values import ErrorFunction, Signs, Value
from zkml_ray.chunking.hinted.whole import are_whole, is_whole

if TYPE_CHECKING:
    from zkml_ray.chunking.hinted.lower import Lowering

MAX_POWER: Final = 8
"""More factors round so often that little is left."""

ROOT_POWER: Final = 0.5

MAX_FACTOR_BITS: Final = 31
"""Finer numbers are rounded before they are multiplied: the recipe computes in 64 bits."""


def added(sign: float) -> Callable[[Lowering, onnx.NodeProto], Value]:
    """Add, or Sub."""

    def lower(lowering: Lowering, node: onnx.NodeProto) -> Value:
        first, second = node.input
        for name, other in ((first, second), (second, first)):
            value = lowering.value(name)
            if isinstance(value, ErrorFunction) and sign > 0:
                constant = lowering.value(other)
                if isinstance(constant, np.ndarray) and constant.size == 1:
                    return replace(value, plus=value.plus + float(constant.ravel()[0]))
        factors = {first: 1.0}
        factors[second] = factors.get(second, 0.0) + sign
        return _total(lowering, factors, lowering.shape(node.output[0]))

    return lower


def summed(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """Sum of any number of tensors."""
    factors: dict[str, float] = {}
    for name in node.input:
        factors[name] = factors.get(name, 0.0) + 1.0
    return _total(lowering, factors, lowering.shape(node.output[0]))


def negated(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """Neg."""
    return rescaled(lowering.linear(node.input[0]), -1.0)


def multiplied(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """Mul: by a constant, of an error function and its argument, or of two tensors."""
    first, second = node.input
    if isinstance(lowering.value(first), np.ndarray):
        first, second = second, first
    if isinstance(lowering.value(second), np.ndarray):
        return _times(lowering, first, lowering.constant(second), lowering.shape(node.output[0]))
    if any(isinstance(lowering.value(name), ErrorFunction) for name in node.input):
        made = gated(lowering, first, second)
        if made is not None:
            return made
    return _product(lowering, first, second, lowering.shape(node.output[0]))


def divided(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """Div by a constant, or by a tensor."""
    first, second = node.input
    if not isinstance(lowering.value(second), np.ndarray):
        return quotient(lowering, node)
    divisor = lowering.constant(second)
    if not divisor.all():
        raise NotHintedError("it divides by a constant zero")
    factor = lowering.finite(1 / divisor)
    return _times(lowering, first, factor, lowering.shape(node.output[0]))


def powered(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """Pow with a constant whole exponent: products, each rounded but the last; or 1/2, a root."""
    base, shape = node.input[0], lowering.shape(node.output[0])
    exponent = lowering.constant(node.input[1])
    power = float(exponent.ravel()[0]) if exponent.size == 1 else math.nan
    if power == ROOT_POWER and lowering.shape(base) == shape:
        return root(lowering, node)
    if not (power.is_integer() and 1 <= power <= MAX_POWER):
        raise NotHintedError(f"its exponent is not 1/2 or one whole number in 1..{MAX_POWER}")
    view = as_factor(lowering, base)
    found = replace(view, index=broadcast(view.index, shape))
    for step in range(1, int(power)):
        if step > 1:
            found = lowering.settled(identity(found), node.output[0])
        found = _multiplied(lowering, found, replace(view, index=broadcast(view.index, shape)))
    return found


def rescaled(pending: Pending, factor: float) -> Pending:
    """A multiple of a tensor that is not rounded yet."""
    if factor == 1.0:
        return pending
    if not math.isfinite(factor):
        raise NotHintedError(f"a product with {factor}")
    multiple = pending.multiple * factor
    form = pending.form.scaled(factor)
    if multiple == 0.0 or not math.isfinite(multiple):
        # Nothing is a multiple of zero.
        return replace(pending, form=form, source="", multiple=1.0)
    return replace(pending, form=form, multiple=multiple)


def shifted_by(pending: Pending, offset: float) -> Pending:
    """A constant added to a tensor that is not rounded yet."""
    form = replace(pending.form, bias=pending.form.bias + offset)
    return replace(pending, form=form, source="", multiple=1.0)


def _total(lowering: Lowering, factors: Mapping[str, float], shape: tuple[int, ...]) -> Value:
    """The sum of tensors times factors, with broadcasting."""
    tensors = [n for n in factors if not isinstance(lowering.value(n), np.ndarray)]
    if not tensors:
        raise NotHintedError("it adds constants alone")
    whole = _whole_total(lowering, factors, shape)
    if whole is not None:
        return whole

    def preference(name: str) -> tuple[bool, bool]:
        # What waits to be rounded takes the rest up, in its own grid.
        fits = lowering.shape(name) == shape
        return not (fits and isinstance(lowering.value(name), Pending)), not fits

    base = min(tensors, key=preference)
    if lowering.shape(base) == shape:
        total = lowering.linear(base)
    else:
        view = lowering.view(base)
        total = identity(replace(view, index=broadcast(view.index, shape)))
    total = rescaled(total, factors[base])
    for name, factor in factors.items():
        if name == base:
            continue
        part = _summand(lowering, total, name, factor, shape)
        total = replace(total, form=total.form.plus(part), source="", multiple=1.0)
    return total


def _whole_total(
    lowering: Lowering, factors: Mapping[str, float], shape: tuple[int, ...]
) -> View | None:
    """The sum where all of it is whole numbers, each once."""
    parts, constant = [], np.zeros((), dtype=np.int64)
    for name, factor in factors.items():
        value = lowering.value(name)
        if isinstance(value, Signs):
            value = lowering.fixed(name)
        if isinstance(value, np.ndarray) and are_whole(value * factor):
            constant = constant + np.rint(value * factor).astype(np.int64)
        elif isinstance(value, View) and is_whole(value) and abs(factor) == 1.0:
            parts.append((value, int(factor)))
        else:
            return None
    return exact_sum(lowering, parts, constant, shape, 1.0)


def _ends(view: View) -> tuple[int, int]:
    return min(view.wire.low, 0), max(view.wire.high, 0)


def _summand(
    lowering: Lowering, total: Pending, name: str, factor: float, shape: tuple[int, ...]
) -> Form:
    """A tensor times a factor, in the grid of what it is added to."""
    value = lowering.value(name)
    if isinstance(value, np.ndarray):
        return total.constant(np.broadcast_to(lowering.constant(name) * factor, shape))
    if (
        isinstance(value, Pending)
        and value.is_linear
        and lowering.shape(name) == shape
        and value.form.channels == total.form.channels
        and np.array_equal(value.sites, total.sites)
    ):
        return value.form.scaled(factor)
    view = lowering.view(name)
    return total.read(replace(view, index=broadcast(view.index, shape)), factor)


def _times(lowering: Lowering, name: str, factor: Floats, shape: tuple[int, ...]) -> Value:
    """A tensor times constants, with broadcasting."""
    whole = lowering.value(name)
    if isinstance(whole, Signs):
        whole = lowering.fixed(name)
    if isinstance(whole, View) and is_whole(whole) and are_whole(factor):
        return exact_multiple(lowering, whole, np.rint(factor).astype(np.int64), shape)
    if factor.size == 1 and lowering.shape(name) == shape:
        return rescaled(lowering.linear(name), float(factor.ravel()[0]))
    spread = np.broadcast_to(factor, shape)
    if lowering.shape(name) == shape:
        pending = lowering.linear(name)
        by_channel = pending.by_channel(spread)
        if by_channel is not None and not pending.form.pairs:
            form = pending.form.scaled_by_channel(by_channel)
            return replace(pending, form=form, source="", multiple=1.0)
    view = lowering.view(name)
    view = replace(view, index=broadcast(view.index, shape))
    for axis in range(len(shape))[::-1]:
        made = identity(view, axis=axis)
        by_channel = made.by_channel(spread)
        if by_channel is not None:
            return replace(made, form=made.form.scaled_by_channel(by_channel))
    # Every element has a factor of its own: one row of as many channels.
    flat = identity(replace(view, index=view.index.reshape(1, -1)))
    form = flat.form.scaled_by_channel(spread.ravel())
    return replace(flat, form=form, sites=flat.sites.reshape(shape))


def _product(lowering: Lowering, first: str, second: str, shape: tuple[int, ...]) -> View:
    left = lowering.fixed(first)
    if not (is_whole(left) or _is_function(lowering, left)):
        left = as_factor(lowering, first)
    right = lowering.fixed(second)
    if not is_whole(right) and (left.wire.nominal or not _is_function(lowering, right)):
        right = as_factor(lowering, second)
    sides = [replace(view, index=broadcast(view.index, shape)) for view in (left, right)]
    return _multiplied(lowering, *sides)


def _is_function(lowering: Lowering, view: View) -> bool:
    """Whether elements are results of a table, no larger than 2: a factor as they are.

    One of two: a product of two has twice the scale of the circuit's table, and could not be read.
    """
    return view.wire.nominal > 0 and view.wire.magnitude <= 2 << lowering.numbers.scale


def as_factor(lowering: Lowering, name: str) -> View:
    """A tensor as a factor: its numbers are neither too fine nor of a function's scale."""
    view = lowering.view(name)
    if view.wire.nominal or view.wire.magnitude.bit_length() > MAX_FACTOR_BITS:
        view = lowering.settled(identity(view), name)
    return view


def _multiplied(lowering: Lowering, left: View, right: View) -> View:
    """An elementwise product, exactly: it is rounded where its elements are needed rounded."""
    circuit, size = lowering.circuit, left.index.size
    sides = [
        circuit.gather(view.wire.name, view.index.ravel(), size=view.wire.size)
        for view in (left, right)
    ]
    tensor = circuit.multiply(sides[0], sides[1], size)
    reach = left.wire.magnitude * right.wire.magnitude
    square = left.wire == right.wire and np.array_equal(left.index, right.index)
    low, high = 0 if square else -reach, reach
    if is_whole(left) or is_whole(right):
        # Zero among them: padding.
        ends = [a * b for a in _ends(left) for b in _ends(right)]
        low, high = min(ends), max(ends)
    wire = lowering.wire(
        tensor,
        size,
        low,
        high,
        left.wire.resolution * right.wire.resolution,
        left.wire.nominal + right.wire.nominal,
    )
    lowering.step(
        do="multiply",
        wire=tensor,
        parts=[[v.wire.name, circuit.indices(v.index.ravel())] for v in (left, right)],
    )
    return View(wire=wire, index=np.arange(size, dtype=np.int64).reshape(left.shape))
