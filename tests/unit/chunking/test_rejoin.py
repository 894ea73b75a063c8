"""Cutting and rejoining: the chunks, run one after the other, are the model.

Random graphs are cut by random topological partitions. The chunk models themselves are run, with
their boundary tensors tapped, so that extraction is part of what is tested.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests import zoo
from tests.unit.chunking.builders import Array, integers, model, random_feeds, run
from tests.unit.chunking.builders import weight as random_weight
from zkml_ray.chunking.extract import CommittedTensor, extract_chunk
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.normalize import normalise
from zkml_ray.chunking.partition import layer_partition
from zkml_ray.commitments.leaves import LeafLayout
from zkml_ray.commitments.packing import PackingSpec

SPEC = PackingSpec.for_decomposition(128, 4)
OWN = "zkml_ray/"
EXACT = (
    *("MatMul", "Add", "Sub", "Max", "Min", "AddConstant"),
    *("Relu", "Neg", "Abs", "Identity", "Dropout"),
    *("Concat", "Split", "Reshape", "Gather", "Slice", "ReduceSum"),
)
"""Operators without a rounding, where weights and constants are whole numbers."""

OPERATORS = (
    *EXACT,
    *("Mul", "MulConstant", "Conv", "Gemm", "BatchNormalization", "LayerNormalization"),
    *("Sigmoid", "Tanh", "Erf", "Softmax", "LeakyRelu", "Clip"),
)
UNARY = {"Relu", "Neg", "Abs", "Identity", "Dropout", "Sigmoid", "Tanh", "Erf", "Softmax"}


def rejoined(
    graph: ModelGraph, parts: Sequence[Sequence[str]], feeds: dict[str, Array]
) -> dict[str, Array]:
    """Run a partition's chunks in order, passing boundary tensors on; returns the outputs."""
    crossings = graph.crossings(parts)
    committed = {
        c.tensor.name: CommittedTensor(
            info=c.tensor, layout=LeafLayout.plan(int(np.prod(c.tensor.shape)), SPEC, max_slots=128)
        )
        for c in crossings
    }
    known = dict(feeds)
    seen: Counter[str] = Counter()
    for index, nodes in enumerate(parts):
        incoming = [committed[c.tensor.name] for c in crossings if index in c.consumers]
        outgoing = [committed[c.tensor.name] for c in crossings if c.producer == index]
        chunk = onnx.ModelProto.FromString(extract_chunk(graph, nodes, incoming, outgoing, 10))
        seen.update(name for node in chunk.graph.node for name in node.output)
        for tensor in outgoing:
            chunk.graph.output.append(
                helper.make_tensor_value_info(
                    tensor.info.name, TensorProto.FLOAT, tensor.info.shape
                )
            )
        chunk_feeds = {tensor.info.name: known[tensor.info.name] for tensor in incoming}
        for value in chunk.graph.input:
            if value.name.startswith(OWN):
                shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
                chunk_feeds[value.name] = np.zeros(shape, dtype=np.float32)
        assert chunk_feeds.keys() == {value.name for value in chunk.graph.input}
        found = run(chunk, chunk_feeds)
        known.update({tensor.info.name: found[tensor.info.name] for tensor in outgoing})
    made = {name: count for name, count in seen.items() if name in graph.producer_of}
    assert made == dict.fromkeys(graph.producer_of, 1), "a node was lost or repeated"
    return {name: known[name] for name in graph.outputs}


@st.composite
def random_models(
    draw: st.DrawFn, operators: Sequence[str] = OPERATORS, *, whole_numbers: bool = False
) -> onnx.ModelProto:
    """A graph of row vectors: branches, joins, splits, several inputs and outputs."""

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        made = random_weight(name, *shape)
        if whole_numbers:
            values = np.clip(np.round(numpy_helper.to_array(made)), -1, 1)
            made = numpy_helper.from_array(values.astype(np.float32), name)
        return made

    widths: dict[str, int] = {}
    for index in range(draw(st.integers(1, 2))):
        widths[f"x{index}"] = draw(st.sampled_from([2, 3, 4]))
    inputs = dict(widths)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    read: set[str] = set()

    def pick(width: int | None = None) -> str:
        unread = [n for n in inputs if n not in read and (width is None or widths[n] == width)]
        fitting = [n for n in widths if width is None or widths[n] == width]
        name = unread[0] if unread else draw(st.sampled_from(fitting))
        read.add(name)
        return name

    for position in range(draw(st.integers(2, 9))):
        op_type = draw(st.sampled_from(operators))
        source, made = pick(), f"t{position}"
        width = widths[source]
        name = f"n{position}"
        if op_type == "MatMul":
            size = draw(st.sampled_from([2, 3, 4]))
            weights.append(weight(f"w{position}", width, size))
            nodes.append(helper.make_node("MatMul", [source, f"w{position}"], [made], name))
            widths[made] = size
        elif op_type in ("Add", "Sub", "Mul", "Max", "Min"):
            nodes.append(helper.make_node(op_type, [source, pick(width)], [made], name))
            widths[made] = width
        elif op_type in ("AddConstant", "MulConstant"):
            weights.append(weight(f"w{position}", 1, width))
            kind = op_type.removesuffix("Constant")
            nodes.append(helper.make_node(kind, [source, f"w{position}"], [made], name))
            widths[made] = width
        elif op_type == "Gemm":
            size = draw(st.sampled_from([2, 3, 4]))
            weights += [weight(f"w{position}", size, width), weight(f"v{position}", size)]
            parameters = [source, f"w{position}", f"v{position}"]
            nodes.append(helper.make_node("Gemm", parameters, [made], name, transB=1))
            widths[made] = size
        elif op_type == "Conv":
            weights += [integers(f"s{position}", 1, 1, width), integers(f"u{position}", 1, -1)]
            weights.append(weight(f"w{position}", 1, 1, 2))
            nodes += [
                helper.make_node("Reshape", [source, f"s{position}"], [f"{made}s"], f"{name}a"),
                helper.make_node(
                    "Conv", [f"{made}s", f"w{position}"], [f"{made}c"], name, pads=[1, 0]
                ),
                helper.make_node("Reshape", [f"{made}c", f"u{position}"], [made], f"{name}b"),
            ]
            widths[made] = width
        elif op_type in ("BatchNormalization", "LayerNormalization"):
            count = 4 if op_type.startswith("Batch") else 2
            parameters = [f"w{position}_{index}" for index in range(count)]
            weights += [weight(each, width) for each in parameters]
            if count == 4:  # the variance must be positive
                positive = np.abs(numpy_helper.to_array(weights.pop())) + np.float32(0.1)
                weights.append(numpy_helper.from_array(positive, parameters[-1]))
            nodes.append(helper.make_node(op_type, [source, *parameters], [made], name))
            widths[made] = width
        elif op_type == "LeakyRelu":
            nodes.append(helper.make_node("LeakyRelu", [source], [made], name, alpha=0.125))
            widths[made] = width
        elif op_type == "Clip":
            bounds = [f"w{position}", f"v{position}"]
            for bound, value in zip(bounds, (-0.5, 0.75), strict=True):
                scalar = np.array(value, dtype=np.float32)
                weights.append(numpy_helper.from_array(scalar, bound))
            nodes.append(helper.make_node("Clip", [source, *bounds], [made], name))
            widths[made] = width
        elif op_type == "ReduceSum":
            weights.append(integers(f"w{position}", 1))
            nodes.append(helper.make_node("ReduceSum", [source, f"w{position}"], [made], name))
            widths[made] = 1
        elif op_type == "Slice" and width >= 2:
            first = draw(st.integers(0, width - 2))
            bounds = [f"w{position}", f"v{position}", f"u{position}"]
            values = (first, width, 1)
            weights += [integers(n, v) for n, v in zip(bounds, values, strict=True)]
            nodes.append(helper.make_node("Slice", [source, *bounds], [made], name))
            widths[made] = width - first
        elif op_type == "Concat" and width <= 8:
            other = pick()
            nodes.append(helper.make_node("Concat", [source, other], [made], name, axis=1))
            widths[made] = width + widths[other]
        elif op_type == "Split" and width >= 2:
            weights.append(integers(f"w{position}", 1, width - 1))
            outputs = [made, f"{made}b"]
            nodes.append(helper.make_node("Split", [source, f"w{position}"], outputs, name, axis=1))
            widths[made], widths[f"{made}b"] = 1, width - 1
        elif op_type == "Reshape":
            weights.append(integers(f"w{position}", width, 1))
            weights.append(integers(f"v{position}", 1, width))
            nodes.append(helper.make_node("Reshape", [source, f"w{position}"], [f"{made}m"], name))
            nodes.append(
                helper.make_node("Reshape", [f"{made}m", f"v{position}"], [made], f"{name}b")
            )
            widths[made] = width
        elif op_type == "Gather":
            picked = draw(st.lists(st.integers(0, width - 1), min_size=1, max_size=4))
            weights.append(integers(f"w{position}", *picked))
            nodes.append(helper.make_node("Gather", [source, f"w{position}"], [made], name, axis=1))
            widths[made] = len(picked)
        else:
            simple = op_type if op_type in UNARY else "Relu"
            nodes.append(helper.make_node(simple, [source], [made], name))
            widths[made] = width
    produced = [name for name in widths if name not in inputs]
    extra = draw(st.sets(st.sampled_from(produced), max_size=2))
    outputs = {n: [1, widths[n]] for n in produced if n not in read or n in extra}
    used = {name for node in nodes for name in node.input}
    return model(nodes, {n: [1, w] for n, w in inputs.items() if n in used}, outputs, weights)


def random_partition(draw: st.DrawFn, graph: ModelGraph) -> list[list[str]]:
    """Parts that read from earlier parts only; a part's nodes need not follow one another."""
    part_of: dict[str, int] = {}
    for name, node in graph.nodes.items():
        makers = [graph.producer_of[value] for value in node.input if value in graph.producer_of]
        first = max((part_of[maker] for maker in makers), default=0)
        part_of[name] = draw(st.integers(first, first + 2))
    used = sorted(set(part_of.values()))
    return [[name for name in graph.nodes if part_of[name] == index] for index in used]


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_random_model_cut_at_random_and_rejoined_is_the_model(data: st.DataObject) -> None:
    proto = data.draw(random_models())
    graph = ModelGraph(normalise(proto, {}))
    shapes = {name: graph.tensor(name).shape for name in graph.inputs}
    feeds = random_feeds(shapes)
    whole = run(proto, feeds)
    parts = random_partition(data.draw, graph)
    found = rejoined(graph, parts, feeds)
    assert found.keys() == whole.keys()
    for name, values in whole.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-3, atol=1e-4)  # factors are rounded


@pytest.mark.parametrize("layers_per_chunk", [1, 2])
@pytest.mark.parametrize("name", sorted(zoo.MODELS))
def test_zoo_model_cut_by_layers_and_rejoined_is_the_model(
    name: str, layers_per_chunk: int
) -> None:
    proto = zoo.MODELS[name]()
    graph = ModelGraph(normalise(proto, {}))
    feeds = random_feeds({n: graph.tensor(n).shape for n in graph.inputs})
    found = rejoined(graph, layer_partition(graph, layers_per_chunk=layers_per_chunk), feeds)
    for output, values in run(proto, feeds).items():
        np.testing.assert_allclose(
            found[output], values, rtol=1e-3, atol=1e-4
        )  # factors are rounded
