"""Writing ONNX graphs node by node, with every attribute that ezkl wants spelt out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 9


class GraphBuilder:
    """A graph that grows in topological order; methods return the name of the tensor they made."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, values: npt.ArrayLike, dtype: type = np.float32) -> str:
        """Add an initializer."""
        self._weights[name] = numpy_helper.from_array(np.asarray(values, dtype=dtype), name)
        return name

    def node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node with one output, which gives the node its name."""
        name = output.removesuffix("_out")
        self._nodes.append(helper.make_node(operator, inputs, [output], name, **attributes))
        return output

    def conv(
        self, data: str, weight: str, bias: str, output: str, *, kernel: int, stride: int, pad: int
    ) -> str:
        """Add a square convolution."""
        return self.node(
            "Conv",
            [data, weight, bias],
            output,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            dilations=[1, 1],
            pads=[pad] * 4,
            group=1,
        )

    def max_pool(self, data: str, output: str, *, size: int) -> str:
        """Add a square max pooling without overlap."""
        return self.node(
            "MaxPool",
            [data],
            output,
            kernel_shape=[size, size],
            strides=[size, size],
            dilations=[1, 1],
            pads=[0] * 4,
        )

    def model(
        self, inputs: Sequence[tuple[str, Sequence[int]]], outputs: Sequence[tuple[str, list[int]]]
    ) -> onnx.ModelProto:
        """The checked model, with the shapes of inner tensors inferred."""

        def infos(tensors: Sequence[tuple[str, Sequence[int]]]) -> list[onnx.ValueInfoProto]:
            return [
                helper.make_tensor_value_info(n, TensorProto.FLOAT, list(s)) for n, s in tensors
            ]

        graph = helper.make_graph(
            self._nodes, self._name, infos(inputs), infos(outputs), list(self._weights.values())
        )
        made = helper.make_model(
            graph,
            producer_name="zkml_ray-benchmarks",
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )
        made = onnx.shape_inference.infer_shapes(made, check_type=True, strict_mode=True)
        onnx.checker.check_model(made, full_check=True)
        return made
