"""What a network is to the exporters: its family, and how it is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A network with random weights.

    Attributes:
        name: Its name, a file's.
        family: What it is counted under.
        build: Makes it: the module or fitted estimator, and the inputs to export it with.
    """

    name: str
    family: str
    build: Callable[[], tuple[Any, tuple[Any, ...]]]


def collected(
    family: str, builders: dict[str, Callable[[], tuple[Any, tuple[Any, ...]]]]
) -> list[Architecture]:
    """The architectures of one family."""
    return [Architecture(name=n, family=family, build=b) for n, b in builders.items()]
