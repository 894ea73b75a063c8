"""Masks of attention: what is added to scores, or chosen in their place, to drop keys.

Exporters write them in many ways: a constant of -inf, of float32's least number, -1e9, -1e4 or
-100 that is added; a Where; a product with 0 and 1 and a sum; Slices of a buffer; comparisons of
positions. Folded, they are constants. What counts is what they do to a row of a softmax
(`affine`): a key whose shift is `DROP_BELOW` or more below the largest shift of its row is dropped.
Scores that differ by less than `DROP_BELOW` - 16 then have shares that are right to 1e-7.

A shift of all keys of a row changes nothing; one so large that float32 holds nothing beside it
makes all scores of the row equal, as onnxruntime has it. In a row whose keys are all at -inf ONNX
has no number: it is refused, unless what reads the softmax takes something else there, as torch's
guards do (IsNaN and Where).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from zkml_ray.chunking.masked import DROPPED
from zkml_ray.chunking.normal_form.affine import (
    MOVES,
    Affine,
    Floats,
    Step,
    affine,
    compact,
    constant,
    steps_to,
)
from zkml_ray.chunking.normal_form.writer import Writer
from zkml_ray.errors import UnsupportedOperatorError

DROP_BELOW: Final = 80.0
"""How far below the largest of its row a shift drops a key: beside -100, far from any bias."""

_HELD: Final = 2.0**14
"""Beside a shift up to here float32 holds scores to 2^-10..."""

_SWALLOWED: Final = 2.0**28
"""...and beside one from here on it holds nothing of scores up to 2^4 that matters."""

GUARDS: Final = frozenset({"IsInf", "IsNaN"})
"""Operators that ask whether a number is one. Scores are finite but for what is added to them."""


class AnswerGuards(InPlacePass):
    """Pre: shapes inferred, constants folded. Post: nothing asks whether scores are infinite."""

    def call(self, model: ir.Model) -> PassResult:
        """Put constants in the place of such questions."""
        modified = False
        for node in list(model.graph):
            if node.op_type == "IsInf" or (node.op_type == "Equal" and _with_infinity(node)):
                modified |= _answer(Writer(model, node, 0))
        return PassResult(model, modified=modified)


class DropKeys(InPlacePass):
    """Pre: shapes inferred, constants folded. Post: see `chunking.masked`; no IsNaN of one."""

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite every softmax that a constant masks.

        Raises:
            UnsupportedOperatorError: A row has no key left, and nothing takes its place.
        """
        modified = False
        for node in list(model.graph):
            if node.op_type == "Softmax" and node.inputs[0] is not None:
                modified |= _mask(Writer(model, node, 0))
        return PassResult(model, modified=modified)


class TakeKnownChoices(InPlacePass):
    """Pre: constants folded. Post: no Where chooses one side throughout, if it is of its shape.

    Exact.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Let the chosen side take the node's place."""
        modified = False
        for node in list(model.graph):
            if node.op_type != "Where":
                continue
            where = constant(node.inputs[0])
            if where is None or not where.size or (where != where.reshape(-1)[0]).any():
                continue
            side = node.inputs[1 if where.reshape(-1)[0] else 2]
            if side is None or side.shape is None or side.shape != node.outputs[0].shape:
                continue
            write = Writer(model, node, 0)
            write.replace([write.op("Identity", side)])
            modified = True
        return PassResult(model, modified=modified)


def _with_infinity(node: ir.Node) -> bool:
    return any(
        numbers is not None
        and numbers.dtype.kind == "f"
        and numbers.size
        and np.isinf(numbers).all()
        for numbers in (constant(value) for value in node.inputs)
    )


def _answer(write: Writer) -> bool:
    """Where scores are infinite: where the shift is, because their base is finite."""
    node = write.place
    places = [i for i, value in enumerate(node.inputs) if constant(value) is None]
    data = node.inputs[places[0]] if len(places) == 1 else None
    if data is None:
        return False
    found = affine(steps_to(data))
    shift = np.zeros(()) if found is None else found.shift
    if node.op_type == "Equal":
        infinite = shift == np.asarray(constant(node.inputs[1 - places[0]]), dtype=np.float64)
    else:
        signs = [write.attribute("detect_negative", 1), write.attribute("detect_positive", 1)]
        infinite = (np.isneginf(shift) & bool(signs[0])) | (np.isposinf(shift) & bool(signs[1]))
    _put_truth(write, infinite)
    return True


def _put_truth(write: Writer, truth: npt.NDArray[Any]) -> None:
    whole = np.broadcast_to(truth, write.output_shape())
    write.replace([write.op("Identity", write.truths(whole))])


def _mask(write: Writer) -> bool:
    node = write.place
    source = node.inputs[0]
    if source is None or source.shape is None or not source.shape.is_static():
        return False
    axis = write.axis(-1)
    steps = steps_to(source)
    found = affine(steps)
    if found is None:
        return _unguarded(write, np.zeros([1] * len(write.shape()), dtype=bool))
    size = write.shape()[axis]
    rows = _Rows.of(found, axis, size)
    modified = _unguarded(write, rows.empty)
    bounded = any(step.node.op_type == "Max" for step in steps)
    if not (rows.dropped.any() or rows.low.any() or bounded):
        return modified
    if not rows.settled:
        raise _refusal(node, "adds a number to all keys of a row beside which float32 holds little")
    start = _start(steps, rows, axis, size)
    value = steps[start].node.inputs[steps[start].place]
    for step in steps[start:]:
        if step.node.op_type in MOVES:
            value = _again(write, step.node, value)
    part = _Rows.of(affine(steps[start:]) or found, axis, size)
    factor, shift = part.factor(), part.shift()
    if (factor != 1).any():
        value = write.op("Mul", value, write.floats(compact(factor)))
    if (shift != 0).any():
        value = write.op("Add", value, write.floats(compact(shift)))
    if rows.dropped.any():
        kept = write.truths(compact(~rows.dropped))
        value = write.op("Where", kept, value, write.floats(DROPPED))
    if value is not None:
        value.shape, value.type = source.shape, source.type
    node.replace_input_with(0, value)
    return True


class _Rows:
    """What shifts do to rows.

    Attributes:
        dropped: Whether a key is dropped.
        low: Whether all keys of a row are shifted by far.
        empty: Whether all keys of a row are at -inf.
        settled: Whether it is known what all rows are.
    """

    def __init__(self, found: Affine, spread: Floats, top: Floats) -> None:
        self._found = found
        self._spread = spread
        self._top = top
        self.empty = np.isneginf(top)
        self.low = top <= -DROP_BELOW
        with np.errstate(invalid="ignore"):
            self.dropped = ~self.empty & (spread <= top - DROP_BELOW)
        self._flat = top <= -_SWALLOWED
        unclear = (top <= -_HELD) & ~self._flat
        self.settled = not bool((unclear & ~self.dropped & (found.factor != 0)).any())

    @classmethod
    def of(cls, found: Affine, axis: int, size: int) -> _Rows:
        """Rows along an axis of some size."""
        shape = list(found.shift.shape)
        shape[axis] = size
        spread = np.broadcast_to(found.shift, shape)
        return cls(found, spread, spread.max(axis=axis, keepdims=True))

    def factor(self) -> Floats:
        """Of kept scores; 1 where keys are dropped."""
        kept = np.where(self._flat, 0.0, self._found.factor)
        return np.where(self.dropped, 1.0, kept)

    def shift(self) -> Floats:
        """Of kept scores, those of low rows less their largest; 0 where keys are dropped."""
        with np.errstate(invalid="ignore"):
            moved = np.where(self.low, self._spread - self._top, self._spread)
        return np.where(self.dropped | self.empty, 0.0, moved)


def _start(steps: Sequence[Step], rows: _Rows, axis: int, size: int) -> int:
    """The operator from which on nothing but moves and the mask is left, or the last that masks."""
    last, bounds = 0, [i for i, step in enumerate(steps) if step.node.op_type == "Max"]
    for start in range(len(steps) if not bounds else bounds[0] + 1):
        found = affine(steps[start:])
        if found is None:
            break
        part = _Rows.of(found, axis, size)
        if (part.dropped ^ rows.dropped).any() or (part.low ^ rows.low).any():
            break
        last = start
        if (part.factor() == 1).all() and (part.shift() == 0).all():
            return start
    return last


def _again(write: Writer, node: ir.Node, value: ir.Value | None) -> ir.Value:
    """A move once more, of another tensor."""
    attributes = {name: found.value for name, found in node.attributes.items()}
    return write.op(node.op_type, value, *node.inputs[1:], **attributes)


def _unguarded(write: Writer, empty: npt.NDArray[np.bool_]) -> bool:
    """Answer what asks whether a softmax is a number; refuse where it is none and nothing asks."""
    node = write.place
    result, modified = node.outputs[0], False
    for use in list(result.uses()):
        if use.node.op_type == "IsNaN":
            asked = Writer(write.model, use.node, 0)
            _put_truth(asked, empty)
            modified = True
    if not empty.any():
        return modified
    whole = np.broadcast_to(empty, write.shape())
    guarded = not result.is_graph_output() and all(
        use.node.op_type == "Where" and _chooses_away(use.node, result, whole)
        for use in result.uses()
    )
    if not guarded:
        count = math.prod(empty.shape)
        raise _refusal(
            node, f"drops all keys of a row ({int(empty.sum())} of {count} rows at -inf)"
        )
    return modified


def _chooses_away(node: ir.Node, result: ir.Value, empty: npt.NDArray[np.bool_]) -> bool:
    where = constant(_source(node.inputs[0]))
    if where is None:
        return False
    taken = where.astype(bool) if node.inputs[1] is result else ~where.astype(bool)
    both = node.inputs[1] is result and node.inputs[2] is result
    return not both and not (taken & empty).any()


def _source(value: ir.Value | None) -> ir.Value | None:
    producer = None if value is None else value.producer()
    return producer.inputs[0] if producer is not None and producer.op_type == "Identity" else value


def _refusal(node: ir.Node, why: str) -> UnsupportedOperatorError:
    return UnsupportedOperatorError(
        f"node {node.name} (Softmax): its mask {why}, where the result is no number or none worth "
        "proving; leave a key in every row"
    )
