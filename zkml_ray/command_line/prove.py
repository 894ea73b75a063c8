"""Commands that prove: prove, resume, demo."""

from __future__ import annotations

import json
import os
import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from zkml_ray.command_line.options import (
    Address,
    AllowLeakyNative,
    CircuitOptions,
    Crew,
    Detail,
    Input,
    InputsOption,
    Json,
    LayersPerChunk,
    MaxErrorOption,
    Memory,
    Model,
    NewRun,
    PassOptions,
    Place,
    PrivateInput,
    Proving,
    RunArgument,
    Scale,
    StoreKeysOption,
    StoreOption,
    Workers,
    plan_options,
)
from zkml_ray.command_line.terminal import (
    print_json,
    program,
    say,
    say_commands,
    say_verdict,
    stderr,
    stdout,
)
from zkml_ray.errors import ConfigError
from zkml_ray.words import counted

if TYPE_CHECKING:
    from zkml_ray.api import Run
    from zkml_ray.report.progress import Progress


def prove(
    model: Model,
    *,
    inputs: Input = None,
    many: InputsOption = None,
    crew: Crew,
    place: Place,
    run: NewRun = None,
    scale: Scale = 10,
    layers_per_chunk: LayersPerChunk = None,
    memory: Memory = None,
    circuits: CircuitOptions,
    passes: PassOptions,
    salt_seed: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--salt-seed", help="Draw salts from this text (reproducible, guessable)."),
    ] = None,
    reveal: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--reveal", help="Boundary to reveal; may be repeated [inputs, outputs]."),
    ] = None,
    private_input: PrivateInput = False,
    allow_leaky_native: AllowLeakyNative = False,
    keep_checkpoints: Annotated[
        str, typer.Option("--keep-checkpoints", help="yes or no: boundary values, for `open`.")
    ] = "yes",
    seed: Annotated[int, typer.Option("--seed", help="Seed of the random input.")] = 0,
    store_keys: StoreKeysOption = "verifying",
    max_error: MaxErrorOption = None,
    address: Address = None,
    detail: Detail,
    json_: Json = False,
) -> None:
    """Prove an inference, or many, link its chunks, verify it and store it."""
    from zkml_ray.api import prove_distributed
    from zkml_ray.prover import prove_many

    detail = detail.checked()
    if keep_checkpoints not in ("yes", "no"):
        raise ConfigError(f"--keep-checkpoints is yes or no, not {keep_checkpoints}")
    proving = Proving(
        crew=crew, place=place, store_keys=store_keys, max_error=max_error, address=address
    )
    options = plan_options(
        scale,
        circuits,
        passes,
        layers_per_chunk=layers_per_chunk,
        workers=crew.workers,
        memory=memory,
    )
    if many is not None:
        if inputs is not None:
            raise ConfigError("--input is one input, --inputs are many: give one of them")
        if salt_seed is not None:
            raise ConfigError("--salt-seed is for one input: with many, leave it out")
        with following(json_) as progress:
            results = prove_many(
                model,
                many,
                run_id=run,
                options=options,
                reveal=reveal,
                private_input=private_input,
                allow_leaky_native=allow_leaky_native,
                keep_checkpoints=keep_checkpoints == "yes",
                **proving.arguments(),
                command=["zkml-ray", *sys.argv[1:]],
                listener=progress,
                progress=None,
            )
        show_runs(results, json_)
        return
    with following(json_) as progress:
        result = prove_distributed(
            model,
            inputs=inputs,
            run_id=run,
            options=options,
            reveal=reveal,
            private_input=private_input,
            allow_leaky_native=allow_leaky_native,
            salt_seed=None if salt_seed is None else salt_seed.encode(),
            keep_checkpoints=keep_checkpoints == "yes",
            **proving.arguments(),
            seed=seed,
            command=["zkml-ray", *sys.argv[1:]],
            listener=progress,
            progress=None,
        )
    show_run(result, json_, detail, crew.workers)


def resume(
    run: RunArgument,
    *,
    crew: Crew,
    place: Place,
    store_keys: StoreKeysOption = "verifying",
    max_error: MaxErrorOption = None,
    address: Address = None,
    detail: Detail,
    json_: Json = False,
) -> None:
    """Continue a run that was begun, on any machine that reaches its store."""
    proving = Proving(
        crew=crew, place=place, store_keys=store_keys, max_error=max_error, address=address
    )
    go_on(run, proving, json_, detail.checked())


def go_on(run: str, proving: Proving, json_: bool, detail: Detail | None = None) -> None:
    """Do what a run lacks, and print the finished run."""
    from zkml_ray.api import resume as resume_run

    with following(json_) as progress:
        result = resume_run(run, **proving.arguments(), listener=progress, progress=None)
    show_run(result, json_, detail, proving.crew.workers)


@contextmanager
def following(json_: bool) -> Iterator[Progress]:
    """Progress on stderr, without what is told at the end where people read that."""
    from zkml_ray.errors import InsecureSrsWarning
    from zkml_ray.events import INSECURE_SRS_WARNING
    from zkml_ray.report.progress import Progress

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InsecureSrsWarning)
        with Progress(stderr, told_later=() if json_ else (INSECURE_SRS_WARNING,)) as progress:
            yield progress


def demo(
    workers: Workers = 2,
    digit: Annotated[str, typer.Option("--digit", help="zero, one, ... nine.")] = "seven",
    store: StoreOption = None,
) -> None:
    """Prove a real handwritten digit on two workers, then verify it as an outsider."""
    from zkml_ray.api import prove_distributed
    from zkml_ray.command_line.tables import answer_lines, run_table, verdict_lines
    from zkml_ray.verification import verify as verify_run

    folder = Path(__file__).resolve().parents[2] / "examples" / "digits"
    model, image = folder / "digits.onnx", folder / f"{digit}.json"
    if not model.is_file():
        raise ConfigError("the demo needs a checkout of the repository, with examples/digits")
    if not image.is_file():
        raise ConfigError(f"there is no image {digit}; the digits are zero, one, ... nine")
    _draw(image)
    with following(False) as progress:
        result = prove_distributed(
            model, workers, image, store=store, listener=progress, progress=None
        )
    say(*answer_lines(result)[1:])
    stdout.print(run_table(result))
    verdict = verify_run(result.run_id, store=result.store, model=model, allow_insecure_srs=True)
    say_verdict(verdict_lines(verdict))
    _say_next(result, model, store)


def _say_next(result: Run, model: Path, store: str | None) -> None:
    """Print what to try with the demo's run: commands that work as they are."""
    me, run = program(), result.run_id
    where = "" if store is None else f" --store {shlex.quote(store)}"
    path = os.path.relpath(model)
    own = shlex.quote(path if len(path) < len(str(model)) else str(model))
    inner = next((b.name for b in result.plan.boundaries if b.producer and b.consumers), None)
    output = inner or result.plan.model_outputs[0]
    say("", "Next, try:")
    say_commands(
        f"{me} runs{where}",
        f"{me} show {run}{where}",
        f"{me} verify {run} --model {own} --allow-insecure-srs{where}",
        f"{me} open {run} --boundary {shlex.quote(output)} --index 0 --out opening.json{where}",
        f"{me} bundle {run} {run}.zip{where}",
        f"{me} verify {run}.zip --plan-digest {result.plan_digest} --allow-insecure-srs",
    )
    if find_spec("vl_convert") is not None and find_spec("jinja2") is not None:
        say_commands(f"{me} report {run} --open{where}")


def show_run(
    result: Run, json_: bool, detail: Detail | None = None, workers: int | None = None
) -> None:
    """Print a finished run: that it verifies and its answer first.

    Args:
        result: The run.
        json_: One JSON object instead.
        detail: How much to tell.
        workers: How many there were; those that had nothing to do are told of.
    """
    from zkml_ray.command_line.tables import (
        answer_lines,
        boundary_table,
        run_summary,
        run_table,
        verdict_lines,
    )

    if json_:
        print_json(_run_document(result))
        return
    detail = detail or Detail()
    say_verdict(answer_lines(result))
    if detail.quiet:
        return
    say(*run_summary(result, workers))
    stdout.print(run_table(result))
    if detail.verbose:
        stdout.print(boundary_table(result.plan))
        say(*verdict_lines(result.verdict, verbose=True)[1:])


def show_runs(results: Sequence[Run], json_: bool) -> None:
    """Print finished runs of many inputs."""
    from zkml_ray.command_line.tables import runs_table, srs_line

    if json_:
        print_json({"runs": [_run_document(result) for result in results]})
        return
    stdout.print(runs_table(results))
    first = results[0]  # all have one plan and one SRS
    say(f"{counted(len(results), 'run')} proved, verified and stored in {first.store}.")
    say(f"Plan digest {first.plan_digest}", srs_line(first.manifest.srs_trust))


def _run_document(result: Run) -> dict[str, Any]:
    return {
        "run_id": result.run_id,
        "project": result.project,
        "store": result.store,
        "verified": result.verified,
        "plan_digest": result.plan_digest,
        "srs_trust": result.manifest.srs_trust,
        "resumed": list(result.resumed),
        "outputs": {name: value.tolist() for name, value in result.outputs.items()},
        "manifest": result.manifest.model_dump(mode="json"),
    }


def _draw(image: Path) -> None:
    pixels = json.loads(image.read_text())["input_data"][0]
    shades = " .:-=+*#%@"
    for row in range(8):
        line = pixels[8 * row : 8 * row + 8]
        stdout.print("  " + "".join(shades[min(9, int(v * 9.99))] * 2 for v in line), markup=False)
