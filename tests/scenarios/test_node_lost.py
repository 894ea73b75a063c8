"""A machine is lost while it proves: its chunk loses no attempt, and the run ends on the others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.scenarios.raylets import proving, raylets
from zkml_ray import verify

pytestmark = pytest.mark.ray


def lose_one(model: Path, store: Path, times: int) -> tuple[dict[str, int], str]:
    """Kill that many machines, each while it proves; attempts by chunk, and what was said."""
    with raylets(1) as cluster:
        others = [cluster.add(1) for _ in range(times)]
        with proving(cluster, model, store, "--workers", 1 + times, "--json") as run:
            for node in others:
                # Workers are told apart by their node in the line that says that they are lost.
                run.wait_for(r"chunk-\d+: proving on worker-")
                cluster.kill(node)
            code = run.end()
            assert code == 0, run.text
            manifest = json.loads(run.output)["manifest"]
    assert verify("run", store=store, model=model, allow_insecure_srs=True).ok
    return {chunk["chunk"]: chunk["attempts"] for chunk in manifest["chunks"]}, run.text


def test_lost_machine_is_told_as_its_chunks_cause_and_the_run_ends_verified(
    models: Path, tmp_path: Path
) -> None:
    attempts, said = lose_one(models / "mlp.onnx", tmp_path / "store", 1)
    assert "note (machine lost): the machine" in said
    assert sum(attempts.values()) <= len(attempts) + 1
    # What no chunk had is lost without a word about chunks; no other cause is ever told.
    causes = {
        line.partition("(")[2].partition(")")[0] for line in said.splitlines() if "note (" in line
    }
    assert causes <= {"machine lost", "capacity"}


@pytest.mark.slow
def test_three_lost_machines_use_up_no_chunks_attempts(models: Path, tmp_path: Path) -> None:
    _, said = lose_one(models / "residual.onnx", tmp_path / "store", 3)
    assert said.count("note (machine lost): the machine") == 3
