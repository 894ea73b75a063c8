"""A worker's process is stopped: it is noticed from outside, and a late answer changes nothing."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.scenarios.raylets import Command, command, provers, proving, raylets
from zkml_ray import verify

pytestmark = pytest.mark.ray

NOTICED_S = 60.0
"""Far below the shortest deadline of an attempt, which is 900 s."""


def stop_one(run: Command, below: int | None = None) -> psutil.Process:
    """SIGSTOP a worker that proves."""
    until_s = time.monotonic() + NOTICED_S
    while time.monotonic() < until_s:
        for process in provers(below):
            with contextlib.suppress(psutil.Error):
                process.suspend()
                return process
        time.sleep(0.002)
    raise AssertionError(f"nobody proves\n{run.text}")


def ends_all_the_same(run: Command, stopped: psutil.Process, model: Path, store: Path) -> None:
    noticed = run.wait_for(r"note \(worker stopped\): (worker-\d+)'s process has been stopped")
    with contextlib.suppress(psutil.Error):
        stopped.send_signal(signal.SIGCONT)
    assert run.end() == 0, run.text
    manifest = json.loads(run.output)["manifest"]
    assert noticed[1] not in {chunk["worker"] for chunk in manifest["chunks"]} or any(
        chunk["attempts"] == 1 and chunk["worker"] == noticed[1] for chunk in manifest["chunks"]
    )
    assert verify("run", store=store, model=model, allow_insecure_srs=True).ok


def test_stopped_worker_of_a_private_cluster_is_replaced_within_a_minute(
    models: Path, tmp_path: Path
) -> None:
    model, store = models / "mlp.onnx", tmp_path / "store"
    given = ["--store", store, "--run", "run", "--scale", "8", "--layers-per-chunk", "1", "--json"]
    with command("prove", model, *given, "--workers", "1") as run:
        run.wait_for("proving on worker-0")
        stopped = stop_one(run, run.process.pid)
        at_s = time.monotonic()
        run.wait_for(r"note \(worker stopped\)")
        assert time.monotonic() - at_s < NOTICED_S
        ends_all_the_same(run, stopped, model, store)


@pytest.mark.slow
def test_stopped_worker_of_another_node_is_replaced(models: Path, tmp_path: Path) -> None:
    model, store = models / "mlp.onnx", tmp_path / "store"
    with raylets(0, 1) as cluster, proving(cluster, model, store, "--workers", 1, "--json") as run:
        run.wait_for("proving on worker-0")
        ends_all_the_same(run, stop_one(run), model, store)
