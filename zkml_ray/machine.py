"""What this process may use of its machine: a container's share, not the whole host.

`os.cpu_count()` is the host's number. A container, or a batch system's job, is held to less in one
of three ways, and the smallest counts: the CPUs that the process may run on (its affinity), and
quotas of control groups, of version 2 (`cpu.max`) or 1 (`cpu.cfs_quota_us`). A quota of its parents
holds a group too. Source: the kernel's documentation,
`admin-guide/cgroup-v2`, "CPU Interface Files".
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def cores(root: Path = Path("/")) -> int:
    """CPUs that this process may use, at least 1; of a fraction of one, a whole one.

    Args:
        root: Where `proc` and `sys` are.
    """
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        allowed = os.cpu_count() or 1
    quotas = [quota for quota in _quotas(root) if quota > 0]
    return max(1, min([allowed, *(int(quota) for quota in quotas)]))


def memory(root: Path = Path("/")) -> int | None:
    """Bytes of memory that this process may use; None where the system does not tell."""
    limits = [limit for limit in _memory_limits(root) if limit > 0]
    try:
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemTotal:"):
                limits.append(int(line.split()[1]) * 1024)
    except (OSError, ValueError, IndexError):
        pass
    return min(limits, default=None)


def _quotas(root: Path) -> Iterator[float]:
    """CPUs that each control group of this process, and each of its parents, may use."""
    for version, folder in _groups(root, "cpu"):
        if version == 2:
            quota, _, period = _text(folder / "cpu.max").partition(" ")
        else:
            quota, period = (_text(folder / f"cpu.cfs_{one}_us") for one in ("quota", "period"))
        yield _number(quota) / (_number(period) or 1)


def _memory_limits(root: Path) -> Iterator[int]:
    """Bytes that each control group of this process, and each of its parents, may use."""
    for version, folder in _groups(root, "memory"):
        yield _number(_text(folder / ("memory.max" if version == 2 else "memory.limit_in_bytes")))


def _groups(root: Path, controller: str) -> Iterator[tuple[int, Path]]:
    """Versions and folders of the control groups of this process that hold a controller."""
    for group in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = group.split(":", 2)
        if controllers == "":
            yield from ((2, folder) for folder in _up(root / "sys/fs/cgroup", path))
        elif controller in controllers.split(","):
            yield from ((1, folder) for folder in _up(root / "sys/fs/cgroup" / controller, path))


def _up(top: Path, path: str) -> Iterator[Path]:
    """A group's folder and its parents'; in a container, the top alone may be there."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for length in range(len(parts), -1, -1):
        yield top.joinpath(*parts[:length])


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _number(text: str) -> int:
    """A number above 0; 0 for whatever says that there is no limit."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 0
