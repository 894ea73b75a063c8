"""A chunk's float operators as a hinted circuit.

Operators are followed in topological order. Those that only move elements change indices; linear
ones make forms; ReLU and MaxPool wait on a form. What waits is settled, rounded to a wire
(`settle`), once an operator needs its values or the chunk ends.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
import onnx
from onnx import numpy_helper

from zkml_ray.chunking.hinted.challenge import Identity
from zkml_ray.chunking.hinted.circuit import Circuit, Mark
from zkml_ray.chunking.hinted.forms import Floats, NotHintedError, Pending, identity
from zkml_ray.chunking.hinted.grid import Ints, View, Wire
from zkml_ray.chunking.hinted.numbers import Arithmetic
from zkml_ray.chunking.hinted.refusal import refusing
from zkml_ray.chunking.hinted.settle import Rounding, Settled, settle
from zkml_ray.chunking.hinted.values import ErrorFunction, Masked, Shares, Signs, Value
from zkml_ray.chunking.hinted.whole import is_whole
from zkml_ray.chunking.masked import is_masked

Lowered: TypeAlias = "Value | tuple[Value, ...]"
"""What a node's output is, or its outputs are."""

Made = TypeVar("Made")

Operators: TypeAlias = "Mapping[str, Callable[[Lowering, onnx.NodeProto], Lowered]]"
"""How each operator is lowered; raises NotHintedError for a node that it has no form for."""

MAX_AMPLIFIED: Final = 2.0
"""Rounded numbers stand for their multiples up to this factor, by which their error grows."""


class Lowering:
    """Turns nodes into a circuit and a recipe."""

    def __init__(
        self,
        numbers: Arithmetic,
        constants: Mapping[str, onnx.TensorProto],
        shapes: Mapping[str, tuple[int, ...]],
        columns: int,
        *,
        challenge: bool = False,
        counted: bool = False,
    ) -> None:
        """Start an empty circuit.

        Args:
            numbers: Its digits and ranges.
            constants: The model's initializers.
            shapes: Shape of every tensor.
            columns: Its inner columns.
            challenge: Whether products may be checked by a challenge.
            counted: It is made for its size alone.
        """
        self.circuit = Circuit(logrows=numbers.logrows, columns=columns, counted=counted)
        self.identity = Identity(self.circuit) if challenge else None
        self.numbers = numbers
        self._constants = constants
        self._shapes = shapes
        self._values: dict[str, Value] = {}
        self._steps: list[dict[str, Any]] = []
        self._settled: dict[str, tuple[float, View]] = {}
        self._counted: dict[str, Wire] = {}
        self._once: dict[str, Any] = {}
        self._makers: dict[str, onnx.NodeProto] = {}

    def mark(self) -> tuple[Mark, Mark, Mark]:
        """Where it stands, for `rewind`."""
        own = {
            name: copy(value) if isinstance(value, (list, dict)) else value
            for name, value in vars(self).items()
        }
        return own, self.circuit.mark(), {} if self.identity is None else self.identity.mark()

    def rewind(self, mark: tuple[Mark, Mark, Mark]) -> None:
        """Forget what was lowered since a mark; a mark is good for one time."""
        own, circuit, identity = mark
        vars(self).update(own)
        self.circuit.rewind(circuit)
        if self.identity is not None:
            self.identity.rewind(identity)

    def receive(self, name: str, tensor: str) -> None:
        """An incoming boundary: hold its elements in range.

        Args:
            name: The boundary.
            tensor: The circuit's tensor of its values, flat.
        """
        numbers, circuit = self.numbers, self.circuit
        size = math.prod(self._shapes[name])
        shifted = circuit.add(tensor, circuit.whole([numbers.offset]), size)
        if numbers.digits == 2:
            high = circuit.hinted(circuit.hints(size))
            weight = circuit.whole([1 << numbers.overlap_bits])
            shifted = circuit.subtract(shifted, circuit.multiply(high, weight, size), size)
        circuit.check_digits(shifted, size)
        wire = self.wire(tensor, size, -numbers.offset, numbers.value_bound - numbers.offset)
        self._steps.append({"do": "receive", "boundary": name, "wire": wire.name})
        index = np.arange(size, dtype=np.int64).reshape(self._shapes[name])
        self._values[name] = View(wire=wire, index=index)

    def run(self, nodes: Sequence[onnx.NodeProto], operators: Operators) -> None:
        """Lower nodes.

        Args:
            nodes: In topological order.
            operators: How each operator is lowered.

        Raises:
            NotHintedError: One has no hinted form.
        """
        for node in nodes:
            with refusing(node):
                self._follow(node, operators)

    def _follow(self, node: onnx.NodeProto, operators: Operators) -> None:
        lower = operators.get(node.op_type)
        if lower is None:
            raise NotHintedError("")
        made = lower(self, node)
        values = made if isinstance(made, tuple) else (made,)
        names = list(node.output)
        if len(values) != len(names):
            raise NotHintedError(f"{len(names)} outputs")
        for name, value in zip(names, values, strict=True):
            found, expected = _shape_of(value), self.shape(name)
            if found != expected:
                raise NotHintedError(f"{name} would have shape {found} instead of {expected}")
            if isinstance(value, Pending) and not value.source:
                value = replace(value, source=name)
            self._values[name] = value
            self._makers[name] = node

    def outgoing(self, name: str) -> tuple[str, int]:
        """The tensor of a boundary's values, flat, and their largest magnitude in any proof."""
        view = self.rounded(name)
        index = self.circuit.indices(view.index.ravel())
        self.step(do="give", boundary=name, wire=view.wire.name, index=index)
        return self.circuit.gather(view.wire.name, view.index.ravel()), view.wire.magnitude

    def rounded(self, name: str) -> View:
        """A tensor at the circuit's own resolution, without padding."""
        view = self.view(name)
        own = view.wire.resolution == self.resolution and not view.wire.nominal
        if own and view.wire.magnitude <= self.numbers.value_bound and (view.index >= 0).all():
            return view
        return self.settled(identity(view), name)

    def recipe(self, advice: Mapping[str, int]) -> str:
        """The recipe, for the chunk model's metadata; with the arguments of its input's layout."""
        numbers = self.numbers
        arithmetic = {
            "scale": numbers.scale,
            "logrows": numbers.logrows,
            "range_bits": numbers.range_bits,
        }
        document = {
            "arithmetic": arithmetic,
            "advice": dict(advice),
            "blinders": [[int(run[0]), len(run)] for run in self.circuit.blinders if len(run)],
            "cells": [self.circuit.cells, sorted(Counter(self.circuit.products).items())],
            "steps": self._steps,
        }
        return json.dumps(document, sort_keys=True, separators=(",", ":"))

    # Values by name.

    def value(self, name: str) -> Value:
        """A tensor: a constant's numbers, a view, or what is still pending."""
        if name in self._values:
            return self._values[name]
        if name in self._constants:
            found: Floats = numpy_helper.to_array(self._constants[name]).astype(np.float64)
            return found
        raise NotHintedError(f"tensor {name} is not known")

    def view(self, name: str) -> View:
        """A tensor whose elements are fixed, and may be weighted; rounding it if need be."""
        return self.weighable(self.fixed(name))

    def weighable(self, view: View) -> View:
        """The same elements; whole numbers in the circuit's steps, of which weights are parts."""
        if not is_whole(view) or self.resolution == 1.0:
            return view
        wire = view.wire
        if wire.name not in self._counted:
            one = 1 << self.numbers.scale
            tensor = self.circuit.multiply(wire.name, self.circuit.whole([one]), wire.size)
            self.step(do="affine", wire=tensor, parts=[wire.name], factor=one, offset=0)
            self._counted[wire.name] = self.wire(tensor, wire.size, wire.low * one, wire.high * one)
        return replace(view, wire=self._counted[wire.name])

    def once(self, key: str, make: Callable[[], Made]) -> Made:
        """What is made the first time that it is asked for."""
        if key not in self._once:
            self._once[key] = make()
        found: Made = self._once[key]
        return found

    def fixed(self, name: str) -> View:
        """A tensor whose elements are fixed, whole numbers as they are; rounding it if need be."""
        value = self.value(name)
        if isinstance(value, Pending):
            value = self.settled(value, name)
            self._values[name] = value
        if isinstance(value, Shares):
            value = value.rounded(name)
            self._values[name] = value
        if isinstance(value, ErrorFunction):
            value = value.alone(value.plus)
            self._values[name] = value
        if isinstance(value, Signs):
            value = value.signs()
            self._values[name] = value
        if not isinstance(value, View):
            raise NotHintedError(f"{name} stands where a tensor of values is expected")
        return value

    def settled(self, pending: Pending, name: str) -> View:
        """A pending tensor, rounded; a multiple of one that was rounded before is that one."""
        numbers = self.numbers
        reused = pending.is_linear and pending.source and not pending.form.is_of_values
        if reused and pending.source in self._settled:
            multiple, view = self._settled[pending.source]
            ratio = multiple / pending.multiple
            resolution = view.wire.resolution * ratio
            if abs(ratio) * MAX_AMPLIFIED >= 1.0 and math.isfinite(resolution):
                return replace(view, wire=replace(view.wire, resolution=resolution))
        windows = pending.windows
        below = pending.relu or (windows is not None and windows.shape[1] > 1)
        rounding = Rounding(
            resolution=self.resolution,
            offset=0 if pending.relu else numbers.offset,
            result_digits=numbers.digits,
            below_digits=numbers.digits if below else 0,
        )
        view = self.settle(pending, rounding, name).view()
        if reused:
            self._settled[pending.source] = (pending.multiple, view)
        return view

    def settle(self, pending: Pending, rounding: Rounding, name: str) -> Settled:
        """Round a pending tensor in a way of one's own."""
        with refusing(self._makers.get(name)):
            settled, step = settle(
                self.circuit, self.numbers, pending, rounding, name, self.identity
            )
        self._steps.append(step)
        return settled

    def step(self, **step: Any) -> None:
        """Add a step to the recipe."""
        self._steps.append(step)

    def wire(
        self,
        tensor: str,
        size: int,
        low: int,
        high: int,
        resolution: float | None = None,
        nominal: int = 0,
    ) -> Wire:
        """A wire of a tensor, at the circuit's own resolution if no other is given."""
        return Wire(
            name=tensor,
            size=size,
            low=low,
            high=high,
            resolution=resolution or self.resolution,
            nominal=nominal,
        )

    @property
    def resolution(self) -> float:
        """Whole numbers per unit of rounded values."""
        return float(2**self.numbers.scale)

    def pending(self, name: str) -> Pending:
        """A tensor to which something linear, a ReLU or a maximum is still to be done."""
        value = self.value(name)
        if isinstance(value, Pending):
            return value
        return replace(identity(self.view(name)), source=name)

    def linear(self, name: str) -> Pending:
        """A tensor as a form alone."""
        pending = self.pending(name)
        if pending.is_linear:
            return pending
        return replace(identity(self.view(name)), source=name)

    def constant(self, name: str) -> Floats:
        """A constant's numbers, all of them finite."""
        value = self.value(name)
        if not isinstance(value, np.ndarray):
            raise NotHintedError(f"tensor {name} stands where a constant is expected")
        return self.finite(value)

    def finite(self, numbers: Floats) -> Floats:
        """The same numbers, all of them finite.

        Raises:
            NotHintedError: One is not.
        """
        if not np.isfinite(numbers).all():
            raise NotHintedError("a constant of it is infinite or no number")
        return numbers

    def masks(self, node: onnx.NodeProto) -> bool:
        """Whether a node drops scores."""
        return is_masked(node, self._constants)

    def integers(self, name: str) -> Ints:
        """A constant's whole numbers."""
        if name not in self._constants:
            raise NotHintedError(f"tensor {name} stands where constants are expected")
        found = numpy_helper.to_array(self._constants[name])
        if found.dtype.kind not in "iu":
            raise NotHintedError(f"tensor {name} stands where whole numbers are expected")
        whole: Ints = found.astype(np.int64)
        return whole

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape."""
        return self._shapes[name]


def _shape_of(value: Value) -> tuple[int, ...]:
    if isinstance(value, Pending):
        return tuple(value.sites.shape)
    if isinstance(value, ErrorFunction):
        return tuple(value.argument.sites.shape)
    if isinstance(value, Signs):
        return tuple(value.index.shape)
    if isinstance(value, Shares):
        return value.weights.shape
    if isinstance(value, Masked):
        return value.kept.shape
    return tuple(value.shape)
