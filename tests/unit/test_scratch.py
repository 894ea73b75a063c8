"""Temporary files of processes that end as they should, are killed, or go on."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

HOLD = """
import sys
from zkml_ray.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "witness.json").write_text("secret")
    print(folder, flush=True)
    sys.stdin.readline()
"""


@contextmanager
def holding(parent: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that has written a witness, and its folder; it ends when told to go on."""
    environment = {**os.environ, "TMPDIR": str(parent), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process, Path(process.stdout.readline().strip())
    finally:
        process.stdin.close()
        process.wait(timeout=60)
        process.stdout.close()


def test_process_that_ends_leaves_nothing(tmp_path: Path) -> None:
    with holding(tmp_path) as (_, folder):
        assert (folder / "witness.json").read_text() == "secret"
        assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next_and_nothing_else(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".lock").touch()
    (tmp_path / "zkml-ray-process-link").symlink_to(elsewhere)
    with holding(tmp_path) as (alive, kept):
        with holding(tmp_path) as (killed, left):
            killed.send_signal(signal.SIGKILL)
            killed.wait(timeout=60)
            assert (left / "witness.json").exists()
        with holding(tmp_path) as (_, other):
            assert not left.parent.exists()
            assert (kept / "witness.json").exists(), "its process is alive"
            assert other.exists()
        assert alive.poll() is None
    assert (elsewhere / ".lock").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "elsewhere",
        "zkml-ray-process-link",
    ]


def test_folder_that_was_taken_away_is_made_again(tmp_path: Path) -> None:
    code = """
import shutil
from zkml_ray.scratch import process_folder, scratch_folder
shutil.rmtree(process_folder())
with scratch_folder() as folder:
    print(folder.is_dir())
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == ["True"]
    assert list(tmp_path.iterdir()) == []
