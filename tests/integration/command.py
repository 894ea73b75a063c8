"""The command line as a user meets it: in a process of its own, or (faster) in this one."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zkml_ray.command_line.cli import main

TIMEOUT_S = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The one JSON object on stdout."""
        (line,) = self.stdout.splitlines()
        return json.loads(line)

    @property
    def errors(self) -> list[str]:
        return [line for line in self.stderr.splitlines() if line.startswith("error:")]


def run_process(*arguments: str | Path, **environment: str) -> Outcome:
    """Run `zkml-ray` as a user does."""
    done = subprocess.run(
        [sys.executable, "-m", "zkml_ray.command_line.cli", *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    return Outcome(code=done.returncode, stdout=done.stdout, stderr=done.stderr)


def run_here(*arguments: str | Path) -> Outcome:
    """Run the same `main` in this process."""
    out, err = io.StringIO(), io.StringIO()
    code: object = None
    argv = sys.argv
    sys.argv = ["zkml-ray", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as leave:
        code = leave.code
    finally:
        sys.argv = argv
    assert isinstance(code, int)
    return Outcome(code=code, stdout=out.getvalue(), stderr=err.getvalue())
