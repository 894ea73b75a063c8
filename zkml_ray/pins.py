"""What of this machine's cache is in use, so that no process evicts what another one reads.

A name in use has a shared lock on pins/<name>, which ends with its process at the latest; whoever
would evict it needs that lock alone. POSIX only (flock).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout


class Pin:
    """A name in use, until this object is closed or collected."""

    def __init__(self, folder: Path, name: str) -> None:
        """Wait until nobody evicts the name, then hold it.

        Args:
            folder: Where the locks lie.
            name: Usable as a file name.

        Raises:
            OSError: The lock's file cannot be made.
        """
        self._handle: int | None = None
        handle = _opened(folder, name)
        fcntl.flock(handle, fcntl.LOCK_SH)
        self._handle = handle

    def close(self) -> None:
        """Let go of the name."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()


@contextlib.contextmanager
def claimed(folder: Path, name: str, lock: Path) -> Iterator[bool]:
    """Hold a name alone for as long as the block runs; waits for nobody.

    Args:
        folder: Where the pins' locks lie.
        name: The name.
        lock: The lock under which it is made.

    Yields:
        Whether it is held: False where somebody uses or makes it.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(FileLock(str(lock), timeout=0))
            handle = _opened(folder, name)
            stack.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (Timeout, BlockingIOError):
            yield False
        else:
            yield True


def _opened(folder: Path, name: str) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    return os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o666)
