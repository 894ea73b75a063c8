"""Runs tests in forks of a process that has imported what they need from outside the checkout.

A program of its own, started in a copy of the checkout: nothing of ours is imported before a fork,
so that every fork imports what is planted then. It reads requests as JSON, one a line, and answers
each with the exit code of pytest, or null past the limit.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

# Half of what a short test takes is importing these.
import ezkl  # noqa: F401
import numpy  # noqa: F401
import onnx  # noqa: F401
import onnx_ir  # noqa: F401
import onnxruntime  # noqa: F401
import pydantic  # noqa: F401
import pytest
import rfc8785  # noqa: F401
import rich.console  # noqa: F401
import typer  # noqa: F401

NO_TEST_RAN = 70
"""Exit code where pytest itself failed; 1 is that of a test that failed."""


def child(tests: list[str], log: str) -> None:
    """Run tests, all output in a file; ends the process with pytest's exit code."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.setsid()
    code = NO_TEST_RAN
    try:
        code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests]))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def waited(process: int, limit_s: float) -> int | None:
    """Exit code of a process, or None if it had to be ended."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return None


def main() -> None:
    """Answer requests until there are no more."""
    sys.path[0] = str(Path.cwd())
    for line in sys.stdin:
        request = json.loads(line)
        process = os.fork()
        if process == 0:
            child(request["tests"], request["log"])
        print(json.dumps(waited(process, request["limit_s"])), flush=True)


if __name__ == "__main__":
    main()
