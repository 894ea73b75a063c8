"""The fields of a document, from its schema, and every way to damage one.

A path names a field: "chunks.[].setup.started_s". "[]" stands for the items of an array and "{}"
for the values of an object with free keys.
"""

from __future__ import annotations

import copy
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

Place = tuple[str | int, ...]


def walk(model: type[BaseModel]) -> tuple[set[str], set[str]]:
    """Paths of a document's values, and of its arrays and free objects."""
    values: set[str] = set()
    containers: set[str] = set()
    for name, field in model.model_fields.items():
        _walk(field.annotation, name, values, containers)
    return values, containers


def _walk(annotation: Any, path: str, values: set[str], containers: set[str]) -> None:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        _walk(arguments[0], path, values, containers)
    elif origin in (typing.Union, types.UnionType):
        for argument in arguments:
            if argument is not type(None):
                _walk(argument, path, values, containers)
    elif origin is tuple:
        containers.add(path)
        for argument in arguments:
            if argument is not Ellipsis:
                _walk(argument, f"{path}.[]", values, containers)
    elif origin is dict:
        containers.add(path)
        _walk(arguments[1], f"{path}.{{}}", values, containers)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            _walk(field.annotation, f"{path}.{name}", values, containers)
    else:
        values.add(path)


def places(document: Any, path: str) -> list[Place]:
    """Where a path occurs in a document."""
    found: list[Place] = [()]
    for part in path.split("."):
        following: list[Place] = []
        for place in found:
            node = look(document, place)
            if part == "[]" and isinstance(node, list):
                following += [(*place, index) for index in range(len(node))]
            elif part == "{}" and isinstance(node, dict):
                following += [(*place, key) for key in node]
            elif isinstance(node, dict) and part in node:
                following.append((*place, part))
        found = following
    return found


def look(document: Any, place: Place) -> Any:
    """What lies at a place."""
    for part in place:
        document = document[part]
    return document


def set_at(document: Any, place: Place, value: Any) -> Any:
    """A copy of a document with another value at a place."""
    changed = copy.deepcopy(document)
    look(changed, place[:-1])[place[-1]] = value
    return changed


def changed(value: Any) -> Any:
    """Another value of the same type and form."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if value is None:
        return 1
    if not isinstance(value, str):
        raise TypeError(type(value))
    if len(value) >= 64 and set(value) <= set("0123456789abcdef"):
        return ("1" if value[0] == "0" else "0") + value[1:]
    if value in ("insecure", "ceremony"):
        return "ceremony" if value == "insecure" else "insecure"
    if value in ("given", "random"):
        return "given" if value == "random" else "random"
    if value.startswith("chunk-"):
        return "chunk-077"
    if value.startswith("zkml_ray/"):
        return value[:-1] + "0"
    return value + "x"


@dataclass(frozen=True, slots=True)
class Damage:
    """One damaged document.

    Attributes:
        how: What was done.
        document: The result.
    """

    how: str
    document: Any


def malformed(document: Any, place: Place) -> Iterator[Damage]:
    """Ways to damage a value that no schema admits."""
    value = look(document, place)
    where = ".".join(map(str, place))
    wrong = 7 if isinstance(value, str) else "x"
    yield Damage(f"{where} of another type", set_at(document, place, wrong))
    yield Damage(f"{where} an object", set_at(document, place, {}))
    if isinstance(value, int) and not isinstance(value, bool):
        yield Damage(f"{where} huge", set_at(document, place, float(1 << 80)))
    if isinstance(place[-1], str):
        yield Damage(f"a stranger beside {where}", set_at(document, (*place[:-1], "stranger"), 1))


def rearranged(document: Any, place: Place) -> Iterator[Damage]:
    """An array or free object with a member dropped, repeated or moved."""
    value = look(document, place)
    where = ".".join(map(str, place))
    if isinstance(value, dict):
        for key in value:
            fewer = {k: v for k, v in value.items() if k != key}
            yield Damage(f"drop {key} of {where}", set_at(document, place, fewer))
        return
    if value:
        yield Damage(f"drop of {where}", set_at(document, place, value[1:]))
        yield Damage(f"repeat of {where}", set_at(document, place, [*value, value[-1]]))
    if len(value) > 1 and value[0] != value[1]:
        moved = [value[1], value[0], *value[2:]]
        yield Damage(f"swap of {where}", set_at(document, place, moved))
