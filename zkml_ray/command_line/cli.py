"""The command line of zkml-ray.

Its commands: demo, plan, prove, calibrate, operators, resume, report, show, compare, verify,
bundle, export, open, verify-opening, runs, fetch, gc, rm, doctor.

The commands lie in `plan`, `prove`, `report`, `verify` and `store` beside this module, their
options in `options`; how they tell results and failures, exit codes among it, in `terminal`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from zkml_ray import __version__
from zkml_ray.command_line import plan, prove, report, store, verify
from zkml_ray.command_line.groups import add_commands
from zkml_ray.command_line.terminal import run_app, stdout

app = typer.Typer(
    name="zkml-ray",
    help=(
        "Prove ONNX models chunk by chunk on Ray workers, link the proofs by Poseidon-Merkle "
        "commitments, and verify stored runs.\n\n"
        "Start with: zkml-ray demo"
    ),
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["--help", "-h"]},
)

add_commands(
    app,
    prove.demo,
    plan.plan,
    prove.prove,
    plan.calibrate,
    plan.operators,
    prove.resume,
    report.report,
    report.show,
    report.compare,
    verify.verify,
    verify.bundle,
    verify.export,
    verify.open_,
    verify.verify_opening,
    store.runs,
    store.fetch,
    store.gc,
    store.rm,
    store.doctor,
)


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", "-V", help="Show the version.")] = False,
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
