"""What the command lines share: consoles, and how results and failures are told.

Results go to stdout, progress and errors to stderr. With --json, stdout holds one JSON object.
Exit codes: 0 fine, 1 verification failed, 2 bad usage or input, 3 infrastructure or a bug of ours
(`bug_report`), 4 model not supported, 5 outputs too far from the float model's.
"""

from __future__ import annotations

import json
import signal
import sys
import traceback
from typing import Any, NoReturn

import typer
from rich.console import Console

from zkml_ray.command_line.bug_report import report_bug, shows_traceback
from zkml_ray.errors import AccuracyError, ExitCode, VerificationError, ZkmlRayError
from zkml_ray.extras import named_if_missing
from zkml_ray.interrupts import as_exceptions

stderr = Console(stderr=True)
stdout = Console()


def run_app(app: typer.Typer, name: str) -> None:
    """Run a command line; every failure is one line on stderr and an exit code."""
    try:
        with as_exceptions(), named_if_missing():
            code = app(prog_name=name, standalone_mode=False)
    except typer.Exit as leave:
        sys.exit(leave.exit_code)
    except VerificationError as error:
        _fail(error, ExitCode.VERIFICATION_FAILED)
    except ZkmlRayError as error:
        _fail(error, error.exit_code)
    except KeyboardInterrupt:
        stderr.print("interrupted; what is stored stays, the run has no manifest")
        sys.exit(130)
    except OSError as error:
        _fail(error, ExitCode.INFRASTRUCTURE)
    except MemoryError:
        stderr.print("error: there is not enough memory for this")
        sys.exit(int(ExitCode.INFRASTRUCTURE))
    except SystemExit as leave:
        if leave.code == 128 + signal.SIGTERM:
            stderr.print("terminated; what is stored stays, the run has no manifest")
        raise
    except GeneratorExit:
        raise
    except BaseException as error:  # a panic of ezkl's is no Exception
        usage = getattr(error, "format_message", None)
        if usage is None:
            _bug(error)
        text = usage()
        if text.startswith("Usage:"):  # no arguments at all
            stderr.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            line = " ".join(text.split())
            stderr.print(
                f"error: {line} ({name} --help shows the usage)", markup=False, soft_wrap=True
            )
        sys.exit(int(ExitCode.BAD_INPUT))
    sys.exit(code if isinstance(code, int) else 0)


def say(*lines: str, style: str | None = None) -> None:
    """Write lines to stdout as they are, however wide the terminal."""
    for line in lines:
        stdout.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def print_json(document: dict[str, Any]) -> None:
    """Write one JSON object to stdout."""
    sys.stdout.write(json.dumps(document, allow_nan=False) + "\n")


def _bug(error: BaseException) -> NoReturn:
    """Say that this is a fault of ours; the traceback goes into a file."""
    if shows_traceback():
        traceback.print_exception(type(error), error, error.__traceback__)
    line = report_bug(error, sys.argv[1:])
    stderr.print(f"error: {line}", markup=False, soft_wrap=True)
    sys.exit(int(ExitCode.INFRASTRUCTURE))


def _fail(error: Exception, code: ExitCode) -> None:
    style = "bold red" if isinstance(error, AccuracyError) else None
    line = f"error: {' '.join(str(error).split())}"
    stderr.print(line, style=style, markup=False, soft_wrap=True)
    if isinstance(error, VerificationError) and (error.expected or error.got):
        stderr.print(
            f"       expected {error.expected or '?'}, got {error.got or '?'}",
            markup=False,
            soft_wrap=True,
        )
    sys.exit(int(code))
