"""Constant folding: what follows from the model alone is computed once, here.

Exporters write shapes as little programs (Shape, Gather, Concat, Reshape). With static shapes they
are constants, and they must go: a circuit has no integers of that kind.

A folded constant is part of the plan's digest, so it must be the same on every machine. Folded
are therefore only operators that move elements, integer arithmetic, float arithmetic that
IEEE 754 rounds correctly (no exponential), and small matrix products, whose sums are rounded once.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes import InPlacePass, PassResult, PostconditionError

from zkml_ray.chunking.operators import FOLDABLE
from zkml_ray.errors import ChunkingError

MAX_FOLDED_ELEMENTS: Final = 1 << 20
"""A result with more elements than this, and than its inputs together, is not folded: a file of a
few bytes must not become a model of gigabytes."""

MAX_SUMMED: Final = 1 << 16
"""Products of numbers in a matrix product that is folded: the first step of a recurrent operator,
whose state is a constant, has one."""

_EXACT: Final = 1 << 24
"""Whole numbers up to here are float32 numbers."""

_OF_SHAPE: Final = frozenset({"Shape", "Size"})
_OF_VALUES: Final = frozenset({"NonZero"})
"""Operators whose result's shape follows from values: at most one row an element, of its places."""

_INTEGERS_ONLY: Final = frozenset(
    {"Range", "ReduceProd", "Mod", "CumSum", "ReduceSum", "ReduceMax", "ReduceMin"}
)


class FoldConstants(InPlacePass):
    """Pre: shapes inferred, constants are initializers. Post: nothing foldable is left.

    Exact up to nothing: only operators whose result is the same on every machine are folded.
    """

    def __init__(self, opset: int) -> None:
        """Fold with an operator set.

        Args:
            opset: Version of the model's operators.
        """
        super().__init__()
        self._opset = opset

    def call(self, model: ir.Model) -> PassResult:
        """Replace foldable nodes, in topological order."""
        modified = False
        for node in list(model.graph):
            if not _is_foldable(node):
                continue
            results = [_product(node)] if node.op_type == "MatMul" else self._evaluated(node)
            for output, tensor in zip(node.outputs, results, strict=True):
                if not output.name or not output.uses():
                    continue
                constant = ir.Value(
                    name=output.name,
                    shape=ir.Shape(tensor.shape),
                    type=ir.TensorType(ir.DataType.from_numpy(tensor.dtype)),
                    const_value=ir.tensor(tensor, name=output.name),
                )
                ir.convenience.replace_all_uses_with(output, constant)
                output.name = None
                model.graph.register_initializer(constant)
            model.graph.remove(node, safe=True)
            modified = True
        return PassResult(model, modified=modified)

    def ensures(self, model: ir.Model) -> None:
        """Nothing foldable is left."""
        for node in model.graph:
            if _is_foldable(node):
                raise PostconditionError(f"node {node.name} ({node.op_type}) can be folded")

    def _evaluated(self, node: ir.Node) -> list[np.ndarray]:
        if node.op_type in _OF_SHAPE:
            return [_shape_result(node)]
        if node.op_type == "Pow" and (power := _whole_power(node)) is not None:
            return [power]
        names = [value.name if value is not None else "" for value in node.inputs]
        feeds = {}
        for value in node.inputs:
            if value is not None and value.const_value is not None:
                feeds[value.name] = value.const_value.numpy()
        proto = ir.to_proto(node)
        graph = helper.make_graph(
            [proto],
            "fold",
            [
                helper.make_tensor_value_info(
                    name, helper.np_dtype_to_tensor_dtype(feeds[name].dtype), feeds[name].shape
                )
                for name in dict.fromkeys(filter(None, names))
            ],
            [onnx.ValueInfoProto(name=name) for name in proto.output if name],
        )
        single = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self._opset)])
        try:
            with np.errstate(all="ignore"):
                found = ReferenceEvaluator(single).run(None, feeds)
        except Exception as error:
            line = str(error).strip().splitlines()[0] if str(error).strip() else "it fails"
            raise ChunkingError(
                f"node {node.name}: {node.op_type} of constants cannot be computed: {line}"
            ) from None
        named = dict(zip([name for name in proto.output if name], found, strict=True))
        return [np.asarray(named.get(output.name, ())) for output in node.outputs]


def _factors(node: ir.Node) -> list[np.ndarray]:
    """Both factors of a matrix product of float32 constants; none where it is another one."""
    values = [value for value in node.inputs if value is not None]
    if not all(value.const_value is not None and value.is_initializer() for value in values):
        return []
    found = [np.asarray(value.const_value.numpy()) for value in values if value.const_value]
    return found if all(each.dtype == np.float32 and each.ndim for each in found) else []


def _product(node: ir.Node) -> np.ndarray:
    """A matrix product whose sums are exact before they are rounded."""
    left, right = (factor.astype(np.float64) for factor in _factors(node))
    rows = left if left.ndim > 1 else left[None]
    columns = np.moveaxis(right, -2, -1) if right.ndim > 1 else right[None]
    # Products of two float32 numbers are exact in float64.
    terms = rows[..., :, None, :] * columns[..., None, :, :]
    found = np.apply_along_axis(math.fsum, -1, terms)
    if left.ndim == 1:
        found = found[..., 0, :]
    if right.ndim == 1:
        found = found[..., 0]
    return np.asarray(found, dtype=np.float32)


def _is_foldable(node: ir.Node) -> bool:
    if node.op_type == "MatMul" and node.domain in ("", "ai.onnx"):
        factors = _factors(node)
        if len(factors) < 2 or any(output.is_graph_output() for output in node.outputs):
            return False
        made = _size(node.outputs[0])
        depth = factors[0].shape[-1]
        finite = all(np.isfinite(each).all() for each in factors)
        return made is not None and finite and 0 < made * depth <= MAX_SUMMED
    if node.op_type not in FOLDABLE | {"Pow"} or node.domain not in ("", "ai.onnx"):
        return False
    if any(output.is_graph_output() for output in node.outputs):
        return False
    if node.op_type in _OF_SHAPE:
        return _size(node.inputs[0]) is not None
    inputs = [value for value in node.inputs if value is not None]
    if not all(value.const_value is not None and value.is_initializer() for value in inputs):
        return False
    if node.op_type == "Pow" and _whole_power(node) is None:
        return False
    if node.op_type in _INTEGERS_ONLY and any(
        value.dtype not in (ir.DataType.INT64, ir.DataType.INT32) for value in inputs
    ):
        return False
    read = sum(_size(value) or 0 for value in inputs)
    for output in node.outputs:
        made = _size(output)
        if made is None and node.op_type in _OF_VALUES:
            made = read * len(inputs[0].shape or ())
        if output.uses() and (made is None or made > max(MAX_FOLDED_ELEMENTS, read)):
            return False
    return True


def _whole_power(node: ir.Node) -> np.ndarray | None:
    """A power of whole constants that is whole and below 2^24, or None: any other is rounded."""
    constants = [None if v is None else v.const_value for v in node.inputs]
    if len(constants) != 2 or constants[0] is None or constants[1] is None:
        return None
    base, exponent = (tensor.numpy() for tensor in constants if tensor is not None)
    pairs = np.broadcast(base, exponent)
    if pairs.size > 1 << 10:
        return None
    found = []
    for number, power in pairs:
        if not np.isfinite(number) or not np.isfinite(power):
            return None
        if number != int(number) or power != int(power) or not 0 <= power <= 64:
            return None
        found.append(int(number) ** int(power))
        if abs(found[-1]) > _EXACT:
            return None
    return np.array(found, dtype=base.dtype).reshape(pairs.shape)


def _size(value: ir.Value | None) -> int | None:
    if value is None or value.shape is None or not value.shape.is_static():
        return None
    return math.prod(value.shape.numpy())


def _shape_result(node: ir.Node) -> np.ndarray:
    value = node.inputs[0]
    if value is None or value.shape is None:
        raise ChunkingError(f"node {node.name}: {node.op_type} has no input of known shape")
    sizes = list(value.shape.numpy())
    if node.op_type == "Size":
        return np.array(math.prod(sizes), dtype=np.int64)
    start = node.attributes["start"].as_int() if "start" in node.attributes else 0
    end = node.attributes["end"].as_int() if "end" in node.attributes else len(sizes)
    return np.array(sizes[start:end], dtype=np.int64)
