"""Commands for verifiers: verify, bundle, export, open, verify-opening.

They import neither Ray nor, but for `--sample-inputs`, a stage. `python -m zkml_ray.verifier` is
`verify` alone.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from zkml_ray.command_line.demands import Demands
from zkml_ray.command_line.groups import add_commands
from zkml_ray.command_line.options import Detail, Json, Place, RunArgument, RunOrBundle, Trust
from zkml_ray.command_line.terminal import (
    print_json,
    run_app,
    say,
    say_commands,
    say_verdict,
    stderr,
    stdout,
)
from zkml_ray.errors import ConfigError, VerificationError
from zkml_ray.words import counted


def verify(
    run: RunOrBundle,
    *,
    place: Place,
    trust: Trust,
    demands: Demands,
    detail: Detail,
    json_: Json = False,
) -> None:
    """Verify a stored run, trusting nothing but the model or a plan digest."""
    from zkml_ray.command_line.tables import verdict_lines
    from zkml_ray.verification import verify as verify_run
    from zkml_ray.verifying.verdict import refusal

    detail = detail.checked()
    try:
        verdict = verify_run(
            run,
            store=place.store,
            project=place.project,
            model=trust.model,
            plan_digest=trust.plan_digest,
            allow_insecure_srs=trust.allow_insecure_srs,
            policy=demands.policy(with_model=trust.model is not None),
            measure=demands.measure(),
            max_seconds=demands.max_seconds,
            max_memory_bytes=demands.max_memory_bytes(),
        )
    except VerificationError as error:
        if json_:
            print_json(refusal(run, error))
        raise
    if json_:
        print_json(verdict.as_json())
        return
    lines = verdict_lines(verdict, verbose=detail.verbose)
    say_verdict(lines[:1] if detail.quiet else lines)


def bundle(
    run: RunArgument,
    out: Annotated[Path, typer.Argument(help="The zip file to write.", show_default=False)],
    *,
    whole_srs: Annotated[
        bool,
        typer.Option("--whole-srs", help="Whole SRS files too, for those who verify by --model."),
    ] = False,
    place: Place,
    json_: Json = False,
) -> None:
    """Write one file that holds all a verifier needs; verify takes it in a run's place."""
    from zkml_ray.verifying.bundle import write_bundle

    size_bytes = write_bundle(place.open(), place.layout(run), out, whole_srs=whole_srs)
    if json_:
        print_json({"run_id": run, "file": str(out), "size_bytes": size_bytes})
        return
    say(f"{out}: {size_bytes:,} bytes")


def export(
    run: RunOrBundle,
    *,
    ezkl: Annotated[
        Path,
        typer.Option("--ezkl", help="New folder for files that ezkl.verify takes."),
    ],
    place: Place,
    json_: Json = False,
) -> None:
    """Write each chunk's proof, key and settings as files that stock ezkl verifies."""
    from zkml_ray.circuits.backend import EZKL_VERSION
    from zkml_ray.verifying.bundle import open_run
    from zkml_ray.verifying.export import export_ezkl

    opened, layout = open_run(run, store=place.store, project=place.project)
    folders = export_ezkl(opened, layout, ezkl)
    if json_:
        print_json({"run_id": layout.run_id, "folders": [str(folder) for folder in folders]})
        return
    say(
        f"{counted(len(folders), 'chunk')} in {ezkl}; index.json there says which instance is "
        f"which leaf. With ezkl {EZKL_VERSION}, for the first, and the others alike:"
    )
    index = json.loads((ezkl / "index.json").read_text(encoding="utf-8"))
    first = folders[0]
    files = [first / "proof.json", first / "settings.json", first / "vk.key"]
    files.append(ezkl / index[first.name]["srs"])
    code = f"import ezkl; print(ezkl.verify({', '.join(repr(str(p)) for p in files)}, True))"
    plain = all(re.fullmatch(r"[\w./+-]+", str(path)) for path in files)
    say_commands(f'python -c "{code}"' if plain else f"python -c {shlex.quote(code)}")
    say(
        "That shows that each proof verifies under the key beside it; zkml-ray verify shows the "
        "rest."
    )


def open_(
    run: RunArgument,
    *,
    boundary: Annotated[str, typer.Option("--boundary", help="Name of the boundary.")],
    index: Annotated[int, typer.Option("--index", help="Flat index of the element.")],
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--out", help="File for the opening [default: stdout]."),
    ] = None,
    place: Place,
) -> None:
    """Open one activation to a third party: its leaf, salts and path, nothing else."""
    from zkml_ray.verifying.openings import open_activation

    opening = open_activation(place.existing(), place.layout(run), boundary=boundary, index=index)
    count, first = len(opening.elements), opening.leaf_index * opening.layout.leaf_size
    alone = "that element alone"
    if count > 1:
        last = first + count - 1
        alone = f"the whole leaf, {count} elements ({first} to {last}), not element {index} alone"
    stderr.print(
        f"this opening shows {alone}, of boundary {boundary}, to whoever has it",
        markup=False,
        highlight=False,
        soft_wrap=not stderr.is_terminal,
    )
    text = opening.model_dump_json(indent=2)
    if out is None:
        sys.stdout.write(text + "\n")
    else:
        out.write_text(text + "\n")
        stderr.print(
            f"wrote {out}: leaf {opening.leaf_index} of {boundary}, {counted(count, 'element')}; "
            f"check it with: zkml-ray verify-opening {out} --manifest MANIFEST",
            markup=False,
            highlight=False,
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
    from zkml_ray.commitments.opening import parse_opening
    from zkml_ray.schema.manifest import Manifest
    from zkml_ray.verifying.openings import check_opening
    from zkml_ray.verifying.reader import MAX_MANIFEST_BYTES

    for path in (opening, manifest):
        if not path.is_file():
            raise ConfigError(f"no such file: {path}")
    parsed = Manifest.parse(manifest.read_bytes(), what=manifest.name, max_bytes=MAX_MANIFEST_BYTES)
    data = opening.read_bytes()
    shown = check_opening(data, parsed)
    boundary = parse_opening(data).boundary
    if json_:
        print_json(
            {
                "ok": True,
                "run_id": parsed.run_id,
                "boundary": boundary,
                "start_index": shown.start_index,
                "elements": list(shown.elements),
                "values": list(shown.values),
            }
        )
        return
    end = shown.start_index + len(shown.elements) - 1
    which = f"element {end}" if end == shown.start_index else f"elements {shown.start_index}..{end}"
    say(
        f"OPENED {which} of boundary {boundary} of run {parsed.run_id}",
        style="bold green",
    )
    for offset, (element, value) in enumerate(zip(shown.elements, shown.values, strict=True)):
        stdout.print(f"  [{shown.start_index + offset}] {value:.6g} ({element})", markup=False)
    say("This holds as far as the manifest does: verify the run first (zkml-ray verify).")


def main() -> None:
    """Run `verify` as a program of its own."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
    add_commands(app, verify)
    run_app(app, "python -m zkml_ray.verifier")
