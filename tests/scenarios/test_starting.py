"""Workers whose Ray is still starting: chunks wait for it, and it ends with whoever started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.command import run_process
from zkml_ray.chunking.load import load_model
from zkml_ray.cluster.pool import Assigned, GivenUp, WorkerPool
from zkml_ray.cluster.session import ClusterError
from zkml_ray.cluster.starting import StartingPool
from zkml_ray.errors import StageError
from zkml_ray.schema.artifact import ArtifactRef
from zkml_ray.stages.plan import PlanOptions, plan
from zkml_ray.stages.setup import SetupJob
from zkml_ray.stores import open_store
from zkml_ray.stores.layout import RunLayout
from zkml_ray.verifying.openings import read_manifest

pytestmark = pytest.mark.ray

WAIT_S = 60.0

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="finds processes by /proc"
)


@pytest.fixture(scope="module")
def job(models: Path) -> SetupJob:
    """A chunk whose objects no store has."""
    made = plan(load_model(models / "mlp.onnx"), PlanOptions(scale=8, layers_per_chunk=1)).plan
    missing = ArtifactRef(key="nowhere", sha256="0" * 64, size_bytes=1)
    return SetupJob(
        project="p",
        run_id="r",
        chunk=made.chunks[0],
        onnx=missing,
        settings=missing,
        srs=missing,
    )


def test_chunks_wait_for_workers_that_are_still_starting(
    ray_cluster: None, tmp_path: Path, job: SetupJob
) -> None:
    ready = threading.Event()
    up, ended = threading.Event(), threading.Event()

    def start() -> WorkerPool:
        ready.wait(WAIT_S)
        return WorkerPool(workers=1, cpus=1, store_url=str(tmp_path))

    pool = StartingPool(start, up.set, ended.set)
    try:
        pool.submit(job)
        assert pool.poll(0) == []
        assert pool.busy
        assert not up.is_set()
        ready.set()
        events = []
        while pool.busy:
            events += pool.poll(WAIT_S)
    finally:
        pool.close()
    assert up.is_set() and ended.is_set()
    assert [event.attempt for event in events if isinstance(event, Assigned)] == [1, 2, 3]
    (given_up,) = [event for event in events if isinstance(event, GivenUp)]
    assert isinstance(given_up.error, StageError)
    assert "failed 3 times" in given_up.error.message


def test_ray_that_does_not_start_is_told_to_who_polls_and_is_ended(job: SetupJob) -> None:
    ended = threading.Event()

    def start() -> WorkerPool:
        raise ClusterError("Ray cannot be used on this machine: no room")

    pool = StartingPool(start, lambda: None, ended.set)
    pool.submit(job)
    with pytest.raises(ClusterError, match="no room"):
        pool.poll(WAIT_S)
    pool.close()
    assert ended.is_set()


@pytest.mark.parametrize("given", [(), ("--threads", "1")], ids=["share", "asked"])
def test_workers_of_a_private_cluster_may_use_every_core_unless_told(
    models: Path, tmp_path: Path, given: tuple[str, ...]
) -> None:
    arguments = [models / "mlp.onnx", "--store", tmp_path, "--scale", "8", "--run", "one"]
    done = run_process("prove", *arguments, "--layers-per-chunk", "1", *given)
    assert done.code == 0, done.stderr
    manifest = read_manifest(open_store(str(tmp_path)), RunLayout("default", "one"))
    threads = 1 if given else os.cpu_count()
    assert {chunk.threads for chunk in manifest.chunks} == {threads}


@needs_proc
def test_a_run_that_is_terminated_leaves_no_ray_behind(digits: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "zkml_ray.command_line.cli",
        "prove",
        str(digits / "digits.onnx"),
    ]
    command += ["--store", str(tmp_path / "store"), "--scale", "8"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    with _killed_at_the_end(process):
        deadline = time.monotonic() + WAIT_S
        while not _named(b"ray::", _below(process.pid)) and time.monotonic() < deadline:
            time.sleep(0.05)
        started = _below(process.pid)
        assert _named(b"ray::", started), "no worker came up"
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 128 + signal.SIGTERM
        deadline = time.monotonic() + 10
        while _named(b"ray", started) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not _named(b"ray", started)


@contextmanager
def _killed_at_the_end(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _below(root: int) -> set[int]:
    """Processes that descend from one."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found = {root}
    while grown := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= grown
    return found - {root}


def _named(word: bytes, among: set[int]) -> list[int]:
    """Those of some processes that live and have a word in their command line."""
    found = []
    for pid in among:
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if word in line:
            found.append(pid)
    return found
