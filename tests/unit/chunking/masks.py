"""Masks of attention as exporters write them: the same keys dropped in many ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.unit.chunking.builders import integers

Kept = npt.NDArray[np.bool_]

LOWEST = float(np.finfo(np.float32).min)


def node(op_type: str, *inputs: str, to: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs, [to], f"n_{to}", **attributes)


def array(name: str, values: object, dtype: object = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype=dtype), name)


@dataclass
class Written:
    """A way of writing a mask.

    Attributes:
        nodes: From scores "s" to masked scores "m", both of one shape.
        constants: Their constants.
    """

    nodes: list[onnx.NodeProto]
    constants: list[onnx.TensorProto] = field(default_factory=list)


Form = Callable[[Kept, Sequence[int]], Written]
"""Writes a mask whose shape broadcasts to the scores', for scores of a shape."""


def added(low: float, *, first: bool = False) -> Form:
    def write(kept: Kept, shape: Sequence[int]) -> Written:
        names = ("mask", "s") if first else ("s", "mask")
        return Written([node("Add", *names, to="m")], [array("mask", np.where(kept, 0.0, low))])

    return write


def subtracted(kept: Kept, shape: Sequence[int]) -> Written:
    return Written([node("Sub", "s", "mask", to="m")], [array("mask", np.where(kept, 0.0, 1e9))])


def filled(low: float, *, negated: bool = False) -> Form:
    def write(kept: Kept, shape: Sequence[int]) -> Written:
        where = array("kept", ~kept if negated else kept, np.bool_)
        names = ("low", "s") if negated else ("s", "low")
        return Written([node("Where", "kept", *names, to="m")], [where, array("low", low)])

    return write


def multiplied(kept: Kept, shape: Sequence[int]) -> Written:
    """As the first GPT-2 exports had it: s b - 1e4 (1 - b)."""
    nodes = [
        node("Mul", "s", "b", to="sb"),
        node("Sub", "one", "b", to="c"),
        node("Mul", "c", "large", to="low"),
        node("Sub", "sb", "low", to="m"),
    ]
    constants = [array("b", kept), array("one", 1.0), array("large", 1e4)]
    return Written(nodes, constants)


def compared(kept: Kept, shape: Sequence[int]) -> Written:
    """A causal mask of positions; `kept` is not looked at but for its sizes."""
    queries, keys = shape[-2:]
    nodes = [
        node("Range", "nought", "queries", "step", to="rows"),
        node("Range", "nought", "keys", "step", to="columns"),
        node("Unsqueeze", "rows", "last", to="rows_as_column"),
        node("GreaterOrEqual", "rows_as_column", "columns", to="causal"),
        node("Where", "causal", "s", "low", to="m"),
    ]
    constants = [
        array("nought", 0, np.int64),
        array("queries", queries, np.int64),
        array("keys", keys, np.int64),
        array("step", 1, np.int64),
        integers("last", 1),
        array("low", -np.inf),
    ]
    return Written(nodes, constants)


def triangular(kept: Kept, shape: Sequence[int]) -> Written:
    """Trilu of a buffer of ones, sliced to the sizes, compared with zero, chosen by."""
    queries, keys = shape[-2:]
    size = max(queries, keys) + 2
    nodes = [
        node("ConstantOfShape", "sizes", to="ones", value=array("value", [1.0])),
        node("Trilu", "ones", to="lower", upper=0),
        node("Slice", "lower", "starts", "ends", "axes", to="part"),
        node("Equal", "part", "zero", to="dropped"),
        node("Where", "dropped", "low", "s", to="m"),
    ]
    constants = [
        integers("sizes", size, size),
        integers("starts", 0, 0),
        integers("ends", queries, keys),
        integers("axes", 0, 1),
        array("zero", 0.0),
        array("low", LOWEST),
    ]
    return Written(nodes, constants)


def chosen_then_added(kept: Kept, shape: Sequence[int]) -> Written:
    """As torch writes a mask of truth values: added is 0 or -inf, by a Where."""
    nodes = [
        node("Where", "kept", "nothing", "low", to="mask"),
        node("Add", "s", "mask", to="m"),
    ]
    constants = [array("kept", kept, np.bool_), array("nothing", 0.0), array("low", -np.inf)]
    return Written(nodes, constants)


def reshaped(kept: Kept, shape: Sequence[int]) -> Written:
    """Added before heads and images become one axis, and back: as BART and OPT write it."""
    flat = [int(np.prod(shape[:-2])), *shape[-2:]]
    nodes = [
        node("Add", "s", "mask", to="masked"),
        node("Max", "masked", "low", to="bounded"),
        node("Reshape", "bounded", "flat", to="as_one"),
        node("Reshape", "as_one", "whole", to="m"),
    ]
    constants = [
        array("mask", np.where(kept, 0.0, LOWEST)),
        array("low", LOWEST),
        integers("flat", *flat),
        integers("whole", *shape),
    ]
    return Written(nodes, constants)


FORMS: dict[str, Form] = {
    "-inf added": added(-np.inf),
    "-inf before": added(-np.inf, first=True),
    "float32's least": added(LOWEST),
    "-1e9 added": added(-1e9),
    "-1e4 added": added(-1e4),
    "-100 added": added(-100.0),
    "1e9 subtracted": subtracted,
    "chosen, -inf": filled(-np.inf),
    "chosen, -inf, negated": filled(-np.inf, negated=True),
    "chosen, -1e9": filled(-1e9),
    "chosen, -1e4": filled(-1e4, negated=True),
    "multiplied": multiplied,
    "chosen, then added": chosen_then_added,
    "reshaped": reshaped,
}

CAUSAL_FORMS: dict[str, Form] = {"compared": compared, "triangular": triangular}


def model_of(
    written: Written, shape: Sequence[int], tail: Sequence[onnx.NodeProto] = (), axis: int = -1
) -> onnx.ModelProto:
    """From scores "s" to their shares "y"; a tail goes from shares "p" to "y"."""
    softmax = node("Softmax", "m", to="p" if tail else "y", axis=axis)
    graph = helper.make_graph(
        [*written.nodes, softmax, *tail],
        "masked",
        [helper.make_tensor_value_info("s", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, list(shape))],
        written.constants,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(made)
    return made


def guard(shape: Sequence[int]) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Torch's: zero where a share is no number."""
    nodes = [node("IsNaN", "p", to="wrong"), node("Where", "wrong", "none", "p", to="y")]
    return nodes, [array("none", 0.0)]


def causal(queries: int, keys: int) -> Kept:
    return np.tri(queries, keys, keys - queries, dtype=bool)
