"""Freivalds' argument in ezkl 23.0.5 proves nothing: a forged proof, and the setting that stops it.

The attack needs nothing but ezkl itself. A constant Gather costs no cell. So the circuit that
permutes a product's rows before adding to them has the layout of the one that does not, and a
prover can hand the honest proving key a witness of the other circuit. Where a product's result is
tied by copy constraints to the cells that the addition reads, the proof fails to verify. ezkl's
`einsum` (src/circuit/ops/layouts.rs) returns bare values wherever the circuit has Freivalds
columns, those of the digits' recomposition in range checks included: there the wrong output
verifies under the honest key (docs/adr/0013).
"""

from __future__ import annotations

import json
from pathlib import Path

import ezkl
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from zkml_ray.circuits import backend
from zkml_ray.schema.plan import CircuitArguments
from zkml_ray.schema.proof import ChunkProof

LOGROWS = 11


def product_model(*, permuted: bool) -> onnx.ModelProto:
    """x [3, 4] @ w [4, 5], its rows permuted or not, + b."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"], "product")]
    weights = [
        numpy_helper.from_array(np.arange(-10, 10, dtype=np.float32).reshape(4, 5), "w"),
        numpy_helper.from_array(np.full((1, 5), 3, dtype=np.float32), "b"),
    ]
    if permuted:
        nodes.append(helper.make_node("Gather", ["a", "order"], ["g"], "permute", axis=0))
        weights.append(numpy_helper.from_array(np.array([2, 0, 1], dtype=np.int64), "order"))
    nodes.append(helper.make_node("Add", ["g" if permuted else "a", "b"], ["y"], "sum"))
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 5])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def forged_proof_verifies(folder: Path, srs: Path, *, disable_freivalds: bool | None) -> bool:
    """Prove the permuted product with the honest key; None leaves the backend's own setting."""
    args = backend.run_args(
        CircuitArguments(
            input_scale=4,
            param_scale=4,
            decomp_base=128,
            decomp_legs=2,
            num_inner_cols=2,
            logrows=LOGROWS,
        )
    )
    args.input_visibility = args.output_visibility = "public"
    if disable_freivalds is not None:
        args.disable_freivalds = disable_freivalds
    for name in ("honest", "forged"):
        onnx.save(product_model(permuted=name == "forged"), folder / f"{name}.onnx")
    settings = folder / "settings"
    settings.write_bytes(backend.settings_for(folder / "honest.onnx", args).data)
    for name in ("honest", "forged"):
        backend.compile_circuit(folder / f"{name}.onnx", settings, folder / f"{name}.circuit")
    vk, pk = folder / "vk", folder / "pk"
    backend.setup_keys(folder / "honest.circuit", srs, vk, pk)
    data = folder / "input.json"
    data.write_text(json.dumps({"input_data": [(np.arange(12) / 4).tolist()]}))
    verdicts = []
    for name in ("honest", "forged"):
        circuit, witness = folder / f"{name}.circuit", folder / f"{name}.witness"
        ezkl.gen_witness(str(data), str(circuit), str(witness))
        proof = backend.prove(name, witness, circuit, pk, srs)
        verdicts.append((proof, backend.verify_proof(proof, settings, vk, srs)))
    (honest, accepted), (forged, verdict) = verdicts
    assert accepted
    assert _outputs(honest) != _outputs(forged)
    return verdict


def _outputs(proof: ChunkProof) -> tuple[int, ...]:
    return tuple(proof.instances[-15:])


@pytest.fixture(scope="module")
def srs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("srs") / "srs"
    backend.generate_insecure_srs(path, LOGROWS)
    return path


def test_forged_product_verifies_under_the_honest_key_with_freivalds(
    tmp_path: Path, srs: Path
) -> None:
    assert forged_proof_verifies(tmp_path, srs, disable_freivalds=False)


def test_forged_product_is_refused_with_the_backends_settings(tmp_path: Path, srs: Path) -> None:
    assert not forged_proof_verifies(tmp_path, srs, disable_freivalds=None)
