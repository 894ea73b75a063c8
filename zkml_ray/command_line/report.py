"""Commands that tell of stored runs: report, show, compare."""

from __future__ import annotations

import json
import webbrowser
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Optional

import typer

from zkml_ray import names
from zkml_ray.command_line.options import Json, Place, RunArgument, TrustedDigest, TrustedModel
from zkml_ray.command_line.terminal import print_json, say, stdout
from zkml_ray.errors import ConfigError, ExitCode, StoreError


def report(
    run: RunArgument,
    *,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--out", "-o", help="The HTML file to write [default: RUN.html]."),
    ] = None,
    trace: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--trace", help="Also write the timeline as Chrome trace JSON, for Perfetto."),
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    model: TrustedModel = None,
    plan_digest: TrustedDigest = None,
    place: Place,
    json_: Json = False,
) -> None:
    """Write a page on a run: verdict, values, timeline, chunks, memory, how to verify it.

    The page is one file that needs no network, and is kept in the store too. It shows no private
    value. A run that was not finished has one as well. Without a trust root the run is verified
    against the plan digest that it names itself, and the page says so.
    """
    from zkml_ray.report.accuracy import boundary_accuracy
    from zkml_ray.report.facts import gather
    from zkml_ray.report.page import render
    from zkml_ray.report.timeline import trace_events

    if model is not None and plan_digest is not None:
        raise ConfigError("give --model or --plan-digest, not both")
    opened, layout = place.existing(), place.layout(run)
    facts = gather(opened, layout, model=model, plan_digest=plan_digest)
    page = render(facts, boundary_accuracy(facts, opened), place=place.as_options()).encode()
    traced = (json.dumps(trace_events(facts), allow_nan=False) + "\n").encode()
    path = out or Path(f"{run}.html")
    path.write_bytes(page)
    if trace is not None:
        trace.write_bytes(traced)
    kept = True
    try:
        opened.put(layout.run_key(names.REPORT), page)
        opened.put(layout.run_key(names.TRACE), traced)
    except (StoreError, OSError):  # a reader of someone else's store
        kept = False
    state = "refused" if facts.refusal else "verified" if facts.verdict else facts.state
    if json_:
        print_json(
            {
                "run_id": run,
                "state": state,
                "file": str(path),
                "trace": None if trace is None else str(trace),
                "kept_in_store": kept,
                "size_bytes": len(page),
            }
        )
    else:
        say(f"{state.upper()}: {path}, {len(page):,} bytes")
        if trace is not None:
            say(f"timeline: {trace} (open it in Perfetto)")
        if not kept:
            say("the store cannot be written to, so the report is not kept there")
    if open_:
        webbrowser.open(path.resolve().as_uri())
    if facts.refusal is not None:
        raise typer.Exit(int(ExitCode.VERIFICATION_FAILED))


def show(run: RunArgument, *, place: Place, json_: Json = False) -> None:
    """Show a stored run: its chunks, boundaries and times. Nothing is verified."""
    from zkml_ray.command_line.run_tables import boundaries_table, chunk_table, head_lines
    from zkml_ray.report.facts import gather
    from zkml_ray.report.figures import figures

    facts = gather(place.existing(), place.layout(run), verified=False)
    told = figures(facts.plan, facts.records, facts.manifest) if facts.plan else None
    if json_:
        print_json(
            {
                "run_id": run,
                "project": facts.project,
                "state": facts.state,
                "failure": facts.failure,
                "model_file": facts.model_file,
                "plan_digest": facts.manifest.plan_sha256 if facts.manifest else "",
                "figures": None if told is None else asdict(told),
                "chunks": [record.model_dump(mode="json") for record in facts.records],
                "boundaries": [
                    {
                        "boundary": boundary.name,
                        "shape": list(boundary.shape),
                        "scale": boundary.scale,
                        "producer": boundary.producer,
                        "consumers": list(boundary.consumers),
                        "leaves": boundary.layout.leaf_count,
                        "revealed": boundary.name in facts.revealed(),
                        "root": facts.commitments().get(boundary.name, ""),
                    }
                    for boundary in (facts.plan.boundaries if facts.plan else ())
                ],
            }
        )
        return
    say(*head_lines(facts, told))
    if facts.plan is not None:
        stdout.print(chunk_table(facts))
        stdout.print(boundaries_table(facts))
    say("Nothing was verified: zkml-ray verify does, and zkml-ray report shows more.")


def compare(
    first: Annotated[str, typer.Argument(help="Id of a run.", show_default=False)],
    second: Annotated[str, typer.Argument(help="Id of another.", show_default=False)],
    *,
    place: Place,
    json_: Json = False,
) -> None:
    """Compare two runs of a project: what they share, and what each took. Nothing is verified."""
    from zkml_ray.command_line.run_tables import comparison_table, sameness_lines
    from zkml_ray.report.facts import gather
    from zkml_ray.report.figures import compared, figures

    opened = place.existing()
    found = [gather(opened, place.layout(run), verified=False) for run in (first, second)]
    told = []
    for facts in found:
        if facts.plan is None:
            raise ConfigError(f"run {facts.run_id} is not planned yet: there is nothing to compare")
        told.append(figures(facts.plan, facts.records, facts.manifest))
    rows, shared = compared(*told), sameness_lines(*found)
    if json_:
        print_json(
            {
                "runs": [first, second],
                "shared": shared,
                "figures": [asdict(entry) for entry in told],
                "compared": [asdict(row) for row in rows],
            }
        )
        return
    say(*shared)
    stdout.print(comparison_table((first, second), rows))
