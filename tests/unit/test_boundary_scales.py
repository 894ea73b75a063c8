"""Boundaries of several scales: kept exactly, and never rescaled behind their range check.

What an attacker would gain by a rescaling there: an element that was checked to lie within 28 bits
is multiplied by 2^k and packed, and packing at a stride of 30 bits is no longer injective.
(2^30, 0) and (0, 1) have one leaf hash, so that a producer and a consumer could agree on a
commitment and not on the tensor (docs/adr/0012).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.unit.chunking.builders import model as build
from tests.unit.chunking.builders import weight
from tests.zoo.quantised import chained, fixed_arguments, whole
from zkml_ray.chunking import extract
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.load import parse_model
from zkml_ray.chunking.operators import SUPPORTED
from zkml_ray.chunking.partition import layer_partition
from zkml_ray.circuits import backend
from zkml_ray.circuits.derive import (
    DerivedCircuits,
    derive_circuits,
    normalised_graph,
    rederive_circuits,
)
from zkml_ray.commitments.field import canonical
from zkml_ray.commitments.leaves import draw_salts, hash_leaves, pack_leaves
from zkml_ray.commitments.packing import PackingSpec
from zkml_ray.errors import ChunkingError
from zkml_ray.limits import MAX_BOUNDARY_SCALE
from zkml_ray.schema.plan import CircuitArguments, CommitmentArguments
from zkml_ray.stages.accuracy import read_samples
from zkml_ray.verifying.trust import check_arguments, check_topology

SCALE = 6


def mixed() -> onnx.ModelProto:
    """The second layer reads the first one's product and the input itself."""
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a0"], "fc0"),
        helper.make_node("Relu", ["a0"], ["h"], "relu0"),
        helper.make_node("MatMul", ["h", "w1"], ["a1"], "fc1"),
        helper.make_node("Add", ["a1", "x"], ["s"], "add"),
        helper.make_node("Relu", ["s"], ["t"], "relu1"),
        helper.make_node("MatMul", ["t", "w2"], ["a2"], "fc2"),
        helper.make_node("Concat", ["a2", "h"], ["y"], "concat", axis=1),
    ]
    weights = [weight(f"w{i}", 4, 4) for i in range(3)]
    return build(nodes, {"x": [1, 4]}, {"y": [1, 8], "t": [1, 4]}, weights)


def derived(
    proto: onnx.ModelProto, *, multiplier: int, salted: bool = True
) -> tuple[ModelGraph, DerivedCircuits]:
    loaded = parse_model(proto.SerializeToString(), "mixed.onnx")
    graph = normalised_graph(loaded, {})
    commitment = CommitmentArguments(salted=salted)

    circuits = derive_circuits(
        loaded,
        graph,
        dimensions={},
        parts=layer_partition(graph),
        input_scale=SCALE,
        commitment=commitment,
        arguments=lambda _id, _path, scale: fixed_arguments(scale, multiplier=multiplier),
    )
    return graph, circuits


@pytest.mark.parametrize("salted", [True, False])
def test_boundaries_of_two_scales_are_the_whole_models_integers(
    salted: bool, tmp_path: Path
) -> None:
    graph, circuits = derived(mixed(), multiplier=2, salted=salted)
    scales = {boundary.name: boundary.scale for boundary in circuits.plan.boundaries}
    assert scales == {"x": SCALE, "h": 2 * SCALE, "t": 2 * SCALE, "y": 2 * SCALE}
    (arrays, *_) = read_samples(graph, [], seed=1)
    arguments = circuits.plan.chunks[0].arguments
    expected = whole(graph, arguments, arrays, tmp_path)
    got = chained(circuits, arrays, tmp_path)
    for name in graph.outputs:
        assert got[name] == expected[name]


def test_a_plan_of_two_scales_is_derived_again_from_the_model() -> None:
    _, circuits = derived(mixed(), multiplier=2)
    assert {chunk.arguments.input_scale for chunk in circuits.plan.chunks} == {SCALE}
    loaded = parse_model(mixed().SerializeToString(), "mixed.onnx")
    assert rederive_circuits(loaded, circuits.plan).plan == circuits.plan


def test_a_verifier_accepts_a_plan_of_two_scales() -> None:
    _, circuits = derived(mixed(), multiplier=2)
    assert len({boundary.scale for boundary in circuits.plan.boundaries}) > 1
    check_arguments(circuits.plan)
    check_topology(circuits.plan)


def guarded(circuits: DerivedCircuits, chunk: int) -> set[str]:
    nodes = onnx.load_model_from_string(circuits.files[f"chunk-{chunk:03d}"].onnx).graph.node
    return {n.input[0] for n in nodes if n.op_type == "Abs" and n.output[0].endswith("/magnitude")}


@pytest.mark.parametrize("multiplier", [1, 2])
def test_concat_of_checked_tensors_is_guarded_where_their_scales_may_differ(
    multiplier: int,
) -> None:
    """Concat multiplies the tensor of the smaller scale, after its range check."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "fc"),
        helper.make_node("Relu", ["a"], ["h"], "relu"),
        helper.make_node("Concat", ["h", "x"], ["y"], "concat", axis=1),
    ]
    proto = build(nodes, {"x": [1, 4]}, {"y": [1, 8]}, [weight("w", 4, 4)])
    _, circuits = derived(proto, multiplier=multiplier)
    assert guarded(circuits, 0) == {"y"}


def test_one_scale_leaves_the_chunks_without_a_shift() -> None:
    _, circuits = derived(mixed(), multiplier=1)
    assert {boundary.scale for boundary in circuits.plan.boundaries} == {SCALE}
    for files in circuits.files.values():
        nodes = onnx.load_model_from_string(files.onnx).graph.node
        assert not [node for node in nodes if node.name.endswith("/scaled")]


def committed(graph: ModelGraph, name: str, *, shift: int) -> extract.CommittedTensor:
    spec = PackingSpec.for_decomposition(128, 4)
    layout = extract.LeafLayout.plan(int(np.prod(graph.tensor(name).shape)), spec, max_slots=128)
    return extract.CommittedTensor(info=graph.tensor(name), layout=layout, scale_shift=shift)


def test_salts_at_a_wrong_scale_would_let_packing_collide_and_are_refused(tmp_path: Path) -> None:
    """The attack for real: the salts' scale 4 above the tensor's multiplies it by 16."""
    proto = build(
        [
            helper.make_node("Relu", ["x"], ["h"], "relu"),
            helper.make_node("Neg", ["h"], ["y"], "n"),
        ],
        {"x": [1, 2]},
        {"y": [1, 2]},
    )
    graph = normalised_graph(parse_model(proto.SerializeToString(), "m.onnx"), {})
    source, target = committed(graph, "x", shift=0), committed(graph, "h", shift=4)
    path = tmp_path / "chunk-000.onnx"
    path.write_bytes(extract.extract_chunk(graph, ["relu"], [source], [target], SCALE))
    wide = fixed_arguments(SCALE, multiplier=2)
    settings = backend.derive_settings(path, wide)
    (tmp_path / "settings").write_bytes(settings.data)
    backend.compile_circuit(path, tmp_path / "settings", tmp_path / "circuit")
    salts = [draw_salts(t.layout, seed=b"attack", label=t.info.name) for t in (source, target)]
    witness = backend.generate_witness(
        "chunk-000", [[1 << 26, 0], *salts], tmp_path / "circuit", tmp_path / "witness"
    )
    lie = pack_leaves([0, 1], salts[1], target.layout)
    assert witness.outputs[1] == [canonical(v) for v in lie[0]]
    assert witness.hashes[1] == hash_leaves(lie)[0]
    # What the derivation sees: with the salts at the input scale the leaves show the tensor's.
    honest = extract.extract_chunk(
        graph, ["relu"], [source], [replace(target, scale_shift=0)], SCALE
    )
    path.write_bytes(honest)
    assert set(backend.derive_settings(path, wide).output_scales) == {SCALE}


def test_scales_that_do_not_settle_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = backend.derive_settings

    def restless(path: Path, arguments: CircuitArguments) -> backend.Settings:
        settings = real(path, arguments)
        shifted = b"/scaled" in path.read_bytes()
        last = settings.output_scales[-1] + (0 if shifted else 3)
        return replace(settings, output_scales=(*settings.output_scales[:-1], last))

    monkeypatch.setattr(backend, "derive_settings", restless)
    with pytest.raises(ChunkingError, match="do not settle"):
        derived(mixed(), multiplier=1)


def test_scale_that_no_plan_can_name_is_refused_by_the_tensors_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = backend.derive_settings

    def fine(path: Path, arguments: CircuitArguments) -> backend.Settings:
        settings = real(path, arguments)
        finer = MAX_BOUNDARY_SCALE + 1
        return replace(settings, output_scales=(*settings.output_scales[:-1], finer))

    monkeypatch.setattr(backend, "derive_settings", fine)
    with pytest.raises(ChunkingError, match=r"chunk-000 .*: \S+, which it gives, has scale 41"):
        derived(mixed(), multiplier=1)


CONSTANTS = [4.0, 0.25, 0.1, 1024.0]
SCALAR = sorted({"Add", "Sub", "Mul", "Div", "Max", "Min"} & SUPPORTED)
PLAIN = sorted(
    {"Abs", "Neg", "Relu", "Sigmoid", "Exp", "Erf", "Tanh", "Sqrt", "Softmax", "LeakyRelu"}
    & SUPPORTED
)
REDUCING = sorted({"ReduceSum", "ReduceMean", "ReduceMax"} & SUPPORTED)


def tail_scale(
    nodes: list[onnx.NodeProto],
    constants: list[onnx.TensorProto],
    out: list[int],
    folder: Path,
    shape: list[int],
) -> int:
    """ezkl's scale of y, the tensor itself being the circuit's output."""
    proto = build(nodes, {"x": shape}, {"y": out}, constants)
    graph = normalised_graph(parse_model(proto.SerializeToString(), "tail.onnx"), {})
    path = folder / "tail.onnx"
    onnx.save(graph.proto, path)
    (scale,) = backend.derive_settings(path, fixed_arguments(SCALE)).output_scales
    return scale


def scalar(value: float) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array([value], dtype=np.float32), "k")


@pytest.mark.parametrize("value", CONSTANTS)
@pytest.mark.parametrize("op_type", SCALAR)
def test_no_constant_brings_a_tensor_below_the_input_scale(
    op_type: str, value: float, tmp_path: Path
) -> None:
    node = helper.make_node(op_type, ["x", "k"], ["y"], "tail")
    assert tail_scale([node], [scalar(value)], [1, 4], tmp_path, [1, 4]) >= SCALE


@pytest.mark.parametrize("op_type", PLAIN)
def test_no_operator_brings_a_tensor_below_the_input_scale(op_type: str, tmp_path: Path) -> None:
    node = helper.make_node(op_type, ["x"], ["y"], "tail")
    assert tail_scale([node], [], [1, 4], tmp_path, [1, 4]) >= SCALE


@pytest.mark.parametrize("op_type", REDUCING)
def test_no_reduction_brings_a_tensor_below_the_input_scale(op_type: str, tmp_path: Path) -> None:
    axes = numpy_helper.from_array(np.array([1], dtype=np.int64), "axes")
    # Only ReduceSum takes its axes as an input in opset 17; normalisation brings all to that form.
    takes_input = op_type == "ReduceSum"
    node = helper.make_node(
        op_type,
        ["x", "axes"] if takes_input else ["x"],
        ["y"],
        "tail",
        **({} if takes_input else {"axes": [1]}),
    )
    assert tail_scale([node], [axes] if takes_input else [], [1, 1], tmp_path, [1, 4]) >= SCALE


@pytest.mark.parametrize("whole_numbers", [True, False])
@pytest.mark.parametrize("op_type", ["MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum"])
def test_no_weights_bring_a_tensor_below_the_input_scale(
    op_type: str, whole_numbers: bool, tmp_path: Path
) -> None:
    windowed = op_type.startswith("Conv")
    values = numpy_helper.to_array(weight("k", *([2, 2, 1, 1] if windowed else [4, 4])))
    values = np.round(values * 4).astype(np.float32) if whole_numbers else values
    shape = [1, 2, 3, 3] if windowed else [1, 4]
    extra: dict[str, object] = {"equation": "ij,jk->ik"} if op_type == "Einsum" else {}
    if op_type == "ConvTranspose":
        extra = {"kernel_shape": [1, 1], "strides": [1, 1], "pads": [0, 0, 0, 0]}
    node = helper.make_node(op_type, ["x", "k"], ["y"], "tail", **extra)
    constant = numpy_helper.from_array(values, "k")
    assert tail_scale([node], [constant], shape, tmp_path, shape) >= SCALE


@pytest.mark.parametrize("op_type", ["AveragePool", "GlobalAveragePool", "MaxPool"])
def test_no_pooling_brings_a_tensor_below_the_input_scale(op_type: str, tmp_path: Path) -> None:
    extra = {} if op_type.startswith("Global") else {"kernel_shape": [2, 2], "strides": [2, 2]}
    out = [1, 2, 1, 1] if op_type.startswith("Global") else [1, 2, 2, 2]
    node = helper.make_node(op_type, ["x"], ["y"], "tail", **extra)
    assert tail_scale([node], [], out, tmp_path, [1, 2, 4, 4]) >= SCALE
