"""Small factors in a native circuit: planned, derived again, proved, verified, near the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import numpy_helper

from tests.unit.chunking.builders import integers, model, run
from tests.zoo.operators import node, scalar
from zkml_ray.chunking.load import parse_model
from zkml_ray.circuits import backend
from zkml_ray.circuits.derive import rederive_circuits
from zkml_ray.circuits.keycache import KeyCache
from zkml_ray.commitments.leaves import draw_salts
from zkml_ray.stages.accuracy import real_values
from zkml_ray.stages.inputs import quantise
from zkml_ray.stages.plan import PlanOptions, plan
from zkml_ray.stages.witness import BoundaryValues, forward

SEED = b"factors"


def test_an_average_times_small_factors_is_proved_as_onnx_computes_it(tmp_path: Path) -> None:
    """ezkl alone gives 0 for the second output, and the first is a third off."""
    nodes = [
        node("GlobalAveragePool", "x", to="mean"),
        node("Reshape", "mean", "shape", to="row"),
        node("Mul", "row", "factors", to="small"),
        node("LeakyRelu", "small", to="bent", alpha=0.01),
        node("Div", "bent", "divisor"),
    ]
    constants = [
        integers("shape", 1, 2),
        numpy_helper.from_array(np.array([0.3, 0.0004], dtype=np.float32), "factors"),
        scalar("divisor", 0.02),
    ]
    proto = model(nodes, {"x": [1, 2, 7, 7]}, {"y": [1, 2]}, constants)
    loaded = parse_model(proto.SerializeToString(), "factors.onnx")
    circuits = plan(loaded, PlanOptions(circuits="native", layers_per_chunk=100))
    assert rederive_circuits(loaded, circuits.plan).plan == circuits.plan
    (chunk,) = circuits.plan.chunks
    boundaries = {boundary.name: boundary for boundary in circuits.plan.boundaries}

    def salts(name: str) -> list[int]:
        return draw_salts(boundaries[name].layout.layout(), seed=SEED, label=name)

    values = np.random.default_rng(0).uniform(0, 90, size=(1, 2, 7, 7)).astype(np.float32)
    packing = boundaries["x"].layout.layout().packing
    source = BoundaryValues(
        values=quantise("x", values, boundaries["x"].scale, packing), salts=salts("x")
    )
    files = circuits.files[chunk.id]
    circuit = KeyCache(tmp_path / "cache").circuit(files.onnx, files.settings)
    witness = tmp_path / "witness.json"
    made = forward(chunk, boundaries, circuit, {"x": source}, {"y": salts("y")}, witness)
    got = real_values(boundaries["y"], made.outgoing["y"].values)
    want = run(proto, {"x": values})["y"]
    assert np.abs(got - want).max() < 0.05
    assert np.abs(want).min() > 0.5

    srs, settings = tmp_path / "srs", tmp_path / "settings"
    vk, pk = tmp_path / "vk", tmp_path / "pk"
    backend.generate_insecure_srs(srs, chunk.arguments.logrows)
    settings.write_bytes(files.settings)
    backend.setup_keys(circuit.compiled, srs, vk, pk)
    proof = backend.prove(chunk.id, witness, circuit.compiled, pk, srs)
    assert backend.verify_proof(proof, settings, vk, srs)
