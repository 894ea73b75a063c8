"""Overflow: an activation outside the packed range must never become part of a linked run.

What an attacker gains without the guard: packing is sum(e_i * 2^(30 i)), so (2^30, 0) and (0, 1)
pack to the same field element and have the same leaf hash. A producer whose outgoing tensor is not
range-checked could compute the first while its consumer reads the second: the commitments agree,
the activation does not. The first tests show that collision for real, on a circuit whose guard was
cut out and on one whose value bounds were computed wrongly; the others show that every way to the
prover refuses it.

Where the analysis of `chunking/bounds.py` leaves the guard out for good reason, x + |x|, elements
reach twice the range check's bound. The last tests show that this is the limit, and that packing is
still injective there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from zkml_ray import PlanOptions, prove_distributed
from zkml_ray.chunking import extract
from zkml_ray.chunking.load import load_model
from zkml_ray.circuits import backend
from zkml_ray.circuits.derive import DerivedCircuits
from zkml_ray.commitments.field import canonical, to_signed
from zkml_ray.commitments.leaves import draw_salts, hash_leaves, pack_leaves
from zkml_ray.errors import RangeExceededError
from zkml_ray.schema.plan import CircuitArguments
from zkml_ray.stages.plan import plan
from zkml_ray.stores import open_store
from zkml_ray.stores.layout import stored_runs

SCALE = 10
STRIDE = 1 << 30


def overflowing(*, relu: bool) -> onnx.ModelProto:
    """x of two elements -> [2^20 x0, x1] -> a second layer; 2^20 at scale 10 is 2^30."""
    first = np.array([[2.0**20, 0], [0, 1]], dtype=np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w0"], ["a"], "fc0")]
    if relu:
        nodes.append(helper.make_node("Relu", ["a"], ["h"], "relu0"))
    nodes.append(helper.make_node("MatMul", ["h" if relu else "a", "w1"], ["y"], "fc1"))
    graph = helper.make_graph(
        nodes,
        "overflowing",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [
            numpy_helper.from_array(first, "w0"),
            numpy_helper.from_array(np.eye(2, dtype=np.float32) / 1024, "w1"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def planned(tmp_path: Path, *, relu: bool) -> DerivedCircuits:
    path = tmp_path / "overflowing.onnx"
    onnx.save(overflowing(relu=relu), path)
    return plan(
        load_model(path), PlanOptions(scale=SCALE, layers_per_chunk=1, passes=(), circuits="native")
    )


def without_guard(model: onnx.ModelProto, boundary: int) -> onnx.ModelProto:
    guarded = f"zkml_ray/boundary_{boundary}/guarded"
    magnitude = f"zkml_ray/boundary_{boundary}/magnitude"
    source = next(node.input[0] for node in model.graph.node if magnitude in node.output)
    cut = [n for n in model.graph.node if guarded in n.output or magnitude in [*n.input, *n.output]]
    assert len(cut) == 3
    for node in cut:
        model.graph.node.remove(node)
    for node in model.graph.node:
        node.input[:] = [source if name == guarded else name for name in node.input]
    return model


def first_chunk_witness(
    data: bytes, arguments: CircuitArguments, tensors: list[list[int]], folder: Path
) -> backend.CircuitWitness:
    path = folder / "chunk-000.onnx"
    path.write_bytes(data)
    (folder / "settings").write_bytes(backend.derive_settings(path, arguments).data)
    backend.compile_circuit(path, folder / "settings", folder / "circuit")
    return backend.generate_witness("chunk-000", tensors, folder / "circuit", folder / "witness")


def attack_tensors(circuits: DerivedCircuits) -> tuple[list[list[int]], list[int]]:
    """x = (1, 0) at scale 10, then the salts of both boundaries."""
    layouts = [boundary.layout.layout() for boundary in circuits.plan.boundaries[:2]]
    salts = [draw_salts(layout, seed=b"attack", label="x") for layout in layouts]
    return [[1 << SCALE, 0], *salts], salts[1]


def test_packing_collides_on_a_circuit_whose_guard_was_cut_out(tmp_path: Path) -> None:
    circuits = planned(tmp_path, relu=False)
    chunk = circuits.plan.chunks[0]
    tensors, salts = attack_tensors(circuits)
    model = without_guard(onnx.load_model_from_string(circuits.files[chunk.id].onnx), 1)
    witness = first_chunk_witness(model.SerializeToString(), chunk.arguments, tensors, tmp_path)
    layout = circuits.plan.boundary("a").layout.layout()
    lie = pack_leaves([0, 1], salts, layout)
    assert witness.outputs[1] == [canonical(v) for v in lie[0]]
    assert witness.hashes[1] == hash_leaves(lie)[0]


@pytest.mark.parametrize("relu", [False, True])
def test_overflow_fails_at_witness_time_in_the_planned_circuit(tmp_path: Path, relu: bool) -> None:
    circuits = planned(tmp_path, relu=relu)
    chunk = circuits.plan.chunks[0]
    tensors, _ = attack_tensors(circuits)
    with pytest.raises(RangeExceededError, match="chunk-000"):
        first_chunk_witness(circuits.files[chunk.id].onnx, chunk.arguments, tensors, tmp_path)


@pytest.mark.ray
@pytest.mark.parametrize("relu", [False, True])
def test_overflow_never_yields_a_run(ray_cluster: None, tmp_path: Path, relu: bool) -> None:
    path = tmp_path / "overflowing.onnx"
    onnx.save(overflowing(relu=relu), path)
    with pytest.raises(RangeExceededError, match="range"):
        prove_distributed(
            path,
            workers=1,
            inputs=np.array([[1.0, 0.0]], dtype=np.float32),
            store=tmp_path / "store",
            options=PlanOptions(scale=SCALE, layers_per_chunk=1, circuits="native"),
        )
    assert list(stored_runs(open_store(str(tmp_path / "store")), "default")) == []


def guard_holds(value: int, circuits: DerivedCircuits, folder: Path) -> Callable[[], object]:
    tensors, _ = attack_tensors(circuits)
    tensors[0] = [value, 0]
    chunk = circuits.plan.chunks[0]
    return lambda: first_chunk_witness(
        circuits.files[chunk.id].onnx, chunk.arguments, tensors, folder
    )


def test_guard_admits_the_largest_value_and_refuses_the_next(tmp_path: Path) -> None:
    circuits = planned(tmp_path, relu=False)
    bound = circuits.plan.boundary("a").layout.layout().packing.element_bound
    # x0 is multiplied by 2^20: the largest admitted x0 is 255 = floor((2^28 - 1) / 2^20).
    assert bound == (1 << 28) - 1
    guard_holds(255, circuits, tmp_path)()
    guard_holds(-255, circuits, tmp_path)()
    for value in (256, -256):
        with pytest.raises(RangeExceededError):
            guard_holds(value, circuits, tmp_path)()


def test_packing_collides_where_value_bounds_are_claimed_wrongly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(
        nodes: Sequence[onnx.NodeProto], _constants: object, inputs: object, largest: int
    ) -> dict[str, int]:
        return {name: largest for node in nodes for name in [*node.input, *node.output]}

    monkeypatch.setattr(extract, "value_bounds", wrong)
    # Plans are kept on this machine: the honest one is not to be found, this one not to be left.
    monkeypatch.setenv("ZKML_RAY_CACHE", str(tmp_path / "cache"))
    circuits = planned(tmp_path, relu=False)
    chunk = circuits.plan.chunks[0]
    tensors, salts = attack_tensors(circuits)
    witness = first_chunk_witness(circuits.files[chunk.id].onnx, chunk.arguments, tensors, tmp_path)
    lie = pack_leaves([0, 1], salts, circuits.plan.boundary("a").layout.layout())
    assert witness.hashes[1] == hash_leaves(lie)[0]


def relu_by_magnitude() -> onnx.ModelProto:
    """x -> z = [2^20 x0, x1] -> z / 2 + |z| / 2 -> a second layer."""
    model = overflowing(relu=True)
    factor = numpy_helper.from_array(np.float32(0.5), "half")
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    position = list(model.graph.node).index(relu)
    model.graph.node.remove(relu)
    for offset, node in enumerate(
        [
            helper.make_node("Abs", ["a"], ["m"], "abs"),
            helper.make_node("Mul", ["a", "half"], ["ah"], "left"),
            helper.make_node("Mul", ["m", "half"], ["mh"], "right"),
            helper.make_node("Add", ["ah", "mh"], ["h"], "sum"),
        ]
    ):
        model.graph.node.insert(position + offset, node)
    model.graph.initializer.append(factor)
    return model


@pytest.mark.parametrize("multiplier", [1, 2])
def test_sum_with_magnitude_is_unguarded_and_ends_where_packing_is_still_injective(
    tmp_path: Path, multiplier: int
) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(relu_by_magnitude(), path)
    circuits = plan(
        load_model(path), PlanOptions(scale=SCALE, layers_per_chunk=1, passes=(), circuits="native")
    )
    chunk = circuits.plan.chunks[0]
    data = circuits.files[chunk.id].onnx
    names = {name for node in onnx.load_model_from_string(data).graph.node for name in node.output}
    assert "zkml_ray/boundary_1/guarded" not in names
    arguments = chunk.arguments.model_copy(update={"scale_rebase_multiplier": multiplier})
    tensors, _ = attack_tensors(circuits)
    packing = circuits.plan.boundary("h").layout.layout().packing
    tensors[0] = [255, 0]
    witness = first_chunk_witness(data, arguments, tensors, tmp_path)
    # Not rebased (multiplier 2), the sum is 2 z and lies beyond the range check's bound.
    element = (to_signed(witness.outputs[1][0]) + STRIDE // 2) % STRIDE - STRIDE // 2
    assert element == 255 * multiplier << 20
    assert element <= packing.injective_bound
    assert (element > packing.element_bound) == (multiplier == 2)
    tensors[0] = [256, 0]
    with pytest.raises(RangeExceededError):
        first_chunk_witness(data, arguments, tensors, tmp_path)
