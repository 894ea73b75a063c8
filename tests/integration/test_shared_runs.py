"""The main job, on real proofs."""

from __future__ import annotations

import numpy as np
import pytest

from zkml_ray import verify
from zkml_ray.api import Run

pytestmark = pytest.mark.ray


@pytest.mark.parametrize("fixture", ["mlp_run", "residual_run", "digits_run"])
def test_run_outputs_are_close_to_the_float_model(
    fixture: str, request: pytest.FixtureRequest
) -> None:
    run: Run = request.getfixturevalue(fixture)
    assert run.verified
    for name, values in run.outputs.items():
        np.testing.assert_allclose(values, run.float_outputs[name], atol=0.05)


@pytest.mark.parametrize(
    ("fixture", "model"), [("mlp_run", "mlp.onnx"), ("residual_run", "residual.onnx")]
)
def test_verify_from_the_model_alone_accepts(
    fixture: str, model: str, request: pytest.FixtureRequest, models: object
) -> None:
    run: Run = request.getfixturevalue(fixture)
    verdict = verify(
        run.run_id,
        store=run.store,
        project=run.project,
        model=f"{models}/{model}",
        allow_insecure_srs=True,
    )
    assert verdict.ok
    assert verdict.plan_digest == run.plan_digest
