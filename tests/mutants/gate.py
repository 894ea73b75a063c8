"""The mutation gate: plants one mutant at a time in a copy of the checkout and runs its tests.

The checkout is never edited. A mutant's text must occur exactly once in its file, so that the list
follows the code, and its tests must pass where nothing is planted, so that a test that fails for
another reason kills nothing. `python -m tests.mutants` runs the whole list.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

REPOSITORY: Final = Path(__file__).resolve().parents[2]

COPIED: Final = ("zkml_ray", "chunking", "commitments", "cluster", "tests", "pyproject.toml")
"""What a copy of the checkout has; tests that read more of it kill no mutants."""

LIMIT_S: Final = 600
"""Seconds for the tests of one mutant. One that makes them hang is not killed."""

APART: Final = ("tests/soundness/test_attacks.py",)
"""Tests that start Ray, and so have a process of their own instead of a fork."""

NOTES: list[str] = []
"""Lines for the end of a session: how many mutants were killed."""

Outcome = Literal["killed", "lived", "does not apply", "broken", "hung"]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault.

    Attributes:
        file: Path from the root of the checkout.
        text: What stands there, exactly once in the file.
        instead: What is to stand there.
        tests: Ids of the tests (as pytest takes them) of which at least one must fail.
        quick: Whether it is one of the sample that every run of the tests tries.
    """

    file: str
    text: str
    instead: str
    tests: tuple[str, ...]
    quick: bool = False

    @property
    def title(self) -> str:
        """A line for people."""
        return f"{self.file}: {_line(self.text)} -> {_line(self.instead)}"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a mutant."""

    mutant: Mutant
    outcome: Outcome
    seconds: float
    output: str = ""


class Copy:
    """A copy of the checkout, to plant mutants in."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in COPIED:
            source, target = REPOSITORY / name, folder / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", ".cache")
                shutil.copytree(source, target, symlinks=True, ignore=ignored)
            else:
                shutil.copy2(source, target)
        # Hypothesis tries the same examples every time.
        self._environment = {**os.environ, "PYTHONPATH": str(folder), "CI": "1"}
        for name in ("PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST", "PYTHONDONTWRITEBYTECODE"):
            self._environment.pop(name, None)
        self._runner = subprocess.Popen(
            [sys.executable, str(folder / "tests" / "mutants" / "zygote.py")],
            cwd=folder,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        """End the process that runs the tests."""
        self._runner.kill()
        self._runner.communicate()

    def run(self, tests: Iterable[str], limit_s: float = LIMIT_S) -> tuple[int | None, str]:
        """Exit code of pytest, None past the limit; and the end of what it wrote."""
        chosen = list(tests)
        if any(test.startswith(APART) for test in chosen):
            return self._apart(chosen, limit_s)
        log = self._folder / "tests.log"
        request = {"tests": chosen, "limit_s": limit_s, "log": str(log)}
        assert self._runner.stdin is not None
        assert self._runner.stdout is not None
        self._runner.stdin.write(json.dumps(request) + "\n")
        self._runner.stdin.flush()
        return json.loads(self._runner.stdout.readline()), log.read_text(errors="replace")[-4000:]

    def _apart(self, tests: Sequence[str], limit_s: float) -> tuple[int | None, str]:
        """The same in a process of their own."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        try:
            done = subprocess.run(
                command,
                cwd=self._folder,
                env=self._environment,
                capture_output=True,
                text=True,
                timeout=limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None, ""
        return done.returncode, (done.stdout + done.stderr)[-4000:]

    def plant(self, mutant: Mutant, limit_s: float = LIMIT_S) -> Result:
        """Run a mutant's tests with it in place, and put the file back."""
        began = time.monotonic()
        path = self._folder / mutant.file
        original = path.read_text() if path.is_file() else ""
        if original.count(mutant.text) != 1 or mutant.text == mutant.instead:
            return Result(mutant, "does not apply", 0.0)
        try:
            self._write(path, original.replace(mutant.text, mutant.instead))
            code, output = self.run(mutant.tests, limit_s)
        finally:
            self._write(path, original)
        outcome: Outcome = {None: "hung", 0: "lived", 1: "killed"}.get(code, "broken")
        return Result(mutant, outcome, time.monotonic() - began, output)

    @staticmethod
    def _write(path: Path, text: str) -> None:
        """Write a source, and drop what is compiled of it: two files of a second look alike."""
        path.write_text(text)
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            compiled.unlink()


def unapplied(mutants: Sequence[Mutant]) -> list[str]:
    """Titles of the mutants whose text does not occur exactly once in the checkout."""
    sources = {mutant.file: REPOSITORY / mutant.file for mutant in mutants}
    known = {name: path.read_text() if path.is_file() else "" for name, path in sources.items()}
    return [m.title for m in mutants if known[m.file].count(m.text) != 1 or m.text == m.instead]


def tried(mutants: Sequence[Mutant], folder: Path) -> Iterator[Result]:
    """Plant one mutant after the other in a copy of the checkout.

    Args:
        mutants: Which.
        folder: Receives the copy.

    Raises:
        AssertionError: The tests do not pass where nothing is planted.
    """
    copy = Copy(folder)
    try:
        tests = sorted({test for mutant in mutants for test in mutant.tests})
        apart = [test for test in tests if test.startswith(APART)]
        for group in ([test for test in tests if test not in apart], apart):
            if group:
                code, output = copy.run(group, limit_s=LIMIT_S * max(1, len(group) // 4))
                assert code == 0, f"the tests fail without a mutant:\n{output}"
        for mutant in mutants:
            yield copy.plant(mutant)
    finally:
        copy.close()


def _line(text: str) -> str:
    return " ".join(text.split())
