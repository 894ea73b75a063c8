"""Whether a number is above 0, in one decomposition: Relu(Sign(x)) of a native circuit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import helper

from tests.unit.chunking.builders import model
from tests.unit.chunking.quantised import Quantised, run_quantised
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.native.lower import lower_nodes
from zkml_ray.chunking.normalize import normalise

SIZE = 96


def decided(*more: onnx.NodeProto, outputs: tuple[str, ...] = ("y",)) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Sub", ["x", "z"], ["d"], "difference"),
        helper.make_node("Sign", ["d"], ["s"], "sign"),
        helper.make_node("Relu", ["s"], ["y"], "above"),
        *more,
    ]
    shape = [1, SIZE]
    return normalise(model(nodes, {"x": shape, "z": shape}, dict.fromkeys(outputs, shape)), {})


def lowered(proto: onnx.ModelProto, scale: int, nodes: list[str] | None = None) -> onnx.ModelProto:
    graph = ModelGraph(proto)
    made = lower_nodes(graph, nodes or list(graph.nodes), {}, scale=scale, range_bits=28)
    result = onnx.ModelProto.FromString(proto.SerializeToString())
    del result.graph.node[:], result.graph.initializer[:], result.graph.value_info[:]
    result.graph.node.extend(made.nodes)
    result.graph.initializer.extend(made.constants.values())
    return onnx.shape_inference.infer_shapes(result)


def pairs(scale: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Numbers of one step more, less, none, and of many."""
    random = np.random.default_rng(scale)
    z = random.integers(-9, 10, (1, SIZE))
    apart = random.choice([-1, 0, 1, 5, -7, 3000], (1, SIZE))
    step = 2.0**-scale
    return (step * (z + apart)).astype(np.float32), (step * z).astype(np.float32)


def ran(proto: onnx.ModelProto, scale: int) -> tuple[Quantised, npt.NDArray[np.bool_]]:
    x, z = pairs(scale)
    return run_quantised(lowered(proto, scale), {"x": x, "z": z}, scale=scale), (x > z).ravel()


@pytest.mark.parametrize("scale", [1, 4, 10])
def test_whether_a_number_is_above_another_is_exact(scale: int) -> None:
    found, wanted = ran(decided(), scale)
    assert found.scale == scale
    np.testing.assert_array_equal(found.reals(), wanted)


def test_one_decomposition_decides() -> None:
    assert [n.op_type for n in lowered(decided(), 10).graph.node].count("Sign") == 1
    assert "Relu" not in [n.op_type for n in lowered(decided(), 10).graph.node]
    found, _ = ran(decided(), 10)
    plain = run_quantised(decided(), dict(zip("xz", pairs(10), strict=True)))
    assert plain.cells - found.cells > 15 * SIZE


def test_sign_that_others_read_stays_a_sign() -> None:
    double = helper.make_node("Abs", ["s"], ["t"], "double")
    added = helper.make_node("Add", ["y", "t"], ["u"], "sum")
    proto = decided(double, added, outputs=("u",))
    found, wanted = ran(proto, 10)
    x, z = pairs(10)
    np.testing.assert_array_equal(found.reals(), wanted.astype(int) + (x != z).ravel())


def test_parts_in_different_chunks_decide_the_same() -> None:
    nodes = [node.op_type for node in lowered(decided(), 10, ["difference", "sign"]).graph.node]
    assert "Sign" in nodes
    assert [n.op_type for n in lowered(decided(), 10, ["above"]).graph.node] == ["Relu"]
