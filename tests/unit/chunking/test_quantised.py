"""Models that are quantised already, beside onnxruntime: within the steps that are not rounded.

onnxruntime runs them as they are written: what it fuses them into adds products of bytes up in 16
bits on some processors, which overflow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.unit.chunking.builders import Array, run
from zkml_ray import PlanOptions
from zkml_ray.chunking.load import parse_model
from zkml_ray.chunking.normalize import normalise
from zkml_ray.chunking.operators import SUPPORTED
from zkml_ray.errors import UnsupportedOperatorError
from zkml_ray.stages.accuracy import measure_accuracy
from zkml_ray.stages.plan import plan

STEP = 1 / 32
KINDS = [np.int8, np.uint8]


def node(op_type: str, *names: str, **attributes: Any) -> onnx.NodeProto:
    *reads, made = names
    return helper.make_node(op_type, reads, [made], f"the_{op_type}_{made}", **attributes)


def constant(name: str, values: Any, kind: Any = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype=kind), name)


def model(
    nodes: Sequence[onnx.NodeProto],
    constants: Sequence[onnx.TensorProto],
    shape: Sequence[int] = (2, 6),
    opset: int = 17,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "quantised",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        list(constants),
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    return onnx.shape_inference.infer_shapes(made)


def grid(name: str, kind: Any, step: float = STEP) -> list[onnx.TensorProto]:
    """A scale, and a zero point for numbers of both signs."""
    zero = 0 if kind is np.int8 else 128
    return [constant(f"{name}_s", step), constant(f"{name}_z", zero, kind)]


def rounded(name: str, to: str, kind: str = "g") -> list[onnx.NodeProto]:
    """Q and DQ."""
    return [
        node("QuantizeLinear", name, f"{kind}_s", f"{kind}_z", f"{to}_q"),
        node("DequantizeLinear", f"{to}_q", f"{kind}_s", f"{kind}_z", to),
    ]


def weights(shape: Sequence[int], kind: Any = np.int8, seed: int = 0) -> np.ndarray:
    info = np.iinfo(kind)
    return np.random.default_rng(seed).integers(info.min, info.max + 1, shape).astype(kind)


def static(kind: Any, *, per_channel: bool, folded: bool, opset: int = 17) -> onnx.ModelProto:
    """A dense layer as static quantisation writes it; its ReLU may be the range of its integers."""
    scales = np.float32([0.01, 0.02, 0.03, 0.004]) if per_channel else np.float32(0.01)
    zeros = np.zeros_like(scales, dtype=np.int8)
    nodes = [
        *rounded("x", "a"),
        node("DequantizeLinear", "w", "w_s", "w_z", "v", axis=1),
        node("MatMul", "a", "v", "m"),
        node("DequantizeLinear", "b", "b_s", "c"),
        node("Add", "m", "c", "n"),
        *([] if folded else [node("Relu", "n", "o")]),
        *rounded("n" if folded else "o", "y", "h"),
    ]
    end = [constant("h_s", 1 / 8), constant("h_z", -128 if kind is np.int8 else 0, kind)]
    constants = [
        *grid("g", kind),
        constant("w", weights((6, 4)), np.int8),
        constant("w_s", scales),
        constant("w_z", zeros, np.int8),
        constant("b", weights((4,), np.int16), np.int32),
        constant("b_s", 1e-4),
        *end,
    ]
    return model(nodes, constants, opset=opset)


def unfused(proto: onnx.ModelProto, feeds: Mapping[str, Array]) -> Array:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(["y"], dict(feeds))
    return np.asarray(found)


def off(proto: onnx.ModelProto, shape: Sequence[int] = (2, 6), *, size: float = 1.0) -> float:
    normal = normalise(proto, {})
    assert {each.op_type for each in normal.graph.node} <= SUPPORTED
    worst = 0.0
    for seed in range(5):
        feeds = {"x": (np.random.default_rng(seed).normal(size=shape) * size).astype(np.float32)}
        wanted, found = unfused(proto, feeds), run(normal, feeds)["y"]
        assert wanted.shape == found.shape
        worst = max(worst, float(np.abs(wanted - found).max()))
    return worst


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize("opset", [13, 17, 21])
def test_static_quantisation_is_within_its_steps(
    kind: Any, per_channel: bool, folded: bool, opset: int
) -> None:
    proto = static(kind, per_channel=per_channel, folded=folded, opset=opset)
    norms = np.abs(weights((6, 4)).astype(float)) * (
        np.float32([0.01, 0.02, 0.03, 0.004]) if per_channel else 0.01
    )
    stated = STEP / 2 * norms.sum(axis=0).max() + 1 / 16
    assert 0 < off(proto) <= stated * 1.01


@pytest.mark.parametrize("kind", [*KINDS, np.int16, np.uint16])
def test_what_integers_cannot_say_is_clipped(kind: Any) -> None:
    info = np.iinfo(kind)
    middle = (int(info.min) + int(info.max) + 1) // 2
    given = [constant("g_s", STEP), constant("g_z", middle, kind)]
    opset = 17 if kind in KINDS else 21
    proto = model(rounded("x", "y"), given, opset=opset)
    beyond = 1.5 * STEP * (int(info.max) - middle)
    assert off(proto, size=beyond) <= STEP / 2 * 1.01


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_weights_that_are_rounded_in_the_model_are_rounded_exactly(
    kind: Any, axis: int | None
) -> None:
    size = 1 if axis is None else (6, 4)[axis]
    scales = np.float32([0.013, 0.02, 0.03, 0.004, 0.5, 0.07])[:size]
    zero = np.full(size, 3, dtype=kind)
    shaped = (scales[0], zero[0]) if axis is None else (scales, zero)
    along = {} if axis is None else {"axis": axis}
    nodes = [
        node("QuantizeLinear", "w", "s", "z", "q", **along),
        node("DequantizeLinear", "q", "s", "z", "v", **along),
        node("MatMul", "x", "v", "y"),
    ]
    random = np.random.default_rng(3).normal(size=(6, 4))
    constants = [constant("w", random), constant("s", shaped[0]), constant("z", shaped[1], kind)]
    assert off(model(nodes, constants)) < 1e-5


def test_moves_and_maxima_of_integers_are_those_of_their_numbers() -> None:
    nodes = [
        node("QuantizeLinear", "x", "g_s", "g_z", "q"),
        node("MaxPool", "q", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Transpose", "p", "t", perm=[0, 2, 3, 1]),
        node("Flatten", "t", "f"),
        node("DequantizeLinear", "f", "g_s", "g_z", "y"),
    ]
    assert off(model(nodes, grid("g", np.uint8), (1, 3, 4, 4)), (1, 3, 4, 4)) <= STEP / 2 * 1.01


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("per_channel", [True, False])
def test_quantised_convolution_is_within_its_steps(bias: bool, per_channel: bool) -> None:
    scales = np.float32([0.01, 0.002, 0.02]) if per_channel else np.float32(0.01)
    zeros = np.zeros_like(scales, dtype=np.int8)
    reads = ["q", "g_s", "g_z", "w", "w_s", "w_z", "h_s", "h_z", *(["b"] if bias else [])]
    nodes = [
        node("QuantizeLinear", "x", "g_s", "g_z", "q"),
        node("QLinearConv", *reads, "r", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("DequantizeLinear", "r", "h_s", "h_z", "y"),
    ]
    kernel = weights((3, 2, 3, 3)) // 2  # sums of two products fit 16 bits
    constants = [
        *grid("g", np.uint8),
        *grid("h", np.uint8, 1 / 4),
        constant("w", kernel, np.int8),
        constant("w_s", scales),
        constant("w_z", zeros, np.int8),
        *([constant("b", [500, -300, 100], np.int32)] if bias else []),
    ]
    steps = scales.reshape(-1, 1) if per_channel else scales
    norm = (np.abs(kernel.astype(float)).reshape(3, -1) * steps).sum(axis=1).max()
    found = off(model(nodes, constants, (1, 2, 5, 5)), (1, 2, 5, 5))
    assert 0 < found <= (STEP / 2 * norm + 1 / 8) * 1.01


def test_quantised_product_is_within_its_steps() -> None:
    nodes = [
        node("QuantizeLinear", "x", "g_s", "g_z", "q"),
        node("QLinearMatMul", "q", "g_s", "g_z", "w", "w_s", "w_z", "h_s", "h_z", "r"),
        node("DequantizeLinear", "r", "h_s", "h_z", "y"),
    ]
    table = weights((6, 4), np.uint8)
    constants = [
        *grid("g", np.uint8),
        *grid("h", np.uint8, 1 / 8),
        constant("w", table, np.uint8),
        constant("w_s", 0.01),
        constant("w_z", 130, np.uint8),
    ]
    norm = 0.01 * np.abs(table.astype(float) - 130).sum(axis=0).max()
    assert 0 < off(model(nodes, constants)) <= (STEP / 2 * norm + 1 / 16) * 1.01


@pytest.mark.parametrize("per_channel", [True, False])
def test_dynamic_quantisation_is_within_its_steps(per_channel: bool) -> None:
    zero = np.uint8([120, 130, 3, 255]) if per_channel else np.uint8(120)
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "q_s", "q_z"], "dynamic"),
        node("MatMulInteger", "q", "w", "q_z", "w_z", "m"),
        node("Cast", "m", "f", to=TensorProto.FLOAT),
        node("Mul", "q_s", "w_s", "s"),
        node("Mul", "f", "s", "y"),
    ]
    table = weights((6, 4), np.uint8)
    constants = [
        constant("w", table, np.uint8),
        constant("w_z", zero, np.uint8),
        constant("w_s", 0.01),
    ]
    norm = 0.01 * np.abs(table.astype(float) - zero).sum(axis=0).max()
    assert 0 < off(model(nodes, constants)) <= 8 / 255 / 2 * norm


def test_quantised_model_is_planned_said_and_near_onnxruntimes() -> None:
    proto = static(np.uint8, per_channel=True, folded=True)
    loaded = parse_model(proto.SerializeToString(), "m.onnx")
    made = plan(loaded, PlanOptions(layers_per_chunk=10))
    assert any("not rounded to the model's own steps" in notice for notice in made.notices)
    feeds = {"x": np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)}
    report = measure_accuracy(loaded, made, [feeds])
    assert report.warning is None


X = [node("QuantizeLinear", "x", "g_s", "g_z", "q")]
REFUSED = {
    "integers that others compute with": (
        [*X, node("Cast", "q", "y", to=TensorProto.FLOAT)],
        grid("g", np.uint8),
        r"the_Cast_y.*computes with the integers of q",
    ),
    "another scale": (
        [*X, node("DequantizeLinear", "q", "h_s", "h_z", "y")],
        [*grid("g", np.uint8), *grid("h", np.uint8, 1 / 8)],
        r"the_DequantizeLinear_y.*another scale",
    ),
    "a scale for each channel": (
        [*X, node("DequantizeLinear", "q", "g_s", "g_z", "y")],
        [constant("g_s", [0.1] * 6), constant("g_z", [0] * 6, np.uint8)],
        r"the_QuantizeLinear_q.*a scale for each channel",
    ),
    "a computed scale": (
        [
            node("ReduceMax", "x", "m", keepdims=0),
            node("QuantizeLinear", "x", "m", "g_z", "q"),
            node("DequantizeLinear", "q", "m", "g_z", "y"),
        ],
        grid("g", np.uint8)[1:],
        r"the_QuantizeLinear_q.*m must be a constant",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_floats_is_refused_by_name(name: str) -> None:
    nodes, constants, why = REFUSED[name]
    with pytest.raises(UnsupportedOperatorError, match=why):
        normalise(model(nodes, constants), {})


def test_integers_as_the_output_are_refused_by_name() -> None:
    proto = model(X, grid("g", np.uint8))
    del proto.graph.output[:]
    proto.graph.output.append(helper.make_tensor_value_info("q", TensorProto.UINT8, [2, 6]))
    with pytest.raises(UnsupportedOperatorError, match="output q is quantised"):
        normalise(proto, {})
