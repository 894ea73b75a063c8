"""A chunk's float operators as a hinted circuit.

Operators are followed in topological order. Those that only move elements change indices; linear
ones make forms; ReLU and MaxPool wait on a form. What waits is *settled*, rounded to a wire, once
an operator needs its values or the chunk ends.

Settling. A form's sums Y, at scale 2^s q, are to become Z = floor((Y + q/2) / q), a maximum over
windows, max(., 0). With c the constants (bias, q/2, the offset that makes signed results digits)
the hints are the result M, how far below it each candidate lies, D, and the remainder R:

    Y + c = q (M - D) + R       for every candidate
    0 <= R < T,  M, D >= 0      by lookups (M and D of one or two digits)
    M * prod D = 0              for every window (without M where there is no ReLU)

The equations of p candidates are packed into one: the sum of each times S^i. R of the first is
not a hint but what the equation leaves, and looked up: so the equation holds by construction. The
product X W is packed too, so p multiplications become one: over channels with packed weights
(sum S^i W_i costs as much as W has elements), or over groups with packed inputs.

Soundness: |Y + c - q (M - D) - R| < S for everything that the lookups admit and p strides fit the
field (`numbers.stride_bits`), so a packed equation holds only if each does. The products are not
negative, so one sum of all of them is zero only if each is; it cannot wrap.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from zkml_ray.chunking.hinted.circuit import Circuit
from zkml_ray.chunking.hinted.forms import (
    Dense,
    Floats,
    Form,
    Local,
    NotHintedError,
    Pending,
    identity,
    pooled,
)
from zkml_ray.chunking.hinted.grid import Ints, View, Window, Wire, windows
from zkml_ray.chunking.hinted.numbers import FLOAT_BITS, Arithmetic, packable, stride_bits

Value = View | Pending | Floats


class Lowering:
    """Turns nodes into a circuit and a recipe."""

    def __init__(
        self,
        numbers: Arithmetic,
        constants: Mapping[str, onnx.TensorProto],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> None:
        """Start an empty circuit.

        Args:
            numbers: Its digits and ranges.
            constants: The model's initializers.
            shapes: Shape of every tensor.
        """
        self.circuit = Circuit()
        self._numbers = numbers
        self._constants = constants
        self._shapes = shapes
        self._values: dict[str, Value] = {}
        self._steps: list[dict[str, Any]] = []
        self._wires: dict[str, str] = {}

    def receive(self, name: str, tensor: str) -> None:
        """An incoming boundary: hold its elements in range.

        Args:
            name: The boundary.
            tensor: The circuit's tensor of its values, flat.
        """
        numbers, circuit = self._numbers, self.circuit
        size = math.prod(self._shapes[name])
        shifted = circuit.add(tensor, circuit.whole([numbers.offset]), size)
        if numbers.digits == 2:
            high = circuit.hinted(circuit.hints(size))
            weight = circuit.whole([1 << numbers.overlap_bits])
            shifted = circuit.subtract(shifted, circuit.multiply(high, weight, size), size)
        circuit.check_digits(shifted, size)
        wire = self._wire(tensor, size, -numbers.offset, numbers.value_bound - numbers.offset)
        self._steps.append({"do": "receive", "boundary": name, "wire": wire.name})
        index = np.arange(size, dtype=np.int64).reshape(self._shapes[name])
        self._values[name] = View(wire=wire, index=index)

    def run(self, nodes: Sequence[onnx.NodeProto]) -> None:
        """Lower nodes, in topological order.

        Raises:
            NotHintedError: One has no hinted form.
        """
        for node in nodes:
            lower = _OPERATORS.get(node.op_type)
            if lower is None or len(node.output) != 1:
                raise NotHintedError(f"{node.op_type} has no hinted form")
            self._values[node.output[0]] = lower(self, node)

    def outgoing(self, name: str) -> tuple[str, int]:
        """The tensor of a boundary's values, flat, and their largest magnitude in any proof."""
        view = self.view(name)
        if (view.index < 0).any():
            raise NotHintedError(f"boundary {name} is padded")
        index = self.circuit.indices(view.index.ravel())
        self._steps.append({"do": "give", "boundary": name, "wire": view.wire.name, "index": index})
        return self.circuit.gather(view.wire.name, view.index.ravel()), view.wire.magnitude

    def recipe(self) -> str:
        """The recipe, for the chunk model's metadata."""
        numbers = self._numbers
        arithmetic = {
            "scale": numbers.scale,
            "logrows": numbers.logrows,
            "range_bits": numbers.range_bits,
        }
        document = {
            "arithmetic": arithmetic,
            "hints": self.circuit.hint_count,
            "steps": self._steps,
        }
        return json.dumps(document, sort_keys=True, separators=(",", ":"))

    # Values by name.

    def value(self, name: str) -> Value:
        """A tensor: a constant's numbers, a view, or what is still pending."""
        if name in self._values:
            return self._values[name]
        if name in self._constants:
            return numpy_helper.to_array(self._constants[name]).astype(np.float64)
        raise NotHintedError(f"tensor {name} is not known")

    def view(self, name: str) -> View:
        """A tensor whose elements are fixed, rounding it if need be."""
        value = self.value(name)
        if isinstance(value, Pending):
            value = self._settle(value, name)
            self._values[name] = value
        if not isinstance(value, View):
            raise NotHintedError(f"the constant {name} stands where a tensor is expected")
        return value

    def pending(self, name: str) -> Pending:
        """A tensor to which something linear, a ReLU or a maximum is still to be done."""
        value = self.value(name)
        return value if isinstance(value, Pending) else identity(self.view(name))

    def linear(self, name: str) -> Pending:
        """A tensor as a form alone."""
        pending = self.pending(name)
        return pending if pending.is_linear else identity(self.view(name))

    def constant(self, name: str) -> Floats:
        """A constant's numbers."""
        value = self.value(name)
        if not isinstance(value, np.ndarray):
            raise NotHintedError(f"tensor {name} stands where a constant is expected")
        return value

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape."""
        return self._shapes[name]

    # Rounding.

    def _settle(self, pending: Pending, name: str) -> View:
        numbers, circuit = self._numbers, self.circuit
        form = pending.form
        groups = pending.windows
        if groups is None:
            groups = np.arange(form.groups, dtype=np.int64)[:, None]
        below = pending.relu or groups.shape[1] > 1
        offset = 0 if pending.relu else numbers.offset
        quantised = _Quantised(form, numbers, offset)
        reach = quantised.magnitude + numbers.digit_bound
        reach += numbers.divisor * numbers.value_bound * (2 if below else 1)
        layout = _Layout.choose(quantised, groups, packable(reach), stride_bits(reach))
        terms, packed = self._sums(quantised, layout)
        packed, step = self._check(layout, quantised, packed, pending.relu, below)
        circuit.check_digits(packed, layout.units)
        # The result's digits come first among the settled hints.
        wire = self._combined(step, layout, offset)
        self._steps.append(
            {
                "do": "settle",
                "name": name,
                "wire": wire.name,
                "layout": list(layout.shape),
                "constant": circuit.whole(layout.arranged_constant(quantised.constant)),
                "valid": circuit.whole(layout.valid.astype(np.int64)),
                "relu": pending.relu,
                "below": below,
                "offset": offset,
                "terms": terms,
            }
        )
        return View(wire=wire, index=layout.positions()[pending.sites])

    def _sums(self, form: _Quantised, layout: _Layout) -> tuple[list[dict[str, Any]], str]:
        """The packed sums of a form's terms, one a unit."""
        circuit = self.circuit
        powers = circuit.powers(layout.bits, layout.width)
        total, steps = "", []
        for dense, weights in form.dense:
            index = layout.rows(dense.index)
            if layout.over_channels:
                arranged = layout.columns(weights)  # [K, B, p]
                depth, blocks, width = arranged.shape
                constant = circuit.whole(arranged)
                inputs = circuit.gather(dense.wire.name, index, size=dense.wire.size)
                if width > 1:
                    packed = circuit.product(
                        "kbp,p->kb", constant, powers, outputs=depth * blocks, length=width
                    )
                else:
                    packed = circuit.reshape(constant, [depth, blocks])
                kind = "columns"
                sums = circuit.product(
                    "gk,kb->gb", inputs, packed, outputs=len(index) * blocks, length=depth
                )
            else:
                constant = circuit.whole(weights)
                rows, width, depth = index.shape
                if width > 1:
                    inputs = circuit.gather(
                        dense.wire.name, index.transpose(0, 2, 1), size=dense.wire.size
                    )
                    inputs = circuit.product(
                        "ukp,p->uk", inputs, powers, outputs=rows * depth, length=width
                    )
                else:
                    inputs = circuit.gather(dense.wire.name, index[:, 0], size=dense.wire.size)
                kind = "rows"
                sums = circuit.product(
                    "uk,kc->uc", inputs, constant, outputs=rows * form.channels, length=depth
                )
            steps.append(
                {
                    "kind": kind,
                    "wire": dense.wire.name,
                    "index": circuit.indices(index),
                    "weights": constant,
                }
            )
            total = self._plus(total, circuit.reshape(sums, [layout.units]), layout.units)
        for local, weights in form.local:
            index = layout.slots(local.index)  # [units, p, K]
            arranged = layout.per_slot(weights)  # [1 or B, p, K]
            constant = circuit.whole(arranged)
            steps.append(
                {
                    "kind": "local",
                    "wire": local.wire.name,
                    "index": circuit.indices(index),
                    "weights": constant,
                }
            )
            sums = self._local(local.wire, index, arranged, constant, powers, layout)
            total = self._plus(total, sums, layout.units)
        return steps, total

    def _local(
        self,
        wire: Wire,
        index: Ints,
        weights: Ints,
        constant: str,
        powers: str,
        layout: _Layout,
    ) -> str:
        circuit = self.circuit
        blocks, width, depth = weights.shape
        length = width * depth
        column = circuit.reshape(powers, [width, 1])
        factors = circuit.multiply(constant, column, weights.size) if width > 1 else constant
        inputs = circuit.gather(wire.name, index, size=wire.size)
        if length == 1 and blocks == 1:
            flat = circuit.reshape(inputs, [layout.units])
            return circuit.multiply(flat, circuit.reshape(factors, [1]), layout.units)
        if blocks == 1:
            return circuit.product(
                "um,m->u",
                circuit.reshape(inputs, [layout.units, length]),
                circuit.reshape(factors, [length]),
                outputs=layout.units,
                length=length,
            )
        sums = circuit.product(
            "gbm,bm->gb",
            circuit.reshape(inputs, [layout.units // blocks, blocks, length]),
            circuit.reshape(factors, [blocks, length]),
            outputs=layout.units,
            length=length,
        )
        return circuit.reshape(sums, [layout.units])

    def _plus(self, total: str, other: str, size: int) -> str:
        return self.circuit.add(total, other, size) if total else other

    def _check(
        self, layout: _Layout, form: _Quantised, total: str, relu: bool, below: bool
    ) -> tuple[str, list[Ints]]:
        """Hints of a form, and what its packed equations leave for the first remainders.

        Returns:
            The first remainders, [units], and the positions of the result's digits among the
            hints, each [A, B, p] with -1 where there is no element.
        """
        numbers, circuit = self._numbers, self.circuit
        t, a, b, p = layout.shape
        every = np.broadcast_to(layout.valid, (t, a, b, p))
        results = [self._placed(layout.valid) for _ in range(numbers.digits)]
        distances = [self._placed(every) for _ in range(numbers.digits)] if below else []
        rest = every.copy()
        rest[..., 0] = False
        remainders = self._placed(rest)
        powers = circuit.powers(layout.bits, p)
        quotient = circuit.multiply(powers, circuit.whole([numbers.divisor]), p)
        constant = self._packed_constant(layout, form)
        head = self._weighted([r.reshape(-1, p) for r in results], quotient)
        head = circuit.subtract(head, constant, a * b)
        if t > 1:
            head = circuit.concat([head] * t)
        left = circuit.subtract(total, head, layout.units)
        if below:
            down = self._weighted([d.reshape(-1, p) for d in distances], quotient)
            left = circuit.add(left, down, layout.units)
        if p > 1:
            tail = remainders.reshape(-1, p)[:, 1:]
            spread = circuit.gather(powers, np.arange(1, p))
            taken = circuit.product(
                "um,m->u", circuit.hinted(tail), spread, outputs=layout.units, length=p - 1
            )
            left = circuit.subtract(left, taken, layout.units)
        if below:
            self._check_products(layout, results if relu else [], distances)
        return left, results

    def _weighted(self, digits: Sequence[Ints], factors: str) -> str:
        """Packed values of hinted digits, times q: one a row of the positions."""
        circuit, numbers = self.circuit, self._numbers
        rows, p = digits[0].shape
        total = ""
        for place, index in enumerate(digits):
            weight = factors
            if place:
                weight = circuit.multiply(factors, circuit.whole([1 << numbers.overlap_bits]), p)
            if p > 1:
                part = circuit.product(
                    "um,m->u", circuit.hinted(index), weight, outputs=rows, length=p
                )
            else:
                part = circuit.multiply(circuit.hinted(index.ravel()), weight, rows)
            total = self._plus(total, part, rows)
        return total

    def _packed_constant(self, layout: _Layout, form: _Quantised) -> str:
        """[a * b]: what is added to every sum, packed."""
        circuit = self.circuit
        _, a, b, p = layout.shape
        arranged = layout.arranged_constant(form.constant)
        if arranged.shape[0] != 1:
            raise NotHintedError("constants that differ inside a pooling window")
        powers = circuit.powers(layout.bits, p)
        rows = arranged.reshape(-1, p)
        constant = circuit.whole(arranged)
        flat = circuit.reshape(constant, [len(rows), p])
        packed = (
            circuit.product("um,m->u", flat, powers, outputs=len(rows), length=p)
            if p > 1
            else circuit.reshape(flat, [len(rows)])
        )
        if len(rows) == a * b:
            return packed
        return circuit.gather(packed, np.tile(np.arange(b), a))

    def _check_products(
        self, layout: _Layout, results: Sequence[Ints], distances: Sequence[Ints]
    ) -> None:
        """One of the candidates' distances, or the result, is zero."""
        circuit, numbers = self.circuit, self._numbers
        count = int(layout.valid.sum())
        factors = [
            self._sum_of([d[step][layout.valid] for d in distances])
            for step in range(layout.shape[0])
        ]
        if results:
            factors.append(self._sum_of([r[layout.valid] for r in results]))
        if len(factors) < 2:
            raise NotHintedError("a maximum of one element")
        half = len(factors) // 2
        left, right = (self._product(part, count) for part in (factors[:half], factors[half:]))
        total = circuit.product("i,i->", left, right, outputs=1, length=count)
        largest = numbers.digit_bound * numbers.digits
        circuit.check_zero(circuit.reshape(total, [1]), count * largest ** len(factors))

    def _sum_of(self, digits: Sequence[Ints]) -> str:
        """A vector that is zero where all of the digits are."""
        total = ""
        for index in digits:
            total = self._plus(total, self.circuit.hinted(index), len(index))
        return total

    def _product(self, factors: Sequence[str], size: int) -> str:
        result = factors[0]
        for factor in factors[1:]:
            result = self.circuit.multiply(result, factor, size)
        return result

    def _placed(self, mask: Ints) -> Ints:
        """New hints where a mask is set, -1 elsewhere."""
        index = np.full(mask.shape, -1, dtype=np.int64)
        index[mask] = self.circuit.hints(int(mask.sum()))
        return index

    def _combined(self, results: Sequence[Ints], layout: _Layout, offset: int) -> Wire:
        """The wire of a settled form: its digits put together."""
        numbers, circuit = self._numbers, self.circuit
        size = int(layout.valid.sum())
        tensor = circuit.hinted(results[0][layout.valid])
        if numbers.digits == 2:
            high = circuit.hinted(results[1][layout.valid])
            weight = circuit.whole([1 << numbers.overlap_bits])
            tensor = circuit.add(tensor, circuit.multiply(high, weight, size), size)
        if offset:
            tensor = circuit.subtract(tensor, circuit.whole([offset]), size)
        return self._wire(tensor, size, -offset, numbers.value_bound - offset)

    def _wire(self, tensor: str, size: int, low: int, high: int) -> Wire:
        return Wire(name=tensor, size=size, low=low, high=high, scale=self._numbers.scale)


class _Quantised:
    """A form in whole numbers, at scale 2^s q."""

    def __init__(self, form: Form, numbers: Arithmetic, offset: int) -> None:
        q = numbers.divisor
        self.groups, self.channels = form.groups, form.channels

        def whole(weights: Floats, wire: Wire) -> Ints:
            scaled = np.rint(weights * (q * 2.0 ** (numbers.scale - wire.scale)))
            if np.abs(scaled).max(initial=0) >= 1 << FLOAT_BITS:
                raise NotHintedError("weights are too large for their scale")
            return scaled.astype(np.int64)

        self.dense = [(term, whole(term.weights, term.wire)) for term in form.dense]
        self.local = [(term, whole(term.weights, term.wire)) for term in form.local]
        added = form.bias * (q * 2.0**numbers.scale) + (q // 2 + q * offset)
        if np.abs(added).max(initial=0) >= 2.0**60:
            raise NotHintedError("a bias is too large for its scale")
        # As float32 holds them: less than 2^-24 of the constant, far below a rounding.
        self.constant: Ints = np.rint(added).astype(np.float32).astype(np.int64)
        sums = np.zeros(form.channels, dtype=object)
        for dense, weights in self.dense:
            sums += np.abs(weights).sum(axis=0).astype(object) * dense.wire.magnitude
        for local, weights in self.local:
            sums += np.abs(weights).sum(axis=1).astype(object) * local.wire.magnitude
        self.magnitude = int(sums.max()) + int(np.abs(self.constant).max())


class _Layout:
    """How a settled grid's candidates are dealt out to units of p that share an equation.

    The axes [t, A, B, p]: candidates of a window, blocks of windows, blocks of channels, and the
    slots of a unit. Over channels A is the windows and B p the channels; over groups A p is the
    windows and B the channels.
    """

    def __init__(self, groups: Ints, channels: int, width: int, bits: int, *, over_channels: bool):
        self.over_channels = over_channels
        self.bits = bits
        self._groups = groups
        self._channels = channels
        count, t = groups.shape
        packed = channels if over_channels else count
        blocks = -(-packed // width)
        self.width = -(-packed // blocks)
        a, b = (count, blocks) if over_channels else (blocks, channels)
        self.shape = (t, a, b, self.width)
        if over_channels:
            window = np.broadcast_to(np.arange(a)[:, None, None], (a, b, self.width))
            channel = np.broadcast_to(np.arange(b * self.width).reshape(b, -1), (a, b, self.width))
        else:
            slots = np.arange(a * self.width).reshape(a, 1, self.width)
            window = np.broadcast_to(slots, (a, b, self.width))
            channel = np.broadcast_to(np.arange(b)[None, :, None], (a, b, self.width))
        self.valid = (window < count) & (channel < channels)
        self._window = np.where(self.valid, window, 0)
        self._channel = np.where(self.valid, channel, 0)

    @classmethod
    def choose(cls, form: _Quantised, groups: Ints, width: int, bits: int) -> _Layout:
        """The cheaper of packing over channels and over groups."""
        if width < 1:
            raise NotHintedError("sums are too large for a field element")
        options = [
            cls(groups, form.channels, width, bits, over_channels=over) for over in (True, False)
        ]
        return min(options, key=lambda layout: layout.cost(form))

    @property
    def units(self) -> int:
        """Packed equations."""
        t, a, b, _ = self.shape
        return t * a * b

    def cost(self, form: _Quantised) -> int:
        """Cells of the terms, roughly."""
        t, a, _, p = self.shape
        total = 4 * self.units
        for dense, weights in form.dense:
            depth = dense.index.shape[1]
            pack = weights.size if self.over_channels else t * a * p * depth
            total += self.units * depth + (pack if p > 1 else 0)
        return total

    def rows(self, index: Ints) -> Ints:
        """A dense term's index: [t A, K] over channels, [t A, p, K] over groups."""
        t, a, _, p = self.shape
        if self.over_channels:
            return index[self._groups.T].reshape(t * a, -1)
        window = self._window[:, 0]  # [A, p]
        taken = index[self._groups[window]]  # [A, p, t, K]
        taken = np.where(self.valid[:, 0, :, None, None], taken, -1)
        return taken.transpose(2, 0, 1, 3).reshape(t * a, p, -1)

    def columns(self, weights: Ints) -> Ints:
        """A dense term's weights over channels: [K, B, p], zero where there is no channel."""
        _, _, b, p = self.shape
        padded = np.zeros((len(weights), b * p), dtype=np.int64)
        padded[:, : self._channels] = weights
        return padded.reshape(len(weights), b, p)

    def slots(self, index: Ints) -> Ints:
        """A local term's index: [units, p, K], -1 where there is no element."""
        t, a, b, p = self.shape
        taken = index[self._groups[self._window], self._channel[..., None]]  # [A, B, p, t, K]
        taken = np.where(self.valid[..., None, None], taken, -1)
        return taken.transpose(3, 0, 1, 2, 4).reshape(t * a * b, p, -1)

    def per_slot(self, weights: Ints) -> Ints:
        """A local term's weights: [B, p, K], or [1, p, K] where channels do not differ."""
        p = self.width
        if (weights == weights[:1]).all():
            return np.broadcast_to(weights[:1][:, None], (1, p, weights.shape[1])).copy()
        return weights[self._channel[0]]

    def arranged_constant(self, constant: Ints) -> Ints:
        """Constants, zero where there is no element: [t or 1, A or 1, B, p]."""
        taken = constant[np.zeros_like(self._groups) if len(constant) == 1 else self._groups]
        found = taken[self._window, :, self._channel]  # [A, B, p, t]
        found = np.where(self.valid[..., None], found, 0).transpose(3, 0, 1, 2)
        for axis in (0, 1):
            first = found.take([0], axis=axis)
            if (found == first).all():
                found = first
        return found

    def positions(self) -> Ints:
        """Per site w * channels + c, its place in the wire."""
        found = np.zeros(len(self._groups) * self._channels, dtype=np.int64)
        sites = (self._window * self._channels + self._channel)[self.valid]
        found[sites] = np.arange(len(sites))
        return found


# Operators.


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default


def _window(node: onnx.NodeProto) -> Window:
    kernel = tuple(_attribute(node, "kernel_shape", ()))
    if len(kernel) != 2:
        raise NotHintedError(f"{node.op_type} of {len(kernel)} dimensions has no hinted form")
    if _attribute(node, "ceil_mode", 0):
        raise NotHintedError("pooling with ceil_mode has no hinted form")
    return Window(
        kernel=kernel,
        strides=tuple(_attribute(node, "strides", (1, 1))),
        pads=tuple(_attribute(node, "pads", (0, 0, 0, 0))),
        dilations=tuple(_attribute(node, "dilations", (1, 1))),
    )


def _through(view: View, index: Ints) -> Ints:
    """A view's references at flat positions, -1 staying -1."""
    flat = np.append(view.index.ravel(), -1)
    return flat[index]


def _conv(lowering: Lowering, node: onnx.NodeProto) -> Value:
    view = lowering.view(node.input[0])
    weight = lowering.constant(node.input[1])
    count, channels, height, width = view.shape
    group = _attribute(node, "group", 1)
    if count != 1:
        raise NotHintedError("convolutions of several images have no hinted form")
    taps = windows((height, width), _window(node))  # [P, k]
    out_channels, per_group, *_ = weight.shape
    plane = height * width
    spread = np.arange(channels)[:, None, None] * plane + taps[None]
    index = _through(view, np.where(taps[None] < 0, -1, spread))  # [C, P, k]
    bias = np.zeros(out_channels)
    if len(node.input) > 2:
        bias = lowering.constant(node.input[2])
    groups = len(taps)
    dense: tuple[Dense, ...] = ()
    local: tuple[Local, ...] = ()
    if group == 1:
        dense = (
            Dense(
                wire=view.wire,
                index=index.transpose(1, 0, 2).reshape(groups, -1),
                weights=weight.reshape(out_channels, -1).T,
            ),
        )
    elif per_group == 1:
        copies = out_channels // group
        local = (
            Local(
                wire=view.wire,
                index=np.repeat(index, copies, axis=0).transpose(1, 0, 2),
                weights=weight.reshape(out_channels, -1),
            ),
        )
    else:
        raise NotHintedError("grouped convolutions have no hinted form")
    form = Form(groups=groups, channels=out_channels, dense=dense, local=local, bias=bias[None])
    sites = np.arange(groups)[None] * out_channels + np.arange(out_channels)[:, None]
    return Pending(form=form, sites=sites.reshape(lowering.shape(node.output[0])))


def _dense(lowering: Lowering, node: onnx.NodeProto, weight: Floats, bias: Floats) -> Pending:
    view = lowering.view(node.input[0])
    depth, channels = weight.shape
    index = view.index.reshape(-1, depth)
    form = Form(
        groups=len(index),
        channels=channels,
        dense=(Dense(wire=view.wire, index=index, weights=weight),),
        bias=bias,
    )
    sites = np.arange(len(index) * channels, dtype=np.int64)
    return Pending(form=form, sites=sites.reshape(lowering.shape(node.output[0])))


def _gemm(lowering: Lowering, node: onnx.NodeProto) -> Value:
    if _attribute(node, "transA", 0):
        raise NotHintedError("Gemm with transA has no hinted form")
    weight = lowering.constant(node.input[1])
    weight = weight.T if _attribute(node, "transB", 0) else weight
    weight = weight * _attribute(node, "alpha", 1.0)
    bias = np.zeros((1, weight.shape[1]))
    if len(node.input) > 2:
        constant = lowering.constant(node.input[2]) * _attribute(node, "beta", 1.0)
        rows = lowering.shape(node.output[0])[0]
        bias = np.broadcast_to(constant, (rows, weight.shape[1]))
        bias = bias[:1] if (bias == bias[:1]).all() else bias
    return _dense(lowering, node, weight, np.array(bias))


def _matmul(lowering: Lowering, node: onnx.NodeProto) -> Value:
    weight = lowering.constant(node.input[1])
    if weight.ndim != 2:
        raise NotHintedError("products of batches have no hinted form")
    return _dense(lowering, node, weight, np.zeros((1, weight.shape[1])))


def _sum(sign: float) -> Callable[[Lowering, onnx.NodeProto], Value]:
    def lower(lowering: Lowering, node: onnx.NodeProto) -> Value:
        first, second = node.input
        shape = lowering.shape(node.output[0])
        factors = {first: 1.0, second: sign}
        base, other = first, second
        if isinstance(lowering.value(first), np.ndarray) or (
            not isinstance(lowering.value(first), Pending)
            and isinstance(lowering.value(second), Pending)
        ):
            base, other = second, first
        if first == second:
            return _rescaled(lowering.linear(first), 1.0 + sign)
        if lowering.shape(base) != shape:
            raise NotHintedError("sums that repeat elements have no hinted form")
        left = lowering.linear(base)
        left = _rescaled(left, factors[base])
        value = lowering.value(other)
        if isinstance(value, np.ndarray):
            added = left.constant(np.broadcast_to(value * factors[other], shape))
        elif lowering.shape(other) != shape:
            raise NotHintedError("sums that repeat elements have no hinted form")
        elif (
            isinstance(value, Pending)
            and value.is_linear
            and value.form.channels == left.form.channels
            and np.array_equal(value.sites, left.sites)
        ):
            added = value.form.scaled(factors[other])
        else:
            added = left.read(lowering.view(other), factors[other])
        return replace(left, form=left.form.plus(added))

    return lower


def _rescaled(pending: Pending, factor: float) -> Pending:
    return pending if factor == 1.0 else replace(pending, form=pending.form.scaled(factor))


def _times(power: int) -> Callable[[Lowering, onnx.NodeProto], Value]:
    def lower(lowering: Lowering, node: onnx.NodeProto) -> Value:
        first, second = node.input
        if power > 0 and isinstance(lowering.value(first), np.ndarray):
            first, second = second, first
        factor = lowering.constant(second)
        if factor.size != 1:
            raise NotHintedError("products with a tensor have no hinted form")
        return _rescaled(lowering.linear(first), float(factor.ravel()[0]) ** power)

    return lower


def _relu(lowering: Lowering, node: onnx.NodeProto) -> Value:
    return replace(lowering.pending(node.input[0]), relu=True)


def _taps(shape: Sequence[int], node: onnx.NodeProto) -> Ints:
    """Per output element, the flat elements of [1, C, H, W] that its window reads."""
    if len(shape) != 4 or shape[0] != 1:
        raise NotHintedError("pooling of several images has no hinted form")
    _, channels, height, width = shape
    taps = windows((height, width), _window(node))
    planes = np.arange(channels)[:, None, None] * (height * width)
    return np.where(taps[None] < 0, -1, planes + taps[None]).reshape(-1, taps.shape[1])


def _maxpool(lowering: Lowering, node: onnx.NodeProto) -> Value:
    shape = lowering.shape(node.input[0])
    pending = lowering.pending(node.input[0])
    if pending.windows is not None:
        pending = identity(lowering.view(node.input[0]))
    return pooled(pending, _taps(shape, node), lowering.shape(node.output[0]))


def _mean(lowering: Lowering, node: onnx.NodeProto, taps: Ints) -> Value:
    """The mean over flat positions, [outputs, k]; -1 counts as zero."""
    view = lowering.view(node.input[0])
    shape = lowering.shape(node.output[0])
    index = _through(view, taps)
    channels = shape[1] if len(shape) > 1 else 1
    groups = len(taps) // channels
    # Outputs are [channels, groups]; the grid is [groups, channels].
    grid = index.reshape(channels, groups, -1).transpose(1, 0, 2)
    weights = np.full((channels, taps.shape[1]), 1.0 / taps.shape[1])
    form = Form(
        groups=groups,
        channels=channels,
        local=(Local(wire=view.wire, index=grid, weights=weights),),
        bias=np.zeros((1, channels)),
    )
    sites = np.arange(groups)[None] * channels + np.arange(channels)[:, None]
    return Pending(form=form, sites=sites.reshape(shape))


def _average_pool(lowering: Lowering, node: onnx.NodeProto) -> Value:
    taps = _taps(lowering.shape(node.input[0]), node)
    if (taps < 0).any() and not _attribute(node, "count_include_pad", 0):
        raise NotHintedError("averages that leave padding out have no hinted form")
    return _mean(lowering, node, taps)


def _global_average(lowering: Lowering, node: onnx.NodeProto) -> Value:
    shape = lowering.shape(node.input[0])
    if shape[0] != 1:
        raise NotHintedError("pooling of several images has no hinted form")
    return _mean(lowering, node, np.arange(math.prod(shape)).reshape(shape[1], -1))


def _moved(lowering: Lowering, node: onnx.NodeProto) -> Value:
    """Reshape, Flatten and their like: the same elements in another shape."""
    view = lowering.view(node.input[0])
    return replace(view, index=view.index.reshape(lowering.shape(node.output[0])))


def _transpose(lowering: Lowering, node: onnx.NodeProto) -> Value:
    view = lowering.view(node.input[0])
    order = _attribute(node, "perm", list(range(len(view.shape)))[::-1])
    return replace(view, index=view.index.transpose(order))


_OPERATORS: Mapping[str, Callable[[Lowering, onnx.NodeProto], Value]] = {
    "Add": _sum(1.0),
    "AveragePool": _average_pool,
    "Conv": _conv,
    "Div": _times(-1),
    "Flatten": _moved,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average,
    "MatMul": _matmul,
    "MaxPool": _maxpool,
    "Mul": _times(1),
    "Relu": _relu,
    "Reshape": _moved,
    "Squeeze": _moved,
    "Sub": _sum(-1.0),
    "Transpose": _transpose,
    "Unsqueeze": _moved,
}
"""Operators with a hinted form. A lowered operator may still refuse its node."""
