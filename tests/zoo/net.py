"""A few lines that build an ONNX model with seeded weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper


class Net:
    """Collects nodes and weights; every operator's method returns its output's name."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def op(self, op_type: str, *inputs: str, **attributes: object) -> str:
        """An operator with one output."""
        name = f"{op_type.lower()}{len(self._nodes)}"
        self._nodes.append(helper.make_node(op_type, inputs, [name], f"n_{name}", **attributes))
        return name

    def op_many(
        self, op_type: str, *inputs: str, outputs: int, **attributes: object
    ) -> tuple[str, ...]:
        """An operator with several outputs."""
        names = tuple(f"{op_type.lower()}{len(self._nodes)}_{i}" for i in range(outputs))
        self._nodes.append(helper.make_node(op_type, inputs, names, f"n_{names[0]}", **attributes))
        return names

    def constant(self, values: npt.ArrayLike, dtype: type = np.float32) -> str:
        """An initializer."""
        name = f"c{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.asarray(values, dtype=dtype), name))
        return name

    def weight(self, *shape: int, inputs: int, gain: float = 1.0) -> str:
        """Normal numbers that keep the variance of `inputs` summands."""
        return self.constant(self._generator.normal(size=shape) * gain / np.sqrt(inputs))

    def conv(
        self,
        x: str,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        group: int = 1,
        **attributes: object,
    ) -> str:
        """A square convolution with bias, padded to the same size."""
        weight = self.weight(
            outputs, inputs // group, kernel, kernel, inputs=inputs // group * kernel**2, gain=1.2
        )
        bias = self.constant(self._generator.normal(size=outputs) * 0.1)
        pads = attributes.pop("pads", [kernel // 2] * 4)
        return self.op("Conv", x, weight, bias, group=group, pads=pads, **attributes)

    def norm(self, x: str, channels: int) -> str:
        """A BatchNormalization with uneven statistics."""
        generator = self._generator
        parameters = [
            generator.uniform(0.5, 1.5, size=channels),
            *(generator.normal(size=channels) * 0.1 for _ in range(2)),
            generator.uniform(0.5, 2, size=channels),
        ]
        return self.op("BatchNormalization", x, *(self.constant(p) for p in parameters))

    def dense(self, x: str, inputs: int, outputs: int) -> str:
        """A Gemm with bias."""
        bias = self.constant(self._generator.normal(size=outputs) * 0.1)
        return self.op("Gemm", x, self.weight(inputs, outputs, inputs=inputs), bias)

    def model(
        self, inputs: Mapping[str, Sequence[int]], outputs: Mapping[str, Sequence[int]]
    ) -> onnx.ModelProto:
        """The model; the outputs are names that operators returned."""
        graph = helper.make_graph(
            self._nodes,
            "zoo",
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
            self._weights,
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.checker.check_model(made, full_check=True)
        return made

    def exported(
        self,
        inputs: Mapping[str, tuple[Sequence[int | str], int]],
        outputs: Sequence[str],
        *,
        opset: int,
    ) -> onnx.ModelProto:
        """The model as exporters write it: any element types, symbolic sizes, no output's shape.

        Args:
            inputs: Shape and element type by name.
            outputs: Names that operators returned.
            opset: Version of the operators.
        """
        graph = helper.make_graph(
            self._nodes,
            "zoo",
            [helper.make_tensor_value_info(n, kind, s) for n, (s, kind) in inputs.items()],
            [onnx.ValueInfoProto(name=name) for name in outputs],
            self._weights,
        )
        opsets = [helper.make_opsetid("", opset)]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        inferred = onnx.shape_inference.infer_shapes(made, strict_mode=True, data_prop=True)
        onnx.checker.check_model(inferred, full_check=True)
        return inferred
