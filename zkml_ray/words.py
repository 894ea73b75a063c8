"""Numbers as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB")


def counted(number: int, one: str, many: str = "") -> str:
    """A number and what it counts: "1 chunk", "36 chunks"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listed(words: Sequence[str]) -> str:
    """Words with commas and a last "and"."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def shape_of(shape: Sequence[int]) -> str:
    """A shape as in 1 x 8 x 8."""
    return " x ".join(map(str, shape)) or "a scalar"


def seconds_in_words(seconds: float) -> str:
    """A duration: "0.42 s", "12.3 s", "3 min 20 s", "2 h 5 min"."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def size_in_words(size_bytes: float) -> str:
    """A size: "388 bytes", "12.1 KiB"."""
    for unit in _UNITS:
        if size_bytes < 1024 or unit == _UNITS[-1]:
            break
        size_bytes /= 1024
    return f"{size_bytes:.0f} bytes" if unit == "bytes" else f"{size_bytes:,.1f} {unit}"
