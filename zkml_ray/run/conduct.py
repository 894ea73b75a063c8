"""Runs that share a thread, a pool of workers and its queue.

Each run's coordinator makes its own witnesses, one a step; answers go to the run that they are for.
The next run is begun as soon as workers might otherwise have nothing to do, and its chunks stand in
the same queue: while one run's last chunk is proved, other workers prove the next one's.

A run that fails is withdrawn and the others go on. What ends everything (no room for workers, a
wrong configuration, a store that answers nobody) leaves the runs that are not finished resumable.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from zkml_ray.cluster.starting import StartingPool
from zkml_ray.errors import ZkmlRayError
from zkml_ray.run.coordinator import Coordinator, RunOutcome

POLL_S: Final = 1.0
"""Longest wait for answers where nothing else is to be done."""

AHEAD: Final = 2
"""Chunks a worker that wait for it before the next run is begun."""


@dataclass(slots=True)
class _Active:
    coordinator: Coordinator
    steps: Iterator[bool]


def drive(coordinator: Coordinator, steps: Iterator[bool], pool: StartingPool) -> None:
    """Take one run through steps that need workers.

    Raises:
        ZkmlRayError: A stage failed; the run can be resumed.
    """
    for more in steps:
        for event in pool.poll(0.0 if more else POLL_S):
            coordinator.handle(event)


def conduct(
    coordinators: Iterable[Coordinator], pool: StartingPool, workers: int
) -> Iterator[tuple[str, RunOutcome | ZkmlRayError]]:
    """Take runs from their requests to their manifests.

    Args:
        coordinators: The runs, in the order in which they are begun; each is asked for when it is.
        pool: Their workers.
        workers: How many those are.

    Yields:
        The id of each run as soon as it has ended, and how.

    Raises:
        ZkmlRayError: None of those that are left can be finished.
    """
    waiting, more = iter(coordinators), True
    active: dict[str, _Active] = {}
    making: str | None = None  # the run whose witnesses are being made
    while more or active:
        if more and making is None and pool.waiting < AHEAD * workers:
            coordinator = next(waiting, None)
            more = coordinator is not None
            if coordinator is not None:
                making = coordinator.run_id
                active[making] = _Active(coordinator, coordinator.proving())
        concerned = set() if making is None else {making}
        ended: dict[str, RunOutcome | ZkmlRayError] = {}
        for event in pool.poll(0.0 if making else POLL_S):
            run_id = event.run_id or next(iter(active), "")
            if run_id not in active:
                continue
            concerned.add(run_id)
            try:
                active[run_id].coordinator.handle(event)
            except ZkmlRayError as error:
                ended[run_id] = error
        for run_id in concerned - ended.keys():
            try:
                made = next(active[run_id].steps, None)
                if made is None:
                    ended[run_id] = active[run_id].coordinator.finish()
                elif not made and making == run_id:
                    making = None
            except ZkmlRayError as error:
                ended[run_id] = error
        for run_id, how in ended.items():
            del active[run_id]
            making = None if making == run_id else making
            pool.forget(run_id)
            yield run_id, how
