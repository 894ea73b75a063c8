"""Runs a command and watches its whole process tree: wall time, CPU time, memory.

Reads /proc (Linux). A process's peak is the kernel's own (VmHWM), so that nothing between two
looks is lost except what a process did after the last one. CPU time of a process that lives for
less than `DISCOVERY_S` can be missed. Processes are followed once seen, also when their parent
ends before them.

Phases: the command's process writes marks (`PhaseLog`) to a report file with times of the system's
monotonic clock, which the watcher shares.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

SAMPLE_S: Final = 0.1
"""Seconds between two looks at the processes that are known."""

DISCOVERY_S: Final = 0.3
"""Seconds between two searches for new ones, which cost more."""

LEAST_AVAILABLE_BYTES: Final = 400 << 20
"""A machine with less memory left starts killing, and may choose others' processes."""

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One look at a process tree.

    Attributes:
        at_s: Monotonic clock.
        cpu_s: CPU seconds of all processes seen so far, ended ones included.
        user_s: Those of them outside the kernel, which are the same whether memory is swapped or
            not.
        largest_bytes: Largest memory of one living process: its peak resident set, or what it
            holds now in memory and swap together.
        total_bytes: Sum over the living processes, swap included (shared pages count often).
        swapped_bytes: What of it is swapped out.
    """

    at_s: float
    cpu_s: float
    user_s: float
    largest_bytes: int
    total_bytes: int
    swapped_bytes: int


class ProcessTree:
    """The processes below one, found by parent and kept by id."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._known: dict[int, int] = {}
        self._spent: dict[tuple[int, int], _Stat] = {}

    def discover(self) -> None:
        """Look for new descendants."""
        parents: dict[int, tuple[int, int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and (stat := _stat(int(entry.name))) is not None:
                parents[int(entry.name)] = (stat.parent, stat.started)
        members = set(self._known) | {self._root}
        grew = True
        while grew:
            fresh = {p for p, (parent, _) in parents.items() if parent in members} - members
            members |= fresh
            grew = bool(fresh)
        for pid in members & parents.keys():
            self._known.setdefault(pid, parents[pid][1])

    def sample(self) -> Sample:
        """Read every known process."""
        largest = total = swapped = 0
        for pid, started in list(self._known.items()):
            stat = _stat(pid)
            if stat is None or stat.started != started:  # ended; its id may be another's by now
                del self._known[pid]
                continue
            self._spent[pid, started] = stat
            memory = memory_of(pid)
            total += memory.resident + memory.swapped
            swapped += memory.swapped
            largest = max(largest, memory.peak, memory.resident + memory.swapped)
        return Sample(
            at_s=time.monotonic(),
            cpu_s=sum(stat.cpu_s for stat in self._spent.values()),
            user_s=sum(stat.user_s for stat in self._spent.values()),
            largest_bytes=largest,
            total_bytes=total,
            swapped_bytes=swapped,
        )

    def kill(self) -> None:
        """End every known process at once."""
        for pid, started in self._known.items():
            stat = _stat(pid)
            if stat is not None and stat.started == started:
                with _gone_is_fine():
                    os.kill(pid, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class _Stat:
    parent: int
    started: int
    cpu_s: float
    user_s: float


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # a command's name may hold spaces and brackets
    return _Stat(
        parent=int(fields[1]),
        started=int(fields[19]),
        cpu_s=(int(fields[11]) + int(fields[12])) / _TICKS,
        user_s=int(fields[11]) / _TICKS,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """A process's memory, in bytes.

    Attributes:
        peak: Largest resident set since its start or its last reset.
        resident: Resident set.
        swapped: Swapped out.
    """

    peak: int = 0
    resident: int = 0
    swapped: int = 0


def memory_of(pid: int | str = "self") -> Memory:
    """What the kernel says of a process; zeros if it is gone."""
    try:
        found = _sizes(Path(f"/proc/{pid}/status"))
    except OSError:
        return Memory()
    return Memory(
        peak=found.get("VmHWM", 0), resident=found.get("VmRSS", 0), swapped=found.get("VmSwap", 0)
    )


def available_bytes() -> int:
    """Memory that the machine can still give, free swap included."""
    found = _sizes(Path("/proc/meminfo"))
    return found["MemAvailable"] + found["SwapFree"]


def _sizes(path: Path) -> dict[str, int]:
    """The lines of a file of /proc that give kilobytes, in bytes."""
    lines = (line.split() for line in path.read_text().splitlines() if line.endswith(" kB"))
    return {name.rstrip(":"): int(size) * 1024 for name, size, _ in lines}


def reset_peak() -> None:
    """Start a new peak of this process's resident set, where the kernel can."""
    with _gone_is_fine():
        Path("/proc/self/clear_refs").write_text("5")


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    try:
        yield
    except OSError:
        return


@dataclass(slots=True)
class PhaseLog:
    """What a measured process says about itself: named phases and any other facts.

    Attributes:
        path: Where `write` puts it.
        facts: Anything JSON.
        phases: Per name: start and end on the monotonic clock, own CPU seconds, own peak memory.
    """

    path: Path
    facts: dict[str, Any] = field(default_factory=dict)
    phases: dict[str, dict[str, float]] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure a block; a name used again adds to what it has."""
        reset_peak()
        started, spent = time.monotonic(), _own_cpu_s()
        with _begun(self.path).open("a") as marks:
            marks.write(f"{started}\n")
        yield
        made = {
            "start_s": started,
            "end_s": time.monotonic(),
            "cpu_s": sum(_own_cpu_s()) - sum(spent),
            "user_s": _own_cpu_s()[0] - spent[0],
            "peak_bytes": memory_of().peak,
        }
        before = self.phases.get(name)
        made["wall_s"] = made["end_s"] - started
        if before is not None:
            made["wall_s"] += before["wall_s"]
            made["cpu_s"] += before["cpu_s"]
            made["user_s"] += before["user_s"]
            made["peak_bytes"] = max(made["peak_bytes"], before["peak_bytes"])
            made["start_s"] = before["start_s"]
        self.phases[name] = made

    def write(self) -> None:
        """Write the report."""
        self.path.write_text(json.dumps({"facts": self.facts, "phases": self.phases}))


def _begun(report: Path) -> Path:
    """Where a process marks the starts of its phases, for the case that it is stopped."""
    return report.with_suffix(".begun")


def _own_cpu_s() -> tuple[float, float]:
    """User and system seconds of this process and of its children that ended."""
    spent = os.times()
    return spent.user + spent.children_user, spent.system + spent.children_system


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A watched command.

    Attributes:
        failure: Why it gave no result, or nothing.
        stopped: "memory" or "time" if it was ended at that limit, else nothing.
        begun_s: From the start of its first phase to the last look at it; 0 if it began none.
        wall_s: From start to end, interpreter start included.
        cpu_s: CPU seconds of the tree.
        largest_bytes: Largest memory of one process (`Sample`).
        total_bytes: Largest sum over the processes.
        swapped_bytes: Largest sum of what was swapped out: more than a little means that the
            wall time is one of the disk as well.
        facts: What the process reported.
        phases: Per phase: wall_s, cpu_s, user_s, largest_bytes.
    """

    failure: str
    stopped: str
    begun_s: float
    wall_s: float
    cpu_s: float
    largest_bytes: int
    total_bytes: int
    swapped_bytes: int
    facts: dict[str, Any]
    phases: dict[str, dict[str, float]]


def watch(
    command: Sequence[str],
    report: Path,
    *,
    environment: Mapping[str, str],
    limit_bytes: int,
    limit_s: float,
    quiet: bool = True,
) -> Outcome:
    """Run a command to its end, or end it at a limit.

    Args:
        command: Program and arguments; it writes a `PhaseLog` to `report`.
        report: Where; it is removed first.
        environment: Added to this process's environment.
        limit_bytes: Sum of memory and swap at which the tree is killed: a benchmark that exhausts a
            machine's memory takes others with it.
        limit_s: Wall seconds after which it is killed.
        quiet: Keep its standard error for a failure's last line; else it is shown.
    """
    report.unlink(missing_ok=True)
    _begun(report).unlink(missing_ok=True)
    started = time.monotonic()
    errors = report.with_suffix(".stderr")
    samples: list[Sample] = []
    failure, stopped, searched = "", "", 0.0
    with errors.open("w") as sink, _termination_as_exit():
        child = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=sink, stderr=sink if quiet else None
        )
        tree = ProcessTree(child.pid)
        try:
            while child.poll() is None:
                if time.monotonic() - searched > DISCOVERY_S:
                    tree.discover()
                    searched = time.monotonic()
                samples.append(tree.sample())
                if samples[-1].total_bytes > limit_bytes:
                    failure = f"stopped at {samples[-1].total_bytes / (1 << 30):.1f} GiB of memory"
                    stopped = "memory"
                elif available_bytes() < LEAST_AVAILABLE_BYTES:
                    failure = (
                        "stopped: the machine's memory was full, "
                        f"{samples[-1].total_bytes / (1 << 30):.1f} GiB of it this command's"
                    )
                    stopped = "memory"
                elif time.monotonic() - started > limit_s:
                    failure = f"stopped after {limit_s:.0f} s"
                    stopped = "time"
                if failure:
                    break
                time.sleep(SAMPLE_S)
        finally:
            if child.poll() is None:  # over a limit, or this process was interrupted
                tree.discover()
                tree.kill()
        status = child.wait()
    wall_s = time.monotonic() - started
    marks = _begun(report).read_text().split() if _begun(report).exists() else []
    reported: dict[str, Any] = {"facts": {}, "phases": {}}
    if report.exists():
        reported = json.loads(report.read_text())
    if not failure and (status != 0 or not report.exists()):
        tail = errors.read_text().strip().splitlines()[-1:]
        failure = f"ended with {status}: {' '.join(tail)[:300]}"
    return Outcome(
        failure=failure,
        stopped=stopped,
        begun_s=samples[-1].at_s - float(marks[0]) if marks and samples else 0.0,
        wall_s=wall_s,
        cpu_s=max((sample.cpu_s for sample in samples), default=0.0),
        largest_bytes=max((sample.largest_bytes for sample in samples), default=0),
        total_bytes=max((sample.total_bytes for sample in samples), default=0),
        swapped_bytes=max((sample.swapped_bytes for sample in samples), default=0),
        facts=reported["facts"],
        phases={name: merge(phase, samples) for name, phase in reported["phases"].items()},
    )


@contextmanager
def _termination_as_exit() -> Iterator[None]:
    """Turn SIGTERM into SystemExit, so that what was started is ended too (main thread only)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    former = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def merge(phase: Mapping[str, float], samples: Sequence[Sample]) -> dict[str, float]:
    """A phase's figures from its process's own account and the watcher's.

    The larger CPU time is taken: a process does not see what its living children spend, the
    watcher not what ends between two looks.
    """
    during = [s for s in samples if phase["start_s"] <= s.at_s <= phase["end_s"] + SAMPLE_S]
    watched_s = during[-1].cpu_s - during[0].cpu_s if during else 0.0
    watched_user_s = during[-1].user_s - during[0].user_s if during else 0.0
    return {
        "wall_s": phase["wall_s"],
        "cpu_s": max(phase["cpu_s"], watched_s),
        "user_s": max(phase["user_s"], watched_user_s),
        "largest_bytes": max([int(phase["peak_bytes"]), *(s.largest_bytes for s in during)]),
    }
