"""SIGTERM and ctrl-C as exceptions, at moments that bear them.

A command that is told to end leaves with 128 + the signal's number, its Ray ended and its run
resumable. Two things stand in the way. Python runs a handler wherever the main thread happens to
be, and an exception that is raised inside a call into Ray's C++ ends the process by abort; such
calls are `shielded`, and the exception is raised behind them. And Ray's C++ puts a handler of its
own in the place of Python's for SIGTERM, which dumps stacks and dies, while `ray.init` runs outside
the main thread, where Ray does not put Python's back; `kept_handlers` does.

The first signal counts; those behind it change nothing, because what it started is the clean-up.
"""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_AGAIN_S: Final = 0.005
_SIGACTION_BYTES: Final = 1024
"""More than any system's `struct sigaction` has."""


class _State:
    """Of the main thread, the only one that handles signals."""

    def __init__(self) -> None:
        self.installed = False
        self.shields = 0
        self.seen: int | None = None


_state = _State()


@contextmanager
def as_exceptions() -> Iterator[None]:
    """Turn SIGTERM into `SystemExit(143)` and ctrl-C into `KeyboardInterrupt`, once.

    A caller's own handler stays, and so does everything outside of the main thread.
    """
    main = threading.current_thread() is threading.main_thread()
    default: dict[signal.Signals, Any] = {
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGINT: signal.default_int_handler,
    }
    taken = [one for one in _SIGNALS if main and signal.getsignal(one) is default[one]]
    if _state.installed or not taken:
        yield
        return
    _state.installed, _state.seen = True, None
    for one in taken:
        signal.signal(one, _handle)
    try:
        yield
    finally:
        _state.installed = False
        for one in taken:
            signal.signal(one, default[one])


@contextmanager
def shielded() -> Iterator[None]:
    """Let a signal wait for the end of a block, if it comes in the main thread meanwhile."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _raise_seen()
    _state.shields += 1
    try:
        yield
    finally:
        _state.shields -= 1
    _raise_seen()


@contextmanager
def kept_handlers() -> Iterator[None]:
    """Keep this process's handlers of SIGTERM and SIGINT, whatever a library puts in their place.

    In the C library, since Python lets no other thread than the main one change a handler; and
    again and again, since a signal may come before the block ends.
    """
    library = ctypes.CDLL(None)
    saved = {one: ctypes.create_string_buffer(_SIGACTION_BYTES) for one in _SIGNALS}
    for one, action in saved.items():
        library.sigaction(int(one), None, action)
    over = threading.Event()

    def restore() -> None:
        for one, action in saved.items():
            library.sigaction(int(one), action, None)

    def keep() -> None:
        while not over.wait(_AGAIN_S):
            restore()

    keeper = threading.Thread(target=keep, name="signal handlers", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()
        restore()


def _handle(number: int, _frame: FrameType | None) -> None:
    first = _state.seen is None
    if first:
        _state.seen = number
    if first and not _state.shields:
        _raise(number)


def _raise_seen() -> None:
    """Raise for a signal that came before: it waited, or its exception was lost on the way."""
    if _state.installed and not _state.shields and _state.seen is not None:
        _raise(_state.seen)


def _raise(number: int) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
