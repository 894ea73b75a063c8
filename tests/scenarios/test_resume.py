"""The coordinator killed before and after every write to the store, then resumed elsewhere."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from examples.simple_distributed import build_mlp
from zkml_ray import resume, verify
from zkml_ray.errors import ConfigError, RunExistsError

pytestmark = pytest.mark.ray

CHUNKS = 4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "mlp4.onnx"
    onnx.save(build_mlp(CHUNKS, width=4, outputs=3), path)
    return path


def run_until(
    model: Path, store: Path, write: int, moment: str, repository: Path, address: str = ""
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.scenarios.killing_store"]
    return subprocess.run(
        [*command, str(model), str(store), "killed", str(write), moment, address],
        capture_output=True,
        text=True,
        cwd=repository,
        check=False,
        timeout=300,
    )


def stored_proofs(store: Path) -> dict[str, str]:
    folder = store / "projects" / "default" / "runs" / "killed" / "proofs"
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob("chunk-*.json"))
    }


@pytest.fixture(scope="module")
def writes(model: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> int:
    store = tmp_path_factory.mktemp("whole")
    done = run_until(model, store, 10_000, "after", repository)
    found = re.search(r"(\d+) writes, verified True", done.stdout)
    assert found, done.stderr
    return int(found.group(1))


def check_kill(
    model: Path, store: Path, write: int, moment: str, repository: Path
) -> tuple[int, bool]:
    """Kill at one write, resume from a copy on a 'new machine'; proofs kept, and if begun."""
    killed = run_until(model, store, write, moment, repository)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    store.mkdir(exist_ok=True)  # killed before the first write, it is not there yet
    before = stored_proofs(store)
    elsewhere = store.with_name(store.name + "-copied")
    shutil.copytree(store, elsewhere)
    shutil.rmtree(store)
    try:
        run = resume("killed", store=elsewhere, workers=2, threads=1)
    except RunExistsError as error:
        assert "is complete" in str(error)
        assert len(before) == CHUNKS
    except ConfigError as error:
        assert "was begun" in str(error)
        assert before == {}
        return 0, False
    else:
        assert run.verified
        assert set(run.resumed) == {name.removesuffix(".json") for name in before}
    assert verify("killed", store=elsewhere, model=model, allow_insecure_srs=True).ok
    after = stored_proofs(elsewhere)
    assert len(after) == CHUNKS
    assert {name: after[name] for name in before} == before
    return len(before), True


def sweep(
    points: list[tuple[int, str]], model: Path, tmp_path: Path, repository: Path
) -> tuple[int, int, int]:
    held = begun = kept = 0
    for write, moment in points:
        store = tmp_path / f"store-{write}-{moment}"
        proofs, was_begun = check_kill(model, store, write, moment, repository)
        held += 1
        begun += was_begun
        kept += proofs
    return held, begun, kept


def test_killed_at_chosen_writes_resumes_and_proves_nothing_twice(
    ray_cluster: None,
    model: Path,
    writes: int,
    repository: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    points = [(2, "after"), (writes - 10, "before"), (writes - 5, "after"), (writes - 1, "after")]
    held, begun, kept = sweep(points, model, tmp_path, repository)
    with capsys.disabled():
        print(
            f"\nkilled at {len(points)} of {2 * writes} points: {held} held, {begun} resumed, "
            f"{kept} finished proofs kept, 0 made twice"
        )
    assert kept > 0


@pytest.mark.slow
def test_killed_before_and_after_every_write_resumes_and_proves_nothing_twice(
    ray_cluster: None,
    model: Path,
    writes: int,
    repository: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    points = [(write, moment) for write in range(writes) for moment in ("before", "after")]
    held, begun, kept = sweep(points, model, tmp_path, repository)
    with capsys.disabled():
        print(
            f"\nkilled at {len(points)} points: {held} held, {begun} resumed, {kept} finished "
            "proofs kept, 0 made twice"
        )
    assert held == len(points)


def test_resume_on_an_empty_machine_uses_the_stored_srs(
    model: Path, writes: int, repository: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    assert run_until(model, store, writes - 4, "before", repository).returncode < 0
    before = stored_proofs(store)
    assert before
    environment = {**os.environ, "ZKML_RAY_CACHE": str(tmp_path / "empty-cache")}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "zkml_ray.command_line.cli",
            "resume",
            "killed",
            "--store",
            str(store),
        ],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert {name: stored_proofs(store)[name] for name in before} == before


def test_resume_of_an_unknown_run_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run nothing was begun"):
        resume("nothing", store=tmp_path)
