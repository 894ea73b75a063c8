"""Groups of options: declared once, as a frozen dataclass, and taken by any command as one value.

Typer reads a command's options off its parameters, one each. What stands in several commands is a
dataclass here whose fields are options or groups again; a command takes it as one parameter that
has to be given, and `add_commands` shows Typer the fields in its place. Nothing else is added: what
a command's parameters say, help and order among it, is what its users see. A group may name a
panel of the help, `PANEL`, that its options stand in.
"""

from __future__ import annotations

import copy
import inspect
import operator
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, ClassVar, get_args, get_origin, get_type_hints

import typer
from rich.markup import escape
from typer.models import ArgumentInfo, OptionInfo

Command = Callable[..., None]


def add_commands(app: typer.Typer, *commands: Command) -> None:
    """Add commands to a command line, in the order of its help.

    A command is named as its function, with dashes and without a last underscore.
    """
    for command in commands:
        name = command.__name__.rstrip("_").replace("_", "-")
        app.command(name)(spelled_out(command))


def spelled_out(command: Command) -> Command:
    """The same command, with the fields of its groups for parameters.

    Raises:
        ValueError: Two of its options have one name.
    """
    # Not get_type_hints: on Python 3.10 it hides an option whose default is None in an Optional.
    taken = inspect.signature(command, eval_str=True).parameters.values()
    parameters = [
        each for one in taken for each in _spelled_out(one.name, one.annotation, one.default)
    ]

    def run(**given: Any) -> None:
        command(**{one.name: _gathered(one.name, one.annotation, given) for one in taken})

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def _spelled_out(
    name: str, hint: Any, default: object, panel: str | None = None
) -> Iterator[inspect.Parameter]:
    if not is_dataclass(hint):
        kind = inspect.Parameter.KEYWORD_ONLY
        yield inspect.Parameter(name, kind, default=default, annotation=_shown(hint, panel))
        return
    panel = getattr(hint, "PANEL", panel)
    hints = get_type_hints(hint, include_extras=True)
    for field in fields(hint):
        absent = field.default is MISSING
        value = inspect.Parameter.empty if absent else field.default
        yield from _spelled_out(field.name, hints[field.name], value, panel)


def _shown(hint: Any, panel: str | None) -> Any:
    """An option as its help shows it: in its group's panel, brackets as they are."""
    if get_origin(hint) is not Annotated:
        return hint
    kind, *notes = get_args(hint)
    shown = []
    for note in notes:
        if isinstance(note, OptionInfo | ArgumentInfo):
            note = copy.copy(note)
            note.help = None if note.help is None else escape(note.help)
            if isinstance(note, OptionInfo) and note.rich_help_panel is None:
                note.rich_help_panel = panel
        shown.append(note)
    return operator.getitem(Annotated, (kind, *shown))


def _gathered(name: str, hint: Any, given: dict[str, Any]) -> Any:
    if not is_dataclass(hint):
        return given[name]
    hints = _options(hint)
    values = {each: _gathered(each, hints[each], given) for each in hints}
    return hint(**values)  # type: ignore[operator]


def _options(hint: Any) -> dict[str, Any]:
    """A group's fields and their annotations; what belongs to its class is none."""
    hints = get_type_hints(hint, include_extras=True)
    return {name: each for name, each in hints.items() if get_origin(each) is not ClassVar}
