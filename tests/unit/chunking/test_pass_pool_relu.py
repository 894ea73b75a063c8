"""Max pooling by pairs, ReLU as x + |x|, products with integer weights: alone and together."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.unit.chunking.builders import model, random_feeds, run, weight
from tests.unit.chunking.quantised import run_quantised
from zkml_ray.chunking.choose import default_rewrites
from zkml_ray.chunking.normalize import normalise
from zkml_ray.chunking.rewrite import PASSES, Rewrite, apply_rewrites, find_places
from zkml_ray.errors import ChunkingError


def block(
    source: tuple[int, ...],
    *,
    channels: int = 3,
    kernel: int = 3,
    relu: bool = True,
    pool: int = 2,
    operator: str = "MaxPool",
    **pooling: object,
) -> onnx.ModelProto:
    """Conv (with bias), ReLU, a pooling."""
    rank = len(source) - 2
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["c"], "conv")]
    if relu:
        nodes.append(helper.make_node("Relu", ["c"], ["r"], "relu"))
    if pool:
        attributes = {"kernel_shape": [pool] * rank, "strides": [2] * rank, **pooling}
        if operator.startswith("Global"):
            attributes = {}
        last = nodes[-1].output[0]
        nodes.append(helper.make_node(operator, [last], ["p"], "pool", **attributes))
    weights = [weight("w", channels, source[1], *[kernel] * rank), weight("b", channels)]
    output = nodes[-1].output[0]
    dims = [f"d{i}" for i in range(len(source))]
    return normalise(model(nodes, {"x": source}, {output: dims}, weights), {})


def pool_alone(source: tuple[int, ...], **attributes: object) -> onnx.ModelProto:
    node = helper.make_node("MaxPool", ["x"], ["y"], "pool", **attributes)
    return normalise(model([node], {"x": source}, {"y": [f"d{i}" for i in range(len(source))]}), {})


def dense(rows: int, *, bias: bool, relu: bool, gemm: bool = True) -> onnx.ModelProto:
    if gemm:
        names = ["x", "w", "b"] if bias else ["x", "w"]
        nodes = [helper.make_node("Gemm", names, ["a"], "fc", transB=1, alpha=1.5, beta=0.7)]
        shape = (8, 12)
    else:
        nodes, shape = [helper.make_node("MatMul", ["x", "w"], ["a"], "fc")], (12, 8)
    if relu:
        nodes.append(helper.make_node("Relu", ["a"], ["y"], "relu"))
    weights = [weight("w", *shape), weight("b", 8)][: 2 if bias else 1]
    output = nodes[-1].output[0]
    return normalise(model(nodes, {"x": [rows, 12]}, {output: [rows, 8]}, weights), {})


def all_places(proto: onnx.ModelProto, *names: str) -> onnx.ModelProto:
    for name in names or PASSES:
        proto = apply_rewrites(proto, find_places(proto, name))
    return proto


def operators(proto: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in proto.graph.node}


def shape_of(proto: onnx.ModelProto) -> list[int]:
    return [dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim]


BLOCKS = {
    "conv-relu-pool": block((1, 2, 8, 8)),
    "conv-pool": block((1, 2, 8, 8), relu=False),
    "conv-relu": block((1, 2, 7, 7), pool=0),
    "pool 3x3 stride 2 padded": block((1, 1, 9, 9), pool=3, pads=[1, 1, 1, 1]),
    "one dimension": block((1, 2, 12)),
    "one dimension, window of 3": block((1, 2, 12), pool=3),
    "batch of two, pool": block((2, 1, 6, 6)),
    "average pool 2x2": block((1, 2, 8, 8), operator="AveragePool"),
    "average pool 3x3": block((1, 2, 9, 9), pool=3, operator="AveragePool"),
    "average pool without relu": block((1, 2, 8, 8), relu=False, operator="AveragePool"),
    "global average pool of 16": block((1, 2, 6, 6), operator="GlobalAveragePool"),
    "global average pool of 25": block((1, 2, 7, 7), operator="GlobalAveragePool"),
}


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_rewritten_block_is_the_model_and_costs_less(name: str) -> None:
    proto = BLOCKS[name]
    feeds = random_feeds({"x": shape_of(proto)})
    made = all_places(proto)
    assert not operators(made) & {"Conv", "MaxPool", "AveragePool", "GlobalAveragePool"}
    (expected,), (found,) = run(proto, feeds).values(), run(made, feeds).values()
    np.testing.assert_allclose(found, expected, atol=0.02)
    native, cheap = run_quantised(proto, feeds), run_quantised(made, feeds)
    assert cheap.scale == 10
    if "average" not in name:  # which adds before it rounds, and has other scales natively
        # A bias is rounded at the accumulation's finer scale.
        assert native.scale == 10
        assert np.abs(cheap.integers - native.integers).max() <= 1
    errors = [np.abs(q.reals() - expected.reshape(-1)).max() for q in (cheap, native)]
    assert errors[0] <= errors[1] + 2.0**-11
    assert cheap.cells < (0.9 if "pool" in name else 1.0) * native.cells


def test_lenet_block_reaches_its_cells() -> None:
    proto = block((1, 6, 14, 14), kernel=5, channels=16)
    feeds = random_feeds({"x": [1, 6, 14, 14]})
    native, cheap = run_quantised(proto, feeds), run_quantised(all_places(proto), feeds)
    # 16 x 10 x 10 outputs of 150 products each; the rest of the block shrinks to less than half.
    products, inputs = 16 * 100 * 150, 19 * 6 * 14 * 14
    assert cheap.cells - products - inputs < 0.4 * (native.cells - products - inputs)


@pytest.mark.parametrize(
    ("source", "attributes"),
    [
        ((1, 2, 6, 6), {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ((1, 2, 5, 5), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
        ((1, 1, 7), {"kernel_shape": [3], "strides": [1]}),
        ((1, 2, 5, 5), {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
        ((2, 1, 4, 6), {"kernel_shape": [2, 3], "strides": [2, 3]}),
    ],
)
def test_pooling_of_a_rebased_tensor_is_bit_exact_and_costs_less(
    source: tuple[int, ...], attributes: dict[str, object]
) -> None:
    proto = pool_alone(source, **attributes)
    feeds = random_feeds({"x": source})
    made = all_places(proto, "maxpool-pairwise")
    np.testing.assert_allclose(run(made, feeds)["y"], run(proto, feeds)["y"], rtol=1e-6)
    if "ceil_mode" not in attributes:  # ezkl reads past the edge there
        native, cheap = run_quantised(proto, feeds), run_quantised(made, feeds)
        np.testing.assert_array_equal(cheap.integers, native.integers)
        assert cheap.cells < native.cells


def test_pooling_takes_the_relu_behind_it() -> None:
    made = all_places(BLOCKS["conv-relu-pool"], "conv-im2col", "maxpool-pairwise")
    order = [node.op_type for node in made.graph.node]
    assert order.index("Relu") > max(i for i, op in enumerate(order) if op == "Abs")


def test_relu_read_by_another_node_too_stays_before_the_pooling() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], "relu"),
        helper.make_node("MaxPool", ["r"], ["p"], "pool", kernel_shape=[2], strides=[2]),
        helper.make_node("Abs", ["r"], ["q"], "other"),
    ]
    proto = normalise(model(nodes, {"x": [1, 1, 8]}, {"p": [1, 1, 4], "q": [1, 1, 8]}), {})
    made = all_places(proto)
    feeds = random_feeds({"x": [1, 1, 8]})
    for name, value in run(proto, feeds).items():
        np.testing.assert_allclose(run(made, feeds)[name], value, rtol=1e-6)


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize(("gemm", "bias"), [(True, True), (True, False), (False, False)])
@pytest.mark.parametrize("relu", [True, False])
def test_dense_layer_with_integer_weights_is_the_layer(
    rows: int, gemm: bool, bias: bool, relu: bool
) -> None:
    proto = dense(rows, bias=bias, relu=relu, gemm=gemm)
    feeds = random_feeds({"x": [rows, 12]})
    made = all_places(proto)
    (expected,), (found,) = run(proto, feeds).values(), run(made, feeds).values()
    np.testing.assert_allclose(found, expected, atol=0.03)
    native, cheap = run_quantised(proto, feeds), run_quantised(made, feeds)
    assert cheap.scale == native.scale == 10
    errors = [np.abs(q.reals() - expected.reshape(-1)).max() for q in (cheap, native)]
    assert errors[0] <= errors[1] + 2.0**-10
    if relu:
        assert cheap.cells < native.cells


def test_relu_on_a_rebased_tensor_is_refused() -> None:
    proto = BLOCKS["conv-relu"]
    assert find_places(proto, "relu-abs") == []
    with pytest.raises(ChunkingError, match="rebased already"):
        apply_rewrites(proto, [Rewrite(name="relu-abs", node="relu")])


@pytest.mark.parametrize(
    ("name", "reason"), [("maxpool-pairwise", "not a MaxPool"), ("relu-abs", "not a Relu")]
)
def test_pass_on_another_operator_is_refused(name: str, reason: str) -> None:
    with pytest.raises(ChunkingError, match=reason):
        apply_rewrites(BLOCKS["conv-relu"], [Rewrite(name=name, node="conv")])


def test_dense_pass_refuses_an_addend_that_is_a_column() -> None:
    """As many rows as columns: its size alone does not tell which it is."""
    gemm = helper.make_node("Gemm", ["x", "w", "b"], ["y"], "fc")
    weights = [weight("w", 4, 3), weight("b", 3, 1)]
    proto = normalise(model([gemm], {"x": [3, 4]}, {"y": [3, 3]}, weights), {})
    with pytest.raises(ChunkingError, match="its addend is a column"):
        apply_rewrites(proto, [Rewrite(name="dense-integer", node="fc", parameter=10)])


def test_dense_pass_refuses_whole_weights_and_products_of_activations() -> None:
    proto = dense(2, bias=False, relu=False, gemm=False)
    whole = apply_rewrites(proto, [Rewrite(name="dense-integer", node="fc", parameter=10)])
    product = next(node.name for node in whole.graph.node if node.op_type == "MatMul")
    assert find_places(whole, "dense-integer") == []
    with pytest.raises(ChunkingError, match="whole numbers already"):
        apply_rewrites(whole, [Rewrite(name="dense-integer", node=product, parameter=10)])
    square = model(
        [helper.make_node("MatMul", ["x", "x"], ["y"], "fc")], {"x": [3, 3]}, {"y": [3, 3]}
    )
    with pytest.raises(ChunkingError, match="constant matrix"):
        apply_rewrites(
            normalise(square, {}), [Rewrite(name="dense-integer", node="fc", parameter=10)]
        )


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_rewrites_give_the_same_bytes_every_time(name: str) -> None:
    rewrites = default_rewrites(BLOCKS[name], weight_bits=10)
    first, second = (
        apply_rewrites(BLOCKS[name], rewrites).SerializeToString(deterministic=True)
        for _ in range(2)
    )
    assert first == second
    assert rewrites == default_rewrites(BLOCKS[name], weight_bits=10)


def test_average_without_the_precondition_is_refused() -> None:
    proto = pool_alone((1, 1, 4, 4), kernel_shape=[2, 2])
    with pytest.raises(ChunkingError, match="not an average"):
        apply_rewrites(proto, [Rewrite(name="average-deferred", node="pool")])
    padded = block((1, 2, 8, 8), operator="AveragePool", pads=[1, 1, 1, 1])
    assert find_places(padded, "average-deferred") == []
    with pytest.raises(ChunkingError, match="rebased already"):
        apply_rewrites(padded, [Rewrite(name="average-deferred", node="pool")])
    deferrable = all_places(padded, "conv-im2col", "relu-abs")
    with pytest.raises(ChunkingError, match="reads padding"):
        apply_rewrites(deferrable, [Rewrite(name="average-deferred", node="pool")])
