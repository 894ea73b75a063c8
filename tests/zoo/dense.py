"""Models of matrix products: chains, skips, several inputs and outputs."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from examples.simple_distributed import build_mlp
from tests.zoo.net import Net


def mlp() -> onnx.ModelProto:
    """Three dense layers."""
    return build_mlp(3, width=8, outputs=4)


def residual() -> onnx.ModelProto:
    """Dense blocks with a skip that crosses two cuts and fans out: h is read by three chunks."""
    generator = np.random.default_rng(7)

    def weight(name: str, rows: int, columns: int) -> onnx.TensorProto:
        values = generator.normal(size=(rows, columns)) / np.sqrt(rows)
        return numpy_helper.from_array(values.astype(np.float32), name)

    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a0"], "fc0"),
        helper.make_node("Relu", ["a0"], ["h"], "relu0"),
        helper.make_node("MatMul", ["h", "w1"], ["a1"], "fc1"),
        helper.make_node("Relu", ["a1"], ["b"], "relu1"),
        helper.make_node("MatMul", ["b", "w2"], ["a2"], "fc2"),
        helper.make_node("Add", ["a2", "h"], ["s"], "add"),
        helper.make_node("Relu", ["s"], ["t"], "relu2"),
        helper.make_node("MatMul", ["t", "w3"], ["a3"], "fc3"),
        helper.make_node("Add", ["a3", "h"], ["y"], "add_out"),
    ]
    graph = helper.make_graph(
        nodes,
        "zoo",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 6])],
        [weight(f"w{i}", 6, 6) for i in range(4)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def deep_mlp() -> onnx.ModelProto:
    """Thirty dense layers."""
    return build_mlp(30, width=8, outputs=4)


def two_inputs() -> onnx.ModelProto:
    """Two inputs through branches of their own; the first is read again behind the join."""
    net = Net(11)
    left = net.op("Relu", net.dense("a", 6, 6))
    right = net.op("Relu", net.dense("b", 4, 6))
    joined = net.op("Relu", net.dense(net.op("Concat", left, right, axis=1), 12, 6))
    end = net.dense(net.op("Add", joined, "a"), 6, 3)
    return net.model({"a": [1, 6], "b": [1, 4]}, {end: [1, 3]})


def two_outputs() -> onnx.ModelProto:
    """A trunk that is an output itself, crosses two cuts, and has two heads."""
    net = Net(12)
    trunk = net.op("Relu", net.dense("x", 6, 6))
    first = net.dense(trunk, 6, 3)
    second = net.op("Relu", net.dense(trunk, 6, 4))
    return net.model({"x": [1, 6]}, {first: [1, 3], trunk: [1, 6], second: [1, 4]})
