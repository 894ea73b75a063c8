"""A cluster that has no room for the workers, or for fewer than were asked for."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.scenarios.raylets import proving, raylets

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_what_is_needed_and_what_is_there_is_said_within_30_s_and_fewer_workers_are_used(
    models: Path, tmp_path: Path
) -> None:
    model = models / "mlp.onnx"
    with raylets(1, 2) as cluster:
        with proving(cluster, model, tmp_path / "none", "--threads", 4) as run:
            run.wait_for("plan: 3 chunks")
            from_s = time.monotonic()
            assert run.end() == 3
            assert time.monotonic() - from_s < 30
        (error,) = [line for line in run.lines if line.startswith("error:")]
        assert "there is no room for a worker: it needs 2 x 4 CPUs; the cluster has" in error
        assert "2 CPUs" in error

        # Two workers of two threads: the head has room for none of them, the other node for one.
        store = tmp_path / "fewer"
        with proving(cluster, model, store, "--threads", 2, "--workers", 2, "--json") as run:
            assert run.end() == 0, run.text
        manifest = json.loads(run.output)["manifest"]
        assert {chunk["worker"] for chunk in manifest["chunks"]} == {"worker-0"}
        assert {chunk["threads"] for chunk in manifest["chunks"]} == {2}


def test_more_workers_than_cpus_use_what_there_is_each_with_its_nodes_share(
    models: Path, tmp_path: Path
) -> None:
    with raylets(1, 2) as cluster:
        model = models / "residual.onnx"
        with proving(cluster, model, tmp_path, "--workers", 9, "--json") as run:
            assert run.end() == 0, run.text
    chunks = json.loads(run.output)["manifest"]["chunks"]
    assert {chunk["worker"] for chunk in chunks} <= {"worker-0", "worker-1", "worker-2"}
    assert {chunk["threads"] for chunk in chunks} == {1}


def test_a_node_that_joins_is_used_by_a_run_that_waits_for_room(
    models: Path, tmp_path: Path
) -> None:
    model = models / "mlp.onnx"
    with (
        raylets(0) as cluster,
        proving(cluster, model, tmp_path, "--workers", 1, "--json") as run,
    ):
        run.wait_for("plan: 3 chunks")
        cluster.add(2)
        assert run.end() == 0, run.text
    assert {c["threads"] for c in json.loads(run.output)["manifest"]["chunks"]} == {2}
