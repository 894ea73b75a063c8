"""What the command lines share: consoles, and how results and failures are told.

Results go to stdout, progress and errors to stderr. With --json, stdout holds one JSON object.
Exit codes: 0 fine, 1 verification failed, 2 bad usage or input, 3 infrastructure or a bug of ours
(`bug_report`), 4 model not supported, 5 outputs too far from the float model's.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from zkml_ray.command_line.bug_report import report_bug, shows_traceback
from zkml_ray.errors import (
    NO_MEMORY,
    AccuracyError,
    ConfigError,
    ExitCode,
    VerificationError,
    ZkmlRayError,
)
from zkml_ray.extras import named_if_missing
from zkml_ray.interrupts import as_exceptions

stderr = Console(stderr=True)
stdout = Console()


def run_app(app: typer.Typer, name: str) -> None:
    """Run a command line; every failure is one line on stderr and an exit code."""
    try:
        with as_exceptions(), named_if_missing():
            completing = f"_{name.replace('-', '_').upper()}_COMPLETE" in os.environ
            if not sys.argv[1:] and not completing and len(app.registered_commands) > 1:
                with redirect_stdout(sys.stderr):
                    app(["--help"], prog_name=name, standalone_mode=False)
                sys.exit(int(ExitCode.BAD_INPUT))
            code = app(prog_name=name, standalone_mode=False)
    except typer.Exit as leave:
        sys.exit(leave.exit_code)
    except VerificationError as error:
        _fail(error, ExitCode.VERIFICATION_FAILED)
    except ZkmlRayError as error:
        _fail(error, error.exit_code)
    except KeyboardInterrupt:
        _interrupted("interrupted")
        sys.exit(128 + signal.SIGINT)
    except OSError as error:
        _fail(error, ExitCode.INFRASTRUCTURE)
    except MemoryError:
        _error(NO_MEMORY)
        sys.exit(int(ExitCode.INFRASTRUCTURE))
    except SystemExit as leave:
        if leave.code == 128 + signal.SIGTERM:
            _interrupted("terminated")
        raise
    except GeneratorExit:
        raise
    except BaseException as error:  # a panic of ezkl's is no Exception
        usage = getattr(error, "format_message", None)
        if usage is None:
            _bug(error)
        text, context = usage(), getattr(error, "ctx", None)
        command = name if context is None else context.command_path
        _error(f"{' '.join(text.split())} ({command} --help shows the usage)")
        sys.exit(int(ExitCode.BAD_INPUT))
    if code == 128 + signal.SIGINT:  # what typer makes of a KeyboardInterrupt
        _interrupted("interrupted")
    sys.exit(code if isinstance(code, int) else 0)


def _interrupted(how: str) -> None:
    stderr.print(f"{how}; what is stored stays, the run has no manifest")


def say(*lines: str, style: str | None = None) -> None:
    """Write lines to stdout: as they are into a pipe, wrapped at words on a terminal."""
    wide = not stdout.is_terminal
    for line in lines:
        stdout.print(line, style=style, markup=False, highlight=False, soft_wrap=wide)


def say_verdict(lines: Sequence[str]) -> None:
    """Write lines of which the first is a verdict that held."""
    say(lines[0], style="bold green")
    say(*lines[1:])


def say_commands(*commands: str) -> None:
    """Write commands to paste: a line each, which nothing breaks."""
    for command in commands:
        stdout.print(f"  {command}", markup=False, highlight=False, soft_wrap=True)


def program() -> str:
    """How this program is called from here: its name where that is found, else its path."""
    name = Path(sys.argv[0]).name
    found = shutil.which(name)
    if found is not None and Path(found).resolve() == Path(sys.argv[0]).resolve():
        return name
    if not Path(sys.argv[0]).is_file() or not os.access(sys.argv[0], os.X_OK):
        return "zkml-ray"
    path = os.path.relpath(sys.argv[0])
    return shlex.quote(path if len(path) < len(sys.argv[0]) else sys.argv[0])


def confirm(question: str, *, option: str) -> None:
    """Ask before something is lost.

    Args:
        question: What to ask.
        option: The option that answers it beforehand.

    Raises:
        ConfigError: Nobody is there to answer.
        Exit: The answer is no.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ConfigError(f"{question} Nobody is there to answer: give {option} if so")
    if not typer.confirm(question, err=True):
        raise typer.Exit(int(ExitCode.BAD_INPUT))


def print_json(document: dict[str, Any]) -> None:
    """Write one JSON object to stdout."""
    sys.stdout.write(json.dumps(document, allow_nan=False) + "\n")


def _error(line: str, *, loud: bool = False) -> None:
    """Write the line that says what is wrong."""
    text = Text.assemble(("error:", "bold red"), f" {line}", style="bold red" if loud else "")
    stderr.print(text, soft_wrap=not stderr.is_terminal)


def _bug(error: BaseException) -> NoReturn:
    """Say that this is a fault of ours; the traceback goes into a file."""
    if shows_traceback():
        traceback.print_exception(type(error), error, error.__traceback__)
    line = report_bug(error, sys.argv[1:])
    _error(line)
    sys.exit(int(ExitCode.INFRASTRUCTURE))


def _fail(error: Exception, code: ExitCode) -> None:
    _error(" ".join(str(error).split()), loud=isinstance(error, AccuracyError))
    if isinstance(error, VerificationError) and (error.expected or error.got):
        stderr.print(
            f"       expected {error.expected or '?'}, got {error.got or '?'}",
            markup=False,
            soft_wrap=True,
        )
    sys.exit(int(code))
