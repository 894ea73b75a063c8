"""The command line of zkml-ray.

Its commands: demo, plan, calibrate, prove, resume, verify, bundle, export, open, verify-opening,
runs, fetch, gc, rm, doctor.

The commands lie in `commands_plan`, `commands_prove`, `commands_verify` and `commands_store`; what
they share, exit codes among it, in `terminal`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from zkml_ray import __version__, commands_plan, commands_prove, commands_store, commands_verify
from zkml_ray.terminal import run_app, stdout

app = typer.Typer(
    name="zkml-ray",
    help=(
        "Prove ONNX models chunk by chunk on Ray workers, link the proofs by Poseidon-Merkle "
        "commitments, and verify stored runs.\n\n"
        "Start with: zkml-ray demo"
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.command()(commands_prove.demo)
app.command()(commands_plan.plan)
app.command()(commands_prove.prove)
app.command()(commands_plan.calibrate)
app.command()(commands_prove.resume)
app.command()(commands_verify.verify)
app.command()(commands_verify.bundle)
app.command()(commands_verify.export)
app.command("open")(commands_verify.open_)
app.command("verify-opening")(commands_verify.verify_opening)
app.command()(commands_store.runs)
app.command()(commands_store.fetch)
app.command()(commands_store.gc)
app.command()(commands_store.rm)
app.command()(commands_store.doctor)


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Options before the command."""
    if version:
        stdout.print(f"zkml-ray {__version__}", highlight=False)
        raise typer.Exit


def main() -> None:
    """Run `zkml-ray`."""
    run_app(app, "zkml-ray")


if __name__ == "__main__":
    main()
