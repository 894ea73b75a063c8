"""Workers that die, fail or lie: the run ends verified, or says which chunk it failed on.

Nothing of ours is replaced but the worker itself, by an adversary: the actors are real processes,
killed by the real signal, and their proofs are real.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray import cloudpickle

from tests.integration.command import run_process
from tests.layers import prove_layers
from zkml_ray import verify
from zkml_ray.api import Run
from zkml_ray.circuits.backend import BackendError
from zkml_ray.cluster import pool
from zkml_ray.cluster.policy import Policy
from zkml_ray.cluster.worker import ChunkWorker
from zkml_ray.errors import StageError, StoreError
from zkml_ray.events import ChunkMoved, Event, Warned
from zkml_ray.run import coordinator
from zkml_ray.stages.prove import ChunkResult, ProveJob

pytestmark = pytest.mark.ray

VICTIM = "chunk-001"
POLL_S = 0.002
PROVING = b"ray::ChunkWorker.prove"

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="finds processes by /proc"
)


def proving_processes() -> list[int]:
    """Processes below this one that are proving a chunk right now."""
    parents: dict[int, int] = {}
    proving: list[int] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            stat = (entry / "stat").read_text()
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
            if (entry / "cmdline").read_bytes().startswith(PROVING):
                proving.append(int(entry.name))
    return [pid for pid in proving if _descends(pid, parents)]


def _descends(pid: int, parents: dict[int, int]) -> bool:
    while pid > 1:
        if pid == os.getpid():
            return True
        pid = parents.get(pid, 0)
    return False


class Killer:
    """Sends SIGKILL to workers that prove, once or again and again."""

    def __init__(self, *, times: int) -> None:
        self.killed: list[int] = []
        self._times = times
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._hunt, daemon=True)

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _hunt(self) -> None:
        while len(self.killed) < self._times and not self._stop.wait(POLL_S):
            for pid in proving_processes():
                if pid not in self.killed and len(self.killed) < self._times:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                        self.killed.append(pid)


@needs_proc
def test_worker_killed_while_proving_is_replaced_and_the_run_ends_verified(
    ray_cluster: None, mlp_run: Run, models: Path, tmp_path: Path
) -> None:
    model = models / "mlp.onnx"
    with Killer(times=1) as killer:
        run = prove_layers(model, workers=2, store=tmp_path, run_id="killed")
    assert run.verified
    assert len(killer.killed) == 1
    attempts = sorted(record.attempts for record in run.manifest.chunks)
    assert attempts == [1, 1, 2]
    assert killer.killed[0] not in {record.pid for record in run.manifest.chunks}
    assert verify("killed", store=tmp_path, model=model, allow_insecure_srs=True).ok


@needs_proc
def test_chunk_whose_workers_are_killed_every_time_names_itself_and_leaves_no_run(
    ray_cluster: None, mlp_run: Run, models: Path, tmp_path: Path
) -> None:
    model = models / "mlp.onnx"
    with Killer(times=1000) as killer, pytest.raises(StageError) as caught:
        prove_layers(model, workers=1, store=tmp_path, run_id="killed")
    error = caught.value
    assert (error.stage, error.chunk_id) == ("prove", "chunk-000")
    assert "chunk-000 failed 3 times" in error.message
    assert "died" in error.message
    assert len(killer.killed) == Policy().failures
    assert not list(tmp_path.glob("projects/*/runs/*/manifest.json"))


class Adversary(ChunkWorker):
    """A worker that is honest but about one chunk, and counts its lies in a folder."""

    lies = 1
    folder: Path

    def prove(self, job: ProveJob) -> ChunkResult:
        if job.chunk.id != VICTIM or len(list(self.folder.iterdir())) >= self.lies:
            return super().prove(job)
        with tempfile.NamedTemporaryFile(dir=self.folder, delete=False):
            pass
        return self.lie(job)

    def lie(self, job: ProveJob) -> Any:
        """What every adversary answers in its own way."""
        raise NotImplementedError


class WrongInstances(Adversary):
    """Shows another leaf hash than the witness gave."""

    def lie(self, job: ProveJob) -> Any:
        result = super(Adversary, self).prove(job)
        first, *others = result.proof.instances
        forged = f"{int(first[:2], 16) ^ 1:02x}{first[2:]}"
        proof = result.proof.model_copy(update={"instances": (forged, *others)})
        return replace(result, proof=proof)


class NoFieldElement(Adversary):
    """Shows an instance that is no field element."""

    def lie(self, job: ProveJob) -> Any:
        result = super(Adversary, self).prove(job)
        instances = ("ff" * 32, *result.proof.instances[1:])
        return replace(result, proof=result.proof.model_copy(update={"instances": instances}))


class TooFewInstances(Adversary):
    """Leaves an instance out."""

    def lie(self, job: ProveJob) -> Any:
        result = super(Adversary, self).prove(job)
        instances = result.proof.instances[1:]
        return replace(result, proof=result.proof.model_copy(update={"instances": instances}))


class ChangedProof(Adversary):
    """Changes a byte of the proof."""

    def lie(self, job: ProveJob) -> Any:
        result = super(Adversary, self).prove(job)
        body = bytearray.fromhex(result.proof.proof)
        body[len(body) // 2] ^= 1
        return replace(result, proof=result.proof.model_copy(update={"proof": body.hex()}))


class NoKey(Adversary):
    """Returns bytes that are no verifying key."""

    def lie(self, job: ProveJob) -> Any:
        return replace(super(Adversary, self).prove(job), vk=b"no key")


class OtherChunk(Adversary):
    """Answers for a chunk that it was not given."""

    def lie(self, job: ProveJob) -> Any:
        return replace(super(Adversary, self).prove(job), chunk_id="chunk-000")


class UnknownChunk(Adversary):
    """Answers for a chunk that does not exist."""

    def lie(self, job: ProveJob) -> Any:
        return replace(super(Adversary, self).prove(job), chunk_id="chunk-999")


class Nothing(Adversary):
    """Answers with nothing."""

    def lie(self, job: ProveJob) -> Any:
        return None


class Retryable(Adversary):
    """Fails as a worker does whose store was not to be reached."""

    def lie(self, job: ProveJob) -> Any:
        raise StoreError("the store did not answer")


class Defect(Adversary):
    """Fails in a way that nobody thought of."""

    def lie(self, job: ProveJob) -> Any:
        raise ZeroDivisionError("a defect")


class AlwaysWrongInstances(WrongInstances):
    """Never tells the truth about its chunk."""

    lies = 1000


class Fatal(Adversary):
    """Fails in a way that another attempt cannot mend."""

    def lie(self, job: ProveJob) -> Any:
        raise BackendError("the circuit is wrong", stage="prove", chunk_id=job.chunk.id)


LIARS = [
    WrongInstances,
    NoFieldElement,
    TooFewInstances,
    ChangedProof,
    NoKey,
    OtherChunk,
    UnknownChunk,
    Nothing,
    Retryable,
    Defect,
]


@pytest.fixture
def lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a file per lie told; the workers get its name with the class they are of."""
    folder = tmp_path / "lies"
    folder.mkdir()
    monkeypatch.setattr(Adversary, "folder", folder, raising=False)
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    yield folder
    cloudpickle.unregister_pickle_by_value(module)


@pytest.mark.parametrize("liar", LIARS, ids=lambda cls: cls.__name__)
def test_worker_that_does_not_prove_its_chunk_once_is_asked_again(
    liar: type[Adversary],
    ray_cluster: None,
    mlp_run: Run,
    models: Path,
    tmp_path: Path,
    lies: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "ChunkWorker", liar)
    model, store = models / "mlp.onnx", tmp_path / "store"
    run = prove_layers(model, workers=1, store=store, run_id="lied")
    assert len(list(lies.iterdir())) == 1
    assert run.verified
    attempts = {record.chunk: record.attempts for record in run.manifest.chunks}
    # A liar may have chunk-002 by the time its lie is seen: it is excluded, and that taken from it.
    assert (attempts["chunk-000"], attempts[VICTIM]) == (1, 2)
    assert attempts["chunk-002"] in (1, 2)
    verdict = verify("lied", store=store, model=model, allow_insecure_srs=True)
    assert verdict.plan_digest == mlp_run.plan_digest


def test_worker_with_wrong_instances_is_named_in_a_warning(
    ray_cluster: None,
    mlp_run: Run,
    models: Path,
    tmp_path: Path,
    lies: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "ChunkWorker", WrongInstances)
    events: list[Event] = []
    prove_layers(models / "mlp.onnx", workers=1, store=tmp_path / "store", listener=events.append)
    warnings = [event.message for event in events if isinstance(event, Warned)]
    assert any("worker-0" in text and VICTIM in text and "instances" in text for text in warnings)
    moved = [e.state for e in events if isinstance(e, ChunkMoved) and e.chunk_id == VICTIM]
    assert moved == ["witnessed", "proving", "proving", "verified"]


def test_worker_that_always_lies_ends_the_run_with_the_chunks_name(
    ray_cluster: None,
    mlp_run: Run,
    models: Path,
    tmp_path: Path,
    lies: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "ChunkWorker", AlwaysWrongInstances)
    store = tmp_path / "store"
    with pytest.raises(StageError) as caught:
        prove_layers(models / "mlp.onnx", workers=2, store=store, run_id="lied")
    assert (caught.value.stage, caught.value.chunk_id) == ("prove", VICTIM)
    assert f"{VICTIM} failed 3 times" in caught.value.message
    assert "public instances" in caught.value.message
    assert len(list(lies.iterdir())) == Policy().failures
    assert not list(store.glob("projects/*/runs/*/manifest.json"))


def test_worker_that_fails_for_good_ends_the_run_at_once(
    ray_cluster: None,
    mlp_run: Run,
    models: Path,
    tmp_path: Path,
    lies: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "ChunkWorker", Fatal)
    with pytest.raises(BackendError, match="the circuit is wrong") as caught:
        prove_layers(models / "mlp.onnx", workers=1, store=tmp_path / "store")
    assert caught.value.chunk_id == VICTIM
    assert len(list(lies.iterdir())) == 1


def test_private_cluster_is_started_where_another_cluster_left_its_address(
    mlp_run: Run, models: Path, tmp_path: Path
) -> None:
    # A short path: Ray keeps Unix sockets below it.
    with tempfile.TemporaryDirectory(prefix="r-", dir="/tmp") as folder:
        (Path(folder) / "ray").mkdir()
        (Path(folder) / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
        found = run_process(
            "prove", models / "mlp.onnx", "--store", tmp_path, "--json", RAY_TMPDIR=folder
        )
    assert found.code == 0, found.stderr
    assert found.json["verified"] is True


def test_worker_that_ray_ends_for_lack_of_memory_is_replaced_and_its_death_named(
    models: Path, tmp_path: Path
) -> None:
    found = run_process(
        "prove",
        models / "residual.onnx",
        "--store",
        tmp_path,
        RAY_memory_usage_threshold="0.01",  # Ray takes the machine for full
        RAY_memory_monitor_refresh_ms="50",
    )
    assert found.code == 3
    assert "note (memory): worker-0" in found.stderr
    (error,) = found.errors
    # Ray may end them before they have answered, or with a chunk.
    assert "no worker comes up" in error or "chunk-000 failed 3 times" in error
    assert "lack of memory" in error
    assert "use fewer workers" in error
    assert "Traceback" not in found.stderr


def test_worker_that_takes_too_long_is_replaced_and_the_chunk_fails_after_three_attempts(
    ray_cluster: None, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinator, "MIN_ATTEMPT_S", 0.01)
    monkeypatch.setattr(coordinator, "ATTEMPT_FACTOR", 0.0)
    with pytest.raises(StageError, match=r"failed 3 times.*for more than 0 s"):
        prove_layers(models / "mlp.onnx", workers=1, store=tmp_path, threads=1)
