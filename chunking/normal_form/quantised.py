"""Models that are quantised already: their weights as they are, their activations not rounded.

Static quantisation writes Q and DQ around every tensor; its older form is QLinearConv and
QLinearMatMul, dynamic quantisation DynamicQuantizeLinear with MatMulInteger or ConvInteger. In a
circuit all of them would be a division, a rounding and a product an element, on top of the
circuit's own fixed point, which is finer. So

- what is dequantised of constants is computed: (q - zero point) scale, the model's very weights;
- an activation's Q and DQ become a Clip to what its integers can say, which may be a Relu;
- integer products become products of the floats that their integers stand for.

The result is within half of the model's own step of an activation from what runtimes compute, for
each that is not rounded; a plan says so, and a run is compared with onnxruntime.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from zkml_ray.chunking.places import node_label
from zkml_ray.errors import UnsupportedOperatorError

Array = npt.NDArray[Any]

QUANTISED: Final = frozenset(
    {
        *("QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul"),
        *("DynamicQuantizeLinear", "MatMulInteger", "ConvInteger"),
    }
)

_MOVES: Final = frozenset(
    {
        *("Flatten", "Gather", "Identity", "MaxPool", "Reshape", "Slice", "Squeeze", "Transpose"),
        "Unsqueeze",
    }
)

_RANGES: Final = {
    TensorProto.INT8: (-128, 127),
    TensorProto.UINT8: (0, 255),
    TensorProto.INT16: (-(1 << 15), (1 << 15) - 1),
    TensorProto.UINT16: (0, (1 << 16) - 1),
}


def without_quantisation(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A model of floats.

    Args:
        proto: The model (not changed).

    Returns:
        The model, or the same one if it is not quantised.

    Raises:
        UnsupportedOperatorError: It is, in a way that cannot be proved.
    """
    if not any(_is_quantised(node) for node in proto.graph.node):
        return proto
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    _Floats(result.graph).rewrite()
    return result


def quantisation_notices(proto: onnx.ModelProto) -> tuple[str, ...]:
    """What is left out of a quantised model, in a sentence."""
    if not any(_is_quantised(node) for node in proto.graph.node):
        return ()
    return (
        "the model's quantised weights are used as they are; its activations are not rounded to "
        "the model's own steps, but to the circuit's, which differs by up to half of such a step",
    )


def _is_quantised(node: onnx.NodeProto) -> bool:
    return node.domain in ("", "ai.onnx") and node.op_type in QUANTISED


class _Floats:
    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self._constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        self._nodes: list[onnx.NodeProto] = []
        self._made: dict[str, Array] = {}
        # By quantised tensor, the float tensor that it stands for.
        self._floats: dict[str, str] = {}
        self._dynamic: set[str] = set()
        # By quantised tensor, its scale and zero point.
        self._grids: dict[str, tuple[float, float]] = {}
        # Constants of integers that quantising has computed.
        self._rounded: set[str] = set()

    def rewrite(self) -> None:
        """Replace every operator that quantises."""
        for node in self._graph.node:
            rule = getattr(self, f"_{node.op_type}", None) if _is_quantised(node) else None
            if rule is not None:
                rule(node)
                continue
            if node.op_type in _MOVES and node.input[0] in self._floats:
                self._move(node)
                continue
            for name in node.input:
                if name in self._floats or name in self._rounded:
                    raise _refused(node, f"it computes with the integers of {name}")
            self._nodes.append(node)
        kept = list(self._nodes)
        del self._graph.node[:]
        self._graph.node.extend(kept)
        self._graph.initializer.extend(
            numpy_helper.from_array(array, name) for name, array in self._made.items()
        )
        for output in self._graph.output:
            if output.name in self._floats:
                raise UnsupportedOperatorError(
                    f"output {output.name} is quantised: end the model with DequantizeLinear"
                )

    # What reads and makes quantised tensors.

    def _QuantizeLinear(self, node: onnx.NodeProto) -> None:
        scale, zero, kind = self._grid(node, 1)
        data = node.input[0]
        if data in self._constants:
            step = self._spread(node, scale, self._constants[data].ndim)
            offset = self._spread(node, zero, self._constants[data].ndim)
            low, high = _RANGES[kind]
            whole = np.rint(self._constants[data].astype(np.float32) / step) + offset
            self._constants[node.output[0]] = np.clip(whole, low, high)
            self._rounded.add(node.output[0])
            return
        self._floats[node.output[0]] = self._clipped(node, data, node.output[0], scale, zero, kind)

    def _DequantizeLinear(self, node: onnx.NodeProto) -> None:
        data, made = node.input[0], node.output[0]
        if data in self._constants:
            scale = self._constant(node, 1).astype(np.float64)
            zero = self._constant(node, 2) if len(node.input) > 2 and node.input[2] else 0
            array = self._constants[data]
            step = self._spread(node, scale, array.ndim)
            offset = self._spread(node, np.asarray(zero, dtype=np.float64), array.ndim)
            self._made[made] = ((array - offset) * step).astype(np.float32)
            return
        scale, zero, _ = self._grid(node, 1)
        source = self._float(node, data)
        if scale.size != 1 or self._grids[data] != (float(scale.max()), float(zero.max())):
            raise _refused(node, "it reads its input at another scale than that was made with")
        self._nodes.append(helper.make_node("Identity", [source], [made], node.name))

    def _QLinearConv(self, node: onnx.NodeProto) -> None:
        bias = [self._bias(node)] if len(node.input) > 8 and node.input[8] else []
        self._linear(node, "Conv", (0, 1, 2), (3, 4, 5), bias, channel=0)

    def _QLinearMatMul(self, node: onnx.NodeProto) -> None:
        self._linear(node, "MatMul", (0, 1, 2), (3, 4, 5), [], channel=-1)

    def _DynamicQuantizeLinear(self, node: onnx.NodeProto) -> None:
        data, (made, scale, zero) = node.input[0], node.output
        self._floats[made] = data
        self._dynamic.add(made)
        self._made[scale] = np.float32(1.0).reshape(())
        self._constants[zero] = np.zeros((), dtype=np.uint8)

    def _MatMulInteger(self, node: onnx.NodeProto) -> None:
        self._whole(node, "MatMul")

    def _ConvInteger(self, node: onnx.NodeProto) -> None:
        self._whole(node, "Conv")

    def _whole(self, node: onnx.NodeProto, op_type: str) -> None:
        """A product of integers, one side of which DynamicQuantizeLinear has made."""
        left, right = node.input[:2]
        if left not in self._dynamic or right not in self._constants:
            raise _refused(node, "it multiplies other integers than of DynamicQuantizeLinear")
        zero: Array = np.zeros(())
        if len(node.input) > 3 and node.input[3]:
            zero = self._constant(node, 3).astype(np.float64)
        if zero.size > 1:
            shape = [1] * self._constants[right].ndim
            shape[0 if op_type == "Conv" else -1] = zero.size
            zero = zero.reshape(shape)
        weight = f"{node.output[0]}/weight"
        self._made[weight] = (self._constants[right] - zero).astype(np.float32)
        made = helper.make_node(op_type, [self._floats[left], weight], node.output, node.name)
        made.attribute.extend(node.attribute)
        self._nodes.append(made)

    def _linear(
        self,
        node: onnx.NodeProto,
        op_type: str,
        left: tuple[int, int, int],
        right: tuple[int, int, int],
        bias: list[str],
        channel: int,
    ) -> None:
        """A product of two quantised tensors, quantised again."""
        sides = []
        for data, scale, zero in (left, right):
            name = node.input[data]
            if name not in self._constants:
                sides.append(self._float(node, name))
                continue
            array = self._constants[name]
            parts = []
            for index in (scale, zero):
                part = self._constant(node, index).astype(np.float64)
                shape = [1] * array.ndim
                if part.size > 1:
                    shape[channel] = part.size
                parts.append(part.reshape(shape) if array.ndim else part)
            sides.append(f"{node.output[0]}/side_{data}")
            self._made[sides[-1]] = ((array - parts[1]) * parts[0]).astype(np.float32)
        plain = f"{node.output[0]}/float"
        made = helper.make_node(op_type, [*sides, *bias], [plain], node.name)
        made.attribute.extend(node.attribute)
        self._nodes.append(made)
        step, offset, kind = self._grid(node, 6)
        output = node.output[0]
        self._floats[output] = self._clipped(node, plain, output, step, offset, kind)

    def _bias(self, node: onnx.NodeProto) -> str:
        """A bias of QLinearConv, whose step is the product of the two scales."""
        name = f"{node.output[0]}/bias"
        step = self._constant(node, 1).astype(np.float64) * self._constant(node, 4)
        self._made[name] = (self._constant(node, 8) * step).astype(np.float32)
        return name

    # Tensors.

    def _move(self, node: onnx.NodeProto) -> None:
        """An operator that does to integers what it does to what they stand for."""
        data, made = node.input[0], node.output[0]
        moved = onnx.NodeProto.FromString(node.SerializeToString())
        moved.input[0], moved.output[0] = self._float(node, data), f"{made}/moved"
        if len(node.output) > 1 or any(name in self._floats for name in node.input[1:]):
            raise _refused(node, "it computes with quantised integers")
        self._nodes.append(moved)
        self._floats[made], self._grids[made] = moved.output[0], self._grids[data]

    def _clipped(
        self, node: onnx.NodeProto, data: str, made: str, scale: Array, zero: Array, kind: int
    ) -> str:
        if scale.size != 1 or zero.size != 1:
            raise _refused(node, "an activation with a scale for each channel cannot be proved")
        step, offset = float(scale.reshape(-1)[0]), float(zero.reshape(-1)[0])
        low, high = ((end - offset) * step for end in _RANGES[kind])
        bounds = [f"{made}/low", f"{made}/high"]
        for name, bound in zip(bounds, (low, high), strict=True):
            self._made[name] = np.array(bound, dtype=np.float32)
        result = f"{made}/clipped"
        label = f"{node.name or made}/clip"
        self._nodes.append(helper.make_node("Clip", [data, *bounds], [result], label))
        self._grids[made] = (step, offset)
        return result

    def _grid(self, node: onnx.NodeProto, index: int) -> tuple[Array, Array, int]:
        """Scale and zero point from input `index` on, and the integers' type."""
        scale = self._constant(node, index)
        kind = next((a.i for a in node.attribute if a.name == "output_dtype" and a.i), 0)
        if len(node.input) <= index + 1 or not node.input[index + 1]:
            zero: Array = np.zeros((), dtype=np.uint8)
        else:
            zero = self._constant(node, index + 1)
        kind = kind or helper.np_dtype_to_tensor_dtype(zero.dtype)
        if kind not in _RANGES:
            raise _refused(node, f"{TensorProto.DataType.Name(kind)} cannot be proved")
        return scale, zero, kind

    def _spread(self, node: onnx.NodeProto, values: Array, rank: int) -> Array:
        """Values of each channel in a shape that broadcasts."""
        given = {a.name: a.i for a in node.attribute}
        if given.get("block_size", 0):
            raise _refused(node, "scales of blocks cannot be proved")
        if values.size == 1:
            return values.reshape(())
        shape = [1] * rank
        shape[given.get("axis", 1)] = values.size
        return values.reshape(shape)

    def _constant(self, node: onnx.NodeProto, index: int) -> Array:
        name = node.input[index]
        found: Array | None = self._constants.get(name, self._made.get(name))
        if found is None:
            raise _refused(node, f"its input {name} must be a constant")
        return found

    def _float(self, node: onnx.NodeProto, name: str) -> str:
        if name not in self._floats or name in self._dynamic:
            raise _refused(node, f"its input {name} is quantised outside of the model")
        return self._floats[name]


def _refused(node: onnx.NodeProto, why: str) -> UnsupportedOperatorError:
    return UnsupportedOperatorError(f"{node_label(node)}: {why}")
