"""What every benchmark's result file says about its circumstances."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any


def circumstances() -> dict[str, Any]:
    """Commit, hardware, versions and arguments of this process."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        )
        if Path("/proc/cpuinfo").exists()
        else iter(()),
        platform.processor(),
    )
    packages = ("zkml-ray", "ezkl", "ray", "onnx", "onnxruntime", "numpy")
    return {
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit,
        "cpu": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in packages},
        "arguments": sys.argv[1:],
    }


def write(path: Path | None, result: dict[str, Any]) -> None:
    """Write a result file (its folder is made); with no path, nothing."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"circumstances": circumstances(), **result}, indent=1) + "\n")
