"""Value bounds: which tensors of a chunk cannot leave the packing's range, whatever a prover does.

Packing is injective only over integers of limited magnitude, so every tensor that a chunk commits
to must be held within that limit by its circuit. This module proves it from the chunk's nodes, or
does not: then the caller adds a guard. A wrong claim here would give an attacker two openings of
one leaf (tests/soundness/test_overflow.py shows both).

The analysis knows neither the circuit's scales nor its target T, because they are chosen after the
chunk is cut. So a bound counts only if it holds whether or not ezkl rebases a result (divides it
back to T). What it uses of ezkl 23.0.5 (src/circuit/ops/layouts.rs, src/graph/node.rs), R being
base^legs - 1:

- a circuit input is decomposed into sign and digits: it lies in +-R;
- a rebased result is a quotient that the prover claims and the circuit decomposes: within +-R;
- Abs and Relu decompose what they *read*, and their result is it times a sign or a mask: both lie
  in +-R, the former also for every other reader of that tensor;
- `Mul` by the constant 2^-k, k >= 1, is an identity on the integers and raises the scale by k;
- Add, Sub and Concat bring their inputs to one scale, multiplying the lower ones: they are bounded
  only where all scales are surely equal;
- every other operator's result has a scale of at most T, and an unknown magnitude.

Scales are therefore followed symbolically: a tensor's scale is that of a root tensor plus a number.
Roots are inputs and results of operators, whose scale is at most T; so a moving or adding operator
keeps its input's symbol when the number is 0, and is a new root otherwise (it may be rebased).

Precondition: no operator's result is used without being tied to the cells that compute it. ezkl
breaks that for every product in a circuit that uses Freivalds' argument (docs/adr/0013).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from zkml_ray.chunking.operators import RANGE_CHECKED, SELECTING

_DECOMPOSING = RANGE_CHECKED | {"Abs"}


@dataclass(frozen=True, slots=True)
class _Scale:
    """The scale of a root tensor plus a number; equal scales are surely equal."""

    root: str
    plus: int = 0


def value_bounds(
    nodes: Iterable[onnx.NodeProto],
    constants: Mapping[str, onnx.TensorProto],
    inputs: Mapping[str, int],
    largest: int,
) -> dict[str, int]:
    """The tensors whose integers are bounded, and by what.

    Args:
        nodes: The chunk's nodes, in topological order.
        constants: Initializers by name (more than the chunk's do not matter).
        inputs: Tensors that the circuit reads as inputs, each with its scale less the input scale.
        largest: R, or an upper bound of it.

    Returns:
        Per bounded tensor the largest magnitude of its elements, at least `largest`.
    """
    body = list(nodes)
    decomposed = {node.input[0] for node in body if node.op_type in _DECOMPOSING}
    analysis = _Analysis(constants, decomposed, largest)
    for name, plus in inputs.items():
        analysis.bounds[name], analysis.scales[name] = largest, _Scale("", plus)
    for node in body:
        analysis.visit(node)
    return analysis.bounds


class _Analysis:
    def __init__(
        self, constants: Mapping[str, onnx.TensorProto], decomposed: set[str], largest: int
    ) -> None:
        self.bounds: dict[str, int] = {}
        self.scales: dict[str, _Scale] = {}
        self._constants = constants
        self._decomposed = decomposed
        self._largest = largest

    def visit(self, node: onnx.NodeProto) -> None:
        bound, scale = self._result(node)
        for name in node.output:
            root = scale if scale is not None else _Scale(name)
            self.scales[name] = root
            if name in self._decomposed:
                self.bounds[name] = self._largest
            elif bound is not None:
                self.bounds[name] = max(bound, self._largest)

    def _result(self, node: onnx.NodeProto) -> tuple[int | None, _Scale | None]:
        """A bound, if there is one, and the scale, if it is not a new root."""
        if node.op_type in _DECOMPOSING:
            return self._largest, self._kept(node.input[0])
        shifted = self._shift(node)
        if shifted is not None:
            name, bits = shifted
            before = self.scales[name]
            return self.bounds.get(name), _Scale(before.root, before.plus + bits)
        if node.op_type in ("Add", "Sub") and self._at_one_scale(node.input):
            found = [self.bounds.get(name) for name in node.input]
            total = None if None in found else sum(b for b in found if b is not None)
            return total, self._kept(node.input[0])
        if node.op_type in SELECTING:
            data = self._data(node)
            if data and self._at_one_scale(data):
                found = [self.bounds.get(name) for name in data]
                largest = None if None in found else max(b for b in found if b is not None)
                return largest, self._kept(data[0])
        return None, None

    def _kept(self, name: str) -> _Scale | None:
        scale = self.scales.get(name)
        return scale if scale is not None and scale.plus == 0 else None

    def _at_one_scale(self, names: Iterable[str]) -> bool:
        found = {self.scales.get(name) for name in names}
        return len(found) == 1 and None not in found

    def _data(self, node: onnx.NodeProto) -> list[str]:
        """The tensors that a selecting operator picks from; zeros are within every bound."""
        if node.op_type != "Concat":
            return list(node.input[:1])
        return [name for name in node.input if not self._is_zero(name)]

    def _is_zero(self, name: str) -> bool:
        tensor = self._constants.get(name)
        return tensor is not None and not np.any(numpy_helper.to_array(tensor))

    def _shift(self, node: onnx.NodeProto) -> tuple[str, int] | None:
        """The tensor and k of a multiplication by 2^-k."""
        if node.op_type != "Mul":
            return None
        for index in (0, 1):
            tensor, other = self._constants.get(node.input[index]), node.input[1 - index]
            if tensor is None or other not in self.scales or math.prod(tensor.dims) != 1:
                continue
            if tensor.data_type != onnx.TensorProto.FLOAT:
                continue
            mantissa, exponent = math.frexp(float(numpy_helper.to_array(tensor).reshape(-1)[0]))
            if mantissa == 0.5 and exponent <= 0:
                return other, 1 - exponent
        return None
