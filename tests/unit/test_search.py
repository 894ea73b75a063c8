"""Planning under a budget: predictions keep within it, nothing is lost, nothing is random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests import zoo
from zkml_ray.chunking.choose import default_rewrites
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.hinted.forms import NotHintedError
from zkml_ray.chunking.load import LoadedModel, load_model, parse_model
from zkml_ray.chunking.passes.forms import is_lowered
from zkml_ray.chunking.rewrite import Rewrite, apply_rewrites
from zkml_ray.circuits.derive import DerivedCircuits, normalised_graph, rederive_circuits
from zkml_ray.cost.model import CostModel
from zkml_ray.cost.profiles import shipped_profile
from zkml_ray.errors import ChunkingError
from zkml_ray.schema.forecast import Forecast
from zkml_ray.schema.plan import CommitmentArguments
from zkml_ray.stages.estimate import Estimator
from zkml_ray.stages.plan import PlanOptions, plan

MIB = 1 << 20
PROFILE = shipped_profile()


def wide(width: int = 96) -> LoadedModel:
    """A dense layer that is much dearer than what surrounds it."""
    generator = np.random.default_rng(3)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        values = generator.normal(size=shape) / np.sqrt(shape[0])
        return numpy_helper.from_array(values.astype(np.float32), name)

    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["a"], "wide"),
        helper.make_node("Relu", ["a"], ["h"], "relu"),
        helper.make_node("MatMul", ["h", "v"], ["y"], "last"),
    ]
    graph = helper.make_graph(
        nodes,
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 96])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [weight("w", 96, width), weight("b", width), weight("v", width, 4)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return parse_model(model.SerializeToString(), "wide.onnx")


def of_zoo(name: str) -> LoadedModel:
    return parse_model(zoo.MODELS[name]().SerializeToString(), f"{name}.onnx")


def planned(model: LoadedModel, **options: Any) -> tuple[DerivedCircuits, Forecast]:
    circuits = plan(model, PlanOptions(**{"circuits": "native", **options}), PROFILE)
    return circuits, CostModel(profile=PROFILE).forecast(circuits)


def peak(forecast: Forecast) -> int:
    return max(chunk.peak_bytes for chunk in forecast.chunks)


@pytest.mark.parametrize("mib", [400, 300, 200])
def test_halved_memory_is_kept_within_by_every_chunk(mib: int) -> None:
    circuits, forecast = planned(wide(), memory_bytes=mib * MIB)
    assert peak(forecast) <= mib * MIB
    graph = normalised_graph(wide(), {})
    kept = [node for chunk in circuits.plan.chunks for node in chunk.nodes]
    assert len(kept) == len(set(kept))
    if not circuits.plan.rewrites:
        assert sorted(kept) == sorted(graph.nodes)


def test_wide_operator_is_split_until_it_fits_and_the_plan_is_derived_again() -> None:
    model = wide()
    loose, _ = planned(model)
    tight, forecast = planned(model, memory_bytes=180 * MIB)
    assert not [step for step in loose.plan.rewrites if step.name == "split-output"]
    assert [step for step in tight.plan.rewrites if step.name == "split-output"]
    assert len(tight.plan.chunks) > len(loose.plan.chunks)
    assert peak(forecast) <= 180 * MIB
    assert rederive_circuits(model, tight.plan).plan == tight.plan


def test_memory_below_the_smallest_circuit_is_refused_with_what_is_needed() -> None:
    with pytest.raises(ChunkingError, match=r"72 MiB, but the smallest circuit needs about \d+"):
        planned(of_zoo("mlp"), memory_bytes=80 * MIB)


def test_operator_that_cannot_be_split_is_named_with_its_need() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"], "wide_relu")]
    shape = [1, 2000]
    graph = helper.make_graph(
        nodes,
        "relu",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    model = parse_model(proto.SerializeToString(), "relu.onnx")
    with pytest.raises(ChunkingError, match=r"needs about [\d,]+ MiB, more than the 145 MiB"):
        planned(model, memory_bytes=160 * MIB)


def test_layers_that_need_more_than_the_memory_are_refused() -> None:
    with pytest.raises(ChunkingError, match=r"more than the 136 MiB that --memory leaves"):
        planned(wide(), memory_bytes=150 * MIB, layers_per_chunk=1)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_more_workers_never_make_the_last_proof_later(workers: int) -> None:
    _, here = planned(wide(), workers=workers)
    _, alone = planned(wide(), workers=1)
    assert here.makespan_s(workers) <= alone.makespan_s(workers) + 1e-6


@pytest.mark.parametrize("circuits", ["native", "hinted"])
@pytest.mark.parametrize("name", sorted(zoo.MODELS))
def test_searched_plan_is_the_same_again_and_for_the_verifier(
    name: str, circuits: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = of_zoo(name)
    try:
        first, _ = planned(model, circuits=circuits)
    except NotHintedError:
        return
    # Searched again: not found among the plans that this machine keeps.
    monkeypatch.setenv("ZKML_RAY_CACHE", str(tmp_path))
    again, _ = planned(model, circuits=circuits)
    assert first.plan == again.plan
    assert rederive_circuits(model, first.plan).plan == first.plan


def test_forecast_is_no_part_of_the_plan() -> None:
    circuits, forecast = planned(of_zoo("mlp"))
    dearer = PROFILE.model_copy(update={"chunk_s": 0.5, "worker_bytes": 10})
    other = CostModel(profile=dearer).forecast(circuits)
    assert other.plan_sha256 == forecast.plan_sha256 == circuits.plan.digest()
    assert other.profile_sha256 != forecast.profile_sha256
    assert b"peak_bytes" not in circuits.plan.to_bytes()


def test_no_cut_goes_through_a_tensor_that_was_made_small(models: Path) -> None:
    """A chunk rounds what it gives to the inputs' scale: 2^-16 r would lose all its digits."""
    graph = normalised_graph(load_model(models / "transformer.onnx"), {})
    rewritten = ModelGraph(
        apply_rewrites(graph.proto, default_rewrites(graph.proto, weight_bits=10))
    )
    lowered = {value for value in rewritten.producer_of if is_lowered(rewritten, value)}
    assert any("/norm/" in value for value in lowered)
    estimator = Estimator(rewritten, input_scale=10, commitment=CommitmentArguments())
    given = {value for unit in estimator.units for value in unit.makes}
    assert given & rewritten.producer_of.keys()
    assert not given & lowered


def test_verifier_derives_no_plan_whose_cut_goes_through_a_tensor_made_small(models: Path) -> None:
    """Such a cut makes a layer norm give zeros, and every digest of the plan would agree."""
    model = load_model(models / "transformer.onnx")
    honest = plan(model, PlanOptions(circuits="native", layers_per_chunk=100)).plan
    rewrites = [Rewrite(name=r.name, node=r.node, parameter=r.parameter) for r in honest.rewrites]
    graph = normalised_graph(model, {}, rewrites)
    nodes = [node for chunk in honest.chunks for node in chunk.nodes]
    small = [n for n in nodes if any(is_lowered(graph, value) for value in graph.nodes[n].output)]
    assert any("norm" in node for node in small)
    for node in small:
        split = nodes.index(node) + 1
        first, second = (
            honest.chunks[0].model_copy(update={"id": f"chunk-{n:03d}", "nodes": tuple(part)})
            for n, part in enumerate((nodes[:split], nodes[split:]))
        )
        cut = honest.model_copy(update={"chunks": (first, second)})
        with pytest.raises(ChunkingError, match="a rewrite made small"):
            rederive_circuits(model, cut)


def test_estimates_add_up_to_what_ezkl_counts(digits: Path) -> None:
    model = parse_model((digits / "digits.onnx").read_bytes(), "digits.onnx")
    graph = normalised_graph(model, {})
    options = PlanOptions(layers_per_chunk=1, passes=(), circuits="native")
    circuits = plan(model, options, PROFILE)
    estimator = Estimator(graph, input_scale=10, commitment=circuits.plan.commitment)
    assert sorted(n for unit in estimator.units for n in unit.nodes) == sorted(graph.nodes)
    costs = estimator.costs(CostModel(profile=PROFILE), None)
    assert set(costs) == {
        (start, end)
        for start in range(len(estimator.units))
        for end in range(start + 1, len(estimator.units) + 1)
    }
    whole = circuits.plan.chunks[0].nodes
    end = next(e for e in range(1, 9) if set(estimator.nodes(0, e)) == set(whole))
    exact = CostModel(profile=PROFILE).forecast(circuits).chunks[0]
    assert costs[0, end].seconds == pytest.approx(exact.prove_s, rel=0.2)
