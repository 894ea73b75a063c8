"""The circuits that a calibration measures: small chunk models, each dear in another way.

Together they vary what the cost model tells apart: rows, columns, blocks, lookup tables, shuffles
and Freivalds' argument; and circuits of both kinds, because only hinted ones have no range checks.
All have commitments, as every chunk has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from zkml_ray.chunking.extract import CommittedTensor, extract_chunk
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.hinted.extract import extract_hinted_chunk
from zkml_ray.chunking.hinted.numbers import Arithmetic
from zkml_ray.chunking.hinted.recipe import filled, solve
from zkml_ray.chunking.normalize import normalise
from zkml_ray.commitments.leaves import salt_bits
from zkml_ray.commitments.packing import PackingSpec
from zkml_ray.schema.plan import CircuitArguments, CommitmentArguments

SCALE: Final = 7
RANGE_BITS: Final = 5
"""Of hinted samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A circuit to measure.

    Attributes:
        kind: "dense", "deep" (dense layers), "hinted" (the same, hinted), "product" (Freivalds),
            "tables" or "pool" (shuffles).
        size: Elements that it reads; for "pool", the side of its image; for "product", of its
            square matrix.
        count: Elements that "dense" produces; the layers, rows or tables of others.
        logrows: log2 of its rows.
        columns: Inner columns.
    """

    kind: str
    size: int
    count: int
    logrows: int
    columns: int

    def arguments(self) -> CircuitArguments:
        """The circuit's arguments."""
        commitment = self.commitment()
        hinted = self.kind == "hinted"
        table = (0, self.numbers().divisor - 1) if hinted else (-(2 << SCALE), 2 << SCALE)
        return CircuitArguments(
            input_scale=SCALE,
            param_scale=SCALE,
            decomp_base=commitment.decomp_base,
            decomp_legs=commitment.decomp_legs,
            num_inner_cols=self.columns,
            logrows=self.logrows,
            lookup_range=table,
            kind="hinted" if hinted else "native",
            range_bits=RANGE_BITS if hinted else 0,
        )

    def commitment(self) -> CommitmentArguments:
        """How its boundaries are committed to."""
        return CommitmentArguments(salts_apart=self.kind == "hinted")

    def numbers(self) -> Arithmetic:
        """Digits and ranges of a hinted sample."""
        return Arithmetic(scale=SCALE, logrows=self.logrows, range_bits=RANGE_BITS)


SAMPLES: Final = (
    Sample(kind="dense", size=16, count=8, logrows=10, columns=5),
    Sample(kind="dense", size=64, count=32, logrows=10, columns=5),
    Sample(kind="dense", size=64, count=64, logrows=10, columns=2),
    Sample(kind="deep", size=48, count=3, logrows=10, columns=5),
    Sample(kind="deep", size=48, count=6, logrows=10, columns=4),
    Sample(kind="dense", size=96, count=64, logrows=11, columns=7),
    Sample(kind="dense", size=128, count=64, logrows=11, columns=3),
    Sample(kind="deep", size=64, count=5, logrows=11, columns=5),
    Sample(kind="dense", size=64, count=64, logrows=12, columns=2),
    Sample(kind="dense", size=64, count=32, logrows=12, columns=5),
    Sample(kind="deep", size=96, count=6, logrows=12, columns=6),
    Sample(kind="dense", size=400, count=96, logrows=13, columns=5),
    Sample(kind="hinted", size=64, count=2, logrows=11, columns=1),
    Sample(kind="hinted", size=96, count=2, logrows=12, columns=2),
    Sample(kind="hinted", size=96, count=4, logrows=12, columns=6),
    Sample(kind="hinted", size=96, count=8, logrows=12, columns=5),
    Sample(kind="hinted", size=96, count=1, logrows=13, columns=1),
    Sample(kind="hinted", size=96, count=6, logrows=13, columns=4),
    Sample(kind="hinted", size=96, count=8, logrows=13, columns=7),
    Sample(kind="hinted", size=96, count=2, logrows=14, columns=2),
    Sample(kind="product", size=16, count=4, logrows=10, columns=5),
    Sample(kind="product", size=28, count=3, logrows=10, columns=3),
    Sample(kind="product", size=24, count=4, logrows=11, columns=5),
    Sample(kind="product", size=24, count=8, logrows=12, columns=5),
    Sample(kind="tables", size=64, count=1, logrows=11, columns=5),
    Sample(kind="tables", size=128, count=2, logrows=11, columns=3),
    Sample(kind="tables", size=128, count=2, logrows=12, columns=5),
    Sample(kind="pool", size=8, count=0, logrows=10, columns=5),
    Sample(kind="pool", size=16, count=0, logrows=11, columns=3),
    Sample(kind="pool", size=12, count=0, logrows=12, columns=5),
)
"""The designed set: some minutes on two cores, most of it proofs of less than five seconds."""


def chunk_model(sample: Sample) -> tuple[bytes, list[list[int]]]:
    """A sample's chunk model, and field elements for its inputs."""
    graph = ModelGraph(normalise(_model(sample), {}))
    commitment = sample.commitment()
    packing = PackingSpec.for_decomposition(commitment.decomp_base, commitment.decomp_legs)
    touched = [
        CommittedTensor(
            info=graph.tensor(name),
            layout=commitment.leaf_layout(int(np.prod(graph.tensor(name).shape)), packing),
        )
        for name in (*graph.inputs, *graph.outputs)
    ]
    count = len(graph.inputs)
    generator = np.random.default_rng(0)
    if sample.kind == "hinted":
        incoming, outgoing = touched[:count], touched[count:]
        nodes = list(graph.nodes)
        data = extract_hinted_chunk(
            graph, nodes, incoming, outgoing, sample.numbers(), columns=sample.columns
        )
        return data, [_advice(data, incoming, touched, generator)]
    data = extract_chunk(graph, list(graph.nodes), touched[:count], touched[count:], SCALE)
    tensors = []
    for value in onnx.load_model_from_string(data).graph.input:
        size = int(np.prod([dim.dim_value for dim in value.type.tensor_type.shape.dim]))
        tensors.append([int(v) for v in generator.integers(0, 1 << SCALE, size=size)])
    return data, tensors


def _advice(
    data: bytes,
    incoming: Sequence[CommittedTensor],
    touched: Sequence[CommittedTensor],
    generator: np.random.Generator,
) -> list[int]:
    """The one input of a hinted chunk model, whose hints must be right to be proved."""
    model = onnx.load_model_from_string(data)
    values = {
        tensor.info.name: generator.integers(0, 1 << SCALE, size=tensor.layout.element_count)
        for tensor in incoming
    }
    hints = solve(model, {name: found.tolist() for name, found in values.items()}, "chunk-000")
    given = [int(value) for found in values.values() for value in found]
    for tensor in touched:
        largest = 1 << min(62, salt_bits(tensor.layout.packing))
        given += generator.integers(0, largest, size=tensor.layout.salt_count).tolist()
    return filled(model, hints, given)


def _model(sample: Sample) -> onnx.ModelProto:
    builders = {
        "dense": _dense,
        "deep": _deep,
        "hinted": _deep,
        "product": _product,
        "tables": _tables,
        "pool": _pool,
    }
    nodes, shape, out_shape, weights = builders[sample.kind](sample)
    graph = helper.make_graph(
        nodes,
        "sample",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out_shape)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


_Parts = tuple[list[onnx.NodeProto], list[int], list[int], list[onnx.TensorProto]]


def _weight(*shape: int) -> onnx.TensorProto:
    values = np.random.default_rng(1).uniform(-1, 1, size=shape) / shape[0]
    return numpy_helper.from_array(values.astype(np.float32), "w")


def _dense(sample: Sample) -> _Parts:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "fc"),
        helper.make_node("Relu", ["a"], ["y"], "relu"),
    ]
    weight = _weight(sample.size, sample.count)
    return nodes, [1, sample.size], [1, sample.count], [weight]


def _product(sample: Sample) -> _Parts:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "product"),
        helper.make_node("Relu", ["a"], ["y"], "relu"),
    ]
    shape = [sample.count, sample.size]
    return nodes, shape, shape, [_weight(sample.size, sample.size)]


def _deep(sample: Sample) -> _Parts:
    nodes, previous = [], "x"
    for layer in range(sample.count):
        made = "y" if layer == sample.count - 1 else f"h{layer}"
        nodes += [
            helper.make_node("MatMul", [previous, "w"], [f"a{layer}"], f"fc{layer}"),
            helper.make_node("Relu", [f"a{layer}"], [made], f"relu{layer}"),
        ]
        previous = made
    shape = [1, sample.size]
    return nodes, shape, shape, [_weight(sample.size, sample.size)]


def _tables(sample: Sample) -> _Parts:
    functions = ("Sigmoid", "Tanh")[: sample.count]
    nodes, previous = [], "x"
    for index, function in enumerate(functions):
        made = "y" if index == len(functions) - 1 else f"a{index}"
        nodes.append(helper.make_node(function, [previous], [made], f"table{index}"))
        previous = made
    return nodes, [1, sample.size], [1, sample.size], []


def _pool(sample: Sample) -> _Parts:
    window = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], "relu"),
        helper.make_node("MaxPool", ["a"], ["y"], "pool", **window),
    ]
    side = sample.size
    return nodes, [1, 1, side, side], [1, 1, side // 2, side // 2], []
