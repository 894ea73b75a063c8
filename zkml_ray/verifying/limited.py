"""Verifying within a limit of seconds and memory, in a process of its own.

What a consistent plan asks for is computed (`verifying.extent`), by ezkl among others, which
neither looks at a clock nor returns from an allocation that fails. So a verification that must end
runs as a command in a session of its own: when its time is over the whole session is killed, with
any process that it started, and the kernel refuses memory beyond the limit, for each of its
processes. What it found comes back as the command's JSON.

Whoever verifies without a limit does so in his own process.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from zkml_ray import errors
from zkml_ray.errors import (
    ChunkingError,
    ConfigError,
    ExitCode,
    LimitExceededError,
    StoreError,
    VerificationError,
    ZkmlRayError,
    out_of_memory,
)
from zkml_ray.scratch import remove_leftovers
from zkml_ray.verifying.verdict import Verdict

MIN_MEMORY_BYTES: Final = 256 << 20
"""Below this not even the verifier's own code fits."""

_CHILD: Final = "zkml_ray.verifying.limited_child"

_OF_EXIT_CODE: Final[dict[int, type[ZkmlRayError]]] = {
    ExitCode.BAD_INPUT: ConfigError,
    ExitCode.INFRASTRUCTURE: StoreError,
    ExitCode.UNSUPPORTED_MODEL: ChunkingError,
}


def verify_limited(
    arguments: Sequence[str], *, max_seconds: float | None, max_memory_bytes: int | None
) -> Verdict:
    """Verify a run in a process that is ended when it takes too much.

    Args:
        arguments: Those of `python -m zkml_ray.verifier`, without --json and limits.
        max_seconds: Longest time; None: any.
        max_memory_bytes: Most memory of each process; None: any.

    Raises:
        LimitExceededError: It took more: code "limit-seconds" or "limit-memory".
        VerificationError: The run is not what it claims to be.
        ConfigError: There is no such run, or a limit is none.
        StoreError: The store cannot be read.
    """
    if max_seconds is not None and not 0 < max_seconds < float("inf"):
        raise ConfigError(f"--max-seconds must be above 0, not {max_seconds:g}")
    if max_memory_bytes is not None and max_memory_bytes < MIN_MEMORY_BYTES:
        raise ConfigError(
            f"--max-memory must be at least {MIN_MEMORY_BYTES >> 20} MiB, not "
            f"{max_memory_bytes >> 20} MiB"
        )
    child = subprocess.Popen(
        [sys.executable, "-m", _CHILD, str(max_memory_bytes or 0), "--json", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(),
        start_new_session=True,
    )
    try:
        shown, told = child.communicate(timeout=max_seconds)
    except subprocess.TimeoutExpired:
        raise LimitExceededError(
            f"not verified: it took more than the {max_seconds:g} s allowed (--max-seconds); "
            "nothing is known of the run",
            expected=f"at most {max_seconds:g} s",
            code="limit-seconds",
        ) from None
    finally:
        # Whatever ended the wait: the session's other processes go too.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        remove_leftovers()
    return _outcome(child.returncode, shown, told, limited=max_memory_bytes is not None)


def _environment() -> dict[str, str]:
    """This process's environment, in which the child finds this same package."""
    root = str(Path(errors.__file__).resolve().parents[1])
    found = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(found))}


def _outcome(returncode: int, shown: str, told: str, *, limited: bool) -> Verdict:
    try:
        document: Any = json.loads(shown) if shown.strip() else None
    except ValueError:
        document = None
    if isinstance(document, dict) and returncode == ExitCode.OK:
        return Verdict.of_json(document)
    if isinstance(document, dict) and returncode == ExitCode.VERIFICATION_FAILED:
        raise _refusal(document)
    said = [line.removeprefix("error: ") for line in told.splitlines() if line.startswith("error:")]
    if limited and said[-1:] == [errors.NO_MEMORY]:
        raise out_of_memory("the run was verified")
    if returncode in _OF_EXIT_CODE and said:
        raise _OF_EXIT_CODE[returncode](said[-1])
    last = " ".join(told.split())[-300:] or "it said nothing"
    if limited:
        # The interpreter, numpy's threads, ezkl: each ends in its own way where memory is refused.
        raise out_of_memory(f"the run was verified (its process ended with {returncode}: {last})")
    raise StoreError(f"the verifying process ended with {returncode}: {last}")


def _refusal(document: dict[str, Any]) -> VerificationError:
    found = getattr(errors, str(document["error"]), None)
    known = isinstance(found, type) and issubclass(found, VerificationError)
    kind: type[VerificationError] = found if known else VerificationError  # type: ignore[assignment]
    return kind(
        document["message"],
        expected=document["expected"],
        got=document["got"],
        subject=document["subject"],
        code=document["code"],
    )
