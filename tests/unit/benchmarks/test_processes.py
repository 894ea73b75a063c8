"""The watcher on processes whose cost is known."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from benchmarks.processes import Outcome, watch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the watcher reads /proc")

MIB = 1 << 20
ROOT = str(Path(__file__).parents[3])

REPORTED = """
import subprocess, sys, time
from pathlib import Path
from benchmarks.processes import PhaseLog
log = PhaseLog(Path(sys.argv[1]))
with log.phase("memory"):
    held = bytearray(200 << 20)
    time.sleep(0.4)
del held
with log.phase("work"):
    spin = "import time\\nwhile time.process_time() < 1.5: pass"
    subprocess.run([sys.executable, "-c", spin], check=True)
log.facts["seen"] = True
log.write()
"""

ENDLESS = """
import sys, time
from pathlib import Path
from benchmarks.processes import PhaseLog
log = PhaseLog(Path(sys.argv[1]))
time.sleep(0.6)
for name in ("one", "two"):
    with log.phase(name):
        time.sleep(0.3 if name == "one" else 60)
"""

GRANDCHILD = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
with open(sys.argv[2], "w") as file:
    file.write(str(child.pid))
held = bytearray(int(sys.argv[3]))
child.wait()
"""


def watched(script: str, tmp_path: Path, *more: str, **limits: float) -> Outcome:
    report = tmp_path / "report.json"
    return watch(
        [sys.executable, "-c", script, str(report), *more],
        report,
        environment={"PYTHONPATH": ROOT},
        limit_bytes=int(limits.get("limit_bytes", 8 << 30)),
        limit_s=limits.get("limit_s", 60),
    )


def test_phases_get_the_memory_and_cpu_time_they_used(tmp_path: Path):
    found = watched(REPORTED, tmp_path)
    assert found.failure == ""
    assert found.facts == {"seen": True}
    memory, work = found.phases["memory"], found.phases["work"]
    assert 200 * MIB < memory["largest_bytes"] < 300 * MIB
    assert work["largest_bytes"] < 150 * MIB
    assert memory["wall_s"] >= 0.4
    assert work["cpu_s"] >= 1.4 > memory["cpu_s"]
    assert 200 * MIB < found.largest_bytes < 300 * MIB


@pytest.mark.parametrize(
    ("held", "limits", "why", "stopped"),
    [
        (MIB, {"limit_s": 1.5}, "stopped after 2 s", "time"),
        (300 * MIB, {"limit_bytes": 150 * MIB}, "of memory", "memory"),
    ],
)
def test_a_limit_ends_the_whole_tree(
    tmp_path: Path, held: int, limits: dict[str, float], why: str, stopped: str
):
    pid_file = tmp_path / "pid"
    found = watched(GRANDCHILD, tmp_path, str(pid_file), str(held), **limits)
    assert why in found.failure
    assert found.stopped == stopped
    assert found.begun_s == 0  # no phase
    pid = int(pid_file.read_text())
    deadline = time.monotonic() + 5
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(pid)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_stopped_command_tells_how_long_its_phases_ran(tmp_path: Path):
    found = watched(ENDLESS, tmp_path, limit_s=2.5)
    assert found.stopped == "time"
    assert 0.3 < found.begun_s < 2.0  # the start of Python, and what it did before, are not counted


def test_a_failing_command_is_told_with_its_last_line(tmp_path: Path):
    found = watched("raise SystemExit('the disk is full')", tmp_path)
    assert found.failure == "ended with 1: the disk is full"


def test_a_command_without_a_report_has_failed(tmp_path: Path):
    assert watched("pass", tmp_path).failure.startswith("ended with 0")
