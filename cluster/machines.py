"""The machines of a Ray cluster: what they have, whether they live, what their workers do."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import ray
from ray._private.state import available_resources_per_node
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from zkml_ray.cluster.messages import NodeDown, NodeUp
from zkml_ray.cluster.watching import Look, Watcher, look

UNSEEN_S: Final = 10.0
"""A machine whose watcher has not answered for so long is one whose workers are not seen."""

ASK_S: Final = 5.0
"""So long a machine may take to say that it lives."""

DISTRUST_S: Final = 60.0
"""A machine that did not say so is not believed to be up before; Ray itself takes up to 30 s."""

SETTLE_S: Final = 1.0
"""Reservations of a run that just ended are gone after this."""


@dataclass(slots=True)
class _Machine:
    up: NodeUp
    watcher: Any
    asked: Any = None
    asked_at: float = 0.0
    seen: Look | None = None
    seen_at: float = 0.0


class Machines:
    """The nodes that Ray shows, each with a watcher. Needs a Ray session."""

    def __init__(self) -> None:
        self._here: str = ray.get_runtime_context().get_node_id()
        self._known: dict[str, _Machine] = {}
        self._distrusted: dict[str, float] = {}
        self._memory_kills: dict[str, int] = {}

    def changes(self, reserved: Mapping[str, tuple[int, int]]) -> list[NodeUp | NodeDown]:
        """What is new since the last call.

        Args:
            reserved: Per node, CPUs and memory that this pool's workers hold. What others hold is
                what is not free beyond that. Nodes that are left out keep the capacity they have.
        """
        alive = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
        now_s = time.monotonic()
        found: list[NodeUp | NodeDown] = []
        for name in [name for name in self._known if name not in alive]:
            self._forget(name)
            found.append(NodeDown(node=name))
        free = available_resources_per_node()
        for name, node in alive.items():
            if now_s < self._distrusted.get(name, 0.0):
                continue
            if name in self._known and name not in reserved:
                continue
            there = free.get(name, node["Resources"])
            cpus, memory_bytes = reserved.get(name, (0, 0))
            up = NodeUp(
                node=name,
                name=str(node["NodeManagerHostname"]),
                cpus=int(there.get("CPU", 0)) + cpus,
                memory_bytes=int(there.get("memory", 0)) + memory_bytes,
            )
            if name not in self._known:
                watcher = None if name == self._here else _watcher(name)
                self._known[name] = _Machine(up=up, watcher=watcher, seen_at=now_s)
            elif self._known[name].up == up:
                continue
            self._known[name].up = up
            found.append(up)
        return found

    def settle(self) -> None:
        """Wait a little where reservations may be on their way out."""
        until_s = time.monotonic() + SETTLE_S
        while time.monotonic() < until_s:
            free = available_resources_per_node()
            nodes = [node for node in ray.nodes() if node["Alive"]]
            if all(
                free.get(node["NodeID"], {}).get("CPU", 0) >= node["Resources"].get("CPU", 0)
                for node in nodes
            ):
                return
            time.sleep(0.1)

    def stopped(self, pids: Mapping[str, tuple[int, ...]]) -> Mapping[str, frozenset[int]]:
        """Per node, processes of those asked about that are stopped or cannot be seen.

        Args:
            pids: Per node, its workers' processes.
        """
        found = {}
        for name, wanted in pids.items():
            machine = self._known.get(name)
            if machine is None:
                continue
            if machine.watcher is None:
                found[name] = self._seen(machine, look(wanted)).stopped
                continue
            self._ask(machine, wanted)
            if time.monotonic() > machine.seen_at + UNSEEN_S:
                found[name] = frozenset(wanted)
            elif machine.seen is not None:
                found[name] = machine.seen.stopped
        return found

    def lives(self, name: str) -> bool:
        """Ask a machine whether it lives; one that does not say so is taken for lost."""
        machine = self._known.get(name)
        if machine is None:
            return False
        if machine.watcher is None:
            return True
        try:
            answer: Look = ray.get(machine.watcher.look.remote(()), timeout=ASK_S)
        except RayError:
            self._forget(name)
            self._distrusted[name] = time.monotonic() + DISTRUST_S
            return False
        machine.seen, machine.seen_at = answer, time.monotonic()
        return True

    def killed_for_memory(self, name: str) -> bool:
        """Whether a machine's kernel has ended a process for lack of memory since last asked."""
        machine = self._known.get(name)
        if machine is None:
            return False
        if machine.watcher is None:
            machine.seen = look(())
        now = 0 if machine.seen is None else machine.seen.memory_kills
        before = self._memory_kills.setdefault(name, now)
        self._memory_kills[name] = now
        return now > before

    def close(self) -> None:
        """End the watchers."""
        for name in list(self._known):
            self._forget(name)

    def _forget(self, name: str) -> None:
        machine = self._known.pop(name)
        if machine.watcher is not None:
            ray.kill(machine.watcher, no_restart=True)

    def _seen(self, machine: _Machine, seen: Look) -> Look:
        machine.seen, machine.seen_at = seen, time.monotonic()
        self._memory_kills.setdefault(machine.up.node, seen.memory_kills)
        return seen

    def _ask(self, machine: _Machine, pids: tuple[int, ...]) -> None:
        """Take a watcher's answer if it is there, and ask again."""
        if machine.asked is not None:
            done, _ = ray.wait([machine.asked], timeout=0)
            if not done:
                return
            try:
                self._seen(machine, ray.get(machine.asked))
            except RayError:
                machine.asked = None
                return  # it is not seen; `changes` or `lives` will tell whether the machine is lost
        machine.asked = machine.watcher.look.remote(pids)


def _watcher(node: str) -> Any:
    there = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
    return ray.remote(Watcher).options(num_cpus=0, scheduling_strategy=there).remote()
