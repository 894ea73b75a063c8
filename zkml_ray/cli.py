"""The command line: zkml-ray {demo,plan,prove,verify,runs}.

Results go to stdout, progress and errors to stderr. With --json, stdout holds one JSON object.
Exit codes: 0 fine, 1 verification failed, 2 bad usage or input, 3 infrastructure, 4 model not
supported.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.console import Console

from zkml_ray import __version__
from zkml_ray.config import default_store_url
from zkml_ray.errors import ConfigError, ExitCode, VerificationError, ZkmlRayError

if TYPE_CHECKING:
    from zkml_ray.api import Run

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

_stderr = Console(stderr=True)
_stdout = Console()

Model = Annotated[Path, typer.Argument(help="The ONNX file.", show_default=False)]
Store = Annotated[
    Optional[str],  # noqa: UP045  (typer on Python 3.10)
    typer.Option("--store", help="Folder or URL [default: ZKML_RAY_STORE or ./zkml-ray-store]."),
]
Project = Annotated[str, typer.Option("--project", help="Project in the store.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Scale = Annotated[
    int, typer.Option("--scale", help="Fixed-point bits after the point, inputs and weights.")
]
LayersPerChunk = Annotated[
    int, typer.Option("--layers-per-chunk", help="Weighted operators per chunk.")
]
Dim = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--dim", help="Value of a symbolic dimension, NAME=VALUE; may be repeated."),
]
NoSalt = Annotated[
    bool,
    typer.Option("--no-salt", help="Commit without salts: hidden activations can be guessed."),
]
Threads = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--threads", help="Prover threads per worker [default: cores / workers]."),
]
Address = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--address", help="Ray cluster [default: RAY_ADDRESS or a private one]."),
]
Workers = Annotated[int, typer.Option("--workers", "-w", help="Ray workers that prove.")]


def main() -> None:
    """Run the command line; every failure is one line on stderr and an exit code."""
    try:
        code = app(prog_name="zkml-ray", standalone_mode=False)
    except typer.Exit as leave:
        sys.exit(leave.exit_code)
    except VerificationError as error:
        _fail(error, ExitCode.VERIFICATION_FAILED)
    except ZkmlRayError as error:
        _fail(error, error.exit_code)
    except KeyboardInterrupt:
        _stderr.print("interrupted; what is stored stays, the run has no manifest")
        sys.exit(130)
    except OSError as error:
        _fail(error, ExitCode.INFRASTRUCTURE)
    except Exception as error:
        usage = getattr(error, "format_message", None)
        if usage is None:
            raise
        text = usage()
        if text.startswith("Usage:"):  # no arguments at all
            _stderr.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            line = " ".join(text.split())
            _stderr.print(
                f"error: {line} (zkml-ray --help shows the usage)", markup=False, soft_wrap=True
            )
        sys.exit(int(ExitCode.BAD_INPUT))
    sys.exit(code if isinstance(code, int) else 0)


@app.command()
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
    layers_per_chunk: LayersPerChunk = 1,
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
    address: Address = None,
    json_: Json = False,
) -> None:
    """Prove an inference, link its chunks, verify it and store it."""
    from zkml_ray.api import prove_distributed
    from zkml_ray.report import Progress

    if keep_checkpoints not in ("yes", "no"):
        raise ConfigError(f"--keep-checkpoints is yes or no, not {keep_checkpoints}")
    with Progress(_stderr) as progress:
        result = prove_distributed(
            model,
            workers,
            inputs,
            store=store,
            project=project,
            run_id=run,
            threads=threads,
            options=_plan_options(scale, layers_per_chunk, dim, no_salt),
            reveal=reveal,
            private_input=private_input,
            salt_seed=None if salt_seed is None else salt_seed.encode(),
            keep_checkpoints=keep_checkpoints == "yes",
            seed=seed,
            address=address,
            command=["zkml-ray", *sys.argv[1:]],
            listener=progress,
        )
    _show_run(result, json_)


@app.command()
def resume(
    run: Annotated[str, typer.Argument(help="Id of the run.", show_default=False)],
    workers: Workers = 2,
    threads: Threads = None,
    store: Store = None,
    project: Project = "default",
    address: Address = None,
    json_: Json = False,
) -> None:
    """Continue a run that was begun, on any machine that reaches its store."""
    from zkml_ray.api import resume as resume_run
    from zkml_ray.report import Progress

    with Progress(_stderr) as progress:
        result = resume_run(
            run,
            store=store,
            project=project,
            workers=workers,
            threads=threads,
            address=address,
            listener=progress,
        )
    _show_run(result, json_)


@app.command()
def verify(
    run: Annotated[str, typer.Argument(help="Id of the run.", show_default=False)],
    store: Store = None,
    project: Project = "default",
    model: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--model", help="Trust root: your copy of the ONNX file."),
    ] = None,
    plan_digest: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--plan-digest", help="Trust root: digest of a plan someone re-built."),
    ] = None,
    allow_insecure_srs: Annotated[
        bool,
        typer.Option("--allow-insecure-srs", help="Accept a generated SRS (its maker can forge)."),
    ] = False,
    json_: Json = False,
) -> None:
    """Verify a stored run, trusting nothing but the model or a plan digest."""
    from zkml_ray.api import verify as verify_run
    from zkml_ray.report import verdict_lines

    try:
        verdict = verify_run(
            run,
            store=store,
            project=project,
            model=model,
            plan_digest=plan_digest,
            allow_insecure_srs=allow_insecure_srs,
        )
    except VerificationError as error:
        if json_:
            _print_json(
                {
                    "ok": False,
                    "run_id": run,
                    "error": type(error).__name__,
                    "message": error.message,
                    "subject": error.subject,
                    "expected": error.expected,
                    "got": error.got,
                }
            )
        raise
    if json_:
        _print_json(
            {
                "ok": True,
                "run_id": verdict.run_id,
                "project": verdict.project,
                "plan_digest": verdict.plan_digest,
                "statement": verdict.statement,
                "revealed": {name: list(values) for name, values in verdict.revealed.items()},
                "srs_trust": verdict.srs_trust,
                "not_claimed": list(verdict.not_claimed),
                "steps": [{"name": s.name, "seconds": s.seconds} for s in verdict.steps],
            }
        )
        return
    for line in verdict_lines(verdict):
        _stdout.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command()
def plan(
    model: Model,
    scale: Scale = 10,
    layers_per_chunk: LayersPerChunk = 1,
    dim: Dim = None,
    no_salt: NoSalt = False,
    threads: Threads = None,
    json_: Json = False,
) -> None:
    """Show how a model would be cut, and what its circuits need. Proves nothing."""
    from zkml_ray.chunking.load import load_model
    from zkml_ray.report import boundary_table, makespans, plan_table
    from zkml_ray.stages.plan import plan as make_plan

    made = make_plan(load_model(model), _plan_options(scale, layers_per_chunk, dim, no_salt)).plan
    if json_:
        _print_json({"plan_digest": made.digest(), "plan": made.model_dump(mode="json")})
        return
    threads = threads or os.cpu_count() or 1
    _stdout.print(plan_table(made, threads))
    _stdout.print(boundary_table(made))
    _stdout.print(makespans(made, threads), soft_wrap=True)


@app.command()
def runs(store: Store = None, project: Project = "default", json_: Json = False) -> None:
    """List the runs of a project."""
    from zkml_ray.schema.manifest import Manifest
    from zkml_ray.stores import open_store
    from zkml_ray.stores.layout import RunLayout, stored_runs

    opened = open_store(store or default_store_url())
    found = []
    for run_id in stored_runs(opened, project):
        key = RunLayout(project, run_id).manifest
        manifest = Manifest.parse(opened.get(key, max_bytes=64 << 20), what=f"manifest of {run_id}")
        found.append(
            {
                "run_id": run_id,
                "created_at": manifest.created_at,
                "model": manifest.model_file,
                "chunks": len(manifest.chunks),
                "srs_trust": manifest.srs_trust,
                "plan_digest": manifest.plan_sha256,
            }
        )
    if json_:
        _print_json({"store": opened.url, "project": project, "runs": found})
        return
    if not found:
        _stdout.print(f"no runs in project {project} of {opened.url}", soft_wrap=True)
    for row in found:
        _stdout.print(
            f"{row['run_id']}  {row['created_at']}  {row['model']}  {row['chunks']} chunks  "
            f"SRS {row['srs_trust']}",
            highlight=False,
            soft_wrap=True,
        )


@app.command("open")
def open_(
    run: Annotated[str, typer.Argument(help="Id of the run.", show_default=False)],
    boundary: Annotated[str, typer.Option("--boundary", help="Name of the boundary.")],
    index: Annotated[int, typer.Option("--index", help="Flat index of the element.")],
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--out", help="File for the opening [default: stdout]."),
    ] = None,
    store: Store = None,
    project: Project = "default",
) -> None:
    """Open one activation to a third party: its leaf, salts and path, nothing else."""
    from zkml_ray.openings import open_activation
    from zkml_ray.stores import open_store
    from zkml_ray.stores.layout import RunLayout

    layout = RunLayout(project, run)
    opening = open_activation(
        open_store(store or default_store_url()), layout, boundary=boundary, index=index
    )
    text = opening.model_dump_json(indent=2)
    if out is None:
        sys.stdout.write(text + "\n")
    else:
        out.write_text(text + "\n")
        _stderr.print(
            f"wrote {out}: leaf {opening.leaf_index} of {boundary}, {len(opening.elements)} "
            f"elements; check it with: zkml-ray verify-opening {out} --manifest MANIFEST",
            markup=False,
            soft_wrap=True,
        )


@app.command("verify-opening")
def verify_opening(
    opening: Annotated[Path, typer.Argument(help="The opening's file.", show_default=False)],
    manifest: Annotated[
        Path, typer.Option("--manifest", help="manifest.json of a run that you have verified.")
    ],
    json_: Json = False,
) -> None:
    """Check an opening against the manifest of a verified run."""
    from zkml_ray.openings import MAX_MANIFEST_BYTES, check_opening
    from zkml_ray.schema.manifest import Manifest

    for path in (opening, manifest):
        if not path.is_file():
            raise ConfigError(f"no such file: {path}")
    parsed = Manifest.parse(manifest.read_bytes(), what=manifest.name, max_bytes=MAX_MANIFEST_BYTES)
    shown = check_opening(opening.read_bytes(), parsed)
    if json_:
        _print_json(
            {
                "ok": True,
                "run_id": parsed.run_id,
                "start_index": shown.start_index,
                "elements": list(shown.elements),
                "values": list(shown.values),
            }
        )
        return
    end = shown.start_index + len(shown.elements) - 1
    _stdout.print(
        f"OPENED elements {shown.start_index}..{end} of run {parsed.run_id}", highlight=False
    )
    for offset, (element, value) in enumerate(zip(shown.elements, shown.values, strict=True)):
        _stdout.print(f"  [{shown.start_index + offset}] {value:.6g} ({element})", markup=False)
    _stdout.print(
        "This holds as far as the manifest does: verify the run first (zkml-ray verify).",
        soft_wrap=True,
    )


@app.command()
def demo(
    workers: Workers = 2,
    digit: Annotated[str, typer.Option("--digit", help="zero, one, ... nine.")] = "seven",
    store: Store = None,
) -> None:
    """Prove a real handwritten digit on two workers, then verify it as an outsider."""
    from zkml_ray.api import prove_distributed
    from zkml_ray.api import verify as verify_run
    from zkml_ray.report import Progress, verdict_lines

    folder = Path(__file__).resolve().parent.parent / "examples" / "digits"
    model, image = folder / "digits.onnx", folder / f"{digit}.json"
    if not model.is_file():
        raise ConfigError("the demo needs a checkout of the repository, with examples/digits")
    if not image.is_file():
        raise ConfigError(f"there is no image {digit}; the digits are zero, one, ... nine")
    _draw(image)
    with Progress(_stderr) as progress:
        result = prove_distributed(
            model, workers, image, store=store, project="demo", listener=progress
        )
    _show_run(result, json_=False)
    _stdout.print()
    verdict = verify_run(
        result.run_id, store=result.store, project="demo", model=model, allow_insecure_srs=True
    )
    for line in verdict_lines(verdict):
        _stdout.print(line, markup=False, highlight=False, soft_wrap=True)


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Options before the command."""
    if version:
        _stdout.print(f"zkml-ray {__version__}", highlight=False)
        raise typer.Exit


def _show_run(result: Run, json_: bool) -> None:
    from zkml_ray.report import run_summary, run_table

    if json_:
        _print_json(
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
    _stdout.print(run_table(result))
    for line in run_summary(result):
        _stdout.print(line, markup=False, highlight=False, soft_wrap=True)


def _plan_options(scale: int, layers_per_chunk: int, dim: list[str] | None, no_salt: bool) -> Any:
    from zkml_ray.stages.plan import PlanOptions

    return PlanOptions(
        scale=scale,
        layers_per_chunk=layers_per_chunk,
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
        _stdout.print("  " + "".join(shades[min(9, int(v * 9.99))] * 2 for v in line), markup=False)


def _print_json(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document, allow_nan=False) + "\n")


def _fail(error: Exception, code: ExitCode) -> None:
    _stderr.print(f"error: {' '.join(str(error).split())}", markup=False, soft_wrap=True)
    if isinstance(error, VerificationError) and (error.expected or error.got):
        _stderr.print(
            f"       expected {error.expected or '?'}, got {error.got or '?'}",
            markup=False,
            soft_wrap=True,
        )
    sys.exit(int(code))


if __name__ == "__main__":
    main()
