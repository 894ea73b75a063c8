"""Scan of a known length: its body once a slice; onnxruntime is the judge."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.unit.chunking.builders import integers, random_feeds, run
from zkml_ray.chunking.normal_form.scans import MAX_UNROLLED
from zkml_ray.chunking.normalize import normalise
from zkml_ray.errors import ChunkingError

FLOAT = TensorProto.FLOAT


def body(width: int) -> onnx.GraphProto:
    """Running sum of slices, and its squares; a constant of its own."""
    return helper.make_graph(
        [
            helper.make_node("Mul", ["row", "two"], ["doubled"], "double"),
            helper.make_node("Add", ["state", "doubled"], ["next"], "add"),
            helper.make_node("Mul", ["next", "next"], ["square"], "square"),
            helper.make_node("Sub", ["square", "outer"], ["made"], "sub"),
        ],
        "body",
        [helper.make_tensor_value_info(name, FLOAT, [width]) for name in ("state", "row")],
        [helper.make_tensor_value_info(name, FLOAT, [width]) for name in ("next", "made")],
        [numpy_helper.from_array(np.float32([2.0]), "two")],
    )


def scanned(shape: Sequence[int], axis: int = 0, **more: object) -> onnx.ModelProto:
    width = shape[1 - axis]
    nodes = [
        helper.make_node("ReduceSum", ["x", "axes"], ["outer"], "total", keepdims=0),
        helper.make_node("Mul", ["outer", "zeros"], ["start"], "start"),
        helper.make_node(
            "Scan",
            ["start", "x"],
            ["last", "y"],
            "the_scan",
            body=body(width),
            num_scan_inputs=1,
            scan_input_axes=[axis],
            **more,
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "scanned",
        [helper.make_tensor_value_info("x", FLOAT, shape)],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in ("last", "y")],
        [integers("axes", axis), numpy_helper.from_array(np.zeros(width, np.float32), "zeros")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return onnx.shape_inference.infer_shapes(made)


@pytest.mark.parametrize(
    ("shape", "axis", "back", "out", "turned"),
    list(itertools.product([(1, 3), (4, 3), (7, 1)], (0, 1), (0, 1), (0, 1), (0, 1))),
)
def test_scan_of_a_known_length_computes_the_same(
    shape: Sequence[int], axis: int, back: int, out: int, turned: int
) -> None:
    proto = scanned(
        shape,
        axis,
        scan_input_directions=[back],
        scan_output_axes=[out],
        scan_output_directions=[turned],
    )
    normal = normalise(proto, {})
    feeds = random_feeds({"x": shape})
    wanted, found = run(proto, feeds), run(normal, feeds)
    for name in ("last", "y"):
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5, atol=1e-5)


def test_scan_of_too_many_slices_is_refused_by_name() -> None:
    with pytest.raises(ChunkingError, match=r"the_scan \(Scan\): \d+ steps of 4 operators"):
        normalise(scanned((MAX_UNROLLED // 4 + 1, 2)), {})


def test_scan_that_nothing_reads_is_left_out() -> None:
    proto = scanned((4, 3))
    del proto.graph.output[:]
    proto.graph.output.append(helper.make_tensor_value_info("outer", FLOAT, [3]))
    assert [node.op_type for node in normalise(proto, {}).graph.node] == ["ReduceSum"]
