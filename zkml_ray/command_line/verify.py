"""Commands for verifiers: verify, bundle, export, open, verify-opening.

They import neither Ray nor, but for `--sample-inputs`, a stage. `python -m zkml_ray.verifier` is
`verify` alone.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from zkml_ray import limits
from zkml_ray.command_line.terminal import (
    Json,
    Project,
    RunArgument,
    Store,
    print_json,
    run_app,
    stderr,
    stdout,
)
from zkml_ray.config import default_store_url
from zkml_ray.errors import ConfigError, VerificationError
from zkml_ray.stores.layout import RunLayout

if TYPE_CHECKING:
    from zkml_ray.stages.samples import SampleInputs
    from zkml_ray.verifying.policy import VerifierPolicy

RunOrBundle = Annotated[
    str, typer.Argument(help="Id of the run, or path of its bundle (.zip).", show_default=False)
]

MinScale = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        "--min-scale",
        help="Least bits after the point of inputs and activations "
        f"[{limits.MIN_SCALE} with --model].",
    ),
]
MinWeightBits = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        "--min-weight-bits",
        help=f"Least bits after the point of weights [{limits.MIN_WEIGHT_BITS} with --model].",
    ),
]
MinTableBits = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        "--min-table-bits",
        help="Least log2 of the rows of hinted circuits with functions, above the scale "
        f"[{limits.MIN_TABLE_BITS} with --model].",
    ),
]

SampleInputsOption = Annotated[
    Optional[list[Path]],  # noqa: UP045
    typer.Option(
        "--sample-inputs",
        help="Inputs of your own (.json, .npy, .npz; may be repeated): the plan's quantised model "
        "is compared with yours on them. With --model; needs zkml-ray[prove].",
    ),
]
MinAgreement = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(
        "--min-agreement",
        help="Refuse a plan that gives another largest output on more of the sample inputs: 0.99 "
        "demands the float model's on 99 %.",
    ),
]
MaxError = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(
        "--max-error", help="Refuse a plan whose outputs are further off on the sample inputs."
    ),
]


def verify(
    run: RunOrBundle,
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
    min_scale: MinScale = None,
    min_weight_bits: MinWeightBits = None,
    min_table_bits: MinTableBits = None,
    sample_inputs: SampleInputsOption = None,
    min_agreement: MinAgreement = None,
    max_error: MaxError = None,
    json_: Json = False,
) -> None:
    """Verify a stored run, trusting nothing but the model or a plan digest."""
    from zkml_ray.command_line.tables import verdict_lines
    from zkml_ray.verification import verify as verify_run
    from zkml_ray.verifying.verdict import refusal

    try:
        verdict = verify_run(
            run,
            store=store,
            project=project,
            model=model,
            plan_digest=plan_digest,
            allow_insecure_srs=allow_insecure_srs,
            policy=_policy(model is not None, min_scale, min_weight_bits, min_table_bits),
            measure=_measure(sample_inputs, min_agreement, max_error),
        )
    except VerificationError as error:
        if json_:
            print_json(refusal(run, error))
        raise
    if json_:
        print_json(verdict.as_json())
        return
    for line in verdict_lines(verdict):
        stdout.print(line, markup=False, highlight=False, soft_wrap=True)


def _policy(
    from_model: bool,
    min_scale: int | None,
    min_weight_bits: int | None,
    min_table_bits: int | None,
) -> VerifierPolicy | None:
    """The floors that were asked for; those that were not are the trust root's usual ones."""
    from zkml_ray.verifying.policy import VerifierPolicy

    asked = {
        "min_scale": min_scale,
        "min_weight_bits": min_weight_bits,
        "min_table_bits": min_table_bits,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    if not given:
        return None
    usual = {} if from_model else dict.fromkeys(asked, 1)
    return VerifierPolicy(**{**usual, **given})


def _measure(
    files: list[Path] | None, min_agreement: float | None, max_error: float | None
) -> SampleInputs | None:
    """The measurement that was asked for."""
    if not files:
        if min_agreement is not None or max_error is not None:
            raise ConfigError(
                "--min-agreement and --max-error are measured: name inputs (--sample-inputs)"
            )
        return None
    # Of the extra "prove", and from a higher room: only this option needs it.
    from zkml_ray.stages.samples import SampleInputs

    return SampleInputs(files, min_agreement=min_agreement, max_error=max_error)


def bundle(
    run: RunArgument,
    out: Annotated[Path, typer.Argument(help="The zip file to write.", show_default=False)],
    whole_srs: Annotated[
        bool,
        typer.Option("--whole-srs", help="Whole SRS files too, for those who verify by --model."),
    ] = False,
    store: Store = None,
    project: Project = "default",
    json_: Json = False,
) -> None:
    """Write one file that holds all a verifier needs; verify takes it in a run's place."""
    from zkml_ray.stores import open_store
    from zkml_ray.verifying.bundle import write_bundle

    opened = open_store(store or default_store_url())
    size_bytes = write_bundle(opened, RunLayout(project, run), out, whole_srs=whole_srs)
    if json_:
        print_json({"run_id": run, "file": str(out), "size_bytes": size_bytes})
        return
    stdout.print(f"{out}: {size_bytes:,} bytes", markup=False, highlight=False, soft_wrap=True)


def export(
    run: RunOrBundle,
    ezkl: Annotated[
        Path,
        typer.Option("--ezkl", help="New folder for files that ezkl.verify takes."),
    ],
    store: Store = None,
    project: Project = "default",
    json_: Json = False,
) -> None:
    """Write each chunk's proof, key and settings as files that stock ezkl verifies."""
    from zkml_ray.circuits.backend import EZKL_VERSION
    from zkml_ray.verifying.bundle import open_run
    from zkml_ray.verifying.export import export_ezkl

    opened, layout = open_run(run, store=store, project=project)
    folders = export_ezkl(opened, layout, ezkl)
    if json_:
        print_json({"run_id": layout.run_id, "folders": [str(folder) for folder in folders]})
        return
    first = f"{folders[0]}/"
    lines = [
        f"{len(folders)} chunks in {ezkl}; index.json there says which instance is which leaf. "
        f"With ezkl {EZKL_VERSION}, for each:",
        f'  ezkl.verify("{first}proof.json", "{first}settings.json", "{first}vk.key", '
        f'"{ezkl}/kzg<logrows>.srs", True)',
        "That shows that each proof verifies under the key beside it; zkml-ray verify shows the "
        "rest.",
    ]
    for line in lines:
        stdout.print(line, markup=False, highlight=False, soft_wrap=True)


def open_(
    run: RunArgument,
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
    from zkml_ray.stores import open_store
    from zkml_ray.verifying.openings import open_activation

    layout = RunLayout(project, run)
    opening = open_activation(
        open_store(store or default_store_url()), layout, boundary=boundary, index=index
    )
    text = opening.model_dump_json(indent=2)
    if out is None:
        sys.stdout.write(text + "\n")
    else:
        out.write_text(text + "\n")
        stderr.print(
            f"wrote {out}: leaf {opening.leaf_index} of {boundary}, {len(opening.elements)} "
            f"elements; check it with: zkml-ray verify-opening {out} --manifest MANIFEST",
            markup=False,
            soft_wrap=True,
        )


def verify_opening(
    opening: Annotated[Path, typer.Argument(help="The opening's file.", show_default=False)],
    manifest: Annotated[
        Path, typer.Option("--manifest", help="manifest.json of a run that you have verified.")
    ],
    json_: Json = False,
) -> None:
    """Check an opening against the manifest of a verified run."""
    from zkml_ray.schema.manifest import Manifest
    from zkml_ray.verifying.openings import check_opening
    from zkml_ray.verifying.reader import MAX_MANIFEST_BYTES

    for path in (opening, manifest):
        if not path.is_file():
            raise ConfigError(f"no such file: {path}")
    parsed = Manifest.parse(manifest.read_bytes(), what=manifest.name, max_bytes=MAX_MANIFEST_BYTES)
    shown = check_opening(opening.read_bytes(), parsed)
    if json_:
        print_json(
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
    stdout.print(
        f"OPENED elements {shown.start_index}..{end} of run {parsed.run_id}", highlight=False
    )
    for offset, (element, value) in enumerate(zip(shown.elements, shown.values, strict=True)):
        stdout.print(f"  [{shown.start_index + offset}] {value:.6g} ({element})", markup=False)
    stdout.print(
        "This holds as far as the manifest does: verify the run first (zkml-ray verify).",
        soft_wrap=True,
    )


def main() -> None:
    """Run `verify` as a program of its own."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(verify)
    run_app(app, "python -m zkml_ray.verifier")
