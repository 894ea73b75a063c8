"""Scores as an affine function of a tensor, element by element: scores = factor * base + shift.

Masks are written in many ways: constants are added, chosen or multiplied, before or behind moves
of elements. What they amount to is what this module computes: from the operators between a base
and the scores, by constants alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Floats = npt.NDArray[np.float64]

MOVES: Final = frozenset({"Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""Operators whose result has the elements of their first input, each once."""

LOW: Final = -1e4
"""A constant in a Max that is no more than this bounds masked scores alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """An operator between the base and the scores.

    Attributes:
        node: The operator.
        place: Which of its inputs is the tensor; the others are constants.
    """

    node: ir.Node
    place: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Affine:
    """Scores as they follow from a base.

    Attributes:
        factor: Of the scores' rank, sizes of 1 where elements do not differ.
        shift: The same; it may be infinite.
    """

    factor: Floats
    shift: Floats


def steps_to(value: ir.Value) -> list[Step]:
    """The operators that make a tensor from another one and constants, the first one first."""
    found: list[Step] = []
    while True:
        step = _step_of(value)
        if step is None:
            return found[::-1]
        found.append(step)
        source = step.node.inputs[step.place]
        if source is None:
            return found[::-1]
        value = source


def affine(steps: Sequence[Step]) -> Affine | None:
    """What operators amount to; None where it is no number."""
    if not steps:
        return None
    rank = len(_shape(steps[0].node.inputs[steps[0].place]) or ())
    found = Affine(factor=np.ones([1] * rank), shift=np.zeros([1] * rank))
    with np.errstate(all="ignore"):
        for step in steps:
            found = _after(found, step)
    return None if np.isnan(found.shift).any() or np.isnan(found.factor).any() else found


def compact(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Axes along which nothing differs, of size 1."""
    for axis in range(values.ndim):
        first = values.take([0], axis=axis) if values.shape[axis] else values
        if values.shape[axis] > 1 and (values == first).all():
            values = first
    return values


def constant(value: ir.Value | None) -> npt.NDArray[Any] | None:
    """A constant's numbers, or None."""
    if value is None or value.const_value is None or not value.is_initializer():
        return None
    numbers: npt.NDArray[Any] = value.const_value.numpy()
    return numbers


def _shape(value: ir.Value | None) -> tuple[int, ...] | None:
    if value is None or value.shape is None or not value.shape.is_static():
        return None
    return tuple(int(size) for size in value.shape.numpy())


def _step_of(value: ir.Value) -> Step | None:
    node = value.producer()
    if node is None or node.domain not in ("", "ai.onnx") or value is not node.outputs[0]:
        return None
    made = _shape(value)
    if made is None:
        return None
    data = _data_place(node)
    if data is None:
        return None
    source = _shape(node.inputs[data])
    if source is None or (node.op_type not in MOVES and source != made):
        return None  # repeated elements are a base of their own
    return Step(node=node, place=data)


def _data_place(node: ir.Node) -> int | None:
    """The input that is no constant, where the operator is known and there is one such."""
    if node.op_type in MOVES or node.op_type in ("Identity", "Neg"):
        return 0 if all(constant(value) is not None for value in node.inputs[1:]) else None
    if node.op_type == "Where" and constant(node.inputs[0]) is None:
        return None
    if node.op_type in ("Add", "Sub", "Mul", "Div", "Max", "Where"):
        places = [i for i, value in enumerate(node.inputs) if constant(value) is None]
        if len(places) != 1 or (node.op_type == "Div" and places == [1]):
            return None
        others = [constant(value) for i, value in enumerate(node.inputs) if i != places[0]]
        if node.op_type == "Max" and (
            len(others) != 1 or others[0] is None or not (others[0] <= LOW).all()
        ):
            return None
        return places[0]
    return None


def _after(before: Affine, step: Step) -> Affine:
    node, factor, shift = step.node, before.factor, before.shift
    if node.op_type in MOVES:
        source = _shape(node.inputs[0]) or ()
        return Affine(factor=_moved(node, factor, source), shift=_moved(node, shift, source))
    if node.op_type == "Identity":
        return before
    if node.op_type == "Neg":
        return Affine(factor=-factor, shift=-shift)
    numbers = [constant(value) for value in node.inputs]
    if node.op_type == "Where":
        first = step.place == 1
        where = np.asarray(numbers[0]).astype(bool)
        other = np.asarray(numbers[2 if first else 1], dtype=np.float64)
        if not first:
            where = ~where
        return _ranked(np.where(where, factor, 0.0), np.where(where, shift, other), before)
    other = np.asarray(numbers[1 - step.place], dtype=np.float64)
    if node.op_type == "Add":
        return _ranked(factor, shift + other, before)
    if node.op_type == "Sub":
        if step.place == 0:
            return _ranked(factor, shift - other, before)
        return _ranked(-factor, other - shift, before)
    if node.op_type == "Mul":
        return _ranked(factor * other, shift * other, before)
    if node.op_type == "Div":
        return _ranked(factor / other, shift / other, before)
    return _ranked(factor, np.maximum(shift, other), before)


def _ranked(factor: Floats, shift: Floats, before: Affine) -> Affine:
    rank = before.factor.ndim
    ones = [1] * rank
    return Affine(
        factor=np.asarray(factor).reshape(ones) if factor.ndim < rank else factor,
        shift=np.asarray(shift).reshape(ones) if shift.ndim < rank else shift,
    )


def _moved(node: ir.Node, values: Floats, source: tuple[int, ...]) -> Floats:
    made = _shape(node.outputs[0]) or ()
    if values.size == 1:
        return values.reshape([1] * len(made))
    if node.op_type == "Transpose":
        order = node.attributes["perm"].as_ints() if "perm" in node.attributes else None
        turned: Floats = values.transpose(None if order is None else list(order))
        return turned
    return compact(np.broadcast_to(values, source).reshape(made))
