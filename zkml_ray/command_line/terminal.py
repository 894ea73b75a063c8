"""What the command lines share: consoles, options, and how a failure is told.

Results go to stdout, progress and errors to stderr. With --json, stdout holds one JSON object.
Exit codes: 0 fine, 1 verification failed, 2 bad usage or input, 3 infrastructure or a bug of ours
(`bug_report`), 4 model not supported.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any, NoReturn, Optional

import typer
from rich.console import Console

from zkml_ray.command_line.bug_report import report_bug, shows_traceback
from zkml_ray.errors import ExitCode, VerificationError, ZkmlRayError
from zkml_ray.extras import named_if_missing

stderr = Console(stderr=True)
stdout = Console()

Model = Annotated[Path, typer.Argument(help="The ONNX file.", show_default=False)]
Store = Annotated[
    Optional[str],  # noqa: UP045  (typer on Python 3.10)
    typer.Option("--store", help="Folder or URL [default: ZKML_RAY_STORE or ./zkml-ray-store]."),
]
Project = Annotated[str, typer.Option("--project", help="Project in the store.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Scale = Annotated[
    int,
    typer.Option(
        "--scale",
        help="Fixed-point bits after the point: of values, and of weights in native circuits.",
    ),
]
LayersPerChunk = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        "--layers-per-chunk", help="Weighted operators per chunk [default: cuts are searched]."
    ),
]
Memory = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--memory", help="Most memory of a worker, such as 2GiB or 900MiB [any]."),
]
ProfileOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--profile",
        help="Prices for predictions: a file, or `shipped` [ZKML_RAY_PROFILE, this machine's].",
    ),
]
Dim = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--dim", help="Value of a symbolic dimension, NAME=VALUE; may be repeated."),
]
Passes = Annotated[
    str,
    typer.Option(
        "--passes", help="Rewrite passes of native circuits: all, none, or names with commas."
    ),
]
NoPass = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--no-pass", help="Rewrite pass to leave out; may be repeated."),
]
Circuits = Annotated[
    str,
    typer.Option(
        "--circuits",
        help="hinted: results are given and checked, several times cheaper; native: ezkl computes "
        "and rounds, any operator, values far beyond --range-bits; auto: hinted where the whole "
        "model can be, else native, and says why.",
    ),
]
RangeBits = Annotated[
    int,
    typer.Option(
        "--range-bits",
        help="Hinted circuits hold inputs and rounded activations within +-2^N; 5 is +-32. When a "
        "run says that a value left this range, give a larger N (each costs a little), or "
        "normalise the input.",
    ),
]
NoSalt = Annotated[
    bool,
    typer.Option("--no-salt", help="Commit without salts: hidden activations can be guessed."),
]
Threads = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        "--threads",
        help="Prover threads per worker [default: its share of the cores, and what others leave].",
    ),
]
Address = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--address", help="Ray cluster [default: RAY_ADDRESS or a private one]."),
]
Workers = Annotated[int, typer.Option("--workers", "-w", help="Ray workers that prove.")]
StoreKeysOption = Annotated[
    str,
    typer.Option(
        "--store-keys",
        help="all: proving keys too, so that other machines need not make them; verifying; "
        "none: whoever verifies needs the model.",
    ),
]
RunArgument = Annotated[str, typer.Argument(help="Id of the run.", show_default=False)]


def run_app(app: typer.Typer, name: str) -> None:
    """Run a command line; every failure is one line on stderr and an exit code."""
    try:
        with named_if_missing():
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
    except (SystemExit, GeneratorExit):
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
    stderr.print(f"error: {' '.join(str(error).split())}", markup=False, soft_wrap=True)
    if isinstance(error, VerificationError) and (error.expected or error.got):
        stderr.print(
            f"       expected {error.expected or '?'}, got {error.got or '?'}",
            markup=False,
            soft_wrap=True,
        )
    sys.exit(int(code))
