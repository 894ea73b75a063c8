"""A run under a memory budget: cut by the search, proved, verified, and within the budget."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from zkml_ray import names, prove_distributed, verify
from zkml_ray.schema.forecast import Forecast
from zkml_ray.stages.plan import PlanOptions

pytestmark = pytest.mark.ray

BUDGET_BYTES = 180 << 20


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dense layer that alone would need more than the budget."""
    generator = np.random.default_rng(5)

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
        [weight("w", 96, 96), weight("b", 96), weight("v", 96, 4)],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = tmp_path_factory.mktemp("wide") / "wide.onnx"
    onnx.save(proto, path)
    return path


def test_split_model_is_proved_within_the_budget_and_verified_from_the_model(
    ray_cluster: None, model: Path, tmp_path: Path
) -> None:
    options = PlanOptions(memory_bytes=BUDGET_BYTES, workers=2, circuits="native")
    run = prove_distributed(
        model, workers=2, threads=1, store=tmp_path, run_id="tight", options=options
    )
    assert run.verified
    assert [step.name for step in run.plan.rewrites].count("split-output") == 1
    stored = (tmp_path / "projects/default/runs/tight" / names.FORECAST).read_bytes()
    forecast = Forecast.parse(stored, what="forecast")
    assert forecast.plan_sha256 == run.plan.digest()
    assert max(chunk.peak_bytes for chunk in forecast.chunks) <= BUDGET_BYTES
    assert max(record.peak_rss_bytes for record in run.manifest.chunks) <= BUDGET_BYTES
    np.testing.assert_allclose(run.outputs["y"], run.float_outputs["y"], atol=0.05)
    verdict = verify("tight", store=tmp_path, model=model, allow_insecure_srs=True)
    assert verdict.plan_digest == run.plan_digest
