"""zkml-o3-runner: one run, stage by stage, each stage in a process (and on a machine) of its own.

    prepare -> compile -> setup    -> prove -> verify
                       -> witness  ->

Every stage fetches what it lacks from the store and stores what it makes; stages share nothing
else. A stage whose predecessors are missing does them first: what is stored already is not made
again. `run` is all of them, `resume` the rest of them. A run of one chunk, the default here, is a
run like any other: it is what `zkml-ray` resumes, verifies, fetches and opens.

| stage | stores |
|---|---|
| prepare | the model, the input, the request |
| compile | the plan, each chunk's model and settings |
| setup | the SRS and the keys (`--store-keys`); needs the plan |
| witness | every boundary's values and salts (private); needs the plan |
| prove | each chunk's verifying key, record and proof; makes the keys it does not find |
| verify | the sealed plan, and last the manifest |

The compiled circuit is not stored: its bytes differ from one compilation to the next, and it is
made in a fraction of a second.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from zkml_ray.command_line.plan import plan_options
from zkml_ray.command_line.prove import show_run, store_keys_option
from zkml_ray.command_line.terminal import (
    Address,
    Circuits,
    Dim,
    Json,
    Model,
    NoSalt,
    Project,
    RangeBits,
    Scale,
    Store,
    StoreKeysOption,
    Threads,
    Workers,
    print_json,
    run_app,
    stderr,
    stdout,
)
from zkml_ray.command_line.verify import verify as verify_command
from zkml_ray.config import default_store_url
from zkml_ray.errors import ConfigError

if TYPE_CHECKING:
    from zkml_ray.run.coordinator import Until
    from zkml_ray.run.housekeeping import StoredRun
    from zkml_ray.stages.plan import PlanOptions

WHOLE_MODEL = 1 << 20
"""Weighted operators per chunk: more than any model has."""

app = typer.Typer(
    name="zkml-o3-runner",
    help="Prove an ONNX model stage by stage, with all that a stage makes in an object store.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Run = Annotated[str, typer.Option("--run", help="Id of the run.", show_default=False)]
NewRun = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--run", help="Id of the run [default: a new one]."),
]
Input = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--input", "-i", help=".json (ezkl input_data), .npy or .npz [random]."),
]
Chunks = Annotated[
    str, typer.Option("--chunks", help="one: the whole model is one circuit; layers: one a layer.")
]
PrivateInput = Annotated[
    bool, typer.Option("--private-input", help="Prove without revealing the input.")
]
TrustedModel = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--model", help="Trust root: your copy of the ONNX file."),
]
TrustedDigest = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--plan-digest", help="Trust root: digest of a plan someone re-built."),
]
AllowInsecure = Annotated[
    bool,
    typer.Option("--allow-insecure-srs", help="Accept a generated SRS (its maker can forge)."),
]


@app.command()
def prepare(
    model: Model,
    inputs: Input = None,
    run: NewRun = None,
    chunks: Chunks = "one",
    scale: Scale = 10,
    dim: Dim = None,
    no_salt: NoSalt = False,
    circuits: Circuits = "auto",
    range_bits: RangeBits = 5,
    private_input: PrivateInput = False,
    store: Store = None,
    project: Project = "default",
    json_: Json = False,
) -> None:
    """Store the model, the input and what is to be done with them."""
    from zkml_ray.api import prepare as prepare_run

    request = prepare_run(
        model,
        inputs,
        store=store,
        project=project,
        run_id=run,
        options=_options(chunks, scale, dim, no_salt, circuits, range_bits),
        private_input=private_input,
        command=["zkml-o3-runner", *sys.argv[1:]],
    )
    _show("prepare", _state(request.run_id, store, project), store, project, json_)


@app.command("compile")
def compile_(
    run: Run, store: Store = None, project: Project = "default", json_: Json = False
) -> None:
    """Cut the model into chunks and size their circuits."""
    _advance("plan", run, store=store, project=project, json_=json_)


@app.command()
def setup(
    run: Run,
    workers: Workers = 1,
    threads: Threads = None,
    store_keys: StoreKeysOption = "all",
    store: Store = None,
    project: Project = "default",
    address: Address = None,
    json_: Json = False,
) -> None:
    """Store the SRS, make the keys and store them."""
    _advance(
        "setup",
        run,
        workers=workers,
        threads=threads,
        store_keys=store_keys,
        store=store,
        project=project,
        address=address,
        json_=json_,
    )


@app.command()
def witness(
    run: Run, store: Store = None, project: Project = "default", json_: Json = False
) -> None:
    """Run the quantised model and store every boundary's values."""
    _advance("witness", run, store=store, project=project, json_=json_)


@app.command()
def prove(
    run: Run,
    workers: Workers = 1,
    threads: Threads = None,
    store_keys: StoreKeysOption = "all",
    store: Store = None,
    project: Project = "default",
    address: Address = None,
    json_: Json = False,
) -> None:
    """Prove every chunk that is not proved yet."""
    _advance(
        "prove",
        run,
        workers=workers,
        threads=threads,
        store_keys=store_keys,
        store=store,
        project=project,
        address=address,
        json_=json_,
    )


@app.command()
def verify(
    run: Run,
    model: TrustedModel = None,
    plan_digest: TrustedDigest = None,
    allow_insecure_srs: AllowInsecure = False,
    workers: Workers = 1,
    threads: Threads = None,
    store_keys: StoreKeysOption = "all",
    store: Store = None,
    project: Project = "default",
    address: Address = None,
    json_: Json = False,
) -> None:
    """Link and verify the proofs and write the manifest; with a trust root, verify as an outsider.

    A complete run is verified with a trust root alone, as zkml-ray verify does.
    """
    trusted = model is not None or plan_digest is not None
    if _state(run, store, project).state != "complete":
        _resume(run, workers, threads, store_keys, store, project, address, json_ and not trusted)
        if not trusted:
            return
    verify_command(
        run, store, project, model, plan_digest, allow_insecure_srs=allow_insecure_srs, json_=json_
    )


@app.command("run")
def run_(
    model: Model,
    inputs: Input = None,
    run: NewRun = None,
    chunks: Chunks = "one",
    scale: Scale = 10,
    dim: Dim = None,
    no_salt: NoSalt = False,
    circuits: Circuits = "auto",
    range_bits: RangeBits = 5,
    private_input: PrivateInput = False,
    workers: Workers = 1,
    threads: Threads = None,
    store_keys: StoreKeysOption = "all",
    store: Store = None,
    project: Project = "default",
    address: Address = None,
    json_: Json = False,
) -> None:
    """All stages."""
    from zkml_ray.api import prove_distributed
    from zkml_ray.command_line.tables import Progress

    with Progress(stderr) as progress:
        done = prove_distributed(
            model,
            workers,
            inputs,
            store=store,
            project=project,
            run_id=run,
            threads=threads,
            store_keys=store_keys_option(store_keys),
            options=_options(chunks, scale, dim, no_salt, circuits, range_bits),
            private_input=private_input,
            address=address,
            command=["zkml-o3-runner", *sys.argv[1:]],
            listener=progress,
        )
    show_run(done, json_)


@app.command()
def resume(
    run: Run,
    workers: Workers = 1,
    threads: Threads = None,
    store_keys: StoreKeysOption = "all",
    store: Store = None,
    project: Project = "default",
    address: Address = None,
    json_: Json = False,
) -> None:
    """Every stage that is not done."""
    found = _state(run, store, project)
    if found.state == "complete":
        _show("resume", found, store, project, json_)
    else:
        _resume(run, workers, threads, store_keys, store, project, address, json_)


def main() -> None:
    """Run `zkml-o3-runner`."""
    run_app(app, "zkml-o3-runner")


def _options(
    chunks: str,
    scale: int,
    dim: list[str] | None,
    no_salt: bool,
    circuits: str,
    range_bits: int,
) -> PlanOptions:
    if chunks not in ("one", "layers"):
        raise ConfigError(f"--chunks is one or layers, not {chunks}")
    layers_per_chunk = WHOLE_MODEL if chunks == "one" else 1
    return plan_options(
        scale, layers_per_chunk, dim, no_salt, circuits=circuits, range_bits=range_bits
    )


def _advance(
    until: Until,
    run: str,
    *,
    store: str | None,
    project: str,
    json_: bool,
    workers: int = 1,
    threads: int | None = None,
    store_keys: str = "verifying",
    address: str | None = None,
) -> None:
    from zkml_ray.api import advance
    from zkml_ray.command_line.tables import Progress

    if _state(run, store, project).state != "complete":
        with Progress(stderr) as progress:
            advance(
                run,
                until,
                store=store,
                project=project,
                workers=workers,
                threads=threads,
                store_keys=store_keys_option(store_keys),
                address=address,
                listener=progress,
            )
    stage = "compile" if until == "plan" else until
    _show(stage, _state(run, store, project), store, project, json_)


def _resume(
    run: str,
    workers: int,
    threads: int | None,
    store_keys: str,
    store: str | None,
    project: str,
    address: str | None,
    json_: bool,
) -> None:
    from zkml_ray.api import resume as resume_run
    from zkml_ray.command_line.tables import Progress

    with Progress(stderr) as progress:
        done = resume_run(
            run,
            store=store,
            project=project,
            workers=workers,
            threads=threads,
            store_keys=store_keys_option(store_keys),
            address=address,
            listener=progress,
        )
    show_run(done, json_)


def _state(run: str, store: str | None, project: str) -> StoredRun:
    from zkml_ray.run.housekeeping import describe_run
    from zkml_ray.stores import open_store
    from zkml_ray.stores.layout import RunLayout

    return describe_run(open_store(store or default_store_url()), RunLayout(project, run))


def _show(stage: str, found: StoredRun, store: str | None, project: str, json_: bool) -> None:
    from zkml_ray.stores import open_store

    if json_:
        print_json(
            {
                "stage": stage,
                "run_id": found.run_id,
                "project": project,
                "store": open_store(store or default_store_url()).url,
                "state": found.state,
                "chunks": found.chunks,
                "proofs": found.proofs,
            }
        )
        return
    planned = "not cut yet" if found.chunks is None else f"{found.chunks} chunks"
    line = f"{stage} done: run {found.run_id} is {found.state}, {planned}, {found.proofs} proved"
    stdout.print(line, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
