"""Commands that prove or prepare it: prove, resume, plan, calibrate, demo."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from zkml_ray.errors import ConfigError
from zkml_ray.terminal import (
    Address,
    Dim,
    Json,
    LayersPerChunk,
    Memory,
    Model,
    NoSalt,
    ProfileOption,
    Project,
    RunArgument,
    Scale,
    Store,
    StoreKeysOption,
    Threads,
    Workers,
    print_json,
    stderr,
    stdout,
)

if TYPE_CHECKING:
    from zkml_ray.api import Run
    from zkml_ray.stages.plan import PlanOptions
    from zkml_ray.stages.setup import StoreKeys


def prove(
    model: Model,
    inputs: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--input", "-i", help=".json (ezkl input_data), .npy or .npz [random]."),
    ] = None,
    workers: Workers = 2,
    threads: Threads = None,
    store: Store = None,
    project: Project = "default",
    run: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--run", help="Id of the run [default: a new one]."),
    ] = None,
    scale: Scale = 10,
    layers_per_chunk: LayersPerChunk = None,
    memory: Memory = None,
    dim: Dim = None,
    no_salt: NoSalt = False,
    salt_seed: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--salt-seed", help="Draw salts from this text (reproducible, guessable)."),
    ] = None,
    reveal: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--reveal", help="Boundary to reveal; may be repeated [inputs, outputs]."),
    ] = None,
    private_input: Annotated[
        bool, typer.Option("--private-input", help="Prove without revealing the input.")
    ] = False,
    keep_checkpoints: Annotated[
        str, typer.Option("--keep-checkpoints", help="yes or no: boundary values, for `open`.")
    ] = "yes",
    seed: Annotated[int, typer.Option("--seed", help="Seed of the random input.")] = 0,
    store_keys: StoreKeysOption = "verifying",
    address: Address = None,
    json_: Json = False,
) -> None:
    """Prove an inference, link its chunks, verify it and store it."""
    from zkml_ray.api import prove_distributed
    from zkml_ray.report import Progress

    if keep_checkpoints not in ("yes", "no"):
        raise ConfigError(f"--keep-checkpoints is yes or no, not {keep_checkpoints}")
    with Progress(stderr) as progress:
        result = prove_distributed(
            model,
            workers,
            inputs,
            store=store,
            project=project,
            run_id=run,
            threads=threads,
            options=plan_options(scale, layers_per_chunk, dim, no_salt, workers, memory),
            reveal=reveal,
            private_input=private_input,
            salt_seed=None if salt_seed is None else salt_seed.encode(),
            keep_checkpoints=keep_checkpoints == "yes",
            store_keys=store_keys_option(store_keys),
            seed=seed,
            address=address,
            command=["zkml-ray", *sys.argv[1:]],
            listener=progress,
        )
    show_run(result, json_)


def resume(
    run: RunArgument,
    workers: Workers = 2,
    threads: Threads = None,
    store: Store = None,
    project: Project = "default",
    store_keys: StoreKeysOption = "verifying",
    address: Address = None,
    json_: Json = False,
) -> None:
    """Continue a run that was begun, on any machine that reaches its store."""
    from zkml_ray.api import resume as resume_run
    from zkml_ray.report import Progress

    with Progress(stderr) as progress:
        result = resume_run(
            run,
            store=store,
            project=project,
            workers=workers,
            threads=threads,
            store_keys=store_keys_option(store_keys),
            address=address,
            listener=progress,
        )
    show_run(result, json_)


def plan(
    model: Model,
    scale: Scale = 10,
    layers_per_chunk: LayersPerChunk = None,
    workers: Workers = 2,
    memory: Memory = None,
    dim: Dim = None,
    no_salt: NoSalt = False,
    verify_keys: Annotated[
        bool,
        typer.Option(
            "--verify-keys", help="Make the verifying keys; show the digest for --plan-digest."
        ),
    ] = False,
    threads: Threads = None,
    profile: ProfileOption = None,
    dot: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--dot", help="Write the chunk graph to a file, in Graphviz's language."),
    ] = None,
    json_: Json = False,
) -> None:
    """Show how a model would be cut, and what its circuits need. Proves nothing."""
    from zkml_ray.chunking.load import load_model
    from zkml_ray.cost.model import CostModel
    from zkml_ray.cost.profiles import load_profile
    from zkml_ray.execution import checked_threads
    from zkml_ray.report import (
        boundary_table,
        dot_graph,
        forecast_lines,
        plan_document,
        plan_table,
        srs_line,
    )
    from zkml_ray.sealing import seal
    from zkml_ray.stages.plan import plan as make_plan

    options = plan_options(scale, layers_per_chunk, dim, no_salt, workers, memory)
    prices = CostModel(profile=load_profile(profile), threads=checked_threads(workers, threads))
    derived = make_plan(load_model(model), options, prices.profile)
    made, forecast = derived.plan, prices.forecast(derived)
    sealed = seal(derived) if verify_keys else None
    if dot is not None:
        dot.write_text(dot_graph(made, forecast), encoding="utf-8")
    if json_:
        document = plan_document(made, forecast)
        if sealed is not None:
            document |= {"plan_digest": sealed.digest(), "srs_trust": sealed.srs_trust()}
        print_json(document)
        return
    stdout.print(plan_table(made, forecast))
    stdout.print(boundary_table(made))
    for line in forecast_lines(forecast):
        stdout.print(line, markup=False, highlight=False, soft_wrap=True)
    stdout.print(f"Unsealed digest {made.digest()}", highlight=False, soft_wrap=True)
    if sealed is not None:
        stdout.print(f"Plan digest {sealed.digest()}", highlight=False, soft_wrap=True)
        stdout.print(srs_line(sealed.srs_trust()), highlight=False, soft_wrap=True)


def calibrate(
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--out", help="Where the profile goes [this machine's cache]."),
    ] = None,
    json_: Json = False,
) -> None:
    """Measure this machine's prices by proving small circuits; takes some minutes."""
    from zkml_ray.cluster.session import ray_session
    from zkml_ray.cluster.worker import idle_worker_bytes
    from zkml_ray.cost.calibrate import calibrate as measure
    from zkml_ray.cost.profiles import save_profile

    def tell(line: str) -> None:
        stderr.print(line, markup=False, highlight=False, soft_wrap=True)

    with ray_session(cpus=1, address="local"):
        worker_bytes = idle_worker_bytes()
    tell(f"an idle worker takes {worker_bytes >> 20} MiB")
    profile, measured = measure(worker_bytes=worker_bytes, tell=tell)
    path = save_profile(profile, out)
    if json_:
        print_json({"path": str(path), "profile": profile.model_dump(mode="json")})
        return
    stdout.print(f"{len(measured)} circuits measured; profile saved as {path}", soft_wrap=True)


def demo(
    workers: Workers = 2,
    digit: Annotated[str, typer.Option("--digit", help="zero, one, ... nine.")] = "seven",
    store: Store = None,
) -> None:
    """Prove a real handwritten digit on two workers, then verify it as an outsider."""
    from zkml_ray.api import prove_distributed
    from zkml_ray.report import Progress, verdict_lines
    from zkml_ray.verification import verify as verify_run

    folder = Path(__file__).resolve().parent.parent / "examples" / "digits"
    model, image = folder / "digits.onnx", folder / f"{digit}.json"
    if not model.is_file():
        raise ConfigError("the demo needs a checkout of the repository, with examples/digits")
    if not image.is_file():
        raise ConfigError(f"there is no image {digit}; the digits are zero, one, ... nine")
    _draw(image)
    with Progress(stderr) as progress:
        result = prove_distributed(
            model, workers, image, store=store, project="demo", listener=progress
        )
    show_run(result, json_=False)
    stdout.print()
    verdict = verify_run(
        result.run_id, store=result.store, project="demo", model=model, allow_insecure_srs=True
    )
    for line in verdict_lines(verdict):
        stdout.print(line, markup=False, highlight=False, soft_wrap=True)


def show_run(result: Run, json_: bool) -> None:
    """Print a finished run."""
    from zkml_ray.report import run_summary, run_table

    if json_:
        print_json(
            {
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
        )
        return
    stdout.print(run_table(result))
    for line in run_summary(result):
        stdout.print(line, markup=False, highlight=False, soft_wrap=True)


def plan_options(
    scale: int,
    layers_per_chunk: int | None,
    dim: list[str] | None,
    no_salt: bool,
    workers: int = 2,
    memory: str | None = None,
) -> PlanOptions:
    """The plan options that the command line gives."""
    from zkml_ray.config import parse_size
    from zkml_ray.stages.plan import PlanOptions

    return PlanOptions(
        scale=scale,
        layers_per_chunk=layers_per_chunk,
        workers=workers,
        memory_bytes=None if memory is None else parse_size("--memory", memory),
        dimensions=_dimensions(dim or []),
        salted=not no_salt,
    )


def _dimensions(pairs: list[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for pair in pairs:
        name, separator, value = pair.rpartition("=")
        if not separator or not (value.isascii() and value.isdecimal() and len(value) <= 10):
            raise ConfigError(f"--dim {pair} must look like NAME=VALUE, such as batch=1")
        found[name] = int(value)
    return found


def _draw(image: Path) -> None:
    pixels = json.loads(image.read_text())["input_data"][0]
    shades = " .:-=+*#%@"
    for row in range(8):
        line = pixels[8 * row : 8 * row + 8]
        stdout.print("  " + "".join(shades[min(9, int(v * 9.99))] * 2 for v in line), markup=False)


def store_keys_option(text: str) -> StoreKeys:
    """The value of --store-keys.

    Raises:
        ConfigError: There is no such value.
    """
    from zkml_ray.stages.setup import StoreKeys

    try:
        return StoreKeys(text)
    except ValueError:
        raise ConfigError(f"--store-keys is all, verifying or none, not {text}") from None
