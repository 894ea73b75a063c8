"""Small models with fixed seeds, built by script."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from examples.simple_distributed import build_mlp


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
    return _model(
        nodes, [("x", [1, 6])], [("y", [1, 6])], [weight(f"w{i}", 6, 6) for i in range(4)]
    )


MODELS: dict[str, Callable[[], onnx.ModelProto]] = {"mlp": mlp, "residual": residual}


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[tuple[str, list[int]]],
    outputs: list[tuple[str, list[int]]],
    weights: list[onnx.TensorProto],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "zoo",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model
