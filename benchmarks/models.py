"""Models that the benchmarks measure. Weights are seeded: they do not change a circuit's cost."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def lenet5(seed: int = 0) -> onnx.ModelProto:
    """LeNet-5 for 28x28 images: two Conv-ReLU-MaxPool blocks, three dense layers."""
    generator = np.random.default_rng(seed)
    weights: list[onnx.TensorProto] = []

    def weight(name: str, *shape: int) -> str:
        scale = 1 / np.sqrt(np.prod(shape[1:]))
        values = generator.normal(size=shape) * scale
        weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def bias(name: str, size: int) -> str:
        values = (generator.normal(size=size) * 0.1).astype(np.float32)
        weights.append(numpy_helper.from_array(values, name))
        return name

    window = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes = [
        helper.make_node(
            "Conv",
            ["image", weight("w1", 6, 1, 5, 5), bias("b1", 6)],
            ["c1"],
            "conv1",
            kernel_shape=[5, 5],
            pads=[2, 2, 2, 2],
        ),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("MaxPool", ["r1"], ["p1"], "pool1", **window),
        helper.make_node(
            "Conv",
            ["p1", weight("w2", 16, 6, 5, 5), bias("b2", 16)],
            ["c2"],
            "conv2",
            kernel_shape=[5, 5],
        ),
        helper.make_node("Relu", ["c2"], ["r2"], "relu2"),
        helper.make_node("MaxPool", ["r2"], ["p2"], "pool2", **window),
        helper.make_node("Flatten", ["p2"], ["f"], "flatten"),
    ]
    previous = "f"
    for index, (rows, columns) in enumerate([(400, 120), (120, 84), (84, 10)], start=1):
        last = index == 3
        made = "logits" if last else f"d{index}"
        gemm = [previous, weight(f"fw{index}", columns, rows), bias(f"fb{index}", columns)]
        nodes.append(helper.make_node("Gemm", gemm, [made], f"fc{index}", transB=1))
        previous = made
        if not last:
            nodes.append(helper.make_node("Relu", [made], [f"h{index}"], f"relu{index + 2}"))
            previous = f"h{index}"
    graph = helper.make_graph(
        nodes,
        "lenet5",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, 28, 28])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 10])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model
