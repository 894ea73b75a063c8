"""Groups of options: a command that takes them is to its user as if each option stood there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Optional

import pytest
import typer
from typer.testing import CliRunner

from zkml_ray.command_line import cli, o3_runner
from zkml_ray.command_line.groups import add_commands, spelled_out

Name = Annotated[Optional[str], typer.Option("--name", help="A name.")]  # noqa: UP045
Size = Annotated[int, typer.Option("--size", "-s", help="A size.")]
Thing = Annotated[str, typer.Argument(help="A thing.")]
Loud = Annotated[bool, typer.Option("--loud", help="Loudly.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    name: Name = None
    size: Size = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallInner(Inner):
    size: Size = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    thing: Thing
    inner: SmallInner
    loud: Loud = False


def flat(thing: Thing, name: Name = None, size: Size = 1, loud: Loud = False) -> None:
    """Do it."""
    typer.echo(f"{thing} {name} {size} {loud}")


def grouped(*, outer: Outer) -> None:
    """Do it."""
    typer.echo(f"{outer.thing} {outer.inner.name} {outer.inner.size} {outer.loud}")


def invoked(command: Any, *arguments: str) -> tuple[int, str]:
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command("do")(command)
    done = CliRunner().invoke(app, arguments)
    return done.exit_code, done.output


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["x"], ["x", "--name", "n", "-s", "7", "--loud"], [], ["x", "--size", "two"]],
    ids=" ".join,
)
def test_group_is_to_its_user_what_its_options_are(arguments: list[str]) -> None:
    assert invoked(spelled_out(grouped), *arguments) == invoked(flat, *arguments)


def test_group_stands_where_the_command_takes_it_with_its_own_defaults() -> None:
    def command(first: Loud = False, *, inner: Inner, last: Thing) -> None:
        """Do it."""

    made = {one.name: one.default for one in _parameters(spelled_out(command))}
    assert list(made) == ["first", "name", "size", "last"]
    assert (made["size"], made["name"]) == (2, None)


def test_option_that_two_groups_hold_is_refused() -> None:
    def command(*, inner: Inner, outer: Outer) -> None:
        """Do it."""

    with pytest.raises(ValueError, match="duplicate parameter name"):
        spelled_out(command)


def test_commands_are_named_as_their_functions_with_dashes() -> None:
    def show_all_(loud: Loud = False) -> None:
        """Do it."""

    app = typer.Typer()
    add_commands(app, show_all_)
    assert [command.name for command in app.registered_commands] == ["show-all"]


def test_options_that_commands_share_read_alike_in_both_programs() -> None:
    """What one program says of an option, the other says too; but for defaults, which differ."""
    texts: dict[str, set[str]] = {}
    for app in (cli.app, o3_runner.app):
        group: Any = typer.main.get_command(app)
        for command in group.commands.values():
            for option in command.params:
                if option.param_type_name == "option" and "--help" not in option.opts:
                    texts.setdefault(option.opts[0], set()).add(option.help)
    different = {name for name, found in texts.items() if len(found) > 1}
    # A run is new, or one that there is; plan takes `--scale auto`; files differ, and so does what
    # is agreed to.
    assert different == {"--run", "--scale", "--out", "--yes"}


def _parameters(command: Any) -> list[Any]:
    return list(command.__signature__.parameters.values())
