"""A machine is lost while it proves: its chunk loses no attempt, and the run ends on another."""

from __future__ import annotations

import contextlib
import json
import re
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.scenarios.raylets import Command, provers, proving, raylets
from zkml_ray import verify

pytestmark = pytest.mark.ray

WAIT_S = 120.0


def prover_of(node: Any, run: Command) -> psutil.Process:
    """A worker of a node that proves, stopped so that it will not end before its machine does."""
    (raylet,) = node.all_processes["raylet"]
    until_s = time.monotonic() + WAIT_S
    while time.monotonic() < until_s and run.process.poll() is None:
        for process in provers():
            with contextlib.suppress(psutil.Error):
                if process.ppid() == raylet.process.pid:
                    process.suspend()
                    return process
        time.sleep(0.002)
    raise AssertionError(f"nobody proves there\n{run.text}")


def lose(times: int, model: Path, store: Path) -> tuple[int, str]:
    """Lose the only machine that proves, so often; most attempts of a chunk, and what was said."""
    with raylets(0) as cluster:
        node = cluster.add(1)
        with proving(cluster, model, store, "--workers", 1, "--json") as run:
            for _ in range(times):
                prover = prover_of(node, run)
                following = cluster.add(1)
                cluster.kill(node)
                prover.kill()
                node = following
            assert run.end() == 0, run.text
    manifest = json.loads(run.output)["manifest"]
    assert verify("run", store=store, model=model, allow_insecure_srs=True).ok
    return max(chunk["attempts"] for chunk in manifest["chunks"]), run.text


def test_lost_machine_is_told_as_its_chunks_cause_and_the_run_ends_verified(
    models: Path, tmp_path: Path
) -> None:
    attempts, said = lose(1, models / "mlp.onnx", tmp_path / "store")
    assert attempts == 2
    assert re.search(r"note \(machine lost\): worker-0's machine .* was lost; chunk-00\d is", said)
    assert set(re.findall(r"note \(([^)]*)\)", said)) <= {"machine lost", "capacity"}


@pytest.mark.slow
def test_more_lost_machines_than_a_chunk_has_attempts_use_up_none(
    models: Path, tmp_path: Path
) -> None:
    attempts, said = lose(4, models / "mlp.onnx", tmp_path / "store")
    lost = re.findall(r"note \(machine lost\): worker-\d's machine", said)
    print(f"{len(lost)} of 4 machines lost while they had a chunk; most attempts {attempts}")
    assert len(lost) == 4
    assert "failed" not in said
