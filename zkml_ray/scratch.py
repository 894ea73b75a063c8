"""Temporary files of this process, which do not outlive it, however it ends.

Witnesses are among them: a worker that is killed must not leave one behind for good. Everything
lies in one folder of the process, which holds a shared lock on a file in it; the next process that
makes such a folder removes those whose lock nobody holds any more. POSIX only (flock; on a file and
not on the folder, because NFS has locks of files alone).
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_PREFIX = "zkml-ray-process-"
_LOCK = ".lock"

_own: dict[int, Path] = {}
"""This process's folder, by its id: a process that was forked off makes one of its own."""


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder that only this user can read, removed afterwards."""
    with tempfile.TemporaryDirectory(dir=process_folder()) as name:
        yield Path(name)


def process_folder() -> Path:
    """The folder of this process's temporary files, made on the first call and removed at exit."""
    pid = os.getpid()
    if pid not in _own or not _own[pid].is_dir():
        remove_leftovers()
        _own[pid] = _made()
        atexit.register(_remove_own, pid)
    return _own[pid]


def remove_leftovers() -> None:
    """Remove the folders of processes that have ended without doing so."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        # Left alone: other users' folders, links, and one whose process is just about to lock it.
        with contextlib.suppress(OSError), _opened(folder) as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """The lock of a folder that is no link."""
    parent = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        handle = os.open(_LOCK, os.O_RDWR | os.O_NOFOLLOW, dir_fd=parent)
    finally:
        os.close(parent)
    try:
        yield handle
    finally:
        os.close(handle)


def _made() -> Path:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT)  # the process's end closes it
        fcntl.flock(handle, fcntl.LOCK_SH)
        if folder.exists():
            return folder
        os.close(handle)  # another process took it for a leftover before it was locked


def _remove_own(pid: int) -> None:
    if os.getpid() == pid:
        shutil.rmtree(_own[pid], ignore_errors=True)
