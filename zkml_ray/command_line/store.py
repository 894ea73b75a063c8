"""Commands that look after a store: runs, fetch, gc, rm, doctor."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from zkml_ray.command_line.options import Json, Place, RunArgument, StoreOption
from zkml_ray.command_line.terminal import confirm, print_json, say
from zkml_ray.config import default_store_url
from zkml_ray.errors import ConfigError, ExitCode
from zkml_ray.words import counted

MIB = 1 << 20


def runs(*, place: Place, json_: Json = False) -> None:
    """List the runs of a project, those under way too."""
    from zkml_ray.run.housekeeping import list_runs

    opened = place.existing()
    found = list_runs(opened, place.project)
    if json_:
        rows = [
            {
                "run_id": run.run_id,
                "state": run.state,
                "created_at": run.created_at,
                "model": run.model,
                "chunks": run.chunks,
                "proofs": run.proofs,
                "srs_trust": run.srs_trust,
                "plan_digest": run.plan_digest,
            }
            for run in found
        ]
        print_json({"store": opened.url, "project": place.project, "runs": rows})
        return
    if not found:
        say(f"no runs in project {place.project} of {opened.url}")
    for run in found:
        line = f"{run.run_id}  {run.created_at}  {run.model}  "
        if run.state == "complete":
            line += f"{counted(run.chunks or 0, 'chunk')}  SRS {run.srs_trust}"
        elif run.state == "under way":
            of = "not planned yet" if run.chunks is None else f"{run.proofs}/{run.chunks} proved"
            line += f"under way, {of}; go on with: zkml-ray resume {run.run_id}"
        else:
            line = f"{run.run_id}  left over from a run that was removed or never begun"
        say(line)


def fetch(
    run: RunArgument,
    folder: Annotated[Path, typer.Argument(help="Where to put the files.", show_default=False)],
    *,
    private: Annotated[
        bool, typer.Option("--private", help="The input, boundary values and salts too.")
    ] = False,
    place: Place,
    json_: Json = False,
) -> None:
    """Download a run's artifacts, each re-hashed."""
    from zkml_ray.stores.fetch import fetch_run

    opened = place.existing()
    fetched = fetch_run(opened, place.layout(run), folder, private=private)
    if json_:
        print_json(
            {
                "run_id": run,
                "folder": str(folder),
                "files": list(fetched.files),
                "size_bytes": fetched.size_bytes,
                "private_left_out": fetched.private,
            }
        )
        return
    say(f"{counted(len(fetched.files), 'file')}, {fetched.size_bytes / MIB:.1f} MiB, in {folder}")
    if fetched.private:
        say(
            f"{counted(fetched.private, 'private file')} stayed in the store (--private fetches "
            "them)"
        )


def gc(
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it, only say what.")] = False,
    older_than: Annotated[
        float,
        typer.Option("--older-than", help="Hours; a run begun later holds all that is shared."),
    ] = 24.0,
    place: Place,
    json_: Json = False,
) -> None:
    """Find what no run of a project refers to, and delete it with --yes."""
    from zkml_ray.run.housekeeping import collect, find_garbage

    if not 0 <= older_than <= 1_000_000:
        raise ConfigError(f"--older-than is a number of hours, 0 or more, not {older_than}")
    opened, age = place.existing(), timedelta(hours=older_than)
    garbage = find_garbage(opened, place.project, older_than=age)
    if yes:
        garbage = collect(opened, place.project, garbage, older_than=age)
    size_bytes = sum(garbage.objects.values())
    if json_:
        print_json(
            {
                "store": opened.url,
                "project": place.project,
                "deleted": yes,
                "objects": sorted(garbage.objects),
                "uploads": [upload.upload_id for upload in garbage.uploads],
                "size_bytes": size_bytes,
                "held_by": list(garbage.held_by),
            }
        )
        return
    for key, size in sorted(garbage.objects.items()):
        say(f"{size:>12}  {key}")
    for upload in garbage.uploads:
        say(f"  unfinished  {upload.key} ({upload.started:%Y-%m-%d %H:%M} UTC)")
    if garbage.held_by:
        say(
            f"nothing shared is touched: {', '.join(garbage.held_by)} under way, begun in the last "
            f"{older_than:g} hours (--older-than)"
        )
    what = f"{counted(len(garbage.objects), 'object')} ({size_bytes / MIB:.1f} MiB) and "
    what += counted(len(garbage.uploads), "unfinished upload")
    say(f"deleted {what}" if yes else f"would delete {what}; do so with --yes")


def rm(
    run: RunArgument,
    *,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Remove a complete run without asking.")
    ] = False,
    place: Place,
    json_: Json = False,
) -> None:
    """Remove a run; a complete one after asking. What it shares with others is left to gc."""
    from zkml_ray.run.housekeeping import describe_run, remove_run

    opened = place.existing()
    if not yes and describe_run(opened, place.layout(run)).state == "complete":
        confirm(
            f"Run {run} of project {place.project} is complete; its proofs are lost for good. "
            "Remove it?",
            option="--yes",
        )
    count = remove_run(opened, place.layout(run))
    if json_:
        print_json({"run_id": run, "project": place.project, "objects": count})
        return
    say(
        f"removed {run}: {counted(count, 'object')}; zkml-ray gc finds what it shared with no "
        "other run"
    )


def doctor(store: StoreOption = None, json_: Json = False) -> None:
    """Find out what a store can do, by doing it; what is written is removed again."""
    from zkml_ray.stores.doctor import examine, is_usable, render

    url = store or default_store_url()
    findings = examine(url)
    usable = is_usable(findings)
    if json_:
        rows = [
            {
                "name": finding.name,
                "ok": finding.ok,
                "needed": finding.needed,
                "detail": finding.detail,
                "seconds": finding.seconds,
            }
            for finding in findings
        ]
        print_json({"store": url, "usable": usable, "findings": rows})
    else:
        say(*render(findings))
        say("runs can be kept here" if usable else "runs cannot be kept here")
    if not usable:
        raise typer.Exit(int(ExitCode.INFRASTRUCTURE))
