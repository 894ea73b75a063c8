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


def _quotas(root: Path) -> Iterator[float]:
    """CPUs that each control group of this process, and each of its parents, may use."""
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for group in groups:
        _, controllers, path = group.split(":", 2)
        if controllers == "":
            for folder in _up(root / "sys/fs/cgroup", path):
                yield _version_2(folder)
        elif "cpu" in controllers.split(","):
            for folder in _up(root / "sys/fs/cgroup/cpu", path):
                yield _version_1(folder)


def _up(top: Path, path: str) -> Iterator[Path]:
    """A group's folder and its parents'; in a container, the top alone may be there."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for length in range(len(parts), -1, -1):
        yield top.joinpath(*parts[:length])


def _version_2(folder: Path) -> float:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # not there, or "max": none
        return 0.0


def _version_1(folder: Path) -> float:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        return quota / int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError, ZeroDivisionError):
        return 0.0
