"""The retry policy alone: full jitter, a deadline without progress, nothing else retried."""

from __future__ import annotations

import random
import threading
import time

import pytest

from zkml_ray.errors import StoreError, StoreUnavailableError
from zkml_ray.stores.retry import RetryPolicy, TransientFault


class Pauses(random.Random):
    """Records the ceilings it is asked for, and never pauses."""

    def __init__(self) -> None:
        super().__init__(0)
        self.ceilings: list[float] = []

    def uniform(self, a: float, b: float) -> float:
        assert a == 0
        self.ceilings.append(b)
        return 0.0


def failing(times: int, *, progress: bool = False) -> list[TransientFault]:
    return [TransientFault("fault", progress=progress) for _ in range(times)]


def run(policy: RetryPolicy, faults: list[TransientFault]) -> str:
    def attempt() -> str:
        if faults:
            raise faults.pop()
        return "done"

    return policy.run(attempt)


def test_ceilings_double_up_to_the_largest() -> None:
    pauses = Pauses()
    policy = RetryPolicy(deadline_s=60, backoff_s=1, max_backoff_s=10, jitter=pauses)
    assert run(policy, failing(6)) == "done"
    assert pauses.ceilings == [1, 2, 4, 8, 10, 10]


def test_progress_starts_the_backoff_again() -> None:
    pauses = Pauses()
    policy = RetryPolicy(deadline_s=60, backoff_s=1, jitter=pauses)
    assert run(policy, failing(4, progress=True)) == "done"
    assert pauses.ceilings == [1, 1, 1, 1]


def test_deadline_ends_in_a_typed_error_that_names_the_attempts() -> None:
    policy = RetryPolicy(deadline_s=0.05, backoff_s=0.01)
    started = time.monotonic()
    with pytest.raises(StoreUnavailableError, match=r"fault; given up after \d+ attempts"):
        run(policy, failing(10_000))
    assert time.monotonic() - started < 1


def test_stop_ends_the_retries_at_once() -> None:
    stop = threading.Event()
    stop.set()

    def attempt() -> None:
        raise TransientFault("fault")

    with pytest.raises(StoreUnavailableError, match="after 1 attempts"):
        RetryPolicy(deadline_s=60, backoff_s=60).run(attempt, stop)


def test_other_errors_are_not_retried() -> None:
    calls = []

    def attempt() -> None:
        calls.append(1)
        raise StoreError("permanent")

    with pytest.raises(StoreError, match="permanent"):
        RetryPolicy(deadline_s=60).run(attempt)
    assert len(calls) == 1
