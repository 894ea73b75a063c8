"""One node's set-up is wrong: it ends no run while another is well, and is named where none is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.scenarios.raylets import proving, raylets

pytestmark = [pytest.mark.ray, pytest.mark.slow]

WRONG = {"ZKML_RAY_CACHE_MAX_BYTES": "plenty"}


def test_run_goes_on_without_a_node_whose_configuration_is_wrong(
    models: Path, tmp_path: Path
) -> None:
    with raylets(1) as cluster:
        cluster.add(1, **WRONG)
        model = models / "residual.onnx"
        with proving(cluster, model, tmp_path, "--workers", 2, "--json") as run:
            assert run.end() == 0, run.text
    assert "note (configuration): worker-" in run.text
    assert "ZKML_RAY_CACHE_MAX_BYTES is 'plenty'" in run.text
    chunks = json.loads(run.output)["manifest"]["chunks"]
    assert len({chunk["worker"] for chunk in chunks}) == 1


def test_wrong_configuration_of_every_node_stops_at_once_with_its_own_text(
    models: Path, tmp_path: Path
) -> None:
    with raylets(0) as cluster:
        for _ in range(2):
            cluster.add(1, **WRONG)
        with proving(cluster, models / "mlp.onnx", tmp_path, "--workers", 2) as run:
            assert run.end() == 2, run.text
    (error,) = [line for line in run.lines if line.startswith("error:")]
    assert error.startswith("error: ZKML_RAY_CACHE_MAX_BYTES is 'plenty'")
    assert "memory" not in error
