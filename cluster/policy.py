"""Numbers that the scheduler goes by, and the choices that need nothing but values.

Where a worker is placed, and which chunk it takes, are functions of what is known; they change
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from zkml_ray.cluster.messages import Attempt, Cause, ChunkKey, NodeUp

FREE_CAUSES = frozenset({Cause.MACHINE, Cause.STOPPED, Cause.STORE})
"""Causes that say nothing about a chunk, and use up none of its attempts."""

FINAL_CAUSES = frozenset({Cause.FINAL, Cause.CONFIGURATION})
"""Causes that another attempt on the same machine would meet again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Limits.

    Attributes:
        failures: Failures of a chunk, of any cause but those that say nothing about it.
        losses: Machines lost, and workers stopped, under one chunk: it may be what ends them.
        store_failures: Failures of the store on one chunk.
        strikes: Quick failures of a worker, one after the other, that quarantine it.
        quick_s: A failure within this time is quick.
        quarantine_s: First quarantine; each further one is twice as long, up to 16 times.
        store_wait_s: First wait of a worker that met a store's failure; doubled up to 32 times.
        store_patience_s: So long a store may fail everybody.
        stopped_s: So long a worker's process may be stopped before it is replaced.
        start_s: So long a worker may take to come up.
        starts: Failures to start, one after the other, with no worker up.
        restart_s: First wait before a node gets a worker again where one did not come up.
        note_s: Room for a worker that lacks is waited for so long before that is said.
        room_s: So long room for a first worker is waited for.
        straggler_factor: A chunk that takes so many times what is expected gets a second copy.
        straggler_s: And no less than this.
    """

    failures: int = 3
    losses: int = 30
    store_failures: int = 10
    strikes: int = 2
    quick_s: float = 10.0
    quarantine_s: float = 60.0
    store_wait_s: float = 1.0
    store_patience_s: float = 300.0
    stopped_s: float = 15.0
    start_s: float = 300.0
    starts: int = 3
    restart_s: float = 2.0
    note_s: float = 5.0
    room_s: float = 20.0
    straggler_factor: float = 3.0
    straggler_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What is asked of the cluster.

    Attributes:
        workers: Workers that are wanted.
        cpus: CPUs of each; None: a node's CPUs are shared evenly by its workers.
        memory_bytes: Memory of each; None: none is reserved.
    """

    workers: int
    cpus: int | None = None
    memory_bytes: int | None = None


@dataclass(slots=True)
class Node:
    """A node as the scheduler sees it.

    Attributes:
        up: What was told of it last.
        circuits: Circuits whose keys were used there.
        inherited: Strikes of workers that ended there, for those that come after them.
        barred: Whether a wrong proof came from there, or its set-up is wrong.
        start_failures: Workers that did not come up there, one after the other.
        restart_at: No worker is started there before.
    """

    up: NodeUp
    circuits: set[str] = field(default_factory=set)
    inherited: list[int] = field(default_factory=list)
    barred: bool = False
    start_failures: int = 0
    restart_at: float = 0.0


@dataclass(slots=True)
class Worker:
    """A worker as the scheduler sees it; its state is in `scheduler`'s table.

    Attributes:
        node: Its node.
        cpus: CPUs that it reserves.
        asked_at: When it was asked for.
        up: Whether it has answered.
        attempt: What it has, or None.
        handed_at: When it got that.
        overdue_at: When it has had it too long.
        strikes: Quick failures, one after the other.
        rests: How often it was quarantined.
        store_failures: Failures of the store that it met, one after the other.
        resting_until: It gets no work before.
        forgiven: Whether its rest ends when nobody else is left.
        stopped_at: Since when its process is stopped, if it is.
    """

    node: str
    cpus: int
    asked_at: float
    up: bool = False
    attempt: Attempt | None = None
    handed_at: float = 0.0
    overdue_at: float = float("inf")
    strikes: int = 0
    rests: int = 0
    store_failures: int = 0
    resting_until: float = 0.0
    forgiven: bool = False
    stopped_at: float | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed attempt of a chunk."""

    worker: str
    node: str
    cause: Cause


@dataclass(slots=True)
class Chunk:
    """A chunk as the scheduler sees it; its state is in `scheduler`'s table.

    Attributes:
        order: Its place in the order in which chunks became ready.
        circuit: What its keys belong to.
        predicted_s: Expected seconds with keys at hand.
        setup_s: Expected seconds of making its keys.
        limit_s: Longest time of an attempt.
        stored_keys: Whether workers may use keys from the store.
        attempts: Hand-outs so far.
        running: Attempts that workers have.
        checking: The answer that is being checked.
        done: Whether an answer was accepted.
        failures: All failures.
    """

    order: int
    circuit: str
    predicted_s: float
    setup_s: float
    limit_s: float
    stored_keys: bool
    attempts: int = 0
    running: list[Attempt] = field(default_factory=list)
    checking: Attempt | None = None
    done: bool = False
    failures: list[Failure] = field(default_factory=list)

    @property
    def waits(self) -> bool:
        """Whether it can be handed out."""
        return not (self.done or self.running or self.checking)

    def counted(self) -> list[Failure]:
        """Failures that use up attempts."""
        return [failure for failure in self.failures if failure.cause not in FREE_CAUSES]

    def distance(self, worker: str, node: str) -> int:
        """How near a worker is to where the chunk failed: 0 nowhere, 1 its node, 2 itself."""
        if any(failure.worker == worker for failure in self.failures):
            return 2
        return int(any(failure.node == node for failure in self.failures))


def place(
    need: Need,
    nodes: dict[str, Node],
    workers: Iterable[Worker],
    missing: int,
    allowed: Callable[[str], bool],
) -> list[tuple[str, int]]:
    """Nodes for workers that are missing, and the CPUs of each.

    Each goes where most CPUs are left for it. Where `need` names no CPUs, a node's free ones are
    shared evenly by the workers that it gets here.

    Args:
        need: What each needs.
        nodes: The nodes that are up.
        workers: Workers that are there already.
        missing: How many are wanted.
        allowed: Whether a node may get any.

    Returns:
        At most `missing` of them: as many as have room.
    """
    free_cpus = {name: node.up.cpus for name, node in nodes.items() if allowed(name)}
    free_bytes = {name: nodes[name].up.memory_bytes for name in free_cpus}
    for worker in workers:
        if worker.node in free_cpus:
            free_cpus[worker.node] -= worker.cpus
            free_bytes[worker.node] -= need.memory_bytes or 0
    counts = dict.fromkeys(free_cpus, 0)
    each_cpus, each_bytes = need.cpus or 1, need.memory_bytes or 0

    def room(name: str) -> bool:
        more = counts[name] + 1
        return free_cpus[name] >= more * each_cpus and free_bytes[name] >= more * each_bytes

    for _ in range(missing):
        fit = [name for name in counts if room(name)]
        if not fit:
            break
        counts[max(fit, key=lambda name: (free_cpus[name] / (counts[name] + 1), name))] += 1
    chosen = []
    for name, count in counts.items():
        for index in range(count):
            share = free_cpus[name] // count + (index < free_cpus[name] % count)
            chosen.append((name, need.cpus or share))
    return chosen


def capacity_text(need: Need, nodes: Iterable[Node]) -> str:
    """What is needed, and what is there."""
    found = sorted((node.up for node in nodes), key=lambda up: (-up.cpus, up.name))
    cpus = 1 if need.cpus is None else need.cpus
    wanted = f"{need.workers} x {cpus} CPU{'s' if cpus > 1 else ''}"
    if need.memory_bytes is not None:
        wanted += f" and {need.workers} x {_mib(need.memory_bytes)}"
    if not found:
        return f"it needs {wanted}; the cluster has no node"
    shown = ", ".join(f"{up.name} {up.cpus} CPUs {_mib(up.memory_bytes)}" for up in found[:4])
    more = f" and {len(found) - 4} more" if len(found) > 4 else ""
    return f"it needs {wanted}; the cluster has, free of others, {shown}{more}"


def choose(
    worker: str,
    node: Node,
    waiting: Sequence[tuple[ChunkKey, Chunk]],
    served_s: dict[str, float],
    being_made: set[tuple[str, str]],
    held_elsewhere: set[str],
) -> tuple[ChunkKey, Chunk] | None:
    """The chunk that an idle worker takes next.

    Keys cost about as much as a proof. So chunks whose keys lie on another node, which could prove
    them, come last; before them those whose keys are just being made on this node. Besides these,
    the job that was served least comes first, and of a job the chunk predicted to be longest.

    Args:
        worker: The worker's name.
        node: Its node.
        waiting: Chunks that it may take.
        served_s: Per job, the predicted seconds that were handed out.
        being_made: Pairs of node and circuit whose keys are being made.
        held_elsewhere: Circuits whose keys lie on another node that works.
    """

    def rank(entry: tuple[ChunkKey, Chunk]) -> tuple[int, float, float, int]:
        key, chunk = entry
        affinity = 0
        if chunk.circuit and (node.up.node, chunk.circuit) in being_made:
            affinity = 1
        elif chunk.circuit and chunk.circuit not in node.circuits:
            affinity = 2 if chunk.circuit in held_elsewhere else 0
        seconds = chunk.predicted_s + chunk.setup_s
        return affinity, served_s.get(key.job, 0.0), -seconds, chunk.order

    return min(waiting, key=rank, default=None)


def _mib(size_bytes: int) -> str:
    mib = size_bytes / (1 << 20)
    return f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{mib:.0f} MiB"
