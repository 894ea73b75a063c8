"""The report: one HTML file of a run, complete or not, that needs nothing but itself.

It has no script and may load nothing (its own policy forbids both), so that a model's names, which
anyone may have chosen, are text wherever they appear. What a verification covers and what the
prover merely says are marked apart. Private values are not read.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from datetime import datetime, timezone
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from zkml_ray.report import charts
from zkml_ray.report.accuracy import Accuracy
from zkml_ray.report.facts import Revealed, RunFacts
from zkml_ray.report.graph import drawing, stages
from zkml_ray.report.picture import picture
from zkml_ray.report.timeline import CHECKS, COORDINATOR, RAY, Timeline, timeline
from zkml_ray.words import counted, listed, seconds_in_words, shape_of, size_in_words

if TYPE_CHECKING:
    from jinja2 import Template

    from zkml_ray.schema.manifest import StatedPlaces
    from zkml_ray.schema.plan import BoundaryPlan, Plan

MIB: Final = 1 << 20
WITNESS_SHARE: Final = 0.05
"""The witness is to take no more than this share of proving."""
_BARS: Final = 20
_ROWS: Final = 200
_FOLD: Final = 40
"""Boundaries that are listed without a fold of their own."""
_TEMPLATES: Final = Path(__file__).parent / "templates"


def render(facts: RunFacts, accuracy: Accuracy, *, place: str = "") -> str:
    """The page.

    Args:
        facts: The run.
        accuracy: Its boundaries beside the float model.
        place: Options that say where the run lies, for commands to paste; empty: the default.

    Returns:
        HTML.
    """
    line = timeline(facts)
    return _template().render(
        css=_markup((_TEMPLATES / "report.css").read_text(encoding="utf-8")),
        version=metadata.version("zkml-ray"),
        run_id=facts.run_id,
        project=facts.project,
        model_file=facts.model_file,
        state=facts.state,
        place=f" {place}" if place else "",
        verdict=_verdict(facts),
        badges=_badges(facts, line),
        ends=_ends(facts),
        attempts=[
            {
                "chunk": failure.chunk,
                "attempt": failure.attempt,
                "worker": failure.worker,
                "after": f"{line.shown_s(failure.at_s):.1f} s",
                "cause": failure.cause,
            }
            for failure in line.failures
        ],
        warnings=_warnings(facts),
        timeline=_timeline(facts, line),
        graph=_graph(facts, accuracy),
        memory=_memory(facts),
        accuracy=_accuracy(facts, accuracy),
        commitments=_commitments(facts.plan),
        commands=_commands(facts, place),
        artifacts=[
            {"name": name, "size": f"{ref.size_bytes:,}", "sha256": ref.sha256}
            for name, ref in sorted(facts.manifest.artifacts.items())
        ]
        if facts.manifest
        else [],
        artifact_bytes=size_in_words(
            sum(ref.size_bytes for ref in facts.manifest.artifacts.values())
        )
        if facts.manifest
        else "",
        making=_making(facts),
    )


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html")


def _markup(text: str) -> Any:
    """Text of ours that is not escaped: style and rendered charts, no name of a run's."""
    from markupsafe import Markup

    return Markup(text)


def _verdict(facts: RunFacts) -> dict[str, Any]:
    verdict, refusal = facts.verdict, facts.refusal
    found: dict[str, Any] = {"held": False, "not_claimed": (), "steps": ()}
    if verdict is not None:
        root = {
            "model": "Trust root: the model file of whoever made this page; every circuit and key "
            "was built again from it.",
            "plan digest": "Trust root: a plan digest that whoever made this page was given.",
            "": "Trust root: none of its own. The proofs hold for the plan that the run itself "
            "names; whether that is your model's plan is for you to check (below).",
        }[facts.trust_root]
        return found | {
            "held": True,
            "word": "VERIFIED",
            "tone": "good",
            "lines": [verdict.statement, root],
            "not_claimed": verdict.not_claimed,
            "steps": [f"{step.name} ({step.seconds:.2f} s)" for step in verdict.steps],
        }
    if refusal is not None:
        return found | {
            "word": "REFUSED",
            "tone": "bad",
            "lines": [
                f"This run does not verify: {refusal.message}.".replace("..", "."),
                "Nothing below is proved.",
            ],
        }
    if facts.state == "complete":
        return found | {
            "word": "NOT VERIFIED",
            "tone": "open",
            "lines": ["The run is complete, but was not verified for this page."],
        }
    of = (
        f"{len(facts.records)} of {counted(len(facts.plan.chunks), 'chunk')} proved"
        if (facts.plan)
        else "not planned yet"
    )
    words = {
        "failed": ("FAILED", "bad", "The run stopped before it was complete"),
        "interrupted": ("INTERRUPTED", "open", "The run was interrupted before it was complete"),
        "under way": ("NOT COMPLETE", "open", "The run is under way, or its process was killed"),
    }
    word, tone, said = words[facts.state]
    return found | {
        "word": word,
        "tone": tone,
        "lines": [
            f"{said}: {of}. There is nothing to verify yet.",
            *([facts.failure] if facts.failure else []),
        ],
    }


def _badges(facts: RunFacts, line: Timeline) -> list[dict[str, str]]:
    found = []
    if facts.manifest is not None:
        if facts.manifest.srs_trust == "ceremony":
            found.append({"tone": "good", "text": "SRS: public ceremony"})
        else:
            found.append({"tone": "bad", "text": "INSECURE SRS: its maker can forge"})
    plan = facts.plan
    if plan is not None:
        found.append({"tone": "note", "text": counted(len(plan.chunks), "chunk")})
    workers = {record.worker for record in facts.records}
    if workers:
        found.append({"tone": "note", "text": counted(len(workers), "worker")})
    if line.work:
        total = line.shown_s(max(span.ended_s for span in line.work))
        found.append({"tone": "note", "text": f"{seconds_in_words(total)} in all"})
    if facts.records:
        total_bytes = sum(record.proof_bytes for record in facts.records)
        found.append({"tone": "note", "text": f"{size_in_words(total_bytes)} of proofs"})
    if plan is not None and facts.manifest is not None:
        revealed = set(facts.revealed())
        hidden = [name for name in plan.model_inputs if name not in revealed]
        found.append({"tone": "note", "text": "input hidden" if hidden else "input revealed"})
    return found


def _ends(facts: RunFacts) -> list[dict[str, Any]]:
    plan = facts.plan
    if plan is None or facts.manifest is None:
        return []
    revealed = facts.revealed()
    found = [_places(stated) for stated in facts.manifest.statement.places]
    for role, all_ in (("Input", plan.model_inputs), ("Output", plan.model_outputs)):
        for name in all_:
            boundary = plan.boundary(name)
            shown = revealed.get(name)
            end: dict[str, Any] = {
                "role": role,
                "name": name,
                "shape": shape_of(boundary.shape),
                "hidden": shown is None,
                "picture": None,
                "chart": None,
                "rows": [],
                "summary": "",
                "floats": shown is not None and shown.floats is not None,
                "answer": "",
            }
            if shown is not None:
                end |= _values(shown, is_output=role == "Output")
            found.append(end)
    return found


def _places(stated: StatedPlaces) -> dict[str, Any]:
    """An input that says which rows are looked up; the rows are what circuits begin with."""
    places = stated.places
    first = ", ".join(map(str, places[:_BARS])) + (", ..." if len(places) > _BARS else "")
    return {
        "role": "Input",
        "name": stated.input,
        "shape": "",
        "hidden": False,
        "picture": None,
        "chart": None,
        "rows": [{"n": str(i), "proved": str(place)} for i, place in enumerate(places[:_ROWS])],
        "summary": counted(len(places), "value")
        if len(places) <= _ROWS
        else f"the first {_ROWS} of {len(places):,} values",
        "floats": False,
        "answer": f"Rows of a table of the model were looked up at {first}.",
    }


def _values(shown: Revealed, *, is_output: bool) -> dict[str, Any]:
    values, floats = shown.values, shown.floats
    count = len(values)
    rows = [
        {
            "n": str(index),
            "proved": f"{values[index]:.6g}",
            "float": ("" if floats[index] is None else f"{floats[index]:.6g}") if floats else "",
        }
        for index in range(min(count, _ROWS))
    ]
    found: dict[str, Any] = {
        "rows": rows,
        "summary": counted(count, "value")
        if count <= _ROWS
        else f"the first {_ROWS} of {count:,} values",
        "low": f"{min(values):.4g}",
        "high": f"{max(values):.4g}",
    }
    if not is_output:
        return found | {"picture": picture(shown.boundary.shape, values)}
    best = max(range(count), key=values.__getitem__)
    is_vector = count >= 2 and shown.boundary.shape[-1] == count
    if is_vector:
        found["answer"] = f"The largest of {count:,} values is element {best}."
    elif count == 1:
        found["answer"] = f"The value is {values[0]:.6g}."
    picked = list(range(count))
    if count > _BARS:
        picked = sorted(picked, key=lambda index: -values[index])[:10]
    if count >= 2 and (is_vector or count <= _BARS):
        found["chart"] = _markup(
            charts.outputs_chart(
                [
                    {
                        "n": str(index),
                        "proved": values[index],
                        "float": floats[index] if floats else None,
                        "t": f"element {index}: {values[index]:.6g}",
                    }
                    for index in picked
                ],
                best if is_vector else None,
            )
        )
    return found


def _warnings(facts: RunFacts) -> list[str]:
    told = list(facts.manifest.warnings) if facts.manifest else []
    for log in facts.logs:
        told += [event.text for event in log.events if event.kind == "warned" and event.text]
    return list(dict.fromkeys(told))


def _timeline(facts: RunFacts, line: Timeline) -> dict[str, Any] | None:
    if not line.work:
        return None
    idle = line.idle_s()
    rows = []
    for lane in line.lanes():
        if lane in (COORDINATOR, CHECKS, RAY):
            continue
        mine = [span for span in line.work if span.lane == lane]
        took = {
            kind: sum(span.seconds for span in mine if span.kind == kind)
            for kind in ("keys", "witness", "prove")
        }
        before, between, after = idle.get(lane, (0.0, 0.0, 0.0))
        rows.append(
            {
                "worker": lane,
                "chunks": len({span.chunk for span in mine}),
                "before": f"{before:.1f}",
                "between": f"{between:.1f}",
                "after": f"{after:.1f}",
                **{kind: f"{value:.2f}" for kind, value in took.items()},
            }
        )
    shares, label, witness = _shares(facts)
    cut = sum(length for _, length in line.pauses)
    return {
        "chart": _markup(charts.timeline_chart(line)),
        "caption": "A lane for everyone who worked; hover over a bar for its chunk and seconds."
        + (" A cross is a failed attempt." if line.failures else "")
        + (f" Pauses of {seconds_in_words(cut)} in all are cut out." if cut else ""),
        "sentence": _time_sentence(facts, line),
        "shares": shares,
        "share_label": label,
        "witness": witness,
        "rows": rows,
    }


def _time_sentence(facts: RunFacts, line: Timeline) -> str:
    ray = [span.seconds for span in line.work if span.kind == "start"]
    words = []
    if ray:
        words.append(f"Ray was up after {seconds_in_words(ray[0])}")
    if facts.records:
        busy = sum(r.setup.seconds + r.witness.seconds + r.prove.seconds for r in facts.records)
        first = min(record.setup.started_s for record in facts.records)
        last = max(record.prove.ended_s for record in facts.records)
        wall = line.shown_s(last) - line.shown_s(first)
        words.append(
            f"from the first key to the last proof it took {seconds_in_words(wall)}, in which "
            f"workers were busy for {seconds_in_words(busy)}"
        )
    return ("; ".join(words)[:1].upper() + "; ".join(words)[1:] + ".") if words else ""


def _shares(facts: RunFacts) -> tuple[list[dict[str, Any]], str, str]:
    records = facts.records
    took = {
        "keys": sum(record.setup.seconds for record in records),
        "witness": sum(record.witness.seconds for record in records),
        "prove": sum(record.prove.seconds for record in records),
        "verify": sum(record.verify_s for record in records),
    }
    total = sum(took.values())
    if total <= 0 or took["prove"] <= 0:
        return [], "", ""
    made = sum(record.keys_made for record in records)
    names = {
        "keys": f"keys ({made} made, {len(records) - made} found)",
        "witness": "witness",
        "prove": "prove",
        "verify": "check of proofs",
    }
    shares = [
        {
            "kind": kind,
            "percent": f"{100 * value / total:.2f}",
            "text": f"{names[kind]} {value:.1f} s, {100 * value / total:.1f} %",
        }
        for kind, value in took.items()
    ]
    share = took["witness"] / took["prove"]
    said = "as it should be" if share < WITNESS_SHARE else "more than it should be"
    return (
        shares,
        "Seconds of workers: " + "; ".join(str(entry["text"]) for entry in shares),
        f"The witness took {100 * share:.1f} % of proving; it is to stay under "
        f"{100 * WITNESS_SHARE:.0f} %: {said}.",
    )


def _graph(facts: RunFacts, accuracy: Accuracy) -> dict[str, Any] | None:
    plan = facts.plan
    if plan is None:
        return None
    revealed, roots = facts.revealed(), facts.commitments()
    held = facts.verdict is not None
    records = {record.chunk: record for record in facts.records}
    forecast = {entry.chunk: entry for entry in facts.forecast.chunks} if facts.forecast else {}
    errors = {entry.boundary: entry for entry in accuracy.boundaries}
    at, drawn = stages(plan), drawing(plan)
    links = {boundary.name: f"#boundary-{i}" for i, boundary in enumerate(plan.boundaries)}
    hidden = {boundary.name: boundary.name not in revealed for boundary in plan.boundaries}
    seconds = {chunk: record.prove.seconds for chunk, record in records.items()}
    labels = {
        chunk.id: f"{chunk.id}: {' '.join(chunk.operators)}, {chunk.arguments.kind}, "
        f"2^{chunk.arguments.logrows} rows"
        + (f", proved in {seconds[chunk.id]:.2f} s" if chunk.id in seconds else "")
        for chunk in plan.chunks
    }
    chunks = []
    for chunk in plan.chunks:
        record, expected = records.get(chunk.id), forecast.get(chunk.id)
        chunks.append(
            {
                "id": chunk.id,
                "stage": at[chunk.id],
                "operators": " ".join(chunk.operators),
                "kind": chunk.arguments.kind,
                "logrows": chunk.arguments.logrows,
                "rows": f"{chunk.num_rows:,}",
                "hash_rows": f"{chunk.poseidon_rows:,}",
                "prove": f"{record.prove.seconds:.2f}" if record else "",
                "memory": f"{record.peak_rss_bytes / MIB:,.0f}" if record else "",
                "predicted": f"{expected.peak_bytes / MIB:,.0f}" if expected else "",
                "proof": f"{record.proof_bytes:,}" if record else "",
                "attempts": record.attempts if record else "",
                "worker": record.worker if record else "",
            }
        )
    kinds = sorted({chunk.arguments.kind for chunk in plan.chunks})
    inner = len(plan.boundaries) - len({*plan.model_inputs, *plan.model_outputs})
    return {
        "chart": _markup(
            charts.graph_chart(drawn, hidden=hidden, links=links, seconds=seconds, labels=labels)
        ),
        "caption": "From the input on the left to the output; chunks in one column need nothing of "
        "each other, and stronger colour is longer proving."
        + (
            " A dashed line goes on at the left end of the next row."
            if len(at) and max(at.values()) >= drawn.columns
            else ""
        ),
        "sentence": f"The model was cut into {counted(len(plan.chunks), 'chunk')} "
        f"({listed(kinds)} circuits) with {counted(inner, 'boundary', 'boundaries')} between them. "
        + (
            "Each chunk has a proof of its own; producer and consumers of every boundary show the "
            "same root."
            if held
            else ""
        )
        + ("" if facts.manifest else "Nothing is revealed before the run is complete."),
        "groups": _grouped(
            [
                _boundary(boundary, f"boundary-{i}", hidden[boundary.name], roots, errors, plan)
                for i, boundary in enumerate(plan.boundaries)
            ]
        ),
        "chunks": chunks,
    }


def _grouped(boundaries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Boundaries in one open list, or in folds of many."""
    if len(boundaries) <= _FOLD:
        return [{"title": "", "boundaries": boundaries}]
    found = []
    for start in range(0, len(boundaries), _FOLD):
        part = boundaries[start : start + _FOLD]
        found.append(
            {
                "title": f"{start} to {start + len(part) - 1}: {part[0]['name']} to "
                f"{part[-1]['name']}",
                "boundaries": part,
            }
        )
    return found


def _boundary(
    boundary: BoundaryPlan,
    anchor: str,
    hidden: bool,
    roots: Mapping[str, str],
    errors: Mapping[str, Any],
    plan: Plan,
) -> dict[str, Any]:
    error = errors.get(boundary.name)
    readers = list(boundary.consumers)
    if boundary.name in plan.model_outputs:
        readers.append("the model's output")
    return {
        "id": anchor,
        "name": boundary.name,
        "hidden": hidden,
        "shape": shape_of(boundary.shape),
        "elements": counted(math.prod(boundary.shape), "element"),
        "scale": boundary.scale,
        "leaves": counted(boundary.layout.leaf_count, "leaf", "leaves"),
        "leaf_size": counted(boundary.layout.leaf_size, "element"),
        "producer": boundary.producer or "the model's input",
        "consumers": ", ".join(readers) or "nobody",
        "root": roots.get(boundary.name, "none before the run is complete"),
        "error": ""
        if error is None or error.max_abs_error is None
        else f"{error.max_abs_error:.3g} at most, {error.mean_abs_error or 0:.3g} on average "
        f"(largest value {error.largest:.3g})",
    }


def _memory(facts: RunFacts) -> dict[str, Any] | None:
    plan = facts.plan
    if plan is None or not (facts.records or facts.forecast):
        return None
    measured = {record.chunk: record.peak_rss_bytes / MIB for record in facts.records}
    predicted = (
        {entry.chunk: entry.peak_bytes / MIB for entry in facts.forecast.chunks}
        if facts.forecast
        else {}
    )
    budget = facts.request.choices.memory_bytes if facts.request else None
    rows = []
    for index, chunk in enumerate(plan.chunks):
        have, want = measured.get(chunk.id), predicted.get(chunk.id)
        words = [f"{have:,.0f} MiB measured"] if have is not None else []
        words += [f"{want:,.0f} MiB predicted"] if want is not None else []
        rows.append(
            {
                "n": index,
                "measured": have,
                "predicted": want,
                "t": f"{chunk.id}: {', '.join(words)}",
            }
        )
    said = []
    if measured:
        worst = max(measured, key=measured.__getitem__)
        said.append(f"The most was {measured[worst]:,.0f} MiB, with {worst}")
        if worst in predicted:
            said.append(f"{predicted[worst]:,.0f} MiB were predicted for it")
    if budget is not None:
        over = [chunk for chunk, value in measured.items() if value > budget / MIB]
        said.append(
            f"the budget was {budget / MIB:,.0f} MiB"
            + (f", which {counted(len(over), 'chunk')} exceeded" if over else "")
        )
    else:
        said.append("no budget was set")
    sentence = "; ".join(said) + "."
    return {
        "chart": _markup(charts.memory_chart(rows, budget / MIB if budget else None)),
        "sentence": sentence[:1].upper()
        + sentence[1:]
        + (
            " A worker keeps what earlier chunks left in it, so that later ones measure higher."
            if measured
            else ""
        ),
        "budget": budget is not None,
        "measured": bool(measured),
    }


def _accuracy(facts: RunFacts, accuracy: Accuracy) -> dict[str, Any] | None:
    manifest = facts.manifest
    if manifest is None:
        return None
    lines = []
    comparison = manifest.comparison
    for entry in comparison.outputs if comparison else ():
        if entry.max_abs_error is None:
            lines.append(f"Output {entry.output}: {entry.note}.")
        else:
            limit = (
                "any difference was accepted"
                if entry.tolerance is None
                else f"{entry.tolerance:.3g} was accepted"
            )
            lines.append(
                f"Output {entry.output} differs from the float model's by at most "
                f"{entry.max_abs_error:.3g}; {limit}."
            )
    if comparison and comparison.reference:
        lines.append(f"Float values are from {comparison.reference}.")
    if accuracy.note:
        lines.append(f"Boundary by boundary: {accuracy.note}.")
    rows = [
        {
            "n": index,
            "error": entry.max_abs_error,
            "t": f"boundary {entry.boundary}: {entry.max_abs_error:.3g}",
        }
        for index, entry in enumerate(accuracy.boundaries)
        if entry.max_abs_error is not None
    ]
    return {"lines": lines, "chart": _markup(charts.accuracy_chart(rows)) if rows else None}


def _commitments(plan: Plan | None) -> str:
    if plan is None:
        return ""
    leaves = sum(plan.instance_count(chunk) for chunk in plan.chunks)
    hashing = sum(chunk.poseidon_rows for chunk in plan.chunks)
    rows = sum(chunk.num_rows for chunk in plan.chunks)
    salted = "salted" if plan.commitment.salted else "not salted, so that values can be guessed"
    return (
        f"{counted(len(plan.boundaries), 'boundary', 'boundaries')}, each under a Poseidon-Merkle "
        f"root; leaves are {salted}. The circuits show "
        f"{counted(leaves, 'leaf hash', 'leaf hashes')} as public instances. Hashing takes "
        f"{hashing:,} rows, beside {rows:,} rows of everything else "
        f"({100 * hashing / max(hashing + rows, 1):.1f} %), in columns of its own. Seconds are not "
        "told apart by a proof: docs/benchmarks.md measures them."
    )


def _commands(facts: RunFacts, place: str) -> list[dict[str, str]]:
    manifest = facts.manifest
    if manifest is None:
        return []
    run, digest = shlex.quote(facts.run_id), manifest.plan_sha256
    insecure = " --allow-insecure-srs" if manifest.srs_trust == "insecure" else ""
    where = f" {place}" if place else ""
    found = [
        {
            "what": "On a machine of yours, a verifier without Ray or onnxruntime:",
            "command": f"pip install 'zkml-ray[verify]=={metadata.version('zkml-ray')}'",
        },
        {
            "what": "With your own copy of the model, which alone tells you that it is this model "
            f"(SHA-256 {manifest.model_sha256}):",
            "command": f"zkml-ray verify {run}{where} --model YOUR-COPY.onnx{insecure}",
        },
        {
            "what": "Sooner, with the digest of a plan that you, or someone you trust, re-built. "
            "This is the run's; compare before you use it:",
            "command": f"zkml-ray verify {run}{where} --plan-digest {digest}{insecure}",
        },
        {
            "what": "Without access to the store: ask its owner for a bundle, and verify that "
            "file.",
            "command": f"zkml-ray bundle {run} {run}.zip{where}\n"
            f"zkml-ray verify {run}.zip --plan-digest {digest}{insecure}",
        },
    ]
    if insecure:
        found.append(
            {
                "what": "The SRS of this run was generated on one machine: whoever kept its secret "
                "can forge proofs that verify. --allow-insecure-srs accepts that; leave it out "
                "unless this is a test.",
                "command": f"zkml-ray verify {run}{where} --model YOUR-COPY.onnx   # refuses it",
            }
        )
    return found


def _making(facts: RunFacts) -> list[dict[str, str]]:
    named = facts.manifest or facts.request
    if named is None:
        return []
    rows = [("begun", named.created_at)]
    if facts.plan is not None:
        rows.append(("model's SHA-256", facts.plan.model_sha256))
        rows.append(("model's steps", f"2^-{facts.plan.input_scale} at the input"))
    if facts.manifest is not None:
        rows.append(("plan digest", facts.manifest.plan_sha256))
    source = named.input_source
    rows.append(
        ("input", f"random, from seed {source.seed}" if source.kind == "random" else "given")
    )
    if named.command:
        rows.append(("command", shlex.join(named.command)))
    if facts.manifest is not None:
        versions = facts.manifest.versions
        rows.append(("versions", ", ".join(f"{k} {v}" for k, v in sorted(versions.items()))))
    if facts.records:
        rows.append(("machines", listed(sorted({record.node for record in facts.records}))))
    made = datetime.now(timezone.utc)
    rows.append(("page made", f"{made:%Y-%m-%d %H:%M} UTC"))
    return [{"name": name, "value": value} for name, value in rows]
