"""Faults planted in the code that emits circuits, for as long as a test needs them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FunctionType, ModuleType
from typing import Any


@contextmanager
def planted(module: ModuleType, *edits: tuple[str, str]) -> Iterator[None]:
    """Have a module's functions compute something else.

    Args:
        module: Where the fault is.
        edits: What its source says, once, and what it is to say instead.
    """
    source = inspect.getsource(module)
    for right, wrong in edits:
        if source.count(right) != 1:
            raise ValueError(f"{module.__name__} says {source.count(right)} times: {right}")
        source = source.replace(right, wrong)
    namespace: dict[str, Any] = {"__name__": module.__name__}
    exec(compile(source, module.__file__ or "", "exec"), namespace)
    kept: list[tuple[FunctionType, CodeType]] = []
    for function, other in _pairs(vars(module), namespace, module.__name__):
        kept.append((function, function.__code__))
        function.__code__ = other.__code__
    try:
        yield
    finally:
        for function, code in kept:
            function.__code__ = code


def _pairs(own: Any, other: Any, module: str) -> Iterator[tuple[FunctionType, FunctionType]]:
    """Functions of two versions of a module or of a class, by name."""
    for name, value in own.items():
        if name not in other:
            continue
        twin = other[name]
        if isinstance(value, property):
            value, twin = value.fget, twin.fget
        if isinstance(value, classmethod | staticmethod):
            value, twin = value.__func__, twin.__func__
        if isinstance(value, FunctionType) and value.__module__ == module:
            yield value, twin
        elif isinstance(value, type) and value.__module__ == module:
            yield from _pairs(vars(value), vars(twin), module)
