"""What processes on a machine are doing, seen from outside of them.

`ezkl.prove` holds the GIL from start to end, so a worker that proves says nothing, and one that was
stopped (SIGSTOP, a frozen container) says nothing either. The kernel tells them apart: the first
runs, the second is stopped. So each machine has one process that looks at its workers in `/proc`:
the coordinator itself on its own machine, a `Watcher` actor, which reserves no CPU, on every other.
That a watcher still answers also shows that a worker's death is not its machine's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_STOPPED = frozenset("Tt")
"""States of `/proc/PID/stat` in which a process does not run and will not by itself."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen on a machine.

    Attributes:
        stopped: Processes, of those asked about, that are stopped.
        memory_kills: Processes that the kernel has ended for lack of memory since it started, as
            far as it tells.
    """

    stopped: frozenset[int]
    memory_kills: int


def look(pids: Iterable[int]) -> Look:
    """Look at processes of this machine; those that are gone are left to Ray."""
    return Look(
        stopped=frozenset(pid for pid in pids if _state(pid) in _STOPPED),
        memory_kills=_memory_kills(),
    )


class Watcher:
    """The actor that looks at a machine's workers."""

    def look(self, pids: tuple[int, ...]) -> Look:
        """See `look`."""
        return look(pids)


def _state(pid: int) -> str:
    try:
        # The name, in parentheses, may hold anything.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def _memory_kills() -> int:
    try:
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return 0
