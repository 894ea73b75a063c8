"""Pass `dense-integer`: a matrix product with constant weights gets integer weights.

Precondition: a MatMul or Gemm (transA 0) of a float32 tensor by constant weights [K, N], and for
Gemm a constant addend that broadcasts along rows; the weights times 2^parameter are at most 2^24 in
magnitude, and rounding leaves every column's weights what they are (`precision`). Parameter: weight
bits w.

Postcondition: the same tensor: MatMul by round(W * 2^w) -> Mul 2^-w -> Add bias. The addition
carries the rebase; without a bias, one of two halves does. Gemm's alpha and beta are folded into
weights and bias.

Exactness: bounded, each weight is rounded to a multiple of 2^-w, which ezkl does too: at w equal to
the parameter scale the products are those of the native operator. The bias is added before
the rebase, so it keeps its precision.

Why: by itself it costs what the native product costs. It lets `relu-abs` and others move the
rebase.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from zkml_ray.chunking.passes.base import (
    ANY_BITS,
    Builder,
    Exactness,
    Rewrite,
    constant_of,
    input_of,
    node_named,
    refuse,
)
from zkml_ray.chunking.passes.im2col import DEFAULT_BITS
from zkml_ray.chunking.passes.precision import check_kept
from zkml_ray.chunking.passes.scales import carried, integer_weights


class DenseInteger:
    """The pass."""

    name = "dense-integer"
    exactness: Exactness = "bounded"
    parameters = ANY_BITS

    def places(self, model: ir.Model) -> list[Rewrite]:
        """Every product that satisfies the precondition and whose weights are not whole yet."""
        return [
            Rewrite(name=self.name, node=str(node.name), parameter=DEFAULT_BITS)
            for node in model.graph
            if node.op_type in ("Gemm", "MatMul")
            and isinstance(parts := _parts(node, DEFAULT_BITS), _Parts)
            and not parts.whole
        ]

    def apply(self, model: ir.Model, rewrite: Rewrite) -> None:
        """Replace one product."""
        node = node_named(model, rewrite.node)
        parts = _parts(node, rewrite.parameter)
        if isinstance(parts, str):
            raise refuse(rewrite, parts)
        if parts.whole:
            raise refuse(rewrite, "its weights are whole numbers already")
        check_kept(parts.exact, rewrite.parameter, 0, f"rewrite {self.name} at {rewrite.node}")
        build = Builder(model, node, f"{rewrite.node}/{self.name}")
        sums = build.node("MatMul", [parts.data, build.constant(parts.weight, "weights")])
        if parts.bias is None:
            value = carried(build, sums, rewrite.parameter)
        else:
            shifted = build.node("Mul", [sums, build.scalar(2.0**-rewrite.parameter)])
            value = build.node("Add", [shifted, build.constant(parts.bias, "bias")])
        build.replace(node.outputs[0], value)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    data: ir.Value
    exact: npt.NDArray[np.float32]
    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32] | None
    whole: bool


def _parts(node: ir.Node, bits: int) -> _Parts | str:
    """What the rewrite is made of, or why it cannot be made."""
    if node.op_type not in ("Gemm", "MatMul"):
        return f"it is a {node.op_type}, not a Gemm or MatMul"
    data, weight, bias = input_of(node, 0), constant_of(input_of(node, 1)), None
    if data is None or constant_of(data) is not None or weight is None or weight.ndim != 2:
        return "it is not a product of a tensor by a constant matrix"
    if node.op_type == "Gemm":
        attributes = node.attributes
        alpha, beta = (
            attributes[name].as_float() if name in attributes else 1.0 for name in ("alpha", "beta")
        )
        flags = [
            attributes[name].as_int() if name in attributes else 0 for name in ("transA", "transB")
        ]
        if flags[0]:
            return "its data is transposed"
        weight = (weight.T if flags[1] else weight) * np.float32(alpha)
        if input_of(node, 2) is not None:
            bias = constant_of(input_of(node, 2))
            if bias is None or bias.size not in (1, weight.shape[1]):
                return "its addend is not one constant row"
            if bias.shape[-1:] not in ((), (bias.size,)):
                return "its addend is a column"
            bias = np.broadcast_to(bias.reshape(-1), (weight.shape[1],)) * np.float32(beta)
    integers = integer_weights(weight, bits)
    if not 1 <= bits <= 24 or integers is None:
        return f"its weights do not fit integers at {bits} bits"
    whole = bool((weight == np.round(weight)).all())
    return _Parts(data=data, exact=weight, weight=integers, bias=bias, whole=whole)
