"""Models of several kinds from a seed: perceptrons, convolutions, residual blocks."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

KINDS = ("perceptron", "convolution", "residual", "bare")


def seeded(kind: str, seed: int) -> onnx.ModelProto:
    """A model of a kind; sizes and weights follow from the seed."""
    draw = np.random.default_rng(seed)
    width, outputs = int(draw.integers(3, 7)), int(draw.integers(2, 5))
    weights: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []

    def weight(name: str, *shape: int) -> str:
        values = draw.normal(size=shape) / np.sqrt(np.prod(shape[1:]) if len(shape) > 1 else 1)
        weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def node(operator: str, inputs: list[str], output: str, **attributes: object) -> str:
        nodes.append(helper.make_node(operator, inputs, [output], output, **attributes))
        return output

    shape = [1, width]
    if kind == "perceptron":
        tensor = "x"
        for layer in range(int(draw.integers(1, 4))):
            made = node(
                "Gemm",
                [tensor, weight(f"w{layer}", width, width), weight(f"b{layer}", width)],
                f"a{layer}",
                transB=1,
            )
            tensor = node("Relu", [made], f"h{layer}")
        node("Gemm", [tensor, weight("w", outputs, width)], "y", transB=1)
    elif kind == "convolution":
        shape = [1, 1, 4, 4]
        made = node("Conv", ["x", weight("c", 2, 1, 2, 2), weight("cb", 2)], "a")
        node("Relu", [made], "h")
        node("Flatten", ["h"], "f")
        node("Gemm", ["f", weight("w", outputs, 18)], "y", transB=1)
    elif kind == "residual":
        outputs = width
        node("MatMul", ["x", weight("w0", width, width)], "a")
        node("Relu", ["a"], "h")
        node("MatMul", ["h", weight("w1", width, width)], "b")
        node("Add", ["b", "h"], "y")
    else:
        node("MatMul", ["x", weight("w", width, outputs)], "y")
    graph = helper.make_graph(
        nodes,
        kind,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, outputs])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model
