"""A fault of ours never ends a command with a traceback, and never a run that can do without."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.command import TIMEOUT_S, Outcome

PLANNING = """
import zkml_ray.stages.plan as planning

def planted(*arguments, **options):
    raise ZeroDivisionError("a planted fault")

planning.normalised_graph = planted
"""

PANIC = """
import zkml_ray.stages.plan as planning

class PanicException(BaseException):
    pass

def planted(*arguments, **options):
    raise PanicException("a planted panic")

planning.normalised_graph = planted
"""

MEMORY = PLANNING.replace('ZeroDivisionError("a planted fault")', "MemoryError")

LOWERING = """
from zkml_ray.chunking.hinted.operators import OPERATORS

def planted(lowering, node):
    return {}[node.name]

OPERATORS["Relu"] = planted
"""


def run_planted(fault: str, folder: Path, *arguments: str | Path, **environment: str) -> Outcome:
    """Run `zkml-ray` with a fault in it, in a process whose temporary files lie in a folder."""
    code = f"{fault}\nfrom zkml_ray.command_line.cli import main\nmain()"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={
            **os.environ,
            "TMPDIR": str(folder),
            "ZKML_RAY_CACHE": str(folder / "c"),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    return Outcome(code=done.returncode, stdout=done.stdout, stderr=done.stderr)


@pytest.mark.parametrize("fault", [PLANNING, PANIC], ids=["exception", "panic"])
def test_fault_of_ours_is_one_line_that_names_a_report(
    fault: str, models: Path, tmp_path: Path
) -> None:
    found = run_planted(fault, tmp_path, "plan", models / "mlp.onnx")
    assert (found.code, found.stdout) == (3, "")
    assert "Traceback" not in found.stderr
    (line,) = found.errors
    assert found.stderr.strip() == line
    assert "a bug in zkml_ray, please report it" in line
    assert "a planted" in line
    (report,) = tmp_path.glob("zkml-ray-bug-*.txt")
    assert str(report) in line
    text = report.read_text()
    for word in ("Traceback", "in planted", "ezkl: 23.0.5", "opsets ai.onnx", "Gemm x3", "plan"):
        assert word in text, text


def test_traceback_is_shown_to_who_asks_for_it(models: Path, tmp_path: Path) -> None:
    found = run_planted(PLANNING, tmp_path, "plan", models / "mlp.onnx", ZKML_RAY_TRACEBACK="1")
    assert found.code == 3
    assert "Traceback" in found.stderr
    assert len(found.errors) == 1


def test_lack_of_memory_is_no_bug(models: Path, tmp_path: Path) -> None:
    found = run_planted(MEMORY, tmp_path, "plan", models / "mlp.onnx")
    assert (found.code, len(found.errors)) == (3, 1)
    assert "not enough memory" in found.errors[0]
    assert not list(tmp_path.glob("zkml-ray-bug-*"))


def test_fault_while_lowering_leaves_native_circuits_and_is_told(
    models: Path, tmp_path: Path
) -> None:
    command = ("plan", models / "mlp.onnx", "--scale", "7", "--layers-per-chunk", "1")
    found = run_planted(LOWERING, tmp_path, *command, "--json")
    assert found.code == 0
    (notice,) = found.json["notices"]
    assert "native circuits, because" in notice
    assert "Relu (node " in notice
    assert "bug (KeyError" in notice
    refused = run_planted(LOWERING, tmp_path, *command, "--circuits", "hinted")
    assert (refused.code, refused.stdout, len(refused.errors)) == (4, "", 1)
    assert "Relu (node " in refused.errors[0]
    assert "bug (KeyError" in refused.errors[0]
