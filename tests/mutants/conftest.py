"""Says at the end how many mutants were killed."""

from __future__ import annotations

import pytest

from tests.mutants.gate import NOTES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for note in NOTES:
        terminalreporter.write_line(note)
