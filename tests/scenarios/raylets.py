"""Real Ray clusters of several nodes on this machine: a raylet a node, on loopback.

The runs under test are commands in processes of their own that join such a cluster. Their lines on
stderr say when a fault is to be injected.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

LINE_S = 240.0
OPTIONS = ("--scale", "8", "--layers-per-chunk", "1")


class Raylets:
    """A cluster whose nodes can be added, killed and stopped."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster: Any = Cluster()

    def add(self, cpus: int, **environment: str) -> Any:
        """Start a node; the first is the head."""
        return self._cluster.add_node(
            num_cpus=cpus,
            object_store_memory=80 << 20,
            include_dashboard=False,
            env_vars=environment or None,
        )

    def kill(self, node: Any) -> None:
        """SIGKILL a node's raylet and all that it started, as when a machine loses its power."""
        self._cluster.remove_node(node, allow_graceful=False)

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def close(self) -> None:
        self._cluster.shutdown()


@contextlib.contextmanager
def raylets(*cpus: int) -> Iterator[Raylets]:
    """A cluster of nodes with so many CPUs each."""
    cluster = Raylets()
    try:
        for count in cpus:
            cluster.add(count)
        yield cluster
    finally:
        cluster.close()


class Command:
    """`zkml-ray` in a process of its own, whose lines on stderr are read as they come."""

    def __init__(self, *arguments: object, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "zkml_ray.command_line.cli", *map(str, arguments)],
            env={**os.environ, "RAY_ADDRESS": "", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._came = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._came:
                self.lines.append(line.rstrip())
                self._came.notify_all()
        with self._came:
            self._came.notify_all()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first line that matches, once it is there."""
        until_s = time.monotonic() + LINE_S
        seen = 0
        with self._came:
            while True:
                for line in self.lines[seen:]:
                    if found := re.search(pattern, line):
                        return found
                seen = len(self.lines)
                ended = self.process.poll() is not None and not self._reader.is_alive()
                if ended or not self._came.wait(min(1.0, until_s - time.monotonic())):
                    assert not ended and time.monotonic() < until_s, self.text

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """Wait for its end."""
        code = self.process.wait(LINE_S)
        self._reader.join()
        return code

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def output(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.read()

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@contextlib.contextmanager
def command(*arguments: object, **environment: str) -> Iterator[Command]:
    """A command that does not outlive a block."""
    running = Command(*arguments, **environment)
    try:
        yield running
    finally:
        running.close()


@contextlib.contextmanager
def proving(
    cluster: Raylets, model: Path, store: Path, *more: object, options: Sequence[object] = OPTIONS
) -> Iterator[Command]:
    """`zkml-ray prove` on a cluster."""
    where = ["--store", store, "--run", "run", "--address", cluster.address]
    with command("prove", model, *where, *options, *more) as running:
        yield running


def provers(below: int | None = None) -> list[psutil.Process]:
    """Workers that are proving a chunk right now."""
    found = []
    for process in psutil.Process(below or os.getpid()).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[:1] == ["ray::ChunkWorker.prove"]:
                found.append(process)
    return found
