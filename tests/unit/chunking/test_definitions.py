"""Operators that are written with others, and moves as gathers: onnxruntime is the judge.

Each is tried over ranks, axes, attributes and shapes; what is left must be operators that circuits
know.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.unit.chunking.builders import integers, random_feeds, run, weight
from zkml_ray.chunking.normal_form.definitions.table import WRITTEN
from zkml_ray.chunking.normalize import normalise
from zkml_ray.chunking.operators import SUPPORTED
from zkml_ray.errors import ChunkingError

Case = tuple[str, list[onnx.NodeProto], Sequence[int], list[onnx.TensorProto], int]


def numbers(name: str, *values: float) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, dtype=np.float32), name)


def case(
    op_type: str,
    shape: Sequence[int],
    *constants: onnx.TensorProto,
    inputs: Sequence[str] | None = None,
    opset: int = 18,
    positive: bool = False,
    **attributes: object,
) -> Case:
    """One operator that reads x (or p = |x| + 1/2), then constants in order."""
    first = "p" if positive else "x"
    names = list(inputs) if inputs is not None else [first, *(c.name for c in constants)]
    nodes = [helper.make_node(op_type, names, ["y"], "the_node", **attributes)]
    used = list(constants)
    if positive:
        nodes = [
            helper.make_node("Abs", ["x"], ["a"], "abs"),
            helper.make_node("Add", ["a", "half"], ["p"], "add"),
            *nodes,
        ]
        used.append(numpy_helper.from_array(np.array(0.5, dtype=np.float32), "half"))
    shown = ", ".join(f"{k}={v}" for k, v in attributes.items())
    label = f"{op_type} {opset} of {list(shape)} {shown} {[c.name for c in constants]}"
    return label, nodes, shape, used, opset


POINTWISE = [
    ("Elu", {}),
    ("Elu", {"alpha": 0.3}),
    ("Celu", {}),
    ("Celu", {"alpha": 2.5}),
    ("Selu", {}),
    ("Selu", {"alpha": 1.1, "gamma": 2.0}),
    ("Softplus", {}),
    ("Mish", {}),
    ("Softsign", {}),
    ("HardSigmoid", {}),
    ("HardSigmoid", {"alpha": 0.5, "beta": -0.25}),
    ("HardSwish", {}),
    ("Ceil", {}),
    ("Round", {}),
    ("Shrink", {}),
    ("Shrink", {"lambd": 0.25, "bias": 0.25}),
    ("Shrink", {"lambd": 0.75, "bias": -0.5}),
    ("ThresholdedRelu", {}),
    ("ThresholdedRelu", {"alpha": 0.25}),
]


def pointwise() -> Iterator[Case]:
    for op_type, attributes in POINTWISE:
        for shape in ((3,), (2, 5), (1, 2, 3, 4)):
            yield case(op_type, shape, **attributes)
    for approximate in ("none", "tanh"):
        yield case("Gelu", (2, 5), opset=20, approximate=approximate)
    yield case("Reciprocal", (2, 5), positive=True)
    yield case("PRelu", (1, 3, 4, 4), weight("s", 3, 1, 1))
    yield case("PRelu", (2, 5), weight("s", 5))
    yield case("PRelu", (2, 5), weight("s", 1))
    yield case("Mean", (2, 5), weight("a", 2, 5), weight("b", 5))


def reductions() -> Iterator[Case]:
    kinds = ["ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp"]
    axes: list[tuple[int, ...] | None] = [None, (0,), (-1,), (1, 2), (0, -1)]
    for op_type, over, keep in itertools.product(kinds, axes, (0, 1)):
        given = [] if over is None else [integers("axes", *over)]
        yield case(op_type, (2, 3, 4), *given, keepdims=keep)
    for over in axes:
        given = [] if over is None else [integers("axes", *over)]
        yield case("ReduceLogSum", (2, 3, 4), *given, positive=True)
    for over, keep in itertools.product([*axes, (0, 1, 2)], (0, 1)):
        given = [] if over is None else [integers("axes", *over)]
        yield case("ReduceProd", (2, 3, 4), *given, keepdims=keep)
    for axis, exclusive, reverse in itertools.product((0, 1, -1), (0, 1), (0, 1)):
        along = numpy_helper.from_array(np.array(axis), "axis")
        yield case("CumSum", (2, 3, 4), along, exclusive=exclusive, reverse=reverse)
    for axis in (0, 1, -1):
        yield case("LogSoftmax", (2, 3, 4), axis=axis)
    for count in (8, 57, 1000):
        yield case("LogSoftmax", (2, count), axis=1)
        yield case("ReduceLogSumExp", (1, count), integers("axes", 1), keepdims=0)
    yield case("ReduceLogSumExp", (4, 25, 3))
    for opset, axis in itertools.product((11, 13), (0, 1, 2)):
        yield case("Hardmax", (2, 3, 4), opset=opset, axis=axis)
    for shape in ((1, 2, 5), (1, 2, 4, 3), (1, 2, 2, 3, 4)):
        yield case("GlobalMaxPool", shape)


def normalisations() -> Iterator[Case]:
    for shape in ((1, 4, 6), (2, 4, 3, 3), (1, 4, 2, 2, 3)):
        yield case("InstanceNormalization", shape, weight("s", 4), weight("b", 4), epsilon=1e-3)
    for groups in (1, 2, 4):
        yield case(
            "GroupNormalization",
            (2, 4, 3, 3),
            weight("s", 4),
            weight("b", 4),
            opset=21,
            num_groups=groups,
        )
    for p, axis in itertools.product((1, 2), (0, 1, -1)):
        yield case("LpNormalization", (2, 3, 4), p=p, axis=axis)
    for size, channels in itertools.product((1, 3, 5), (1, 4, 7)):
        yield case("LRN", (2, channels, 3, 2), size=size, alpha=0.5, bias=1.5)
    yield case("LRN", (1, 6, 2, 2), size=5)
    yield case("LRN", (1, 6, 2, 2), size=3, alpha=0.5, beta=1.0)
    yield case("MeanVarianceNormalization", (2, 3, 4, 5))
    yield case("MeanVarianceNormalization", (2, 3, 4), axes=[0, 2])
    for axis, shape in ((-1, (2, 6)), (1, (2, 3, 4)), (2, (2, 3, 4))):
        yield case("RMSNormalization", shape, weight("s", *shape[axis:]), opset=23, axis=axis)


def pools() -> Iterator[Case]:
    for p in (1, 2, 3):
        for size in ((5,), (5, 4), (3, 4, 3)):
            kernel = [2] * len(size)
            yield case("LpPool", (2, 3, *size), p=p, kernel_shape=kernel)
            yield case("LpPool", (1, 3, *size), p=p, kernel_shape=kernel, strides=kernel)
            yield case("GlobalLpPool", (2, 3, *size), p=p)
    yield case("LpPool", (1, 2, 5, 5), kernel_shape=[3, 2], pads=[1, 0, 1, 1], strides=[2, 1])
    yield case("LpPool", (1, 2, 5, 5), kernel_shape=[2, 2], auto_pad="SAME_UPPER")


def moves() -> Iterator[Case]:
    for repeats in ((1, 2), (3, 1), (2, 2)):
        yield case("Tile", (2, 3), integers("r", *repeats))
    for upper, shape in itertools.product((0, 1), ((4, 4), (2, 3, 5), (5, 3))):
        yield case("Trilu", shape, upper=upper)
        for diagonal in (-1, 0, 2):
            k = numpy_helper.from_array(np.array(diagonal, dtype=np.int64), "k")
            yield case("Trilu", shape, k, upper=upper)
    for mode in ("DCR", "CRD"):
        yield case("DepthToSpace", (2, 8, 2, 3), blocksize=2, mode=mode)
    yield case("SpaceToDepth", (1, 2, 4, 6), blocksize=2)
    for mode, shape in itertools.product(("edge", "reflect"), ((1, 5), (1, 2, 4, 4))):
        pads = [0] * len(shape) * 2
        pads[len(shape) - 1], pads[-1] = 2, 1
        yield case("Pad", shape, integers("p", *pads), mode=mode)
    yield case("Pad", (1, 5), integers("p", 0, 2, 0, 3), mode="wrap", opset=19)
    widths = ((0, -1, 0, 2), (0, 2, 0, -2), (-1, -1, 0, -1), (-1, 1, 1, -2))
    for mode, cut in itertools.product(("edge", "reflect", "wrap"), widths):
        yield case("Pad", (3, 5), integers("p", *cut), mode=mode, opset=19)
    for axis in (0, 1, -1):
        index = numpy_helper.from_array(np.array([[0, 1, -1], [1, 0, 0]]), "i")
        yield case("GatherElements", (2, 3), index, axis=axis)
    yield case("GatherND", (2, 3, 4), numpy_helper.from_array(np.array([[0, 2], [1, -1]]), "i"))
    yield case("ReverseSequence", (4, 3), integers("l", 1, 4, 2), batch_axis=1, time_axis=0)
    indices = numpy_helper.from_array(np.array([[1], [0]]), "i")
    yield case("ScatterND", (3, 2), indices, weight("u", 2, 2))
    yield case("ScatterND", (2, 2), indices, inputs=["x", "i", "x"])
    rows = numpy_helper.from_array(np.array([[1, 0, 2]]), "i")
    yield case("ScatterElements", (3, 3), rows, weight("u", 1, 3), axis=0)
    yield case("CenterCropPad", (3, 6), integers("s", 5, 4))
    taken = numpy_helper.from_array(np.array([True, False, True]), "c")
    yield case("Compress", (2, 3), taken, axis=1)


def resizes() -> Iterator[Case]:
    shape = (1, 2, 4, 6)
    for mode, scale, how in itertools.product(
        ("nearest", "linear", "cubic"),
        ((2.0, 2.0), (0.5, 3.0), (1.5, 1.0)),
        ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"),
    ):
        yield case(
            "Resize",
            shape,
            numbers("s", 1, 1, *scale),
            inputs=["x", "", "s"],
            mode=mode,
            coordinate_transformation_mode=how,
        )
    for mode, sizes in itertools.product(("nearest", "linear"), ((8, 12), (3, 5))):
        yield case(
            "Resize", shape, integers("n", 1, 2, *sizes), inputs=["x", "", "", "n"], mode=mode
        )
    for nearest in ("floor", "ceil", "round_prefer_ceil", "round_prefer_floor"):
        yield case(
            "Resize",
            shape,
            numbers("s", 1, 1, 1.75, 0.8),
            inputs=["x", "", "s"],
            mode="nearest",
            nearest_mode=nearest,
        )
    yield case(
        "Resize", shape, numbers("s", 2, 2), inputs=["x", "", "s"], mode="linear", axes=[2, 3]
    )
    for mode in ("nearest", "linear"):
        yield case("Upsample", shape, numbers("s", 1, 1, 2, 3), mode=mode, opset=9)
        yield case("Upsample", shape, mode=mode, scales=[1.0, 1.0, 3.0, 2.0], opset=8)
        yield case("Resize", shape, numbers("s", 1, 1, 2, 3), mode=mode, opset=10)
    yield case("Resize", shape, numbers("s", 1, 1, 0.5, 3), mode="linear", opset=10)


def recurrent() -> Iterator[Case]:
    length, batch, width, hidden = 4, 2, 3, 5
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}
    for op_type, direction in itertools.product(gates, ("forward", "reverse", "bidirectional")):
        count = 2 if direction == "bidirectional" else 1
        size = gates[op_type] * hidden
        weights = [weight("w", count, size, width), weight("r", count, size, hidden)]
        shape = (length, batch, width)
        bias = weight("b", count, 2 * size)
        more = {"hidden_size": hidden, "direction": direction}
        resets = ({}, {"linear_before_reset": 1}) if op_type == "GRU" else ({},)
        for reset in resets:
            yield case(op_type, shape, *weights, **more, **reset)
            yield case(op_type, shape, *weights, bias, **more, **reset)
            yield case(
                op_type,
                shape,
                *weights,
                bias,
                weight("h", count, batch, hidden),
                inputs=["x", "w", "r", "b", "", "h"],
                **more,
                **reset,
            )
    yield case(
        "LSTM",
        (length, batch, width),
        weight("w", 1, 4 * hidden, width),
        weight("r", 1, 4 * hidden, hidden),
        weight("c", 1, batch, hidden),
        inputs=["x", "w", "r", "", "", "", "c"],
        hidden_size=hidden,
    )
    relu = {"hidden_size": hidden, "activations": ["Relu"]}
    rows = [weight("w", 1, hidden, width), weight("r", 1, hidden, hidden)]
    yield case("RNN", (length, batch, width), *rows, **relu)


CASES = [
    *pointwise(),
    *reductions(),
    *normalisations(),
    *pools(),
    *moves(),
    *resizes(),
    *recurrent(),
]


def built(
    nodes: list[onnx.NodeProto], shape: Sequence[int], used: list[onnx.TensorProto], opset: int
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_empty_tensor_value_info("y")],
        used,
    )
    graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    made = onnx.shape_inference.infer_shapes(made, data_prop=True)
    if not made.graph.output[0].type.tensor_type.HasField("shape"):
        made.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, shape))
    onnx.checker.check_model(made)
    return made


@pytest.mark.parametrize(
    ("nodes", "shape", "used", "opset"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_operator_written_with_others_computes_the_same(
    nodes: list[onnx.NodeProto],
    shape: Sequence[int],
    used: list[onnx.TensorProto],
    opset: int,
) -> None:
    proto = built(nodes, shape, used, opset)
    result = normalise(proto, {})
    assert {node.op_type for node in result.graph.node} <= SUPPORTED
    for seed in range(3):
        feeds = random_feeds({"x": shape}, seed)
        expected, got = run(proto, feeds)["y"], run(result, feeds)["y"]
        assert got.shape == expected.shape
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5)
    again = normalise(proto, {})
    assert again.SerializeToString(deterministic=True) == result.SerializeToString(
        deterministic=True
    )


def test_every_written_operator_has_a_case() -> None:
    assert {nodes[-1].op_type for _, nodes, *_ in CASES} >= WRITTEN - {"Swish"}


@pytest.mark.parametrize("op_type", ["Compress", "Tile"])
def test_places_that_depend_on_the_input_are_refused_by_name(op_type: str) -> None:
    integer = helper.make_node("Cast", ["x"], ["i"], "cast", to=TensorProto.INT64)
    nodes = [integer, helper.make_node(op_type, ["x", "i"], ["y"], "the_node")]
    if op_type == "Compress":
        integer.attribute[0].i = TensorProto.BOOL
    proto = built(nodes, (2,), [], 18)
    with pytest.raises(ChunkingError, match=r"the_node|cast"):
        normalise(proto, {})


@pytest.mark.parametrize("reduction", ["add", "mul", "max"])
def test_a_scatter_that_reduces_is_refused_by_name(reduction: str) -> None:
    indices = numpy_helper.from_array(np.array([[1], [0]]), "i")
    node = helper.make_node("ScatterND", ["x", "i", "x"], ["y"], "the_node", reduction=reduction)
    with pytest.raises(ChunkingError, match=r"the_node.*reduction"):
        normalise(built([node], (2, 2), [indices], 18), {})


def test_a_neighbour_that_a_rounding_decides_is_refused() -> None:
    node = helper.make_node(
        "Resize", ["x", "", "s"], ["y"], "the_node", mode="nearest", nearest_mode="floor"
    )
    proto = built([node], (1, 1, 1, 6), [numbers("s", 1, 1, 1, 0.6)], 18)
    with pytest.raises(ChunkingError, match=r"the_node.*scale 0\.6.*whole number"):
        normalise(proto, {})


def test_an_early_resize_to_fewer_elements_is_refused() -> None:
    node = helper.make_node("Resize", ["x", "s"], ["y"], "the_node", mode="nearest")
    proto = built([node], (1, 1, 4, 4), [numbers("s", 1, 1, 0.5, 0.5)], 10)
    with pytest.raises(ChunkingError, match=r"the_node.*opset 10.*opset 13"):
        normalise(proto, {})


@pytest.mark.parametrize(("op_type", "gates"), [("RNN", 1), ("GRU", 3), ("LSTM", 4)])
@pytest.mark.parametrize("read", ["steps last cell", "last", "cell", "steps"])
@pytest.mark.parametrize("left_out", ["named", "unnamed"])
def test_last_states_of_a_recurrent_operator_are_outputs_too(
    op_type: str, gates: int, read: str, left_out: str
) -> None:
    """Whichever of them are read; the others are named, as exporters do, or left out."""
    outputs = ["steps", "last", "cell"][: 3 if op_type == "LSTM" else 2]
    names = [name for name in outputs if name in read.split()]
    if not names:
        return
    if left_out == "unnamed":
        outputs = [name if name in names else "" for name in outputs]
    constants = [weight("w", 2, gates * 5, 3), weight("r", 2, gates * 5, 5)]
    node = helper.make_node(
        op_type, ["x", "w", "r"], outputs, "node", hidden_size=5, direction="bidirectional"
    )
    shape = (4, 2, 3)
    graph = helper.make_graph(
        [node],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [onnx.ValueInfoProto(name=name) for name in names],
        constants,
    )
    opset = [helper.make_opsetid("", 18)]
    proto = onnx.shape_inference.infer_shapes(
        helper.make_model(graph, opset_imports=opset, ir_version=9)
    )
    feeds = random_feeds({"x": shape})
    expected, got = run(proto, feeds), run(normalise(proto, {}), feeds)
    for name in names:
        np.testing.assert_allclose(got[name], expected[name], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("attributes", "named"),
    [({"clip": 3.0}, "clip"), ({"layout": 1}, "layout"), ({"activations": ["Affine"]}, "Affine")],
)
def test_what_a_recurrent_operator_cannot_have_is_refused_by_name(
    attributes: dict[str, object], named: str
) -> None:
    weights = [weight("w", 1, 5, 3), weight("r", 1, 5, 5)]
    _, nodes, shape, used, opset = case("RNN", (4, 2, 3), *weights, hidden_size=5, **attributes)
    with pytest.raises(ChunkingError, match=rf"the_node.*RNN.*{named}"):
        normalise(built(nodes, shape, used, opset), {})


def test_results_of_a_size_that_a_few_bytes_ask_for_are_refused() -> None:
    tiled = helper.make_node("Tile", ["x", "r"], ["y"], "the_node")
    with pytest.raises(ChunkingError, match=r"the_node.*moves more than"):
        normalise(built([tiled], (4, 4), [integers("r", 1 << 12, 1 << 12)], 18), {})
    resized = helper.make_node("Resize", ["x", "", "", "n"], ["y"], "the_node", mode="linear")
    with pytest.raises(ChunkingError, match=r"the_node.*too long"):
        normalise(built([resized], (1, 1, 1, 8192), [integers("n", 1, 1, 1, 8000)], 18), {})


def test_weights_of_a_recurrent_operator_stand_once_however_long_the_sequence() -> None:
    sizes = []
    for length in (4, 40):
        weights = [weight("w", 1, 256, 3), weight("r", 1, 256, 64)]
        _, nodes, shape, used, opset = case("LSTM", (length, 1, 3), *weights, hidden_size=64)
        result = normalise(built(nodes, shape, used, opset), {})
        sizes.append(sum(len(tensor.raw_data) for tensor in result.graph.initializer))
    assert sizes[1] < 1.1 * sizes[0]
