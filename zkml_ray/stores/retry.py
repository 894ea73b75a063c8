"""Retrying a request: exponential backoff with full jitter, inside a deadline.

The deadline bounds the time without progress, not the whole transfer: an attempt that moved some
bytes before it failed starts the clock again. What is worth another attempt is decided where the
fault is understood (`TransientFault`); everything else leaves at once.

Source of the jitter: M. Brooker, "Exponential backoff and jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from zkml_ray.errors import StoreUnavailableError

T = TypeVar("T")


class TransientFault(Exception):
    """An attempt failed in a way that another attempt may not.

    Attributes:
        progress: Whether the attempt moved the transfer on before it failed.
    """

    def __init__(self, message: str, *, progress: bool = False) -> None:
        super().__init__(message)
        self.progress = progress


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When to try again, and when to give up.

    Attributes:
        deadline_s: Longest time without progress, in seconds.
        backoff_s: Ceiling of the first pause; it doubles with each attempt.
        max_backoff_s: Largest ceiling of a pause.
        jitter: Source of the pauses.
    """

    deadline_s: float
    backoff_s: float = 0.2
    max_backoff_s: float = 10.0
    jitter: random.Random = field(default_factory=random.Random)

    def within(self, deadline_s: float) -> RetryPolicy:
        """The same policy under a deadline that is no later."""
        return replace(self, deadline_s=min(self.deadline_s, deadline_s))

    def run(self, attempt: Callable[[], T], stop: threading.Event | None = None) -> T:
        """Call `attempt` until it returns.

        Args:
            attempt: One try; it raises `TransientFault` when another may help.
            stop: Set by another thread when the result is no longer wanted.

        Raises:
            StoreUnavailableError: The deadline passed, or `stop` was set.
            ZkmlRayError: Whatever else `attempt` raised.
        """
        stop = stop or threading.Event()
        attempts, failures, since = 0, 0, time.monotonic()
        while True:
            attempts += 1
            try:
                return attempt()
            except TransientFault as fault:
                if fault.progress:
                    failures, since = 0, time.monotonic()
                ceiling_s = min(self.max_backoff_s, self.backoff_s * 2.0 ** min(failures, 30))
                failures += 1
                pause_s = self.jitter.uniform(0, ceiling_s)
                if time.monotonic() - since + pause_s >= self.deadline_s or stop.wait(pause_s):
                    raise StoreUnavailableError(
                        f"{fault}; given up after {attempts} attempts without progress for "
                        f"{time.monotonic() - since:.1f} s; what was stored before is kept, so "
                        "run again when the store answers"
                    ) from None
