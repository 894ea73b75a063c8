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
| witness | every boundary's values and salts (private); needs the plan; compares the outputs |
| prove | each chunk's verifying key, record and proof; makes the keys it does not find |
| verify | the sealed plan, and last the manifest |

The compiled circuit is not stored: its bytes differ from one compilation to the next, and it is
made in a fraction of a second.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from zkml_ray.command_line.demands import Demands
from zkml_ray.command_line.groups import add_commands
from zkml_ray.command_line.options import (
    AllowLeakyNative,
    CircuitOptions,
    Crew,
    Detail,
    Input,
    Json,
    MaxErrorOption,
    Model,
    NewRun,
    Place,
    PrivateInput,
    Proving,
    Scale,
    StoreKeysOption,
    Trust,
    Workers,
    max_error_option,
    plan_options,
)
from zkml_ray.command_line.prove import following, go_on, show_run
from zkml_ray.command_line.terminal import print_json, run_app, say
from zkml_ray.command_line.verify import verify as verify_run
from zkml_ray.errors import ConfigError
from zkml_ray.words import counted

if TYPE_CHECKING:
    from zkml_ray.run.coordinator import Until
    from zkml_ray.run.housekeeping import StoredRun
    from zkml_ray.stages.plan import PlanOptions

WHOLE_MODEL = 1 << 20
"""Weighted operators per chunk: more than any model has."""

Run = Annotated[str, typer.Option("--run", help="Id of the run.", show_default=False)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a run is asked to do."""

    model: Model
    inputs: Input = None
    run: NewRun = None
    chunks: Annotated[
        str,
        typer.Option("--chunks", help="one: the whole model is one circuit; layers: one a layer."),
    ] = "one"
    scale: Scale = 10
    circuits: CircuitOptions
    private_input: PrivateInput = False
    allow_leaky_native: AllowLeakyNative = False

    def options(self) -> PlanOptions:
        """Choices about the plan.

        Raises:
            ConfigError: One of them has no such value.
        """
        if self.chunks not in ("one", "layers"):
            raise ConfigError(f"--chunks is one or layers, not {self.chunks}")
        layers_per_chunk = WHOLE_MODEL if self.chunks == "one" else 1
        return plan_options(self.scale, self.circuits, layers_per_chunk=layers_per_chunk)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCrew(Crew):
    """One worker, for one circuit."""

    workers: Workers = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StageProving(Proving):
    """Proving keys stay in the store, for the stages to come on other machines."""

    crew: StageCrew
    store_keys: StoreKeysOption = "all"


def prepare(
    *, request: Request, max_error: MaxErrorOption = None, place: Place, json_: Json = False
) -> None:
    """Store the model, the input and what is to be done with them."""
    from zkml_ray.api import prepare as prepare_run

    stored = prepare_run(
        request.model,
        request.inputs,
        store=place.store,
        project=place.project,
        run_id=request.run,
        options=request.options(),
        private_input=request.private_input,
        max_error=max_error_option(max_error),
        allow_leaky_native=request.allow_leaky_native,
        command=["zkml-o3-runner", *sys.argv[1:]],
    )
    _show("prepare", _state(stored.run_id, place), place, json_)


def compile_(run: Run, *, place: Place, json_: Json = False) -> None:
    """Cut the model into chunks and size their circuits."""
    _advance("plan", run, _alone(place), json_)


def setup(run: Run, *, proving: StageProving, json_: Json = False) -> None:
    """Store the SRS, make the keys and store them."""
    _advance("setup", run, proving, json_)


def witness(
    run: Run, *, max_error: MaxErrorOption = None, place: Place, json_: Json = False
) -> None:
    """Run the quantised model, store every boundary's values, compare its outputs."""
    _advance("witness", run, _alone(place, max_error), json_)


def prove(run: Run, *, proving: StageProving, json_: Json = False) -> None:
    """Prove every chunk that is not proved yet."""
    _advance("prove", run, proving, json_)


def verify(
    run: Run,
    *,
    trust: Trust,
    demands: Demands,
    proving: StageProving,
    detail: Detail,
    json_: Json = False,
) -> None:
    """Link and verify the proofs and write the manifest; with a trust root, verify as an outsider.

    A complete run is verified with a trust root alone, as zkml-ray verify does.
    """
    trusted = trust.model is not None or trust.plan_digest is not None
    if _state(run, proving.place).state != "complete":
        go_on(run, proving, json_ and not trusted, detail)
        if not trusted:
            return
    verify_run(run, place=proving.place, trust=trust, demands=demands, detail=detail, json_=json_)


def run_(*, request: Request, proving: StageProving, detail: Detail, json_: Json = False) -> None:
    """All stages."""
    from zkml_ray.api import prove_distributed

    detail = detail.checked()
    with following(json_) as progress:
        done = prove_distributed(
            request.model,
            inputs=request.inputs,
            **proving.arguments(),
            run_id=request.run,
            options=request.options(),
            private_input=request.private_input,
            allow_leaky_native=request.allow_leaky_native,
            command=["zkml-o3-runner", *sys.argv[1:]],
            listener=progress,
            progress=None,
        )
    show_run(done, json_, detail, proving.crew.workers)


def resume(run: Run, *, proving: StageProving, json_: Json = False) -> None:
    """Every stage that is not done."""
    found = _state(run, proving.place)
    if found.state == "complete":
        _show("resume", found, proving.place, json_)
    else:
        go_on(run, proving, json_)


app = typer.Typer(
    name="zkml-o3-runner",
    help="Prove an ONNX model stage by stage, with all that a stage makes in an object store.",
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["--help", "-h"]},
)
add_commands(app, prepare, compile_, setup, witness, prove, verify, run_, resume)


def main() -> None:
    """Run `zkml-o3-runner`."""
    run_app(app, "zkml-o3-runner")


def _alone(place: Place, max_error: str | None = None) -> Proving:
    """For a stage that needs no worker and makes no keys."""
    return Proving(crew=StageCrew(), place=place, max_error=max_error)


def _advance(until: Until, run: str, proving: Proving, json_: bool) -> None:
    from zkml_ray.api import advance

    if _state(run, proving.place).state != "complete":
        with following(True) as progress:
            advance(run, until, **proving.arguments(), listener=progress)
    stage = "compile" if until == "plan" else until
    _show(stage, _state(run, proving.place), proving.place, json_)


def _state(run: str, place: Place) -> StoredRun:
    from zkml_ray.run.housekeeping import describe_run

    return describe_run(place.open(), place.layout(run))


def _show(stage: str, found: StoredRun, place: Place, json_: bool) -> None:
    if json_:
        print_json(
            {
                "stage": stage,
                "run_id": found.run_id,
                "project": place.project,
                "store": place.open().url,
                "state": found.state,
                "chunks": found.chunks,
                "proofs": found.proofs,
            }
        )
        return
    planned = "not cut yet" if found.chunks is None else counted(found.chunks, "chunk")
    say(f"{stage} done: run {found.run_id} is {found.state}, {planned}, {found.proofs} proved")


if __name__ == "__main__":
    main()
