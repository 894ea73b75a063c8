"""How many CPUs a container leaves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkml_ray.machine import cores, memory

HOST = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine(root: Path, group: str, files: dict[str, str]) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(group)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("group", "files", "expected"),
    [
        ("", {}, HOST),
        ("0::/\n", {"cpu.max": "max 100000\n"}, HOST),
        ("0::/\n", {"cpu.max": "100000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "100000 100000"}, 1),
        # In a container the path is the host's, and only the top is there.
        ("0::/docker/0123\n", {"cpu.max": "100000 100000\n"}, 1),
        ("0::/../x\n", {"cpu.max": "100000 100000\n"}, 1),
        (
            "4:memory:/j\n3:cpu,cpuacct:/j\n",
            {"cpu/j/cpu.cfs_quota_us": "100000", "cpu/j/cpu.cfs_period_us": "100000"},
            1,
        ),
        (
            "3:cpu,cpuacct:/j\n",
            {"cpu/j/cpu.cfs_quota_us": "-1", "cpu/j/cpu.cfs_period_us": "100000"},
            HOST,
        ),
        ("0::/\n", {"cpu.max": "nonsense"}, HOST),
        ("0::/\n", {"cpu.max": "100000 0"}, HOST),
    ],
)
def test_cores_are_the_smallest_of_what_holds_this_process(
    group: str, files: dict[str, str], expected: int, tmp_path: Path
) -> None:
    assert cores(machine(tmp_path, group, files)) == expected


@given(quota=st.integers(1, 10**8), period=st.integers(1000, 10**6))
def test_cores_are_at_least_one_and_no_more_than_quota_and_host(
    quota: int, period: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = machine(tmp_path_factory.mktemp("m"), "0::/\n", {"cpu.max": f"{quota} {period}\n"})
    assert cores(root) == max(1, min(HOST, quota // period))


@pytest.mark.parametrize(
    ("group", "files", "expected"),
    [
        ("0::/\n", {}, 8 << 30),
        ("0::/\n", {"memory.max": "max\n"}, 8 << 30),
        ("0::/a/b\n", {"a/memory.max": "1073741824\n"}, 1 << 30),
        ("0::/a\n", {"a/memory.max": "3221225472", "memory.max": "2147483648"}, 2 << 30),
        ("5:memory:/j\n", {"memory/j/memory.limit_in_bytes": "4294967296"}, 4 << 30),
        # Version 1 says "no limit" by a number that no machine has.
        ("5:memory:/j\n", {"memory/j/memory.limit_in_bytes": "9223372036854771712"}, 8 << 30),
    ],
)
def test_memory_is_the_smallest_of_what_holds_this_process(
    group: str, files: dict[str, str], expected: int, tmp_path: Path
) -> None:
    root = machine(tmp_path, group, files)
    (root / "proc/meminfo").write_text(f"MemTotal:       {8 << 20} kB\nMemFree: 1 kB\n")
    assert memory(root) == expected
    assert memory(root / "nowhere") is None


def test_without_proc_the_affinity_counts(tmp_path: Path) -> None:
    assert cores(tmp_path) == HOST
