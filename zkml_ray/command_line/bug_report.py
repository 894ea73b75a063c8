"""What is written down when a command meets a fault of ours, for whoever reports it.

A failure that the error family does not foresee is a bug of zkml_ray. The user is told so in one
line that names a file; the traceback stands there, not on the terminal. `ZKML_RAY_TRACEBACK=1`
shows it there as well.
"""

from __future__ import annotations

import os
import platform
import tempfile
import traceback
from collections import Counter
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

SHOW_VARIABLE: Final = "ZKML_RAY_TRACEBACK"

_PACKAGES: Final = (
    "zkml-ray",
    "ezkl",
    "onnx",
    "onnx-ir",
    "onnxruntime",
    "numpy",
    "ray",
    "pydantic",
)
_MAX_MODEL_BYTES: Final = 1 << 28


def report_bug(error: BaseException, arguments: Sequence[str]) -> str:
    """Write a report.

    Args:
        error: What was raised.
        arguments: The command line, without the program.

    Returns:
        One line that says what happened, where the report is, and what to attach.
    """
    what = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    line = f"a bug in zkml_ray, please report it ({what})"
    try:
        path = _written(_report(error, arguments))
    except OSError as failure:
        return f"{line}; no report could be written ({failure}): set {SHOW_VARIABLE}=1 to see more"
    return f"{line}; attach {path}, and the model if you may share it"


def shows_traceback() -> bool:
    """Whether the user asked for tracebacks on the terminal."""
    return os.environ.get(SHOW_VARIABLE, "") not in ("", "0")


def _report(error: BaseException, arguments: Sequence[str]) -> str:
    lines = [
        f"command: {' '.join(arguments)}",
        f"python: {platform.python_version()} on {platform.platform()}",
        *(f"{package}: {_version(package)}" for package in _PACKAGES),
    ]
    for argument in arguments:
        if argument.endswith(".onnx"):
            lines += _model(Path(argument))
    lines.append("".join(traceback.format_exception(type(error), error, error.__traceback__)))
    return "\n".join(lines)


def _model(path: Path) -> list[str]:
    """A model's operators and operator sets; nothing of its weights."""
    try:
        if path.stat().st_size > _MAX_MODEL_BYTES:
            return [f"model {path.name}: {path.stat().st_size} bytes"]
        import onnx

        proto = onnx.load(str(path), load_external_data=False)
    except Exception as failure:
        return [f"model {path.name}: not readable ({type(failure).__name__})"]
    operators = Counter(f"{n.domain}.{n.op_type}".lstrip(".") for n in proto.graph.node)
    opsets = ", ".join(f"{e.domain or 'ai.onnx'} {e.version}" for e in proto.opset_import)
    counted = ", ".join(f"{name} x{count}" for name, count in sorted(operators.items()))
    return [
        f"model {path.name}: opsets {opsets}; IR {proto.ir_version}; by {proto.producer_name!r}",
        f"operators: {counted}",
    ]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _written(text: str) -> Path:
    handle, name = tempfile.mkstemp(prefix="zkml-ray-bug-", suffix=".txt")
    with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    return Path(name)
